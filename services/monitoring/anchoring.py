"""The anchors in the governing register, compared with what was read of each register.

An anchor counts when the ledger has signed it and it is of the very history that was read: then the governing
root commits to that. Whether witnesses had sealed it under the reader's policy is reported beside it. Those of
an earlier policy need not have been the reader's, and what binds the ledger is its own signature.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from ledger.errors import MalformedError, RejectedError, SignatureError
from ledger.governing import GOVERNING
from ledger.monitoring import AnchoredNote, open_anchor, seconds_unanchored
from ledger.witnessing import Policy
from services.monitoring.findings import Finding, FoundError, Kind, shown
from services.monitoring.judging import Judge
from services.monitoring.state import Seen, State

LOOKED_AT: Final = "anchors"
"""The position of the first governing entry that was not yet looked at for an anchor."""

ANCHORED: Final = "anchored"
"""The position of the largest size of a register that an anchor carries."""

MAX_FINDINGS: Final = 20
"""Findings of wrong anchors in one round: the first say it all."""


@dataclass(slots=True)
class Anchors:
    """What was seen of the anchors in one round: `count` of them hold, `unsealed` without the quorum."""

    count: int = 0
    unsealed: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])


class AnchorCheck:
    """Compares the anchors of one ledger. `clock` gives POSIX seconds, `within` is in seconds."""

    def __init__(
        self, state: State, policy: Policy, judge: Judge, within: int, clock: Callable[[], float]
    ) -> None:
        self._state = state
        self._seen = state.seen
        self._policy = policy
        self._judge = judge
        self._within = within
        self._clock = clock

    def check(self, broken: Collection[str]) -> Anchors:
        """Compare every anchor that was not yet; those of `broken` registers are left to a later round."""
        made = Anchors()
        sizes: dict[str, int] = {}
        begin, end = self._seen.position(LOOKED_AT, GOVERNING, 0), self._state.size(GOVERNING)
        left: int | None = None
        for index, entry in enumerate(self._state.mirror.reader(GOVERNING).entries(begin, end), begin):
            try:
                anchor = self._open(index, entry)
                if anchor is None:
                    continue
                if anchor.register not in broken:
                    self._compare(anchor, index)
                    made.count += 1
                    made.unsealed += not anchor.sealed
                    sizes[anchor.register] = max(sizes.get(anchor.register, -1), anchor.opened.checkpoint.size)
                    continue
            except FoundError as error:
                made.findings.append(error.finding)
            # This one is looked at again, and so are those after it.
            left = index if left is None else left
            if len(made.findings) == MAX_FINDINGS:
                break
        for register, size in sizes.items():
            if size > self._seen.position(ANCHORED, register, -1):
                self._seen.set_position(ANCHORED, register, size)
        self._seen.set_position(LOOKED_AT, GOVERNING, end if left is None else left)
        return made

    def _open(self, index: int, entry: bytes) -> AnchoredNote | None:
        mirror = self._state.mirror
        try:
            return open_anchor(entry, index, mirror.origin, mirror.fold, self._policy)
        except (MalformedError, RejectedError, SignatureError) as error:
            raise FoundError(_bad_anchor(index, entry, str(error))) from error

    def _compare(self, anchor: AnchoredNote, index: int) -> None:
        """Compare one anchor with what was read of its register. Raises FoundError."""
        checkpoint = anchor.opened.checkpoint
        latest = self._seen.latest(anchor.register, self._state.size(anchor.register))
        if latest is None or checkpoint.size > latest.size:
            raise FoundError(_beyond(anchor, index, latest))
        self._judge.compare_with_mirror(anchor.register, anchor.opened)

    def overdue(self, registers: Iterable[str]) -> list[Finding]:
        """Find registers whose oldest checkpoint without an anchor is older than is allowed.

        Nothing is found where the policy asks for no witness: then nothing is sealed.
        """
        governing = self._seen.latest(GOVERNING)
        if self._policy.quorum.root is None or governing is None:
            return []
        found = []
        for register in registers:
            anchored = self._seen.position(ANCHORED, register, -1)
            seen = self._seen.next_above(register, anchored)
            if seen is None:
                continue
            elapsed = self._seconds_unanchored(seen, governing)
            if elapsed > self._within:
                found.append(_unanchored(seen, governing, anchored, elapsed))
        return found

    def _seconds_unanchored(self, seen: Seen, governing: Seen) -> int:
        """Return for how long a checkpoint has been without an anchor, by the clocks that say most.

        The witnesses' clocks say it of the governing checkpoint that is served. An operator who has that
        one no longer cosigned stops those clocks, and not this monitor's own.
        """
        mine = int(self._clock()) - seen.at
        first = self._policy.open(seen.first, self._state.mirror.register_origin(seen.register))
        witnessed = seconds_unanchored(
            self._policy.cosignatures(first),
            seen.size,
            self._policy.cosignatures(self._judge.open(governing)),
            governing.size,
            self._policy.quorum,
        )
        return max(mine, witnessed or 0)


def _beyond(anchor: AnchoredNote, index: int, latest: Seen | None) -> Finding:
    anchored, served = anchor.opened.checkpoint.size, latest.size if latest else 0
    return Finding(
        Kind.ROLLBACK,
        anchor.register,
        f"governing entry {index} anchors {anchored} entries, of which {served} are served",
        "what is anchored is served",
        (anchor.opened.note.trimmed(), *([latest.last] if latest else [])),
    )


def _bad_anchor(index: int, entry: bytes, why: str) -> Finding:
    return Finding(
        Kind.ANCHOR,
        GOVERNING,
        f"entry {index} is no anchor that the ledger can have written: {why}",
        "an anchor carries a checkpoint of an open register, signed by the ledger",
        material={"entry": shown(entry)},
    )


def _unanchored(seen: Seen, governing: Seen, anchored: int, elapsed: int) -> Finding:
    last = f"the last anchor is of size {anchored}" if anchored >= 0 else "it was never anchored"
    return Finding(
        Kind.UNANCHORED,
        seen.register,
        f"its sealed checkpoint of size {seen.size} has had no anchor for {elapsed} s; {last}",
        "the governing register carries the checkpoints of every register, soon after they are sealed",
        (seen.first, governing.last),
    )

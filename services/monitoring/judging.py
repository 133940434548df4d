"""A checkpoint as it is served, judged: by the policy, and by all that was seen before.

Whatever the ledger has signed binds it, with or without witnesses. So what was signed is compared before the
quorum is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ledger.checkpoints import OpenedCheckpoint
from ledger.errors import LedgerError, MalformedError, SignatureError
from ledger.notes import UnverifiedNoteError, split_note
from ledger.split_views import compare
from ledger.witnessing import Policy, check_clocks, judge
from services.monitoring.diagnosis import forked
from services.monitoring.findings import Finding, FoundError, Kind, shown
from services.monitoring.state import Seen, State

_LONGEST_ORIGIN: Final = 1_000


class OtherLedgerError(LedgerError):
    """What is served is not of this ledger, of which nothing was ever seen: a wrong address or policy."""


class Judge:
    """Judges checkpoints of one ledger, and keeps those that hold. `clock` gives POSIX seconds."""

    def __init__(self, state: State, policy: Policy, clock: Callable[[], float]) -> None:
        self._state = state
        self._seen = state.seen
        self._policy = policy
        self._clock = clock

    def judge(self, register: str, data: bytes) -> OpenedCheckpoint:
        """Return what is served as a register's checkpoint, verified and kept durably.

        Raises FoundError where it does not verify, does not satisfy the policy, goes back, or contradicts
        what was seen before; OtherLedgerError where it is another ledger's, or none at all, and nothing of
        this one was verified yet.
        """
        origin = self._state.mirror.register_origin(register)
        try:
            opened = self._policy.open(data, origin)
        except (MalformedError, SignatureError) as error:
            other = _of_other(data, self._state.mirror.origin)
            if other and next(self._seen.all(), None) is None:
                raise OtherLedgerError(
                    f"{other}. Is it the wrong address, or the wrong policy file? With another policy file, "
                    "name a new state directory"
                ) from error
            raise FoundError(_unsigned(register, data, error, other, self._seen.latest(register))) from error
        self._compare_with_seen(register, opened)
        try:
            judged = judge(data, self._policy, origin)
            check_clocks(judged.cosignatures, int(self._clock()))
        except SignatureError as error:
            raise FoundError(_unsealed(register, opened, str(error))) from error
        self._keep(register, opened)
        return opened

    def open(self, seen: Seen) -> OpenedCheckpoint:
        """Return a checkpoint that was kept, verified anew."""
        return self._policy.open(seen.last, self._state.mirror.register_origin(seen.register))

    def compare_with_mirror(self, register: str, opened: OpenedCheckpoint) -> None:
        """Compare a signed checkpoint with the history that was read, as far as a signature covers that.

        Raises FoundError with the proof where they differ.
        """
        latest = self._seen.latest(register, self._state.size(register))
        if latest is None or not 0 < opened.checkpoint.size <= latest.size:
            return
        reader = self._state.mirror.reader(register)
        view = compare(opened, self.open(latest), lambda nodes: reader.nodes(nodes, latest.size))
        if view is not None:
            raise FoundError(forked(register, view))

    def _compare_with_seen(self, register: str, opened: OpenedCheckpoint) -> None:
        size = opened.checkpoint.size
        latest = self._seen.latest(register)
        if latest is None:
            return
        same = self._seen.at(register, size)
        if same is not None:
            view = compare(self.open(same), opened, lambda _: {})
            if view is not None:
                raise FoundError(forked(register, view))
        if size < latest.size:
            self.compare_with_mirror(register, opened)
            raise FoundError(_rolled_back(register, self.open(latest), opened))

    def _keep(self, register: str, opened: OpenedCheckpoint) -> None:
        """Keep a checkpoint before its entries are read: it was signed, whatever happens next.

        Without the lines of strangers: one of them may be made to look like somebody's whom another reader
        knows, and then the whole note is worth nothing to him.
        """
        note, size = opened.note.trimmed(), opened.checkpoint.size
        seen = self._seen.at(register, size)
        if seen is None or seen.last != note:
            self._seen.keep(register, size, note, int(self._clock()))


def _of_other(data: bytes, ledger: str) -> str:
    """Say of which other ledger a note says that it is, or that it is none; nothing where it is of this one."""
    stated = data[:_LONGEST_ORIGIN].split(b"\n", 1)[0].decode("utf-8", "backslashreplace").partition("/")[0]
    if stated == ledger:
        return ""
    try:
        split_note(data)
    except MalformedError:
        return f"what this address serves is no checkpoint of a ledger, your policy names {ledger}"
    return f"this address serves {stated!a}, your policy names {ledger}"


def _unsigned(register: str, data: bytes, error: LedgerError, other: str, before: Seen | None) -> Finding:
    why, innocent = str(error), ""
    if other:
        why = other
        innocent = "the address is not that of the ledger, or the policy file is another one's"
    elif isinstance(error, UnverifiedNoteError):
        why = "it is not signed with the key that your policy names"
        innocent = (
            "the policy file is from before a change of the ledger's key, or of another ledger of the same "
            "name, such as an earlier trial"
        )
    return Finding(
        Kind.SIGNATURE,
        register,
        f"what is served as the checkpoint does not verify: {why}",
        "a checkpoint that the ledger has signed with the key in the policy, and no wrong signature on it"
        + (f". An innocent cause: {innocent}" if innocent else ""),
        material={"checkpoint as served": shown(data)},
        before=before.last if before else b"",
    )


def _unsealed(register: str, opened: OpenedCheckpoint, why: str) -> Finding:
    return Finding(
        Kind.UNSEALED,
        register,
        f"the checkpoint that is served does not satisfy the policy: {why}",
        "a checkpoint cosigned by the quorum that the policy asks for. If the ledger has changed its "
        "witnesses, get its new policy from somebody whom you believe",
        (opened.note.trimmed(),),
    )


def _rolled_back(register: str, before: OpenedCheckpoint, now: OpenedCheckpoint) -> Finding:
    sizes = before.checkpoint.size, now.checkpoint.size
    return Finding(
        Kind.ROLLBACK,
        register,
        f"a checkpoint of {sizes[1]} entries is served, after one of {sizes[0]}",
        f"at least the {sizes[0]} entries that the ledger has signed before",
        (before.note.trimmed(), now.note.trimmed()),
        before=before.note.trimmed(),
    )

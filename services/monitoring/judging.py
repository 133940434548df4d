"""A checkpoint as it is served, judged: by the policy, and by all that was seen before.

Whatever the ledger has signed binds it, with or without witnesses. So what was signed is compared before the
quorum is asked for.
"""

from __future__ import annotations

from collections.abc import Callable

from ledger.checkpoints import OpenedCheckpoint
from ledger.errors import MalformedError, SignatureError
from ledger.split_views import compare
from ledger.witnessing import Policy, check_clocks, judge
from services.monitoring.diagnosis import forked
from services.monitoring.findings import Finding, FoundError, Kind, shown
from services.monitoring.state import Seen, State


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
        what was seen before.
        """
        origin = self._state.mirror.register_origin(register)
        try:
            opened = self._policy.open(data, origin)
        except (MalformedError, SignatureError) as error:
            raise FoundError(_unsigned(register, data, str(error))) from error
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


def _unsigned(register: str, data: bytes, why: str) -> Finding:
    return Finding(
        Kind.SIGNATURE,
        register,
        f"what is served as the checkpoint does not verify: {why}",
        "a checkpoint that the ledger has signed with the key in the policy, and no wrong signature on it",
        material={"checkpoint as served": shown(data)},
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
    )

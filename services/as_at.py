"""Where a moment falls among the entries of a register: which were there, which were not, which may have been.

Under a policy with witnesses this rests on verified cosignatures alone. A ledger that withholds some of them
makes more entries undetermined, and none wrong. Without witnesses there is only the ledger's `accepted_at`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from daybook.audit.v1 import audit_service_pb2 as pb
from daybook.audit.v1 import audit_service_pb2_grpc as rpc
from google.protobuf.timestamp_pb2 import Timestamp

from ledger.checkpoints import OpenedCheckpoint
from ledger.entries import Entry
from ledger.errors import MalformedError, ProofError, Reason, SplitViewError, VerificationError
from ledger.hashing import Hash
from ledger.proofs import verify_consistency
from ledger.timeline import Bounds, Timeline
from ledger.values import is_instant, is_period, partial
from ledger.witnessing import Cosignature, Policy, check_clocks
from services.client.errors import RefusedError
from services.client.retrying import call
from services.query_answer import Standing
from services.querying import Register, judge_note

_DAY: Final = len("2026-06-25")


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment somewhere in [earliest, latest], POSIX seconds: a second, or a civil day."""

    text: str
    earliest: int
    latest: int


def moment(text: str) -> Moment:
    """Return the moment that an instant, or a day in Europe/London, means. Raises MalformedError."""
    if not is_instant(text) and not (is_period(text) and len(text) == _DAY):
        raise MalformedError("not a day (YYYY-MM-DD) or an instant in UTC (YYYY-MM-DDTHH:MM[:SS]Z)")
    found = partial(text)
    if found.earliest > time.time():
        raise MalformedError("has not come yet")
    return Moment(text, found.earliest, found.latest)


@dataclass(frozen=True, slots=True)
class Cut:
    """Entries [0, known) were in the register at the moment, those from `later` on were not.

    `known_by` and `later_than` are the witnessed times that show it, POSIX seconds, None where nothing does.
    """

    known: int
    later: int
    known_by: int | None = None
    later_than: int | None = None
    comparable: bool = True

    def standing(self, index: int, _entry: Entry) -> Standing:
        """Tell how an entry stands to the moment."""
        if index < self.known:
            return Standing.BEFORE
        return Standing.AFTER if index >= self.later else Standing.EITHER


def claimed_standing(when: Moment, entry: Entry) -> Standing:
    """Tell how an entry stands to a moment by its `accepted_at`: the operator's word, and no more."""
    accepted = int(datetime.fromisoformat(entry.acceptance.accepted_at).timestamp())
    if accepted <= when.earliest:
        return Standing.BEFORE
    return Standing.AFTER if accepted > when.latest else Standing.EITHER


class Witnesses:
    """Asks a ledger what its witnesses have signed of a register, and verifies it against `register`.

    `timeout` is in seconds for each call, retries included. Methods raise CallError and VerificationError.
    """

    def __init__(
        self, stub: rpc.AuditServiceAsyncStub, policy: Policy, register: Register, timeout: float
    ) -> None:
        self._stub = stub
        self._policy = policy
        self._register = register
        self._timeout = timeout
        self._same_history = {register.size: OpenedCheckpoint(register.judged.checkpoint, register.judged.note)}

    async def cut(self, when: Moment) -> Cut:
        """Return where a moment falls, by the witnesses' times (formats.md, section 15)."""
        known, known_by = await self._known_by(when.earliest)
        later, later_than = await self._later_than(when.latest, known)
        return Cut(known, later, known_by, later_than, self._policy.quorum.comparable)

    async def bounds(self, index: int) -> Bounds:
        """Return when an entry came into the witnessed history, as far as what the ledger shows proves it."""
        return (await self._bounds(index))[1]

    async def _known_by(self, second: int) -> tuple[int, int | None]:
        """Return how many entries a quorum had cosigned by a second, and by when it had."""
        request = pb.GetCheckpointRequest(
            register=self._register.name,
            kind=pb.CHECKPOINT_KIND_SEALED,
            time=Timestamp(seconds=second),
            known_size=self._register.size,
        )
        try:
            response = await call(lambda left: self._stub.GetCheckpoint(request, timeout=left), self._timeout)
        except RefusedError as error:
            if error.reason == Reason.RECORD_UNKNOWN:
                return 0, None
            raise
        judged = judge_note(response.checkpoint, self._policy, self._register.origin)
        by_then = [each for each in judged.cosignatures if each.time <= second]
        if not self._policy.quorum.is_met_by({each.witness for each in by_then}):
            raise VerificationError(
                f"what the ledger shows as its checkpoint as at {_instant(second)}, of "
                f"{judged.checkpoint.size} entries, no quorum had cosigned by then"
            )
        await self._check_same_history(OpenedCheckpoint(judged.checkpoint, judged.note))
        if judged.checkpoint.size == 0:
            return 0, None
        index = judged.checkpoint.size - 1
        known_by = Timeline(by_then, self._policy.quorum).bounds(index).not_after
        return min(judged.checkpoint.size, self._register.size), known_by

    async def _later_than(self, second: int, known: int) -> tuple[int, int | None]:
        """Return from which entry on all came in after a second, and a time at which it was not there.

        What the ledger states is searched; what it found at last is verified, and only that is returned.
        """
        low, high = known, self._register.size
        while low < high:
            middle = (low + high) // 2
            response = await self._asked(middle)
            if response.HasField("not_before") and response.not_before > second:
                high = middle
            else:
                low = middle + 1
        if low == self._register.size:
            return low, None
        bounds = await self.bounds(low)
        if bounds.not_before is None or bounds.not_before <= second:
            raise VerificationError(
                f"the ledger states that entry {low} came in after {_instant(second)}, and shows no "
                "cosignatures that prove it"
            )
        return low, bounds.not_before

    async def _asked(self, index: int) -> pb.GetTimeBoundsResponse:
        request = pb.GetTimeBoundsRequest(register=self._register.name, index=index)
        return await call(lambda left: self._stub.GetTimeBounds(request, timeout=left), self._timeout)

    async def _bounds(self, index: int) -> tuple[pb.GetTimeBoundsResponse, Bounds]:
        response = await self._asked(index)
        cosignatures: list[Cosignature] = []
        for proved in (*response.before, *response.after):
            try:
                opened = self._policy.open(proved.note, self._register.origin)
            except MalformedError as error:
                raise VerificationError(f"a checkpoint that bounds entry {index}: {error}") from error
            await self._check_same_history(opened)
            cosignatures += self._policy.cosignatures(opened)
        check_clocks(cosignatures, int(time.time()))
        return response, Timeline(cosignatures, self._policy.quorum).bounds(index)

    async def _check_same_history(self, opened: OpenedCheckpoint) -> None:
        """Check that a signed checkpoint is of the history that is read.

        Raises ProofError, or SplitViewError with both notes where there are two of one size.
        """
        stated, ours = opened.checkpoint, self._register.judged.checkpoint
        held = self._same_history.setdefault(stated.size, opened)
        if held.checkpoint.root != stated.root:
            raise SplitViewError(
                f"the ledger has signed two histories of {self._register.name}, at {stated.size} entries",
                held.note.trimmed(),
                opened.note.trimmed(),
            )
        if held is not opened or stated.size == 0 or ours.size == 0:
            return
        smaller, larger = sorted((stated, ours), key=lambda checkpoint: checkpoint.size)
        request = pb.GetConsistencyProofRequest(
            register=self._register.name, first_size=smaller.size, second_size=larger.size
        )
        response = await call(lambda left: self._stub.GetConsistencyProof(request, timeout=left), self._timeout)
        hashes = [Hash(each) for each in response.hashes]
        try:
            verify_consistency(smaller.size, larger.size, smaller.root, larger.root, hashes)
        except ProofError as error:
            raise ProofError(
                f"the ledger shows a checkpoint of {stated.size} entries, and does not prove that it is of the "
                f"history of {ours.size} entries that is read ({error})"
            ) from error


def _instant(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

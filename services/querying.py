"""Asking a register a question over gRPC, and believing nothing of the answer that is not proved.

Proving: every entry up to a checkpoint is read, each page under its range proof, one page after the other
without a gap. Whoever filters afterwards has been shown all there is. Preview: the matches that the ledger
chose, each under its inclusion proof; what it left out, nobody can see.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final

from daybook.audit.v1 import audit_service_pb2 as pb
from daybook.audit.v1 import audit_service_pb2_grpc as rpc

from ledger.errors import MalformedError, ProofError, QuorumError, Reason, SignatureError, VerificationError
from ledger.hashing import Hash, leaf_hash
from ledger.proofs import verify_inclusion, verify_range
from ledger.timeline import Timeline
from ledger.witnessing import JudgedCheckpoint, Policy, check_clocks, judge
from services.client.client import only_ledger
from services.client.errors import CallError, RefusedError
from services.client.retrying import call, may_succeed_later, pause
from services.client.streams import answers

TIMEOUT: Final = 60.0
"""Seconds for one call, or without anything new from a stream, retries included."""


@dataclass(frozen=True, slots=True)
class Register:
    """A register at a verified checkpoint, to which every answer about it is then proved.

    `judged` meets the policy's quorum; `note` is its note without the lines of strangers.
    """

    name: str
    ledger_origin: str
    judged: JudgedCheckpoint
    note: bytes

    @property
    def origin(self) -> str:
        """The origin line of the register's checkpoints."""
        return f"{self.ledger_origin}/{self.name}"

    @property
    def size(self) -> int:
        """Number of entries that the checkpoint covers."""
        return self.judged.checkpoint.size

    @property
    def root(self) -> Hash:
        """Root of the tree of these entries."""
        return self.judged.checkpoint.root


@dataclass(frozen=True, slots=True)
class Page:
    """Proved entries with their indices, in order. `end`: the range has been answered up to here.

    `path` makes the inclusion path of entry number k of the page, at the checkpoint's size, sibling first.
    """

    entries: tuple[tuple[int, bytes], ...]
    end: int
    path: Callable[[int], tuple[Hash, ...]]


async def latest(
    stub: rpc.AuditServiceAsyncStub,
    policy: Policy,
    register: str,
    timeout: float,  # noqa: ASYNC109 - sent along as the call's deadline
) -> Register:
    """Fetch a register's latest checkpoint, sealed where the policy asks for witnesses, and verify it.

    Raises CallError, MalformedError for a policy of no or several ledgers, QuorumError where it is not
    sealed, VerificationError.
    """
    origin = only_ledger(policy)
    witnessed = policy.quorum.root is not None
    kind = pb.CHECKPOINT_KIND_SEALED if witnessed else pb.CHECKPOINT_KIND_SIGNED
    request = pb.GetCheckpointRequest(register=register, kind=kind)
    try:
        response = await call(lambda left: stub.GetCheckpoint(request, timeout=left), timeout)
    except RefusedError as error:
        if error.reason == Reason.RECORD_UNKNOWN:
            raise QuorumError(f"{register} has no sealed checkpoint yet") from error
        raise
    if witnessed and response.no_witness:
        raise QuorumError("the ledger says that it has no witnesses, and your policy asks for them")
    judged = judge_note(response.checkpoint, policy, f"{origin}/{register}")
    return Register(register, origin, judged, judged.note.trimmed())


def judge_note(note: bytes, policy: Policy, origin: str) -> JudgedCheckpoint:
    """Judge a note that a ledger sent. Raises VerificationError, QuorumError where only that is not met."""
    try:
        judged = judge(note, policy, origin)
        check_clocks(judged.cosignatures, int(time.time()))
    except QuorumError:
        raise
    except (MalformedError, SignatureError) as error:
        raise SignatureError(f"what the ledger shows as a checkpoint of {origin}: {error}") from error
    return judged


def sealed_by(judged: JudgedCheckpoint, policy: Policy) -> int | None:
    """Return when the quorum had cosigned a checkpoint, POSIX seconds, by its note; None for none."""
    if judged.checkpoint.size == 0:
        return None
    return Timeline(judged.cosignatures, policy.quorum).bounds(judged.checkpoint.size - 1).not_after


async def proved(
    stub: rpc.AuditServiceAsyncStub,
    register: Register,
    end: int,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - seconds without anything new
    *,
    begin: int = 0,
) -> AsyncIterator[Page]:
    """Yield the entries [begin, end) in pages, all of them, each page proved before it is yielded.

    The server is not told what is looked for. A stream that breaks is gone on with for `timeout` seconds.
    Raises VerificationError, which names what does not hold; CallError.
    """
    request = partial(
        pb.QueryRecordsRequest, register=register.name, size=register.size, mode=pb.QUERY_MODE_PROVING
    )

    def verified(answer: pb.QueryRecordsResponse, position: int) -> Page:
        return _proved_page(answer, register, position, end)

    async for page in _pages(stub, request, verified, begin, end, timeout):
        yield page


async def previewed(
    stub: rpc.AuditServiceAsyncStub,
    register: Register,
    filter_: pb.RecordFilter,
    end: int,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - seconds without anything new
) -> AsyncIterator[Page]:
    """Yield what the ledger says are the matches among the entries [0, end), each proved to be there.

    Whether they match is for the caller to see; that there are no others is not proved. Raises as `proved`.
    """
    request = partial(
        pb.QueryRecordsRequest,
        register=register.name,
        size=register.size,
        mode=pb.QUERY_MODE_PREVIEW,
        filter=filter_,
    )

    def verified(answer: pb.QueryRecordsResponse, position: int) -> Page:
        return _previewed_page(answer, register, position, end)

    async for page in _pages(stub, request, verified, 0, end, timeout):
        yield page


async def _pages(
    stub: rpc.AuditServiceAsyncStub,
    request: Callable[..., pb.QueryRecordsRequest],
    verified: Callable[[pb.QueryRecordsResponse, int], Page],
    position: int,
    end: int,
    seconds: float,
) -> AsyncIterator[Page]:
    """Yield verified pages until the range is answered; a stream that breaks is asked for again from there."""
    loop = asyncio.get_running_loop()
    attempt, deadline = 0, loop.time() + seconds
    while position < end:
        try:
            stream = stub.QueryRecords(request(first=position, count=end - position))
            async with aclosing(answers(stream, seconds)) as read:
                async for answer in read:
                    page = verified(answer, position)
                    position = page.end
                    attempt, deadline = 0, loop.time() + seconds
                    yield page
        except CallError as error:
            wait = pause(attempt, error.retry_after)
            if not may_succeed_later(error) or loop.time() + wait >= deadline:
                raise
            attempt += 1
            await asyncio.sleep(wait)
        else:
            if position < end:
                raise VerificationError(
                    f"the ledger ended its answer at entry {position}, and was asked for all up to {end}: "
                    "what follows is held back"
                )


def _proved_page(answer: pb.QueryRecordsResponse, register: Register, position: int, end: int) -> Page:
    """Verify that an answer holds the very next entries. The range is the question's, the root verified."""
    after = position + len(answer.entries)
    if after > end:
        raise VerificationError(f"the ledger sent more than the {end} entries that it was asked for")
    if not answer.entries:
        raise VerificationError(f"the ledger sent no entry where entry {position} follows")
    for index, each in enumerate(answer.entries, position):
        if each.index != index:
            raise VerificationError(
                f"the ledger sent entry {each.index} where entry {index} follows: the answer has a gap, or an "
                "entry twice, or is in another order"
            )
    leaves = [leaf_hash(each.entry) for each in answer.entries]
    hashes = [Hash(each) for each in answer.range_proof.hashes]
    try:
        held = verify_range(position, after, register.size, leaves, hashes, register.root)
    except ProofError as error:
        raise ProofError(
            f"entries {position} to {after - 1} are not those of the checkpoint of {register.size} entries: "
            f"one is altered, left out, repeated or moved ({error})"
        ) from error
    entries = tuple((each.index, each.entry) for each in answer.entries)
    return Page(entries, after, lambda number: held.path(position + number))


def _previewed_page(answer: pb.QueryRecordsResponse, register: Register, position: int, end: int) -> Page:
    if not position < answer.answered <= end:
        raise VerificationError(f"the ledger's preview does not go on from entry {position}")
    last = position - 1
    paths: list[tuple[Hash, ...]] = []
    for each in answer.entries:
        if not last < each.index < answer.answered:
            raise VerificationError(f"the ledger's preview shows entry {each.index} twice, or out of order")
        path = tuple(Hash(one) for one in each.inclusion)
        try:
            verify_inclusion(each.index, register.size, leaf_hash(each.entry), path, register.root)
        except ProofError as error:
            raise ProofError(
                f"what the ledger shows as entry {each.index} is not that of the checkpoint of "
                f"{register.size} entries ({error})"
            ) from error
        last = each.index
        paths.append(path)
    entries = tuple((each.index, each.entry) for each in answer.entries)
    return Page(entries, answer.answered, paths.__getitem__)

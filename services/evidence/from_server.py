"""A ledger's server as the source of a pack: every answer is verified, and selections are made on this side.

Which entries match is found by reading every entry of the register and computing its root: a server cannot
leave one out. Then the receipts of the chosen ones are fetched, and those of the governing entries about their
keys.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

import grpc.aio
from daybook.audit.v1 import audit_service_pb2 as pb
from daybook.audit.v1 import audit_service_pb2_grpc as audit_rpc
from daybook.registration.v1 import registration_service_pb2_grpc as registration_rpc

from ledger.entries import parse_entry
from ledger.errors import MalformedError, RejectedError, VerificationError
from ledger.governing import GOVERNING, Fold
from ledger.hashing import Hash, leaf_hashes
from ledger.receipt_file import NotBefore, Receipt
from ledger.receipts import VerifiedReceipt
from ledger.tree import EMPTY, extend
from ledger.witnessing import Policy, check_clocks, judge
from services.client.channels import Tls, open_channel
from services.client.client import fetch_receipt, only_ledger
from services.client.retrying import call
from services.client.streams import answers
from services.evidence.anchored_notes import AnchoredNotes
from services.evidence.exhibits import check_count
from services.evidence.gathered import Gathered, ReadWhole
from services.evidence.governing import Collector, WholeRegister
from services.evidence.histories import Consistency, Step, steps
from services.evidence.judged_notes import JudgedNote
from services.evidence.key_history import about
from services.evidence.remembering import RememberingPolicy
from services.evidence.selection import Selection

_AT_ONCE: Final = 16
"""Receipts that are fetched at once."""

_Answer = TypeVar("_Answer")


async def gather(
    address: str,
    register: str,
    selection: Selection,
    policy: Policy,
    timeout: float,  # noqa: ASYNC109 - sent along as each call's deadline
    *,
    tls: Tls | None = None,
) -> Gathered:
    """Return the receipts that a selection takes of a register, from the ledger at ``host:port``.

    `timeout` is seconds for each call, and without anything new while a register is read. Raises CallError;
    VerificationError where an answer does not hold; MalformedError for a policy without exactly one ledger.
    """
    async with open_channel(address, tls) as channel:
        return await _Source(channel, policy, timeout).gather(address, register, selection)


class _Source:
    def __init__(self, channel: grpc.aio.Channel, policy: Policy, timeout: float) -> None:
        self._audit = audit_rpc.AuditServiceStub(channel)
        self._registration = registration_rpc.RegistrationServiceStub(channel)
        self._policy = RememberingPolicy.of(policy)
        self._timeout = timeout
        self._origin = only_ledger(policy)

    async def gather(self, address: str, register: str, selection: Selection) -> Gathered:
        whole: ReadWhole | None = None
        if selection.by_index:
            latest, _ = await self._latest(register)
            chosen: Sequence[int] = selection.indices(latest.size)
        else:
            found: list[int] = []

            def look(index: int, entry: bytes) -> None:
                if selection.takes(index, entry.partition(b"\n")[2]):
                    found.append(index)

            whole, _ = await self._read_whole(register, look)
            chosen = found
        check_count(len(chosen))
        fetched = await self._receipts(register, chosen)
        signers = {key for _, verified in fetched for key in verified.signers}
        anchored = AnchoredNotes(self._policy, f"{self._origin}/{register}", chosen, int(time.time()))
        about, register_of_keys = await self._about(register, signers, anchored)
        governing = await self._receipts(GOVERNING, about)
        receipts = await self._bounded(register, fetched, anchored.best())
        governed = [data for data, _ in governing]
        return Gathered(
            receipts,
            governed,
            f"the ledger's server at {address}",
            selection.text,
            await self._consistency(
                steps([*receipts, *governed], [register_of_keys.note] if register_of_keys else [])
            ),
            whole,
            by_index=selection.by_index,
            register_of_keys=register_of_keys,
        )

    async def _latest(self, register: str) -> tuple[ReadWhole, bytes]:
        """Return size, root and note of the latest checkpoint that satisfies the policy."""
        kind = pb.CHECKPOINT_KIND_SIGNED if self._policy.quorum.root is None else pb.CHECKPOINT_KIND_SEALED
        request = pb.GetCheckpointRequest(register=register, kind=kind)
        answer = await call(lambda left: self._audit.GetCheckpoint(request, timeout=left), self._timeout)
        if not answer.checkpoint:
            raise VerificationError(f"{register}: the ledger has no checkpoint that witnesses have cosigned")
        try:
            judged = judge(answer.checkpoint, self._policy, f"{self._origin}/{register}")
        except MalformedError as error:
            raise VerificationError(f"the ledger's checkpoint of {register}: {error}") from error
        check_clocks(judged.cosignatures, int(time.time()))
        return ReadWhole(judged.checkpoint.size, judged.checkpoint.root), answer.checkpoint

    async def _read_whole(self, register: str, look: Callable[[int, bytes], None]) -> tuple[ReadWhole, bytes]:
        """Read every entry under the latest checkpoint, in order; raise VerificationError for another root."""
        latest, note = await self._latest(register)
        edge = EMPTY
        if latest.size:
            request = pb.ReadEntriesRequest(register=register, size=latest.size)
            async with aclosing(answers(self._audit.ReadEntries(request), self._timeout)) as pages:
                async for page in pages:
                    if not page.entries:
                        raise VerificationError(
                            f"{register}: the ledger sent no entry where entry {edge.size} follows"
                        )
                    for index, entry in enumerate(page.entries, edge.size):
                        look(index, entry)
                    edge = extend(edge, leaf_hashes(page.entries)).after
                    if edge.size > latest.size:
                        break
        if edge.size != latest.size or edge.root() != latest.root:
            raise VerificationError(
                f"{register}: the {edge.size} entries that were served are not those of the checkpoint of "
                f"{latest.size}"
            )
        return latest, note

    async def _about(
        self, register: str, signers: set[bytes], anchored: AnchoredNotes
    ) -> tuple[list[int], WholeRegister | None]:
        """Return the indices of the governing entries on who governs, on this register, and on these keys.

        And all of them, where they are few enough for a pack. `anchored` sees each.
        """
        fold = Fold()
        collector = Collector()

        def look(index: int, entry: bytes) -> None:
            nonlocal fold
            collector.add(entry)
            anchored.look(entry)
            try:
                fold = fold.extended(parse_entry(entry))
            except (MalformedError, RejectedError) as error:
                raise VerificationError(f"governing entry {index}: {error}") from error

        _, note = await self._read_whole(GOVERNING, look)
        return about(fold, register, signers), collector.whole(note)

    async def _bounded(
        self,
        register: str,
        fetched: Iterable[tuple[bytes, VerifiedReceipt]],
        best: Mapping[int, JudgedNote],
    ) -> list[bytes]:
        """Return the receipts, bounded from below by anchored checkpoints where these show a later time.

        A server need not put into a receipt what tells against its ledger; whoever packs verifies the proofs.
        """
        steps: dict[Step, Consistency] = {}
        receipts: list[bytes] = []
        for data, verified in fetched:
            found, held = best.get(verified.index), verified.bounds.not_before
            if found is None or found.sealed_at is None or (held is not None and held >= found.sealed_at):
                receipts.append(data)
                continue
            step = Step(register, found.size, verified.size)
            if found.size and step not in steps:
                steps[step] = await self._step(step)
            hashes = steps[step].hashes if found.size else ()
            receipts.append(replace(Receipt.parse(data), not_before=NotBefore(found.note, hashes)).data())
        return receipts

    async def _consistency(self, wanted: Iterable[Step]) -> list[Consistency]:
        """Return the proofs of these steps, as they were served: whoever packs verifies them."""
        return await _several(partial(self._step, step) for step in wanted)

    async def _step(self, step: Step) -> Consistency:
        request = pb.GetConsistencyProofRequest(
            register=step.register, first_size=step.first, second_size=step.second
        )
        answer = await call(lambda left: self._audit.GetConsistencyProof(request, timeout=left), self._timeout)
        return Consistency(step, tuple(Hash(each) for each in answer.hashes))

    async def _receipts(self, register: str, indices: Iterable[int]) -> list[tuple[bytes, VerifiedReceipt]]:
        fetch = partial(fetch_receipt, self._registration, self._policy, self._origin, register)
        return await _several(partial(fetch, index, self._timeout) for index in indices)


async def _several(works: Iterable[Callable[[], Awaitable[_Answer]]]) -> list[_Answer]:
    """Return the answers in order, some asked for at once."""
    places = asyncio.Semaphore(_AT_ONCE)
    return list(await asyncio.gather(*(_within(places, work) for work in works)))


async def _within(places: asyncio.Semaphore, work: Callable[[], Awaitable[_Answer]]) -> _Answer:
    async with places:
        return await work()

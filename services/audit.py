"""AuditService: how auditors read registers and have them proved.

Everything is at published sizes: what is committed and not yet signed does not exist here. A single proof is
O(log n) tile reads from memory or one local file, and is made on the event loop: a thread would cost more
than the work. Whatever grows with the answer goes through a thread, page by page.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, cast

from google.protobuf.timestamp_pb2 import Timestamp

from daybook.audit.v1 import audit_service_pb2 as pb
from daybook.audit.v1.audit_service_pb2_grpc import AuditServiceServicer
from daybook.submission.v1.submission_pb2 import RangeProof, RecordVersion
from ledger.entries import parse_entry
from ledger.errors import Reason, RejectedError, Violation
from ledger.hashing import Hash, leaf_hash
from ledger.ledger import Ledger
from ledger.reader import RegisterReader, check_size
from ledger.values import is_register, is_uuid
from services.directory import Listed, directory
from services.interceptors import Context
from services.published import Published, SignedCheckpoint

PAGE_ENTRIES: Final = 256
"""Entries in one message of ReadEntries, at the most."""

PAGE_BYTES: Final = 512 * 1024
"""Bytes of entries after which a message of ReadEntries takes no more: gRPC clients refuse over 4 MiB."""

PAGE_REGISTERS: Final = 1_000
"""Registers in one page of ListRegisters, at the most."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class AuditServicer(AuditServiceServicer):
    """Answers auditors. Only for the event loop's thread.

    Setting `stopping` ends every WatchCheckpoints stream, so that a graceful stop need not wait for them.
    """

    def __init__(self, ledger: Ledger, published: Published, stopping: asyncio.Event) -> None:
        self._ledger = ledger
        self._published = published
        self._stopping = stopping

    async def ListRegisters(  # noqa: N802
        self,
        request: pb.ListRegistersRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.ListRegistersResponse:
        """List the registers that published governing entries have opened, in byte order of their names."""
        if request.page_size > PAGE_REGISTERS:
            raise _invalid("page_size", f"at most {PAGE_REGISTERS} registers a page")
        if request.page_token and not is_register(request.page_token):
            raise _invalid("page_token", "not a `next_page_token` of this call")
        found = directory(self._ledger, self._published)
        rest = [one for one in found.registers if one.name > request.page_token]
        page = rest[: request.page_size or PAGE_REGISTERS]
        return pb.ListRegistersResponse(
            registers=map(_summary, page),
            next_page_token=page[-1].name if len(page) < len(rest) else "",
            governing_size=found.governing_size,
        )

    async def GetCheckpoint(  # noqa: N802
        self,
        request: pb.GetCheckpointRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.GetCheckpointResponse:
        """Return a register's checkpoint: the latest, or as it was at a size or a time."""
        register = request.register
        latest = self._published.latest(register)
        _check_kind(request.kind)
        if request.kind == pb.CHECKPOINT_KIND_SEALED:
            return pb.GetCheckpointResponse(register=register, no_witness=True)
        match request.WhichOneof("as_at"):
            case "size":
                found = self._published.at_most(register, check_size(request.size, latest.size))
            case "time":
                moment = _moment(request.time)
                found = await asyncio.to_thread(self._as_at, register, latest.size, moment)
            case _:
                found = latest
        return pb.GetCheckpointResponse(
            register=register, size=found.size, checkpoint=found.note, sealed=False, no_witness=True
        )

    def _as_at(self, register: str, size: int, moment: datetime) -> SignedCheckpoint:
        accepted = _AcceptanceTimes(self._ledger.reader(register), size)
        return self._published.at_most(register, bisect_right(accepted, moment))

    async def GetInclusionProof(  # noqa: N802
        self,
        request: pb.GetInclusionProofRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.GetInclusionProofResponse:
        """Prove that one entry stands in a tree (RFC 6962, section 2.1.1)."""
        latest = self._published.latest(request.register)
        size = check_size(request.size, latest.size)
        match request.WhichOneof("entry"):
            case "index":
                index = request.index
            case "record":
                index = self._index_of(request.register, request.record)
            case _:
                raise _invalid("entry", "say which entry: `index` or `record`")
        if index >= latest.size:
            raise _no_entry(request.register, index, latest.size)
        if index >= size:
            raise _invalid("size", f"entry {index} is not in a tree of size {size}")
        reader = self._ledger.reader(request.register)
        return pb.GetInclusionProofResponse(
            register=request.register,
            index=index,
            size=size,
            leaf_hash=leaf_hash(reader.entry(index)),
            hashes=reader.inclusion(index, size),
            checkpoint=self._note(request.register, size),
        )

    def _index_of(self, register: str, record: RecordVersion) -> int:
        if not is_uuid(record.record_id):
            raise _invalid("record.record_id", "not a uuid, lowercase with hyphens")
        if record.version == 0:
            raise _invalid("record.version", "versions count from 1")
        key = bytes.fromhex(record.record_id.replace("-", ""))
        for found in self._ledger.store.versions(register, [key]):
            if found.version == record.version:
                return found.index
        raise RejectedError(
            Reason.RECORD_UNKNOWN,
            f"{register} has no version {record.version} of record {record.record_id}",
            detail={"record_id": record.record_id, "version": str(record.version)},
        )

    async def GetConsistencyProof(  # noqa: N802
        self,
        request: pb.GetConsistencyProofRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.GetConsistencyProofResponse:
        """Prove that a tree only grew from one size to another (RFC 6962, section 2.1.2)."""
        latest = self._published.latest(request.register)
        first = request.first_size
        second = check_size(request.second_size, latest.size)
        if first == 0:
            raise _invalid("first_size", "every tree extends the empty one: there is nothing to prove from 0")
        check_size(first, latest.size)
        if first > second:
            raise _invalid("first_size", f"a tree of size {second} cannot extend one of size {first}")
        return pb.GetConsistencyProofResponse(
            register=request.register,
            first_size=first,
            second_size=second,
            hashes=self._ledger.reader(request.register).consistency(first, second),
            checkpoint=self._note(request.register, second),
        )

    async def GetRangeProof(  # noqa: N802
        self,
        request: pb.GetRangeProofRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.GetRangeProofResponse:
        """Prove that a run of entries stands in a tree (formats.md, section 14)."""
        latest = self._published.latest(request.register)
        size = check_size(request.size, latest.size)
        if request.count == 0:
            raise _invalid("count", "a range proof is of one entry at least")
        end = _end(request.first, request.count, size, latest.size)
        hashes = self._ledger.reader(request.register).range_proof(request.first, end, size)
        return pb.GetRangeProofResponse(
            register=request.register,
            range_proof=RangeProof(first=request.first, count=request.count, size=size, hashes=hashes),
            checkpoint=self._note(request.register, size),
        )

    async def ReadEntries(  # noqa: N802
        self,
        request: pb.ReadEntriesRequest,
        context: Context,  # noqa: ARG002
    ) -> AsyncIterator[pb.ReadEntriesResponse]:
        """Stream a run of entries in order, each message with the proof of its own entries."""
        latest = self._published.latest(request.register)
        size = check_size(request.size, latest.size)
        end = _end(request.first, request.count, size, latest.size) if request.count else size
        if request.first > end:
            raise _invalid("first", f"entry {request.first} is not in a tree of size {size}")
        pages = _pages(self._ledger.reader(request.register), request.first, end, size)
        checkpoint = self._note(request.register, size)
        # One page at a time, made when the client has taken the one before.
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            yield pb.ReadEntriesResponse(
                register=request.register,
                entries=page.entries,
                range_proof=RangeProof(
                    first=page.first, count=len(page.entries), size=size, hashes=page.hashes
                ),
                checkpoint=checkpoint,
            )
            checkpoint = b""

    async def WatchCheckpoints(  # noqa: N802
        self,
        request: pb.WatchCheckpointsRequest,
        context: Context,  # noqa: ARG002
    ) -> AsyncIterator[pb.WatchCheckpointsResponse]:
        """Stream a register's checkpoints as they come, each with the proof that it extends the one before."""
        register = request.register
        self._published.latest(register)
        _check_kind(request.kind)
        if request.kind == pb.CHECKPOINT_KIND_SEALED:
            raise _not_yet("this ledger has no witnesses: no checkpoint is ever sealed")
        previous = check_size(request.after_size, self._published.latest(register).size)
        if request.after_size == 0:
            previous = 0
        while True:
            changed = self._published.changed()
            latest = self._published.latest(register)

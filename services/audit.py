"""AuditService: how auditors read registers and have them proved.

Everything is at published sizes: what is committed and not yet signed does not exist here. A single proof is
O(log n) tile reads; from memory or one local file it is made on the event loop: a thread would cost more than
the work. Whatever grows with the answer goes through a thread, page by page.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar, TypeVarTuple

from daybook.audit.v1 import audit_service_pb2 as pb
from daybook.audit.v1.audit_service_pb2_grpc import AuditServiceServicer
from daybook.submission.v1.submission_pb2 import RangeProof
from google.protobuf.timestamp_pb2 import Timestamp

from ledger.entries import parse_entry
from ledger.errors import Reason, RejectedError
from ledger.hashing import Hash, leaf_hash
from ledger.ledger import LedgerView
from ledger.reader import RegisterReader, check_size
from ledger.receipts import time_findings
from ledger.sealing import SealedCheckpoint
from ledger.values import is_register
from services.counting import LAG_DAYS, Summary, nothing_counted
from services.directory import Listed, directory
from services.evidence.exporting import Exporter
from services.finding import Findings
from services.found_pages import findings_response, place_after
from services.lookup import find_entry, invalid
from services.places import Places
from services.previewing import query_of, steps
from services.published import Published, SignedCheckpoint
from services.receiving import Context
from services.time_bounds import BoundsProver, ProvedBounds, ProvedNote

PAGE_ENTRIES: Final = 256
"""Entries in one message of ReadEntries, at the most."""

PAGE_BYTES: Final = 512 * 1024
"""Bytes of entries after which a message of ReadEntries takes no more: gRPC clients refuse over 4 MiB."""

MAX_READERS: Final = 64
"""Streams of entries at once, of at most some 6 MiB each."""

MAX_LOOKING: Final = 2
"""Previews of queries that look through entries at once; the others take turns with them, step by step."""

MAX_WATCHERS: Final = 256
"""Streams of checkpoints at once: every turn makes a proof for each."""

MAX_LISTINGS: Final = 4
"""Pages of findings asked for at once; they are read one after the other."""

MAX_EXPORTS: Final = 1
"""Evidence packs made at once, in a thread: one of a thousand entries is seconds of work."""

PAGE_REGISTERS: Final = 1_000
"""Registers in one page of ListRegisters, at the most."""

PAGE_FINDINGS: Final = 1_000
"""Findings in one page of ListFindings, at the most."""

_Asked = TypeVarTuple("_Asked")
_Result = TypeVar("_Result")


class AuditServicer(AuditServiceServicer):
    """Answers auditors. Only for the event loop's thread.

    Setting `stopping` ends every WatchCheckpoints stream, so that a graceful stop need not wait for them. With
    `apart` nothing is read from the store in the event loop: where the store is another process. `counted`
    tells what a projector has counted of registers, `findings` what detections have found where they run.
    """

    def __init__(
        self,
        ledger: LedgerView,
        published: Published,
        bounds: BoundsProver,
        stopping: asyncio.Event,
        *,
        apart: bool = False,
        counted: Callable[[], Mapping[str, Summary]] = nothing_counted,
        findings: Findings | None = None,
    ) -> None:
        self._counted = counted
        self._findings = findings
        self._ledger = ledger
        self._published = published
        self._bounds = bounds
        self._stopping = stopping
        self._apart = apart
        self._readers = Places(MAX_READERS, "reads of entries")
        self._looking = asyncio.Semaphore(MAX_LOOKING)
        self._watchers = Places(MAX_WATCHERS, "watchers")
        self._listings = Places(MAX_LISTINGS, "lists of findings")
        self._exports = Places(MAX_EXPORTS, "exports of evidence")
        self._exporter = Exporter(ledger, published)

    async def _read(self, work: Callable[[*_Asked], _Result], *asked: *_Asked) -> _Result:
        return await asyncio.to_thread(work, *asked) if self._apart else work(*asked)

    async def ListRegisters(
        self,
        request: pb.ListRegistersRequest,
        context: Context,
    ) -> pb.ListRegistersResponse:
        """List the registers that published governing entries have opened, in byte order of their names."""
        if request.page_size > PAGE_REGISTERS:
            raise invalid("page_size", f"at most {PAGE_REGISTERS} registers a page")
        if request.page_token and not is_register(request.page_token):
            raise invalid("page_token", "not a `next_page_token` of this call")
        found = await self._read(lambda: directory(self._ledger, self._published, self._counted()))
        rest = [one for one in found.registers if one.name > request.page_token]
        page = rest[: request.page_size or PAGE_REGISTERS]
        return pb.ListRegistersResponse(
            registers=map(_summary, page),
            next_page_token=page[-1].name if len(page) < len(rest) else "",
            governing_size=found.governing_size,
        )

    async def GetCheckpoint(
        self,
        request: pb.GetCheckpointRequest,
        context: Context,
    ) -> pb.GetCheckpointResponse:
        """Return a register's checkpoint: the latest, or as it was at a size or a time."""
        register = request.register
        latest = self._published.latest(register)
        check_size(request.known_size, latest.size)
        response = pb.GetCheckpointResponse(
            register=register, no_witness=self._published.policy is None, known_size=request.known_size
        )
        if _means_sealed(request.kind, self._published):
            if response.no_witness:
                return response
            found = await self._sealed_as_at(request, latest.size)
            response.size, response.checkpoint, response.sealed = found.size, found.note, True
        else:
            signed = await self._signed_as_at(request, latest)
            response.size, response.checkpoint = signed.size, signed.note
        first, second = sorted((request.known_size, response.size))
        if 0 < first < second:
            reader = self._ledger.reader(register)
            response.consistency.extend(await self._read(reader.consistency, first, second))
        return response

    async def _sealed_as_at(self, request: pb.GetCheckpointRequest, latest: int) -> SealedCheckpoint:
        """Return the sealed checkpoint that is asked for; as at a time by the witnesses' word."""
        register = request.register
        reader = self._published.sealed_reader
        found: SealedCheckpoint | None = None
        match request.WhichOneof("as_at"):
            case "size" if reader is not None and request.size:
                found = await self._read(reader.last_up_to, register, check_size(request.size, latest))
            case "time" if reader is not None:
                time = int(_moment(request.time).timestamp())
                known = await self._bounds.known_by(register, time, latest)
                found = await self._read(reader.witnessed_by, register, time, known)
            case _:
                found = await self._read(self._published.sealed, register)
        if found is None:
            raise RejectedError(
                Reason.RECORD_UNKNOWN,
                f"{register} has no sealed checkpoint as at then",
                detail={"register": register},
            )
        return found

    async def _signed_as_at(
        self, request: pb.GetCheckpointRequest, latest: SignedCheckpoint
    ) -> SignedCheckpoint:
        register = request.register
        match request.WhichOneof("as_at"):
            case "size":
                return await self._read(
                    self._published.at_most, register, check_size(request.size, latest.size)
                )
            case "time":
                moment = _moment(request.time)
                return await asyncio.to_thread(self._as_at, register, latest.size, moment)
            case _:
                return latest

    def _as_at(self, register: str, size: int, moment: datetime) -> SignedCheckpoint:
        reader = self._ledger.reader(register)
        covered = bisect_right(range(size), moment, key=lambda index: _accepted(reader.entry(index)))
        return self._published.at_most(register, covered)

    async def GetTimeBounds(
        self,
        request: pb.GetTimeBoundsRequest,
        context: Context,
    ) -> pb.GetTimeBoundsResponse:
        """State when an entry came into the witnessed history, and prove it (formats.md, section 15)."""
        register = request.register
        latest = self._published.latest(register)
        index = await self._read(find_entry, self._ledger.store, request, latest.size)
        proved = await self._bounds.prove(register, index)
        return await self._read(_bounds_response, self._ledger.reader(register), index, proved, latest)

    async def GetInclusionProof(
        self,
        request: pb.GetInclusionProofRequest,
        context: Context,
    ) -> pb.GetInclusionProofResponse:
        """Prove that one entry stands in a tree (RFC 6962, section 2.1.1)."""
        return await self._read(self._inclusion, request)

    def _inclusion(self, request: pb.GetInclusionProofRequest) -> pb.GetInclusionProofResponse:
        latest = self._published.latest(request.register)
        size = check_size(request.size, latest.size)
        index = find_entry(self._ledger.store, request, latest.size)
        if index >= size:
            raise invalid("size", f"entry {index} is not in a tree of size {size}")
        reader = self._ledger.reader(request.register)
        return pb.GetInclusionProofResponse(
            register=request.register,
            index=index,
            size=size,
            leaf_hash=leaf_hash(reader.entry(index)),
            hashes=reader.inclusion(index, size),
            checkpoint=self._note(request.register, size),
        )

    async def GetConsistencyProof(
        self,
        request: pb.GetConsistencyProofRequest,
        context: Context,
    ) -> pb.GetConsistencyProofResponse:
        """Prove that a tree only grew from one size to another (RFC 6962, section 2.1.2)."""
        return await self._read(self._consistency, request)

    def _consistency(self, request: pb.GetConsistencyProofRequest) -> pb.GetConsistencyProofResponse:
        latest = self._published.latest(request.register)
        first = request.first_size
        second = check_size(request.second_size, latest.size)
        if first == 0:
            raise invalid("first_size", "every tree extends the empty one: there is nothing to prove from 0")
        check_size(first, latest.size)
        if first > second:
            raise invalid("first_size", f"a tree of size {second} cannot extend one of size {first}")
        return pb.GetConsistencyProofResponse(
            register=request.register,
            first_size=first,
            second_size=second,
            hashes=self._ledger.reader(request.register).consistency(first, second),
            checkpoint=self._note(request.register, second),
        )

    async def GetRangeProof(
        self,
        request: pb.GetRangeProofRequest,
        context: Context,
    ) -> pb.GetRangeProofResponse:
        """Prove that a run of entries stands in a tree (formats.md, section 14)."""
        return await self._read(self._range, request)

    def _range(self, request: pb.GetRangeProofRequest) -> pb.GetRangeProofResponse:
        latest = self._published.latest(request.register)
        size = check_size(request.size, latest.size)
        if request.count == 0:
            raise invalid("count", "a range proof is of one entry at least")
        end = _end(request.first, request.count, size, latest.size)
        hashes = self._ledger.reader(request.register).range_proof(request.first, end, size)
        return pb.GetRangeProofResponse(
            register=request.register,
            range_proof=RangeProof(first=request.first, count=request.count, size=size, hashes=hashes),
            checkpoint=self._note(request.register, size),
        )

    async def ReadEntries(
        self,
        request: pb.ReadEntriesRequest,
        context: Context,
    ) -> AsyncIterator[pb.ReadEntriesResponse]:
        """Stream a run of entries in order, each message with the proof of its own entries."""
        end, size = self._range_asked(request)
        pages = _pages(self._ledger.reader(request.register), request.first, end, size)
        checkpoint = await self._read(self._note, request.register, size)
        with self._readers.one():
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

    def _range_asked(self, request: pb.ReadEntriesRequest | pb.QueryRecordsRequest) -> tuple[int, int]:
        """Return where the range of entries that is asked for ends, and the size that its proofs are for."""
        latest = self._published.latest(request.register)
        size = check_size(request.size, latest.size)
        end = _end(request.first, request.count, size, latest.size) if request.count else size
        check_size(request.first, latest.size)
        if request.first > end:
            raise invalid("first", f"entry {request.first} is not in a tree of size {size}")
        return end, size

    async def WatchCheckpoints(
        self,
        request: pb.WatchCheckpointsRequest,
        context: Context,
    ) -> AsyncIterator[pb.WatchCheckpointsResponse]:
        """Stream a register's checkpoints as they come, each with the proof that it extends the one before."""
        register = request.register
        sealed = _means_sealed(request.kind, self._published)
        if sealed and self._published.policy is None:
            raise _not_yet("this ledger has no witnesses: no checkpoint is ever sealed")
        previous = request.after_size
        check_size(previous, self._published.latest(register).size)
        latest = self._latest_sealed if sealed else self._published.latest
        with self._watchers.one():
            async for response in self._checkpoints_after(register, previous, latest):
                response.sealed = sealed
                yield response

    def _latest_sealed(self, register: str) -> SealedCheckpoint | None:
        if self._published.policy is None:
            raise _not_yet("this ledger has no witnesses any more: no checkpoint is sealed")
        return self._published.sealed(register)

    async def _checkpoints_after(
        self,
        register: str,
        previous: int,
        latest_of: Callable[[str], SignedCheckpoint | SealedCheckpoint | None],
    ) -> AsyncIterator[pb.WatchCheckpointsResponse]:
        stirred = asyncio.Event()
        stopping = asyncio.create_task(self._stopping.wait())
        stopping.add_done_callback(lambda _: stirred.set())
        try:
            with self._published.stirring(register, stirred):
                while True:
                    # Before looking: what happens from here on is seen the next time round.
                    stirred.clear()
                    latest = await self._read(latest_of, register)
                    if latest is not None and latest.size > previous:
                        yield await self._read(self._step, register, previous, latest)
                        previous = latest.size
                    elif self._stopping.is_set():
                        raise RejectedError(Reason.DRAINING, "this server is stopping; watch another, or again")
                    else:
                        await stirred.wait()
        finally:
            stopping.cancel()

    def _step(
        self, register: str, previous: int, latest: SignedCheckpoint | SealedCheckpoint
    ) -> pb.WatchCheckpointsResponse:
        proof = self._ledger.reader(register).consistency(previous, latest.size) if previous else ()
        return pb.WatchCheckpointsResponse(
            register=register,
            size=latest.size,
            checkpoint=latest.note,
            previous_size=previous,
            consistency=proof,
        )

    async def QueryRecords(
        self,
        request: pb.QueryRecordsRequest,
        context: Context,
    ) -> AsyncIterator[pb.QueryRecordsResponse]:
        """Stream what answers a question: everything with proofs, or the matches that are found here."""
        if request.mode not in pb.QueryMode.values():
            raise invalid("mode", "no such mode")
        preview = request.mode == pb.QUERY_MODE_PREVIEW
        end, size = self._range_asked(request)
        answering = self._previewed if preview else self._proved
        checkpoint = await self._read(self._note, request.register, size)
        with self._readers.one():
            async with aclosing(answering(request, end, size)) as answers:
                async for response in answers:
                    response.register = request.register
                    response.checkpoint = checkpoint
                    yield response
                    checkpoint = b""

    async def _proved(
        self, request: pb.QueryRecordsRequest, end: int, size: int
    ) -> AsyncGenerator[pb.QueryRecordsResponse, None]:
        pages = _pages(self._ledger.reader(request.register), request.first, end, size)
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            count = len(page.entries)
            yield pb.QueryRecordsResponse(
                entries=(
                    pb.IndexedEntry(index=index, entry=entry)
                    for index, entry in enumerate(page.entries, page.first)
                ),
                range_proof=RangeProof(first=page.first, count=count, size=size, hashes=page.hashes),
                answered=page.first + count,
            )

    async def _previewed(
        self, request: pb.QueryRecordsRequest, end: int, size: int
    ) -> AsyncGenerator[pb.QueryRecordsResponse, None]:
        """Look through the range, a step at a time; one without a match is told too, and shows who has left."""
        reader = self._ledger.reader(request.register)
        found = steps(reader, query_of(request.filter), request.first, end, size)
        while True:
            async with self._looking:
                step = await asyncio.to_thread(next, found, None)
            if step is None:
                return
            yield pb.QueryRecordsResponse(
                entries=(
                    pb.IndexedEntry(index=each.index, entry=each.entry, inclusion=each.inclusion)
                    for each in step.found
                ),
                not_proved=True,
                answered=step.end,
            )

    async def ListFindings(
        self,
        request: pb.ListFindingsRequest,
        context: Context,
    ) -> pb.ListFindingsResponse:
        """List what the detections have found in a register: the operator's word, proof of nothing."""
        if self._findings is None:
            raise _not_yet("ListFindings is not served here: this ledger looks for nothing by itself")
        latest = self._published.latest(request.register)
        check_size(request.size, latest.size)
        most, after = request.page_size or PAGE_FINDINGS, place_after(request.page_token)
        if most > PAGE_FINDINGS:
            raise invalid("page_size", f"at most {PAGE_FINDINGS} findings a page")
        with self._listings.one():
            page = await self._findings.page(request.register, after, most)
        check_size(request.size, page.size)
        return findings_response(request.register, page)

    async def ExportEvidence(
        self,
        request: pb.ExportEvidenceRequest,
        context: Context,
    ) -> AsyncIterator[pb.ExportEvidenceResponse]:
        """Stream an evidence pack of a run of entries, a ZIP file."""
        asked = (request.register, request.first, request.count, request.size)
        with self._exports.one():
            file = await asyncio.to_thread(self._exporter.pack, *asked, datetime.now(UTC))
            with file:
                while data := await asyncio.to_thread(file.read, PAGE_BYTES):
                    yield pb.ExportEvidenceResponse(data=data)

    def _note(self, register: str, size: int) -> bytes:
        """Return the checkpoint note of exactly this size, no bytes where none was signed."""
        try:
            found = self._published.at_most(register, size)
        except RejectedError:  # the first one signed is larger
            return b""
        return found.note if found.size == size else b""


@dataclass(frozen=True, slots=True)
class _Page:
    """Some entries, from index `first` on, and their range proof."""

    first: int
    entries: list[bytes]
    hashes: tuple[Hash, ...]


def _pages(reader: RegisterReader, begin: int, end: int, size: int) -> Iterator[_Page]:
    """Yield the entries [begin, end) in pages, each proved at `size`. Holds one read-ahead and one page."""
    entries: list[bytes] = []
    held = 0
    for index, entry in enumerate(reader.entries(begin, end), begin + 1):
        entries.append(entry)
        held += len(entry)
        if index == end or len(entries) == PAGE_ENTRIES or held >= PAGE_BYTES:
            first = index - len(entries)
            yield _Page(first, entries, reader.range_proof(first, index, size))
            entries, held = [], 0


def _summary(one: Listed) -> pb.RegisterSummary:
    return pb.RegisterSummary(
        name=one.name,
        title=one.title,
        origin=one.origin,
        vkey=one.vkey,
        size=one.size,
        sealed_size=one.sealed_size or 0,
        opened_index=one.opened,
        closed_index=one.closed,
        counted=_counts(one.counted) if one.counted is not None else None,
    )


def _counts(summary: Summary) -> pb.RegisterCounts:
    lags = summary.lags
    return pb.RegisterCounts(
        size=summary.size,
        submissions=summary.submissions,
        rejections=summary.rejections,
        decisions=summary.decisions,
        latest_at=summary.latest_at or "",
        lags=[
            pb.RegisterCounts.Lags(within_days=days, count=count)
            for days, count in zip((*LAG_DAYS, None), lags.classes, strict=True)
        ],
        longest_lag_seconds=lags.longest,
        not_understood=summary.not_understood,
    )


def _accepted(entry: bytes) -> datetime:
    return datetime.fromisoformat(parse_entry(entry).acceptance.accepted_at)


def _moment(time: Timestamp) -> datetime:
    """Return the time asked for, microseconds cut off."""
    try:
        return datetime.fromtimestamp(time.seconds, UTC).replace(microsecond=time.nanos // 1000)
    except (ValueError, OverflowError, OSError):
        raise invalid("time", "not a time of the years 1 to 9999") from None


def _end(first: int, count: int, size: int, latest: int) -> int:
    """Return the end of a run of entries in a tree of `size`, of which at most `latest` are published."""
    end = first + count
    check_size(end, latest)
    if end > size:
        raise invalid("count", f"entries up to {end - 1} are not in a tree of size {size}")
    return end


def _means_sealed(kind: int, published: Published) -> bool:
    """Tell whether sealed checkpoints are meant: what is not said means them where there are witnesses."""
    if kind not in pb.CheckpointKind.values():
        raise invalid("kind", "no such kind of checkpoint")
    if kind == pb.CHECKPOINT_KIND_UNSPECIFIED:
        return published.policy is not None
    return kind == pb.CHECKPOINT_KIND_SEALED


def _proved_notes(notes: Iterable[ProvedNote]) -> Iterator[pb.ProvedNote]:
    for each in notes:
        yield pb.ProvedNote(note=each.note, consistency=each.consistency)


def _bounds_response(
    reader: RegisterReader, index: int, proved: ProvedBounds | None, latest: SignedCheckpoint
) -> pb.GetTimeBoundsResponse:
    shown = proved.checkpoint if proved else latest
    entry = reader.entry(index)
    response = pb.GetTimeBoundsResponse(
        register=reader.register,
        index=index,
        size=shown.size,
        checkpoint=shown.note,
        inclusion=reader.inclusion(index, shown.size),
        leaf_hash=leaf_hash(entry),
    )
    if proved is None:
        response.no_witness = True
        return response
    bounds = proved.bounds
    response.comparable = bounds.comparable
    if bounds.not_before is not None:
        response.not_before = bounds.not_before
    if bounds.not_after is not None:
        response.not_after = bounds.not_after
    response.before.extend(_proved_notes(proved.before))
    response.after.extend(_proved_notes(proved.after))
    response.findings.extend(each.description for each in time_findings(parse_entry(entry), bounds))
    return response


def _not_yet(text: str) -> RejectedError:
    return RejectedError(Reason.NOT_YET_AVAILABLE, text)

"""AuditService over a real server: what it proves leads to the root of a signed note, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from daybook.audit.v1 import audit_service_pb2 as pb
from daybook.audit.v1.audit_service_pb2_grpc import AuditServiceStub, add_AuditServiceServicer_to_server
from daybook.submission.v1.submission_pb2 import RecordVersion
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import CollectorRegistry

from ledger.checkpoints import Checkpoint, open_checkpoint
from ledger.governing import GOVERNING
from ledger.hashing import Hash, leaf_hash
from ledger.proofs import verify_consistency, verify_inclusion, verify_range
from ledger.store import Store
from ledger.stores.memory import MemoryStore
from ledger.stores.sqlite import SqliteStore
from services.audit import PAGE_BYTES, PAGE_ENTRIES, AuditServicer
from services.client.errors import CallError, from_rpc_error
from services.interceptors import CallInterceptor, CallMetrics
from services.time_bounds import BoundsProver, Timelines
from tests.support.ledgers import (
    DEPARTMENT_KEY,
    EPOCH,
    ORIGIN,
    REGISTER,
    LedgerUnderTest,
    decision,
    open_ledger,
    record_id,
    submission,
    vkey,
)

CODE = grpc.StatusCode


class Served:
    """A ledger behind a running server."""

    def __init__(
        self,
        held: LedgerUnderTest,
        stub: Any,
        server: grpc.aio.Server,
        stopping: asyncio.Event,
        registry: CollectorRegistry,
    ) -> None:
        self.held = held
        self.stub = stub
        self.server = server
        self.stopping = stopping
        self.registry = registry

    def show(self) -> None:
        """Wake watchers, as the sequencer does after each turn."""
        self.held.published.wake()


@asynccontextmanager
async def serving(store: Store, tmp_path: Path, size: int = 0) -> AsyncIterator[Served]:
    held = open_ledger(store, tmp_path / "marks")
    held.fill(size)
    stopping = asyncio.Event()
    registry = CollectorRegistry()
    server = grpc.aio.server(interceptors=[CallInterceptor(CallMetrics(registry))])
    bounds = BoundsProver(held.ledger, held.published, Timelines(held.published))
    add_AuditServiceServicer_to_server(AuditServicer(held.ledger, held.published, bounds, stopping), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Served(held, AuditServiceStub(channel), server, stopping, registry)
    finally:
        await server.stop(None)


def opened(note: bytes, register: str = REGISTER) -> Checkpoint:
    """Return what a note states, its signature verified."""
    return open_checkpoint(note, f"{ORIGIN}/{register}", [vkey(register)]).checkpoint


def hashes(values: Any) -> list[Hash]:
    return [Hash(value) for value in values]


async def refused(call: Any) -> CallError:
    """Return what a client makes of a call that is refused, or of a stream that ends so."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (ended(call) if isinstance(call, grpc.aio.UnaryStreamCall) else call)
    return from_rpc_error(caught.value)


async def ended(call: Any) -> None:
    """Read a stream to its end."""
    while await call.read() is not grpc.aio.EOF:
        pass


async def collected(call: Any) -> list[Any]:
    return [message async for message in call]


# Registers and checkpoints


async def test_registers_are_listed_by_name_in_pages(tmp_path: Path) -> None:
    """If false, a register could hide behind a page's end."""
    async with serving(MemoryStore(), tmp_path, 7) as served:
        for name in ("department-b/minister", "department-a/minister"):
            served.held.open_register(name)
        served.held.govern("register.closed/1", name="department-b/minister", size=0, reason="Abolished")
        whole = await served.stub.ListRegisters(pb.ListRegistersRequest())
        names = [one.name for one in whole.registers]
        assert names == ["department-a/minister", "department-b/minister", REGISTER, GOVERNING]
        assert (whole.governing_size, whole.next_page_token) == (6, "")
        _, closed, secretary, governing = whole.registers
        assert (closed.opened_index, closed.closed_index) == (3, 5)
        assert (secretary.size, secretary.title) == (7, "The Secretary of State")
        assert (secretary.origin, secretary.vkey) == (f"{ORIGIN}/{REGISTER}", str(vkey(REGISTER)))
        assert (secretary.opened_index, secretary.HasField("closed_index")) == (1, False)
        assert (governing.size, governing.HasField("opened_index")) == (6, False)
        assert governing.vkey == str(vkey(GOVERNING))
        token, paged = "", []
        for _ in range(2):
            page = await served.stub.ListRegisters(pb.ListRegistersRequest(page_size=2, page_token=token))
            paged += page.registers
            token = page.next_page_token
        assert (paged, token) == (list(whole.registers), "")


async def test_a_register_is_listed_only_when_its_opening_is_signed(tmp_path: Path) -> None:
    """If false, the list would show what no checkpoint vouches for."""
    async with serving(MemoryStore(), tmp_path) as served:
        held = served.held
        governed = held.govern_submission("register.opened/1", name="department-a/minister", title="A minister")
        held.commit_unsigned([governed])
        assert "department-a/minister" in held.ledger.fold.registers
        answer = await served.stub.ListRegisters(pb.ListRegistersRequest())
        assert [one.name for one in answer.registers] == [REGISTER, GOVERNING]
        assert answer.governing_size == 3


async def test_the_latest_checkpoint_is_the_signed_one(tmp_path: Path) -> None:
    """If false, an auditor would start from what the ledger has not signed."""
    async with serving(MemoryStore(), tmp_path, 5) as served:
        served.held.commit_unsigned([submission(REGISTER, [decision(5)], [DEPARTMENT_KEY])])
        for kind in (pb.CHECKPOINT_KIND_UNSPECIFIED, pb.CHECKPOINT_KIND_SIGNED):
            answer = await served.stub.GetCheckpoint(pb.GetCheckpointRequest(register=REGISTER, kind=kind))
            assert (answer.size, answer.sealed, answer.no_witness) == (5, False, True)
            assert opened(answer.checkpoint).size == 5


async def test_a_ledger_without_witnesses_has_no_sealed_checkpoint(tmp_path: Path) -> None:
    """If false, a signed checkpoint could be taken for a sealed one."""
    async with serving(MemoryStore(), tmp_path, 5) as served:
        request = pb.GetCheckpointRequest(register=REGISTER, kind=pb.CHECKPOINT_KIND_SEALED)
        answer = await served.stub.GetCheckpoint(request)
        assert (answer.size, answer.checkpoint, answer.sealed, answer.no_witness) == (0, b"", False, True)


@pytest.mark.parametrize(("asked", "size"), [(0, 12), (1, 0), (4, 0), (5, 5), (11, 5), (12, 12)])
@pytest.mark.parametrize("make", [lambda _: MemoryStore(), lambda path: SqliteStore(path / "store")])
async def test_a_checkpoint_as_at_a_size(
    make: Callable[[Path], Store], asked: int, size: int, tmp_path: Path
) -> None:
    """If false, an auditor could not get what was signed when the register had so many entries."""
    async with serving(make(tmp_path), tmp_path, 5) as served:
        served.held.fill(12)
        answer = await served.stub.GetCheckpoint(pb.GetCheckpointRequest(register=REGISTER, size=asked))
        assert (answer.size, opened(answer.checkpoint).size) == (size, size)


async def test_a_checkpoint_as_at_a_time_covers_only_earlier_entries(tmp_path: Path) -> None:
    """If false, the answer would contain entries that the ledger says it accepted later."""
    async with serving(MemoryStore(), tmp_path) as served:
        for number in range(20):  # each turn a second after the one before, from the fourth second on
            served.held.add([2 * number, 2 * number + 1])
        for second in range(-1, 25):
            for nanos in (0, 999_999_999):
                time = Timestamp(seconds=EPOCH + second, nanos=nanos)
                request = pb.GetCheckpointRequest(register=REGISTER, time=time)
                answer = await served.stub.GetCheckpoint(request)
                assert answer.size == 2 * min(20, max(0, second - 2))
                assert opened(answer.checkpoint).size == answer.size


async def test_before_the_first_checkpoint_there_is_none(tmp_path: Path) -> None:
    """If false, a question about the time before would look like a failure of the store."""
    async with serving(MemoryStore(), tmp_path) as served:
        error = await refused(
            served.stub.GetCheckpoint(pb.GetCheckpointRequest(register=GOVERNING, time=Timestamp(seconds=1)))
        )
        assert (error.code, error.reason) == (CODE.NOT_FOUND, "RECORD_UNKNOWN")


# Proofs


@pytest.mark.parametrize("make", [lambda _: MemoryStore(), lambda path: SqliteStore(path / "store")])
@pytest.mark.parametrize("size", [1, 255, 256, 257, 700])
async def test_proofs_lead_to_the_root_of_the_signed_note(
    make: Callable[[Path], Store], size: int, tmp_path: Path
) -> None:
    """If false, nothing that this service answers would be worth anything."""
    async with serving(make(tmp_path), tmp_path, (size + 1) // 2) as served:
        stub, first = served.stub, (size + 1) // 2
        earlier = opened((await stub.GetCheckpoint(pb.GetCheckpointRequest(register=REGISTER))).checkpoint)
        served.held.fill(size)
        for index in sorted({0, size // 2, size - 1}):
            request = pb.GetInclusionProofRequest(register=REGISTER, index=index)
            inclusion = await stub.GetInclusionProof(request)
            checkpoint = opened(inclusion.checkpoint)
            assert (inclusion.size, checkpoint.size) == (size, size)
            verify_inclusion(index, size, Hash(inclusion.leaf_hash), hashes(inclusion.hashes), checkpoint.root)
            record = RecordVersion(record_id=record_id(index), version=1)
            by_record = pb.GetInclusionProofRequest(register=REGISTER, record=record)
            assert await stub.GetInclusionProof(by_record) == inclusion
        consistency = await stub.GetConsistencyProof(
            pb.GetConsistencyProofRequest(register=REGISTER, first_size=first)
        )
        later = opened(consistency.checkpoint)
        assert (consistency.first_size, consistency.second_size, later.size) == (first, size, size)
        verify_consistency(first, size, earlier.root, later.root, hashes(consistency.hashes))
        begin, count = size // 3, size - size // 2
        proof = (
            await stub.GetRangeProof(pb.GetRangeProofRequest(register=REGISTER, first=begin, count=count))
        ).range_proof
        assert (proof.first, proof.count, proof.size) == (begin, count, size)
        entries = served.held.ledger.store.entries(REGISTER, begin, begin + count)
        leaves = [leaf_hash(entry) for entry in entries]
        verify_range(begin, begin + count, size, leaves, hashes(proof.hashes), later.root)


async def test_an_older_size_comes_with_its_own_note_or_none(tmp_path: Path) -> None:
    """If false, a proof would be shown beside a checkpoint that it does not lead to."""
    async with serving(MemoryStore(), tmp_path, 5) as served:
        served.held.fill(9)
        signed = await served.stub.GetInclusionProof(
            pb.GetInclusionProofRequest(register=REGISTER, index=2, size=5)
        )
        root = opened(signed.checkpoint).root
        verify_inclusion(2, 5, Hash(signed.leaf_hash), hashes(signed.hashes), root)
        unsigned = await served.stub.GetInclusionProof(
            pb.GetInclusionProofRequest(register=REGISTER, index=2, size=7)
        )
        assert (unsigned.size, unsigned.checkpoint) == (7, b"")
        held = served.held.ledger.reader(REGISTER)
        verify_inclusion(2, 7, Hash(unsigned.leaf_hash), hashes(unsigned.hashes), held.root(7))


Ask = Callable[[Any], Awaitable[Any]]
VERSION_2 = RecordVersion(record_id=record_id(0), version=2)
REFUSALS: list[tuple[str, Any, grpc.StatusCode, str, str | None]] = [
    (
        "ListRegisters",
        pb.ListRegistersRequest(page_size=1001),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "page_size",
    ),
    (
        "ListRegisters",
        pb.ListRegistersRequest(page_token="?"),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "page_token",
    ),
    ("GetCheckpoint", pb.GetCheckpointRequest(register="no/such"), CODE.NOT_FOUND, "REGISTER_UNKNOWN", None),
    ("GetCheckpoint", pb.GetCheckpointRequest(), CODE.NOT_FOUND, "REGISTER_UNKNOWN", None),
    (
        "GetCheckpoint",
        pb.GetCheckpointRequest(register=REGISTER, size=11),
        CODE.OUT_OF_RANGE,
        "SIZE_NOT_REACHED",
        None,
    ),
    (
        "GetCheckpoint",
        pb.GetCheckpointRequest(register=REGISTER, size=2**64 - 1),
        CODE.OUT_OF_RANGE,
        "SIZE_NOT_REACHED",
        None,
    ),
    (
        "GetCheckpoint",
        pb.GetCheckpointRequest(register=REGISTER, kind=pb.CheckpointKind.ValueType(9)),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "kind",
    ),
    (
        "GetCheckpoint",
        pb.GetCheckpointRequest(register=REGISTER, time=Timestamp(seconds=2**60)),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "time",
    ),
    (
        "GetCheckpoint",
        pb.GetCheckpointRequest(register=REGISTER, time=Timestamp(nanos=-1)),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "time",
    ),
    (
        "GetInclusionProof",
        pb.GetInclusionProofRequest(register=REGISTER),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "entry",
    ),
    (
        "GetInclusionProof",
        pb.GetInclusionProofRequest(register="no/such", index=0),
        CODE.NOT_FOUND,
        "REGISTER_UNKNOWN",
        None,
    ),
    (
        "GetInclusionProof",
        pb.GetInclusionProofRequest(register=REGISTER, index=10),
        CODE.OUT_OF_RANGE,
        "SIZE_NOT_REACHED",
        None,
    ),
    (
        "GetInclusionProof",
        pb.GetInclusionProofRequest(register=REGISTER, index=5, size=5),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "size",
    ),
    (
        "GetInclusionProof",
        pb.GetInclusionProofRequest(register=REGISTER, index=5, size=11),
        CODE.OUT_OF_RANGE,
        "SIZE_NOT_REACHED",
        None,
    ),
    (
        "GetInclusionProof",
        pb.GetInclusionProofRequest(register=REGISTER, record=VERSION_2),
        CODE.NOT_FOUND,
        "RECORD_UNKNOWN",
        None,
    ),
    (
        "GetInclusionProof",
        pb.GetInclusionProofRequest(register=REGISTER, record=RecordVersion(record_id="x", version=1)),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "record.record_id",
    ),
    (
        "GetInclusionProof",
        pb.GetInclusionProofRequest(register=REGISTER, record=RecordVersion(record_id=record_id(0))),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "record.version",
    ),
    (
        "GetConsistencyProof",
        pb.GetConsistencyProofRequest(register=REGISTER, second_size=5),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "first_size",
    ),
    (
        "GetConsistencyProof",
        pb.GetConsistencyProofRequest(register=REGISTER, first_size=6, second_size=5),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "first_size",
    ),
    (
        "GetConsistencyProof",
        pb.GetConsistencyProofRequest(register=REGISTER, first_size=11),
        CODE.OUT_OF_RANGE,
        "SIZE_NOT_REACHED",
        None,
    ),
    (
        "GetRangeProof",
        pb.GetRangeProofRequest(register=REGISTER),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "count",
    ),
    (
        "GetRangeProof",
        pb.GetRangeProofRequest(register=REGISTER, first=3, count=3, size=5),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "count",
    ),
    (
        "GetRangeProof",
        pb.GetRangeProofRequest(register=REGISTER, first=2**64 - 1, count=2**64 - 1),
        CODE.OUT_OF_RANGE,
        "SIZE_NOT_REACHED",
        None,
    ),
    ("ReadEntries", pb.ReadEntriesRequest(register="no/such"), CODE.NOT_FOUND, "REGISTER_UNKNOWN", None),
    (
        "ReadEntries",
        pb.ReadEntriesRequest(register=REGISTER, first=6, size=5),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "first",
    ),
    (
        "ReadEntries",
        pb.ReadEntriesRequest(register=REGISTER, first=3, count=3, size=5),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "count",
    ),
    (
        "ReadEntries",
        pb.ReadEntriesRequest(register=REGISTER, first=11),
        CODE.OUT_OF_RANGE,
        "SIZE_NOT_REACHED",
        None,
    ),
    (
        "ReadEntries",
        pb.ReadEntriesRequest(register=REGISTER, size=11),
        CODE.OUT_OF_RANGE,
        "SIZE_NOT_REACHED",
        None,
    ),
    (
        "WatchCheckpoints",
        pb.WatchCheckpointsRequest(register="no/such"),
        CODE.NOT_FOUND,
        "REGISTER_UNKNOWN",
        None,
    ),
    (
        "WatchCheckpoints",
        pb.WatchCheckpointsRequest(register=REGISTER, after_size=11),
        CODE.OUT_OF_RANGE,
        "SIZE_NOT_REACHED",
        None,
    ),
    (
        "WatchCheckpoints",
        pb.WatchCheckpointsRequest(register=REGISTER, kind=pb.CHECKPOINT_KIND_SEALED),
        CODE.UNIMPLEMENTED,
        "NOT_YET_AVAILABLE",
        None,
    ),
    ("ListFindings", pb.ListFindingsRequest(register=REGISTER), CODE.UNIMPLEMENTED, "NOT_YET_AVAILABLE", None),
    (
        "ExportEvidence",
        pb.ExportEvidenceRequest(register=REGISTER, first=99, count=1),
        CODE.OUT_OF_RANGE,
        "SIZE_NOT_REACHED",
        None,
    ),
]


@pytest.mark.parametrize(
    ("method", "request_", "code", "reason", "field"),
    REFUSALS,
    ids=[f"{method}-{reason}-{number}" for number, (method, _, _, reason, _) in enumerate(REFUSALS)],
)
async def test_what_cannot_be_answered_is_refused_precisely(
    method: str, request_: Any, code: grpc.StatusCode, reason: str, field: str | None, tmp_path: Path
) -> None:
    """If false, an auditor could not tell a mistake of theirs from a gap in the register."""
    async with serving(MemoryStore(), tmp_path, 10) as served:
        error = await refused(getattr(served.stub, method)(request_))
        assert (error.code, error.reason) == (code, reason)
        assert [violation.field for violation in error.violations] == ([field] if field else [])
        if reason == "SIZE_NOT_REACHED":
            assert error.metadata["latest_size"] == "10"


async def test_no_proof_goes_beyond_what_is_signed(tmp_path: Path) -> None:
    """If false, entries would be shown that no checkpoint vouches for."""
    async with serving(MemoryStore(), tmp_path, 5) as served:
        served.held.commit_unsigned([submission(REGISTER, [decision(5)], [DEPARTMENT_KEY])])
        stub = served.stub
        record = RecordVersion(record_id=record_id(5), version=1)
        by_index = stub.GetInclusionProof(pb.GetInclusionProofRequest(register=REGISTER, index=5))
        assert (await refused(by_index)).reason == "SIZE_NOT_REACHED"
        by_record = stub.GetInclusionProof(pb.GetInclusionProofRequest(register=REGISTER, record=record))
        assert (await refused(by_record)).reason == "RECORD_UNKNOWN"
        assert (
            await refused(stub.ReadEntries(pb.ReadEntriesRequest(register=REGISTER, first=5, count=1)))
        ).reason == "SIZE_NOT_REACHED"
        (page,) = await collected(stub.ReadEntries(pb.ReadEntriesRequest(register=REGISTER)))
        assert len(page.entries) == 5


# Streams


@pytest.mark.parametrize("make", [lambda _: MemoryStore(), lambda path: SqliteStore(path / "store")])
@pytest.mark.parametrize(("first", "count", "size"), [(0, 0, 0), (0, 0, 600), (100, 512, 0), (699, 1, 700)])
async def test_entries_are_read_in_pages_each_proved(
    make: Callable[[Path], Store], first: int, count: int, size: int, tmp_path: Path
) -> None:
    """If false, an auditor could not verify a register in bounded memory (promise P10)."""
    async with serving(make(tmp_path), tmp_path, 600) as served:
        served.held.fill(700)
        request = pb.ReadEntriesRequest(register=REGISTER, first=first, count=count, size=size)
        pages = await collected(served.stub.ReadEntries(request))
        checkpoint = opened(pages[0].checkpoint)
        assert checkpoint.size == (size or 700)
        assert all(page.checkpoint == b"" for page in pages[1:])
        position = first
        for page in pages:
            proof = page.range_proof
            end = position + len(page.entries)
            assert (proof.first, proof.count, proof.size) == (position, len(page.entries), checkpoint.size)
            assert len(page.entries) <= PAGE_ENTRIES
            leaves = [leaf_hash(entry) for entry in page.entries]
            verify_range(position, end, checkpoint.size, leaves, hashes(proof.hashes), checkpoint.root)
            position = end
        assert position == (first + count if count else checkpoint.size)


async def test_a_page_of_large_entries_is_bounded_by_bytes(tmp_path: Path) -> None:
    """If false, a message could outgrow what gRPC clients take, 4 MiB."""
    async with serving(MemoryStore(), tmp_path) as served:
        text = "\N{SNOWMAN}" * 15_990
        for turn in range(3):
            records = [
                decision(10 * turn + number, rationale=text, reference={"number": 1, "series": "S"})
                for number in range(10)
            ]
            served.held.turn([submission(REGISTER, records, [DEPARTMENT_KEY])])
        pages = await collected(served.stub.ReadEntries(pb.ReadEntriesRequest(register=REGISTER)))
        assert sum(len(page.entries) for page in pages) == 30
        assert len(pages) > 2
        assert all(sum(map(len, page.entries)) < PAGE_BYTES + 65_536 for page in pages)


async def test_reading_on_at_the_end_is_an_empty_stream(tmp_path: Path) -> None:
    """If false, a reader that resumes when there is nothing new would see an error."""
    async with serving(MemoryStore(), tmp_path, 5) as served:
        assert await collected(served.stub.ReadEntries(pb.ReadEntriesRequest(register=REGISTER, first=5))) == []
        served.held.open_register("department-a/minister")
        empty = pb.ReadEntriesRequest(register="department-a/minister")
        assert await collected(served.stub.ReadEntries(empty)) == []


class CountingStore(MemoryStore):
    """Knows how far entries were read."""

    def __init__(self) -> None:
        super().__init__()
        self.furthest = 0

    def entries(self, register: str, begin: int, end: int) -> list[bytes]:
        self.furthest = max(self.furthest, end)
        return super().entries(register, begin, end)


async def test_a_client_that_leaves_stops_the_reading(tmp_path: Path) -> None:
    """If false, a server would read whole registers for nobody, and hold what a slow client does not take."""
    store = CountingStore()
    async with serving(store, tmp_path, 8_000) as served:
        store.furthest = 0
        call = served.stub.ReadEntries(pb.ReadEntriesRequest(register=REGISTER))
        assert len((await call.read()).entries) == PAGE_ENTRIES
        call.cancel()
        labels = {
            "grpc_type": "unary_stream",
            "grpc_service": "daybook.audit.v1.AuditService",
            "grpc_method": "ReadEntries",
            "grpc_code": "CANCELLED",
        }
        async with asyncio.timeout(10):
            # The server has no event for the end of a call, only a counter.
            while not served.registry.get_sample_value("grpc_server_handled_total", labels):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert store.furthest < 8_000


async def test_checkpoints_are_watched_with_proof_of_growth(tmp_path: Path) -> None:
    """If false, a monitor could be led from one history into another."""
    async with serving(MemoryStore(), tmp_path, 3) as served:
        call = served.stub.WatchCheckpoints(pb.WatchCheckpointsRequest(register=REGISTER))
        message = await call.read()
        before = opened(message.checkpoint)
        assert (message.size, message.previous_size, list(message.consistency)) == (3, 0, [])
        for size in (4, 256, 300):
            served.held.fill(size)
            served.show()
            message = await call.read()
            after = opened(message.checkpoint)
            assert (message.size, after.size, message.previous_size) == (size, size, before.size)
            proof = hashes(message.consistency)
            verify_consistency(before.size, after.size, before.root, after.root, proof)
            before = after
        call.cancel()


async def test_watching_resumes_after_a_size(tmp_path: Path) -> None:
    """If false, a monitor that comes back would miss growth, or see it twice."""
    async with serving(MemoryStore(), tmp_path, 3) as served:
        first = opened((await served.stub.GetCheckpoint(pb.GetCheckpointRequest(register=REGISTER))).checkpoint)
        resumed = served.stub.WatchCheckpoints(pb.WatchCheckpointsRequest(register=REGISTER, after_size=3))
        reading = asyncio.ensure_future(resumed.read())
        await served.stub.GetCheckpoint(pb.GetCheckpointRequest(register=REGISTER))
        assert not reading.done()
        served.held.fill(9)
        served.show()
        message = await reading
        after = opened(message.checkpoint)
        assert (message.previous_size, message.size) == (3, 9)
        verify_consistency(3, 9, first.root, after.root, hashes(message.consistency))
        late = served.stub.WatchCheckpoints(pb.WatchCheckpointsRequest(register=REGISTER, after_size=3))
        assert await late.read() == message
        resumed.cancel()
        late.cancel()


async def test_another_register_wakes_nobody_in_vain(tmp_path: Path) -> None:
    """If false, a watcher would be sent a checkpoint that is not of its register, or not new."""
    async with serving(MemoryStore(), tmp_path, 3) as served:
        call = served.stub.WatchCheckpoints(pb.WatchCheckpointsRequest(register=REGISTER))
        assert (await call.read()).size == 3
        served.held.open_register("department-a/minister")
        served.show()
        await served.stub.ListRegisters(pb.ListRegistersRequest())
        served.held.fill(4)
        served.show()
        message = await call.read()
        assert (message.register, message.previous_size, message.size) == (REGISTER, 3, 4)
        call.cancel()


async def test_watchers_do_not_hold_up_a_graceful_stop(tmp_path: Path) -> None:
    """If false, every restart would take the whole grace period while anybody watches."""
    async with serving(MemoryStore(), tmp_path, 3) as served:
        calls = [
            served.stub.WatchCheckpoints(pb.WatchCheckpointsRequest(register=REGISTER, after_size=after))
            for after in (0, 3)
        ]
        assert (await calls[0].read()).size == 3
        waiting = [asyncio.ensure_future(refused(call)) for call in calls]
        await served.stub.ListRegisters(pb.ListRegistersRequest())
        served.stopping.set()
        async with asyncio.timeout(10):
            await served.server.stop(60)
            errors = await asyncio.gather(*waiting)
        for error in errors:
            assert (error.code, error.reason) == (CODE.UNAVAILABLE, "DRAINING")
            assert error.retry_after is not None


async def test_so_many_watch_at_once_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If false, whoever opens streams could take the server's memory and its turns."""
    monkeypatch.setattr("services.audit.MAX_WATCHERS", 2)
    async with serving(MemoryStore(), tmp_path, 3) as served:
        request = pb.WatchCheckpointsRequest(register=REGISTER)
        watching = [served.stub.WatchCheckpoints(request) for _ in range(2)]
        for one in watching:
            assert (await one.read()).size == 3
        error = await refused(served.stub.WatchCheckpoints(request))
        assert (error.code, error.reason) == (CODE.RESOURCE_EXHAUSTED, "OVERLOADED")
        watching[0].cancel()
        third = served.stub.WatchCheckpoints(request)
        while True:
            try:
                assert (await third.read()).size == 3
                break
            except grpc.aio.AioRpcError:  # until the server has seen the first one leave
                third = served.stub.WatchCheckpoints(request)

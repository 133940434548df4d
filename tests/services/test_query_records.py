"""QueryRecords over a real server: everything with proofs, or matches that prove themselves and no more."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from daybook.audit.v1 import audit_service_pb2 as pb

from ledger.hashing import leaf_hash
from ledger.proofs import verify_inclusion, verify_range
from ledger.records import record_digest
from ledger.stores.memory import MemoryStore
from services import audit, previewing
from services.audit import PAGE_ENTRIES
from tests.services.test_audit import CountingStore, Served, collected, ended, hashes, opened, refused, serving
from tests.support.ledgers import DEPARTMENT_KEY, REGISTER, decision, record_id, submission

CODE = grpc.StatusCode
PREVIEW = pb.QUERY_MODE_PREVIEW


def register(served: Served, *records: bytes) -> None:
    served.held.turn([submission(REGISTER, records, [DEPARTMENT_KEY])])


def small_story(served: Served) -> None:
    """Register three entries: two grants, one of them over WhatsApp and corrected."""
    first = decision(0, decision_type="grant", decided_at="2026-01-10")
    second = decision(1, decision_type="grant", channel="whatsapp", decided_at="2026-02")
    register(served, first, second)
    corrected = decision(
        1,
        type="decision.corrected/1",
        version=2,
        correction="correction",
        reason="The day was known after all",
        decided_at="2026-02-20",
        channel="whatsapp",
        decision_type="grant",
        previous={"sha256": record_digest(second), "version": 1},
    )
    register(served, corrected)


async def previewed(served: Served, **conditions: Any) -> list[int]:
    """Return the indices that a preview finds, every match verified."""
    request = pb.QueryRecordsRequest(register=REGISTER, mode=PREVIEW, filter=pb.RecordFilter(**conditions))
    answers = await collected(served.stub.QueryRecords(request))
    checkpoint = opened(answers[0].checkpoint)
    assert all(answer.not_proved for answer in answers)
    assert answers[-1].answered == checkpoint.size
    for answer in answers:
        assert not answer.HasField("range_proof")
        for each in answer.entries:
            proof = hashes(each.inclusion)
            verify_inclusion(each.index, checkpoint.size, leaf_hash(each.entry), proof, checkpoint.root)
    return [each.index for answer in answers for each in answer.entries]


@pytest.mark.parametrize(("first", "count", "size"), [(0, 0, 0), (0, 600, 0), (0, 0, 600), (300, 301, 700)])
async def test_a_proving_answer_is_every_entry_of_the_range_each_message_proved(
    first: int, count: int, size: int, tmp_path: Path
) -> None:
    """If false, an entry that answers the question could be left out, and nobody would know."""
    async with serving(MemoryStore(), tmp_path, 600) as served:
        served.held.fill(700)
        request = pb.QueryRecordsRequest(
            register=REGISTER,
            first=first,
            count=count,
            size=size,
            filter=pb.RecordFilter(channels=["whatsapp"]),
        )
        answers = await collected(served.stub.QueryRecords(request))
        checkpoint = opened(answers[0].checkpoint)
        assert checkpoint.size == (size or 700)
        position = first
        for number, answer in enumerate(answers):
            assert (answer.register, answer.not_proved) == (REGISTER, False)
            assert not number or answer.checkpoint == b""
            assert 1 <= len(answer.entries) <= PAGE_ENTRIES
            end = position + len(answer.entries)
            assert [each.index for each in answer.entries] == list(range(position, end))
            assert not any(each.inclusion for each in answer.entries)
            leaves = [leaf_hash(each.entry) for each in answer.entries]
            proof = answer.range_proof
            verify_range(position, end, checkpoint.size, leaves, hashes(proof.hashes), checkpoint.root)
            assert (proof.first, proof.count, proof.size) == (position, len(leaves), checkpoint.size)
            assert answer.answered == end
            position = end
        assert position == (first + count if count else checkpoint.size)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, [0, 1, 2]),
        ({"types": ["decision.corrected/1"]}, [2]),
        ({"decision_types": ["grant"], "channels": ["whatsapp"]}, [1, 2]),
        ({"channels": ["corporate_email", "signal"]}, [0]),
        ({"record_id": record_id(1)}, [1, 2]),
        ({"series": "MD/2026"}, [0, 1, 2]),
        ({"series": "MD/2025"}, []),
        ({"decided_from": "2026-02-20", "decided_to": "2026-02-21"}, [1, 2]),
        ({"decided_to": "2026-01"}, [0]),
        ({"decided_from": "2026-02-21"}, [1]),
        ({"decided_from": "2027"}, []),
    ],
)
async def test_a_preview_finds_what_meets_every_condition(
    conditions: dict[str, Any], expected: list[int], tmp_path: Path
) -> None:
    """If false, a quick look would miss what the question names, or show what it does not.

    The second decision was in February, its day not yet known: it may be what is asked for.
    """
    async with serving(MemoryStore(), tmp_path) as served:
        small_story(served)
        assert await previewed(served, **conditions) == expected


@pytest.mark.parametrize(
    ("filter_", "field"),
    [
        (pb.RecordFilter(channels=["whatsapp", "whatsap"]), "filter.channels"),
        (pb.RecordFilter(decision_types=["x" * 100_000]), "filter.decision_types"),
        (pb.RecordFilter(types=["grant"]), "filter.types"),
        # Each one is a type; to look at 300,000 of them would hold up everybody.
        (pb.RecordFilter(types=["decision.registered/1"] * 257), "filter.types"),
        (pb.RecordFilter(record_id="1"), "filter.record_id"),
        (pb.RecordFilter(series="//"), "filter.series"),
        (pb.RecordFilter(decided_from="yesterday"), "filter.decided_from"),
        (pb.RecordFilter(decided_from="2026-02", decided_to="2026-01"), "filter.decided_to"),
    ],
)
async def test_a_preview_of_what_no_record_can_say_is_refused(
    filter_: pb.RecordFilter, field: str, tmp_path: Path
) -> None:
    """If false, a slip of the pen would be answered with nothing, and taken for an answer."""
    async with serving(MemoryStore(), tmp_path, 3) as served:
        request = pb.QueryRecordsRequest(register=REGISTER, mode=PREVIEW, filter=filter_)
        error = await refused(served.stub.QueryRecords(request))
        assert (error.code, error.reason) == (CODE.INVALID_ARGUMENT, "INVALID_FIELD")
        assert [each.field for each in error.violations] == [field]
        assert len(error.message) < 1_000


@pytest.mark.parametrize("mode", [pb.QUERY_MODE_PROVING, PREVIEW])
@pytest.mark.parametrize(
    ("asked", "code", "reason", "field"),
    [
        ({"register": "no/such"}, CODE.NOT_FOUND, "REGISTER_UNKNOWN", None),
        ({"size": 11}, CODE.OUT_OF_RANGE, "SIZE_NOT_REACHED", None),
        ({"first": 2**64 - 1, "count": 2**64 - 1}, CODE.OUT_OF_RANGE, "SIZE_NOT_REACHED", None),
        ({"first": 3, "count": 3, "size": 5}, CODE.INVALID_ARGUMENT, "INVALID_FIELD", "count"),
        ({"first": 6, "size": 5}, CODE.INVALID_ARGUMENT, "INVALID_FIELD", "first"),
    ],
)
async def test_a_range_that_is_not_there_is_refused_in_both_modes(
    mode: pb.QueryMode.ValueType,
    asked: dict[str, Any],
    code: grpc.StatusCode,
    reason: str,
    field: str | None,
    tmp_path: Path,
) -> None:
    """If false, an auditor could not tell a mistake of theirs from a gap in the register."""
    async with serving(MemoryStore(), tmp_path, 10) as served:
        request = pb.QueryRecordsRequest(mode=mode, **{"register": REGISTER, **asked})
        error = await refused(served.stub.QueryRecords(request))
        assert (error.code, error.reason) == (code, reason)
        assert [each.field for each in error.violations] == ([field] if field else [])


async def test_a_mode_that_is_not_defined_is_refused(tmp_path: Path) -> None:
    """If false, a later client would take an answer for one of a kind that this server does not know."""
    async with serving(MemoryStore(), tmp_path, 1) as served:
        request = pb.QueryRecordsRequest(register=REGISTER, mode=pb.QueryMode.ValueType(9))
        error = await refused(served.stub.QueryRecords(request))
        assert (error.reason, error.violations[0].field) == ("INVALID_FIELD", "mode")


async def test_what_is_not_signed_answers_no_question(tmp_path: Path) -> None:
    """If false, entries would be shown that no checkpoint vouches for."""
    async with serving(MemoryStore(), tmp_path, 5) as served:
        served.held.commit_unsigned([submission(REGISTER, [decision(5)], [DEPARTMENT_KEY])])
        assert await previewed(served) == [0, 1, 2, 3, 4]
        answers = await collected(served.stub.QueryRecords(pb.QueryRecordsRequest(register=REGISTER)))
        assert sum(len(answer.entries) for answer in answers) == 5


async def test_a_preview_tells_of_every_step_and_stops_with_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, a filter that fits nothing would keep the server busy for nobody."""
    monkeypatch.setattr(previewing, "STEP_ENTRIES", 2)
    store = CountingStore()
    async with serving(store, tmp_path, 8_000) as served:
        store.furthest = 0
        request = pb.QueryRecordsRequest(
            register=REGISTER, mode=PREVIEW, filter=pb.RecordFilter(channels=["whatsapp"])
        )
        call = served.stub.QueryRecords(request)
        first = await call.read()
        assert (list(first.entries), first.answered) == ([], 2)
        call.cancel()
        labels = {
            "grpc_type": "unary_stream",
            "grpc_service": "daybook.audit.v1.AuditService",
            "grpc_method": "QueryRecords",
            "grpc_code": "CANCELLED",
        }
        async with asyncio.timeout(10):
            # The server has no event for the end of a call, only a counter.
            while not served.registry.get_sample_value("grpc_server_handled_total", labels):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert store.furthest < 8_000


async def test_a_deadline_ends_a_preview_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If false, a caller who has given up would be worked for to the end."""
    monkeypatch.setattr(previewing, "STEP_ENTRIES", 1)
    store = CountingStore()
    async with serving(store, tmp_path, 8_000) as served:
        store.furthest = 0
        request = pb.QueryRecordsRequest(
            register=REGISTER, mode=PREVIEW, filter=pb.RecordFilter(channels=["whatsapp"])
        )
        # Told to the server only: a caller whose own clock ran out would cancel the call as well.
        deadline = (("grpc-timeout", "300m"),)
        labels = {
            "grpc_type": "unary_stream",
            "grpc_service": "daybook.audit.v1.AuditService",
            "grpc_method": "QueryRecords",
        }
        late = {**labels, "grpc_code": "DEADLINE_EXCEEDED"}

        def under_way() -> bool:
            counted = served.registry.get_sample_value
            return counted("grpc_server_handled_total", late) != counted("grpc_server_started_total", labels)

        async with asyncio.timeout(60):
            # Again where the time was over before anything was read, on a busy machine.
            while not store.furthest:
                error = await refused(served.stub.QueryRecords(request, metadata=deadline))
                assert error.code is CODE.DEADLINE_EXCEEDED
            while under_way():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert store.furthest < 8_000


async def test_so_many_are_answered_at_once_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, whoever opens streams and reads none of them could fill the server's memory."""
    monkeypatch.setattr(audit, "MAX_READERS", 1)
    # More than a connection takes in that nobody reads.
    async with serving(MemoryStore(), tmp_path, 8_000) as served:
        first = served.stub.QueryRecords(pb.QueryRecordsRequest(register=REGISTER))
        assert (await first.read()).entries
        for mode in (pb.QUERY_MODE_PROVING, PREVIEW):
            error = await refused(
                served.stub.QueryRecords(pb.QueryRecordsRequest(register=REGISTER, mode=mode))
            )
            assert (error.code, error.reason) == (CODE.RESOURCE_EXHAUSTED, "OVERLOADED")
        await ended(first)
        assert len(await previewed(served)) == 8_000


async def test_a_step_of_large_entries_is_bounded_by_bytes(tmp_path: Path) -> None:
    """If false, a message could outgrow what gRPC clients take, 4 MiB."""
    async with serving(MemoryStore(), tmp_path) as served:
        text = "\N{SNOWMAN}" * 15_990
        for turn in range(4):
            register(
                served,
                *(
                    decision(10 * turn + n, rationale=text, reference={"number": 1, "series": "S"})
                    for n in range(10)
                ),
            )
        request = pb.QueryRecordsRequest(register=REGISTER, mode=PREVIEW)
        answers = await collected(served.stub.QueryRecords(request))
        assert len(answers) > 1
        assert sum(len(answer.entries) for answer in answers) == 40
        assert all(answer.ByteSize() < previewing.STEP_BYTES + 2 * 65_536 for answer in answers)


async def test_governing_entries_are_asked_for_alike(tmp_path: Path) -> None:
    """If false, who was authorised when could not be asked."""
    async with serving(MemoryStore(), tmp_path, 3) as served:
        request = pb.QueryRecordsRequest(
            register="governing", mode=PREVIEW, filter=pb.RecordFilter(types=["key.authorised/1"])
        )
        (answer,) = await collected(served.stub.QueryRecords(request))
        assert [each.index for each in answer.entries] == [2]

"""The projection: what it counts is what a naive count of the entries finds, whatever happens to it."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import psycopg
import pytest
from daybook.audit.v1 import audit_service_pb2 as pb
from daybook.audit.v1.audit_service_pb2_grpc import AuditServiceStub

from ledger import canonical
from ledger.entries import Acceptance, accept
from ledger.errors import ConflictError, StoreError
from ledger.governing import GOVERNING
from ledger.ledger import Appended
from ledger.own_records import submission_rejected
from services.counting import Summary
from services.distributed.projection import ProjectedRegisters, migrate_projection
from tests.support.brokers import SharedKafka
from tests.support.ledgers import DEPARTMENT_KEY, ORIGIN, REGISTER, decision, record_id, submission
from tests.support.outbox import Ground, Process, service
from tests.support.postgres_ledger import PostgresLedger

PATIENCE = 60.0
BOUNDS = (1, 3, 7, 14, 30, 90, 365)
UNCOUNTED = "Not understood"
"""The title of records that nobody can count."""


@pytest.fixture
async def ledger(
    tmp_path: Path, kafka: SharedKafka, prefix: str, fresh_database: str
) -> AsyncIterator[PostgresLedger]:
    ground = await Ground.laid(tmp_path, kafka.bootstrap, prefix, fresh_database)
    made = PostgresLedger.made(ground, None)
    yield made
    made.close()


def recount(entries: list[bytes]) -> dict[str, Any]:
    """Count entries as one would by hand: from the JSON of each, with nothing of the product."""
    told: dict[str, Any] = {"size": len(entries), "submissions": 0, "rejections": 0, "latest_at": None}
    told["not_understood"] = 0
    decisions: Counter[str] = Counter()
    lags = []
    for entry in entries:
        envelope, record = (json.loads(line) for line in entry.split(b"\n"))
        told["latest_at"] = envelope["accepted_at"]
        told["submissions"] += envelope.get("submission", {}).get("position") == 0
        told["rejections"] += record["type"] == "submission.rejected/1"
        if record.get("title") == UNCOUNTED:
            told["not_understood"] += 1
        elif record["type"] == "decision.registered/1":
            decisions[record["decision_type"]] += 1
            day = datetime.fromisoformat(record["decided_at"]).replace(tzinfo=UTC).timestamp()
            # The days of these tests are of London's summer: each ends an hour before UTC's.
            ends = day + 86_399 - 3_600
            accepted = int(datetime.fromisoformat(envelope["accepted_at"]).timestamp())
            lags.append(max(0, accepted - int(ends)))
    days = {f"up_to_{bound}": 0 for bound in BOUNDS} | {"over_365": 0}
    for lag in lags:
        days[next((f"up_to_{bound}" for bound in BOUNDS if lag <= bound * 86_400), "over_365")] += 1
    told["decisions"] = dict(decisions)
    told["lag"] = {"count": len(lags), "longest_seconds": max(lags, default=0), "days": days}
    return told


def read(ledger: PostgresLedger) -> dict[str, Summary]:
    with ProjectedRegisters(ledger.ground.database) as table:
        return table.read()


async def until_counted(ledger: PostgresLedger) -> dict[str, dict[str, Any]]:
    """Wait until as much is counted as there is, compare it with a recount, and return it."""
    heads = {name: head.size for name, head in ledger.store.heads().items() if head.size}
    deadline = time.monotonic() + PATIENCE
    while {name: each.size for name, each in read(ledger).items()} != heads:
        assert time.monotonic() < deadline, f"{read(ledger)} is not at {heads}"
        await asyncio.sleep(0.05)
    found = {name: each.told() for name, each in read(ledger).items()}
    assert found == {name: recount(ledger.store.entries(name, 0, size)) for name, size in heads.items()}
    return found


def add(ledger: PostgresLedger, numbers: range, **members: Any) -> None:
    """Commit decisions in submissions of up to ten."""
    for first in range(numbers.start, numbers.stop, 10):
        records = [decision(number, **members) for number in range(first, min(first + 10, numbers.stop))]
        ledger.held.commit_unsigned([submission(REGISTER, records, [DEPARTMENT_KEY])])
        ledger.held.turns += 1


def add_rejection(ledger: PostgresLedger) -> None:
    """Commit what the ledger writes of a submission that lost a race."""
    record = submission_rejected(
        register=REGISTER,
        register_origin=f"{ORIGIN}/{REGISTER}",
        submission_id="ab" * 32,
        count=1,
        reason="STALE_VIEW",
        index=ledger.store.heads()[REGISTER].size,
        rejected=None,
        existing=None,
    )
    turn = ledger.held.ledger.turn()
    turn.append_ledger_written(REGISTER, record, "2026-05-29T00:00:00.000Z")
    turn.commit({})


async def grown(ledger: PostgresLedger, work: Callable[[], None]) -> None:
    await asyncio.to_thread(work)
    await ledger.until_signed()


async def test_it_counts_what_a_recount_finds(ledger: PostgresLedger) -> None:
    """False if anything of entries, submissions, rejections, decisions or lags were counted another way."""
    ground = ledger.ground
    with service(ground, "signer"), service(ground, "relay"), service(ground, "cosigner"):
        await grown(ledger, lambda: add(ledger, range(25)))
        with service(ground, "projector") as projector:
            await until_counted(ledger)
            for first, days in ((25, "2026-05-27"), (40, "2026-05-20"), (50, "2026-04-20"), (60, "2025-04-01")):

                def more(first: int = first, days: str = days) -> None:
                    add(ledger, range(first, first + 7), decided_at=days, decision_type="grant")
                    add_rejection(ledger)

                await grown(ledger, more)
            found = await until_counted(ledger)
            assert projector.terminate() == 0
    told = found[REGISTER]
    assert told["decisions"] == {"contract_approval": 25, "grant": 28}
    assert (told["submissions"], told["rejections"]) == (7, 4)
    assert sum(count > 0 for count in told["lag"]["days"].values()) >= 4, "several classes are met"


async def test_what_is_not_understood_is_counted_as_that(ledger: PostgresLedger) -> None:
    """False if a record that a department has signed, whatever is in it, kept a projector from all others."""
    ground = ledger.ground
    with service(ground, "signer"), service(ground, "relay"), service(ground, "cosigner"):
        await grown(ledger, lambda: add(ledger, range(3)))
        with service(ground, "projector") as projector:
            await grown(ledger, lambda: replay(ledger, not_understood()))
            await grown(ledger, lambda: add(ledger, range(20, 23)))
            told = (await until_counted(ledger))[REGISTER]
            assert projector.terminate() == 0
    assert told["decisions"] == {"contract_approval": 6}
    assert (told["not_understood"], told["submissions"], told["lag"]["count"]) == (6, 3, 6)


def not_understood() -> list[bytes]:
    """Return records that nobody can count, as their header is all that the append rules look at."""
    whole = canonical.parse(decision(10))
    changes: list[dict[str, Any]] = [
        {"decision_type": None},
        {"decision_type": ["grant"]},
        {"decision_type": 7},
        {"decided_at": None},
        {"decided_at": "the first of May"},
        {"type": "decision.imagined/1"},
    ]
    return [
        canonical.format(
            {
                name: value
                for name, value in {
                    **whole,
                    "record_id": record_id(100 + number),
                    "title": UNCOUNTED,
                    **change,
                }.items()
                if value is not None
            }
        )
        for number, change in enumerate(changes)
    ]


def replay(ledger: PostgresLedger, records: list[bytes]) -> None:
    """Commit what the topic may hold without registration: records that a department has signed."""
    acceptance = Acceptance("2026-05-28T00:00:00.000Z", "anonymous", ledger.held.ledger.fold.signed_size)
    turn = ledger.held.ledger.turn()
    outcome = turn.replay(accept(submission(REGISTER, records, [DEPARTMENT_KEY]), acceptance))
    assert isinstance(outcome, Appended)
    turn.commit({})


async def test_a_killed_projector_counts_nothing_twice(ledger: PostgresLedger) -> None:
    """False if a SIGKILL in the middle left a step counted twice, or not at all."""
    ground = ledger.ground
    with service(ground, "signer"), service(ground, "relay"), service(ground, "cosigner"):
        size = 0
        for _ in range(4):
            with service(ground, "projector") as projector:
                for _ in range(3):
                    await grown(ledger, lambda size=size: add(ledger, range(size, size + 30)))  # type: ignore[misc]
                    size += 30
                projector.kill()
        with service(ground, "projector"):
            await until_counted(ledger)


async def test_counted_from_zero_it_is_the_same(ledger: PostgresLedger) -> None:
    """False if what was counted step by step were not what is counted at once, or the old were still there."""
    ground = ledger.ground
    with service(ground, "signer"), service(ground, "relay"), service(ground, "cosigner"):
        await grown(ledger, lambda: add(ledger, range(30)))
        with service(ground, "projector"):
            for first in range(30, 90, 20):
                await grown(ledger, lambda first=first: add(ledger, range(first, first + 20)))  # type: ignore[misc]
            before = await until_counted(ledger)
        with ProjectedRegisters(ground.database) as table:
            kept = table.read()[REGISTER]
            table.clear()
            # As somebody may have left it: too much counted, and so never found out by going on.
            table.replace(REGISTER, Summary(), Summary(kept.size, submissions=1_000))
        with service(ground, "projector", "--from-zero"):
            assert await until_counted(ledger) == before


async def test_what_is_counted_is_shown_beside_the_registers(ledger: PostgresLedger) -> None:
    """False if the list of registers did not tell what is counted, or could not be had where nothing is."""
    ground = ledger.ground
    with service(ground, "signer"), service(ground, "relay"), service(ground, "cosigner"):
        await grown(ledger, lambda: add(ledger, range(12)))
        await grown(ledger, lambda: replay(ledger, not_understood()))
        with (
            service(ground, "tiles", "--http", "127.0.0.1:0") as tiles,
            service(ground, "audit", "--grpc", "127.0.0.1:0") as audit,
        ):
            shown = await registers_json(tiles)
            assert [(each["name"], each["size"]) for each in shown] == [(REGISTER, 18), (GOVERNING, 3)]
            assert not any("counted" in each for each in shown)
            with service(ground, "projector"):
                found = await until_counted(ledger)
            shown = await registers_json(tiles)
            assert {each["name"]: each["counted"] for each in shown} == found
            channel = grpc.aio.insecure_channel(audit.addresses["grpc"])
            listed = await AuditServiceStub(channel).ListRegisters(pb.ListRegistersRequest())
            await channel.close()
    for each in listed.registers:
        told, lag = found[each.name], found[each.name]["lag"]
        counted = each.counted
        assert (counted.size, counted.submissions, counted.rejections, counted.latest_at) == tuple(
            told[name] for name in ("size", "submissions", "rejections", "latest_at")
        )
        assert dict(counted.decisions) == told["decisions"]
        assert counted.longest_lag_seconds == lag["longest_seconds"]
        assert counted.not_understood == told["not_understood"]
        assert [one.count for one in counted.lags] == list(lag["days"].values())
        assert [one.within_days for one in counted.lags[:-1]] == list(BOUNDS)
        assert not counted.lags[-1].HasField("within_days")


async def registers_json(tiles: Process) -> list[dict[str, Any]]:
    address = f"http://{tiles.addresses['http']}/registers.json"
    async with aiohttp.ClientSession() as session, session.get(address) as answer:
        assert answer.status == 200
        return list((await answer.json())["registers"])


async def test_a_step_goes_on_from_what_is_there_or_not_at_all(ledger: PostgresLedger) -> None:
    """False if two projectors could both count the same entries."""
    entries = ledger.store.entries(GOVERNING, 0, 3)
    with ProjectedRegisters(ledger.ground.database) as table:
        one, three = Summary().extended(entries[:1]), Summary().extended(entries)
        table.replace(GOVERNING, Summary(), one)
        for before in (Summary(), three):
            with pytest.raises(ConflictError):
                table.replace(GOVERNING, before, three)
        assert table.read() == {GOVERNING: one}
        table.replace(GOVERNING, one, one.extended(entries[1:]))
        assert table.read() == {GOVERNING: three}


@pytest.fixture
def projection(fresh_database: str) -> str:
    """A database with the projection's tables."""
    migrate_projection(fresh_database, writer=None, reader=None)
    return fresh_database


@contextmanager
def locked(conninfo: str) -> Iterator[psycopg.Connection[Any]]:
    """Let no statement read the projection while the block runs, or until what is given is rolled back."""
    with psycopg.connect(conninfo) as connection:
        connection.execute("LOCK TABLE projection.register IN ACCESS EXCLUSIVE MODE")
        yield connection


async def until_connected(conninfo: str, *states: str) -> None:
    """Wait until the projection's connections to this database are in just these states."""
    ask = (
        "SELECT coalesce(wait_event_type, '') FROM pg_stat_activity "
        "WHERE application_name = 'daybook projection' AND datname = current_database()"
    )
    deadline = time.monotonic() + PATIENCE
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while (found := [state for (state,) in connection.execute(ask)]) != list(states):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.01)


async def test_a_close_waits_for_what_is_under_way(projection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """False if a statement were torn off by a close that came while it ran."""
    monkeypatch.setattr("services.distributed.projection._LAST", PATIENCE)
    table = ProjectedRegisters(projection)
    with locked(projection) as lock:
        reading = asyncio.create_task(asyncio.to_thread(table.read))
        await until_connected(projection, "Lock")
        closing = asyncio.create_task(asyncio.to_thread(table.close))
        await asyncio.wait({closing}, timeout=0.5)
        assert not closing.done()
        lock.rollback()
        assert await reading == {}
    await closing
    await until_connected(projection)


async def test_a_close_does_not_wait_for_ever(projection: str) -> None:
    """False if a service could not end while its database stood still."""
    table = ProjectedRegisters(projection)
    with locked(projection):
        reading = asyncio.create_task(asyncio.to_thread(table.read))
        await until_connected(projection, "Lock")
        async with asyncio.timeout(PATIENCE):
            await asyncio.to_thread(table.close)
            with pytest.raises(StoreError):
                await reading
    await until_connected(projection)


async def test_nothing_is_done_after_a_close(projection: str) -> None:
    """False if a step that was cancelled at a stop could write then, by a connection that nobody closes."""
    table = ProjectedRegisters(projection)
    assert table.read() == {}
    table.close()
    with pytest.raises(StoreError, match="closed"):
        table.replace(REGISTER, Summary(), Summary(1))
    assert table.shown() == {}
    await until_connected(projection)
    with ProjectedRegisters(projection) as another:
        assert another.read() == {}


def test_lags_count_from_the_latest_second() -> None:
    """False if a decision that was registered on its day had a lag, or a class took what is beyond it."""
    lags = Summary().lags
    for seconds in (0, 86_400, 86_401, 365 * 86_400 + 1):
        lags = lags.with_one(seconds)
    assert (lags.count, lags.longest, lags.classes) == (4, 365 * 86_400 + 1, (2, 1, 0, 0, 0, 0, 0, 1))

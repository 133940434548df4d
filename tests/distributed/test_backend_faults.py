"""Kafka and PostgreSQL killed, restored to older copies, emptied and filled up, under load.

Whatever happens to them: nothing acknowledged is lost or doubled, and never are there two histories.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from daybook.submission.v1 import submission_pb2

from ledger.checkpoints import Checkpoint
from ledger.entries import parse_entry
from ledger.errors import StoreError
from ledger.event_log import SUBMISSIONS
from ledger.governing import GOVERNING
from ledger.governing_types import RestoreDeclared
from ledger.records import parse_record
from ledger.store import Head, Store
from ledger.stores.postgres import PostgresStore
from services.client.answers import Promised
from services.client.client import connect
from services.client.errors import UnavailableError
from services.distributed.only_one import SILENCE, OnlyOne
from services.local.kafka import Kafka
from services.local.postgres import Postgres
from services.signing import HighWaterMarks
from tests.support.brokers import started_kafka, started_postgres
from tests.support.checkpoint_topic import Told, all_told
from tests.support.distributed_load import REGISTERS, DistributedLoad
from tests.support.distributed_services import (
    WRITING,
    Broker,
    Database,
    DistributedLedger,
    NotReadyError,
    distributed_ledger,
)
from tests.support.frozen import frozen
from tests.support.ledger_dir import LedgerOnDisk, make_ledger
from tests.support.ledgers import DEPARTMENT_KEY, ORIGIN
from tests.support.postgres_schemas import migrated_schema
from tests.support.sealed_ledger import SealedLedger, sealed_ledger
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.supervision import supervised
from tests.support.topic_surgery import Message, Surgery, surgery

pytestmark = [pytest.mark.hammer, pytest.mark.timeout(1_800)]

ROUNDS = int(os.environ.get("DAYBOOK_ROUNDS", "2"))
"""Kills under load."""

SEED = int(os.environ.get("DAYBOOK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
"""Printed, so that a failure can be repeated as far as the scheduling of processes allows."""

PATIENCE = 60.0

UNREACHABLE = 3
"""The exit status of a service that is to be started again."""

INTEGRITY_FAILURE = 1
"""The exit status of one that is not."""

WITNESSED = REGISTERS[:3]

EVERY = (*WRITING, "anchorer", "projector", "audit", "tiles")
"""All services."""

Heads = dict[str, Head]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A Kafka to be killed by the tests here, one after the other: each leaves it running."""
    with started_kafka(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A PostgreSQL likewise."""
    with started_postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@asynccontextmanager
async def moved(
    folder: Path, broker: Broker, database: Database, ledger: LedgerOnDisk | None = None, **settings: str
) -> AsyncIterator[tuple[DistributedLedger, DistributedLoad]]:
    """A distributed ledger, by default of eight registers without witnesses; who writes it, and a load."""
    print(f"DAYBOOK_SEED={SEED} DAYBOOK_ROUNDS={ROUNDS}")
    if ledger is None:
        ledger = await asyncio.to_thread(make_ledger, folder / "ledger", REGISTERS)
    with ExitStack() as stack:
        making = distributed_ledger(folder / "services", ledger, broker, database, **settings)
        it = await asyncio.to_thread(stack.enter_context, making)
        await start(it)
        yield it, DistributedLoad(it.ledger, random.Random(SEED))


async def start(it: DistributedLedger, services: Iterable[str] = WRITING) -> None:
    """Start services together, and wait until each is ready, or has ended. Raises NotReadyError."""
    starting = [asyncio.create_task(asyncio.to_thread(it.start, service)) for service in services]
    await asyncio.wait(starting)
    for each in starting:
        each.result()


@asynccontextmanager
async def gone(server: Kafka | Postgres) -> AsyncIterator[None]:
    """Kill a server, and start it again at the end."""
    await asyncio.to_thread(server.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(server.start)


@asynccontextmanager
async def still(server: Kafka | Postgres) -> AsyncIterator[None]:
    """Let a server stand still, with every connection open, and go on at the end."""
    with frozen(server.pid):
        yield


def address(it: DistributedLedger) -> str:
    return it.addresses["registration"]["grpc"]


async def compared(it: DistributedLedger, load: DistributedLoad) -> None:
    """Compare all that was acknowledged, and all that was signed, with all that is there."""
    copy = await asyncio.to_thread(it.settled)
    held = load.compare(copy)
    told = await all_told(it)
    print(
        f"{load.acknowledged} acknowledged, {sum(len(one.entries) for one in held.values())} entries, "
        f"{told.read} notes"
    )


def noted(it: DistributedLedger) -> dict[str, int]:
    """Return the largest size of every register of which the database has a note."""
    store = it.store()
    try:
        notes = {name: store.note(name, 1 << 40) for name in store.heads()}
    finally:
        store.close()
    return {name: note.size for name, note in notes.items() if note is not None}


def declared(it: DistributedLedger) -> list[tuple[str, int, int]]:
    """Return the restores that the governing register declares: register, and both sizes."""
    store = it.store()
    found: list[tuple[str, int, int]] = []
    try:
        for entry in store.entries(GOVERNING, 0, 1 << 40):
            record = parse_record(parse_entry(entry).record)
            if isinstance(record, RestoreDeclared):
                assert record.source == "event_log"
                found.append((record.restored, record.stored_size, record.recovered_size))
    finally:
        store.close()
    return found


def to_declare(older: Mapping[str, int], told: Told) -> list[tuple[str, int, int]]:
    """Return what is declared of a database whose notes ended at `older`, where `told` was signed."""
    lost = [(name, older.get(name, 0), told.largest(name)) for name in told.roots]
    return sorted((one for one in lost if one[1] < one[2]), key=lambda one: (one[0] != GOVERNING, one[0]))


async def test_a_broker_killed_under_load_takes_nothing_with_it(
    tmp_path: Path, broker: Kafka, database: Postgres
) -> None:
    """False if a submission was acknowledged before Kafka had it, or a service did not come back by itself."""
    async with moved(tmp_path, broker, database) as (it, load):
        async with supervised(it) as ended:
            async with load.on(address(it)):
                for _ in range(ROUNDS):
                    await load.until(30, PATIENCE)
                    await asyncio.sleep(load.draw.uniform(0.0, 1.0))
                    async with gone(broker):
                        await asyncio.sleep(load.draw.uniform(0.0, 2.0))
                await load.until(30, PATIENCE)
            await load.finish(address(it))
        print(ended)
        assert {status for _, status in ended} <= {UNREACHABLE}
        await compared(it, load)


async def test_every_service_ends_that_is_told_to_while_kafka_or_postgresql_is_away(
    tmp_path: Path, broker: Kafka, database: Postgres
) -> None:
    """False if a service had to be killed, ended as if it had found a failure, or took anything with it."""
    faults = {
        "Kafka stands still": still(broker),
        "Kafka is gone": gone(broker),
        "PostgreSQL stands still": still(database),
        "PostgreSQL is gone": gone(database),
    }
    async with moved(tmp_path, broker, database, GRACE_SECONDS="5") as (it, load):
        for name, fault in faults.items():
            await start(it, set(EVERY) - it.services.keys())
            begun = {service: len(it[service].said()) for service in EVERY}
            async with load.on(address(it)):
                await load.until(20, PATIENCE)
                async with fault:
                    # Time for each to ask, and to have no answer.
                    await asyncio.sleep(2.0)
                    for service in EVERY:
                        it[service].process.terminate()
                    ended = {service: await asyncio.to_thread(it[service].wait) for service in EVERY}
            print(name, ended)
            for service, status in ended.items():
                said = it.services.pop(service).said()[begun[service] :]
                assert status in {0, UNREACHABLE, -signal.SIGTERM}, (name, service, status, said)
                assert "Traceback" not in said, (name, service, said)
                if status == UNREACHABLE:
                    assert re.search("Kafka|PostgreSQL|by force", said.splitlines()[-1]), (name, service, said)
        await start(it)
        await load.finish(address(it))
        await compared(it, load)


async def test_a_read_of_a_database_that_stands_still_fails_in_time(database: Postgres) -> None:
    """False if whoever reads were held for as long as the database pleases, or never could read again."""
    with closing(PostgresStore(migrated_schema(database.superuser_dsn), silence=0.5)) as store:
        assert not store.heads()
        async with still(database):
            with pytest.raises(StoreError, match="has said nothing for"):
                await asyncio.wait_for(asyncio.to_thread(store.heads), PATIENCE)
        assert not store.heads()


async def test_a_store_that_is_closed_ends_what_waits_for_a_database_that_stands_still(
    database: Postgres,
) -> None:
    """False if a thread were left behind that waits for the database."""
    store = PostgresStore(migrated_schema(database.superuser_dsn))
    assert not store.heads()
    assert store.wait_for_outbox(0.0)
    asking: list[Callable[[], object]] = [
        store.heads,
        partial(store.take_over, "topic", 0),
        partial(store.wait_for_outbox, 60.0),
    ]
    async with still(database):
        waiting = [asyncio.create_task(asyncio.to_thread(work)) for work in asking]
        await asyncio.wait(waiting, timeout=1.0)
        assert not any(task.done() for task in waiting)
        store.close()
        await asyncio.wait(waiting, timeout=PATIENCE)
        for task in waiting:
            assert task.done()
            assert isinstance(task.exception(), StoreError), task


async def test_a_lock_in_a_database_that_stands_still_is_lost_and_told_of(database: Postgres) -> None:
    """False if the process went on as the only one, or as ready, without a word of the database."""
    conninfo = migrated_schema(database.superuser_dsn)
    async with OnlyOne(conninfo, "test", patience=SILENCE + 1.0) as lock:
        await lock.taken()
        holding = asyncio.create_task(lock.held())
        async with still(database):
            await until(lambda: lock.trouble() is not None, "the lock knows of the silence")
            assert lock.active
            with pytest.raises(StoreError, match="PostgreSQL has not answered the test"):
                await asyncio.wait_for(holding, PATIENCE)
            assert not lock.active


async def test_a_database_killed_under_load_takes_nothing_with_it(
    tmp_path: Path, broker: Kafka, database: Postgres
) -> None:
    """False if a commit was believed that was lost, or repeated one that was not."""
    async with moved(tmp_path, broker, database) as (it, load):
        async with supervised(it) as ended:
            async with load.on(address(it)):
                for _ in range(ROUNDS):
                    await load.until(30, PATIENCE)
                    await asyncio.sleep(load.draw.uniform(0.0, 1.0))
                    async with gone(database):
                        await asyncio.sleep(load.draw.uniform(0.0, 1.0))
                await load.until(30, PATIENCE)
            await load.finish(address(it))
        print(ended)
        assert {status for _, status in ended} <= {UNREACHABLE}
        await compared(it, load)


@pytest.mark.soak
async def test_a_database_restored_to_an_older_backup_catches_up_from_the_topic(
    tmp_path: Path, broker: Kafka, database: Postgres
) -> None:
    """False if what came after the backup was lost, or anything was signed below what had been signed."""
    async with moved(tmp_path, broker, database) as (it, load):
        async with load.on(address(it)):
            await load.until(60, PATIENCE)
        backup = tmp_path / "backup"
        await asyncio.to_thread(back_up, it, database, backup)
        older = heads(it)
        await start(it)
        async with load.on(address(it)):
            await load.until(120, PATIENCE)
        it.stop_all()
        newest, before = heads(it), await all_told(it)
        await asyncio.to_thread(restore, database, backup)
        assert heads(it) == older
        lost = to_declare(noted(it), before)
        assert lost

        await start(it)
        await asyncio.to_thread(until_caught_up, it, newest)
        metrics = it["sequencer"].metrics()
        assert metrics["daybook_sequencer_gap_alarms_total"] > 0
        assert "gap alarm" in it["sequencer"].said()
        async with load.on(address(it)):
            await load.until(60, PATIENCE)
        await load.finish(address(it))
        await asyncio.to_thread(until_whole, it)
        assert declared(it) == lost
        await compared(it, load)
        for register, sizes in (await all_told(it)).since(before).items():
            assert all(size > before.largest(register) for size in sizes), (register, sizes)


@dataclass(frozen=True, slots=True)
class Behind:
    """A witnessed ledger that stands still: its database and the marks are copies older than what was sealed.

    `older` and `newest` are the heads then and at the end, `told` is all that was signed, `ends` where the
    topic ended at the time of the copies.
    """

    it: DistributedLedger
    load: DistributedLoad
    sealed: SealedLedger
    older: Heads
    newest: Heads
    told: Told
    ends: Mapping[int, int]


@pytest.fixture
async def behind(tmp_path: Path, broker: Kafka, database: Postgres) -> AsyncIterator[Behind]:
    """Two of two witnesses hold more than the restored database has, and than the restored marks say."""
    with ExitStack() as stack:
        sealed = await asyncio.to_thread(stack.enter_context, sealed_ledger(tmp_path / "sealed", WITNESSED))
        async with moved(tmp_path, broker, database, sealed.ledger) as (it, load):
            async with load.on(address(it), registers=WITNESSED):
                await load.until(20, PATIENCE)
            await asyncio.to_thread(until_sealed, it, sealed)
            backup = tmp_path / "backup"
            await asyncio.to_thread(back_up, it, database, backup)
            marks = await asyncio.to_thread(Path(it.settings["SIGNER_MARKS"]).read_bytes)
            older = heads(it)
            async with surgery(it) as topic:
                ends = {partition: len(messages) for partition, messages in (await topic.read()).items()}

            await start(it)
            async with load.on(address(it), registers=WITNESSED):
                await load.until(30, PATIENCE)
            await load.finish(address(it))
            await asyncio.to_thread(until_sealed, it, sealed)
            it.stop_all()
            newest, told = heads(it), await all_told(it)
            await asyncio.to_thread(restore, database, backup)
            await asyncio.to_thread(Path(it.settings["SIGNER_MARKS"]).write_bytes, marks)
            assert heads(it) == older != newest
            yield Behind(it, load, sealed, older, newest, told, ends)


@pytest.mark.soak
async def test_where_the_marks_are_older_too_nothing_is_signed_before_the_witnesses_have_confirmed_it(
    behind: Behind,
) -> None:
    """False if a signer that has forgotten signed at all beside what witnesses hold, or was stuck."""
    it, load = behind.it, behind.load
    lost = to_declare(noted(it), behind.told)
    assert {name for name, _, _ in lost} >= set(WITNESSED)
    for service in ("signer", "relay", "registration", "cosigner"):
        await asyncio.to_thread(it.start, service)
    await until(lambda: "behind" in it["cosigner"].standing(), "the cosigner says that the store is behind")
    assert not it["cosigner"].standing()["ready"]
    assert "the store is behind" in it["cosigner"].said()

    it["cosigner"].pause()
    await asyncio.to_thread(it.start, "sequencer")
    await asyncio.to_thread(until_caught_up, it, behind.newest)
    assert it["sequencer"].metrics()["daybook_sequencer_gap_alarms_total"] > 0
    unconfirmed = 'daybook_signer_verdicts_total{verdict="unconfirmed"}'
    await until(
        lambda: it["signer"].metrics().get(unconfirmed, 0) >= len(WITNESSED),
        "the signer was asked, and refused",
    )
    assert await asyncio.to_thread(remembered, it) == behind.older
    assert it["sequencer"].process.poll() is None

    it["cosigner"].resume()
    async with load.on(address(it), registers=WITNESSED):
        await load.until(20, PATIENCE)
    await load.finish(address(it))
    await asyncio.to_thread(until_whole, it)
    await asyncio.to_thread(until_sealed, it, behind.sealed)
    assert it["cosigner"].process.poll() is None
    assert declared(it) == lost
    await compared(it, load)
    for register, sizes in (await all_told(it)).since(behind.told).items():
        assert all(size > behind.told.largest(register) for size in sizes), (register, sizes)


@pytest.mark.soak
async def test_where_the_topic_has_lost_its_tail_as_well_nothing_is_ever_signed_again(behind: Behind) -> None:
    """False if there were a second history, of which the witnesses hold another beginning."""
    it = behind.it
    async with surgery(it) as topic:
        messages = await topic.read()
        await topic.make_anew({part: some[: behind.ends[part]] for part, some in messages.items()})
    for _ in range(2):
        for service in ("signer", "relay", "sequencer", "registration", "cosigner"):
            await asyncio.to_thread(it.start, service)
        assert await asyncio.to_thread(it["cosigner"].wait) == INTEGRITY_FAILURE
        said = it["cosigner"].said()
        assert "was signed, and the event log makes" in said, said
        assert "Nothing more is signed" in said, said
        # What is sent now is appended, and is another history. It must stay without a signature.
        before = heads(it)
        lost = behind.load.sign(WITNESSED[0], 1)
        async with connect(
            address(it), policy=it.ledger.policy, register=WITNESSED[0], key=DEPARTMENT_KEY
        ) as client:
            answer = await client.submit(lost, wait_for=submission_pb2.WAIT_FOR_ACCEPTED, timeout=20)
        assert isinstance(answer, Promised)
        await asyncio.to_thread(until_grown, it, before)
        await asyncio.sleep(1.0)  # in which it is not signed
        it.stop_all()
        assert await asyncio.to_thread(remembered, it) == behind.older
    assert not any((await all_told(it)).since(behind.told).values())


@pytest.fixture(scope="module")
def history(
    tmp_path_factory: pytest.TempPathFactory, broker: Kafka, database: Postgres
) -> Iterator[DistributedLedger]:
    """A ledger with some history, of which all is signed and told, and that nobody serves."""
    folder = tmp_path_factory.mktemp("history")
    ledger = make_ledger(folder / "ledger", REGISTERS)
    with distributed_ledger(folder / "services", ledger, broker, database) as it:
        asyncio.run(loaded(it))
        it.until(all_is_told, "all is signed, and told")
        it.stop_all()
        yield it


def all_is_told(store: Store) -> bool:
    assert isinstance(store, PostgresStore)
    return not store.unsigned() and not store.outbox(1)


async def loaded(it: DistributedLedger) -> None:
    """Write some to every register."""
    await start(it)
    load = DistributedLoad(it.ledger, random.Random(SEED))
    async with load.on(address(it)):
        await load.until(40, PATIENCE)
    await load.finish(address(it))


@asynccontextmanager
async def damaged(it: DistributedLedger) -> AsyncIterator[tuple[Surgery, dict[int, list[Message]]]]:
    """Let the block operate on the topic, which has these messages; make sure that nothing came of it.

    In the end the topic is as it was, for the next test.
    """
    before, told = heads(it), await all_told(it)
    async with surgery(it) as topic:
        messages = await topic.read()
        try:
            yield topic, messages
        finally:
            await asyncio.to_thread(it.stop_all)
            await topic.make_anew(messages)
    assert heads(it) == before
    assert not any((await all_told(it)).since(told).values())


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("fewer", "ends at offset"),
        ("none", "ends at offset"),
        ("others", "is another one"),
    ],
)
async def test_a_topic_that_is_not_the_history_any_more_stops_the_sequencer(
    left: str, said: str, history: DistributedLedger
) -> None:
    """False if anything were appended or signed from a topic that was cut, emptied, or is another one."""
    it = history
    async with damaged(it) as (topic, messages):
        match left:
            case "fewer":
                kept = {part: some[:-1] for part, some in messages.items()}
            case "none":
                kept = {}
            case _:
                kept = {part: [*some[:-1], *some[-2:-1], *some] for part, some in messages.items()}
        await topic.make_anew(kept)
        logged = log_of(it, "sequencer")
        with pytest.raises(NotReadyError) as ended:
            await start(it, ("signer", "relay", "cosigner", "sequencer"))
        assert ended.value.status == INTEGRITY_FAILURE, ended.value.said
        assert said in log_of(it, "sequencer")[len(logged) :], ended.value.said
        assert "Traceback" not in ended.value.said


async def test_a_topic_that_is_deleted_under_a_sequencer_and_made_anew_stops_it(
    history: DistributedLedger,
) -> None:
    """False if a sequencer took an empty topic, which it had read as another, for its own."""
    it = history
    async with damaged(it) as (topic, _):
        await start(it, ("signer", "relay", "cosigner", "sequencer"))
        logged = log_of(it, "sequencer")
        await topic.make_anew({})
        try:
            status = await asyncio.to_thread(it["sequencer"].wait)
            while status == UNREACHABLE:
                await asyncio.to_thread(it.start, "sequencer")
                status = await asyncio.to_thread(it["sequencer"].wait)
        except NotReadyError as error:
            status = error.status
        assert status == INTEGRITY_FAILURE
        assert "ends at offset" in log_of(it, "sequencer")[len(logged) :]


def log_of(it: DistributedLedger, service: str) -> str:
    """Return what a service has logged so far, in all its lives."""
    log = it.root / f"{service}.log"
    return log.read_text(encoding="utf-8") if log.exists() else ""


async def test_a_topic_that_has_lost_its_beginning_has_lost_only_that(
    tmp_path: Path, broker: Kafka, database: Postgres
) -> None:
    """False if the ledger stood still for messages that its database has, or nobody were told of the loss."""
    async with moved(tmp_path, broker, database) as (it, load):
        async with load.on(address(it)):
            await load.until(40, PATIENCE)
            async with surgery(it) as topic:
                messages = await topic.read()
                half = {part: len(some) // 2 for part, some in messages.items()}
                # Whoever is content with ACCEPTED runs ahead of the sequencer: only what is done may go.
                with closing(it.store()) as store:
                    await until(partial(_is_done, half, store), "the first half of each partition")
                await topic.forget_beginning(half)
            await load.until(40, PATIENCE)
            it["sequencer"].kill()
            await asyncio.to_thread(it.start, "sequencer")
            await load.until(40, PATIENCE)
        await load.finish(address(it))
        it.stop_all()
        await all_told(it)
        await asyncio.to_thread(partial(it.daybook, "rebuild", "--from", "kafka", "--check", status=1))
        copy = await asyncio.to_thread(it.copied)
        held = load.compare(copy)
        print(f"{load.acknowledged} acknowledged, {sum(len(one.entries) for one in held.values())} entries")


def _is_done(ends: Mapping[int, int], store: PostgresStore) -> bool:
    """Tell whether the database has every partition's messages up to an offset."""
    positions = {partition: store.position(SUBMISSIONS, partition) for partition in ends}
    return all((at.next_offset if at else 0) >= ends[partition] for partition, at in positions.items())


async def test_a_database_without_room_holds_the_ledger_up_and_loses_nothing(
    small: SmallDisk, tmp_path: Path, broker: Kafka
) -> None:
    """False if a full disk lost what was acknowledged, or the ledger did not go on with room again."""
    with started_postgres(small.path / "postgres") as database:
        async with moved(tmp_path, broker, database) as (it, load):
            async with supervised(it) as ended:
                async with load.on(address(it)):
                    await load.until(20, PATIENCE)
                    small.fill()
                    await until(lambda: "sequencer" in dict(ended), "the sequencer has no room")
                    await asyncio.sleep(2.0)
                    small.free()
                    await asyncio.to_thread(came_back, database)
                    await load.until(20, PATIENCE)
                await load.finish(address(it))
            print(ended)
            assert {status for _, status in ended} <= {UNREACHABLE}
            await compared(it, load)


async def test_a_broker_without_room_holds_the_ledger_up_and_loses_nothing(
    small: SmallDisk, tmp_path: Path, database: Postgres
) -> None:
    """False if a full disk lost what was acknowledged, or the ledger did not go on with room again."""
    with started_kafka(small.path / "kafka") as broker:
        async with moved(tmp_path, broker, database) as (it, load):
            async with supervised(it) as ended:
                async with load.on(address(it)):
                    await load.until(20, PATIENCE)
                    small.fill()
                    await until(lambda: not answers(broker), "the broker has no room")
                    refusal = await load.refused(address(it), REGISTERS[0])
                    assert isinstance(refusal, UnavailableError), refusal
                    assert refusal.reason == "BACKEND_DOWN"
                    assert "Kafka does not answer" in refusal.message
                    small.free()
                    await asyncio.to_thread(broker.kill)
                    await asyncio.to_thread(broker.start)
                    await load.until(20, PATIENCE)
                await load.finish(address(it))
            print(ended)
            assert {status for _, status in ended} <= {UNREACHABLE}
            await compared(it, load)


@pytest.fixture
def small() -> Iterator[SmallDisk]:
    """A disk that servers of any user reach."""
    with TemporaryDirectory(prefix="daybook-small-") as folder:
        Path(folder).chmod(0o711)
        with small_disk(Path(folder) / "disk", 256) as disk:
            if disk.within:
                pytest.skip("no small disk that a server can use: needs root")
            yield disk


def came_back(database: Postgres) -> None:
    """Start a server again that has given up, as an operator does who has made room."""
    try:
        psycopg.connect(database.superuser_dsn, connect_timeout=5).close()
    except psycopg.OperationalError:
        database.kill()
        database.start()


def answers(broker: Broker) -> bool:
    """Tell whether anybody listens there."""
    host, _, port = broker.bootstrap.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so that nobody tells."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"not in time: {what}"
        await asyncio.sleep(0.05)


def back_up(it: DistributedLedger, database: Postgres, backup: Path) -> None:
    """Stop the services and the database, and copy the database."""
    it.stop_all()
    database.stop()
    database.backup(backup)
    database.start()


def restore(database: Postgres, backup: Path) -> None:
    """Put the copy in the place of a database that no service uses."""
    database.stop()
    database.restore(backup)
    database.start()


def heads(it: DistributedLedger) -> Heads:
    """Return every register's head."""
    store = it.store()
    try:
        return dict(store.heads())
    finally:
        store.close()


def remembered(it: DistributedLedger) -> Heads:
    """Return the signer's marks, by register, as the heads that they are of."""
    with closing(HighWaterMarks(Path(it.settings["SIGNER_MARKS"]))) as marks:
        found = [marks.latest(origin) for origin in marks.origins()]
    return {
        each.origin.removeprefix(f"{ORIGIN}/"): Head(each.size, each.root) for each in found if each is not None
    }


def until_caught_up(it: DistributedLedger, wanted: Heads) -> None:
    """Wait until every register of the database is as large again as it once was."""

    def caught_up(store: Store) -> bool:
        there = store.heads()
        return all(name in there and there[name].size >= head.size for name, head in wanted.items())

    it.until(caught_up, "caught up from the topic")


def until_whole(it: DistributedLedger) -> None:
    """Wait until the cosigner waits for nothing that a restored database lacks."""
    end = time.monotonic() + PATIENCE
    while not (told := it["cosigner"].standing())["ready"]:
        assert time.monotonic() < end, told
        time.sleep(0.05)
    assert "behind" not in told


def until_grown(it: DistributedLedger, before: Heads) -> None:
    """Wait until the database has other heads than before."""
    it.until(lambda store: store.heads() != before, "something is appended")


def until_sealed(it: DistributedLedger, sealed: SealedLedger) -> None:
    """Wait until every witness has cosigned every register as it stands."""

    def all_sealed(store: Store) -> bool:
        wanted = {
            f"{ORIGIN}/{name}": Checkpoint(f"{ORIGIN}/{name}", head.size, head.root)
            for name, head in store.heads().items()
        }
        return all(of_witness == wanted for of_witness in sealed.cosigned().values())

    it.until(all_sealed, "sealed by both witnesses")

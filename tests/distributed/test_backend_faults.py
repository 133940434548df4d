"""Kafka and PostgreSQL killed, restored to older copies, emptied and filled up, under load.

Whatever happens to them: nothing acknowledged is lost or doubled, and never are there two histories.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from daybook.submission.v1 import submission_pb2

from ledger.checkpoints import Checkpoint
from ledger.store import Head, Store
from services.client.answers import Promised
from services.client.client import connect
from services.client.errors import UnavailableError
from services.local.kafka import Kafka
from services.local.postgres import Postgres
from services.signing import HighWaterMarks
from tests.support.brokers import SharedKafka, SharedPostgres, started_kafka, started_postgres
from tests.support.checkpoint_topic import Told, all_told
from tests.support.distributed_load import REGISTERS, DistributedLoad
from tests.support.distributed_services import (
    Broker,
    Database,
    DistributedLedger,
    NotReadyError,
    distributed_ledger,
)
from tests.support.ledger_dir import LedgerOnDisk, make_ledger
from tests.support.ledgers import DEPARTMENT_KEY, ORIGIN
from tests.support.sealed_ledger import SealedLedger, sealed_ledger
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.supervision import supervised
from tests.support.topic_surgery import surgery

pytestmark = [pytest.mark.hammer, pytest.mark.soak, pytest.mark.timeout(1_800)]

ROUNDS = int(os.environ.get("DAYBOOK_ROUNDS", "3"))
"""Kills under load."""

SEED = int(os.environ.get("DAYBOOK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
"""Printed, so that a failure can be repeated as far as the scheduling of processes allows."""

PATIENCE = 60.0

UNREACHABLE = 3
"""The exit status of a service that is to be started again."""

INTEGRITY_FAILURE = 1
"""The exit status of one that is not."""

WITNESSED = REGISTERS[:3]

Heads = dict[str, Head]


@asynccontextmanager
async def moved(
    folder: Path, broker: Broker, database: Database, ledger: LedgerOnDisk | None = None
) -> AsyncIterator[tuple[DistributedLedger, DistributedLoad]]:
    """A distributed ledger, by default of eight registers without witnesses; who writes it, and a load."""
    print(f"DAYBOOK_SEED={SEED} DAYBOOK_ROUNDS={ROUNDS}")
    if ledger is None:
        ledger = await asyncio.to_thread(make_ledger, folder / "ledger", REGISTERS)
    with ExitStack() as stack:
        making = distributed_ledger(folder / "services", ledger, broker, database)
        it = await asyncio.to_thread(stack.enter_context, making)
        await asyncio.to_thread(it.start_all)
        yield it, DistributedLoad(it.ledger, random.Random(SEED))


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


def with_all_notes(it: DistributedLedger) -> None:
    """Give a restored database the notes again that it has lost: of sizes that are never signed again."""
    it.stop_all()
    told = it.daybook("rebuild", "--from", "kafka", "--check", status=1)
    assert "the store lacks" in told["error"]["message"]
    it.daybook("rebuild", "--from", "kafka", "--resume")


async def test_a_broker_killed_under_load_takes_nothing_with_it(
    tmp_path: Path, fresh_kafka: Kafka, postgres: SharedPostgres
) -> None:
    """False if a submission was acknowledged before Kafka had it, or a service did not come back by itself."""
    async with moved(tmp_path, fresh_kafka, postgres) as (it, load):
        async with supervised(it) as ended:
            async with load.on(address(it)):
                for _ in range(ROUNDS):
                    await load.until(30, PATIENCE)
                    await asyncio.sleep(load.draw.uniform(0.0, 1.0))
                    await asyncio.to_thread(fresh_kafka.kill)
                    await asyncio.sleep(load.draw.uniform(0.0, 2.0))
                    await asyncio.to_thread(fresh_kafka.start)
                await load.until(30, PATIENCE)
            await load.finish(address(it))
        print(ended)
        assert {status for _, status in ended} <= {UNREACHABLE}
        await compared(it, load)


@pytest.mark.parametrize("service", ["registration", "sequencer", "cosigner", "relay"])
async def test_a_service_that_is_told_to_stop_while_kafka_is_away_stops(
    service: str, tmp_path: Path, fresh_kafka: Kafka, postgres: SharedPostgres
) -> None:
    """False if a service had to be killed, or called its end a failure, since a broker is away."""
    async with moved(tmp_path, fresh_kafka, postgres) as (it, load):
        async with load.on(address(it)):
            await load.until(20, PATIENCE)
            await asyncio.to_thread(fresh_kafka.kill)
            await asyncio.sleep(1.0)
        before = time.monotonic()
        status = await asyncio.to_thread(it[service].terminate)
        # By the signal alone where it was about to end anyhow, since Kafka is away.
        assert status in {0, UNREACHABLE, -signal.SIGTERM}
        print(f"{service} ended with {status} after {time.monotonic() - before:.1f} s")


async def test_a_database_killed_under_load_takes_nothing_with_it(
    tmp_path: Path, kafka: SharedKafka, fresh_postgres: Postgres
) -> None:
    """False if a commit was believed that was lost, or repeated one that was not."""
    async with moved(tmp_path, kafka, fresh_postgres) as (it, load):
        async with supervised(it) as ended:
            async with load.on(address(it)):
                for _ in range(ROUNDS):
                    await load.until(30, PATIENCE)
                    await asyncio.sleep(load.draw.uniform(0.0, 1.0))
                    await asyncio.to_thread(fresh_postgres.kill)
                    await asyncio.sleep(load.draw.uniform(0.0, 1.0))
                    await asyncio.to_thread(fresh_postgres.start)
                await load.until(30, PATIENCE)
            await load.finish(address(it))
        print(ended)
        assert {status for _, status in ended} <= {UNREACHABLE}
        await compared(it, load)


async def test_a_database_restored_to_an_older_backup_catches_up_from_the_topic(
    tmp_path: Path, kafka: SharedKafka, fresh_postgres: Postgres
) -> None:
    """False if what came after the backup was lost, or anything was signed below what had been signed."""
    async with moved(tmp_path, kafka, fresh_postgres) as (it, load):
        async with load.on(address(it)):
            await load.until(60, PATIENCE)
        backup = tmp_path / "backup"
        await asyncio.to_thread(back_up, it, fresh_postgres, backup)
        older = heads(it)
        await asyncio.to_thread(it.start_all)
        async with load.on(address(it)):
            await load.until(120, PATIENCE)
        it.stop_all()
        newest, before = heads(it), await all_told(it)
        await asyncio.to_thread(restore, fresh_postgres, backup)
        assert heads(it) == older

        await asyncio.to_thread(it.start_all)
        await asyncio.to_thread(until_caught_up, it, newest)
        metrics = it["sequencer"].metrics()
        assert metrics["daybook_sequencer_gap_alarms_total"] > 0
        assert "gap alarm" in it["sequencer"].said()
        async with load.on(address(it)):
            await load.until(60, PATIENCE)
        await load.finish(address(it))
        await asyncio.to_thread(with_all_notes, it)
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
async def behind(tmp_path: Path, kafka: SharedKafka, fresh_postgres: Postgres) -> AsyncIterator[Behind]:
    """Two of two witnesses hold more than the restored database has, and than the restored marks say."""
    with ExitStack() as stack:
        sealed = await asyncio.to_thread(stack.enter_context, sealed_ledger(tmp_path / "sealed", WITNESSED))
        async with moved(tmp_path, kafka, fresh_postgres, sealed.ledger) as (it, load):
            async with load.on(address(it), registers=WITNESSED):
                await load.until(20, PATIENCE)
            await asyncio.to_thread(until_sealed, it, sealed)
            backup = tmp_path / "backup"
            await asyncio.to_thread(back_up, it, fresh_postgres, backup)
            marks = await asyncio.to_thread(Path(it.settings["SIGNER_MARKS"]).read_bytes)
            older = heads(it)
            async with surgery(it) as topic:
                ends = {partition: len(messages) for partition, messages in (await topic.read()).items()}

            await asyncio.to_thread(it.start_all)
            async with load.on(address(it), registers=WITNESSED):
                await load.until(30, PATIENCE)
            await load.finish(address(it))
            await asyncio.to_thread(until_sealed, it, sealed)
            it.stop_all()
            newest, told = heads(it), await all_told(it)
            await asyncio.to_thread(restore, fresh_postgres, backup)
            await asyncio.to_thread(Path(it.settings["SIGNER_MARKS"]).write_bytes, marks)
            assert heads(it) == older != newest
            yield Behind(it, load, sealed, older, newest, told, ends)


async def test_where_the_marks_are_older_too_nothing_is_signed_before_the_witnesses_have_confirmed_it(
    behind: Behind,
) -> None:
    """False if a signer that has forgotten signed at all beside what witnesses hold, or never again."""
    it, load = behind.it, behind.load
    for service in ("signer", "relay", "registration", "cosigner"):
        await asyncio.to_thread(it.start, service)
    assert await asyncio.to_thread(it["cosigner"].wait) == INTEGRITY_FAILURE
    assert "where this ledger has" in it["cosigner"].said()

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

    await asyncio.to_thread(it.start, "cosigner")
    async with load.on(address(it), registers=WITNESSED):
        await load.until(20, PATIENCE)
    await load.finish(address(it))
    await asyncio.to_thread(until_sealed, it, behind.sealed)
    await asyncio.to_thread(with_all_notes, it)
    await compared(it, load)
    for register, sizes in (await all_told(it)).since(behind.told).items():
        assert all(size > behind.told.largest(register) for size in sizes), (register, sizes)


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
        assert "holds" in said, said
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


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("fewer", "ends at offset"),
        ("none", "ends at offset"),
        ("others", "is another one"),
    ],
)
async def test_a_topic_that_is_not_the_history_any_more_stops_the_sequencer(
    left: str, said: str, tmp_path: Path, kafka: SharedKafka, postgres: SharedPostgres
) -> None:
    """False if anything were appended or signed from a topic that was cut, emptied, or is another one."""
    async with moved(tmp_path, kafka, postgres) as (it, load):
        async with load.on(address(it)):
            await load.until(40, PATIENCE)
        await load.finish(address(it))
        it.stop_all()
        before, told = heads(it), await all_told(it)
        async with surgery(it) as topic:
            messages = await topic.read()
            match left:
                case "fewer":
                    kept = {part: some[:-1] for part, some in messages.items()}
                case "none":
                    kept = {}
                case _:
                    kept = {part: [*some[:-1], *some[-2:-1], *some] for part, some in messages.items()}
            await topic.make_anew(kept)
        for service in ("signer", "relay", "cosigner"):
            await asyncio.to_thread(it.start, service)
        with pytest.raises(NotReadyError) as ended:
            await asyncio.to_thread(it.start, "sequencer")
        assert ended.value.status == INTEGRITY_FAILURE, ended.value.said
        assert said in ended.value.said
        assert "Traceback" not in ended.value.said
        it.stop_all()
        assert heads(it) == before
        assert not any((await all_told(it)).since(told).values())


async def test_a_topic_that_is_deleted_under_a_sequencer_and_made_anew_stops_it(
    tmp_path: Path, kafka: SharedKafka, postgres: SharedPostgres
) -> None:
    """False if a sequencer took an empty topic, which it had read as another, for its own."""
    async with moved(tmp_path, kafka, postgres) as (it, load):
        async with load.on(address(it)):
            await load.until(40, PATIENCE)
        await load.finish(address(it))
        it["registration"].terminate()
        before, told = heads(it), await all_told(it)
        async with surgery(it) as topic:
            await topic.make_anew({})
        try:
            status = await asyncio.to_thread(it["sequencer"].wait)
            while status == UNREACHABLE:
                await asyncio.to_thread(it.start, "sequencer")
                status = await asyncio.to_thread(it["sequencer"].wait)
        except NotReadyError as error:
            status = error.status
        assert status == INTEGRITY_FAILURE
        assert "ends at offset" in (it.root / "sequencer.log").read_text()
        it.stop_all()
        assert heads(it) == before
        assert not any((await all_told(it)).since(told).values())


async def test_a_topic_that_has_lost_its_beginning_has_lost_only_that(
    tmp_path: Path, kafka: SharedKafka, postgres: SharedPostgres
) -> None:
    """False if the ledger stood still for messages that its database has, or nobody were told of the loss."""
    async with moved(tmp_path, kafka, postgres) as (it, load):
        async with load.on(address(it)):
            await load.until(40, PATIENCE)
            async with surgery(it) as topic:
                messages = await topic.read()
                await topic.forget_beginning({part: len(some) // 2 for part, some in messages.items()})
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


async def test_a_database_without_room_holds_the_ledger_up_and_loses_nothing(
    small: SmallDisk, tmp_path: Path, kafka: SharedKafka
) -> None:
    """False if a full disk lost what was acknowledged, or the ledger did not go on with room again."""
    with started_postgres(small.path / "postgres") as database:
        async with moved(tmp_path, kafka, database) as (it, load):
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
    small: SmallDisk, tmp_path: Path, postgres: SharedPostgres
) -> None:
    """False if a full disk lost what was acknowledged, or the ledger did not go on with room again."""
    with started_kafka(small.path / "kafka") as broker:
        async with moved(tmp_path, broker, postgres) as (it, load):
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
    """Wait until the database has every head again that it once had."""
    it.until(lambda store: store.heads().items() >= wanted.items(), "caught up from the topic")


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

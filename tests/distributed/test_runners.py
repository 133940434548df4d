"""Every runner of the append path makes the same of the same messages: entries, roots, outcomes and positions.

They are the embedded ledger, the writer of a partition, the Faust sequencer, and the plain reader of a rebuild.
All scenarios stand in one log, which each runner takes in once.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from aiokafka import AIOKafkaProducer

from ledger.errors import Reason
from ledger.event_log import SUBMISSIONS, Kind
from ledger.governing import GOVERNING
from ledger.stores.memory import MemoryStore
from ledger.stores.postgres import PostgresStore, migrate
from ledger.stores.sqlite import SqliteStore
from services.distributed import rebuilding
from services.distributed.topics import create_topics
from services.local.ports import free_port
from services.local.postgres import create_database, drop_database
from tests.support import distributed_ledger
from tests.support.append_scenarios import PARTITIONS, WAITS, EventLog, Scenario, at, event_log
from tests.support.brokers import SharedKafka, SharedPostgres
from tests.support.command import run, run_json
from tests.support.postgres_schemas import migrated_schema
from tests.support.runners import Made, embedded, kept, written
from tests.support.service_process import ServiceProcess, running

PATIENCE: Final = 60.0

LOG: Final = event_log()
SCENARIOS: Final = [each.name for each in LOG.scenarios]
RUNNERS: Final = (
    "embedded in few turns",
    "sequencer",
    "rebuild",
    "rebuild in many commits",
    "writer",
    "writer that is always another",
    "writer of one message at a time",
)

_NO_ENTRY: Final = (Kind.KNOWN, Kind.QUARANTINED)
_LATE: Final = sum(each.key == GOVERNING.encode() and each.says not in _NO_ENTRY for each in LOG.sent)
"""The size that `governing` reaches with its late message, for which others wait."""


@dataclass(frozen=True, slots=True)
class World:
    """A topic, and the database of the sequencer that reads it."""

    kafka: SharedKafka
    prefix: str
    folder: Path
    live: str

    def environment(self, database: str) -> dict[str, str]:
        """Return the variables that lead to the topic and a database."""
        return {
            **distributed_ledger.environment(self.kafka, self.prefix, database, self.folder),
            "DAYBOOK_PARTITIONS": str(PARTITIONS),
            # Nobody signs: what is appended does not depend on it.
            "DAYBOOK_SIGNER": f"127.0.0.1:{free_port()}",
        }

    async def send(self, log: EventLog, *, late: bool) -> None:
        """Send the messages that are late, or all the others."""
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka.bootstrap, max_request_size=4 << 20)
        await producer.start()
        try:
            sent = [
                await producer.send(self.prefix + SUBMISSIONS, one.value, one.key, one.partition)
                for one in log.sent
                if one.late == late
            ]
            await asyncio.gather(*sent)
        finally:
            await producer.stop()


@contextmanager
def _database(postgres: SharedPostgres) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    create_database(postgres.superuser_dsn, name)
    try:
        yield postgres.dsn(name)
    finally:
        drop_database(postgres.superuser_dsn, name)


@contextmanager
def _migrated(postgres: SharedPostgres) -> Iterator[str]:
    with _database(postgres) as database:
        migrate(database)
        yield database


@pytest.fixture(scope="module")
def world(
    kafka: SharedKafka, postgres: SharedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """An empty topic, and an empty database."""
    prefix = f"test-{uuid.uuid4().hex[:12]}."
    asyncio.run(create_topics(kafka.bootstrap, PARTITIONS, prefix=prefix))
    with _migrated(postgres) as live:
        yield World(kafka, prefix, tmp_path_factory.mktemp("runners"), live)


@pytest.fixture(scope="module")
def reference() -> Made:
    """What the embedded ledger makes, with a turn for each message."""
    return embedded(LOG.partitions, MemoryStore(), 1)


@pytest.fixture(scope="module")
def sequenced(world: World) -> Made:
    """What the sequencer makes of the topic. It runs before there are messages, and waits for the late ones."""
    variables = world.environment(world.live)
    settings = {name.removeprefix("DAYBOOK_").lower(): value for name, value in variables.items()}
    with (
        running("sequencer", settings, world.folder / "sequencer.log") as process,
        closing(PostgresStore(world.live, read_only=True)) as store,
    ):
        asyncio.run(world.send(LOG, late=False))
        _until(process, lambda: _waits_for(process, at(WAITS)) == _LATE)
        asyncio.run(world.send(LOG, late=True))
        _until(process, lambda: _done(store) == len(LOG.sent))
        assert process.terminate() == 0
        return kept(LOG.partitions, store)


def _until(process: ServiceProcess, told: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not told():
        said = process.said()[-4000:]
        assert process.process.poll() is None, said
        assert time.monotonic() < end, f"not in {PATIENCE} s: {process.standing()}: {said}"
        time.sleep(0.05)


def _waits_for(process: ServiceProcess, partition: int) -> int | None:
    found: int | None = process.standing()["partitions"][str(partition)]["waits_for"]
    return found


def _done(store: PostgresStore) -> int:
    positions = [store.position(SUBMISSIONS, number) for number in LOG.partitions]
    return sum(each.next_offset for each in positions if each is not None)


@pytest.fixture(scope="module")
def topic(world: World, sequenced: Made) -> World:
    """The topic with all messages: those that the sequencer was sent."""
    assert sequenced.messages
    return world


@pytest.fixture(scope="module", params=RUNNERS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """What a runner makes of the log."""
    match request.param.split():
        case ["embedded", *_]:
            with closing(SqliteStore(tmp_path_factory.mktemp("embedded") / "store.sqlite3")) as store:
                yield embedded(LOG.partitions, store, 100)
        case ["writer", *rest]:
            taken_over = 1 if "another" in rest else 0.1
            sizes = [1] if "one" in rest else [1, 2, 5, 8, 30]
            with (
                _database(request.getfixturevalue("postgres")) as database,
                closing(PostgresStore(migrated_schema(database))) as store,
            ):
                yield written(LOG.partitions, store, 1, taken_over=taken_over, sizes=sizes)
        case ["rebuild", *rest]:
            topic: World = request.getfixturevalue("topic")
            with (
                pytest.MonkeyPatch.context() as patch,
                _migrated(request.getfixturevalue("postgres")) as database,
                closing(PostgresStore(database)) as store,
            ):
                if rest:
                    patch.setattr(rebuilding, "MESSAGES_TOGETHER", 2)
                distributed_ledger.set_environment(patch, topic.environment(database))
                run("rebuild", "--from", "kafka")
                yield kept(LOG.partitions, store)
        case ["sequencer"]:
            yield request.getfixturevalue("sequenced")
        case other:
            raise AssertionError(f"no runner is called {other}")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_becomes_what_the_rules_say(scenario: str, reference: Made) -> None:
    """A message is appended, known, rejected or set aside otherwise than the append rules have it."""
    said = LOG.said()
    messages = [reference.messages[place] for place in LOG.places[scenario]]
    found = [Reason(each.why) if each.kind is Kind.REJECTED else each.kind for each in messages]
    assert found == [said[place] for place in LOG.places[scenario]]


@pytest.mark.parametrize("scenario", LOG.scenarios, ids=SCENARIOS)
def test_every_runner_makes_the_same(scenario: Scenario, made: Made, reference: Made) -> None:
    """A runner appends other bytes, elsewhere or not at all, or tells another outcome of a message."""
    for place in LOG.places[scenario.name]:
        assert made.messages[place] == reference.messages[place], f"message {place}"
        assert made.quarantined.get(place) == reference.quarantined.get(place), f"message {place}"
    for register in scenario.registers():
        assert made.registers.get(register) == reference.registers.get(register), register


def test_nothing_else_comes_of_it(made: Made, reference: Made) -> None:
    """A runner makes more than the messages say, or says another history of a partition."""
    assert made.messages.keys() == reference.messages.keys()
    assert made.quarantined.keys() == reference.quarantined.keys()
    assert made.registers == reference.registers
    assert made.positions == reference.positions


@pytest.mark.parametrize("together", [2, 5_000])
def test_the_rebuild_s_comparison_finds_the_sequencer_s_database_right(
    together: int, topic: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader that compares judges a message otherwise than the sequencer did."""
    monkeypatch.setattr(rebuilding, "MESSAGES_TOGETHER", together)
    distributed_ledger.set_environment(monkeypatch, topic.environment(topic.live))
    told = run_json("rebuild", "--from", "kafka", "--check")
    assert (told["messages"], told["behind"]) == (len(LOG.sent), 0)
    assert told["quarantined"] == sum(each.says is Kind.QUARANTINED for each in LOG.sent)

"""The settings of a distributed ledger for tests, and topics and databases that hold one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from aiokafka import AIOKafkaProducer
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ledger.checkpoints import Checkpoint
from ledger.event_log import CHECKPOINTS, SUBMISSIONS, LogMessage
from ledger.export import Block, MessageBlock
from ledger.notes import split_note
from ledger.reader import RegisterReader, TileCache
from ledger.store import Store
from ledger.stores.postgres import PostgresStore, migrate
from services.distributed.partitions import partition_of
from services.distributed.settings import DistributedSettings, distributed_settings
from services.distributed.topics import create_topics
from tests.support.brokers import SharedKafka
from tests.support.ledgers import ORIGIN

PARTITIONS: Final = 3


@dataclass(frozen=True, slots=True)
class Distributed:
    """Empty topics and an empty, migrated database; the environment has their settings."""

    settings: DistributedSettings
    database: str

    def store(self) -> PostgresStore:
        """Open the database."""
        return PostgresStore(self.database)

    def topic(self, name: str) -> str:
        """Return the topic's name with the prefix."""
        return self.settings.topic_prefix + name

    def send(self, messages: Iterable[tuple[str, int, bytes, bytes]]) -> None:
        """Send messages: topic without prefix, partition, key, value."""
        asyncio.run(_send(self.settings, messages))

    def send_blocks(self, blocks: Iterable[Block]) -> None:
        """Send the blocks of an export, each to its place, whatever they are."""
        self.send(_placed(block) for block in blocks)


def environment(kafka: SharedKafka, prefix: str, database: str, folder: Path) -> dict[str, str]:
    """Return the variables that name a Kafka and a database; its password goes into a file in `folder`."""
    given = {name: str(value) for name, value in conninfo_to_dict(database).items()}
    password = folder / "database-password"
    password.write_text(given.pop("password", "none") + "\n")
    return {
        "DAYBOOK_ORIGIN": ORIGIN,
        "DAYBOOK_KAFKA": kafka.bootstrap,
        "DAYBOOK_TOPIC_PREFIX": prefix,
        "DAYBOOK_PARTITIONS": str(PARTITIONS),
        "DAYBOOK_DATABASE": make_conninfo(**given),
        "DAYBOOK_DATABASE_PASSWORD_FILE": str(password),
    }


def set_environment(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    """Set the variables for one test."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def empty_ledger(
    monkeypatch: pytest.MonkeyPatch, kafka: SharedKafka, prefix: str, database: str, folder: Path
) -> Distributed:
    """Create topics, migrate the database, and set the environment."""
    set_environment(monkeypatch, environment(kafka, prefix, database, folder))
    asyncio.run(create_topics(kafka.bootstrap, PARTITIONS, prefix=prefix))
    migrate(database)
    return Distributed(distributed_settings(), database)


def roots(store: Store) -> dict[tuple[str, int], bytes]:
    """Return the root that the entries make at every size that has a note, and at every head."""
    found: dict[tuple[str, int], bytes] = {}
    for register, head in store.heads().items():
        reader = RegisterReader(store, register, TileCache())
        sizes = {head.size, *(note.size for note in store.notes(register, 0, head.size + 1))}
        found |= {(register, size): reader.root(size) for size in sizes}
    return found


def stated(store: Store) -> dict[tuple[str, int], bytes]:
    """Return the root that every note of a store states."""
    return {
        (register, note.size): Checkpoint.parse(split_note(note.note)[0]).root
        for register, head in store.heads().items()
        for note in store.notes(register, 0, head.size + 1)
    }


def read_all(distributed: Distributed, topic: str, partition: int) -> list[LogMessage]:
    """Return every message of a partition."""

    async def read() -> list[LogMessage]:
        from services.distributed.log_reader import log_reader

        async with log_reader(distributed.settings) as reader:
            name = distributed.topic(topic)
            end = (await reader.ends(name))[partition]
            return [each async for some in reader.read(name, partition, 0, end) for each in some]

    return asyncio.run(read())


def entries(distributed: Distributed) -> dict[str, list[bytes]]:
    """Return every entry of the database, by register."""
    with closing(distributed.store()) as store:
        return {name: store.entries(name, 0, head.size) for name, head in store.heads().items()}


def _placed(block: Block) -> tuple[str, int, bytes, bytes]:
    partition = partition_of(block.register, PARTITIONS)
    if isinstance(block, MessageBlock):
        return SUBMISSIONS, partition, block.register.encode(), block.value
    return CHECKPOINTS, partition, block.register.encode(), block.note


async def _send(settings: DistributedSettings, messages: Iterable[tuple[str, int, bytes, bytes]]) -> None:
    client = AIOKafkaProducer(bootstrap_servers=settings.kafka, max_request_size=4 * 1024 * 1024)
    await client.start()
    try:
        for topic, partition, key, value in messages:
            await client.send(settings.topic_prefix + topic, value, key, partition)
    finally:
        await client.stop()

"""The plain reader: every message of a partition, in order, and an error where any is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TypeVar

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.structs import TopicPartition

from ledger.event_log import SUBMISSIONS, LogMessage, message_hash
from services.distributed.kafka_clients import MAX_MESSAGE
from services.distributed.log_errors import GapError, TruncatedError
from services.distributed.log_reader import LogReader, log_reader
from tests.support.brokers import SharedKafka, needs_kafka
from tests.support.distributed_ledger import Distributed, empty_ledger

T = TypeVar("T")


@pytest.fixture
def distributed(
    monkeypatch: pytest.MonkeyPatch, any_kafka: SharedKafka, prefix: str, fresh_database: str, tmp_path: Path
) -> Distributed:
    """Empty topics."""
    return empty_ledger(monkeypatch, any_kafka, prefix, fresh_database, tmp_path)


def ask(distributed: Distributed, question: Callable[[LogReader], Coroutine[None, None, T]]) -> T:
    """Ask a reader."""

    async def asked() -> T:
        async with log_reader(distributed.settings) as reader:
            return await asyncio.wait_for(question(reader), 60)

    return asyncio.run(asked())


def read(distributed: Distributed, partition: int, begin: int, end: int) -> list[LogMessage]:
    """Return what a reader yields."""

    async def all_of(reader: LogReader) -> list[LogMessage]:
        topic = distributed.topic(SUBMISSIONS)
        return [each async for some in reader.read(topic, partition, begin, end) for each in some]

    return ask(distributed, all_of)


def fill(distributed: Distributed, count: int, size: int = 1) -> list[LogMessage]:
    """Send messages to partition 1; return them as they must be read."""
    messages = [LogMessage(at, b"key-%d" % at, b"%d" % (at % 10) * size) for at in range(count)]
    distributed.send((SUBMISSIONS, 1, each.key, each.value) for each in messages)
    return messages


@needs_kafka
def test_messages_come_in_order_and_none_from_beyond_the_end(distributed: Distributed) -> None:
    """False if a bound were overstepped, or a message left out, repeated or changed."""
    sent = fill(distributed, 12_000)
    assert ask(distributed, lambda reader: reader.ends(distributed.topic(SUBMISSIONS))) == {
        0: 0,
        1: 12_000,
        2: 0,
    }
    assert read(distributed, 1, 0, 12_000) == sent
    assert read(distributed, 1, 7, 11_003) == sent[7:11_003]
    assert read(distributed, 1, 5, 5) == read(distributed, 0, 0, 0) == []
    topic = distributed.topic(SUBMISSIONS)
    assert ask(distributed, lambda reader: reader.read_one(topic, 1, 11_999)) == sent[-1]
    assert sent[3].hash() == message_hash("key-3", b"3")


def test_messages_of_the_largest_size_are_read(distributed: Distributed) -> None:
    """False if a fetch were too small for one message, and never got on."""
    sent = fill(distributed, 5, MAX_MESSAGE - 2_000)
    assert read(distributed, 1, 0, 5) == sent


def test_a_topic_that_is_not_there_has_no_partitions(distributed: Distributed) -> None:
    """False if a missing topic could not be told from an empty one."""
    assert ask(distributed, lambda reader: reader.ends(distributed.topic("other"))) == {}


@needs_kafka
def test_an_end_that_is_not_reached_is_named(distributed: Distributed) -> None:
    """False if a reader waited for ever for messages that are lost."""
    fill(distributed, 3)
    with pytest.raises(TruncatedError, match="it ends at 3, and once reached 5"):
        read(distributed, 1, 0, 5)
    with pytest.raises((TruncatedError, GapError)):
        read(distributed, 1, 4, 5)


@needs_kafka
def test_messages_that_were_deleted_are_named(distributed: Distributed) -> None:
    """False if a topic whose beginning is gone were read from where it begins now."""
    fill(distributed, 5)

    async def delete() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=distributed.settings.kafka)
        await admin.start()
        try:
            where = TopicPartition(distributed.topic(SUBMISSIONS), 1)
            await admin.delete_records({where: RecordsToDelete(before_offset=2)})
        finally:
            await admin.close()

    topic = distributed.topic(SUBMISSIONS)
    assert ask(distributed, lambda reader: reader.begins(topic)) == {0: 0, 1: 0, 2: 0}
    asyncio.run(delete())
    assert ask(distributed, lambda reader: reader.begins(topic)) == {0: 0, 1: 2, 2: 0}
    with pytest.raises(GapError, match="the message 0 is not there any more"):
        read(distributed, 1, 0, 5)
    assert len(read(distributed, 1, 2, 5)) == 3


def test_a_gap_between_messages_is_named(distributed: Distributed, kafka: SharedKafka) -> None:
    """False if a topic that was compacted passed for a whole one."""
    name = distributed.topic("compacted")

    async def gap() -> None:
        from aiokafka import AIOKafkaProducer

        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic(name, 1, 1)])
        await admin.close()
        # The end of a transaction takes an offset, as a message that was compacted away does.
        client = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=name)
        await client.start()
        for value in (b"one", b"two"):
            async with client.transaction():
                await client.send(name, value, b"key", 0)
        await client.stop()

    asyncio.run(gap())

    async def all_of(reader: LogReader) -> list[LogMessage]:
        end = (await reader.ends(name))[0]
        return [each async for some in reader.read(name, 0, 0, end) for each in some]

    with pytest.raises(GapError, match="the messages 1 to 1 are missing"):
        ask(distributed, all_of)


def test_a_kafka_that_is_away_is_an_error_of_the_system(distributed: Distributed) -> None:
    """False if a command could not end with the status that says: try again."""
    settings = distributed.settings.model_copy(update={"kafka": "127.0.0.1:1"})
    with pytest.raises(OSError, match="Kafka"):
        ask(Distributed(settings, distributed.database), lambda reader: reader.ends("any"))

"""The plain reader of a topic: every message of one partition, in order, with nothing left out.

It joins no group and commits nothing. Offsets that do not follow each other mean that history is missing: that
is an error, which names them, and never a step over them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from ledger.event_log import LogMessage
from services.distributed.kafka_clients import reader, security, stopped
from services.distributed.log_errors import GapError, TruncatedError
from services.distributed.settings import DistributedSettings

_WAIT_MS: Final = 1_000
_MANY: Final = 5_000
"""Messages that are taken from what was fetched at once; a fetch is bounded in bytes."""


class LogReader:
    """Reads partitions, one at a time, through one connection to the brokers."""

    def __init__(self, consumer: AIOKafkaConsumer, client: AIOKafkaClient) -> None:
        self._consumer = consumer
        self._client = client

    async def ends(self, topic: str) -> dict[int, int]:
        """Return each partition's end, the offset that its next message will get; none where no topic is.

        Raises OSError where the brokers cannot be reached.
        """
        return await self._offsets(topic, self._consumer.end_offsets)

    async def begins(self, topic: str) -> dict[int, int]:
        """Return the offset of each partition's first message: 0, unless something was deleted.

        Raises OSError where the brokers cannot be reached.
        """
        return await self._offsets(topic, self._consumer.beginning_offsets)

    async def _offsets(
        self, topic: str, ask: Callable[[list[TopicPartition]], Awaitable[dict[TopicPartition, int]]]
    ) -> dict[int, int]:
        with _translated():
            partitions = await self._partitions(topic)
            found = await ask(partitions) if partitions else {}
        return {partition.partition: offset for partition, offset in sorted(found.items())}

    async def _partitions(self, topic: str) -> list[TopicPartition]:
        # A consumer knows only the topics that it was assigned.
        cluster = await self._client.fetch_all_metadata()
        return [TopicPartition(topic, each) for each in cluster.partitions_for_topic(topic) or ()]

    async def read(
        self, topic: str, partition: int, begin: int, end: int
    ) -> AsyncIterator[Sequence[LogMessage]]:
        """Yield the messages at offsets `begin` to `end` - 1, in order, a few at a time; wait for none beyond.

        Raises GapError or TruncatedError where they are not all there, OSError where the brokers cannot be
        reached.
        """
        where = TopicPartition(topic, partition)
        if begin >= end:
            return
        with _translated():
            self._consumer.assign([where])
            self._consumer.seek(where, begin)
        reached = begin
        while reached < end:
            fetched = await self._fetch(where, reached, end)
            if not fetched:
                await self._check_end(where, reached, end)
                continue
            for message in fetched:
                if message.offset != reached:
                    raise GapError(
                        f"{topic}/{partition}: the messages {reached} to {message.offset - 1} are missing"
                    )
                reached += 1
            yield fetched

    async def _fetch(self, where: TopicPartition, begin: int, end: int) -> list[LogMessage]:
        try:
            with _translated():
                fetched = await self._consumer.getmany(
                    where, timeout_ms=_WAIT_MS, max_records=min(_MANY, end - begin)
                )
        except OffsetOutOfRangeError as error:
            raise GapError(
                f"{where.topic}/{where.partition}: the message {begin} is not there any more"
            ) from error
        return [_message(each) for each in fetched.get(where, ())]

    async def _check_end(self, where: TopicPartition, reached: int, end: int) -> None:
        """Raise GapError where nothing more can come: the partition ends, or went on without its last ones."""
        with _translated():
            there = (await self._consumer.end_offsets([where]))[where]
            position = await self._consumer.position(where)
        if there < end:
            raise TruncatedError(f"{where.topic}/{where.partition}: it ends at {there}, and once reached {end}")
        if position >= end:
            raise GapError(f"{where.topic}/{where.partition}: the messages {reached} to {end - 1} are missing")

    async def read_one(self, topic: str, partition: int, offset: int) -> LogMessage:
        """Return one message. Raises as `read` does."""
        async for messages in self.read(topic, partition, offset, offset + 1):
            return messages[0]
        raise AssertionError("a read either yields or raises")


def _message(record: Any) -> LogMessage:
    return LogMessage(record.offset, record.key or b"", record.value or b"")


@asynccontextmanager
async def log_reader(settings: DistributedSettings) -> AsyncIterator[LogReader]:
    """Open a reader. Raises OSError where the brokers cannot be reached."""
    consumer = reader(settings)
    client = AIOKafkaClient(**security(settings))
    try:
        with _translated():
            await client.bootstrap()
            await consumer.start()
        yield LogReader(consumer, client)
    finally:
        await stopped(consumer)
        await client.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OffsetOutOfRangeError:
        raise
    except KafkaError as error:
        raise ConnectionError(f"Kafka: {error}") from error

"""The topic of submissions of a distributed ledger, written to by whoever holds a producer: also by forgers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from ledger.entries import Acceptance, Message, Submission, accept
from ledger.event_log import REJECTIONS, SUBMISSIONS
from services.client.signing import SignedSubmission
from services.distributed.kafka_clients import reader
from services.distributed.partitions import partition_of
from services.distributed.settings import DistributedSettings, distributed_settings
from tests.support.distributed_services import DistributedLedger

PATIENCE: Final = 60.0

_LARGEST: Final = 64 * 1024 * 1024
"""Bytes of a message before it is compressed: a forger's limit is not ours."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A message of the topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


@dataclass(slots=True)
class RawTopic:
    """Sends whatever it is given, and reads what is there."""

    settings: DistributedSettings
    _producer: AIOKafkaProducer
    _reader: AIOKafkaConsumer

    @property
    def partitions(self) -> int:
        """The number of partitions."""
        return self.settings.partitions

    def partition_of(self, register: str) -> int:
        """Return where the messages of a register belong."""
        return partition_of(register, self.partitions)

    async def send(self, partition: int, key: bytes | None, value: bytes | None) -> Sent:
        """Send one message; return when it is there."""
        topic = self.settings.topic_prefix + SUBMISSIONS
        told = await self._producer.send_and_wait(topic, value, key=key, partition=partition)
        return Sent(partition, told.offset, key, value)

    async def send_message(self, message: Message) -> Sent:
        """Send a message to where it belongs, as registration does."""
        return await self.send(self.partition_of(message.register), message.register.encode(), message.value())

    async def ends(self) -> dict[int, int]:
        """Return where each partition of the topic of submissions ends."""
        topic = self.settings.topic_prefix + SUBMISSIONS
        ends = await self._reader.end_offsets([TopicPartition(topic, each) for each in range(self.partitions)])
        return {place.partition: end for place, end in ends.items()}

    async def messages(self, topic: str = SUBMISSIONS, since: Mapping[int, int] | None = None) -> list[Sent]:
        """Return what is in a topic, or only `since` some offsets, partition by partition."""
        places = [TopicPartition(self.settings.topic_prefix + topic, each) for each in range(self.partitions)]
        self._reader.assign(places)
        ends = await self._reader.end_offsets(places)
        for place in places:
            self._reader.seek(place, since[place.partition] if since else 0)
        found: list[Sent] = []
        for place in places:
            while await self._reader.position(place) < ends[place]:
                fetched = (await self._reader.getmany(place, timeout_ms=500)).get(place, ())
                found += [Sent(place.partition, each.offset, each.key, each.value) for each in fetched]
        return found

    async def count(self) -> int:
        """Return how many messages the topic of submissions has."""
        return sum((await self.ends()).values())

    async def until_count(self, count: int) -> None:
        """Wait until the topic of submissions has so many messages."""
        async with asyncio.timeout(PATIENCE):
            while await self.count() < count:  # noqa: ASYNC110 - the topic tells nobody
                await asyncio.sleep(0.02)

    async def until_rejections(self, count: int) -> list[Sent]:
        """Wait until so many copies are on the topic of rejections; return all."""
        async with asyncio.timeout(PATIENCE):
            while len(found := await self.messages(REJECTIONS)) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        return found


@asynccontextmanager
async def raw_topic(it: DistributedLedger) -> AsyncIterator[RawTopic]:
    """Connect to the topics of a ledger."""
    settings = distributed_settings(**{name.lower(): value for name, value in it.settings.items()})
    sender = AIOKafkaProducer(
        bootstrap_servers=settings.kafka,
        acks="all",
        max_request_size=_LARGEST,
        max_batch_size=_LARGEST,
        compression_type="lz4",
    )
    consumer = reader(settings)
    await sender.start()
    try:
        await consumer.start()
        yield RawTopic(settings, sender, consumer)
    finally:
        await consumer.stop()
        await sender.stop()


def message_of(
    submission: SignedSubmission, governing_size: int, accepted_at: str = "2026-11-01T12:00:00.000Z"
) -> Message:
    """Return the message of a submission, as from a replica with a view of so many governing entries.

    Nothing of the submission is checked.
    """
    signed = Submission(
        submission.register,
        submission.records,
        submission.signatures,
        submission.submission_id,
        submission.paths,
    )
    return accept(signed, Acceptance(accepted_at, "anonymous", governing_size))

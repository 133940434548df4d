"""What nobody may ever do to the topic of submissions: cut it, empty it, make it anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from ledger.event_log import SUBMISSIONS
from services.distributed.topics import create_topics
from tests.support.distributed_services import DistributedLedger

Message = tuple[bytes | None, bytes | None]
"""Key and value."""


class Surgery:
    """The topic of submissions of one ledger. Its services are stopped, but where a method says otherwise."""

    def __init__(self, it: DistributedLedger, admin: AIOKafkaAdminClient) -> None:
        self.topic = it.settings["TOPIC_PREFIX"] + SUBMISSIONS
        self._it = it
        self._admin = admin
        self._partitions = [TopicPartition(self.topic, each) for each in range(int(it.settings["PARTITIONS"]))]

    async def read(self) -> dict[int, list[Message]]:
        """Return every message, by partition."""
        found: dict[int, list[Message]] = {place.partition: [] for place in self._partitions}
        consumer = AIOKafkaConsumer(bootstrap_servers=self._it.broker.bootstrap, enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign(self._partitions)
            await consumer.seek_to_beginning(*self._partitions)
            ends = await consumer.end_offsets(self._partitions)
            async with asyncio.timeout(60):
                while any([await consumer.position(place) < end for place, end in ends.items()]):
                    for place, messages in (await consumer.getmany(timeout_ms=500)).items():
                        found[place.partition] += [(each.key, each.value) for each in messages]
        finally:
            await consumer.stop()
        return found

    async def forget_beginning(self, up_to: Mapping[int, int]) -> None:
        """Delete the messages before these offsets. Services may run."""
        await self._admin.delete_records(
            {TopicPartition(self.topic, partition): RecordsToDelete(end) for partition, end in up_to.items()}
        )

    async def make_anew(self, messages: Mapping[int, Sequence[Message]]) -> None:
        """Delete the topic, and make another of its name with these messages."""
        await self._admin.delete_topics([self.topic])
        async with asyncio.timeout(60):
            while self.topic in await self._admin.list_topics():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await create_topics(
                self._it.broker.bootstrap, len(self._partitions), prefix=self._it.settings["TOPIC_PREFIX"]
            )
        producer = AIOKafkaProducer(bootstrap_servers=self._it.broker.bootstrap, enable_idempotence=True)
        await producer.start()
        try:
            for partition, of_partition in messages.items():
                for key, value in of_partition:
                    await producer.send(self.topic, value, key=key, partition=partition)
        finally:
            await producer.stop()


@asynccontextmanager
async def surgery(it: DistributedLedger) -> AsyncIterator[Surgery]:
    """Connect while the block runs."""
    admin = AIOKafkaAdminClient(bootstrap_servers=it.broker.bootstrap)
    await admin.start()
    try:
        yield Surgery(it, admin)
    finally:
        await admin.close()

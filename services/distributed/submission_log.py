"""The topic of submissions, to be appended to: one idempotent producer, and what to do when it fails.

A message counts as appended only when every in-sync copy has it. After a failure nobody knows whether it does:
whoever asks again is found out by the sequencer, which appends no submission twice.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry, Histogram

from services.distributed.kafka_clients import producer
from services.distributed.partitions import partition_of
from services.distributed.running import LAST
from services.distributed.settings import DistributedSettings
from services.distributed.topics import SUBMISSIONS
from services.following import cancel
from services.settings import SettingsError

_START: Final = 10.0
"""Seconds that a producer may take to be ready."""

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_log = structlog.get_logger()


class SubmissionLog:
    """Appends to `daybook.submissions`. Used inside `started`, in the event loop's thread."""

    def __init__(self, settings: DistributedSettings, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._topic = settings.topic_prefix + SUBMISSIONS
        self._producer: AIOKafkaProducer | None = None
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._starting = asyncio.Lock()
        self._retired: set[asyncio.Task[None]] = set()
        self._seconds = Histogram(
            "daybook_submission_append_seconds",
            "Seconds until Kafka has acknowledged an accepted submission.",
            buckets=_BUCKETS,
            registry=registry,
        )

    @asynccontextmanager
    async def started(self) -> AsyncIterator[None]:
        """Hold a producer while the block runs; what is on its way at the end is waited for.

        Raises OSError where Kafka is away, SettingsError where the topic has another number of partitions.
        """
        ready = await self._ready()
        try:
            await self._check(ready)
            yield
        finally:
            if self._producer is not None:
                self._retire(self._producer)
            if self._retired:
                _, hanging = await asyncio.wait(self._retired, timeout=LAST * self._settings.grace_seconds)
                await cancel(hanging)

    async def append(self, register: str, value: bytes) -> None:
        """Return when the message is durable. Raises OSError, after which that is not known."""
        sender = await self._ready()
        partition = partition_of(register, self._settings.partitions)
        with self._seconds.time():
            try:
                # A producer whose buffer is full wakes all who wait, for one to go on: so only one waits.
                async with self._turns[partition]:
                    if sender != self._producer:
                        raise ConnectionError("Kafka: another submission was not acknowledged")
                    sent = await sender.send(self._topic, value, key=register.encode(), partition=partition)
                await sent
            except KafkaError as error:
                # An idempotent producer that has given one message up may be refused all those after it, and
                # one whose sender has failed sends nothing more: both are over.
                _log.warning("a submission was not acknowledged", register=register, why=repr(error))
                self._retire(sender)
                raise ConnectionError(f"Kafka: {error!r}") from error

    async def _ready(self) -> AIOKafkaProducer:
        """Return the producer, a new one where the last has failed. Raises OSError."""
        async with self._starting:
            if self._producer is not None:
                return self._producer
            fresh = producer(self._settings)
            try:
                async with asyncio.timeout(_START):
                    await fresh.start()
            except (KafkaError, ssl.SSLError, TimeoutError) as error:
                await fresh.stop()
                raise ConnectionError(f"Kafka at {self._settings.kafka}: {error!r}") from error
            except BaseException:
                await fresh.stop()
                raise
            self._producer = fresh
            # Nobody waits here for who still waits for a producer that is over.
            self._turns = defaultdict(asyncio.Lock)
            return fresh

    async def _check(self, ready: AIOKafkaProducer) -> None:
        try:
            there = len(await ready.partitions_for(self._topic))
        except KafkaError as error:
            raise ConnectionError(f"Kafka: the topic {self._topic}: {error!r}") from error
        if there != self._settings.partitions:
            raise SettingsError(
                f"{self._topic} has {there} partitions, the settings say {self._settings.partitions}: which is "
                "the partition of a register depends on it, for ever"
            )

    def _retire(self, spent: AIOKafkaProducer) -> None:
        """Use a producer no more; what is on its way in it is let through, or fails."""
        if spent != self._producer:
            return  # it is retired already
        self._producer = None
        ending: asyncio.Task[None] = asyncio.create_task(spent.stop())
        self._retired.add(ending)
        ending.add_done_callback(self._retired.discard)

"""The relay: what is committed to the outbox goes to Kafka, in order and at least once.

It deletes a row only when Kafka has acknowledged its message, so a crash anywhere sends some again and loses
none. Whoever reads knows a message that it has seen by its register, its size and its bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ledger.event_log import CHECKPOINTS, OutboxRow
from ledger.stores.postgres import PostgresStore
from services.distributed.faust_app import stream_app
from services.distributed.kafka_clients import producer, tls
from services.distributed.only_one import work_alone
from services.distributed.opened_store import open_store
from services.distributed.partitions import partition_of
from services.distributed.running import Running, served
from services.distributed.settings import DistributedSettings
from services.distributed.topics import check_topics

NAME: Final = "daybook-relay"
"""The name of the Faust app, behind the prefix."""

MOST: Final = 500
"""Messages that are on their way together."""

POLL: Final = 1.0
"""Seconds after which the outbox is looked at although nobody has said that there is news."""

_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0)

_log = structlog.get_logger()


class Relay:
    """Moves the outbox of one store to Kafka. One works at a time: two would only send everything twice."""

    def __init__(
        self,
        store: PostgresStore,
        kafka: AIOKafkaProducer,
        settings: DistributedSettings,
        registry: CollectorRegistry,
    ) -> None:
        self._store = store
        self._kafka = kafka
        self._settings = settings
        self.looked_at: float | None = None
        """When the outbox was last read and sent, by time.monotonic."""
        self._sent = Counter(
            "daybook_relayed_total", "Messages that Kafka has acknowledged.", ["topic"], registry=registry
        )
        self._seconds = Histogram(
            "daybook_relay_seconds",
            "Seconds from reading the outbox until Kafka has acknowledged what was in it.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._waiting = Gauge(
            "daybook_outbox_rows",
            "Messages found in the outbox at the last look, 500 at most.",
            registry=registry,
        )

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Send until it is to stop. Raises KafkaError, or StoreError: then what was not acknowledged stays."""
        while not stopping():
            rows = await asyncio.to_thread(self._store.outbox, MOST)
            self._waiting.set(len(rows))
            if rows:
                began = time.monotonic()
                await self.send(rows)
                self._seconds.observe(time.monotonic() - began)
                # A crash above, or before this is committed, sends them again: readers know them.
                await asyncio.to_thread(self._store.sent, [row.id for row in rows])
            self.looked_at = time.monotonic()
            if len(rows) < MOST:
                await asyncio.to_thread(self._store.wait_for_outbox, POLL)

    async def send(self, rows: Sequence[OutboxRow]) -> None:
        """Send messages in order; return when every in-sync copy has all of them. Raises KafkaError."""
        acknowledged = [
            await self._kafka.send(self._topic(row), row.value, row.key, self._partition(row)) for row in rows
        ]
        await asyncio.gather(*acknowledged)
        for row in rows:
            self._sent.labels(row.topic).inc()

    def _topic(self, row: OutboxRow) -> str:
        return self._settings.topic_prefix + row.topic

    def _partition(self, row: OutboxRow) -> int | None:
        """Return where a register's checkpoints go; None leaves it to the key, which need not be a register."""
        return partition_of(row.key.decode(), self._settings.partitions) if row.topic == CHECKPOINTS else None

    def told(self) -> dict[str, Any]:
        """Return, for readiness, whether the outbox is looked at."""
        if self.looked_at is None:
            return {"ready": False}
        age = time.monotonic() - self.looked_at
        return {"ready": age < self._settings.stall_seconds, "looked_at_seconds_ago": round(age, 3)}


async def run(settings: DistributedSettings, ready: Callable[[Mapping[str, str]], None]) -> None:
    """Relay until SIGTERM or SIGINT; as a standby while another relay works.

    Raises StoreError or OSError where PostgreSQL or Kafka cannot be reached, TopicsError where a topic is not
    as it must be.
    """
    await served(settings.grace_seconds, lambda running: _run(settings, ready, running))


async def _run(
    settings: DistributedSettings, ready: Callable[[Mapping[str, str]], None], running: Running
) -> None:
    registry = CollectorRegistry()
    conninfo = settings.conninfo()
    await check_topics(settings.kafka, settings.partitions, prefix=settings.topic_prefix, tls=tls(settings))
    store = await asyncio.to_thread(open_store, settings)
    running.in_the_end(store.hurry)
    kafka = producer(settings)
    relay = Relay(store, kafka, settings, registry)
    try:
        await kafka.start()

        async def work() -> None:
            await _relay(settings, running, relay)

        await work_alone("relay", conninfo, settings, running, registry, relay.told, ready, work)
    finally:
        await running.finish("messages on their way", kafka.stop())
        store.close()


async def _relay(settings: DistributedSettings, running: Running, relay: Relay) -> None:
    app = stream_app(settings, NAME)
    # Faust's own producer is not idempotent, and nothing is consumed here.
    app.producer_only = True
    ended = asyncio.Event()

    async def relaying() -> None:
        try:
            await relay.run(lambda: running.stopping)
        finally:
            ended.set()

    app.task(running.part(relaying))
    await app.start()
    try:
        await running.until_over()
        # What is on its way is acknowledged, and its rows dropped.
        await running.finish("messages of the outbox", ended.wait())
    finally:
        await running.finish("goodbye to Kafka", app.stop())

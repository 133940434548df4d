"""The anchorer: sealed checkpoints of registers become ledger-written entries of the governing register.

It writes messages to the event log as registration does; the sequencer appends them. The same anchor written
twice is one record, so a crash, or a second anchorer for a moment, does no harm.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry, Counter

from ledger import canonical
from ledger.admission import instant
from ledger.entries import Acceptance, Message, form_ledger_entry
from ledger.errors import Reason, RejectedError
from ledger.ledger import Appended, Known, LedgerView, Outcome
from ledger.store import Run, Store
from ledger.stores.postgres import PostgresStore
from services.anchoring import Anchorer
from services.distributed.faust_app import stream_app
from services.distributed.following_checkpoints import CheckpointFollower
from services.distributed.governed import governed_policies
from services.distributed.kafka_clients import tls
from services.distributed.note_agent import NoteAgent
from services.distributed.only_one import work_alone
from services.distributed.opened_store import open_store
from services.distributed.running import Running, served
from services.distributed.settings import DistributedSettings
from services.distributed.submission_log import SubmissionLog
from services.distributed.topics import check_topics
from services.following import cancel
from services.published import Published

NAME: Final = "daybook-anchorer"
"""The name of the consumer group, behind the prefix."""

PATIENCE: Final = 30.0
"""Seconds for which a written record is waited for in the store; at the next time it is written again."""

_LOOK: Final = 0.1
"""Seconds between two looks whether the store has a record."""

_log = structlog.get_logger()


class LogWriter:
    """Writes records of the ledger's own to the event log (`anchoring.Writer`), and waits for the sequencer."""

    def __init__(
        self, ledger: LedgerView, store: Store, log: SubmissionLog, registry: CollectorRegistry
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._log = log
        self._written = Counter(
            "daybook_ledger_records_written_total",
            "Records of the ledger's own that were written to the event log.",
            registry=registry,
        )

    async def write(self, register: str, record: bytes) -> Outcome:
        """Append a record, unless the store has it. Raises OSError, StoreError.

        RejectedError BACKEND_DOWN where the sequencer has not appended it in time.
        """
        key = _record_id(record)
        known = await self._run(register, key)
        if known is not None:
            return Known(known)
        size = self._ledger.fold.signed_size
        accepted_at = instant(time.time())
        entry = form_ledger_entry(record, accepted_at, size)
        message = Message(register, Acceptance(accepted_at, "ledger", size), (entry,), None)
        await self._log.append(register, message.value())
        self._written.inc()
        try:
            async with asyncio.timeout(PATIENCE):
                # By a look into the store, the authority: its note may come late.
                while (run := await self._run(register, key)) is None:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            raise RejectedError(
                Reason.BACKEND_DOWN, f"{register}: the sequencer has not appended a record in {PATIENCE:.0f} s"
            ) from None
        return Appended(message, run)

    async def _run(self, register: str, record_id: bytes) -> Run | None:
        found = await asyncio.to_thread(self._store.latest_versions, register, [record_id])
        return Run(found[0].index, 1) if found else None


def _record_id(record: bytes) -> bytes:
    value: Any = canonical.parse(record)
    return UUID(value["record_id"]).bytes


async def run(settings: DistributedSettings, ready: Callable[[Mapping[str, str]], None]) -> None:
    """Anchor until SIGTERM or SIGINT, and once more then; as a standby while another anchorer works.

    Raises StoreError or OSError where PostgreSQL or Kafka cannot be reached; SplitViewError where the log's key
    has signed what the store does not hold; TopicsError.
    """
    await served(settings.grace_seconds, lambda running: _run(settings, ready, running))


async def _run(
    settings: DistributedSettings, ready: Callable[[Mapping[str, str]], None], running: Running
) -> None:
    registry = CollectorRegistry()
    await check_topics(settings.kafka, settings.partitions, prefix=settings.topic_prefix, tls=tls(settings))
    store = await asyncio.to_thread(open_store, settings, reads_only=True)
    running.in_the_end(store.hurry)

    async def work() -> None:
        await _work(settings, store, registry, running)

    try:
        await work_alone("anchorer", settings.reader_conninfo(), settings, running, registry, dict, ready, work)
    finally:
        store.close()


async def _work(
    settings: DistributedSettings, store: PostgresStore, registry: CollectorRegistry, running: Running
) -> None:
    view = LedgerView(store, settings.origin)
    published = Published(store, await asyncio.to_thread(governed_policies, view))
    follower = CheckpointFollower(settings, view, published, registry)
    log = SubmissionLog(settings, registry)
    anchorer = Anchorer(view, published, LogWriter(view, store, log, registry), settings.anchor_seconds)
    app = stream_app(settings, NAME)
    agent = NoteAgent(app, settings, follower.take)

    async def anchor_the_last() -> None:
        # News of what was sealed a moment ago may still be under way.
        await follower.look()
        await anchorer.anchor()

    async with log.started(), follower.fed() as following:
        for part in (agent.run, lambda: following):
            app.task(running.part(part))
        await app.start()
        try:
            anchoring = asyncio.create_task(running.part(anchorer.run)())
            try:
                await running.until_over()
            finally:
                await cancel([anchoring])
            # Where it cannot be done now, the next start does it.
            await running.finish("the last anchors", anchor_the_last())
        finally:
            await running.finish("goodbye to Kafka", app.stop())

"""The projector: it counts the entries of every register under signed checkpoints, and finds in them.

It reads the store and writes nothing but its own tables (`projection`). Where it was killed it goes on: a step
of counting is one transaction, and states the size that it went on from. The detections are beside that:
whatever becomes of them, counting goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Gauge

from ledger.errors import ConflictError
from ledger.ledger import LedgerView
from ledger.stores.postgres import PostgresStore
from services.counting import Summary
from services.distributed.detections_file import detections_file
from services.distributed.faust_app import stream_app
from services.distributed.finding_table import FindingTable
from services.distributed.following_checkpoints import CheckpointFollower
from services.distributed.governed import governed_policies
from services.distributed.kafka_clients import tls
from services.distributed.note_agent import NoteAgent
from services.distributed.only_one import work_alone
from services.distributed.opened_store import open_store
from services.distributed.projection import ProjectedRegisters
from services.distributed.running import Running, served
from services.distributed.settings import DistributedSettings
from services.distributed.shown_findings import ShownFindings
from services.distributed.topics import check_topics
from services.finding import Finder
from services.following import cancel
from services.published import Published

NAME: Final = "daybook-projector"
"""The name of the consumer group, behind the prefix."""

STEP: Final = 2_000
"""Entries of one step, at the most."""

_log = structlog.get_logger()


class Projector:
    """Counts what is published. `run` is its task."""

    def __init__(
        self, view: LedgerView, published: Published, table: ProjectedRegisters, registry: CollectorRegistry
    ) -> None:
        self._view = view
        self._published = published
        self._table = table
        self._counted: dict[str, Summary] = {}
        self._entries = Gauge(
            "daybook_projected_entries", "Entries that are counted, of all registers.", registry=registry
        )
        behind = Gauge(
            "daybook_projection_behind_entries",
            "Published entries that are not counted yet.",
            registry=registry,
        )
        behind.set_function(self.behind)

    def behind(self) -> int:
        """Return how many published entries are not counted yet."""
        return sum(
            max(0, latest.size - self._at(register).size)
            for register, latest in self._published.registers().items()
        )

    def _at(self, register: str) -> Summary:
        return self._counted.get(register, Summary())

    async def run(self) -> None:
        """Count what is published, for ever. Raises StoreError."""
        self._counted = await asyncio.to_thread(self._table.read)
        while True:
            changed = self._published.changed()
            for register, latest in self._published.registers().items():
                while self._at(register).size < latest.size:
                    await asyncio.to_thread(self._step, register, latest.size)
            self._entries.set(sum(each.size for each in self._counted.values()))
            await changed.wait()

    def _step(self, register: str, size: int) -> None:
        before = self._at(register)
        end = min(size, before.size + STEP)
        after = before.extended(self._view.store.entries(register, before.size, end))
        try:
            self._table.replace(register, before, after)
        except ConflictError as error:
            # Another projector for a moment, or somebody has cleared the table: go on from what is there.
            _log.warning("the projection was changed by another", why=str(error))
            self._counted = self._table.read()
            return
        # A crash above counts nothing, or all: the row says which, and is read at the start.
        self._counted = {**self._counted, register: after}


async def run(
    settings: DistributedSettings, ready: Callable[[Mapping[str, str]], None], *, from_zero: bool = False
) -> None:
    """Project until SIGTERM or SIGINT; as a standby while another projector works.

    With `from_zero` what is counted, and what was found, is forgotten first. Raises StoreError or OSError where
    PostgreSQL or Kafka cannot be reached; SplitViewError where the log's key has signed what the store does not
    hold; TopicsError.
    """
    await served(settings.grace_seconds, lambda running: _run(settings, ready, running, from_zero))


async def _run(
    settings: DistributedSettings,
    ready: Callable[[Mapping[str, str]], None],
    running: Running,
    from_zero: bool,
) -> None:
    registry = CollectorRegistry()
    await check_topics(settings.kafka, settings.partitions, prefix=settings.topic_prefix, tls=tls(settings))
    store = await asyncio.to_thread(open_store, settings, reads_only=True)
    running.in_the_end(store.hurry)
    told: dict[str, Callable[[], Any]] = {}

    async def work() -> None:
        with ProjectedRegisters(settings.conninfo()) as table, FindingTable(settings.conninfo()) as found:
            if from_zero:
                await asyncio.to_thread(table.clear)
                await asyncio.to_thread(found.clear)
                _log.info("the projection is made from zero")
            await _work(settings, store, table, found, registry, running, told, from_zero)

    def standing() -> dict[str, Any]:
        return {name: tell() for name, tell in told.items()}

    try:
        await work_alone("projector", settings.conninfo(), settings, running, registry, standing, ready, work)
    finally:
        store.close()


async def _work(
    settings: DistributedSettings,
    store: PostgresStore,
    table: ProjectedRegisters,
    found: FindingTable,
    registry: CollectorRegistry,
    running: Running,
    told: dict[str, Callable[[], Any]],
    from_zero: bool,
) -> None:
    view = LedgerView(store, settings.origin)
    published = Published(store, await asyncio.to_thread(governed_policies, view))
    follower = CheckpointFollower(settings, view, published, registry)
    projector = Projector(view, published, table, registry)

    async def find() -> None:
        async with detections_file(settings.detections, anew=from_zero) as path:
            finder = Finder(view, published, path, showing=ShownFindings(found))
            registry.register(finder)
            told["findings"] = finder.told
            try:
                await finder.run()
            finally:
                await finder.close()

    app = stream_app(settings, NAME)
    agent = NoteAgent(app, settings, follower.take)
    async with follower.fed() as following:
        told["behind"] = projector.behind
        for part in (agent.run, projector.run, lambda: following):
            app.task(running.part(part))
        finding = asyncio.create_task(running.part(find)())
        await app.start()
        try:
            await running.until_over()
        finally:
            await running.finish("goodbye to Kafka", app.stop())
            await running.finish("the end of the detections", cancel([finding]))

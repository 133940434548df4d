"""What every service that reads the ledger holds of it: the store, a view, and what is published of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry

from ledger.errors import StoreError
from ledger.governing import GOVERNING
from ledger.ledger import LedgerView
from ledger.stores.postgres import PostgresStore
from services.distributed.following_checkpoints import LATEST, CheckpointFollower
from services.distributed.opened_store import open_store
from services.distributed.settings import DistributedSettings
from services.published import Published
from services.stopping import Stop
from services.witness_policy import PolicyInForce


@dataclass(frozen=True, slots=True)
class Reading:
    """A ledger to be read, which is kept current while it is open. `following` ends only by failing."""

    store: PostgresStore
    view: LedgerView
    published: Published
    follower: CheckpointFollower
    following: asyncio.Task[None]
    view_seconds: float

    def trouble(self) -> str | None:
        """Return why this process should not be asked now, None where it may be."""
        age = self.follower.age
        if age > self.view_seconds:
            return f"the store was last read {age:.0f} s ago: what is shown may be old"
        return None

    def told(self) -> dict[str, Any]:
        """Return how current it is, for /readyz."""
        return {
            "view_age_seconds": round(self.follower.age, 1),
            "governing_size": self.view.fold.size,
            "registers": len(self.view.fold.registers) + 1,
        }


@asynccontextmanager
async def reading(settings: DistributedSettings, registry: CollectorRegistry) -> AsyncIterator[Reading]:
    """Open a ledger to read, and follow it while the block runs.

    Raises StoreError where the store cannot be read, or holds no opened ledger; OSError where Kafka is away.
    """
    store = await asyncio.to_thread(open_store, settings, reads_only=True)
    try:
        view = await asyncio.to_thread(_viewed, store, settings.origin)
        published = await asyncio.to_thread(lambda: Published(store, PolicyInForce(view, time.time)))
        follower = CheckpointFollower(settings, view, published, registry)
        async with follower.started() as following:
            try:
                yield Reading(store, view, published, follower, following, settings.view_seconds)
            finally:
                # Nobody is called any more: whatever still reads may wait for a server that is away.
                store.hurry()
    finally:
        store.close()


def _viewed(store: PostgresStore, origin: str) -> LedgerView:
    view = LedgerView(store, origin)
    note = store.note(GOVERNING, LATEST) if GOVERNING in store.heads() else None
    if note is None or not note.size:
        raise StoreError(f"the ledger {origin} is not open yet: nothing of it is signed")
    view.follow(note.size)
    return view


def readiness(held: Reading, stop: Stop) -> Mapping[str, Any]:
    """Tell how a service stands that reads a ledger, for its /readyz."""
    reason = "draining" if stop.asked.is_set() else held.trouble()
    told: dict[str, Any] = {"ready": reason is None, **held.told()}
    return told if reason is None else {**told, "reason": reason}


async def until_over(stop: Stop, *working: asyncio.Task[None]) -> None:
    """Return when a stop is asked for. Raises what a task has failed with: none ends otherwise."""
    asked = asyncio.create_task(stop.asked.wait())
    try:
        await asyncio.wait({asked, *working}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()
    for task in working:
        if task.done():
            stop.error = None if task.cancelled() else task.exception()
            task.result()

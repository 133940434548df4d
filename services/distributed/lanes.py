"""A few threads, each with a store of its own, that the partitions of a process share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from ledger.stores.postgres import PostgresStore

LANES: Final = 4
"""Partitions that one process works on at the same time: each lane has a connection that writes."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Lane:
    """One thread with its store: what is done in it is done one after the other."""

    store: PostgresStore
    _thread: ThreadPoolExecutor

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """Do work in the lane's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def hurry(self) -> None:
        """Let what is under way fail where the server is silent."""
        self.store.hurry()


@asynccontextmanager
async def opened_lanes(conninfo: str) -> AsyncIterator[list[Lane]]:
    """Open all lanes; at the end wait for what is under way in them. Raises StoreError."""
    with ExitStack() as stack:
        lanes = []
        for number in range(LANES):
            store = await asyncio.to_thread(PostgresStore, conninfo)
            stack.callback(store.close)
            lanes.append(Lane(store, stack.enter_context(ThreadPoolExecutor(1, f"lane-{number}"))))
        try:
            yield lanes
        finally:
            # What is under way may itself wait for the event loop, which must not stand still meanwhile.
            await asyncio.gather(*(lane.run(_nothing) for lane in lanes))


def _nothing() -> None:
    """Be done when everything before is."""

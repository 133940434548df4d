"""A supervisor, as an operator has one: whatever service ends is started again, until the block ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from tests.support.distributed_services import WRITING, DistributedLedger, NotReadyError

_LOOK: Final = 0.1

_AGAIN: Final = 0.5
"""Seconds after which a service that ended is started again."""


@asynccontextmanager
async def supervised(
    it: DistributedLedger, services: Sequence[str] = WRITING
) -> AsyncIterator[list[tuple[str, int]]]:
    """Start services again that end while the block runs; yield whose end was seen, and its exit status.

    Whoever ends in the last moments of the block may not be started again any more.
    """
    ended: list[tuple[str, int]] = []
    over = asyncio.Event()

    async def keep_alive(name: str) -> None:
        while not over.is_set():
            await asyncio.sleep(_LOOK)
            status = it[name].process.poll()
            while status is not None and not over.is_set():
                ended.append((name, status))
                await asyncio.sleep(_AGAIN)
                status = await asyncio.to_thread(_started, it, name)

    async with asyncio.TaskGroup() as tasks:
        for name in services:
            tasks.create_task(keep_alive(name))
        try:
            yield ended
        finally:
            over.set()


def _started(it: DistributedLedger, name: str) -> int | None:
    """Start a service; return its exit status where it ended before it was ready."""
    try:
        it.start(name)
    except NotReadyError as error:
        return error.status
    return None

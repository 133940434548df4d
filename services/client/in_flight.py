"""Running many jobs, a few at a time, and handing out results as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def as_finished(jobs: Iterable[Callable[[], Coroutine[Any, Any, T]]], at_once: int) -> AsyncIterator[T]:
    """Run jobs, `at_once` under way, and yield each result as it comes: in any order.

    A job is taken from the iterable only when there is room for it. The first exception ends the iteration
    and cancels what is under way.
    """
    waiting = iter(jobs)
    under_way: set[asyncio.Task[T]] = set()
    try:
        while True:
            while len(under_way) < at_once and (job := next(waiting, None)) is not None:
                under_way.add(asyncio.create_task(job()))
            if not under_way:
                return
            done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in under_way:
            task.cancel()

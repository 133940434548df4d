"""Answering a stream of requests, several at once, in whatever order they are done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")


async def pipelined(
    requests: AsyncIterator[Request],
    answer: Callable[[Request], Coroutine[Any, Any, Answer]],
    window: int,
    stopping: asyncio.Event,
    linger: float,
) -> AsyncGenerator[Answer, None]:
    """Answer requests as they come, at most `window` under way or waiting to be read, and yield the answers.

    Whatever ends the requests, those taken are answered first; then what ended them is raised, where it was
    an error. `linger` seconds after `stopping` they are ended, which is none. Until then they are taken as
    ever, for `answer` to refuse: a gRPC client whose stream ends while it writes loses answers that it has
    not read yet.
    """
    done: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()
    under_way: set[asyncio.Task[Answer]] = set()
    room = asyncio.Semaphore(window)

    async def take() -> None:
        async for request in requests:
            # Released only when the answer has been read: whoever reads none is not read from for ever.
            await room.acquire()
            task = asyncio.create_task(answer(request))
            under_way.add(task)
            task.add_done_callback(done.put_nowait)

    async def stop() -> None:
        await stopping.wait()
        await asyncio.sleep(linger)
        taking.cancel()

    taking = asyncio.create_task(take())
    taking.add_done_callback(done.put_nowait)
    stopper = asyncio.create_task(stop())
    try:
        while under_way or not taking.done():
            task = await done.get()
            if task is not taking:
                under_way.discard(task)
                yield task.result()
                room.release()
        if not taking.cancelled():
            taking.result()
    finally:
        for task in (stopper, taking, *under_way):
            task.cancel()

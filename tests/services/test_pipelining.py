"""A stream of requests is answered whole, a window at a time, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from itertools import count

import pytest

from services.pipelining import pipelined

WINDOW = 4


class Stream:
    """Requests 0, 1, 2 … as fast as they are taken, and answers that wait until they are let go."""

    def __init__(self, length: int, error: Exception | None = None) -> None:
        self.stopping = asyncio.Event()
        self.let_go = asyncio.Event()
        self.taken = 0
        self.left = 0
        self._length = length
        self._error = error

    async def requests(self) -> AsyncIterator[int]:
        for number in range(self._length):
            yield number
            self.taken = number + 1
        if self._error is not None:
            raise self._error

    async def answer(self, number: int) -> int:
        try:
            await self.let_go.wait()
        finally:
            self.left += 1
        return -number

    def answers(self) -> AsyncGenerator[int, None]:
        return pipelined(self.requests(), self.answer, WINDOW, self.stopping, 0.0)


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_every_request_is_answered_once() -> None:
    """If false, a submission's answer could be lost in the stream."""
    stream = Stream(100)
    stream.let_go.set()
    assert sorted([answer async for answer in stream.answers()]) == sorted(-n for n in range(100))


async def test_answers_that_nobody_reads_stop_the_reading_of_requests() -> None:
    """If false, a client that only sends could fill the server's memory."""
    stream = Stream(1_000)
    stream.let_go.set()
    async with aclosing(stream.answers()) as answers:
        for read in count(1):
            await anext(answers)
            await settled()
            assert stream.taken <= WINDOW + read
            if read == 20:
                return


async def test_what_was_taken_is_answered_before_an_error_in_the_requests_is_raised() -> None:
    """If false, an accepted submission would go unanswered because a later request was malformed."""
    stream = Stream(3, ValueError("malformed"))
    answers: list[int] = []
    reading = asyncio.create_task(read_all(stream, answers))
    await settled()
    assert (stream.taken, answers) == (3, [])
    stream.let_go.set()
    with pytest.raises(ValueError, match="malformed"):
        await reading
    assert sorted(answers) == [-2, -1, 0]


async def test_a_stop_takes_nothing_more_and_answers_what_was_taken() -> None:
    """If false, a stream that its client keeps open would hold up the stop, and end without its answers."""
    stream = Stream(1_000)
    answers: list[int] = []
    reading = asyncio.create_task(read_all(stream, answers))
    await settled()
    stream.stopping.set()
    await settled()
    assert (stream.taken, reading.done()) == (WINDOW, False)
    stream.let_go.set()
    await reading
    assert sorted(answers) == [-3, -2, -1, 0]


async def test_a_reader_that_leaves_ends_everything() -> None:
    """If false, calls of clients that have gone away would pile up."""
    stream = Stream(1_000)
    reading = asyncio.create_task(read_all(stream, []))
    await settled()
    reading.cancel()
    await asyncio.wait([reading])
    await settled()
    assert stream.left == WINDOW
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def read_all(stream: Stream, answers: list[int]) -> None:
    async with aclosing(stream.answers()) as reading:
        async for answer in reading:
            answers.append(answer)  # noqa: PERF401 - what came before an error is kept

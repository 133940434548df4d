"""A service from its start to its end: until it is told to stop, or until a part of it has failed.

Faust logs what a task of its own raises, and goes on: so nothing is left to it. What fails here ends the
process, and a supervisor starts it again. Whatever hangs, the process ends within its grace period.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import psycopg
import structlog
from aiokafka.errors import KafkaError

from ledger.errors import ConflictError, StoreError
from ledger.stores.postgres import in_one_line
from services.following import cancel
from services.stopping import Stop

_UNREACHABLE: Final = 3
"""The exit status of a service that could not reach what it needs."""

_INTEGRITY_FAILURE: Final = 1
"""That of one that has found what it will not go on with."""

CALLS: Final = 0.6
"""How much of the grace period calls under way are given; the rest is for what ends after them."""

LAST: Final = 0.1
"""How much of it is given to what nobody waits for any more, where it is waited for at all."""

_log = structlog.get_logger()


def _end_by_force_unless_ended(seconds: float, stop: Stop) -> None:
    """End the process in so many seconds, with the status that it would have ended with."""

    def end() -> None:
        error = stop.error
        status = _UNREACHABLE if error is None or _is_unreachable(error) else _INTEGRITY_FAILURE
        why = "told to stop" if error is None else f"{type(error).__name__}: {told_plainly(error)}"
        _log.error("not ended in time: what hangs is ended by force", seconds=seconds, status=status, why=why)
        os._exit(status)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def _is_unreachable(error: BaseException) -> bool:
    return isinstance(told_plainly(error), OSError | StoreError | ConflictError)


def end_by_force(seconds: float, status: int) -> None:
    """End the process in so many seconds, whatever hangs: a thread that waits for a database, above all."""
    timer = threading.Timer(seconds, os._exit, (status,))
    timer.daemon = True
    timer.start()


class Running:
    """What the parts of one service share: the wish to stop, the first failure, and the time for the end."""

    def __init__(self, grace: float = 10.0) -> None:
        self.stop = Stop()
        self.undone: list[str] = []
        """What could not be done in the end."""
        self._grace = grace
        self._over_at: float | None = None
        self._hurried: list[Callable[[], None]] = []
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def stopping(self) -> bool:
        """Whether the service is to end."""
        return self.stop.asked.is_set() or self._failed.done()

    def fail(self, error: BaseException) -> None:
        """End the service with this error, unless another came first."""
        if not self._failed.done():
            self.stop.error = error
            self._failed.set_exception(error)

    def part(self, work: Callable[[], Awaitable[Any]]) -> Callable[[], Coroutine[Any, Any, None]]:
        """Return `work` as a task that ends the service where it fails, or ends before a stop is asked for."""

        async def guarded() -> None:
            try:
                await work()
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                self.fail(error)
                return
            if not self.stopping:
                self.fail(RuntimeError("a part of the service has ended by itself"))

        return guarded

    async def unless_stopped(self, work: Coroutine[Any, Any, Any]) -> bool:
        """Wait for `work`, which is cancelled when the service is to end; tell whether it was done."""
        doing = asyncio.ensure_future(work)
        asked = asyncio.create_task(self.stop.asked.wait())
        try:
            await self._first_of(doing, asked)
            if doing.done():
                doing.result()
            return doing.done()
        finally:
            await cancel([doing, asked])

    async def until_over(self) -> None:
        """Return when a stop is asked for. Raises what failed first, as `told_plainly` says it."""
        asked = asyncio.create_task(self.stop.asked.wait())
        try:
            await self._first_of(asked)
        finally:
            asked.cancel()
        if self._failed.done():
            error = self._failed.exception()
            assert error is not None  # noqa: S101 - it is only ever set to an exception
            raise told_plainly(error)
        self._failed.cancel()

    def in_the_end(self, hurry: Callable[[], None]) -> None:
        """Have `hurry` called when the service is to end: nothing is waited for then that may not come."""
        self._hurried.append(hurry)
        if self._over_at is not None:
            hurry()

    async def ending(self) -> None:
        """Wait until the service is to end; see to it that the process ends within its grace period."""
        asked = asyncio.create_task(self.stop.asked.wait())
        await self._first_of(asked)
        asked.cancel()
        self.begin_end()

    def begin_end(self) -> None:
        """Begin the grace period, unless it has begun: after it the process is ended by force."""
        if self._over_at is None:
            self._over_at = time.monotonic() + self._grace
            _end_by_force_unless_ended(self._grace, self.stop)
            for hurry in self._hurried:
                hurry()

    async def finish(self, what: str, work: Awaitable[Any]) -> None:
        """Do what a service does in its end, for half of the time that is left at most.

        Where Kafka is away its clients never give up. What is not done by then ends with the process, and
        after it nothing is waited for as long.
        """
        self.begin_end()
        assert self._over_at is not None  # noqa: S101 - it has begun
        left = (self._over_at - time.monotonic()) / 2
        if self.undone:
            left = min(left, LAST * self._grace)
        doing = asyncio.ensure_future(work)
        await asyncio.wait({doing}, timeout=max(left, 0.0))
        if not doing.done():
            doing.cancel()
            self.undone.append(what)
            _log.warning("not done in the end: is Kafka or PostgreSQL away?", what=what, seconds=round(left, 1))
        elif not doing.cancelled():
            doing.result()

    async def _first_of(self, *waited: asyncio.Future[Any]) -> None:
        await asyncio.wait([*waited, self._failed], return_when=asyncio.FIRST_COMPLETED)


async def served(grace: float, work: Callable[[Running], Awaitable[None]]) -> None:
    """Run a service until it is told to stop; the process ends `grace` seconds after that at the latest.

    Where what is to be done in the end cannot be, since Kafka or PostgreSQL is away, the process ends here,
    with status 3. Raises what failed first, as `told_plainly` says it.
    """
    running = Running(grace)
    running.stop.on_signals()
    ending = asyncio.create_task(running.ending())
    try:
        await work(running)
    except Exception as error:
        running.stop.error = running.stop.error or error
        raise told_plainly(error) from error
    finally:
        running.begin_end()
        await cancel([ending])
    if running.undone:
        _log.error(
            "stopped, but Kafka or PostgreSQL did not answer any more. Nothing is lost: the next start does it",
            undone=running.undone,
        )
        # At once: threads and clients of Kafka may hang in their own end.
        os._exit(_UNREACHABLE)


def told_plainly(error: BaseException) -> BaseException:
    """Return an error of the clients as one that commands know: Kafka and PostgreSQL could not be reached."""
    match error:
        case KafkaError():
            plain: Exception = ConnectionError(f"Kafka: {error}")
        case psycopg.Error():
            plain = StoreError(f"PostgreSQL: {in_one_line(error)}")
        case _:
            return error
    plain.__cause__ = error
    return plain

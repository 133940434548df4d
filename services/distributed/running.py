"""A service from its start to its end: until it is told to stop, or until a part of it has failed.

Faust logs what a task of its own raises, and goes on: so nothing is left to it. What fails here ends the
process, and a supervisor starts it again.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import faust
import psycopg
import structlog
from aiokafka.errors import KafkaError

from ledger.errors import StoreError
from services.distributed.kafka_clients import security
from services.distributed.settings import DistributedSettings
from services.following import cancel
from services.stopping import Stop

_UNREACHABLE: Final = 3
"""The exit status of a service that could not reach what it needs."""

_FETCHED: Final = 128
"""Messages that wait in a stream before its partitions are paused."""

_log = structlog.get_logger()


class _Tableless(faust.App):
    """An app that keeps no tables, and so needs no folder for them, which it would make wherever it starts."""

    def _create_directories(self) -> None:
        pass


def stream_app(settings: DistributedSettings, name: str) -> faust.App:
    """Return a Faust app of the group `name` that creates nothing, keeps no tables and opens no port.

    It is started and stopped from our own event loop, which must be running.
    """
    connection = security(settings)
    context = connection.get("ssl_context")
    return _Tableless(
        settings.topic_prefix + name,
        broker=[f"kafka://{each.strip()}" for each in settings.kafka.split(",")],
        broker_credentials=context,
        loop=asyncio.get_running_loop(),
        autodiscover=False,
        web_enabled=False,
        web_bind="127.0.0.1",
        value_serializer="raw",
        key_serializer="raw",
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        stream_wait_empty=False,
        stream_buffer_maxsize=_FETCHED,
        broker_commit_interval=1.0,
        broker_session_timeout=settings.session_seconds,
        broker_rebalance_timeout=max(settings.session_seconds, 6.0),
        broker_heartbeat_interval=settings.session_seconds / 4,
    )


async def within(seconds: float, work: Awaitable[Any]) -> None:
    """Do what a service does in its end, for so long at most: where Kafka is away its clients never give up.

    What is not done by then ends with the process, which is ended by force where that hangs too: Faust's own
    thread may.
    """
    doing = asyncio.ensure_future(work)
    await asyncio.wait({doing}, timeout=seconds)
    if not doing.done():
        doing.cancel()
        _log.warning("not done in the end: is Kafka away?", seconds=seconds)
        end_by_force(2 * seconds, _UNREACHABLE)
    elif not doing.cancelled():
        doing.result()


def end_by_force(seconds: float, status: int) -> None:
    """End the process in so many seconds, whatever hangs: a thread that waits for a database, above all."""
    timer = threading.Timer(seconds, os._exit, (status,))
    timer.daemon = True
    timer.start()


class Running:
    """What the parts of one service share: the wish to stop, and the first failure."""

    def __init__(self) -> None:
        self.stop = Stop()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def stopping(self) -> bool:
        """Whether the service is to end."""
        return self.stop.asked.is_set() or self._failed.done()

    def fail(self, error: BaseException) -> None:
        """End the service with this error, unless another came first."""
        if not self._failed.done():
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

    async def _first_of(self, *waited: asyncio.Future[Any]) -> None:
        await asyncio.wait([*waited, self._failed], return_when=asyncio.FIRST_COMPLETED)


async def served(work: Callable[[Running], Awaitable[None]]) -> None:
    """Run a service until it is told to stop. Raises what failed first, as `told_plainly` says it."""
    running = Running()
    running.stop.on_signals()
    try:
        await work(running)
    except Exception as error:
        raise told_plainly(error) from error


def told_plainly(error: BaseException) -> BaseException:
    """Return an error of the clients as one that commands know: Kafka and PostgreSQL could not be reached."""
    match error:
        case KafkaError():
            plain: Exception = ConnectionError(f"Kafka: {error}")
        case psycopg.Error():
            plain = StoreError(f"PostgreSQL: {error}")
        case _:
            return error
    plain.__cause__ = error
    return plain

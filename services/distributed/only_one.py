"""One of many: of all processes of a service, only the one that has the database's lock works.

PostgreSQL frees the lock with the connection that has it, so whoever dies is followed at once. A process whose
connection broke may work on for a moment beside its follower: what it does must do no harm twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Self

import psycopg
import structlog
from prometheus_client import CollectorRegistry
from psycopg import waiting

from ledger.errors import StoreError
from ledger.stores.postgres import in_one_line
from services.distributed.ops import ops_endpoint
from services.distributed.running import Running
from services.distributed.settings import DistributedSettings
from services.following import cancel

_TRY_AGAIN: Final = 0.25
"""Seconds after which a standby asks for the lock again."""

_LOOK: Final = 1.0
"""Seconds between two looks whether the connection, and with it the lock, is still there."""

SILENCE: Final = 5.0
"""Seconds without an answer of the database after which the service is not ready."""

_TRY: Final = "SELECT pg_try_advisory_lock(%s)"

_log = structlog.get_logger()


class Abandoned(psycopg.AsyncConnection[Any]):
    """A connection whose question may be given up at once: psycopg would ask the server to cancel it first."""

    async def wait(self, gen: Any, *args: Any, **named: Any) -> Any:
        """Wait as psycopg does, and no longer."""
        return await waiting.wait_async(gen, self.pgconn.socket, *args, **named)


class OnlyOne:
    """The lock of the service `name` in one database. A context manager; nothing is held before `taken`.

    A database that does not answer for `patience` seconds has lost the lock.
    """

    def __init__(self, conninfo: str, name: str, patience: float = 60.0) -> None:
        self._conninfo = conninfo
        self._name = name
        self._key = int.from_bytes(hashlib.sha256(f"daybook {name}".encode()).digest()[:8], signed=True)
        self._patience = patience
        self._asked_at: float | None = None
        self._connection: Abandoned | None = None
        self.active = False
        """Whether the lock is ours."""

    async def __aenter__(self) -> Self:
        """Connect. Raises psycopg.Error."""
        self._connection = await Abandoned.connect(
            self._conninfo, autocommit=True, connect_timeout=10, application_name=f"daybook {self._name} lock"
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Free the lock."""
        self.active = False
        if self._connection is not None:
            await self._connection.close()

    async def taken(self) -> None:
        """Wait, as a standby, until the lock is ours.

        Raises psycopg.Error where the connection breaks, StoreError where the database does not answer.
        """
        if not await self._ask(_TRY):
            _log.info("standing by", service=self._name)
            # The database tells nobody that a lock is free.
            while not await self._ask(_TRY):  # noqa: ASYNC110
                await asyncio.sleep(_TRY_AGAIN)
        self.active = True
        _log.info("active", service=self._name)

    async def held(self) -> None:
        """Watch over the lock, until cancelled. Raises StoreError where it is lost."""
        while True:
            await asyncio.sleep(_LOOK)
            try:
                await self._ask("SELECT %s::bigint IS NOT NULL")
            except psycopg.Error as error:
                self.active = False
                raise StoreError(
                    f"PostgreSQL: the {self._name}'s lock is lost with its connection: {in_one_line(error)}"
                ) from error
            except StoreError:
                self.active = False
                raise

    async def _ask(self, query: str) -> bool:
        assert self._connection is not None  # noqa: S101 - used inside the context only
        self._asked_at = time.monotonic()
        try:
            async with asyncio.timeout(self._patience):
                cursor = await self._connection.execute(query, [self._key])
                row = await cursor.fetchone()
        except TimeoutError as error:
            raise StoreError(
                f"PostgreSQL has not answered the {self._name} for {self._patience:.0f} s"
            ) from error
        self._asked_at = None
        return bool(row and row[0])

    def trouble(self) -> str | None:
        """Return that the database does not answer, None where it does."""
        waited = 0.0 if self._asked_at is None else time.monotonic() - self._asked_at
        return f"PostgreSQL has not answered for {waited:.0f} s" if waited > SILENCE else None

    def told(self) -> str:
        """Return, for readiness, which of the two this process is."""
        return "active" if self.active else "standby"


async def work_alone(
    name: str,
    conninfo: str,
    settings: DistributedSettings,
    running: Running,
    registry: CollectorRegistry,
    told: Callable[[], Mapping[str, Any]],
    ready: Callable[[Mapping[str, str]], None],
    work: Callable[[], Awaitable[None]],
) -> None:
    """Do `work` under the lock of `name`, and stand by before; with the service's ops endpoint all the while.

    A standby is ready: it is where it should be. `told` says how the work stands. Raises what the work raises,
    psycopg.Error, StoreError where the database does not answer, and OSError where the address cannot be bound.
    """
    async with OnlyOne(conninfo, name, settings.stall_seconds) as lock:

        def standing() -> dict[str, Any]:
            stands = {"ready": True, "role": lock.told(), **(told() if lock.active else {})}
            trouble = lock.trouble()
            return stands if trouble is None else {**stands, "ready": False, "reason": trouble}

        async with ops_endpoint(settings.ops, registry, standing) as ops:
            ready({"ops": ops})
            if not await running.unless_stopped(lock.taken()):
                await running.until_over()
                return
            holding = asyncio.create_task(running.part(lock.held)())
            try:
                await work()
            finally:
                await cancel([holding])

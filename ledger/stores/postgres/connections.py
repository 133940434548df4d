"""The connections of one store to its PostgreSQL server: a pool to read, one to write, one to listen.

A server that has gone away without a word must not hold its caller for ever, and one that was started again
needs no new store: connections that break are replaced.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import Connection, Cursor
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.types.string import BytesBinaryDumper
from psycopg_pool import ConnectionPool, PoolTimeout

from ledger.errors import StorageFullError, StoreError
from ledger.stores.postgres.schema import check_migrated, in_one_line, parse_conninfo

READERS: Final = 8
"""Connections that read, at most."""

_PATIENCE: Final = 10.0
"""Seconds that a read waits for a connection, where all are busy or the server is away."""

SILENCE: Final = 30.0
"""Seconds without a word of the server that a service bears."""

_LAST_SILENCE: Final = 2.0
"""Seconds that one bears which is told to stop, and that such a one waits for a connection."""

CHANNEL: Final = "daybook_outbox"
"""Where whoever writes to the outbox says so."""

_DEFAULTS: Final = {
    "application_name": "daybook",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}

_PLANNING: Final = """
SET jit = off; SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off
"""
"""Every statement finds what it needs by key. So it is planned once, since that costs more than most of them
do, and by index, however small the tables were then."""

Rows = list[Any]


class _SilentError(psycopg.OperationalError):
    """The server has said nothing for too long: it stands still, or its disk does."""


class _Impatient(Connection[Any]):
    """A connection on which a silent server is an error, after the seconds that `bears` gives."""

    bears: Callable[[], float | None] | None = None

    def wait(self, gen: Any, *args: Any, **named: Any) -> Any:
        """Wait as psycopg does. Raises _SilentError, and then the connection is closed."""
        return super().wait(self._heard(gen), *args, **named)

    def _heard(self, gen: Any) -> Generator[Any, Any, Any]:
        heard = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                # Ten times a second without news.
                news = yield wanted
                if news:
                    heard = time.monotonic()
                elif (bears := self.bears and self.bears()) is not None and time.monotonic() - heard > bears:
                    self.close()
                    raise _SilentError(f"the server has said nothing for {bears:.0f} seconds")
                wanted = gen.send(news)
        except StopIteration as done:
            return done.value


class Connections:
    """Safe in any threads. A server that says nothing for `silence` seconds amid a statement is away.

    With `read_only` there is none that writes. Raises ValueError for a connection string that is none,
    StoreError where the database cannot be reached or is not of this version.
    """

    def __init__(self, conninfo: str, *, read_only: bool, silence: float | None) -> None:
        self._read_only = read_only
        self._silence = silence
        self._hurried = False
        self._writing = threading.Lock()
        self._listening = threading.Lock()
        self._writer: Connection[Any] | None = None
        self._listener: Connection[Any] | None = None
        self._pool: ConnectionPool[Connection[Any]] | None = None
        self._closed = False
        try:
            with translated():
                self._conninfo = make_conninfo(**{**_DEFAULTS, **parse_conninfo(conninfo)})
                first = self._connect()
                try:
                    check_migrated(first)
                finally:
                    if read_only:
                        first.close()
                    else:
                        self._writer = first
                self._pool = ConnectionPool(
                    self._conninfo,
                    connection_class=_Impatient,
                    kwargs={"autocommit": True},
                    min_size=1,
                    max_size=READERS,
                    timeout=_LAST_SILENCE,
                    configure=self._reads_only,
                    open=True,
                )
        except BaseException:
            self.close()
            raise

    def _connect(self) -> Connection[Any]:
        if self._closed:
            raise StoreError("the store was closed")
        connection = _Impatient.connect(self._conninfo, autocommit=True)
        connection.bears = self._bears
        ((synchronous,),) = connection.execute("SHOW synchronous_commit").fetchall()
        if synchronous == "off":
            # A commit is durable when it returns, whatever the server does for others.
            connection.execute("SET synchronous_commit = on")
        connection.execute(_PLANNING)
        # COPY asks by the number of the type. Unless this is registered last, bytes are left to the class for
        # what DB-API calls Binary, which is slow.
        connection.adapters.register_dumper(bytes, BytesBinaryDumper)
        return connection

    def _bears(self) -> float | None:
        return self._silence

    def _reads_only(self, connection: Connection[Any]) -> None:
        assert isinstance(connection, _Impatient)  # noqa: S101 - of the pool's class
        connection.bears = self._bears
        connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        connection.execute(_PLANNING)

    def read(self, ask: Callable[[Cursor[Any]], Rows]) -> Rows:
        """Return what a question gives on a connection that reads, asked once more where that broke."""
        pool = self._pool
        if self._closed or pool is None:
            raise StoreError("the store was closed")
        until = time.monotonic() + _PATIENCE
        with translated():
            try:
                return _asked(pool, ask)
            except PoolTimeout:
                pass
            except _SilentError:
                # It would only be waited for once more.
                raise
            except psycopg.OperationalError:
                # The server may have been started again since. A read can be asked once more.
                pool.check()
            while True:
                try:
                    return _asked(pool, ask)
                except PoolTimeout:
                    if self._hurried or time.monotonic() > until:
                        raise

    @contextmanager
    def transaction(self) -> Iterator[Connection[Any]]:
        """Give the connection that writes to a body that begins and commits; undo what a failed one leaves."""
        if self._read_only:
            raise StoreError("the store was opened for reading only")
        with self._writing, translated():
            writer = self._writer
            if writer is None or writer.closed or self._closed:
                writer = self._writer = self._connect()
            try:
                yield writer
            except BaseException:
                _undo(writer)
                raise

    def listen(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for a word on `CHANNEL`; tell whether there may have been one."""
        with self._listening, translated():
            listener = self._listener
            if listener is None or listener.closed:
                listener = self._listener = self._connect()
                listener.execute(f"LISTEN {CHANNEL}")
                # What came before may be there: from now on it is heard.
                return True
            try:
                return any(True for _ in listener.notifies(timeout=timeout, stop_after=1))
            except psycopg.Error:
                listener.close()
                raise

    def hurry(self) -> None:
        """Bear hardly any silence any more, whatever is under way: who uses the store is to end."""
        self._silence, self._hurried = _LAST_SILENCE, True

    def close(self) -> None:
        """Close every connection. Statements of other threads fail, soon, where the server is silent."""
        self._closed = True
        self.hurry()
        if self._pool is not None:
            self._pool.close(timeout=1.0)
        for turn, connection in ((self._writing, self._writer), (self._listening, self._listener)):
            # Never under a thread that uses it, but for one that does not end either.
            held = turn.acquire(timeout=_LAST_SILENCE)
            if connection is not None:
                connection.close()
            if held:
                turn.release()


def _asked(pool: ConnectionPool[Any], ask: Callable[[Cursor[Any]], Rows]) -> Rows:
    with pool.connection() as connection, connection.cursor(binary=True) as cursor:
        return ask(cursor)


def _undo(writer: Connection[Any]) -> None:
    """End whatever transaction is open; give the connection up where that is not certain to work."""
    if writer.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
        try:
            writer.rollback()
        except psycopg.Error:
            writer.close()
    elif writer.info.transaction_status != TransactionStatus.IDLE:
        writer.close()


@contextmanager
def translated() -> Iterator[None]:
    """Raise StorageFullError or StoreError for what PostgreSQL raises in the body."""
    try:
        yield
    except psycopg.errors.DiskFull as error:
        raise StorageFullError("no room left on the device that holds the database") from error
    except psycopg.Error as error:
        raise StoreError(f"PostgreSQL: {in_one_line(error)}") from error

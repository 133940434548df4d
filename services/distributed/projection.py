"""The projection: what is counted of each register, kept in a table of its own, beside those of findings.

It proves nothing and may be thrown away: whoever wants it anew counts from entry 0. A row states how many
entries are counted in it, and is replaced only by what follows from just these: so each entry counts once.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import psycopg
import structlog
from psycopg import sql
from psycopg.types.json import Jsonb

from ledger.errors import ConflictError, StoreError
from ledger.stores.postgres import in_one_line
from services.counting import Lags, Summary

FORM: Final = 2
"""The form of what is kept: a row of another one counts as none, and is counted anew."""

_LAST: Final = 2.0
"""Seconds that a close waits for what is under way."""

_log = structlog.get_logger()

_MAKE: Final = (
    "CREATE SCHEMA IF NOT EXISTS projection",
    """
    CREATE TABLE IF NOT EXISTS projection.register (
        name text COLLATE "C" PRIMARY KEY,
        form integer NOT NULL,
        size bigint NOT NULL CHECK (size > 0),
        counted jsonb NOT NULL
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS projection.looked (
        name text COLLATE "C" PRIMARY KEY,
        size bigint NOT NULL CHECK (size > 0),
        digest bytea NOT NULL
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS projection.finding (
        register text COLLATE "C" NOT NULL,
        first bigint NOT NULL,
        detection text COLLATE "C" NOT NULL,
        key text COLLATE "C" NOT NULL,
        body bytea NOT NULL,
        PRIMARY KEY (register, first, detection, key)
    )
    """,
)
_TABLES: Final = "projection.register, projection.looked, projection.finding"
_REPLACE: Final = """
INSERT INTO projection.register AS kept (name, form, size, counted)
VALUES (%(name)s, %(form)s, %(size)s, %(counted)s)
ON CONFLICT (name) DO UPDATE SET form = excluded.form, size = excluded.size, counted = excluded.counted
WHERE CASE WHEN kept.form = excluded.form THEN kept.size ELSE 0 END = %(before)s
"""


def migrate_projection(conninfo: str, *, writer: str | None, reader: str | None) -> None:
    """Make the projection's tables, where they are not there, for the roles `writer` and `reader` to use.

    Raises StoreError.
    """
    try:
        with psycopg.connect(conninfo) as connection:
            for statement in _MAKE:
                connection.execute(statement)
            for role, rights in ((reader, "SELECT"), (writer, "SELECT, INSERT, UPDATE, DELETE")):
                if role is None:
                    continue
                name = sql.Identifier(role)
                connection.execute(sql.SQL("GRANT USAGE ON SCHEMA projection TO {}").format(name))
                connection.execute(
                    sql.SQL("GRANT {} ON {} TO {}").format(sql.SQL(rights), sql.SQL(_TABLES), name)
                )
    except psycopg.Error as error:
        raise StoreError(f"PostgreSQL: {in_one_line(error)}") from error


class ProjectedRegisters:
    """The table, over a connection of its own, in any threads. A connection that broke is made again."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._turn = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()

    def read(self) -> dict[str, Summary]:
        """Return the summaries of every register that is counted so far. Raises StoreError."""
        rows = self._do("SELECT name, size, counted FROM projection.register WHERE form = %s", (FORM,))[1]
        return {name: _summary(size, counted) for name, size, counted in rows}

    def shown(self) -> Mapping[str, Summary]:
        """Return the summaries, for pages that do without them: none where they cannot be read."""
        try:
            return self.read()
        except StoreError as error:
            _log.warning("the projection is not shown", why=str(error))
            return {}

    def replace(self, register: str, before: Summary, after: Summary) -> None:
        """Put `after` in the place of `before`, in a transaction of its own.

        Raises ConflictError where another size is counted there: then nothing is changed; StoreError.
        """
        values = {
            "name": register,
            "form": FORM,
            "size": after.size,
            "counted": Jsonb(_counted(after)),
            "before": before.size,
        }
        if self._do(_REPLACE, values)[0] != 1:
            raise ConflictError(f"the projection of {register} is not at {before.size} entries any more")

    def clear(self) -> None:
        """Forget everything. Raises StoreError."""
        self._do("DELETE FROM projection.register", ())

    def close(self) -> None:
        """Close the connection; nothing is done after it. What is under way is given some seconds to end."""
        self._closed = True
        # Never under a thread that uses it, but for one that does not end either.
        held = self._turn.acquire(timeout=_LAST)
        if self._connection is not None:
            self._connection.close()
        if held:
            self._turn.release()

    def _do(self, statement: str, values: Any) -> tuple[int, list[Any]]:
        """Return how many rows a statement has met, and the rows that it returns."""
        try:
            with self._turn:
                if self._closed:
                    # A step that was cancelled at a stop may come this late: nobody would close what it opens.
                    raise StoreError("the projection was closed")
                if self._connection is None or self._connection.closed:
                    self._connection = psycopg.connect(
                        self._conninfo,
                        autocommit=True,
                        connect_timeout=10,
                        application_name="daybook projection",
                    )
                    if self._closed:
                        # It took longer than close() waits; what is to be done on it fails.
                        self._connection.close()
                    # What a crash of the server takes back is counted again: no row waits for the disk.
                    self._connection.execute("SET synchronous_commit = off")
                cursor = self._connection.execute(statement, values)
                return cursor.rowcount, cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            raise StoreError(f"PostgreSQL: the projection: {in_one_line(error)}") from error


def _counted(summary: Summary) -> dict[str, Any]:
    return {
        "submissions": summary.submissions,
        "rejections": summary.rejections,
        "not_understood": summary.not_understood,
        "decisions": dict(summary.decisions),
        "latest_at": summary.latest_at,
        "lags": [summary.lags.count, summary.lags.longest, *summary.lags.classes],
    }


def _summary(size: int, counted: Any) -> Summary:
    value = json.loads(counted) if isinstance(counted, str | bytes) else counted
    count, longest, *classes = value["lags"]
    return Summary(
        size,
        value["submissions"],
        value["rejections"],
        value["decisions"],
        value["latest_at"],
        Lags(count, longest, tuple(classes)),
        value["not_understood"],
    )

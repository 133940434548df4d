"""The table of findings: what the projector's detections have found in each register, for services to list.

It proves nothing and may be thrown away: the projector puts it there again. What is kept of a register is
replaced in one transaction, so a reader sees all of what stood at one moment. It is kept as the bytes that
were made of it: no text that a department has signed is one that PostgreSQL would not take.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import psycopg

from ledger.errors import StoreError
from ledger.stores.postgres import in_one_line
from services.auditing.fact_store import BEGINNING, PAGE_BYTES, Place
from services.auditing.found import Found
from services.auditing.lookout import FoundPage
from services.distributed.only_one import Abandoned

_READ: Final = "SELECT name, size, digest FROM projection.looked"
_PUT: Final = """
INSERT INTO projection.looked (name, size, digest) VALUES (%s, %s, %s)
ON CONFLICT (name) DO UPDATE SET size = excluded.size, digest = excluded.digest
"""
_THERE: Final = """
SELECT first, detection, key, sha256(body) FROM projection.finding
WHERE register = %s AND (first, detection, key) > (%s, %s, %s) AND (first, detection, key) <= (%s, %s, %s)
"""
_INSERT: Final = """
INSERT INTO projection.finding (register, first, detection, key, body) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (register, first, detection, key) DO UPDATE SET body = excluded.body
"""
_DELETE: Final = """
DELETE FROM projection.finding WHERE register = %s AND first = %s AND detection = %s AND key = %s
"""
_DELETE_BEHIND: Final = """
DELETE FROM projection.finding WHERE register = %s AND (first, detection, key) > (%s, %s, %s)
"""
_REMOVE: Final = (
    "DELETE FROM projection.looked WHERE name = ANY(%s)",
    "DELETE FROM projection.finding WHERE register = ANY(%s)",
)
_CLEAR: Final = ("DELETE FROM projection.looked", "DELETE FROM projection.finding")
_PAGE: Final = """
WITH behind AS (
    SELECT first, detection, key, body FROM projection.finding
    WHERE register = %(register)s AND (first, detection, key) > (%(first)s, %(detection)s, %(key)s)
    ORDER BY first, detection, key LIMIT %(most)s + 1
), numbered AS (
    SELECT *, row_number() OVER place AS number, sum(length(body)) OVER place AS upto, count(*) OVER () AS there
    FROM behind WINDOW place AS (ORDER BY first, detection, key)
)
SELECT
    (SELECT size FROM projection.looked WHERE name = %(register)s), EXISTS (SELECT FROM projection.looked),
    there, first, detection, key, body
FROM (SELECT) AS always
LEFT JOIN numbered ON number <= %(most)s AND (number = 1 OR upto <= %(bytes)s)
ORDER BY first, detection, key
"""
"""One statement, and so of one moment: it returns one row at least."""

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Found).decode

Pages = Iterable[Sequence[tuple[Place, Found]]]
"""Every finding of a register in order, a few at a time."""


@dataclass(frozen=True, slots=True)
class Looked:
    """How many entries of a register its findings are of, and a digest of these."""

    size: int
    digest: bytes


def looked(size: int, pages: Pages) -> Looked:
    """Return what stands for a register's findings."""
    digest = sha256()
    for place, found in (each for page in pages for each in page):
        part = _encode((*place, found))
        digest.update(len(part).to_bytes(8) + part)
    return Looked(size, digest.digest())


class FindingTable:
    """The table, to be written, over a connection of its own. Of one thread at a time."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._turn = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def read(self) -> Mapping[str, Looked]:
        """Return what is there, by register. Raises StoreError."""
        with self._turn:
            try:
                rows = self._connected().execute(_READ).fetchall()
            except psycopg.Error as error:
                raise _failed(error) from error
        return {name: Looked(size, bytes(digest)) for name, size, digest in rows}

    def replace(self, register: str, after: Looked, pages: Pages) -> None:
        """Put a register's findings in the place of those that are there, in one transaction.

        Only what differs is written. Raises StoreError; then nothing is changed.
        """
        with self._turn:
            try:
                with self._connected().transaction(), self._connected().cursor() as cursor:
                    # Its lock has two projectors come one after the other.
                    cursor.execute(_PUT, (register, after.size, after.digest))
                    last = BEGINNING
                    for page in pages:
                        _replace(cursor, register, last, page)
                        last = page[-1][0]
                    cursor.execute(_DELETE_BEHIND, (register, *last))
            except psycopg.Error as error:
                raise _failed(error) from error

    def remove(self, registers: Iterable[str]) -> None:
        """Remove what is there of some registers. Raises StoreError."""
        if names := list(registers):
            self._delete(_REMOVE, (names,))

    def clear(self) -> None:
        """Remove everything. Raises StoreError."""
        self._delete(_CLEAR, ())

    def _delete(self, statements: Sequence[str], values: tuple[Any, ...]) -> None:
        with self._turn:
            try:
                with self._connected().transaction():
                    for statement in statements:
                        self._connected().execute(statement, values)
            except psycopg.Error as error:
                raise _failed(error) from error

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._conninfo, autocommit=True, connect_timeout=10, application_name="daybook findings"
            )
            # What a crash of the server takes back is put there again: nothing waits for the disk.
            self._connection.execute("SET synchronous_commit = off")
        return self._connection


def _replace(
    cursor: psycopg.Cursor[Any], register: str, after: Place, page: Sequence[tuple[Place, Found]]
) -> None:
    """Replace the findings behind `after` up to the last one of the page."""
    wanted = {place: _encode(found) for place, found in page}
    rows = cursor.execute(_THERE, (register, *after, *page[-1][0])).fetchall()
    there = {(first, detection, key): bytes(digest) for first, detection, key, digest in rows}
    gone = [(register, *place) for place in there if place not in wanted]
    new = [
        (register, *place, body) for place, body in wanted.items() if there.get(place) != sha256(body).digest()
    ]
    if gone:
        cursor.executemany(_DELETE, gone)
    if new:
        cursor.executemany(_INSERT, new)


class FindingReader:
    """The table, to be read, over a connection of its own. For the event loop."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: Abandoned | None = None

    async def page(self, register: str, after: Place, most: int) -> FoundPage | None:
        """Return at most `most` findings of a register behind a place, fewer where they are long.

        None where nothing was looked at yet, of any register. Raises StoreError.
        """
        first, detection, key = after
        values = {"register": register, "first": first, "detection": detection, "key": key}
        rows = await self._rows(_PAGE, {**values, "most": most, "bytes": PAGE_BYTES})
        size, begun, there, *_ = rows[0]
        if not begun:
            return None
        if there is None:
            return FoundPage(size or 0, (), None)
        try:
            found = tuple(_decode(row[6]) for row in rows)
        except msgspec.MsgspecError as error:
            raise StoreError(f"a finding is of another version: {error}") from error
        return FoundPage(size or 0, found, (*rows[-1][3:6],) if len(rows) < there else None)

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _rows(self, statement: str, values: Mapping[str, Any]) -> list[Any]:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = await Abandoned.connect(
                    self._conninfo, autocommit=True, connect_timeout=10, application_name="daybook findings"
                )
                await self._connection.execute("SET default_transaction_read_only = on")
            cursor = await self._connection.execute(statement, values, binary=True)
            return await cursor.fetchall()
        except psycopg.Error as error:
            raise _failed(error) from error


def _failed(error: psycopg.Error) -> StoreError:
    if isinstance(error, psycopg.errors.UndefinedTable):
        return StoreError("PostgreSQL: the table of findings is not there: run daybook migrate")
    return StoreError(f"PostgreSQL: the findings: {in_one_line(error)}")

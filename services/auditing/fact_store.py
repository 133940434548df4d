"""What the detections remember: one SQLite file beside an auditor's state, made from verified entries alone.

It can be thrown away and made again from the entries. So it is not written through to the disk at each commit,
and where it was made under another profile, calendar or version of the rules it is emptied and filled again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from ledger.errors import StorageFullError, StoreError
from services.auditing.detections.rules import RULES
from services.auditing.found import Found

APPLICATION_ID: Final = 0x64626631  # "dbf1"
LAYOUT: Final = 5
"""The number of the tables below, which changes with them."""

_CACHE: Final = 48 * 1024
"""KiB of pages that SQLite keeps."""

_MOST_KEPT: Final = 1_000
"""Findings that wait in memory."""

PLACE_BITS: Final = 40
"""An entry's place is its register's id and its index in one integer: `id << PLACE_BITS | index`."""

INDEX: Final = (1 << PLACE_BITS) - 1

PAGE_BYTES: Final = 512 * 1024
"""Bytes of findings after which a page takes no more."""

Place = tuple[int, str, str]
"""Where a finding of a register stands among the others: first index (-1 for none), detection, key."""

BEGINNING: Final[Place] = (-2, "", "")
"""Before every finding."""

_TABLES: Final = f"""
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE registers (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, witnessed INTEGER,
    decided_index INTEGER, decided_by INTEGER
) STRICT;
CREATE TABLE series (
    id INTEGER PRIMARY KEY, register INTEGER NOT NULL, departmental INTEGER NOT NULL, name TEXT NOT NULL,
    first INTEGER, last INTEGER, tops TEXT, returned INTEGER NOT NULL,
    UNIQUE (register, departmental, name)
) STRICT;
CREATE TABLE runs_of_numbers (
    series INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (series, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE voids (
    series INTEGER NOT NULL, record BLOB NOT NULL, place INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, taken_back INTEGER NOT NULL, reason TEXT NOT NULL,
    not_before INTEGER, not_after INTEGER, PRIMARY KEY (record, series)
) STRICT, WITHOUT ROWID;
CREATE TABLE statements (
    place INTEGER PRIMARY KEY, record BLOB NOT NULL, version INTEGER NOT NULL, before INTEGER, next INTEGER,
    series INTEGER NOT NULL, number INTEGER NOT NULL, earliest INTEGER NOT NULL, latest INTEGER NOT NULL,
    not_before INTEGER, not_after INTEGER, accepted_at REAL NOT NULL, answer TEXT, corrections INTEGER NOT NULL,
    registered INTEGER NOT NULL
) STRICT;
CREATE TABLE returns (
    place INTEGER PRIMARY KEY, record BLOB NOT NULL, version INTEGER NOT NULL, series INTEGER NOT NULL,
    earliest INTEGER NOT NULL, latest INTEGER NOT NULL, accepted_at REAL NOT NULL,
    count INTEGER NOT NULL, first INTEGER, last INTEGER, is_open INTEGER NOT NULL
) STRICT;
CREATE INDEX returns_by_series ON returns (series, earliest);
CREATE TABLE active_returns (
    register INTEGER NOT NULL, record BLOB NOT NULL, place INTEGER NOT NULL, moment INTEGER NOT NULL,
    PRIMARY KEY (register, record)
) STRICT, WITHOUT ROWID;
CREATE TABLE after_returns (
    place INTEGER PRIMARY KEY, added INTEGER NOT NULL, returned INTEGER NOT NULL
) STRICT;
CREATE TABLE matters (
    id INTEGER PRIMARY KEY, register INTEGER NOT NULL, name TEXT NOT NULL,
    tops TEXT, is_open INTEGER NOT NULL, UNIQUE (register, name)
) STRICT;
CREATE INDEX matters_open ON matters (is_open) WHERE is_open;
CREATE TABLE stages (
    matter INTEGER NOT NULL, record INTEGER NOT NULL, place INTEGER NOT NULL,
    scheme TEXT, scheme_version INTEGER, code TEXT, outcome TEXT, has_authority INTEGER NOT NULL,
    earliest INTEGER NOT NULL, latest INTEGER NOT NULL,
    decides INTEGER NOT NULL, PRIMARY KEY (matter, record)
) STRICT, WITHOUT ROWID;
CREATE TABLE contracts (
    record INTEGER PRIMARY KEY, version_place INTEGER NOT NULL, department TEXT NOT NULL, ocid TEXT,
    supplier TEXT, currency TEXT, minor_units INTEGER, earliest INTEGER NOT NULL, latest INTEGER NOT NULL,
    is_published INTEGER NOT NULL, is_open INTEGER NOT NULL
) STRICT;
CREATE INDEX contracts_alike ON contracts (supplier, department, currency, minor_units);
CREATE INDEX contracts_open ON contracts (is_open) WHERE is_open;
CREATE TABLE evidence (
    digest BLOB NOT NULL, record INTEGER NOT NULL, place INTEGER NOT NULL, submission INTEGER NOT NULL,
    PRIMARY KEY (digest, record)
) STRICT, WITHOUT ROWID;
CREATE TABLE open_documents (digest BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE groups (
    id INTEGER PRIMARY KEY, register INTEGER NOT NULL, what TEXT NOT NULL, series INTEGER, open_from INTEGER,
    UNIQUE (register, what, series)
) STRICT;
CREATE TABLE ticks (
    grp INTEGER NOT NULL, latest INTEGER NOT NULL, earliest INTEGER NOT NULL, mark INTEGER NOT NULL,
    count INTEGER NOT NULL, late INTEGER NOT NULL, migrated INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (grp, latest, earliest, mark)
) STRICT, WITHOUT ROWID;
CREATE TABLE bursts (
    grp INTEGER NOT NULL, begin INTEGER NOT NULL, end INTEGER NOT NULL, PRIMARY KEY (grp, begin)
) STRICT, WITHOUT ROWID;
CREATE TABLE unwitnessed (
    register INTEGER NOT NULL, delayed INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    accepted_at REAL NOT NULL, delay INTEGER, PRIMARY KEY (register, delayed, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE findings (
    register INTEGER NOT NULL, first INTEGER NOT NULL, detection TEXT NOT NULL, key TEXT NOT NULL,
    body BLOB NOT NULL, PRIMARY KEY (register, detection, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX findings_in_order ON findings (register, first, detection, key);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {LAYOUT};
"""

_INDEXES: Final = {
    "statements_by_record": "statements (record)",
    "statements_by_number": "statements (series, number)",
    "statements_by_date": "statements (series, latest)",
}
"""What is asked for seldom, or never: made when it is first needed, at once over all that is there."""

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Found).decode


class FactStore:
    """The file, or memory for None. One connection, of one thread. Raises StoreError where the file fails."""

    def __init__(self, path: Path | None, made_under: Mapping[str, str]) -> None:
        self._path = path
        self._made_under = dict(made_under)
        self._connection = self._open()
        self._registers: dict[str, int] = {}
        self._findings: list[tuple[int, int, str, str, bytes]] = []
        self._indexed: set[str] = set()

    def _open(self) -> sqlite3.Connection:
        with self._translated():
            connection = sqlite3.connect(self._path or ":memory:", isolation_level=None)
            try:
                (application,) = connection.execute("PRAGMA application_id").fetchone()
                (layout,) = connection.execute("PRAGMA user_version").fetchone()
                (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
                if tables and application != APPLICATION_ID:
                    raise StoreError(f"{self._path} is not a file of detections")
                connection.execute("PRAGMA synchronous = OFF")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(f"PRAGMA cache_size = -{_CACHE}")
                if not tables:
                    self._make(connection)
                elif layout != LAYOUT or dict(connection.execute("SELECT * FROM about")) != self._made_under:
                    _drop_everything(connection)
                    self._make(connection)
            except BaseException:
                connection.close()
                raise
            return connection

    def _make(self, connection: sqlite3.Connection) -> None:
        connection.executescript(f"BEGIN;{_TABLES}COMMIT;")
        connection.executemany("INSERT INTO about VALUES (?, ?)", self._made_under.items())

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OverflowError) as error:
            if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
                raise StorageFullError(f"{self._path}: no room left on the device") from error
            raise StoreError(
                f"{self._path}: {error}. A file of detections can be deleted: it is made again from the entries"
            ) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do everything within or nothing. Whoever keeps states of this file forgets them where it fails."""
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.flush()
                self._connection.execute("COMMIT")
            except BaseException:
                self._findings.clear()
                self._registers.clear()
                self._indexed.clear()
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def one(self, statement: str, values: tuple[object, ...] = ()) -> Any:
        """Return the first row of a query, None where there is none."""
        return self._connection.execute(statement, values).fetchone()

    def rows(self, statement: str, values: tuple[object, ...] | Mapping[str, object] = ()) -> sqlite3.Cursor:
        """Return the rows of a query, read as they are asked for."""
        return self._connection.execute(statement, values)

    def write(self, statement: str, values: tuple[object, ...] = ()) -> int:
        """Write, and return the id of the row that was made."""
        return self._connection.execute(statement, values).lastrowid or 0

    def write_named(self, statement: str, values: Mapping[str, object]) -> None:
        """Write, with values by their names."""
        self._connection.execute(statement, values)

    def write_all(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        """Write many rows."""
        self._connection.executemany(statement, rows)

    def need(self, index: str) -> None:
        """Make one of the indexes of statements that are made when they are needed."""
        if index not in self._indexed:
            self.write(f"CREATE INDEX IF NOT EXISTS {index} ON {_INDEXES[index]}")
            self._indexed.add(index)

    # Registers

    def register(self, name: str) -> int:
        """Return the id of a register, given at its first call."""
        found = self._registers.get(name)
        if found is None:
            row = self.one("SELECT id FROM registers WHERE name = ?", (name,))
            found = row[0] if row else self.write("INSERT INTO registers (name, size) VALUES (?, 0)", (name,))
            if len(self._registers) > 10_000:
                self._registers.clear()
            self._registers[name] = found
        return found

    def name(self, register: int) -> str:
        """Return the name of a register."""
        name: str = self.one("SELECT name FROM registers WHERE id = ?", (register,))[0]
        return name

    def size(self, name: str) -> int:
        """Return how many entries of a register have been taken."""
        with self._translated():
            row = self.one("SELECT size FROM registers WHERE name = ?", (name,))
        return row[0] if row else 0

    def came_to(
        self, name: str, size: int, witnessed: int | None, decision: tuple[int, int | None] | None
    ) -> None:
        """Note how many entries of a register have been taken, the latest not-after of the last ones.

        And, if there was one among them, the index and not-after of the last decision.
        """
        self.write(
            "UPDATE registers SET size = ?, witnessed = nullif(max(coalesce(witnessed, -1), ?), -1) "
            "WHERE name = ?",
            (size, -1 if witnessed is None else witnessed, name),
        )
        if decision is not None:
            self.write(
                "UPDATE registers SET decided_index = ?, decided_by = ? WHERE name = ?", (*decision, name)
            )

    # Findings

    def put(self, found: Found, key: str) -> None:
        """Keep a finding, in place of one of the same register, detection and key."""
        first = found.indices[0] if found.indices else -1
        # What each rule says of all its findings is not kept with every one.
        body = _encode(replace(found, innocent=(), recheck=""))
        self._findings.append((self.register(found.register), first, found.detection, key, body))
        if len(self._findings) == _MOST_KEPT:
            self.flush()

    def get(self, register: str, detection: str, key: str) -> Found | None:
        """Return the finding of a key."""
        self.flush()
        values = self.register(register), detection, key
        row = self.one("SELECT body FROM findings WHERE register = ? AND detection = ? AND key = ?", values)
        return _whole(row[0]) if row else None

    def drop(self, register: int, detection: str, prefix: str) -> None:
        """Forget the findings of a register whose keys begin with `prefix`, which ends in a colon."""
        self.flush()
        # In bytes a semicolon follows the colon.
        values = register, detection, prefix, prefix[:-1] + ";"
        self.write("DELETE FROM findings WHERE register = ? AND detection = ? AND key >= ? AND key < ?", values)

    def flush(self) -> None:
        """Write what was put."""
        if self._findings:
            self.write_all("INSERT OR REPLACE INTO findings VALUES (?, ?, ?, ?, ?)", self._findings)
            self._findings.clear()

    def findings(self) -> Iterator[Found]:
        """Yield every finding, by register, first index, detection and key."""
        with self._translated():
            names = self.rows("SELECT name, id FROM registers ORDER BY name").fetchall()
            for _, register in names:
                yield from map(_whole, self._bodies(register))

    def page(self, name: str, after: Place, most: int) -> list[tuple[Place, Found]]:
        """Return findings of a register behind a place: at most `most`; one, or up to some `PAGE_BYTES`."""
        page: list[tuple[Place, Found]] = []
        left = PAGE_BYTES
        with self._translated():
            rows = self.rows(
                "SELECT f.first, f.detection, f.key, f.body FROM findings f "
                "JOIN registers r ON r.id = f.register "
                "WHERE r.name = ? AND (f.first, f.detection, f.key) > (?, ?, ?) "
                "ORDER BY f.first, f.detection, f.key LIMIT ?",
                (name, *after, most),
            )
            for first, detection, key, body in rows:
                left -= len(body)
                if left < 0 and page:
                    break
                page.append(((first, detection, key), _whole(body)))
        return page

    def _bodies(self, register: int) -> Iterator[bytes]:
        after: Place = BEGINNING
        while True:
            rows = self.rows(
                "SELECT first, detection, key, body FROM findings WHERE register = ? "
                "AND (first, detection, key) > (?, ?, ?) ORDER BY first, detection, key LIMIT 500",
                (register, *after),
            ).fetchall()
            if not rows:
                return
            yield from (row[3] for row in rows)
            after = rows[-1][:3]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _whole(body: bytes) -> Found:
    found: Found = _decode(body)
    rule = RULES[found.detection]
    return replace(found, innocent=rule.innocent, recheck=rule.recheck)


def record_key(record_id: str) -> bytes:
    """Return the 16 bytes of a record_id."""
    return bytes.fromhex(record_id.replace("-", ""))


def text_key(text: str) -> str:
    """Return a short key that differs where a text does."""
    return sha256(text.encode()).hexdigest()[:16]


def _drop_everything(connection: sqlite3.Connection) -> None:
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    for (name,) in names:
        connection.execute(f'DROP TABLE "{name}"')
    connection.execute("VACUUM")

"""The auditor's notebook: what he keeps from visit to visit, beside what the monitor keeps.

One SQLite file in the state's directory. Everything about one stretch of entries is written in one
transaction, so that a death at any point loses that stretch's work and nothing else. What is kept grows with
the ledger and is never held in memory: positions, the second tree, the witnesses' times, who signed what.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ledger.errors import StoreError
from services.monitoring.state_file import open_state_file, translated

APPLICATION_ID: Final = 0x64626131  # "dba1"

LAYOUT: Final = 2
"""The version of its tables."""

FILE: Final = "audit.sqlite3"
"""Its name in the state's directory."""

_SINCE_2: Final = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE visited (
    register TEXT NOT NULL,
    size INTEGER NOT NULL,
    begun INTEGER NOT NULL,
    PRIMARY KEY (register, size)
) STRICT, WITHOUT ROWID;
CREATE TABLE claimed (
    register TEXT NOT NULL,
    first INTEGER NOT NULL,
    latest REAL NOT NULL,
    PRIMARY KEY (register, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE supported (
    register TEXT NOT NULL,
    submission_id BLOB NOT NULL,
    PRIMARY KEY (register, submission_id)
) STRICT, WITHOUT ROWID;
"""
_TABLES: Final = f"""
BEGIN IMMEDIATE;
{_SINCE_2}
CREATE TABLE visit (number INTEGER PRIMARY KEY, begun INTEGER NOT NULL, ended INTEGER NOT NULL) STRICT;
CREATE TABLE audited (
    register TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    begun INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE examined (
    register TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    peaks BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE counted (
    register TEXT NOT NULL,
    kind TEXT NOT NULL,
    entries INTEGER NOT NULL,
    PRIMARY KEY (register, kind)
) STRICT, WITHOUT ROWID;
CREATE TABLE position (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE earliest (
    register TEXT NOT NULL,
    witness TEXT NOT NULL,
    size INTEGER NOT NULL,
    time INTEGER NOT NULL,
    PRIMARY KEY (register, witness, size)
) STRICT, WITHOUT ROWID;
CREATE TABLE latest (
    register TEXT NOT NULL,
    witness TEXT NOT NULL,
    size INTEGER NOT NULL,
    time INTEGER NOT NULL,
    PRIMARY KEY (register, witness, size)
) STRICT, WITHOUT ROWID;
CREATE TABLE sealed (size INTEGER PRIMARY KEY, time INTEGER NOT NULL) STRICT;
CREATE TABLE signed (
    register TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    key BLOB NOT NULL,
    governing_size INTEGER NOT NULL,
    PRIMARY KEY (register, first)
) STRICT, WITHOUT ROWID;
CREATE INDEX signed_by ON signed (key, register, first);
CREATE TABLE rejection (
    register TEXT NOT NULL,
    submission_id BLOB NOT NULL,
    entry INTEGER NOT NULL,
    PRIMARY KEY (register, submission_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE relation (
    register TEXT NOT NULL,
    entry INTEGER NOT NULL,
    target TEXT NOT NULL,
    record_id BLOB NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (register, entry, target, record_id, version)
) STRICT, WITHOUT ROWID;
CREATE TABLE odd (
    code TEXT NOT NULL,
    register TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    submission_id BLOB,
    text TEXT NOT NULL,
    PRIMARY KEY (code, register, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE reported (
    identity BLOB PRIMARY KEY,
    since INTEGER NOT NULL,
    visit INTEGER NOT NULL,
    last INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {LAYOUT};
COMMIT;
"""

_FROM_1: Final = f"""
BEGIN IMMEDIATE;
{_SINCE_2}
INSERT INTO visited SELECT register, size, begun FROM audited;
ALTER TABLE reported ADD COLUMN last INTEGER NOT NULL DEFAULT -1;
PRAGMA user_version = {LAYOUT};
COMMIT;
"""  # noqa: S608 - of numbers and names that stand here


class Notebook:
    """One notebook, open for writing. Raises StoreError where the file fails or is another's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_state_file(path, APPLICATION_ID, _TABLES, "an auditor's notebook")
        try:
            self._bring_up_to_date()
        except BaseException:
            self._connection.close()
            raise

    def _bring_up_to_date(self) -> None:
        (layout,) = self.one("PRAGMA user_version")
        if layout > LAYOUT:
            raise StoreError(f"{self._path} was written by a newer version of Daybook: use that")
        self.write("PRAGMA journal_mode = WAL")
        if layout == 1:
            with translated(self._path):
                self._connection.executescript(_FROM_1)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write all that the body writes, or nothing of it; durable at its end. Not to be nested."""
        self.write("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.write("ROLLBACK")
            raise
        self.write("COMMIT")

    def write(self, statement: str, values: Sequence[object] = ()) -> None:
        """Run a statement."""
        with translated(self._path):
            self._connection.execute(statement, values)

    def write_all(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Run a statement once for each row of values."""
        with translated(self._path):
            self._connection.executemany(statement, rows)

    def one(self, statement: str, values: Sequence[object] = ()) -> Any:
        """Return the first row; None where there is none."""
        with translated(self._path):
            return self._connection.execute(statement, values).fetchone()

    def rows(self, statement: str, values: Sequence[object] = ()) -> Iterator[Any]:
        """Yield rows as they are read. Nothing may be written to the same tables meanwhile."""
        with translated(self._path):
            yield from self._connection.execute(statement, values)

    def about(self, name: str) -> str:
        """Return what was noted under a name; empty where nothing was."""
        row = self.one("SELECT value FROM about WHERE name = ?", (name,))
        return row[0] if row else ""

    def set_about(self, name: str, value: str) -> None:
        """Note something under a name."""
        self.write(
            "INSERT INTO about VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (name, value)
        )

    def position(self, name: str) -> int:
        """Return how far something has come; 0 where it was not begun."""
        row = self.one("SELECT value FROM position WHERE name = ?", (name,))
        return row[0] if row else 0

    def set_position(self, name: str, value: int) -> None:
        """Note how far something has come."""
        self.write(
            "INSERT INTO position VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (name, value)
        )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

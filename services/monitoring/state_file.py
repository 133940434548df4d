"""A SQLite file of a state: made with its tables where it is not there, and refused if it is another's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ledger.errors import StorageFullError, StoreError


def open_state_file(path: Path, application_id: int, tables: str, what: str) -> sqlite3.Connection:
    """Open a file, durable at each commit. `tables` is the script that makes them; `what` it is, in words.

    Raises StoreError where the file fails, or has another application_id.
    """
    with translated(path):
        connection = sqlite3.connect(path, isolation_level=None)
    try:
        with translated(path):
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (count,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if (application, count) != (0, 0) and application != application_id:
                raise StoreError(f"{path} is not {what}")
            connection.execute("PRAGMA synchronous = FULL")
            if not count:
                connection.executescript(tables)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise StorageFullError or StoreError for what SQLite raises in the body."""
    try:
        yield
    except (sqlite3.Error, OverflowError) as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            raise StorageFullError(f"{path}: no room left on the device") from error
        raise StoreError(f"{path}: {error}") from error

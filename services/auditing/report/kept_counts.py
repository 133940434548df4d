"""Counts that are kept from report to report, a block of entries at a time, so that each is judged once.

What a block comes to depends on its entries, which never change, and on what a later visit may change: their
bounds, as when a cosignature is seen later; which of them came after a return; the profile, the calendar, and
the program. All of that but the entries is put into a digest beside the counts. Where it is another one than
when the block was counted, the block is counted anew. So nothing has to be told of what has changed.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from ledger.errors import StoreError
from services.auditing.after_returns import AfterReturn
from services.auditing.audit_state import AuditState
from services.auditing.report.figures import PackedTally

FILE: Final = "timings.sqlite3"
"""Its name in the state's directory."""

BLOCK: Final = 2_048
"""Entries of one block: what one new entry has counted anew, and what is held of them in memory."""

APPLICATION_ID: Final = 0x64627431  # "dbt1"

_TABLES: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE block (
    register TEXT NOT NULL, first INTEGER NOT NULL, made_from BLOB NOT NULL, counts BLOB NOT NULL,
    PRIMARY KEY (register, first)
) STRICT, WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
COMMIT;
"""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(PackedTally).decode


class KeptCounts:
    """The file of one auditor's state. It can be deleted: then all is counted again. Raises StoreError."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def get(self, register: str, first: int, made_from: bytes) -> PackedTally | None:
        """Return what the block of a register from `first` on comes to, None where it is to be counted."""
        with _translated(self._path):
            row = self._connection.execute(
                "SELECT counts FROM block WHERE register = ? AND first = ? AND made_from = ?",
                (register, first, made_from),
            ).fetchone()
        if row is None:
            return None
        try:
            return _decode(row[0])
        except msgspec.MsgspecError:
            return None

    def put(self, register: str, first: int, made_from: bytes, counts: PackedTally) -> None:
        """Keep what a block comes to."""
        with _translated(self._path):
            self._connection.execute(
                "INSERT OR REPLACE INTO block VALUES (?, ?, ?, ?)",
                (register, first, made_from, _encode(counts)),
            )


@contextmanager
def kept_counts(path: Path) -> Iterator[KeptCounts]:
    """Open the file at `path`, which is made where there is none. Raises StoreError where it is another's."""
    with _translated(path):
        connection = sqlite3.connect(path, isolation_level=None)
    with closing(connection):
        with _translated(path):
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if tables and application != APPLICATION_ID:
                raise StoreError(f"{path} is not a file of counts")
            # It is made again where it is lost.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")
            if not tables:
                connection.executescript(_TABLES)
        yield KeptCounts(connection, path)


def made_from(
    state: AuditState, register: str, begin: int, end: int, after: Mapping[int, AfterReturn], terms: str
) -> bytes:
    """Return the digest of what may change of what the entries [begin, end) come to. Raises StoreError.

    `terms` names the profile, the calendar and the program.
    """
    runs = [
        (first, last, bounds.not_before, bounds.not_after, bounds.comparable)
        for first, last, bounds in state.times.stretches(register, begin, end)
    ]
    returned = [(index, each.kind.value) for index, each in sorted(after.items())]
    return hashlib.sha256(json.dumps([terms, begin, end, runs, returned]).encode()).digest()


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}. A file of counts can be deleted: it is made again") from error

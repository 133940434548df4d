"""What a witness remembers, in one SQLite file: the ledgers it accepts, and what it has cosigned.

WAL, synchronous=FULL. The latest checkpoint of an origin is replaced by compare-and-swap, and a row is never
deleted: a witness that has forgotten would cosign a second history from size 0. The server writes what is
cosigned, commands write which ledgers are accepted, at the same time where need be.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from ledger.checkpoints import Checkpoint
from ledger.errors import ConflictError, LedgerError, MalformedError, StorageFullError, StoreError
from ledger.hashing import Hash
from ledger.notes import VerifierKey, open_note

APPLICATION_ID: Final = 0x64627977  # "dbyw"

_VERSION: Final = 1
PATIENCE: Final = 10.0
"""Seconds to wait while another process writes."""

_CREATE: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE witness (vkey TEXT NOT NULL) STRICT;
CREATE TABLE accepted (
    rule TEXT NOT NULL CHECK (rule IN ('log', 'ledger')),
    origin TEXT NOT NULL,
    vkey TEXT NOT NULL,
    contact TEXT,
    enabled INTEGER NOT NULL,
    PRIMARY KEY (rule, origin, vkey)
) STRICT;
CREATE TABLE cosigned (
    origin_hash BLOB PRIMARY KEY,
    origin TEXT NOT NULL,
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    time INTEGER NOT NULL,
    note BLOB NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {_VERSION};
COMMIT;
"""


@dataclass(frozen=True, slots=True)
class Cosigned:
    """The latest checkpoint cosigned for an origin, at `time`, POSIX seconds.

    `note` carries the log's verified signatures and the witness's own, and no other line.
    """

    checkpoint: Checkpoint
    time: int
    note: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """A key whose checkpoints are cosigned.

    `rule` is ``log``: of the one log `origin`; or ``ledger``: of every register of the ledger `origin`, the key
    being its governing register's. `contact` says how to reach the operator, where that is known.
    """

    rule: str
    origin: str
    vkey: str
    contact: str | None = None
    enabled: bool = True


def origin_hash(origin: str) -> bytes:
    """Return SHA-256 of an origin's bytes: its name at the monitoring endpoint (witness.md, section 3)."""
    return hashlib.sha256(origin.encode()).digest()


class StateBusyError(StoreError):
    """Another process writes just now: nothing was written, and the same may be tried again."""


class State:
    """The state of one witness. One thread uses it at a time; each other one has its own `reader`.

    Every method raises StoreError; StorageFullError where nothing was written for want of room, StateBusyError
    where another process was writing for longer than `patience` seconds.
    """

    def __init__(self, path: Path, patience: float = PATIENCE) -> None:
        with _translated():
            if not path.exists():
                raise StoreError(
                    f"{path} is missing. A witness without its memory would cosign second histories: make one "
                    "with a new key and name (daybook witness keygen, in another directory)"
                )
            self._path = path
            self._connection = _connect(path)
            self._connection.execute(f"PRAGMA busy_timeout = {int(patience * 1000)}")
            self._check()

    @classmethod
    def create(cls, path: Path, vkey: VerifierKey) -> Self:
        """Make the state of a new witness. Raises StoreError where there is one."""
        with _translated():
            if path.exists():
                raise StoreError(f"{path} exists: a witness's state is never replaced")
            connection = _connect(path)
            connection.executescript(_CREATE)
            connection.execute("INSERT INTO witness VALUES (?)", (str(vkey),))
            connection.close()
        return cls(path)

    def _check(self) -> None:
        (application,) = self._connection.execute("PRAGMA application_id").fetchone()
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if (application, version) != (APPLICATION_ID, _VERSION):
            raise StoreError(f"{self._path}: not the state of a witness, of version {_VERSION}")

    def reader(self) -> State:
        """Return the same state to read from, which sees only what is committed."""
        reader = State(self._path)
        reader._connection.execute("PRAGMA query_only = ON")
        return reader

    def close(self) -> None:
        """Close the file."""
        with _translated():
            self._connection.close()

    @property
    def witness(self) -> VerifierKey:
        """The key whose cosignatures these are."""
        ((vkey,),) = self._rows("SELECT vkey FROM witness")
        return VerifierKey.parse(vkey)

    def verify(self) -> None:
        """Check that every stored note is one that this witness has cosigned. Raises StoreError."""
        key = self.witness
        for cosigned in self.all_cosigned():
            try:
                note = open_note(cosigned.note, [key])
                held = Checkpoint.parse(note.text)
            except LedgerError as error:
                raise StoreError(f"the state of {cosigned.checkpoint.origin!r} is damaged: {error}") from error
            if held != cosigned.checkpoint:
                raise StoreError(f"the state of {held.origin!r} differs from the note cosigned last")

    def latest(self, origin: str) -> Cosigned | None:
        """Return the latest checkpoint cosigned for an origin."""
        return self.latest_by_hash(origin_hash(origin))

    def latest_by_hash(self, name: bytes) -> Cosigned | None:
        """Return the latest checkpoint cosigned for the origin of which this is the hash."""
        rows = self._rows("SELECT origin, size, root, time, note FROM cosigned WHERE origin_hash = ?", name)
        return _cosigned(rows[0]) if rows else None

    def all_cosigned(self) -> list[Cosigned]:
        """Return the latest checkpoint of every origin, by origin."""
        rows = self._rows("SELECT origin, size, root, time, note FROM cosigned ORDER BY origin")
        return [_cosigned(row) for row in rows]

    def count_cosigned(self) -> int:
        """Return for how many origins a checkpoint was cosigned."""
        ((count,),) = self._rows("SELECT count(*) FROM cosigned")
        return int(count)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write what the body writes as one durable transaction, or nothing of it."""
        with _translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # On some errors SQLite has rolled back by itself.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def replace(self, expected: Cosigned | None, cosigned: Cosigned) -> None:
        """Replace the latest checkpoint of an origin, within a transaction.

        Raises ConflictError where it is not `expected`; None is for an origin that has none.
        """
        after = cosigned.checkpoint
        values = (after.size, after.root, cosigned.time, cosigned.note, origin_hash(after.origin))
        with _translated():
            if expected is None:
                statement = (
                    "INSERT INTO cosigned (size, root, time, note, origin_hash, origin) "
                    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
                )
                cursor = self._connection.execute(statement, (*values, after.origin))
            else:
                before = expected.checkpoint
                statement = (
                    "UPDATE cosigned SET size = ?, root = ?, time = ?, note = ? "
                    "WHERE origin_hash = ? AND size = ? AND root = ? AND time = ?"
                )
                cursor = self._connection.execute(statement, (*values, before.size, before.root, expected.time))
        if cursor.rowcount != 1:
            raise ConflictError(f"{after.origin}: another checkpoint was cosigned meanwhile")

    def accept(self, accepted: Accepted) -> None:
        """Accept a key, or accept it again; within a transaction."""
        with _translated():
            self._connection.execute(
                "INSERT INTO accepted VALUES (?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET enabled = 1, "
                "contact = coalesce(excluded.contact, contact)",
                (accepted.rule, accepted.origin, accepted.vkey, accepted.contact),
            )

    def disable(self, vkey: str) -> int:
        """Accept a key no more, under whatever rule; return how many rules named it. Within a transaction."""
        with _translated():
            return self._connection.execute(
                "UPDATE accepted SET enabled = 0 WHERE vkey = ? AND enabled", (vkey,)
            ).rowcount

    def all_accepted(self) -> list[Accepted]:
        """Return every key that is or was accepted, ledgers first."""
        rows = self._rows("SELECT * FROM accepted ORDER BY rule, origin, vkey")
        return [Accepted(rule, origin, vkey, contact, bool(on)) for rule, origin, vkey, contact, on in rows]

    def vkeys(self, rule: str, origin: str) -> list[str]:
        """Return the keys that a rule accepts for an origin now."""
        statement = "SELECT vkey FROM accepted WHERE rule = ? AND origin = ? AND enabled ORDER BY vkey"
        return [vkey for (vkey,) in self._rows(statement, rule, origin)]

    def _rows(self, statement: str, *values: object) -> list[Any]:
        with _translated():
            return self._connection.execute(statement, values).fetchall()


def _cosigned(row: tuple[str, int, bytes, int, bytes]) -> Cosigned:
    origin, size, root, time, note = row
    try:
        return Cosigned(Checkpoint(origin, size, Hash(root)), time, note)
    except MalformedError as error:
        raise StoreError(f"the witness's state of {origin!r} is damaged: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreError(f"{path}: SQLite does not offer WAL here (journal mode {mode})")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name == "SQLITE_FULL":
            raise StorageFullError("no room left on the device that holds the witness's state") from error
        if name.startswith("SQLITE_BUSY"):
            raise StateBusyError("another process writes the witness's state") from error
        raise StoreError(f"the witness's state: {error}") from error

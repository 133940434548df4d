"""A monitor's own state: a mirror of the ledger, every checkpoint that it has seen, and how far it has read.

Two SQLite files. The mirror is a store like the ledger's own, filled through the same append rules, and never
holds an entry that a signed checkpoint does not cover. What was seen stands beside it: a checkpoint is kept
before its entries are read, so that a death in between forgets nothing that the ledger has signed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledger.checkpoints import Checkpoint
from ledger.errors import LedgerError
from ledger.ledger import Ledger
from ledger.notes import MAX_NOTE_SIZE, split_note
from ledger.stores.sqlite import SqliteStore
from services.ledger_files import DirectoryError, LedgerDirectory, WriterLock
from services.monitoring.state_file import open_state_file, translated

APPLICATION_ID: Final = 0x64626D31  # "dbm1"

_TABLES: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE about (origin TEXT NOT NULL, begun INTEGER NOT NULL) STRICT;
CREATE TABLE seen (
    register TEXT NOT NULL,
    size INTEGER NOT NULL,
    first BLOB NOT NULL,
    last BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (register, size)
) STRICT, WITHOUT ROWID;
CREATE TABLE position (
    kind TEXT NOT NULL,
    register TEXT NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (kind, register)
) STRICT, WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = 1;
COMMIT;
"""


class StateError(LedgerError):
    """The directory cannot be used as a monitor's state; the message says what to do."""


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """Paths below one directory. Nothing is opened or made by naming them."""

    root: Path

    @property
    def mirror(self) -> Path:
        """The mirror: a store of entries and tiles."""
        return self.root / "mirror.sqlite3"

    @property
    def seen(self) -> Path:
        """The checkpoints that were seen."""
        return self.root / "seen.sqlite3"

    @property
    def evidence(self) -> Path:
        """The folder of evidence."""
        return self.root / "evidence"

    @property
    def lock(self) -> Path:
        """The file that the one monitor holds locked."""
        return LedgerDirectory(self.root).lock


@dataclass(frozen=True, slots=True)
class Seen:
    """A checkpoint that was seen: the first and the last note of its size, and when the first one came.

    The notes differ in their cosignatures. `at` is POSIX seconds, by the monitor's own clock.
    """

    register: str
    size: int
    first: bytes
    last: bytes
    at: int

    @property
    def checkpoint(self) -> Checkpoint:
        """What it states. Raises MalformedError where the state is damaged."""
        text, _ = split_note(self.last)
        return Checkpoint.parse(text)


class SeenCheckpoints:
    """The checkpoints in one file, and the positions beside them. Raises StoreError where the file fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_state_file(path, APPLICATION_ID, _TABLES, "a file of a monitor's state")

    def _one(self, statement: str, values: tuple[object, ...] = ()) -> Any:
        return self._connection.execute(statement, values).fetchone()

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        with translated(self._path):
            self._connection.execute(statement, values)

    def origin(self) -> str | None:
        """Return the origin of the ledger that this state is of; None while it is of none."""
        with translated(self._path):
            row = self._one("SELECT origin FROM about")
        return row[0] if row else None

    def begun(self) -> int | None:
        """Return when this became the state of a ledger, POSIX seconds; None while it is of none."""
        with translated(self._path):
            row = self._one("SELECT begun FROM about")
        return row[0] if row else None

    def begin(self, origin: str, now: int) -> None:
        """Make this the state of a ledger, from now on."""
        self._write("INSERT INTO about VALUES (?, ?)", (origin, now))

    def keep(self, register: str, size: int, note: bytes, now: int) -> None:
        """Keep a note durably: as the first of its size, or in place of the last one."""
        self._write(
            "INSERT INTO seen VALUES (?1, ?2, ?3, ?3, ?4) ON CONFLICT DO UPDATE SET last = excluded.last",
            (register, size, note, now),
        )

    def at(self, register: str, size: int) -> Seen | None:
        """Return what was seen of a size."""
        return self._first("register = ? AND size = ?", (register, size))

    def latest(self, register: str, at_most: int = (1 << 63) - 1) -> Seen | None:
        """Return the largest checkpoint seen of a register, of those up to `at_most` entries."""
        return self._first("register = ? AND size <= ? ORDER BY size DESC", (register, at_most))

    def next_above(self, register: str, size: int) -> Seen | None:
        """Return the smallest checkpoint seen of more than `size` entries."""
        return self._first("register = ? AND size > ? ORDER BY size", (register, size))

    def registers(self) -> Iterator[str]:
        """Yield every register of which a checkpoint was seen, sorted by the bytes of its name."""
        with translated(self._path):
            (name,) = self._one("SELECT min(register) FROM seen")
        while name is not None:
            yield name
            with translated(self._path):
                (name,) = self._one("SELECT min(register) FROM seen WHERE register > ?", (name,))

    def _first(self, where: str, values: tuple[object, ...]) -> Seen | None:
        statement = f"SELECT register, size, first, last, at FROM seen WHERE {where} LIMIT 1"  # noqa: S608
        with translated(self._path):
            row = self._one(statement, values)
        return Seen(*row) if row else None

    def all(self) -> Iterator[Seen]:
        """Yield every checkpoint seen, by register and size, but for notes that nobody reads."""
        last: tuple[str, int] = ("", -1)
        while True:
            with translated(self._path):
                rows = self._connection.execute(
                    "SELECT register, size, first, last, at FROM seen WHERE (register, size) > (?, ?) "
                    "AND length(first) <= ? AND length(last) <= ? ORDER BY register, size LIMIT 64",
                    (*last, MAX_NOTE_SIZE, MAX_NOTE_SIZE),
                ).fetchall()
            if not rows:
                return
            yield from (Seen(*row) for row in rows)
            last = rows[-1][0], rows[-1][1]

    def position(self, kind: str, register: str, default: int) -> int:
        """Return how far something has come with a register."""
        with translated(self._path):
            row = self._one("SELECT value FROM position WHERE kind = ? AND register = ?", (kind, register))
        return row[0] if row else default

    def set_position(self, kind: str, register: str, value: int) -> None:
        """Note how far something has come with a register."""
        self._write(
            "INSERT INTO position VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
            (kind, register, value),
        )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


@dataclass(frozen=True, slots=True)
class State:
    """A monitor's state, open for writing in this process: of the ledger `mirror.origin`."""

    directory: StateDirectory
    mirror: Ledger
    seen: SeenCheckpoints

    def size(self, register: str) -> int:
        """Return how many entries of a register the mirror has; 0 where it has no such register."""
        head = self.mirror.heads().get(register)
        return head.size if head else 0


@contextmanager
def open_seen(root: Path) -> Iterator[SeenCheckpoints]:
    """Open a directory as the one monitor of it, making it where there is none yet.

    Raises StateError where it is something else, or another process has it; OSError; StoreError.
    """
    directory = StateDirectory(root)
    root.mkdir(parents=True, exist_ok=True)
    if not directory.seen.exists() and any(path != directory.lock for path in root.iterdir()):
        raise StateError(f"{root} is not empty, and not a monitor's state: choose another directory")
    with ExitStack() as stack:
        try:
            stack.enter_context(WriterLock(LedgerDirectory(root)))
        except DirectoryError as error:
            raise StateError(f"{root} is in use by another monitor: a state has one") from error
        seen = SeenCheckpoints(directory.seen)
        stack.callback(seen.close)
        yield seen


@contextmanager
def open_mirror(root: Path, origin: str) -> Iterator[Ledger]:
    """Open the mirror of a ledger, its right edges verified. Raises StoreError."""
    store = SqliteStore(StateDirectory(root).mirror)
    try:
        yield Ledger.open(store, origin)
    finally:
        store.close()

"""The SQLite store: one file, WAL, synchronous=FULL; one writer, readers in any thread.

Entries are kept in stretches of up to 32, in entry-bundle framing, because a row per entry would waste an
eighth of every page. All keys begin with the register's number, so that registers do not mix.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ledger.errors import ConflictError, MalformedError, StorageFullError, StoreError, TakenError
from ledger.hashing import Hash
from ledger.notes import SignatureLine
from ledger.store import Batch, Cosigned, Head, LookedUp, NewCosignatures, RecordAt, Run, StoredNote, StoredTile
from ledger.tiles import decode_entries, decode_one, encode_bundle

APPLICATION_ID: Final = 0x64627931  # "dby1"
PAGE_SIZE: Final = 4096
STRETCH: Final = 32

_SHIFT: Final = 40  # a register holds fewer than 2**40 entries
_LEVEL_SHIFT: Final = 33  # and a level fewer than 2**33 tiles
_IN_LIST: Final = tuple(1 << power for power in range(10))  # few texts, so that SQLite keeps them prepared

_VERSION: Final = 2

_COSIGNATURES: Final = """
CREATE TABLE cosignature (
    register INTEGER NOT NULL,
    size INTEGER NOT NULL,
    name TEXT NOT NULL,
    key_id INTEGER NOT NULL,
    first BLOB NOT NULL,
    last BLOB NOT NULL,
    PRIMARY KEY (register, size, name, key_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX cosignature_of_witness ON cosignature (register, name, key_id, size);
"""

_TABLES: Final = f"""
CREATE TABLE register (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    root BLOB NOT NULL
) STRICT;
CREATE TABLE stretch (id INTEGER PRIMARY KEY, entries BLOB NOT NULL) STRICT;
CREATE TABLE tile (id INTEGER PRIMARY KEY, hashes BLOB NOT NULL) STRICT;
CREATE TABLE note (id INTEGER PRIMARY KEY, note BLOB NOT NULL) STRICT;
CREATE TABLE submission (
    register INTEGER NOT NULL,
    submission_id BLOB NOT NULL,
    first INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (register, submission_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE record (
    register INTEGER NOT NULL,
    record_id BLOB NOT NULL,
    version INTEGER NOT NULL,
    entry INTEGER NOT NULL,
    PRIMARY KEY (register, record_id, version)
) STRICT, WITHOUT ROWID;
{_COSIGNATURES}"""

_CREATE: Final = f"""
BEGIN IMMEDIATE;
{_TABLES}
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {_VERSION};
COMMIT;
"""

_FROM_VERSION_1: Final = f"""
BEGIN IMMEDIATE;
{_COSIGNATURES}
PRAGMA user_version = {_VERSION};
COMMIT;
"""

_OF_WITNESS: Final = "SELECT size, first, last FROM cosignature WHERE register = ? AND name = ? AND key_id = ?"


class SqliteStore:
    """A ledger's registers in one SQLite file.

    The caller makes sure that there is one writer; a lost race is still refused, as ConflictError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._closed = False
        try:
            with _translated():
                self._writer = self._connect()
                self._prepare()
            self._numbers: dict[str, int] = dict(self._rows("SELECT name, number FROM register"))
        except BaseException:
            self.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        with self._lock:
            if self._closed:
                raise StoreError(f"{self._path}: the store was closed")
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._open.append(connection)
        # A damaged name is one that no register has, not a failure to read all the others.
        connection.text_factory = lambda name: name.decode("utf-8", "backslashreplace")
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        return connection

    def _prepare(self) -> None:
        """Make the tables in an empty file; refuse a file that is not ours before anything in it changes.

        A store of version 1, from before there were witnesses, gets the table that it lacks.
        """
        (application,) = self._writer.execute("PRAGMA application_id").fetchone()
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        (tables,) = self._writer.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        fresh = (application, version, tables) == (0, 0, 0)
        if not fresh and (application != APPLICATION_ID or version not in (1, _VERSION)):
            raise StoreError(f"{self._path}: not a Daybook store of version 1 or {_VERSION}")
        (mode,) = self._writer.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(f"{self._path}: SQLite does not offer WAL here (journal mode {mode})")
        if fresh:
            self._writer.executescript(_CREATE)
        elif version == 1:
            self._writer.executescript(_FROM_VERSION_1)

    @property
    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect()
            connection.execute("PRAGMA query_only = ON")
            self._local.connection = connection
        return connection

    def _rows(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        with _translated():
            # While nobody writes, everybody reads with the writer's connection: any other loses all that it
            # has cached at every commit.
            if self._writing.acquire(blocking=False):
                try:
                    if not self._writer.in_transaction:  # left so only where a rollback has failed
                        return self._writer.execute(statement, values).fetchall()
                finally:
                    self._writing.release()
            return self._reader.execute(statement, values).fetchall()

    def _number(self, register: str) -> int:
        number = self._numbers.get(register)
        if number is None:
            # The ledger's own process may have opened it since this one opened the store, for reading.
            rows = self._rows("SELECT number FROM register WHERE name = ?", (register,))
            if not rows:
                raise StoreError(f"the store has no register {register!r}")
            number = self._numbers[register] = rows[0][0]
        return number

    def heads(self) -> Mapping[str, Head]:
        """Return every register's head, by name."""
        rows = self._rows("SELECT name, size, root FROM register")
        return {name: Head(size, Hash(root)) for name, size, root in rows}

    def entries(self, register: str, begin: int, end: int) -> list[bytes]:
        """Return the entries [begin, end), fewer where the register ends earlier."""
        if end == begin + 1:
            return self._entry(register, begin)
        found: list[bytes] = []
        position: int | None = None
        for first, entries in self._stretches(register, begin, end):
            # A stretch that was moved would otherwise be read as if it stood where it ought to.
            if first != position and (position is not None or first > begin):
                raise StoreError(f"{register}: the stretch at {first} does not follow the one before it")
            found.extend(entries[max(0, begin - first) : end - first])
            position = first + len(entries)
        return found

    def _entry(self, register: str, index: int) -> list[bytes]:
        """Return one entry, if it is there, without taking its whole stretch apart."""
        base = self._number(register) << _SHIFT
        statement = "SELECT id, entries FROM stretch WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1"
        for key, data in self._rows(statement, (base, base + index)):
            try:
                entry = decode_one(data, base + index - key)
            except MalformedError as error:
                raise StoreError(f"{register}: the stretch at {key - base} is damaged: {error}") from error
            return [] if entry is None else [entry]
        return []

    def _stretches(self, register: str, begin: int, end: int) -> Iterator[tuple[int, list[bytes]]]:
        base = self._number(register) << _SHIFT
        rows = self._rows(
            "SELECT id, entries FROM stretch WHERE id < ?2 AND id >= "
            "coalesce((SELECT max(id) FROM stretch WHERE id BETWEEN ?3 AND ?1), ?1) ORDER BY id",
            (base + begin, base + end, base),
        )
        for key, data in rows:
            try:
                yield key - base, decode_entries(data)
            except MalformedError as error:
                raise StoreError(f"{register}: the stretch at {key - base} is damaged: {error}") from error

    def entries_at(self, register: str, indices: Sequence[int]) -> dict[int, bytes]:
        """Return the entries at these indices, without those that are not there."""
        return {index: entry for index in indices for entry in self._entry(register, index)}

    def tiles(self, register: str, wanted: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return tiles by (level, index), in the order asked for; empty bytes for one that is not there."""
        base = self._number(register) << _SHIFT
        keys = [base + (level << _LEVEL_SHIFT) + index for level, index in wanted]
        found = dict(self._select("SELECT id, hashes FROM tile WHERE id IN (%s)", (), keys))
        return [found.get(key, b"") for key in keys]

    def submissions(self, register: str, ids: Sequence[bytes]) -> dict[bytes, Run]:
        """Return where those of the submissions stand that the register holds."""
        statement = (
            "SELECT submission_id, first, count FROM submission WHERE register = ? AND submission_id IN (%s)"
        )
        rows = self._select(statement, (self._number(register),), ids)
        return {key: Run(first, count) for key, first, count in rows}

    def latest_versions(self, register: str, record_ids: Sequence[bytes]) -> list[RecordAt]:
        """Return the latest version of each of these records that the register holds, in any order."""
        # SQLite takes the other columns from the row that has the maximum.
        statement = (
            "SELECT record_id, max(version), entry FROM record WHERE register = ? AND record_id IN (%s) "
            "GROUP BY record_id"
        )
        rows = self._select(statement, (self._number(register),), record_ids)
        return [RecordAt(key, version, index) for key, version, index in rows]

    def look_up(self, register: str, submission_ids: Sequence[bytes], record_ids: Sequence[bytes]) -> LookedUp:
        """Return what is known of these submissions and records; it keeps no rejections."""
        latest = self.latest_versions(register, record_ids)
        return LookedUp(latest, {}, self.submissions(register, submission_ids))

    def versions(self, register: str, wanted: Sequence[tuple[bytes, int]]) -> list[RecordAt]:
        """Return those of the versions, by (record_id, version), that the register holds, in any order."""
        # A list of pairs would be looked for in every row of the register.
        statement = (
            "SELECT DISTINCT record_id, version, entry "
            "FROM (SELECT ? AS number) CROSS JOIN (VALUES %s) CROSS JOIN record "
            "WHERE register = number AND record_id = column1 AND version = column2"
        )
        rows = self._select(statement, (self._number(register),), wanted, "(?,?)")
        return [RecordAt(key, version, index) for key, version, index in rows]

    def _select(
        self, statement: str, fixed: tuple[object, ...], keys: Sequence[Any], place: str = "?"
    ) -> list[Any]:
        """Run `statement` for all keys, in lists of a few fixed lengths, each filled up with its last key.

        A key is a value, or a tuple of as many as `place` has places.
        """
        rows: list[Any] = []
        once = list(dict.fromkeys(keys))
        for start in range(0, len(once), _IN_LIST[-1]):
            part = once[start : start + _IN_LIST[-1]]
            length = next(length for length in _IN_LIST if length >= len(part))
            part += part[-1:] * (length - len(part))
            values = part if place == "?" else [value for key in part for value in key]
            rows += self._rows(statement % ",".join([place] * length), (*fixed, *values))
        return rows

    def note(self, register: str, at_most: int) -> StoredNote | None:
        """Return the checkpoint note of the largest size that is `at_most`, if there is one."""
        base = self._number(register) << _SHIFT
        statement = "SELECT id, note FROM note WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1"
        rows = self._rows(statement, (base, base + at_most))
        return StoredNote(rows[0][0] - base, rows[0][1]) if rows else None

    def notes(self, register: str, begin: int, end: int) -> Iterator[StoredNote]:
        """Yield the notes of sizes begin to end - 1, by size."""
        base = self._number(register) << _SHIFT
        position = base + begin
        while rows := self._rows(
            "SELECT id, note FROM note WHERE id >= ? AND id < ? ORDER BY id LIMIT 512", (position, base + end)
        ):
            for key, note in rows:
                yield StoredNote(key - base, note)
            position = rows[-1][0] + 1

    def cosigned(self, register: str, begin: int, end: int) -> Iterator[Cosigned]:
        """Yield who has cosigned the sizes begin to end - 1, by size, then by witness."""
        statement = (
            "SELECT size, CAST(name AS BLOB), key_id, first, last FROM cosignature WHERE register = ? "
            "AND (size, name, key_id) > (?, CAST(? AS TEXT), ?) AND size < ? "
            "ORDER BY size, name, key_id LIMIT ?"
        )
        yield from self._cosigned(statement, register, (begin, b"", -(1 << 63)), (end,))

    def cosigned_back(self, register: str, at_most: int) -> Iterator[Cosigned]:
        """Yield who has cosigned the sizes `at_most` to 0, the largest size first."""
        statement = (
            "SELECT size, CAST(name AS BLOB), key_id, first, last FROM cosignature WHERE register = ? "
            "AND (size, name, key_id) < (?, CAST(? AS TEXT), ?) "
            "ORDER BY size DESC, name DESC, key_id DESC LIMIT ?"
        )
        yield from self._cosigned(statement, register, (at_most + 1, b"", 0), ())

    def _cosigned(
        self, statement: str, register: str, last: tuple[object, ...], fixed: tuple[object, ...]
    ) -> Iterator[Cosigned]:
        number = self._number(register)
        # Whoever looks for a quorum finds it in a few rows; whoever wants all goes on with many at once.
        limit = 16
        while rows := self._rows(statement, (number, *last, *fixed, limit)):
            for size, raw, key_id, first, latest in rows:
                name = raw.decode("utf-8", "backslashreplace")
                yield Cosigned(size, SignatureLine(name, key_id, first), SignatureLine(name, key_id, latest))
            # The name as it is kept, damaged or not: any other spelling would stand in another place.
            last, limit = rows[-1][:3], 1024

    def next_cosigned(self, register: str, by: tuple[str, int], at_least: int) -> Cosigned | None:
        """Return what a witness has cosigned of the smallest size that is `at_least`."""
        return self._one_cosigned(register, by, "size >= ? ORDER BY size", at_least)

    def last_cosigned(self, register: str, by: tuple[str, int], at_most: int) -> Cosigned | None:
        """Return what a witness has cosigned of the largest size that is `at_most`."""
        return self._one_cosigned(register, by, "size <= ? ORDER BY size DESC", at_most)

    def _one_cosigned(self, register: str, by: tuple[str, int], place: str, size: int) -> Cosigned | None:
        for found, first, last in self._rows(
            f"{_OF_WITNESS} AND {place} LIMIT 1", (self._number(register), *by, size)
        ):
            return Cosigned(found, SignatureLine(*by, first), SignatureLine(*by, last))
        return None

    def keep_cosignatures(self, cosigned: Sequence[NewCosignatures]) -> None:
        """Keep cosignatures, and the note that they are of where its size has none yet."""
        with self._transaction():
            for new in cosigned:
                number = self._number(new.register)
                self._writer.execute(
                    "INSERT INTO note VALUES (?, ?) ON CONFLICT DO NOTHING",
                    ((number << _SHIFT) + new.note.size, new.note.note),
                )
                self._writer.executemany(
                    "INSERT INTO cosignature VALUES (?1, ?2, ?3, ?4, ?5, ?5) "
                    # A line's bytes begin with its time, big-endian: the smallest bytes are the earliest.
                    "ON CONFLICT DO UPDATE "
                    "SET first = min(first, excluded.first), last = max(last, excluded.last)",
                    ((number, new.note.size, line.name, line.key_id, line.signature) for line in new.lines),
                )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write what the body writes as one durable transaction, or nothing of it."""
        with self._writing, _translated():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._writer.execute("COMMIT")
            except BaseException:
                # On some errors SQLite has rolled back by itself.
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def commit(self, batches: Sequence[Batch]) -> None:
        """Replace every batch's expected head and add what it brings, together or not at all."""
        with self._transaction():
            numbers = [self._write(batch) for batch in batches]
        for batch, number in zip(batches, numbers, strict=True):
            self._numbers[batch.register] = number

    def _write(self, batch: Batch) -> int:
        number = self._replace_head(batch)
        base = number << _SHIFT
        many = self._writer.executemany
        first = base + (batch.expected.size if batch.expected else 0)
        many(
            "INSERT INTO stretch VALUES (?, ?)",
            (
                (first + start, encode_bundle(batch.entries[start : start + STRETCH]))
                for start in range(0, len(batch.entries), STRETCH)
            ),
        )
        many(
            "INSERT INTO tile VALUES (?, ?) ON CONFLICT DO UPDATE SET hashes = excluded.hashes",
            ((base + (tile.level << _LEVEL_SHIFT) + tile.index, tile.data) for tile in batch.tiles),
        )
        try:
            many(
                "INSERT INTO submission VALUES (?, ?, ?, ?)",
                ((number, key, run.first, run.count) for key, run in batch.submissions.items()),
            )
            many(
                "INSERT INTO record VALUES (?, ?, ?, ?)",
                ((number, record.record_id, record.version, record.index) for record in batch.records),
            )
        except sqlite3.IntegrityError as error:
            raise TakenError(f"{batch.register}: a submission or a record is there already: {error}") from error
        many(
            "INSERT INTO note VALUES (?, ?) ON CONFLICT DO NOTHING",
            ((base + stored.size, stored.note) for stored in batch.notes),
        )
        return number

    def _replace_head(self, batch: Batch) -> int:
        after = batch.head
        if batch.expected is None:
            if self._writer.execute("SELECT 1 FROM register WHERE name = ?", (batch.register,)).fetchone():
                raise ConflictError(f"{batch.register}: the register is there already")
            cursor = self._writer.execute(
                "INSERT INTO register (name, size, root) VALUES (?, ?, ?)",
                (batch.register, after.size, after.root),
            )
            assert cursor.lastrowid is not None  # noqa: S101 - an INSERT has just made it
            return cursor.lastrowid
        before = batch.expected
        cursor = self._writer.execute(
            "UPDATE register SET size = ?, root = ? WHERE name = ? AND size = ? AND root = ?",
            (after.size, after.root, batch.register, before.size, before.root),
        )
        if cursor.rowcount != 1:
            raise ConflictError(f"{batch.register}: the head has moved")
        return self._number(batch.register)

    def all_tiles(self, register: str) -> Iterator[StoredTile]:
        """Yield every tile row of a register, by level and index, for fsck."""
        base = self._number(register) << _SHIFT
        mask = (1 << _LEVEL_SHIFT) - 1
        for key, data in self._scan("tile", "hashes", base):
            yield StoredTile((key - base) >> _LEVEL_SHIFT, (key - base) & mask, data)

    def _scan(self, table: str, column: str, base: int) -> Iterator[tuple[int, bytes]]:
        position, end = base, base + (1 << _SHIFT)
        statement = f"SELECT id, {column} FROM {table} WHERE id >= ? AND id < ? ORDER BY id LIMIT 64"  # noqa: S608
        while rows := self._rows(statement, (position, end)):
            yield from rows
            position = rows[-1][0] + 1

    def all_submissions(self, register: str) -> Iterator[tuple[bytes, Run]]:
        """Yield every submission row of a register, by submission_id, for fsck."""
        statement = (
            "SELECT submission_id, first, count FROM submission WHERE register = ? AND submission_id > ? "
            "ORDER BY submission_id LIMIT 1024"
        )
        last: object = ""  # text, so before every blob, the empty one too
        while rows := self._rows(statement, (self._number(register), last)):
            yield from ((key, Run(first, count)) for key, first, count in rows)
            last = rows[-1][0]

    def all_records(self, register: str) -> Iterator[RecordAt]:
        """Yield every record row of a register, by record_id and version, for fsck."""
        statement = (
            "SELECT record_id, version, entry FROM record "
            "WHERE register = ? AND (record_id, version) > (?, ?) ORDER BY record_id, version LIMIT 1024"
        )
        last: tuple[object, object] = ("", 0)  # text, so before every blob, the empty one too
        while rows := self._rows(statement, (self._number(register), *last)):
            yield from (RecordAt(key, version, index) for key, version, index in rows)
            last = rows[-1][0], rows[-1][1]

    def row_counts(self, register: str) -> tuple[int, int]:
        """Return how many submission rows and how many record rows a register has."""
        number = self._number(register)
        ((submissions,),) = self._rows("SELECT count(*) FROM submission WHERE register = ?", (number,))
        ((records,),) = self._rows("SELECT count(*) FROM record WHERE register = ?", (number,))
        return submissions, records

    def damage(self) -> list[str]:
        """Return what SQLite itself finds wrong, changes of the schema, and rows that belong to no register."""
        found = [str(row[0]) for row in self._rows("PRAGMA integrity_check") if row[0] != "ok"]
        # Not only columns: a trigger could undo whatever is written.
        found += (f"the schema differs: {name}" for name in self._schema_changes())
        for table, number in (
            ("stretch", f"id >> {_SHIFT}"),
            ("tile", f"id >> {_SHIFT}"),
            ("note", f"id >> {_SHIFT}"),
            ("submission", "register"),
            ("record", "register"),
            ("cosignature", "register"),
        ):
            statement = f"SELECT count(*) FROM {table} WHERE {number} NOT IN (SELECT number FROM register)"  # noqa: S608
            ((strays,),) = self._rows(statement)
            if strays:
                found.append(f"{strays} rows of table {table} belong to no register")
        ((beyond,),) = self._rows(
            f"SELECT count(*) FROM stretch JOIN register ON number = id >> {_SHIFT} "  # noqa: S608
            f"WHERE id - (number << {_SHIFT}) >= size"
        )
        if beyond:
            found.append(f"{beyond} rows of table stretch begin beyond the end of their register")
        ((beyond,),) = self._rows(
            "SELECT count(*) FROM cosignature AS kept JOIN register ON number = kept.register "
            "WHERE kept.size NOT BETWEEN 0 AND register.size"
        )
        if beyond:
            found.append(f"{beyond} rows of table cosignature are of sizes that their register does not have")
        return found

    def _schema_changes(self) -> list[str]:
        """Return the names of what stands in the schema and should not, or otherwise, or the reverse."""
        statement = "SELECT name, type, tbl_name, sql FROM sqlite_schema"
        wanted = sqlite3.connect(":memory:", isolation_level=None)
        try:
            wanted.executescript(_TABLES)
            expected = set(wanted.execute(statement))
        finally:
            wanted.close()
        return sorted({str(row[0]) for row in expected.symmetric_difference(self._rows(statement))})

    def close(self) -> None:
        """Close every connection. The file can be opened again."""
        with self._lock:
            self._closed = True
            for connection in self._open:
                connection.close()
            self._open.clear()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OverflowError, UnicodeDecodeError) as error:
        # A damaged number leads past 64 bits; an error message quotes a damaged schema.
        raise StoreError(f"SQLite: {error}") from error
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            raise StorageFullError("no room left on the device that holds the store") from error
        raise StoreError(f"SQLite: {error}") from error

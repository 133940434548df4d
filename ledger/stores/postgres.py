"""The PostgreSQL store: many readers through a pool, one connection that writes, one transaction a commit.

Rows are only ever added, but for heads, positions, cosignatures and the outbox. What a commit brings goes there
in as few round trips as can be: a pipeline that locks and moves the heads, one COPY of the entries, a pipeline
of all the rest. A tile is kept as the pieces that commits added to it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import Connection, Cursor
from psycopg.abc import Params
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool, PoolTimeout

from ledger.errors import ConflictError, FencedError, StorageFullError, StoreError
from ledger.event_log import (
    CHECKPOINTS,
    EMPTY_CHAIN,
    REJECTIONS,
    Advance,
    Disposition,
    Kind,
    OutboxRow,
    Position,
    QuarantinedMessage,
)
from ledger.hashing import HASH_SIZE, Hash
from ledger.notes import SignatureLine
from ledger.store import Batch, Cosigned, Head, LookedUp, NewCosignatures, RecordAt, Run, StoredNote, StoredTile
from ledger.stores.postgres_schema import (
    APPLICATION_ROLE,
    READER_ROLE,
    NotMigratedError,
    check_migrated,
    in_one_line,
    migrate,
    parse_conninfo,
)
from ledger.tiles import TILE_WIDTH, implied_width

__all__ = [
    "APPLICATION_ROLE",
    "READER_ROLE",
    "SILENCE",
    "NotMigratedError",
    "PostgresStore",
    "in_one_line",
    "migrate",
    "parse_conninfo",
]

READERS: Final = 8
"""Connections that read, at most."""

_PATIENCE: Final = 10.0
"""Seconds that a read waits for a connection, where all are busy or the server is away."""

SILENCE: Final = 30.0
"""Seconds without a word of the server that a service bears."""

_LAST_SILENCE: Final = 2.0
"""Seconds that one bears which is told to stop, and that such a one waits for a connection."""

COPIED_KEY: Final = 1024
"""Bytes of a quarantined message's key that go to the outbox: its index holds none that are much longer."""

COPIED_VALUE: Final = 2 * 1024 * 1024
"""Bytes of its value that do: it may have been compressed to less than it can be sent as. The rest is kept."""

CHANNEL: Final = "daybook_outbox"
"""Where whoever writes to the outbox says so."""

_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"

# A server that has gone away without a word must not hold its caller for ever.
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

_MOVE_HEADS: Final = """
UPDATE register SET size = moved.size, root = moved.root
FROM unnest(%b::text[], %b::bigint[], %b::bytea[], %b::bigint[], %b::bytea[])
    AS moved (name, old_size, old_root, size, root)
WHERE register.name = moved.name AND register.size = moved.old_size AND register.root = moved.old_root
RETURNING register.name, register.number
"""
_OPEN_REGISTERS: Final = """
INSERT INTO register (name, size, root) SELECT * FROM unnest(%b::text[], %b::bigint[], %b::bytea[])
ON CONFLICT (name) DO NOTHING RETURNING name, number
"""
_LOCK_POSITION: Final = """
SELECT number, epoch, next_offset, last, chain FROM log_position WHERE topic = %s AND partition = %s FOR UPDATE
"""
_COPY_ENTRIES: Final = "COPY entry (register, index, entry) FROM STDIN (FORMAT BINARY)"
_ADD_TILES: Final = """
INSERT INTO tile (register, level, index, first, hashes)
SELECT * FROM unnest(%b::integer[], %b::smallint[], %b::bigint[], %b::smallint[], %b::bytea[])
"""
_ADD_SUBMISSIONS: Final = """
INSERT INTO submission (register, submission_id, first, count)
SELECT * FROM unnest(%b::integer[], %b::bytea[], %b::bigint[], %b::integer[])
"""
_ADD_RECORDS: Final = """
INSERT INTO record (register, record_id, version, entry)
SELECT * FROM unnest(%b::integer[], %b::bytea[], %b::bigint[], %b::bigint[])
"""
_ADD_REJECTIONS: Final = """
INSERT INTO rejection (register, submission_id, entry)
SELECT * FROM unnest(%b::integer[], %b::bytea[], %b::bigint[])
"""
_ADD_NOTES: Final = """
INSERT INTO note (register, size, note) SELECT * FROM unnest(%b::integer[], %b::bigint[], %b::bytea[])
ON CONFLICT DO NOTHING
"""
# What was kept first is what is sent, should there be two spellings.
_FILL_OUTBOX: Final = """
UPDATE outbox SET value = note.note
FROM unnest(%b::integer[], %b::bytea[], %b::bigint[]) AS new (register, key, size)
JOIN note ON note.register = new.register AND note.size = new.size
WHERE outbox.value IS NULL AND outbox.topic = %s AND outbox.key = new.key AND outbox.size = new.size
"""
_SEND_NOTES: Final = """
INSERT INTO outbox (topic, key, size, value)
SELECT %(topic)s, new.key, new.size, note.note
FROM unnest(%(registers)b::integer[], %(keys)b::bytea[], %(sizes)b::bigint[])
    WITH ORDINALITY AS new (register, key, size, place)
JOIN note ON note.register = new.register AND note.size = new.size
WHERE NOT EXISTS (
    SELECT FROM outbox AS there
    WHERE there.topic = %(topic)s AND there.key = new.key AND there.size = new.size AND there.value = note.note
)
ORDER BY new.place
"""
_DROP_UNSIGNED: Final = """
DELETE FROM outbox USING unnest(%b::bytea[], %b::bigint[]) AS new (key, size)
WHERE outbox.value IS NULL AND outbox.topic = %s AND outbox.key = new.key AND outbox.size < new.size
"""
_ADD_DISPOSITIONS: Final = """
INSERT INTO disposition (position, log_offset, kind, register, first, count)
SELECT %s, * FROM unnest(%b::bigint[], %b::smallint[], %b::integer[], %b::bigint[], %b::integer[])
"""
_ADD_QUARANTINED: Final = """
INSERT INTO quarantine (position, log_offset, key, value, why)
SELECT %s, * FROM unnest(%b::bigint[], %b::bytea[], %b::bytea[], %b::text[])
"""
_MOVE_POSITION: Final = "UPDATE log_position SET next_offset = %s, last = %s, chain = %s WHERE number = %s"
_ADD_TO_OUTBOX: Final = """
INSERT INTO outbox (topic, key, size, value)
SELECT new.topic, new.key, new.size, new.value
FROM unnest(%b::text[], %b::bytea[], %b::bigint[], %b::bytea[])
    WITH ORDINALITY AS new (topic, key, size, value, place)
ORDER BY new.place
"""
# A line's bytes begin with its time, big-endian: the smallest bytes are the earliest.
_KEEP_COSIGNATURES: Final = """
WITH changed AS (
    INSERT INTO cosignature AS kept (register, size, name, key_id, first, last)
    SELECT * FROM unnest(%b::integer[], %b::bigint[], %b::text[], %b::bigint[], %b::bytea[], %b::bytea[])
    ON CONFLICT (register, size, name, key_id) DO UPDATE
    SET first = least(kept.first, excluded.first), last = greatest(kept.last, excluded.last)
    WHERE excluded.first < kept.first OR excluded.last > kept.last
    RETURNING register, size
)
INSERT INTO outbox (topic, key, size, value)
SELECT %s, new.key, new.size, new.value
FROM unnest(%b::integer[], %b::bytea[], %b::bigint[], %b::bytea[])
    WITH ORDINALITY AS new (register, key, size, value, place)
WHERE (new.register, new.size) IN (SELECT register, size FROM changed)
ORDER BY new.place
RETURNING 1
"""
_HOLD: Final = "SELECT pg_advisory_xact_lock(hashtext(%s), %s)"
"""What every commit to a partition begins with: whose it is can be looked up, as of a locked row it cannot."""

_PATIENTLY: Final = "SET LOCAL lock_timeout = '2s'"

_END_HOLDER: Final = """
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 2 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid = (hashtext(%s)::bigint & 4294967295)::oid AND objid = (%s)::oid
"""

_TRIES: Final = 5

_TAKE_OVER: Final = """
INSERT INTO log_position AS held (topic, partition, epoch, next_offset, last, chain)
VALUES (%s, %s, 1, 0, NULL, %s)
ON CONFLICT (topic, partition) DO UPDATE SET epoch = held.epoch + 1
RETURNING epoch, next_offset, last, chain
"""
_DISPOSITIONS: Final = """
SELECT done.log_offset, done.kind, register.name, quarantine.key, done.first, done.count
FROM log_position
JOIN disposition AS done ON done.position = log_position.number
LEFT JOIN register ON register.number = done.register
LEFT JOIN quarantine ON done.kind = 4 AND quarantine.position = done.position
    AND quarantine.log_offset = done.log_offset
WHERE log_position.topic = %s AND log_position.partition = %s AND done.log_offset >= %s AND done.log_offset < %s
ORDER BY done.log_offset
"""
_TILE: Final = """
SELECT level, index, string_agg(hashes, ''::bytea ORDER BY first),
    max(first * 32 + length(hashes)), sum(length(hashes))::bigint
FROM tile WHERE register = %s AND
"""

# Each key is looked up by itself (OFFSET 0 keeps it so): a plan that was made, and kept, while a table was
# small would otherwise read all of a register for every batch.
_TILES: Final = f"""
SELECT found.* FROM unnest(%b::smallint[], %b::bigint[]) AS wanted (level, index)
CROSS JOIN LATERAL (
    {_TILE} level = wanted.level AND index = wanted.index GROUP BY level, index OFFSET 0
) AS found
"""  # noqa: S608
_SUBMISSIONS: Final = """
SELECT wanted.key, found.* FROM unnest(%b::bytea[]) AS wanted (key)
CROSS JOIN LATERAL (
    SELECT first, count FROM submission WHERE register = %s AND submission_id = wanted.key OFFSET 0
) AS found
"""
_LATEST_VERSIONS: Final = """
SELECT wanted.key, found.* FROM unnest(%b::bytea[]) AS wanted (key)
CROSS JOIN LATERAL (
    SELECT version, entry FROM record WHERE register = %s AND record_id = wanted.key
    ORDER BY version DESC LIMIT 1
) AS found
"""
_VERSIONS: Final = """
SELECT wanted.key, wanted.version, found.entry FROM unnest(%b::bytea[], %b::bigint[]) AS wanted (key, version)
CROSS JOIN LATERAL (
    SELECT entry FROM record
    WHERE register = %s AND record_id = wanted.key AND version = wanted.version OFFSET 0
) AS found
"""
_ENTRIES_AT: Final = """
SELECT wanted.index, found.entry FROM unnest(%b::bigint[]) AS wanted (index)
CROSS JOIN LATERAL (
    SELECT entry FROM entry WHERE register = %s AND index = wanted.index OFFSET 0
) AS found
"""
_REJECTIONS: Final = """
SELECT wanted.key, found.* FROM unnest(%b::bytea[]) AS wanted (key)
CROSS JOIN LATERAL (
    SELECT entry FROM rejection WHERE register = %s AND submission_id = wanted.key
    ORDER BY entry DESC LIMIT 1
) AS found
"""
_COSIGNED: Final = "SELECT size, name, key_id, first, last FROM cosignature WHERE register = %s"

_OF_REGISTERS: Final = ("entry", "tile", "note", "submission", "record", "rejection", "cosignature")
_GUARDS: Final = 15

_Rows = list[Any]


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


class PostgresStore:
    """A ledger's registers in one PostgreSQL database, which `migrate` has prepared.

    Safe in any threads. Any number of processes may open it; two that write one register meet as
    ConflictError. With `read_only` nothing can be written through it, whatever the user may. Connections
    that break are replaced: a server that was started again needs no new store. A server that says nothing for
    `silence` seconds in the middle of a statement is away; without them it may take for ever. Raises ValueError
    for a connection string that is none, StoreError where the database cannot be reached or is not of this
    version.
    """

    def __init__(self, conninfo: str, *, read_only: bool = False, silence: float | None = None) -> None:
        self._read_only = read_only
        self._silence = silence
        self._hurried = False
        self._writing = threading.Lock()
        self._listening = threading.Lock()
        self._writer: Connection[Any] | None = None
        self._listener: Connection[Any] | None = None
        self._numbers: dict[str, int] = {}
        self._pool: ConnectionPool[Connection[Any]] | None = None
        self._closed = False
        try:
            with _translated():
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
        return connection

    def _bears(self) -> float | None:
        return self._silence

    def _reads_only(self, connection: Connection[Any]) -> None:
        assert isinstance(connection, _Impatient)  # noqa: S101 - of the pool's class
        connection.bears = self._bears
        connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        connection.execute(_PLANNING)

    # Reading.

    def _read(self, ask: Callable[[Cursor[Any]], _Rows]) -> _Rows:
        pool = self._pool
        if self._closed or pool is None:
            raise StoreError("the store was closed")
        until = time.monotonic() + _PATIENCE
        with _translated():
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

    def _rows(self, statement: str, values: Params = ()) -> _Rows:
        return self._read(lambda cursor: cursor.execute(statement, values).fetchall())

    def _number(self, register: str) -> int:
        number = self._numbers.get(register)
        if number is None:
            rows = self._rows("SELECT number FROM register WHERE name = %s", (register,))
            if not rows:
                raise StoreError(f"the store has no register {register!r}")
            number = self._numbers[register] = int(rows[0][0])
        return number

    def heads(self) -> Mapping[str, Head]:
        """Return every register's head, by name."""
        rows = self._rows("SELECT name, size, root FROM register")
        return {name: Head(size, Hash(root)) for name, size, root in rows}

    def entries(self, register: str, begin: int, end: int) -> list[bytes]:
        """Return the entries [begin, end), fewer where the register ends earlier."""
        rows = self._rows(
            "SELECT index, entry FROM entry WHERE register = %s AND index >= %s AND index < %s ORDER BY index",
            (self._number(register), begin, end),
        )
        # One that is missing, also the first, would otherwise move all that follow.
        if rows and rows[-1][0] != begin + len(rows) - 1:
            raise StoreError(f"{register}: an entry between {begin} and {rows[-1][0]} is missing")
        return [entry for _, entry in rows]

    def entries_at(self, register: str, indices: Sequence[int]) -> dict[int, bytes]:
        """Return the entries at these indices, without those that are not there."""
        return dict(self._rows(_ENTRIES_AT, (list(dict.fromkeys(indices)), self._number(register))))

    def tiles(self, register: str, wanted: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return tiles by (level, index), in the order asked for; empty bytes for one that is not there."""
        number = self._number(register)
        once = list(dict.fromkeys(wanted))
        if not once:
            return []
        rows = self._rows(_TILES, ([level for level, _ in once], [index for _, index in once], number))
        found = {(tile.level, tile.index): tile.data for tile in (_tile(register, row) for row in rows)}
        return [found.get(place, b"") for place in wanted]

    def submissions(self, register: str, ids: Sequence[bytes]) -> dict[bytes, Run]:
        """Return where those of the submissions stand that the register holds."""
        rows = self._rows(_SUBMISSIONS, (list(dict.fromkeys(ids)), self._number(register)))
        return {key: Run(first, count) for key, first, count in rows}

    def latest_versions(self, register: str, record_ids: Sequence[bytes]) -> list[RecordAt]:
        """Return the latest version of each of these records that the register holds, in any order."""
        rows = self._rows(_LATEST_VERSIONS, (list(dict.fromkeys(record_ids)), self._number(register)))
        return [RecordAt(*row) for row in rows]

    def look_up(self, register: str, submission_ids: Sequence[bytes], record_ids: Sequence[bytes]) -> LookedUp:
        """Return what is known of these submissions and records, by one round trip.

        A commit may come in between: what a submission has registered is seen no later than the submission.
        """
        number, ids = self._number(register), list(dict.fromkeys(submission_ids))

        def ask(cursor: Cursor[Any]) -> _Rows:
            connection = cursor.connection
            with connection.pipeline():
                asked = [
                    connection.cursor(binary=True).execute(statement, (keys, number))
                    for statement, keys in (
                        (_LATEST_VERSIONS, list(dict.fromkeys(record_ids))),
                        (_REJECTIONS, ids),
                        (_SUBMISSIONS, ids),
                    )
                ]
            return [each.fetchall() for each in asked]

        latest, rejections, runs = self._read(ask)
        return LookedUp(
            [RecordAt(*row) for row in latest],
            dict(rejections),
            {key: Run(first, count) for key, first, count in runs},
        )

    def versions(self, register: str, wanted: Sequence[tuple[bytes, int]]) -> list[RecordAt]:
        """Return those of the versions, by (record_id, version), that the register holds, in any order."""
        once = dict.fromkeys(wanted)
        keys, numbers = [key for key, _ in once], [version for _, version in once]
        return [RecordAt(*row) for row in self._rows(_VERSIONS, (keys, numbers, self._number(register)))]

    def rejection(self, register: str, submission_ids: Sequence[bytes]) -> dict[bytes, int]:
        """Return the index of the latest rejection of each of the submissions that was rejected."""
        rows = self._rows(_REJECTIONS, (list(dict.fromkeys(submission_ids)), self._number(register)))
        return dict(rows)

    def note(self, register: str, at_most: int) -> StoredNote | None:
        """Return the checkpoint note of the largest size that is `at_most`, if there is one."""
        rows = self._rows(
            "SELECT size, note FROM note WHERE register = %s AND size <= %s ORDER BY size DESC LIMIT 1",
            (self._number(register), at_most),
        )
        return StoredNote(*rows[0]) if rows else None

    def notes(self, register: str, begin: int, end: int) -> Iterator[StoredNote]:
        """Yield the notes of sizes begin to end - 1, by size."""
        statement = (
            "SELECT size, note FROM note WHERE register = %s AND size >= %s AND size < %s "
            "ORDER BY size LIMIT 512"
        )
        number = self._number(register)
        while rows := self._rows(statement, (number, begin, end)):
            yield from (StoredNote(*row) for row in rows)
            begin = rows[-1][0] + 1

    def all_tiles(self, register: str) -> Iterator[StoredTile]:
        """Yield every tile of a register, by level and index."""
        statement = f"{_TILE} (level, index) > (%s, %s) GROUP BY level, index ORDER BY level, index LIMIT 64"
        number, last = self._number(register), (-1, 0)
        while rows := self._rows(statement, (number, *last)):
            yield from (_tile(register, row) for row in rows)
            last = rows[-1][:2]

    def all_submissions(self, register: str) -> Iterator[tuple[bytes, Run]]:
        """Yield every submission row of a register, by submission_id."""
        statement = (
            "SELECT submission_id, first, count FROM submission WHERE register = %s AND submission_id > %s "
            "ORDER BY submission_id LIMIT 1024"
        )
        number, condition, last = self._number(register), " >= ", b""
        while rows := self._rows(statement.replace(" > ", condition), (number, last)):
            yield from ((key, Run(first, count)) for key, first, count in rows)
            condition, last = " > ", rows[-1][0]

    def all_records(self, register: str) -> Iterator[RecordAt]:
        """Yield every record row of a register, by record_id and version."""
        statement = (
            "SELECT record_id, version, entry FROM record "
            "WHERE register = %s AND (record_id, version) > (%s, %s) ORDER BY record_id, version LIMIT 1024"
        )
        number, last = self._number(register), (b"", -(1 << 63))
        while rows := self._rows(statement, (number, *last)):
            yield from (RecordAt(*row) for row in rows)
            last = rows[-1][:2]

    def row_counts(self, register: str) -> tuple[int, int]:
        """Return how many submission rows and how many record rows a register has."""
        ((submissions, records),) = self._rows(
            "SELECT (SELECT count(*) FROM submission WHERE register = %(number)s), "
            "(SELECT count(*) FROM record WHERE register = %(number)s)",
            {"number": self._number(register)},
        )
        return submissions, records

    def cosigned(self, register: str, begin: int, end: int) -> Iterator[Cosigned]:
        """Yield who has cosigned the sizes begin to end - 1, by size, then by witness."""
        yield from self._cosigned(
            f"{_COSIGNED} AND (size, name, key_id) > (%s, %s, %s) AND size < %s "
            "ORDER BY size, name, key_id LIMIT %s",
            register,
            (begin, "", -1),
            (end,),
        )

    def cosigned_back(self, register: str, at_most: int) -> Iterator[Cosigned]:
        """Yield who has cosigned the sizes `at_most` to 0, the largest size first."""
        yield from self._cosigned(
            f"{_COSIGNED} AND (size, name, key_id) < (%s, %s, %s) "
            "ORDER BY size DESC, name DESC, key_id DESC LIMIT %s",
            register,
            (at_most + 1, "", 0),
            (),
        )

    def _cosigned(
        self, statement: str, register: str, last: tuple[object, ...], fixed: tuple[object, ...]
    ) -> Iterator[Cosigned]:
        number = self._number(register)
        # Whoever looks for a quorum finds it in a few rows; whoever wants all goes on with many at once.
        limit = 16
        while rows := self._rows(statement, (number, *last, *fixed, limit)):
            yield from (_cosigned(row) for row in rows)
            last, limit = rows[-1][:3], 1024

    def next_cosigned(self, register: str, by: tuple[str, int], at_least: int) -> Cosigned | None:
        """Return what a witness has cosigned of the smallest size that is `at_least`."""
        return self._one_cosigned(register, by, "size >= %s ORDER BY size", at_least)

    def last_cosigned(self, register: str, by: tuple[str, int], at_most: int) -> Cosigned | None:
        """Return what a witness has cosigned of the largest size that is `at_most`."""
        return self._one_cosigned(register, by, "size <= %s ORDER BY size DESC", at_most)

    def _one_cosigned(self, register: str, by: tuple[str, int], place: str, size: int) -> Cosigned | None:
        rows = self._rows(
            f"{_COSIGNED} AND name = %s AND key_id = %s AND {place} LIMIT 1",
            (self._number(register), *by, size),
        )
        return _cosigned(rows[0]) if rows else None

    def position(self, topic: str, partition: int) -> Position | None:
        """Return where a partition stands, None where nobody has taken it over yet."""
        rows = self._rows(
            "SELECT epoch, next_offset, last, chain FROM log_position WHERE topic = %s AND partition = %s",
            (topic, partition),
        )
        return Position(topic, partition, *rows[0]) if rows else None

    def disposition(self, topic: str, partition: int, offset: int) -> Disposition | None:
        """Return what became of one message, None where it is not done."""
        return next(iter(self.dispositions(topic, partition, offset, offset + 1)), None)

    def dispositions(self, topic: str, partition: int, begin: int, end: int) -> list[Disposition]:
        """Return what became of the messages at offsets begin to end - 1, in order, as far as they are done."""
        return [
            Disposition(offset, Kind(kind), _as_text(key) if name is None else name, first, count)
            for offset, kind, name, key, first, count in self._rows(
                _DISPOSITIONS, (topic, partition, begin, end)
            )
        ]

    def quarantined(self, topic: str, partition: int) -> Iterator[QuarantinedMessage]:
        """Yield every quarantined message of a partition, in order."""
        # Few at once: a value may have megabytes.
        statement = (
            "SELECT log_offset, key, value, why FROM quarantine JOIN log_position ON position = number "
            "WHERE topic = %s AND partition = %s AND log_offset > %s ORDER BY log_offset LIMIT 16"
        )
        last = -1
        while rows := self._rows(statement, (topic, partition, last)):
            for last, key, value, why in rows:
                yield QuarantinedMessage(last, _as_text(key), key, value, why)

    def unsigned(self) -> list[tuple[str, int]]:
        """Return the registers whose head has no note, and the sizes of those heads."""
        return self._rows(
            "SELECT name, size FROM register WHERE NOT EXISTS ("
            "SELECT FROM note WHERE note.register = register.number AND note.size = register.size) "
            "ORDER BY name"
        )

    def outbox(self, limit: int, after: int = 0) -> list[OutboxRow]:
        """Return up to `limit` messages that are to be sent, in the order in which to send them.

        Only those of an id beyond `after`.
        """
        rows = self._rows(
            "SELECT id, topic, key, value FROM outbox WHERE value IS NOT NULL AND id > %s ORDER BY id LIMIT %s",
            (after, limit),
        )
        return [OutboxRow(*row) for row in rows]

    def outbox_end(self) -> int:
        """Return the largest id of an outbox row, one that waits for its note too; 0 where there is none."""
        ((end,),) = self._rows("SELECT coalesce(max(id), 0) FROM outbox")
        return int(end)

    def partitions(self, topic: str) -> int | None:
        """Return the number of partitions that was fixed for a topic, if it was."""
        rows = self._rows("SELECT partitions FROM log_topic WHERE topic = %s", (topic,))
        return rows[0][0] if rows else None

    # Writing.

    @contextmanager
    def _transaction(self) -> Iterator[Connection[Any]]:
        """Give the connection that writes to a body that begins and commits; undo what a failed one leaves."""
        if self._read_only:
            raise StoreError("the store was opened for reading only")
        with self._writing, _translated():
            writer = self._writer
            if writer is None or writer.closed or self._closed:
                writer = self._writer = self._connect()
            try:
                yield writer
            except BaseException:
                _undo(writer)
                raise

    def commit(self, batches: Sequence[Batch]) -> None:
        """Replace every batch's expected head and add what it brings, together or not at all."""
        self._commit(batches, None)

    def commit_log(self, batches: Sequence[Batch], advance: Advance) -> None:
        """Commit the batches and the partition's new position, together or not at all."""
        _check(advance)
        self._commit(batches, advance)

    def _commit(self, batches: Sequence[Batch], advance: Advance | None) -> None:
        with self._transaction() as writer:
            with writer.pipeline():
                writer.execute(_BEGIN)
                held = _lock(writer, advance.before) if advance else None
                moved = _move_heads(writer, batches)
            position = 0
            if advance and held:
                position = _standing_at(advance.before, held.fetchone())
            numbers = _moved(batches, moved)
            _copy_entries(writer, batches, numbers)
            # Only here to be found: what became of a message may be told of a register that has not changed.
            known = {**self._told(advance, numbers), **numbers}
            with writer.pipeline():
                _add_rows(writer, batches, numbers)
                if advance:
                    _advance(writer, position, advance, known)
                    _add_news(writer, batches, advance)
                noted = _keep_notes(
                    writer, [(numbers[batch.register], batch.register, batch.notes) for batch in batches]
                )
                if noted or (advance and advance.quarantined):
                    writer.execute(f"NOTIFY {CHANNEL}")
                done = writer.execute("COMMIT")
            _committed(done)
        self._numbers.update(numbers)

    def _told(self, advance: Advance | None, numbers: Mapping[str, int]) -> dict[str, int]:
        told = (
            {each.register for each in advance.dispositions if each.kind != Kind.QUARANTINED}
            if advance
            else set()
        )
        return {register: self._number(register) for register in told - numbers.keys()}

    def take_over(self, topic: str, partition: int) -> Position:
        """Raise the epoch of a partition, or begin it at epoch 1 and offset 0; return where it stands.

        A writer that stands still in the middle of its commit would hold the partition for as long as it lives:
        its connection is ended, and with it a commit that did not happen.
        """
        for left in reversed(range(_TRIES)):
            try:
                return self._take_over(topic, partition)
            except StoreError as error:
                if not isinstance(error.__cause__, psycopg.errors.LockNotAvailable) or not left:
                    raise
            self._end_holder(topic, partition)
        raise AssertionError("the last try returns or raises")

    def _end_holder(self, topic: str, partition: int) -> None:
        with self._transaction() as writer, writer.transaction():
            # A connection belongs to whoever logged in, and only he may end it, whatever role is set for it.
            writer.execute("SET LOCAL ROLE NONE")
            writer.execute(_END_HOLDER, (topic, partition))

    def _take_over(self, topic: str, partition: int) -> Position:
        with self._transaction() as writer, writer.transaction(), writer.cursor(binary=True) as cursor:
            cursor.execute(_PATIENTLY)
            cursor.execute(_HOLD, (topic, partition))
            ((*held,),) = cursor.execute(_TAKE_OVER, (topic, partition, EMPTY_CHAIN)).fetchall()
            return Position(topic, partition, *held)

    def publish_notes(self, notes: Mapping[str, StoredNote]) -> None:
        """Keep newly signed notes, by register, and let their outbox rows be sent. Durable on return.

        Were they lost after they were sent, and the head had moved, nobody would sign them again.
        """
        if not notes:
            return
        numbers = [self._number(register) for register in notes]
        keys = [register.encode() for register in notes]
        sizes = [note.size for note in notes.values()]
        with self._transaction() as writer:
            with writer.pipeline():
                writer.execute(_BEGIN)
                _keep_notes(
                    writer,
                    [
                        (number, register, [note])
                        for number, (register, note) in zip(numbers, notes.items(), strict=True)
                    ],
                )
                writer.execute(
                    _SEND_NOTES, {"topic": CHECKPOINTS, "registers": numbers, "keys": keys, "sizes": sizes}
                )
                writer.execute(_DROP_UNSIGNED, (keys, sizes, CHECKPOINTS))
                writer.execute(f"NOTIFY {CHANNEL}")
                done = writer.execute("COMMIT")
            _committed(done)

    def keep_cosignatures(self, cosigned: Sequence[NewCosignatures]) -> None:
        """Keep cosignatures, and the note that they are of where its size has none yet.

        The cosigned notes of which anything was new go to the outbox.
        """
        if not cosigned:
            return
        numbers = {new.register: self._number(new.register) for new in cosigned}
        sizes = dict(
            self._rows(
                "SELECT name, size FROM register WHERE number = ANY(%b::integer[])", (list(numbers.values()),)
            )
        )
        for new in cosigned:
            if new.note.size > sizes[new.register]:
                raise StoreError(f"{new.register}: cosignatures of size {new.note.size}, beyond the head")
        lines = _first_and_last(numbers, cosigned)
        news: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        for new in cosigned:
            place = numbers[new.register], new.note.size
            _, note = news.get(place, (b"", new.note.note))
            news[place] = new.register.encode(), note + b"".join(line.line for line in new.lines)
        with self._transaction() as writer:
            with writer.pipeline():
                writer.execute(_BEGIN)
                _keep_notes(writer, [(numbers[new.register], new.register, [new.note]) for new in cosigned])
                writer.execute(
                    _KEEP_COSIGNATURES,
                    (
                        *_columns(sorted((*place, *both) for place, both in lines.items()), 6),
                        CHECKPOINTS,
                        *_columns(
                            [(number, key, size, note) for (number, size), (key, note) in news.items()], 4
                        ),
                    ),
                )
                writer.execute(f"NOTIFY {CHANNEL}")
                done = writer.execute("COMMIT")
            _committed(done)

    def sent(self, ids: Sequence[int]) -> None:
        """Drop outbox rows that the log has acknowledged."""
        with self._transaction() as writer:
            writer.execute("DELETE FROM outbox WHERE id = ANY(%b::bigint[])", (list(ids),))

    def fix_partitions(self, topic: str, count: int) -> None:
        """Fix the number of a topic's partitions for ever. Raises StoreError where another number is there."""
        with self._transaction() as writer:
            writer.execute("INSERT INTO log_topic VALUES (%s, %s) ON CONFLICT DO NOTHING", (topic, count))
        fixed = self.partitions(topic)
        if fixed != count:
            raise StoreError(f"{topic} has {fixed} partitions for ever, not {count}")

    def wait_for_outbox(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for news in the outbox; tell whether there may be some."""
        with self._listening, _translated():
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

    # Damage.

    def damage(self) -> list[str]:
        """Return rows that belong to no register, or lie beyond the end of theirs, and guards that are off."""
        found: list[str] = []
        for table in _OF_REGISTERS:
            # From one register's rows to the next one's, through the index: it need not read them all.
            strays = self._rows(
                f"WITH RECURSIVE there AS (SELECT min(register) AS number FROM {table} UNION ALL "  # noqa: S608
                f"SELECT (SELECT min(register) FROM {table} WHERE register > number) FROM there "
                "WHERE number IS NOT NULL) SELECT number FROM there "
                "WHERE number IS NOT NULL AND number NOT IN (SELECT number FROM register) ORDER BY number"
            )
            found += (
                f"table {table} has rows of register number {number}, which is none" for (number,) in strays
            )
        for table, column, beyond in (
            ("entry", "index", ">="),
            ("note", "size", ">"),
            ("cosignature", "size", ">"),
        ):
            rows = self._rows(
                f"SELECT name FROM register WHERE EXISTS (SELECT FROM {table} AS there "  # noqa: S608
                f"WHERE there.register = number AND there.{column} {beyond} register.size) ORDER BY name"
            )
            found += (f"{name}: table {table} has rows beyond the end of the register" for (name,) in rows)
        ((guards,),) = self._rows(
            "SELECT count(*) FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid "
            "WHERE tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = current_schema()::regnamespace) "
            "AND proname = 'refuse_change' AND tgenabled = 'A'"
        )
        if guards != _GUARDS:
            found.append(f"{_GUARDS - guards} of the triggers that refuse changes are off or missing")
        return found

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


def _asked(pool: ConnectionPool[Any], ask: Callable[[Cursor[Any]], _Rows]) -> _Rows:
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


def _committed(done: Cursor[Any]) -> None:
    """Make sure of what COMMIT has done: in a transaction that had failed it would only have ended it."""
    if done.statusmessage != "COMMIT":
        raise StoreError(f"PostgreSQL: COMMIT ended as {done.statusmessage}")


def _check(advance: Advance) -> None:
    before, after = advance.before, advance.after
    if (before.topic, before.partition, before.epoch) != (after.topic, after.partition, after.epoch):
        raise StoreError("a commit moves one partition in one epoch")
    offsets = [each.offset for each in advance.dispositions]
    if offsets != list(range(before.next_offset, after.next_offset)):
        raise StoreError(
            f"{before.topic}/{before.partition}: the outcomes are not those of the messages "
            f"{before.next_offset} to {after.next_offset - 1}"
        )
    quarantined = [each.offset for each in advance.dispositions if each.kind == Kind.QUARANTINED]
    if quarantined != [each.offset for each in advance.quarantined]:
        raise StoreError(f"{before.topic}/{before.partition}: not each quarantined message is there")


def _lock(writer: Connection[Any], before: Position) -> Cursor[Any]:
    writer.execute(_HOLD, (before.topic, before.partition))
    cursor = writer.cursor(binary=True)
    return cursor.execute(_LOCK_POSITION, (before.topic, before.partition))


def _standing_at(before: Position, row: tuple[Any, ...] | None) -> int:
    """Return the number of a locked position. Raises FencedError or ConflictError unless it is `before`."""
    where = f"{before.topic}/{before.partition}"
    if row is None:
        raise ConflictError(f"{where}: nobody has taken the partition over")
    number, epoch, *stands = row
    if epoch != before.epoch:
        raise FencedError(f"{where}: another writer has taken the partition over, in epoch {epoch}")
    if stands != [before.next_offset, before.last, before.chain]:
        raise ConflictError(f"{where}: the partition stands at {stands[0]}, not where the writer believed")
    return int(number)


def _move_heads(writer: Connection[Any], batches: Sequence[Batch]) -> list[Cursor[Any]]:
    # In the order of their names, so that two that move the same registers do not wait for each other.
    ordered = sorted(batches, key=lambda batch: batch.register)
    moving = [
        (batch.register, batch.expected.size, batch.expected.root, batch.head.size, batch.head.root)
        for batch in ordered
        if batch.expected is not None
    ]
    opening = [
        (batch.register, batch.head.size, batch.head.root) for batch in ordered if batch.expected is None
    ]
    done = []
    if moving:
        done.append(writer.execute(_MOVE_HEADS, _columns(moving, 5)))
    if opening:
        done.append(writer.execute(_OPEN_REGISTERS, _columns(opening, 3)))
    return done


def _moved(batches: Sequence[Batch], done: Sequence[Cursor[Any]]) -> dict[str, int]:
    """Return the numbers of the registers whose heads moved. Raises ConflictError unless all did."""
    numbers: dict[str, int] = dict(row for cursor in done for row in cursor.fetchall())
    for batch in batches:
        if batch.register not in numbers:
            what = "the register is there already" if batch.expected is None else "the head has moved"
            raise ConflictError(f"{batch.register}: {what}")
    return numbers


def _copy_entries(writer: Connection[Any], batches: Sequence[Batch], numbers: Mapping[str, int]) -> None:
    if not any(batch.entries for batch in batches):
        return
    with writer.cursor() as cursor, cursor.copy(_COPY_ENTRIES) as copy:
        copy.set_types(("int4", "int8", "bytea"))
        for batch in batches:
            number = numbers[batch.register]
            first = batch.expected.size if batch.expected else 0
            for index, entry in enumerate(batch.entries, first):
                copy.write_row((number, index, entry))


def _add_rows(writer: Connection[Any], batches: Sequence[Batch], numbers: Mapping[str, int]) -> None:
    tiles: list[tuple[Any, ...]] = []
    submissions: list[tuple[Any, ...]] = []
    records: list[tuple[Any, ...]] = []
    rejections: list[tuple[Any, ...]] = []
    for batch in batches:
        number = numbers[batch.register]
        tiles += ((number, *piece) for piece in _pieces(batch))
        submissions += ((number, key, run.first, run.count) for key, run in batch.submissions.items())
        records += ((number, at.record_id, at.version, at.index) for at in batch.records)
        rejections += ((number, key, index) for key, index in batch.rejections.items())
    for statement, rows, width in (
        (_ADD_TILES, tiles, 5),
        (_ADD_SUBMISSIONS, submissions, 4),
        (_ADD_RECORDS, records, 4),
        (_ADD_REJECTIONS, rejections, 3),
    ):
        if rows:
            writer.execute(statement, _columns(rows, width))


def _pieces(batch: Batch) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield what is new in each tile: level, index, the first hash and the hashes."""
    before = batch.expected.size if batch.expected else 0
    for tile in batch.tiles:
        width = implied_width(tile.level, tile.index, before)
        if new := tile.data[width * HASH_SIZE :]:
            yield tile.level, tile.index, width, new


def _advance(writer: Connection[Any], position: int, advance: Advance, numbers: Mapping[str, int]) -> None:
    if advance.dispositions:
        rows = [
            (
                each.offset,
                int(each.kind),
                None if each.kind == Kind.QUARANTINED else numbers[each.register],
                each.first,
                each.count,
            )
            for each in advance.dispositions
        ]
        writer.execute(_ADD_DISPOSITIONS, (position, *_columns(rows, 5)))
    if advance.quarantined:
        kept = [(each.offset, each.key, each.value, _storable(each.why)) for each in advance.quarantined]
        writer.execute(_ADD_QUARANTINED, (position, *_columns(kept, 4)))
    after = advance.after
    writer.execute(_MOVE_POSITION, (after.next_offset, after.last, after.chain, position))


def _add_news(writer: Connection[Any], batches: Sequence[Batch], advance: Advance) -> None:
    heads = [
        (CHECKPOINTS, batch.register.encode(), batch.head.size, None)
        for batch in batches
        if batch.head != batch.expected
    ]
    copies = [
        (REJECTIONS, each.key[:COPIED_KEY], None, each.value[:COPIED_VALUE]) for each in advance.quarantined
    ]
    if heads or copies:
        writer.execute(_ADD_TO_OUTBOX, _columns([*heads, *copies], 4))


def _keep_notes(writer: Connection[Any], notes: Sequence[tuple[int, str, Sequence[StoredNote]]]) -> bool:
    """Keep the notes that are not there, and let the outbox rows that wait for them be sent."""
    rows = [
        (number, register.encode(), stored.size, stored.note)
        for number, register, of_register in notes
        for stored in of_register
    ]
    if not rows:
        return False
    registers, keys, sizes, texts = _columns(rows, 4)
    writer.execute(_ADD_NOTES, (registers, sizes, texts))
    writer.execute(_FILL_OUTBOX, (registers, keys, sizes, CHECKPOINTS))
    return True


def _first_and_last(
    numbers: Mapping[str, int], cosigned: Sequence[NewCosignatures]
) -> dict[tuple[int, int, str, int], tuple[bytes, bytes]]:
    """Return the first and the last signature of each register, size and witness: a row changes once."""
    found: dict[tuple[int, int, str, int], tuple[bytes, bytes]] = {}
    for new in cosigned:
        for line in new.lines:
            place = numbers[new.register], new.note.size, line.name, line.key_id
            first, last = found.get(place, (line.signature, line.signature))
            found[place] = min(first, line.signature), max(last, line.signature)
    return found


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Turn rows into columns, each to be one array."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _tile(register: str, row: tuple[int, int, bytes, int, int]) -> StoredTile:
    level, index, data, reach, length = row
    if reach != length or length > TILE_WIDTH * HASH_SIZE:
        raise StoreError(f"{register}: a piece of tile {level}/{index} is missing, or there twice")
    return StoredTile(level, index, data)


def _cosigned(row: tuple[int, str, int, bytes, bytes]) -> Cosigned:
    size, name, key_id, first, last = row
    return Cosigned(size, SignatureLine(name, key_id, first), SignatureLine(name, key_id, last))


def _as_text(key: bytes) -> str:
    return key.decode("utf-8", "replace")


def _storable(text: str) -> str:
    """Return text as PostgreSQL can keep it: it has no NUL and no half of a character."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.errors.DiskFull as error:
        raise StorageFullError("no room left on the device that holds the database") from error
    except psycopg.Error as error:
        raise StoreError(f"PostgreSQL: {in_one_line(error)}") from error

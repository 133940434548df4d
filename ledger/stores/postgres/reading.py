"""What is read of a store: by key, from connections that can only read. Any number of them may be under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from psycopg import Cursor
from psycopg.abc import Params

from ledger.errors import StoreError
from ledger.event_log import Disposition, Kind, OutboxRow, Position, QuarantinedMessage
from ledger.hashing import HASH_SIZE, Hash
from ledger.notes import SignatureLine
from ledger.store import Cosigned, Head, LookedUp, RecordAt, Run, StoredNote, StoredTile
from ledger.stores.postgres.connections import Connections, Rows
from ledger.tiles import TILE_WIDTH

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


class Reads:
    """The reads of a store. Raises StoreError."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._numbers: dict[str, int] = {}

    def _read(self, ask: Callable[[Cursor[Any]], Rows]) -> Rows:
        return self._connections.read(ask)

    def _rows(self, statement: str, values: Params = ()) -> Rows:
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

        def ask(cursor: Cursor[Any]) -> Rows:
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

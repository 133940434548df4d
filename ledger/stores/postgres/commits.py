"""What is written, statement by statement, inside a transaction that the store has begun.

Rows are sent as arrays, one statement for all rows of a table, so that a pipeline holds a commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, Final

from psycopg import Connection, Cursor
from psycopg.errors import UniqueViolation

from ledger.errors import ConflictError, FencedError, StoreError, TakenError
from ledger.event_log import CHECKPOINTS, REJECTIONS, Advance, Kind, Position
from ledger.hashing import HASH_SIZE
from ledger.store import Batch, NewCosignatures, StoredNote
from ledger.tiles import implied_width

COPIED_KEY: Final = 1024
"""Bytes of a quarantined message's key that go to the outbox: its index holds none that are much longer."""

COPIED_VALUE: Final = 2 * 1024 * 1024
"""Bytes of its value that do: it may have been compressed to less than it can be sent as. The rest is kept."""

HOLD: Final = "SELECT pg_advisory_xact_lock(hashtext(%s), %s)"
"""What every commit to a partition begins with: whose it is can be looked up, as of a locked row it cannot."""
_LOCK_POSITION: Final = """
SELECT number, epoch, next_offset, last, chain FROM log_position WHERE topic = %s AND partition = %s FOR UPDATE
"""
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
_ADD_ENTRIES: Final = """
INSERT INTO entry (register, index, entry)
SELECT * FROM unnest(%b::integer[], %b::bigint[], %b::bytea[])
"""
_COPY_RECORDS: Final = "COPY record (register, record_id, version, entry) FROM STDIN (FORMAT BINARY)"
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


def committed(done: Cursor[Any]) -> None:
    """Make sure of what COMMIT has done: in a transaction that had failed it would only have ended it."""
    if done.statusmessage != "COMMIT":
        raise StoreError(f"PostgreSQL: COMMIT ended as {done.statusmessage}")


@contextmanager
def taken() -> Iterator[None]:
    """Raise TakenError in place of what PostgreSQL raises for a submission or a version that is there."""
    try:
        yield
    except UniqueViolation as error:
        if error.diag.table_name not in ("submission", "record"):
            raise
        raise TakenError(f"PostgreSQL: {error.diag.message_primary} {error.diag.message_detail}") from error


def check(advance: Advance) -> None:
    """Check that what a partition's advance says agrees with itself. Raises StoreError."""
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


def lock(writer: Connection[Any], before: Position) -> Cursor[Any]:
    """Hold a partition until the transaction ends; the row tells where it stands."""
    writer.execute(HOLD, (before.topic, before.partition))
    cursor = writer.cursor(binary=True)
    return cursor.execute(_LOCK_POSITION, (before.topic, before.partition))


def standing_at(before: Position, row: tuple[Any, ...] | None) -> int:
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


def move_heads(writer: Connection[Any], batches: Sequence[Batch]) -> list[Cursor[Any]]:
    """Move the heads from what each batch expects; the rows name those that did."""
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


def moved(batches: Sequence[Batch], done: Sequence[Cursor[Any]]) -> dict[str, int]:
    """Return the numbers of the registers whose heads moved. Raises ConflictError unless all did."""
    numbers: dict[str, int] = dict(row for cursor in done for row in cursor.fetchall())
    for batch in batches:
        if batch.register not in numbers:
            what = "the register is there already" if batch.expected is None else "the head has moved"
            raise ConflictError(f"{batch.register}: {what}")
    return numbers


def copy_entries(writer: Connection[Any], batches: Sequence[Batch], numbers: Mapping[str, int]) -> None:
    """Add the entries and records of all batches outside a pipeline; `numbers` are of their registers."""
    with writer.cursor() as cursor, cursor.copy(_COPY_ENTRIES) as copy:
        copy.set_types(("int4", "int8", "bytea"))
        for row in _entries(batches, numbers):
            copy.write_row(row)
    with writer.cursor() as cursor, cursor.copy(_COPY_RECORDS) as copy:
        copy.set_types(("int4", "bytea", "int8", "int8"))
        for record in _records(batches, numbers):
            copy.write_row(record)


def add_entries(writer: Connection[Any], batches: Sequence[Batch], numbers: Mapping[str, int]) -> None:
    """Add the entries and records of all batches, few of them, in a pipeline."""
    for statement, rows, width in (
        (_ADD_ENTRIES, list(_entries(batches, numbers)), 3),
        (_ADD_RECORDS, list(_records(batches, numbers)), 4),
    ):
        if rows:
            writer.execute(statement, _columns(rows, width))


def _entries(batches: Sequence[Batch], numbers: Mapping[str, int]) -> Iterator[tuple[int, int, bytes]]:
    for batch in batches:
        number = numbers[batch.register]
        first = batch.expected.size if batch.expected else 0
        for index, entry in enumerate(batch.entries, first):
            yield number, index, entry


def _records(batches: Sequence[Batch], numbers: Mapping[str, int]) -> Iterator[tuple[int, bytes, int, int]]:
    for batch in batches:
        number = numbers[batch.register]
        # Neighbours in the index are written one after the other.
        for at in sorted(batch.records, key=attrgetter("record_id")):
            yield number, at.record_id, at.version, at.index


def add_rows(writer: Connection[Any], batches: Sequence[Batch], numbers: Mapping[str, int]) -> None:
    """Add tiles, submissions and rejections of all batches."""
    tiles: list[tuple[Any, ...]] = []
    submissions: list[tuple[Any, ...]] = []
    rejections: list[tuple[Any, ...]] = []
    for batch in batches:
        number = numbers[batch.register]
        tiles += ((number, *piece) for piece in _pieces(batch))
        submissions += ((number, key, run.first, run.count) for key, run in batch.submissions.items())
        rejections += ((number, key, index) for key, index in batch.rejections.items())
    for statement, rows, width in (
        (_ADD_TILES, tiles, 5),
        (_ADD_SUBMISSIONS, submissions, 4),
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


def advance_position(
    writer: Connection[Any], position: int, advance: Advance, numbers: Mapping[str, int]
) -> None:
    """Move the partition with the number `position`, and keep what became of its messages."""
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


def add_news(writer: Connection[Any], batches: Sequence[Batch], advance: Advance) -> None:
    """Add to the outbox the new heads, to be sent once they are signed, and copies of what was quarantined."""
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


def keep_notes(writer: Connection[Any], notes: Sequence[tuple[int, str, Sequence[StoredNote]]]) -> bool:
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


def send_notes(writer: Connection[Any], numbers: Sequence[int], notes: Mapping[str, StoredNote]) -> None:
    """Keep signed notes, by register in the order of `numbers`, and let them be sent in place of older ones."""
    keys = [register.encode() for register in notes]
    sizes = [note.size for note in notes.values()]
    keep_notes(
        writer,
        [(number, register, [note]) for number, (register, note) in zip(numbers, notes.items(), strict=True)],
    )
    writer.execute(
        _SEND_NOTES, {"topic": CHECKPOINTS, "registers": list(numbers), "keys": keys, "sizes": sizes}
    )
    writer.execute(_DROP_UNSIGNED, (keys, sizes, CHECKPOINTS))


def add_cosignatures(
    writer: Connection[Any], numbers: Mapping[str, int], cosigned: Sequence[NewCosignatures]
) -> None:
    """Keep the first and last cosignature of each witness; let be sent the notes of which one is new."""
    lines = _first_and_last(numbers, cosigned)
    news: dict[tuple[int, int], tuple[bytes, bytes]] = {}
    for new in cosigned:
        place = numbers[new.register], new.note.size
        _, note = news.get(place, (b"", new.note.note))
        news[place] = new.register.encode(), note + b"".join(line.line for line in new.lines)
    keep_notes(writer, [(numbers[new.register], new.register, [new.note]) for new in cosigned])
    writer.execute(
        _KEEP_COSIGNATURES,
        (
            *_columns(sorted((*place, *both) for place, both in lines.items()), 6),
            CHECKPOINTS,
            *_columns([(number, key, size, note) for (number, size), (key, note) in news.items()], 4),
        ),
    )


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


def _storable(text: str) -> str:
    """Return text as PostgreSQL can keep it: it has no NUL and no half of a character."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()

"""Steps of a log in PostgreSQL, and all that a database then holds."""

from __future__ import annotations

from dataclasses import replace

import psycopg
from psycopg import sql

from ledger.event_log import SUBMISSIONS, Advance, Disposition, Kind, Position, QuarantinedMessage, message_hash
from ledger.notes import SignatureLine
from ledger.store import NewCosignatures
from ledger.stores.postgres import PostgresStore
from tests.support.batches import batch, name_of, note_of

REGISTER = "department/office"
OTHER = "department/other-office"


def step(before: Position, register: str, count: int, first: int) -> Advance:
    """Return the advance over `count` messages of one entry each, appended from index `first` on."""
    offsets = range(before.next_offset, before.next_offset + count)
    return Advance(
        before,
        before.after([message_hash(register, b"%d" % offset) for offset in offsets]),
        [
            Disposition(offset, Kind.APPENDED, register, first + place, 1)
            for place, offset in enumerate(offsets)
        ],
        [],
    )


def quarantining(before: Position, *keys: bytes) -> Advance:
    """Return the advance over messages that are all quarantined."""
    offsets = range(before.next_offset, before.next_offset + len(keys))
    texts = [key.decode("utf-8", "replace") for key in keys]
    return Advance(
        before,
        before.after([message_hash(text, b"poison") for text in texts]),
        [
            Disposition(offset, Kind.QUARANTINED, text, 0, 0)
            for offset, text in zip(offsets, texts, strict=True)
        ],
        [
            QuarantinedMessage(offset, text, key, b"poison %d" % offset, f"it is message {offset}")
            for offset, text, key in zip(offsets, texts, keys, strict=True)
        ],
    )


def line_of(witness: str, time: int) -> SignatureLine:
    """Return a cosignature line; a store does not look into it."""
    return SignatureLine(witness, len(witness), time.to_bytes(8, "big") + bytes(64))


def fill(store: PostgresStore) -> None:
    """Write something into every table."""
    start = store.take_over(SUBMISSIONS, 0)
    first = step(start, REGISTER, 3, 0)
    store.commit_log([replace(batch(REGISTER, None, 3), rejections={name_of(9): 1})], first)
    store.commit_log([], quarantining(first.after, b"key"))
    store.publish_notes({REGISTER: note_of(3)})
    store.keep_cosignatures([NewCosignatures(REGISTER, note_of(3), [line_of("one", 1)])])
    store.fix_partitions(SUBMISSIONS, 12)


def contents(database: str) -> dict[str, list[object]]:
    """Return every row of every table."""
    with psycopg.connect(database) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        return {
            name: sorted(
                connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(name))).fetchall(),
                key=repr,
            )
            for (name,) in tables
        }

"""What somebody with write access to the SQLite file can do to it, past the ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ledger.hashing import HASH_SIZE, leaf_hash
from ledger.stores.sqlite import STRETCH
from ledger.tiles import TILE_HEIGHT, TILE_WIDTH, decode_entries, encode_bundle, implied
from ledger.tree import EMPTY, extend

_SHIFT = 40
_LEVEL_SHIFT = 33


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a store's file as a database administrator would, and commit what was done to it."""
    connection = sqlite3.connect(path)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def tables(path: Path) -> dict[str, list[str]]:
    """Return every table with the names of its columns, as the file itself lists them."""
    with opened(path) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {table: [name for name, _ in _columns(connection, table)] for table in names}


def rows(connection: sqlite3.Connection, table: str) -> list[tuple[object, ...]]:
    """Return every row of a table."""
    return connection.execute(f"SELECT * FROM {table}").fetchall()


def replace_row(
    connection: sqlite3.Connection, table: str, before: Sequence[object], after: Sequence[object]
) -> None:
    """Write one row over another, whatever stands in the way. Bytes will do for text, valid UTF-8 or not."""
    delete_row(connection, table, before)
    insert_row(connection, table, after)


def delete_row(connection: sqlite3.Connection, table: str, row: Sequence[object]) -> None:
    """Delete one row."""
    here = " AND ".join(f"{name} = ?" for name, _ in _columns(connection, table))
    assert connection.execute(f"DELETE FROM {table} WHERE {here}", row).rowcount == 1


def insert_row(connection: sqlite3.Connection, table: str, row: Sequence[object]) -> None:
    """Add one row, instead of those that stand in its way."""
    places = ", ".join("CAST(? AS TEXT)" if kind == "TEXT" else "?" for _, kind in _columns(connection, table))
    connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({places})", row)


def _columns(connection: sqlite3.Connection, table: str) -> list[tuple[str, str]]:
    return [(name, kind) for _, name, kind, *_ in connection.execute(f"PRAGMA table_info({table})")]


def rewrite_register(connection: sqlite3.Connection, register: str, entries: Sequence[bytes]) -> None:
    """Put other entries into a register and derive tiles, size and root again: all but what needs a key."""
    ((number,),) = connection.execute("SELECT number FROM register WHERE name = ?", (register,))
    base = number << _SHIFT
    for table in ("stretch", "tile"):
        connection.execute(f"DELETE FROM {table} WHERE id >> {_SHIFT} = ?", (number,))
    connection.executemany(
        "INSERT INTO stretch VALUES (?, ?)",
        (
            (base + start, encode_bundle(entries[start : start + STRETCH]))
            for start in range(0, len(entries), STRETCH)
        ),
    )
    grown = extend(EMPTY, [leaf_hash(entry) for entry in entries])
    for tile in implied(len(entries)):
        _, hashes = grown.levels[TILE_HEIGHT * tile.level]
        start = tile.index * TILE_WIDTH
        data = b"".join(hashes[start : start + tile.width])
        connection.execute(
            "INSERT INTO tile VALUES (?, ?)", (base + (tile.level << _LEVEL_SHIFT) + tile.index, data)
        )
    connection.execute(
        "UPDATE register SET size = ?, root = ? WHERE number = ?", (len(entries), grown.after.root(), number)
    )


def flip_in_entry(connection: sqlite3.Connection, register: str, index: int) -> None:
    """Flip the lowest bit of the last byte of one entry, where it is kept."""
    start = index // STRETCH * STRETCH
    key = _number(connection, register, start)
    ((bundle,),) = connection.execute("SELECT entries FROM stretch WHERE id = ?", (key,))
    entries = list(decode_entries(bundle))
    changed = entries[index - start]
    entries[index - start] = changed[:-1] + bytes([changed[-1] ^ 1])
    connection.execute("UPDATE stretch SET entries = ? WHERE id = ?", (encode_bundle(entries), key))


def flip_in_tile(connection: sqlite3.Connection, register: str, level: int, index: int, at: int) -> None:
    """Flip the lowest bit of the first byte of one hash, number `at` in a tile."""
    key = _number(connection, register, (level << _LEVEL_SHIFT) + index)
    ((hashes,),) = connection.execute("SELECT hashes FROM tile WHERE id = ?", (key,))
    changed = bytearray(hashes)
    changed[at * HASH_SIZE] ^= 1
    connection.execute("UPDATE tile SET hashes = ? WHERE id = ?", (bytes(changed), key))


def _number(connection: sqlite3.Connection, register: str, place: int) -> int:
    """Return the key of a row of a register."""
    ((number,),) = connection.execute("SELECT number FROM register WHERE name = ?", (register,))
    key: int = (number << _SHIFT) + place
    return key

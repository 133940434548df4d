"""Batches for stores: consistent ones, of made-up entries, to be committed one after another."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from ledger.hashing import leaf_hash
from ledger.store import Batch, Head, RecordAt, Run, StoredNote, StoredTile
from ledger.tiles import TILE_HEIGHT, TILE_WIDTH, implied_width
from ledger.tree import EMPTY, extend


def entry(index: int) -> bytes:
    """Return an entry of some length: entries differ in both."""
    return b"entry %d " % index + b"x" * (index % 97)


def name_of(index: int) -> bytes:
    """Return 32 bytes that are the submission_id of the entry; the first 16 are its record_id."""
    return sha256(b"%d" % index).digest()


def note_of(size: int) -> StoredNote:
    """Return a note; a store does not look into it."""
    return StoredNote(size, b"origin\n%d\nroot\n\n" % size)


def head_at(size: int) -> Head:
    """Return the head after `size` entries."""
    return Head(size, extend(EMPTY, [leaf_hash(entry(index)) for index in range(size)]).after.root())


def batch(register: str, before: int | None, after: int, notes: Sequence[StoredNote] = ()) -> Batch:
    """Return what brings a register from `before` entries, None where it is new, to `after`.

    Every entry is a submission of its own.
    """
    first = before or 0
    added = range(first, after)
    leaves = [leaf_hash(entry(index)) for index in range(after)]
    levels = extend(EMPTY, leaves).levels[::TILE_HEIGHT]
    tiles = []
    for level, (_, hashes) in enumerate(levels):
        for index in range((first >> TILE_HEIGHT * level) // TILE_WIDTH, -(-len(hashes) // TILE_WIDTH)):
            width = implied_width(level, index, after)
            start = index * TILE_WIDTH
            tiles.append(StoredTile(level, index, b"".join(hashes[start : start + width])))
    return Batch(
        register,
        None if before is None else head_at(before),
        head_at(after),
        [entry(index) for index in added],
        tiles,
        {name_of(index): Run(index, 1) for index in added},
        [RecordAt(name_of(index)[:16], 1, index) for index in added],
        notes,
    )

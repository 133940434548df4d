"""Tiles and entry bundles: coordinates, paths, bytes (C2SP tlog-tiles; specs/tiles.md).

Tile (L, N) holds the hashes of the tree nodes at level 8 * L, indices 256 * N to 256 * N + 255; bundle N
holds the entries of the same indices. One that is not yet full has a width, and a path of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from ledger.errors import MalformedError
from ledger.hashing import HASH_SIZE, Hash, split_hashes
from ledger.tree import MAX_SIZE, Node, tree_root

TILE_HEIGHT: Final = 8
"""Tree levels in a tile."""

TILE_WIDTH: Final = 256
"""Hashes in a full tile, entries in a full bundle."""

MAX_TILE_LEVEL: Final = 63
"""The highest tile level of which a path can speak; trees of at most 2^63 leaves never pass 7."""

MAX_ENTRY_SIZE: Final = 65_535
"""Bytes of the largest entry: a bundle gives its length in two."""

MAX_BUNDLE_SIZE: Final = TILE_WIDTH * (2 + MAX_ENTRY_SIZE)
"""Bytes of the largest bundle: what a reader must be ready to take, and no more."""

_PATH: Final = re.compile(
    r"tile/(?:(?P<level>[0-9]{1,2})|entries)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[0-9]{1,3}))?"
)


@dataclass(frozen=True, slots=True)
class Tile:
    """Hash tile `index` of tile level `level`, `width` hashes wide.

    Raises MalformedError unless 0 <= level <= 63, 0 <= index < 2^63 and 1 <= width <= 256.
    """

    level: int
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        if not 0 <= self.level <= MAX_TILE_LEVEL:
            raise MalformedError(f"tile: no level {self.level}")
        _check_place(self.index, self.width)

    def path(self) -> str:
        """Return the path under the log's prefix, such as ``tile/0/x001/000.p/5`` (tiles.md, section 2)."""
        return f"tile/{self.level}/{_place(self.index, self.width)}"


@dataclass(frozen=True, slots=True)
class Bundle:
    """Entry bundle `index`, of `width` entries.

    Raises MalformedError unless 0 <= index < 2^63 and 1 <= width <= 256.
    """

    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        _check_place(self.index, self.width)

    def path(self) -> str:
        """Return the path under the log's prefix, such as ``tile/entries/x001/000.p/5``."""
        return f"tile/entries/{_place(self.index, self.width)}"


def parse_path(path: str) -> Tile | Bundle:
    """Return the tile or bundle that a path names. One place, one spelling: MalformedError for any other."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise MalformedError("tile: not the path of a tile or an entry bundle")
    index = int(match["index"].replace("x", "").replace("/", ""))
    width = int(match["width"] or TILE_WIDTH)
    tile = Bundle(index, width) if match["level"] is None else Tile(int(match["level"]), index, width)
    # Leading zeros, `.p/0`, `.p/256` and the like spell the same numbers in another way.
    if tile.path() != path:
        raise MalformedError("tile: the path is not in its one spelling")
    return tile


def implied_width(level: int, index: int, size: int) -> int:
    """Return how wide tile (level, index) is in a tree of `size` leaves: 0 to 256, 0 when it has none.

    A bundle is as wide as the tile of level 0 with its index.
    """
    return max(0, min(TILE_WIDTH, (size >> TILE_HEIGHT * level) - index * TILE_WIDTH))


def implied(size: int) -> Iterator[Tile]:
    """Yield every tile that a tree of `size` leaves implies, level by level (tiles.md, section 3)."""
    level = 0
    while count := size >> TILE_HEIGHT * level:
        for index in range(count // TILE_WIDTH):
            yield Tile(level, index)
        if count % TILE_WIDTH:
            yield Tile(level, count // TILE_WIDTH, count % TILE_WIDTH)
        level += 1


class Place(NamedTuple):
    """Where a perfect node lives: it is the root of `width` hashes from `first` on of one tile."""

    tile_level: int
    tile_index: int
    first: int
    width: int


def tile_of(node: Node) -> Place:
    """Return where a perfect node lives: each has one place (tiles.md, section 3)."""
    level, index = node
    inside = level % TILE_HEIGHT
    first = index << inside
    return Place(level // TILE_HEIGHT, first // TILE_WIDTH, first % TILE_WIDTH, 1 << inside)


def node_in(tile: bytes, first: int, count: int) -> Hash:
    """Return the root of `count` hashes, a power of two, of a tile's bytes from hash `first` on.

    Raises MalformedError when the tile does not hold them.
    """
    hashes = split_hashes(tile[first * HASH_SIZE : (first + count) * HASH_SIZE])
    if len(hashes) != count:
        raise MalformedError(f"tile: hashes {first} to {first + count - 1} are not in {len(tile)} bytes")
    return tree_root(hashes)


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Return a bundle: each entry after its length, two bytes big-endian (tiles.md, section 4).

    Raises MalformedError for an entry of more than 65,535 bytes.
    """
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > MAX_ENTRY_SIZE:
            raise MalformedError(f"bundle: an entry of {len(entry)} bytes; at most {MAX_ENTRY_SIZE}")
        parts += (len(entry).to_bytes(2, "big"), entry)
    return b"".join(parts)


def decode_entries(data: bytes) -> list[bytes]:
    """Return the entries of a bundle, however many. Raises MalformedError at a length that does not fit."""
    entries: list[bytes] = []
    position, end = 0, len(data)
    while position < end:
        start = position + 2
        # One byte alone makes a length too, but then `start` is past the end, and so is what follows.
        stop = start + int.from_bytes(data[position:start], "big")
        if stop > end:
            raise MalformedError(f"bundle: entry {len(entries)} does not fit in the bundle", position)
        entries.append(data[start:stop])
        position = stop
    return entries


def decode_one(data: bytes, position: int) -> bytes | None:
    """Return one entry of a bundle, by its position from 0; None where the bundle has fewer.

    Only lengths are read on the way to it. Raises MalformedError at a length that does not fit.
    """
    start, end = 0, len(data)
    for _ in range(position):
        start += 2 + (data[start] << 8 | data[start + 1]) if start + 1 < end else 2
    if start >= end:
        return None
    stop = start + 2 + int.from_bytes(data[start : start + 2], "big")
    if stop > end or start + 2 > end:
        raise MalformedError(f"bundle: entry {position} does not fit in the bundle", start)
    return data[start + 2 : stop]


def decode_bundle(data: bytes, width: int) -> list[bytes]:
    """Return the `width` entries of a bundle. Raises MalformedError for fewer, more, or a bad length."""
    entries = decode_entries(data)
    if len(entries) != width:
        raise MalformedError(f"bundle: {len(entries)} entries, not {width}")
    return entries


def _check_place(index: int, width: int) -> None:
    if not 0 <= index <= MAX_SIZE:
        raise MalformedError(f"tile: no index {index}")
    if not 1 <= width <= TILE_WIDTH:
        raise MalformedError(f"tile: no width {width}")


def _place(index: int, width: int) -> str:
    """Return ``<N>`` or ``<N>.p/<W>``: N in groups of three digits, all but the last after an ``x``."""
    groups = f"{index:,}".split(",")
    groups[0] = groups[0].zfill(3)
    path = "".join(f"x{group}/" for group in groups[:-1]) + groups[-1]
    return path if width == TILE_WIDTH else f"{path}.p/{width}"

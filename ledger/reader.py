"""Reading a register: entries, tiles and proofs at a stated size, from any store.

Every proof is planned first; then its nodes are read in one call, from tiles; then it is computed. The cost
is O(log n) for one entry, whatever the size (promise P10).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final

from ledger.errors import Reason, RejectedError, StoreError
from ledger.hashing import HASH_SIZE, Hash, node_hash, node_hashes, split_hashes
from ledger.proofs import Plan, compute, nodes_of, plan_consistency, plan_inclusion, plan_range
from ledger.store import Store, StoredTile
from ledger.tiles import TILE_HEIGHT, TILE_WIDTH, Bundle, Tile, encode_bundle, implied_width, tile_of
from ledger.tree import Node, compact_range, root_of

CACHED_TILES: Final = 4_096
"""How many tiles a reader keeps, of at most 12,224 bytes each: those of a million entries fit."""

READ_AHEAD: Final = 32
"""Entries that a stream reads from the store at once."""

ROOTS_TOGETHER: Final = 256
"""Sizes whose tiles are read from the store at once."""


@dataclass(frozen=True, slots=True)
class _Leafy:
    """A tile's hashes, and the rows of nodes above them, each half as long, but for the first of these.

    That first row would be as long as all the others; without it a node costs one hash at the most.
    """

    hashes: bytes
    rows: tuple[bytes, ...]

    def node(self, first: int, count: int) -> Hash:
        """Return the root of `count` hashes, a power of two, from hash `first` on."""
        level = count.bit_length() - 1
        if level > 1:
            first >>= level
            found = self.rows[level - 2][first * HASH_SIZE : (first + 1) * HASH_SIZE]
        elif level:
            return node_hash(self.node(first, 1), self.node(first + 1, 1))
        else:
            found = self.hashes[first * HASH_SIZE : (first + 1) * HASH_SIZE]
        return Hash(found)


_NO_LEAFY: Final = _Leafy(b"", (b"",) * (TILE_HEIGHT - 2))


def _leafy(hashes: bytes, narrower: _Leafy) -> _Leafy:
    """Return a tile to take nodes from; those of `narrower`, the same but smaller, are not hashed again."""
    first, *others = narrower.rows
    rows = [first + b"".join(node_hashes(_parents(hashes[len(first) << 2 :])))]
    for row in others:
        rows.append(row + b"".join(_parents(rows[-1][len(row) << 1 :])))
    return _Leafy(hashes, tuple(rows))


def _parents(row: bytes) -> list[Hash]:
    return node_hashes(list(split_hashes(row)))


class TileCache:
    """The tiles that were read last, over all registers. Safe to share between threads."""

    def __init__(self, capacity: int = CACHED_TILES) -> None:
        self._capacity = capacity
        self._tiles: OrderedDict[tuple[str, int, int], _Leafy] = OrderedDict()
        self._lock = Lock()

    def take(self, store: Store, register: str, size: int, wanted: Iterable[tuple[int, int]]) -> list[_Leafy]:
        """Return the tiles (level, index) that a tree of `size` leaves implies, in order, or wider ones.

        Raises StoreError where one is not there, too short, or does not begin as it did before.
        """
        keys = [(register, level, index) for level, index in wanted]
        widths = {key: implied_width(key[1], key[2], size) * HASH_SIZE for key in keys}
        with self._lock:
            found = {key: tile for key in widths if (tile := self._tiles.get(key)) is not None}
            for key in found:
                self._tiles.move_to_end(key)
        missing = [key for key in widths if key not in found or len(found[key].hashes) < widths[key]]
        if missing:
            data = store.tiles(register, [(level, index) for _, level, index in missing])
            for key, hashes in zip(missing, data, strict=True):
                _, level, index = key
                before = found.get(key, _NO_LEAFY)
                if len(hashes) < widths[key]:
                    raise StoreError(f"{register}: tile {level}/{index} lacks hashes that size {size} implies")
                if not hashes.startswith(before.hashes):
                    raise StoreError(f"{register}: tile {level}/{index} is not as it was read before")
                found[key] = _leafy(hashes[: widths[key]], before)
            self._keep({key: found[key] for key in missing})
        return [found[key] for key in keys]

    def put(self, register: str, tiles: Iterable[StoredTile]) -> None:
        """Take in tiles as a commit has left them, of each level the first and the last.

        Those are what proves that the commit extends what was before it.
        """
        edges: dict[tuple[int, bool], StoredTile] = {}
        for tile in tiles:
            edges.setdefault((tile.level, False), tile)
            edges[tile.level, True] = tile
        data = {(register, tile.level, tile.index): tile.data for tile in edges.values()}
        with self._lock:
            before = {key: self._tiles.get(key, _NO_LEAFY) for key in data}
        self._keep({key: _leafy(hashes, before[key]) for key, hashes in data.items()})

    def _keep(self, tiles: Mapping[tuple[str, int, int], _Leafy]) -> None:
        with self._lock:
            self._tiles.update(tiles)
            while len(self._tiles) > self._capacity:
                self._tiles.popitem(last=False)


class RegisterReader:
    """What one register holds. Every size asked for must be committed; the caller shows published ones only."""

    def __init__(self, store: Store, register: str, cache: TileCache) -> None:
        self._store = store
        self._cache = cache
        self.register = register

    def entry(self, index: int) -> bytes:
        """Return one entry. Raises StoreError if the store does not have it."""
        found = self._store.entries(self.register, index, index + 1)
        if len(found) != 1:
            raise StoreError(f"{self.register}: entry {index} is missing")
        return found[0]

    def entries(self, begin: int, end: int) -> Iterator[bytes]:
        """Yield the entries [begin, end), reading a few at a time."""
        for start in range(begin, end, READ_AHEAD):
            stop = min(start + READ_AHEAD, end)
            found = self._store.entries(self.register, start, stop)
            if len(found) != stop - start:
                raise StoreError(f"{self.register}: entries {start} to {stop - 1} are not all there")
            yield from found

    def inclusion(self, index: int, size: int) -> tuple[Hash, ...]:
        """Return the inclusion proof of entry `index` at `size` (RFC 6962, section 2.1.1)."""
        return self._compute(plan_inclusion(index, size), size)

    def consistency(self, first: int, second: int) -> tuple[Hash, ...]:
        """Return the consistency proof between two sizes (RFC 6962, section 2.1.2)."""
        return self._compute(plan_consistency(first, second), second)

    def range_proof(self, begin: int, end: int, size: int) -> tuple[Hash, ...]:
        """Return the range proof of [begin, end) at `size` (formats.md, section 14)."""
        return self._compute(plan_range(begin, end, size), size)

    def root(self, size: int) -> Hash:
        """Return the root at `size`, computed from tiles."""
        return self.roots([size])[size]

    def roots(self, sizes: Collection[int]) -> dict[int, Hash]:
        """Return the root at each of these sizes, computed from tiles of which many are read at once."""
        found: dict[int, Hash] = {}
        ordered = sorted(sizes)
        for start in range(0, len(ordered), ROOTS_TOGETHER):
            some = ordered[start : start + ROOTS_TOGETHER]
            peaks = {size: compact_range(0, size) for size in some}
            # A perfect node of a tree is one of every larger tree.
            hashes = self.nodes([node for nodes in peaks.values() for node in nodes], some[-1])
            found |= {size: root_of([hashes[node] for node in nodes]) for size, nodes in peaks.items()}
        return found

    def nodes(self, nodes: Sequence[Node], size: int) -> dict[Node, Hash]:
        """Return perfect nodes of the tree of `size` leaves."""
        places = [tile_of(node) for node in nodes]
        wanted = dict.fromkeys([(level, index) for level, index, _, _ in places])
        tiles = dict(zip(wanted, self._cache.take(self._store, self.register, size, wanted), strict=True))
        return {
            node: tiles[level, index].node(first, width)
            for node, (level, index, first, width) in zip(nodes, places, strict=True)
        }

    def _compute(self, plan: Plan, size: int) -> tuple[Hash, ...]:
        return compute(plan, self.nodes(nodes_of(plan), size))

    def tile(self, tile: Tile) -> bytes:
        """Return the bytes of a tile of exactly this width. Raises StoreError if it is not there."""
        (data,) = self._store.tiles(self.register, [(tile.level, tile.index)])
        if len(data) < tile.width * HASH_SIZE:
            raise StoreError(f"{self.register}: {tile.path()} is missing")
        return data[: tile.width * HASH_SIZE]

    def bundle(self, bundle: Bundle) -> bytes:
        """Return the bytes of an entry bundle of exactly this width."""
        begin = bundle.index * TILE_WIDTH
        return encode_bundle(self.entries(begin, begin + bundle.width))


def check_size(size: int, latest: int) -> int:
    """Return the size to answer for: `latest` when 0 was asked. Raises SIZE_NOT_REACHED beyond it."""
    if size > latest:
        raise RejectedError(
            Reason.SIZE_NOT_REACHED,
            f"size {size} is not reached; the latest is {latest}",
            detail={"latest_size": str(latest)},
        )
    return size or latest

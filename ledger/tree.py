"""The Merkle tree: its shape, its roots, and how it grows (RFC 6962, section 2.1; specs/merkle.md).

A node (level, index) covers the leaves [index * 2^level, (index + 1) * 2^level). Perfect nodes, those
whose leaves all exist, never change. The few largest ones that cover a tree from the left are its
frontier: all that is needed to append.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NewType

from ledger.errors import MalformedError
from ledger.hashing import EMPTY_ROOT, Hash, node_hash, node_hashes

Index = NewType("Index", int)
"""The place of a leaf in a tree, from 0."""

TreeSize = NewType("TreeSize", int)
"""A number of leaves."""

MAX_SIZE: Final = 2**63 - 1
"""The most leaves that a tree may have: sizes fit a signed 64-bit integer."""

Node = tuple[int, int]
"""(level, index): level 0 is the leaves, index counts from 0 at the left."""


def compact_range(begin: int, end: int) -> tuple[Node, ...]:
    """Return the fewest perfect nodes that cover the leaves [begin, end), left to right.

    At most 126 of them; for [0, n) one for every set bit of n, largest first (merkle.md, section 4).
    Raises ValueError unless 0 <= begin <= end.
    """
    if not 0 <= begin <= end:
        raise ValueError(f"no range of leaves: [{begin}, {end})")
    nodes = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        if begin:
            level = min(level, (begin & -begin).bit_length() - 1)
        nodes.append((level, begin >> level))
        begin += 1 << level
    return tuple(nodes)


def path_length(index: int, size: int) -> int:
    """Return how many hashes the inclusion path of leaf `index` has in a tree of `size` leaves.

    At most 63, and fixed by the two numbers (merkle.md, section 5.1). Raises ValueError unless
    0 <= index < size.
    """
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    inner = (index ^ (size - 1)).bit_length()
    return inner + (index >> inner).bit_count()


def root_of(hashes: Sequence[Hash]) -> Hash:
    """Fold `hashes`, those of a compact range from its left end, into the root above them.

    From the right: the smallest subtree joins its left neighbour first. No hashes: the empty root.
    """
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in hashes[-2::-1]:
        root = node_hash(left, root)
    return root


def tree_root(leaves: Sequence[Hash]) -> Hash:
    """Return the root of the tree over `leaves` (RFC 6962, section 2.1): MTH, one level at a time."""
    return Hash(_rows(leaves)[-1][0]) if leaves else EMPTY_ROOT


def paths(leaves: Sequence[Hash]) -> tuple[Hash, list[bytes]]:
    """Return the root over `leaves`, and the inclusion path of every leaf in order.

    A path is its hashes concatenated, sibling first (RFC 6962, section 2.1.1). Holds all of them at
    once, n * log2(n) * 32 bytes: meant for submissions, not for registers.
    """
    if not leaves:
        return EMPTY_ROOT, []
    rows = _rows(leaves)
    below = [b""]
    for row in rows[-2::-1]:
        below = _child_paths(row, below)
    return rows[-1][0], below


def _rows(leaves: Sequence[Hash]) -> list[list[Hash]]:
    """Return every level of the tree, leaves first, root last.

    Pairing left to right and promoting an unpaired last node gives the shape of RFC 6962 (merkle.md,
    section 2).
    """
    row = list(leaves)
    rows = [row]
    while len(row) > 1:
        parents = node_hashes(row)
        if len(row) & 1:
            parents.append(row[-1])
        rows.append(parents)
        row = parents
    return rows


def _child_paths(row: Sequence[Hash], parents: Sequence[bytes]) -> list[bytes]:
    """Return the path of each node of `row`, given those of their parents.

    The path of a node is its sibling, then the path of its parent: so each costs one concatenation.
    A promoted node has its parent's path.
    """
    result: list[bytes] = []
    for left, right, above in zip(row[::2], row[1::2], parents, strict=False):
        result += (right + above, left + above)
    if len(row) & 1:
        result.append(parents[len(row) >> 1])
    return result


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree of `size` leaves: the hashes of `compact_range(0, size)`.

    Raises MalformedError when the number of hashes is not that of the set bits of the size.
    """

    size: TreeSize
    hashes: tuple[Hash, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE or len(self.hashes) != self.size.bit_count():
            raise MalformedError(f"frontier: {len(self.hashes)} hashes do not cover {self.size} leaves")

    def root(self) -> Hash:
        """Return the root of the tree."""
        return root_of(self.hashes)


EMPTY: Final = Frontier(TreeSize(0), ())
"""The frontier of a tree of no leaves."""


@dataclass(frozen=True, slots=True)
class Extension:
    """What a run of appended leaves made of a tree: from `before` to `after`, and every node in between.

    `levels[level]` is (index of the first, hashes) of the perfect nodes made at that level, level 0
    being the appended leaves: what the tiles are written from.
    """

    before: Frontier
    after: Frontier
    levels: tuple[tuple[int, list[Hash]], ...]

    def node(self, level: int, index: int) -> Hash:
        """Return the hash of a perfect node made by this extension or held by the frontier before it.

        Raises KeyError for any other.
        """
        if 0 <= level < len(self.levels):
            first, hashes = self.levels[level]
            if first <= index < first + len(hashes):
                return hashes[index - first]
        if level >= 0 and (size := self.before.size) >> level & 1 and index == (size >> level) - 1:
            return self.before.hashes[(size >> level >> 1).bit_count()]
        raise KeyError((level, index))

    def frontier(self, size: int) -> Frontier:
        """Return the frontier at a size passed through: so the root at each size costs O(log n).

        Raises ValueError unless before.size <= size <= after.size.
        """
        if not self.before.size <= size <= self.after.size:
            raise ValueError(f"size {size} is not between {self.before.size} and {self.after.size}")
        return Frontier(TreeSize(size), tuple([self.node(*node) for node in compact_range(0, size)]))


def extend(frontier: Frontier, leaves: Sequence[Hash]) -> Extension:
    """Append `leaves`, a level at a time: one node hash a leaf in the long run.

    The result does not depend on how a run of leaves is cut into calls. Raises MalformedError when the
    tree would pass `MAX_SIZE`.
    """
    before = frontier.size
    after = TreeSize(before + len(leaves))
    waiting = list(frontier.hashes)  # smallest last: left siblings, in the order in which they are met
    edge: list[Hash] = []
    levels: list[tuple[int, list[Hash]]] = []
    made = list(leaves)
    while made:
        level = len(levels)
        levels.append((before >> level, made))
        row = [waiting.pop(), *made] if before >> level & 1 else made
        if len(row) & 1:
            edge.append(row[-1])
        made = node_hashes(row)
    return Extension(frontier, Frontier(after, (*waiting, *reversed(edge))), tuple(levels))

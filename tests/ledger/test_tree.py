from __future__ import annotations

from functools import cache
from hashlib import sha256
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import MalformedError
from ledger.hashing import EMPTY_ROOT, Hash, leaf_hash
from ledger.tree import (
    EMPTY,
    MAX_SIZE,
    Frontier,
    TreeSize,
    compact_range,
    extend,
    path_length,
    paths,
    root_of,
    tree_root,
)
from tests.support import reference_tree
from tests.support.vectors import load

ENTRIES = reference_tree.entries(260)
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
SIZES = range(131)


@pytest.mark.parametrize("size", SIZES)
def test_roots_and_paths_are_those_of_the_reference_tree(size: int) -> None:
    """If false, our tree is not the tree of RFC 6962."""
    entries = ENTRIES[:size]
    expected = [b"".join(reference_tree.path(index, entries)) for index in range(size)]
    assert tree_root(LEAVES[:size]) == reference_tree.mth(entries)
    assert paths(LEAVES[:size]) == (reference_tree.mth(entries), expected)


@pytest.mark.parametrize("size", SIZES)
def test_a_frontier_grown_leaf_by_leaf_has_the_root_of_the_whole(size: int) -> None:
    """If false, appending one entry at a time makes another tree than the entries do."""
    frontier = EMPTY
    for leaf in LEAVES[:size]:
        frontier = extend(frontier, [leaf]).after
    assert frontier == extend(EMPTY, LEAVES[:size]).after
    assert frontier.root() == reference_tree.mth(ENTRIES[:size])


@given(st.lists(st.integers(0, 80), max_size=12))
def test_any_batching_gives_the_same_tree(batches: list[int]) -> None:
    """If false, the root depends on how entries happened to be grouped."""
    frontier = EMPTY
    for batch in batches:
        frontier = extend(frontier, leaves_from(frontier.size, batch)).after
    assert frontier.root() == tree_root(leaves_from(0, sum(batches)))


def leaves_from(start: int, count: int) -> list[Hash]:
    return [leaf_hash(b"daybook-entry-%d" % index) for index in range(start, start + count)]


class Growth(NamedTuple):
    before: int
    after: int


@pytest.mark.parametrize("growth", [Growth(0, 37), Growth(1, 1), Growth(5, 6), Growth(7, 64), Growth(64, 130)])
def test_an_extension_holds_exactly_the_perfect_nodes_it_made(growth: Growth) -> None:
    """If false, a tile is written with a missing, a wrong or an unstable hash."""
    extension = extend(extend(EMPTY, LEAVES[: growth.before]).after, LEAVES[growth.before : growth.after])
    made = {
        (level, first + at): value
        for level, (first, row) in enumerate(extension.levels)
        for at, value in enumerate(row)
    }
    expected = {
        (level, index): reference_tree.node(level, index, ENTRIES)
        for level in range(8)
        for index in range(growth.before >> level, growth.after >> level)
    }
    assert made == expected
    known = expected | dict(zip(compact_range(0, growth.before), extension.before.hashes, strict=True))
    for level in range(-1, 9):
        for index in range(-1, growth.after + 2):
            if (node := (level, index)) in known:
                assert extension.node(*node) == known[node]
            else:
                with pytest.raises(KeyError):
                    extension.node(*node)


def test_an_extension_gives_the_frontier_at_every_size_it_passed() -> None:
    """If false, a checkpoint inside a batch has a root that its entries do not have."""
    for before in (0, 1, 6, 7, 8, 33):
        extension = extend(extend(EMPTY, LEAVES[:before]).after, LEAVES[before:70])
        for size in range(before, 71):
            assert extension.frontier(size) == extend(EMPTY, LEAVES[:size]).after
        for size in (before - 1, 71):
            with pytest.raises(ValueError, match="not between"):
                extension.frontier(size)


@pytest.mark.parametrize("size", [0, 1, 6, 7, 8])
def test_an_extension_by_nothing_changes_nothing(size: int) -> None:
    """If false, an empty batch moves the head."""
    frontier = extend(EMPTY, LEAVES[:size]).after
    extension = extend(frontier, [])
    assert extension.after == frontier
    assert extension.levels == ()
    assert extension.frontier(size) == frontier


def test_compact_ranges_are_the_aligned_blocks_of_the_specification() -> None:
    """If false, frontiers and range proofs cover other leaves than they say (merkle.md, section 4)."""
    for end in range(70):
        for begin in range(end + 1):
            blocks = [(index << level, (index + 1) << level) for level, index in compact_range(begin, end)]
            assert blocks == reference_tree.aligned_blocks(begin, end)


def test_the_compact_range_of_a_tree_has_a_node_for_every_set_bit() -> None:
    """If false, a frontier has too few or too many hashes."""
    assert compact_range(0, 13) == ((3, 0), (2, 2), (0, 12))
    assert compact_range(0, MAX_SIZE)[-1] == (0, MAX_SIZE - 1)
    assert len(compact_range(0, MAX_SIZE)) == 63
    assert len(compact_range(1, 2**63 - 1)) == 124


@pytest.mark.parametrize(("begin", "end"), [(-1, 3), (3, 2), (-2, -1)])
def test_a_range_that_is_none_is_refused(begin: int, end: int) -> None:
    """If false, a caller's mistake becomes an endless loop or an empty answer."""
    with pytest.raises(ValueError, match="no range"):
        compact_range(begin, end)


def test_roots_and_compact_range_are_those_of_the_vectors() -> None:
    """If false, the tree is not that of merkle.md, section 9, V1."""
    vectors = load("merkle-hashes.json")
    for size, root in vectors["roots"].items():
        assert tree_root(LEAVES[: int(size)]).hex() == root
        assert extend(EMPTY, LEAVES[: int(size)]).after.root().hex() == root
    expected = [(case["begin"], case["end"], case["hash"]) for case in vectors["compact_range_of_7"]]
    frontier = extend(EMPTY, LEAVES[:7]).after
    nodes = compact_range(0, 7)
    assert [
        (index << level, (index + 1) << level, value.hex())
        for (level, index), value in zip(nodes, frontier.hashes, strict=True)
    ] == expected


def test_the_tree_of_rfc_6962_has_its_published_roots() -> None:
    """If false, no Certificate Transparency tool agrees with us (merkle.md, section 9, V4)."""
    vectors = load("rfc6962-tree.json")
    leaves = [leaf_hash(bytes.fromhex(entry)) for entry in vectors["leaf_inputs"]]
    for size, root in vectors["roots"].items():
        assert tree_root(leaves[: int(size)]).hex() == root


def test_a_tree_without_prefixes_has_another_root() -> None:
    """If false, the domain separation is not in the tree (merkle.md, section 9, V4)."""
    vectors = load("merkle-without-prefixes.json")

    @cache
    def bare(begin: int, end: int) -> bytes:
        if end - begin == 1:
            return sha256(ENTRIES[begin]).digest()
        split = begin + reference_tree.largest_power_of_two_below(end - begin)
        return sha256(bare(begin, split) + bare(split, end)).digest()

    assert bare(0, 5).hex() == vectors["without_prefixes"]
    assert tree_root(LEAVES[:5]).hex() == vectors["root"]


def test_a_tree_of_nothing_has_the_empty_root() -> None:
    """If false, a new register has no root, or a wrong one."""
    assert tree_root([]) == EMPTY.root() == root_of([]) == paths([])[0] == EMPTY_ROOT
    assert paths([])[1] == []


def test_a_tree_of_one_leaf_has_that_leaf_as_root() -> None:
    """If false, a single leaf is hashed again."""
    assert tree_root(LEAVES[:1]) == extend(EMPTY, LEAVES[:1]).after.root() == LEAVES[0]
    assert paths(LEAVES[:1]) == (LEAVES[0], [b""])


@pytest.mark.parametrize("size", [0, 1, 6, 7, 8])
@pytest.mark.parametrize("off", [-1, 1])
def test_a_frontier_with_a_hash_too_few_or_too_many_is_refused(size: int, off: int) -> None:
    """If false, a damaged head goes on growing, into a tree that nobody can verify."""
    count = size.bit_count() + off
    with pytest.raises(MalformedError):
        Frontier(TreeSize(size), tuple(LEAVES[:count]) if count >= 0 else (LEAVES[0],) * 9)


def test_a_tree_stops_at_the_largest_size() -> None:
    """If false, a size leaves the 63 bits that checkpoints and stores have for it."""
    full = Frontier(TreeSize(MAX_SIZE), tuple(LEAVES[:63]))
    assert extend(Frontier(TreeSize(MAX_SIZE - 1), full.hashes[:62]), LEAVES[62:63]).after == full
    with pytest.raises(MalformedError):
        extend(full, LEAVES[:1])
    with pytest.raises(MalformedError):
        Frontier(TreeSize(-1), ())


@pytest.mark.parametrize("size", range(1, 131))
def test_path_lengths_are_those_of_the_reference_paths(size: int) -> None:
    """If false, the verifier expects another number of hashes than a true proof has."""
    for index in range(size):
        assert path_length(index, size) == len(reference_tree.path(index, ENTRIES[:size]))


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (7, 7), (-1, 7)])
def test_there_is_no_path_outside_the_tree(index: int, size: int) -> None:
    """If false, a length is invented for a leaf that does not exist."""
    with pytest.raises(ValueError, match="no leaf"):
        path_length(index, size)


def test_path_lengths_near_the_largest_size() -> None:
    """If false, arithmetic on large sizes overflows or does not end."""
    assert path_length(0, MAX_SIZE) == 63
    assert path_length(MAX_SIZE - 1, MAX_SIZE) == 62
    assert path_length(2**62, 2**62 + 1) == 1

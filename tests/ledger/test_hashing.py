from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import MalformedError
from ledger.hashing import EMPTY_ROOT, HASH_SIZE, Hash, leaf_hash, node_hash, node_hashes, split_hashes
from tests.support.vectors import hashes, load

a_hash = st.binary(min_size=HASH_SIZE, max_size=HASH_SIZE).map(Hash)


def test_leaf_hashes_are_those_of_the_vectors() -> None:
    """If false, our leaves are not those of RFC 6962, and no other tool finds our entries."""
    for index, expected in load("merkle-hashes.json")["leaves"].items():
        assert leaf_hash(b"daybook-entry-%d" % int(index)).hex() == expected


def test_an_entry_of_no_bytes_has_a_leaf_hash() -> None:
    """If false, the empty entry is hashed as if it were no entry (merkle.md, section 1)."""
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"


def test_the_empty_root_is_the_hash_of_nothing() -> None:
    """If false, a register of no entries has another root than RFC 6962 gives it."""
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_node_is_hashed_behind_its_own_prefix() -> None:
    """If false, nodes are not those of the vectors."""
    leaves = hashes(list(load("merkle-hashes.json")["leaves"].values()))
    assert node_hash(leaves[0], leaves[1]).hex() == load("merkle-hashes.json")["roots"]["2"]


@given(a_hash, a_hash)
def test_a_node_is_never_the_leaf_of_its_children(left: Hash, right: Hash) -> None:
    """If false, an interior node can be passed off as an entry of 64 bytes."""
    assert node_hash(left, right) != leaf_hash(left + right)
    assert node_hash(left, right) != hashlib.sha256(left + right).digest()


@given(st.lists(a_hash, max_size=9))
def test_a_row_hashes_as_its_pairs_do(row: list[Hash]) -> None:
    """If false, the bulk computation makes other nodes than `node_hash`."""
    assert node_hashes(row) == [node_hash(row[at], row[at + 1]) for at in range(0, len(row) - 1, 2)]


@given(st.lists(a_hash, max_size=70))
def test_concatenated_hashes_split_into_themselves(values: list[Hash]) -> None:
    """If false, a path or a tile is read as other hashes than were written."""
    assert split_hashes(b"".join(values)) == tuple(values)


@pytest.mark.parametrize("length", [1, 16, 31, 33, 48, 63, 65])
def test_a_broken_hash_is_refused(length: int) -> None:
    """If false, bytes are dropped or a short hash gets into a proof."""
    with pytest.raises(MalformedError):
        split_hashes(bytes(length))

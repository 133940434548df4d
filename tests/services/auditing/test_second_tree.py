"""The second tree: the roots of RFC 6962, made by merkletools, at any size and in any steps."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest

from ledger.errors import MalformedError
from services.auditing.second_tree import WIDEST, SecondTree
from tests.support.vectors import load


def entries(begin: int, end: int) -> list[bytes]:
    return [b"daybook-entry-%d" % number for number in range(begin, end)]


def mth(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, as it is written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + mth(leaves[:split]) + mth(leaves[split:])).digest()


@pytest.mark.parametrize("size", [*range(18), 255, 256, 257, WIDEST - 1, WIDEST, WIDEST + 1, 3 * WIDEST + 5])
def test_the_root_is_that_of_the_standard(size: int) -> None:
    """False if what is called a second implementation computed another tree."""
    tree = SecondTree()
    tree.append(entries(0, size))
    assert (tree.size, tree.root()) == (size, mth(entries(0, size)))


def test_it_goes_on_from_any_size_to_any_other() -> None:
    """False if an incremental audit came to another root than one that reads everything."""
    steps = [0, 1, 2, 3, 7, 8, 300, 1_023, 1_024, 1_025, 2_500, 5_000]
    tree = SecondTree()
    for begin, end in pairwise(steps):
        tree = SecondTree(tree.size, tree.peaks)
        tree.append(entries(begin, end))
        assert tree.root() == mth(entries(0, end)), end


def test_the_roots_of_the_vectors_come_out() -> None:
    """False if it did not agree with the roots that were published for every size of the story."""
    for register in load("registers.json").values():
        tree = SecondTree()
        for entry, root in zip(register["entries"], register["roots"][1:], strict=True):
            tree.append([entry.encode()])
            assert tree.root().hex() == root


@pytest.mark.parametrize(("size", "peaks"), [(1, b""), (3, b"x" * 32), (0, b"x" * 32), (-1, b"")])
def test_what_makes_no_tree_is_refused(size: int, peaks: bytes) -> None:
    """False if a damaged state were gone on with."""
    with pytest.raises(MalformedError):
        SecondTree(size, peaks)

"""A naive twin of ledger/tree.py and ledger/proofs.py, transcribed from RFC 6962, section 2.1.

Slow on purpose: each function is its definition. `D` is a list of entries, as in the RFC; the range proof is
transcribed from formats.md, section 14.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256

from ledger.hashing import Hash

Entries = tuple[bytes, ...]


def entries(count: int) -> Entries:
    """Return the entries of the vectors: ``daybook-entry-<i>``."""
    return tuple(b"daybook-entry-%d" % number for number in range(count))


def largest_power_of_two_below(n: int) -> int:
    """Return k: k < n <= 2k."""
    k = 1
    while not k < n <= 2 * k:
        k *= 2
    return k


@cache
def mth(d: Entries) -> Hash:
    """MTH(D), section 2.1."""
    n = len(d)
    if n == 0:
        return Hash(sha256(b"").digest())
    if n == 1:
        return Hash(sha256(b"\x00" + d[0]).digest())
    k = largest_power_of_two_below(n)
    return Hash(sha256(b"\x01" + mth(d[:k]) + mth(d[k:])).digest())


def path(m: int, d: Entries) -> list[Hash]:
    """PATH(m, D), section 2.1.1."""
    n = len(d)
    if n == 1:
        return []
    k = largest_power_of_two_below(n)
    if m < k:
        return [*path(m, d[:k]), mth(d[k:])]
    return [*path(m - k, d[k:]), mth(d[:k])]


def proof(m: int, d: Entries) -> list[Hash]:
    """PROOF(m, D), section 2.1.2."""
    return subproof(m, d, is_the_old_tree=True)


def subproof(m: int, d: Entries, *, is_the_old_tree: bool) -> list[Hash]:
    """SUBPROOF(m, D, b), section 2.1.2."""
    n = len(d)
    if m == n:
        return [] if is_the_old_tree else [mth(d)]
    k = largest_power_of_two_below(n)
    if m <= k:
        return [*subproof(m, d[:k], is_the_old_tree=is_the_old_tree), mth(d[k:])]
    return [*subproof(m - k, d[k:], is_the_old_tree=False), mth(d[:k])]


def aligned_blocks(begin: int, end: int) -> list[tuple[int, int]]:
    """Return the compact range of [begin, end) as pairs of leaves (merkle.md, section 4)."""
    blocks = []
    while begin < end:
        length = 1
        while begin % (2 * length) == 0 and begin + 2 * length <= end:
            length *= 2
        blocks.append((begin, begin + length))
        begin += length
    return blocks


def range_proof(begin: int, end: int, d: Entries) -> list[Hash]:
    """Return the range proof of [begin, end) in the tree over D (formats.md, section 14)."""
    blocks = aligned_blocks(0, begin) + aligned_blocks(end, len(d))
    return [mth(d[first:last]) for first, last in blocks]


def node(level: int, index: int, d: Entries) -> Hash:
    """Return the hash of the perfect node (level, index)."""
    leaves = d[index << level : (index + 1) << level]
    if len(leaves) != 1 << level:
        raise ValueError("not perfect")
    return mth(leaves)

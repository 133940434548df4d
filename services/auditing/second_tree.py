"""The tree of a register, computed a second time by an implementation that is not ours.

An auditor's claim rests on roots. So every root is computed twice: by `ledger.tree`, and here with
`merkletools`, which knows nothing of it. What merkletools lacks, the domain separation of RFC 6962, is put in
as `services.client.submission_tree` does for submissions: leaves are fed as SHA-256(0x00 || entry), and its
`hash_function` hashes nodes behind 0x01.

A register is too long for one tree in memory, and grows. So it is built of perfect subtrees, each made by
merkletools of a power of two leaves; only their roots are kept, largest first, one for each bit of the size.
Two of the same width are joined by merkletools as well, and the root is theirs joined from the right.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from typing import Final

from ledger.errors import MalformedError

with warnings.catch_warnings():
    # It would like pysha3, for hashes that are not used here.
    warnings.filterwarnings("ignore", message="sha3 is not working!", category=UserWarning)
    from merkletools import MerkleTools

WIDEST: Final = 1_024
"""Leaves of the largest subtree that is built at once."""

_HASH: Final = 32
_EMPTY: Final = hashlib.sha256(b"").digest()


class SecondTree:
    """A tree of `size` leaves, to be appended to. `peaks` are the roots of its perfect subtrees, largest first.

    Raises MalformedError where there is not one of 32 bytes for each bit of the size.
    """

    def __init__(self, size: int = 0, peaks: bytes = b"") -> None:
        if size < 0 or len(peaks) != size.bit_count() * _HASH:
            raise MalformedError(f"{len(peaks)} bytes of peaks do not make a tree of {size} leaves")
        self._size = size
        self._peaks = [peaks[at : at + _HASH] for at in range(0, len(peaks), _HASH)]

    @property
    def size(self) -> int:
        """How many leaves it has."""
        return self._size

    @property
    def peaks(self) -> bytes:
        """What it is made of, 32 bytes each: with the size, all that is needed to go on."""
        return b"".join(self._peaks)

    def append(self, entries: Sequence[bytes]) -> None:
        """Append entries, each a leaf."""
        leaves = [hashlib.sha256(b"\x00" + entry).hexdigest() for entry in entries]
        at = 0
        while at < len(leaves):
            width = self._next_width(len(leaves) - at)
            self._join(width, _root(leaves[at : at + width]))
            at += width

    def _next_width(self, left: int) -> int:
        """Return how wide the next perfect subtree can be: as its place allows, and as many are left."""
        place = self._size & -self._size or WIDEST
        return min(WIDEST, place, 1 << (left.bit_length() - 1))

    def _join(self, width: int, peak: bytes) -> None:
        """Add a subtree, and join it with its left neighbour as long as that is as wide."""
        size = self._size
        while size & width:
            peak = _root([self._peaks.pop().hex(), peak.hex()])
            size -= width
            width *= 2
        self._peaks.append(peak)
        self._size = size + width

    def root(self) -> bytes:
        """Return the root, 32 bytes (RFC 6962, section 2.1)."""
        if not self._peaks:
            return _EMPTY
        root = self._peaks[-1]
        for left in reversed(self._peaks[:-1]):
            root = _root([left.hex(), root.hex()])
        return root


def _root(leaves: Iterable[str]) -> bytes:
    """Return the root that merkletools makes of hashes in hex, a power of two of them."""
    tree = MerkleTools(hash_type="sha256")
    tree.hash_function = lambda children: hashlib.sha256(b"\x01" + children)
    tree.add_leaf(list(leaves))
    tree.make_tree()
    return bytes(tree.levels[0][0])

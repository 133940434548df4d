"""The three hashes of the Merkle tree: of nothing, of a leaf, of a node (RFC 6962, section 2.1)."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Final, NewType, cast

from ledger.errors import MalformedError

Hash = NewType("Hash", bytes)
"""A SHA-256 digest, 32 bytes."""

HASH_SIZE: Final = 32
"""Bytes in a `Hash`."""

# The two prefixes keep an interior node from being passed off as a leaf.
LEAF_PREFIX: Final = b"\x00"
"""What stands before an entry when a leaf is hashed."""

NODE_PREFIX: Final = b"\x01"
"""What stands before two children when a node is hashed."""

EMPTY_ROOT: Final = Hash(sha256(b"").digest())
"""The root of a tree of no leaves: SHA-256 of the empty string."""


def leaf_hash(entry: bytes) -> Hash:
    """Return SHA-256(0x00 || entry), 32 bytes (RFC 6962, section 2.1)."""
    return Hash(sha256(LEAF_PREFIX + entry).digest())


def leaf_hashes(entries: Iterable[bytes]) -> list[Hash]:
    """Return the `leaf_hash` of each entry: one list comprehension, no call per leaf."""
    return cast("list[Hash]", [sha256(b"\x00" + entry).digest() for entry in entries])


def node_hash(left: Hash, right: Hash) -> Hash:
    """Return SHA-256(0x01 || left || right), 32 bytes (RFC 6962, section 2.1)."""
    return Hash(sha256(NODE_PREFIX + left + right).digest())


def node_hashes(row: list[Hash]) -> list[Hash]:
    """Return the `node_hash` of each pair of `row`, left to right; an unpaired last one is left out.

    The inner loop of every bulk computation: one list comprehension, no call per node.
    """
    pairs = zip(row[::2], row[1::2], strict=False)
    return cast("list[Hash]", [sha256(b"\x01" + left + right).digest() for left, right in pairs])


def split_hashes(data: bytes) -> tuple[Hash, ...]:
    """Return the hashes of which `data` is the concatenation.

    Raises MalformedError when the length is no multiple of 32.
    """
    if len(data) % HASH_SIZE:
        raise MalformedError(f"hashes: {len(data)} bytes are not a whole number of {HASH_SIZE}-byte hashes")
    hashes = [data[start : start + HASH_SIZE] for start in range(0, len(data), HASH_SIZE)]
    return cast("tuple[Hash, ...]", tuple(hashes))

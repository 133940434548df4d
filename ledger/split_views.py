"""Split views: two signed checkpoints of one log that cannot both be true, and the proof of it.

Of one size, two notes with different roots are the proof. Of two sizes, a consistency proof shows which root
the tree under the larger note has at the smaller size; where that is another than the smaller note states,
the log has signed two histories. Whoever holds the proof needs nobody's word and nobody's copy to check it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ledger.checkpoints import OpenedCheckpoint
from ledger.errors import MalformedError, ProofError
from ledger.hashing import Hash
from ledger.proofs import compute, nodes_of, plan_consistency, verify_consistency
from ledger.tree import Node, compact_range, root_of
from ledger.witnessing import Policy


@dataclass(frozen=True, slots=True)
class SplitView:
    """Two notes of one log, the smaller size first, and what shows that they contradict each other.

    `root` is the root at the smaller size of the tree under `larger`, and `hashes` the consistency proof from
    it (RFC 6962, section 2.1.2); both are empty where the sizes are equal. Not verified by being made.
    """

    origin: str
    smaller: bytes
    larger: bytes
    root: bytes = b""
    hashes: tuple[Hash, ...] = ()


@dataclass(frozen=True, slots=True)
class ProvedSplit:
    """A split view that was verified: what the log has signed of one size, and what contradicts it.

    `stated` is the root that `smaller` states at `size`, `other` the one that follows from `larger`.
    """

    origin: str
    size: int
    stated: Hash
    other: Hash
    larger_size: int


def verify_split_view(view: SplitView, policy: Policy) -> ProvedSplit:
    """Return what a split view proves, under the reader's own policy.

    The log's signature on both notes is all that counts: witnesses who cosigned one of two histories do not
    make the other one unsigned. Raises MalformedError, SignatureError, or ProofError where the two notes can
    both be true as far as this shows.
    """
    smaller = policy.open(view.smaller, view.origin).checkpoint
    larger = policy.open(view.larger, view.origin).checkpoint
    if smaller.size == larger.size:
        other = larger.root
    else:
        other = Hash(view.root)
        verify_consistency(smaller.size, larger.size, other, larger.root, view.hashes)
    if other == smaller.root:
        raise ProofError(f"split view: both notes of {view.origin} can be true")
    return ProvedSplit(view.origin, smaller.size, smaller.root, other, larger.size)


def nodes_to_compare(smaller: int, larger: int) -> tuple[Node, ...]:
    """Return the nodes of the tree of `larger` leaves that `compare` asks for; none where they are equal.

    Raises ProofError unless 0 < smaller <= larger.
    """
    if smaller == larger:
        return ()
    return tuple(dict.fromkeys((*compact_range(0, smaller), *nodes_of(plan_consistency(smaller, larger)))))


def compare(
    first: OpenedCheckpoint,
    second: OpenedCheckpoint,
    nodes: Callable[[tuple[Node, ...]], Mapping[Node, Hash]],
) -> SplitView | None:
    """Return the proof that two checkpoints of one log contradict each other; None where they do not.

    `nodes` returns nodes of the tree under the larger one, from wherever: they are believed only as far as
    they lead to the root that the larger one states. Raises ProofError where they do not, and what `nodes`
    raises. A checkpoint of size 0 contradicts none.
    """
    smaller, larger = sorted((first, second), key=lambda opened: opened.checkpoint.size)
    low, high = smaller.checkpoint, larger.checkpoint
    if low.origin != high.origin:
        raise MalformedError(f"checkpoints of two logs: {low.origin} and {high.origin}")
    notes = (smaller.note.trimmed(), larger.note.trimmed())
    if low.size == high.size:
        return None if low.root == high.root else SplitView(low.origin, *notes)
    if low.size == 0:
        return None
    held = nodes(nodes_to_compare(low.size, high.size))
    root = root_of([held[node] for node in compact_range(0, low.size)])
    hashes = compute(plan_consistency(low.size, high.size), held)
    verify_consistency(low.size, high.size, root, high.root, hashes)
    return None if root == low.root else SplitView(low.origin, *notes, root, hashes)

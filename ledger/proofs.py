"""Proofs of inclusion, of consistency and of a range: plan, fetch, compute; verify.

RFC 6962, sections 2.1.1 and 2.1.2; specs/merkle.md, sections 5 and 6; formats.md, section 14.

A plan says which perfect nodes a proof is made of. The caller reads them in one go, `compute` folds
them. The verifier fixes the shape: indices and sizes come from the question and from a verified
checkpoint, a proof contributes hashes only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ledger.errors import ProofError
from ledger.hashing import HASH_SIZE, Hash, node_hash, node_hashes
from ledger.tree import MAX_SIZE, Index, Node, TreeSize, compact_range, path_length, root_of

Plan = tuple[tuple[Node, ...], ...]
"""For each hash of a proof, in proof order, the nodes that fold (right to left) into it: mostly one."""


def plan_inclusion(index: int, size: int) -> Plan:
    """Return the plan of PATH(index, size), sibling first (RFC 6962, section 2.1.1).

    Raises ProofError unless 0 <= index < size <= `MAX_SIZE`.
    """
    _check_index(index, size)
    plan: list[tuple[Node, ...]] = []
    inner = (index ^ (size - 1)).bit_length()
    for level in range(inner):
        sibling = index >> level ^ 1
        if (sibling + 1) << level <= size:
            plan.append(((level, sibling),))
        else:  # on the right edge, not perfect: what there is of it
            plan.append(compact_range(sibling << level, size))
    edge = range(inner, index.bit_length())
    plan += [((level, (index >> level) - 1),) for level in edge if index >> level & 1]
    return tuple(plan)


def plan_consistency(first: int, second: int) -> Plan:
    """Return the plan of PROOF(first, second) (RFC 6962, section 2.1.2); empty when they are equal.

    Raises ProofError unless 0 < first <= second <= `MAX_SIZE`: of size 0 there is no proof.
    """
    _check_sizes(first, second)
    plan: list[tuple[Node, ...]] = []
    begin, end = 0, second
    while end != first:
        split = begin + (1 << (end - begin - 1).bit_length() - 1)
        if first <= split:
            plan.append(compact_range(split, end))
            end = split
        else:
            plan.append(compact_range(begin, split))
            begin = split
    if begin:  # otherwise the old tree is a subtree by itself, whose root the verifier knows
        plan.append(compact_range(begin, end))
    return tuple(reversed(plan))


def plan_range(begin: int, end: int, size: int) -> Plan:
    """Return the plan of the range proof of [begin, end) in `size` (formats.md, section 14).

    Raises ProofError unless 0 <= begin < end <= size <= `MAX_SIZE`.
    """
    _check_range(begin, end, size)
    return tuple((node,) for node in (*compact_range(0, begin), *compact_range(end, size)))


def nodes_of(plan: Plan) -> tuple[Node, ...]:
    """Return every node that a plan needs, to be fetched in one call."""
    return tuple(node for nodes in plan for node in nodes)


def compute(plan: Plan, hash_of: Callable[[Node], Hash] | Mapping[Node, Hash]) -> tuple[Hash, ...]:
    """Return the hashes of the planned proof. Errors of `hash_of` pass through."""
    look_up = hash_of if callable(hash_of) else hash_of.__getitem__
    return tuple([root_of([look_up(node) for node in nodes]) for nodes in plan])


def root_from_inclusion(index: int, size: int, leaf: Hash, proof: Sequence[Hash]) -> Hash:
    """Return the root to which `proof` leads from `leaf` at `index` (merkle.md, section 5.2).

    Raises ProofError when there is no such index, or when the proof has not exactly the number of hashes
    that index and size imply.
    """
    _check_index(index, size)
    _check_hashes((leaf,))
    _check_hashes(proof)
    _check_count(path_length(index, size), proof)
    # Below `inner` the path runs inside the tree and the index says which side the sibling is on. Above, it
    # follows the right edge, where every sibling that exists is on the left.
    inner = (index ^ (size - 1)).bit_length()
    root = leaf
    for level, sibling in enumerate(proof):
        on_the_right = level < inner and not index >> level & 1
        root = node_hash(root, sibling) if on_the_right else node_hash(sibling, root)
    return root


def verify_inclusion(index: int, size: int, leaf: Hash, proof: Sequence[Hash], root: Hash) -> None:
    """Return when `leaf` is leaf `index` of the tree with this size and root; raise ProofError otherwise."""
    if root_from_inclusion(index, size, leaf, proof) != root:
        raise ProofError(f"inclusion: the proof of index {index} does not lead to the root at size {size}")


def roots_from_consistency(
    first: int, second: int, first_root: Hash, proof: Sequence[Hash]
) -> tuple[Hash, Hash]:
    """Return the roots of the two trees to which `proof` leads (merkle.md, section 6.2).

    The second root is what a larger tree commits to; the first is then that of its first `first` leaves,
    whoever made the proof. Only where `first` is a power of two does it start from `first_root` itself.

    Raises ProofError unless 0 < first < second, and when the proof has not exactly the number of hashes
    that the sizes imply.
    """
    _check_sizes(first, second)
    if first == second:
        raise ProofError(f"consistency: there is no proof from size {first} to itself")
    _check_hashes((first_root,))
    _check_hashes(proof)
    # A perfect old tree is a node of the new one: the proof leaves it out, since the verifier knows it.
    hashes = [first_root, *proof] if first.bit_count() == 1 else list(proof)
    node, last = first - 1, second - 1
    while node & 1:
        node >>= 1
        last >>= 1
    _check_count(path_length(node, last + 1) + 1, hashes)
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if node & 1 or node == last:
            old = node_hash(sibling, old)
            new = node_hash(sibling, new)
            while node and not node & 1:
                node >>= 1
                last >>= 1
        else:
            new = node_hash(new, sibling)
        node >>= 1
        last >>= 1
    return old, new


def verify_consistency(
    first: int, second: int, first_root: Hash, second_root: Hash, proof: Sequence[Hash]
) -> None:
    """Return when the first tree is a prefix of the second (merkle.md, section 6.2); else raise ProofError.

    Size 0 has no proof and raises; a caller that starts from nothing treats it as its own case.
    """
    _check_sizes(first, second)
    _check_hashes((first_root, second_root))
    if first == second:
        if proof or first_root != second_root:
            raise ProofError(f"consistency: two different trees of size {first}")
        return
    old, new = roots_from_consistency(first, second, first_root, proof)
    # Both: the new root alone would not show that the old tree is its prefix.
    if old != first_root:
        raise ProofError(f"consistency: the proof does not lead to the root at size {first}")
    if new != second_root:
        raise ProofError(f"consistency: the proof does not lead to the root at size {second}")


@dataclass(frozen=True, slots=True)
class VerifiedRange:
    """The leaves [begin, end) of the tree with this size and root, proved to be there.

    Made by `verify_range` only. From it follows the inclusion path of each member.
    """

    begin: Index
    end: Index
    size: TreeSize
    root: Hash
    _rows: tuple[tuple[int, list[Hash]], ...]
    """For each level below the root: (index of the first, an even number; the ancestors and siblings)."""

    def path(self, index: int) -> tuple[Hash, ...]:
        """Return the inclusion path of member `index`, sibling first, at `size`.

        Raises ProofError when the index is not a member.
        """
        if not self.begin <= index < self.end:
            raise ProofError(f"range: index {index} is not in [{self.begin}, {self.end})")
        path = []
        for level, (first, row) in enumerate(self._rows):
            sibling = (index >> level ^ 1) - first
            if sibling < len(row):  # otherwise the node is promoted: it has none
                path.append(row[sibling])
        return tuple(path)

    def paths(self) -> list[bytes]:
        """Return the inclusion paths of all members in order, each its hashes concatenated.

        One concatenation a member and level of the range, rather than O(log n) look-ups a member.
        """
        above_first = 0
        above = [b""]
        for first, row in reversed(self._rows):
            here: list[bytes] = []
            parents = above[(first >> 1) - above_first :]
            for left, right, parent in zip(row[::2], row[1::2], parents, strict=False):
                here += (right + parent, left + parent)
            if len(row) & 1:
                here.append(parents[len(row) >> 1])
            above_first, above = first, here
        return above[self.begin - above_first :][: self.end - self.begin]


def verify_range(
    begin: int, end: int, size: int, leaves: Sequence[Hash], hashes: Sequence[Hash], root: Hash
) -> VerifiedRange:
    """Return the range, proved: `leaves` are leaves [begin, end) of the tree with this size and root.

    `hashes` are those of formats.md, section 14. The range comes from the question, size and root from a
    verified checkpoint: the same hashes can fit another size. Raises ProofError otherwise.
    """
    _check_range(begin, end, size)
    _check_hashes(leaves)
    _check_hashes(hashes)
    if len(leaves) != end - begin:
        raise ProofError(f"range: {len(leaves)} leaves for [{begin}, {end})")
    _check_count(begin.bit_count() + len(compact_range(end, size)), hashes)
    lefts = list(hashes[: begin.bit_count()])  # smallest last, as they are met
    rights = list(hashes[begin.bit_count() :])[::-1]  # nearest last, as they are met

    first, row = begin, list(leaves)
    rows: list[tuple[int, list[Hash]]] = []
    for level in range((size - 1).bit_length()):
        if first & 1:
            row.insert(0, lefts.pop())
            first -= 1
        sibling = first + len(row)
        if len(row) & 1 and sibling << level < size:
            if (sibling + 1) << level <= size:
                row.append(rights.pop())
            else:  # on the right edge: all that is left makes up this one node
                row.append(root_of(rights[::-1]))
                rights.clear()
        rows.append((first, row))
        parents = node_hashes(row)
        if len(row) & 1:
            parents.append(row[-1])
        first, row = first >> 1, parents
    if row[0] != root:
        raise ProofError(f"range: [{begin}, {end}) does not lead to the root at size {size}")
    return VerifiedRange(Index(begin), Index(end), TreeSize(size), root, tuple(rows))


def _check_index(index: int, size: int) -> None:
    if not 0 <= index < size <= MAX_SIZE:
        raise ProofError(f"inclusion: no index {index} in a tree of size {size}")


def _check_sizes(first: int, second: int) -> None:
    if not 0 < first <= second <= MAX_SIZE:
        raise ProofError(f"consistency: no proof leads from size {first} to size {second}")


def _check_range(begin: int, end: int, size: int) -> None:
    if not 0 <= begin < end <= size <= MAX_SIZE:
        raise ProofError(f"range: no [{begin}, {end}) in a tree of size {size}")


def _check_hashes(hashes: Iterable[bytes]) -> None:
    for value in hashes:
        if len(value) != HASH_SIZE:
            raise ProofError(f"proof: a hash of {len(value)} bytes, not {HASH_SIZE}")


def _check_count(expected: int, hashes: Sequence[Hash]) -> None:
    if len(hashes) != expected:
        raise ProofError(f"proof: {len(hashes)} hashes where the sizes imply {expected}")

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import ProofError
from ledger.hashing import EMPTY_ROOT, Hash, leaf_hash, node_hash
from ledger.proofs import (
    VerifiedRange,
    compute,
    nodes_of,
    plan_consistency,
    plan_inclusion,
    plan_range,
    root_from_inclusion,
    roots_from_consistency,
    verify_consistency,
    verify_inclusion,
    verify_range,
)
from ledger.tree import MAX_SIZE, Node, path_length, tree_root
from tests.support import reference_tree
from tests.support.vectors import hashes, load

ENTRIES = reference_tree.entries(130)
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
NODES = {
    (level, index): reference_tree.node(level, index, ENTRIES)
    for level in range(8)
    for index in range(130 >> level)
}
ROOTS = [reference_tree.mth(ENTRIES[:size]) for size in range(131)]
SIZES = range(1, 131)
LARGE = [2**62 - 1, 2**62, 2**62 + 1, MAX_SIZE - 1, MAX_SIZE]


def inclusion(index: int, size: int) -> tuple[Hash, ...]:
    return compute(plan_inclusion(index, size), NODES)


def consistency(first: int, second: int) -> tuple[Hash, ...]:
    return compute(plan_consistency(first, second), NODES)


def a_range(begin: int, end: int, size: int) -> tuple[Hash, ...]:
    return compute(plan_range(begin, end, size), NODES)


def verified(begin: int, end: int, size: int) -> VerifiedRange:
    return verify_range(begin, end, size, LEAVES[begin:end], a_range(begin, end, size), ROOTS[size])


def flipped(value: Hash, bit: int) -> Hash:
    return Hash(bytes(byte ^ (1 << bit % 8 if at == bit // 8 else 0) for at, byte in enumerate(value)))


# Making proofs


@pytest.mark.parametrize("size", SIZES)
def test_inclusion_proofs_are_those_of_the_reference_tree_and_verify(size: int) -> None:
    """If false, a true entry cannot be proved to another implementation, or to ourselves."""
    for index in range(size):
        proof = inclusion(index, size)
        assert list(proof) == reference_tree.path(index, ENTRIES[:size])
        verify_inclusion(index, size, LEAVES[index], proof, ROOTS[size])


@pytest.mark.parametrize("second", SIZES)
def test_consistency_proofs_are_those_of_the_reference_tree_and_verify(second: int) -> None:
    """If false, an honest register cannot show that it only grew."""
    for first in range(1, second + 1):
        proof = consistency(first, second)
        assert list(proof) == reference_tree.proof(first, ENTRIES[:second])
        verify_consistency(first, second, ROOTS[first], ROOTS[second], proof)


@pytest.mark.parametrize("size", range(1, 41))
def test_range_proofs_are_those_of_the_specification_and_verify(size: int) -> None:
    """If false, a department cannot check its own submission, or gets wrong receipts."""
    for begin in range(size):
        for end in range(begin + 1, size + 1):
            assert list(a_range(begin, end, size)) == reference_tree.range_proof(begin, end, ENTRIES[:size])
            members = verified(begin, end, size)
            expected = [tuple(reference_tree.path(index, ENTRIES[:size])) for index in range(begin, end)]
            assert [members.path(index) for index in range(begin, end)] == expected
            assert members.paths() == [b"".join(path) for path in expected]
            assert (members.begin, members.end, members.size, members.root) == (begin, end, size, ROOTS[size])


@pytest.mark.parametrize("case", load("merkle-proofs.json")["cases"])
def test_proofs_are_those_of_the_vectors(case: dict[str, Any]) -> None:
    """If false, our proofs are not those of merkle.md, section 9, V2."""
    if case["kind"] == "inclusion":
        assert list(inclusion(case["index"], case["size"])) == hashes(case["proof"])
    else:
        assert list(consistency(case["first"], case["second"])) == hashes(case["proof"])


def test_all_proofs_to_size_64_are_those_of_the_vector() -> None:
    """If false, one of 4160 proofs differs from merkle.md, section 9, V3."""
    stream = hashlib.sha256()
    for size in range(1, 65):
        for index in range(size):
            stream.update(line("I", index, size, proof=inclusion(index, size)))
        for first in range(1, size + 1):
            stream.update(line("C", first, size, proof=consistency(first, size)))
    assert stream.hexdigest() == load("merkle-all-proofs.json")["sha256"]


def test_all_range_proofs_to_size_40_are_those_of_the_vector() -> None:
    """If false, a range proof differs from formats.md, section 14."""
    stream = hashlib.sha256()
    for size in range(1, 41):
        for begin in range(size):
            for end in range(begin + 1, size + 1):
                stream.update(line("R", begin, end, size, proof=a_range(begin, end, size)))
    assert stream.hexdigest() == load("range-proofs.json")["check"]["sha256"]


def line(kind: str, *numbers: int, proof: tuple[Hash, ...]) -> bytes:
    return (" ".join([kind, *map(str, numbers), *(value.hex() for value in proof)]) + "\n").encode()


@pytest.mark.parametrize("case", load("range-proofs.json")["cases"], ids=lambda case: case.get("name", "good"))
def test_range_proofs_are_judged_as_in_the_vectors(case: dict[str, Any]) -> None:
    """If false, two verifiers disagree about one range proof (formats.md, section 14)."""
    question = (case["first"], case["end"], case["size"])
    answer = (hashes(case["leaves"]), hashes(case["hashes"]), Hash(bytes.fromhex(case["root"])))
    if case["valid"]:
        members = verify_range(*question, *answer)
        for index, leaf in zip(range(case["first"], case["end"]), answer[0], strict=True):
            verify_inclusion(index, case["size"], leaf, members.path(index), answer[2])
    else:
        with pytest.raises(ProofError):
            verify_range(*question, *answer)


def test_a_plan_is_fetched_in_one_go() -> None:
    """If false, the caller reads nodes that are not needed, or not all that are."""
    plan = plan_inclusion(4, 7)
    assert plan == (((0, 5),), ((0, 6),), ((2, 0),))
    fetched: list[Node] = []

    def fetch(node: Node) -> Hash:
        fetched.append(node)
        return NODES[node]

    assert compute(plan, fetch) == compute(plan, {node: NODES[node] for node in nodes_of(plan)})
    assert sorted(fetched) == sorted(nodes_of(plan))


@pytest.mark.parametrize("size", LARGE)
def test_plans_of_huge_trees_end_and_stay_small(size: int) -> None:
    """If false, one question about a large size stops the server, or its arithmetic overflows."""
    for index in (0, 1, size // 2, size - 2, size - 1):
        assert len(plan_inclusion(index, size)) == path_length(index, size) <= 63
        assert len(nodes_of(plan_inclusion(index, size))) <= 126
        assert len(plan_consistency(index + 1, size)) <= 64
        assert len(plan_range(index, index + 1, size)) <= 126


# What is refused


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33])
def test_an_inclusion_proof_fits_one_index_and_one_size_only(size: int) -> None:
    """If false, one proof shows an entry at two places."""
    for index in range(size):
        proof = inclusion(index, size)
        for other in range(-1, size + 2):
            if other != index:
                with pytest.raises(ProofError):
                    verify_inclusion(other, size, LEAVES[index], proof, ROOTS[size])


def test_an_index_outside_the_tree_is_refused() -> None:
    """If false, an entry is proved to be where the tree has none; size 0 has nothing to prove."""
    for index, size in [(0, 0), (1, 1), (7, 7), (8, 7), (-1, 7), (2**63, 2**63 + 1), (0, 2**64), (2**64, 7)]:
        with pytest.raises(ProofError, match="no index"):
            verify_inclusion(index, size, LEAVES[0], (), ROOTS[1])
        with pytest.raises(ProofError, match="no index"):
            plan_inclusion(index, size)


def test_size_zero_proves_nothing() -> None:
    """If false, the empty root is accepted as the root above some entry."""
    with pytest.raises(ProofError):
        verify_inclusion(0, 0, LEAVES[0], (), EMPTY_ROOT)


def test_size_one_needs_no_proof_and_takes_none() -> None:
    """If false, the only entry of a register cannot be proved, or anything can."""
    verify_inclusion(0, 1, LEAVES[0], (), LEAVES[0])
    with pytest.raises(ProofError):
        verify_inclusion(0, 1, LEAVES[0], (LEAVES[1],), LEAVES[0])
    with pytest.raises(ProofError):
        verify_inclusion(0, 1, LEAVES[1], (), LEAVES[0])


@pytest.mark.parametrize("size", [2, 3, 6, 7, 8, 9, 127, 128, 129])
def test_an_inclusion_proof_one_hash_short_long_or_reordered_fails(size: int) -> None:
    """If false, the shape of a proof is taken from the proof; the last index of odd sizes is the classic."""
    for index in {0, size // 2, size - 1}:
        proof = inclusion(index, size)
        for wrong in [
            proof[1:],
            proof[:-1],
            (*proof, proof[-1]),
            (proof[0], *proof),
            (*proof, ROOTS[size]),
            *([proof[::-1]] if len(proof) > 1 else []),
        ]:
            with pytest.raises(ProofError):
                verify_inclusion(index, size, LEAVES[index], wrong, ROOTS[size])


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_hash_of_another_length_fails_everywhere(length: int) -> None:
    """If false, bytes move from one hash into the next and the sum still fits."""
    bad = Hash(bytes(length))
    proof = inclusion(4, 7)
    grown = consistency(3, 7)
    with pytest.raises(ProofError, match="a hash of"):
        verify_inclusion(4, 7, bad, proof, ROOTS[7])
    with pytest.raises(ProofError, match="a hash of"):
        verify_inclusion(4, 7, LEAVES[4], (*proof[:-1], bad), ROOTS[7])
    with pytest.raises(ProofError, match="a hash of"):
        verify_consistency(3, 7, ROOTS[3], ROOTS[7], (bad, *grown[1:]))
    with pytest.raises(ProofError, match="a hash of"):
        verify_consistency(3, 7, bad, ROOTS[7], grown)
    with pytest.raises(ProofError, match="a hash of"):
        verify_consistency(3, 7, ROOTS[3], bad, grown)
    with pytest.raises(ProofError, match="a hash of"):
        verify_consistency(7, 7, bad, bad, ())
    with pytest.raises(ProofError, match="a hash of"):
        verify_range(3, 5, 7, [LEAVES[3], bad], a_range(3, 5, 7), ROOTS[7])
    with pytest.raises(ProofError, match="a hash of"):
        verify_range(3, 5, 7, LEAVES[3:5], (bad, *a_range(3, 5, 7)[1:]), ROOTS[7])


def test_bytes_moved_between_neighbouring_hashes_fail() -> None:
    """If false, a proof of the same total length but other boundaries passes."""
    first, second, third = inclusion(4, 7)
    moved = (Hash(first + second[:1]), Hash(second[1:]), third)
    with pytest.raises(ProofError, match="a hash of"):
        verify_inclusion(4, 7, LEAVES[4], moved, ROOTS[7])


def test_an_interior_node_is_not_an_entry() -> None:
    """If false, the second-preimage attack on Merkle trees works: a node shown as the entry above two."""
    pair = node_hash(LEAVES[4], LEAVES[5])
    with pytest.raises(ProofError):
        verify_inclusion(4, 7, pair, inclusion(4, 7)[1:], ROOTS[7])
    assert (
        root_from_inclusion(2, 4, pair, (LEAVES[6], NODES[2, 0])) == ROOTS[7]
    )  # of another size: another claim


@given(st.integers(1, 130), st.data())
def test_any_flipped_bit_of_an_inclusion_proof_fails(size: int, data: st.DataObject) -> None:
    """If false, an altered entry or a forged path is taken for what was registered."""
    index = data.draw(st.integers(0, size - 1))
    values = [LEAVES[index], *inclusion(index, size), ROOTS[size]]
    which = data.draw(st.integers(0, len(values) - 1))
    values[which] = flipped(values[which], data.draw(st.integers(0, 255)))
    leaf, *proof, root = values
    with pytest.raises(ProofError):
        verify_inclusion(index, size, leaf, proof, root)


def test_equal_sizes_are_consistent_only_when_equal() -> None:
    """If false, two trees of one size pass as one, or a needless proof passes."""
    verify_consistency(7, 7, ROOTS[7], ROOTS[7], ())
    with pytest.raises(ProofError):
        verify_consistency(7, 7, ROOTS[7], ROOTS[6], ())
    with pytest.raises(ProofError):
        verify_consistency(7, 7, ROOTS[7], ROOTS[7], (LEAVES[0],))


@pytest.mark.parametrize(
    ("first", "second"),
    [(0, 0), (0, 7), (8, 7), (-1, 7), (-2, -1), (7, 2**63), (2**63, 2**63), (2**64, 2**64)],
)
def test_sizes_that_have_no_consistency_proof_are_refused(first: int, second: int) -> None:
    """If false, "from size 0" or a shrunken register passes as grown."""
    with pytest.raises(ProofError, match="no proof"):
        verify_consistency(first, second, EMPTY_ROOT, EMPTY_ROOT, ())
    with pytest.raises(ProofError, match="no proof"):
        plan_consistency(first, second)


@pytest.mark.parametrize("second", [2, 3, 6, 7, 8, 9, 15, 16, 17, 127, 128, 129])
def test_a_consistency_proof_one_hash_short_long_or_reordered_fails(second: int) -> None:
    """If false, the proof decides its own shape; powers of two leave out the old root."""
    for first in range(1, second):
        proof = consistency(first, second)
        for wrong in [
            (),
            proof[1:],
            proof[:-1],
            (*proof, proof[-1]),
            (ROOTS[first], *proof),
            *([proof[::-1]] if len(proof) > 1 else []),
        ]:
            with pytest.raises(ProofError):
                verify_consistency(first, second, ROOTS[first], ROOTS[second], wrong)


@pytest.mark.parametrize("second", [7, 8, 9, 33])
def test_a_consistency_proof_binds_both_roots(second: int) -> None:
    """If false, the new root alone is checked: the classic bug, which lets history be rewritten."""
    for first in range(1, second):
        proof = consistency(first, second)
        with pytest.raises(ProofError):
            verify_consistency(first, second, flipped(ROOTS[first], 0), ROOTS[second], proof)
        with pytest.raises(ProofError):
            verify_consistency(first, second, ROOTS[first], flipped(ROOTS[second], 0), proof)
        with pytest.raises(ProofError):
            verify_consistency(first, second, ROOTS[second], ROOTS[first], proof)


@pytest.mark.parametrize("second", range(2, 40))
def test_a_consistency_proof_shows_the_root_of_the_smaller_tree_unless_that_is_perfect(second: int) -> None:
    """False if a proof that a log has made of its own fork did not show which tree it forked."""
    for first in range(1, second):
        proof = consistency(first, second)
        assert roots_from_consistency(first, second, ROOTS[first], proof) == (ROOTS[first], ROOTS[second])
        old, new = roots_from_consistency(first, second, ROOTS[0], proof)
        if first.bit_count() > 1:
            assert (old, new) == (ROOTS[first], ROOTS[second])
        else:
            assert old == ROOTS[0]
            assert new != ROOTS[second]
    with pytest.raises(ProofError):
        roots_from_consistency(second, second, ROOTS[second], ())


@given(st.integers(2, 130), st.data())
def test_any_flipped_bit_of_a_consistency_proof_fails(second: int, data: st.DataObject) -> None:
    """If false, a rewritten register passes as the one that was seen before."""
    first = data.draw(st.integers(1, second - 1))
    values = [ROOTS[first], ROOTS[second], *consistency(first, second)]
    which = data.draw(st.integers(0, len(values) - 1))
    values[which] = flipped(values[which], data.draw(st.integers(0, 255)))
    with pytest.raises(ProofError):
        verify_consistency(first, second, values[0], values[1], values[2:])


@given(st.integers(1, 130), st.data())
def test_any_flipped_dropped_or_added_hash_of_a_range_proof_fails(size: int, data: st.DataObject) -> None:
    """If false, a submission can be answered with entries that are not in the register."""
    begin = data.draw(st.integers(0, size - 1))
    end = data.draw(st.integers(begin + 1, size))
    leaves, proof, root = LEAVES[begin:end], list(a_range(begin, end, size)), ROOTS[size]
    part = data.draw(st.sampled_from([leaves, proof] if proof else [leaves]))
    at = data.draw(st.integers(0, len(part) - 1))
    match data.draw(st.sampled_from(["flip", "drop", "repeat", "root"])):
        case "flip":
            part[at] = flipped(part[at], data.draw(st.integers(0, 255)))
        case "drop":
            del part[at]
        case "repeat":
            part.insert(at, part[at])
        case _:
            root = flipped(root, data.draw(st.integers(0, 255)))
    with pytest.raises(ProofError):
        verify_range(begin, end, size, leaves, proof, root)


@pytest.mark.parametrize(
    ("begin", "end", "size"), [(3, 3, 7), (4, 3, 7), (-1, 3, 7), (3, 8, 7), (0, 0, 0), (0, 1, 2**63)]
)
def test_a_range_that_is_none_is_refused(begin: int, end: int, size: int) -> None:
    """If false, an empty or impossible range is proved."""
    with pytest.raises(ProofError, match="no \\["):
        verify_range(begin, end, size, [], (), EMPTY_ROOT)
    with pytest.raises(ProofError, match="no \\["):
        plan_range(begin, end, size)


def test_a_verified_range_has_paths_of_its_members_only() -> None:
    """If false, a receipt is derived for an entry that was not proved."""
    members = verified(3, 5, 7)
    for index in (-1, 0, 2, 5, 6, 7):
        with pytest.raises(ProofError, match="not in"):
            members.path(index)


@pytest.mark.parametrize("size", LARGE)
def test_verification_near_the_largest_size_ends(size: int) -> None:
    """If false, a question about a huge tree loops, or its arithmetic overflows."""
    for index in (0, size // 2, size - 1):
        count = path_length(index, size)
        root = root_from_inclusion(index, size, LEAVES[0], LEAVES[:count])
        verify_inclusion(index, size, LEAVES[0], LEAVES[:count], root)
        with pytest.raises(ProofError):
            verify_inclusion(index, size, LEAVES[0], LEAVES[: count - 1], root)
        hashes_needed = len(plan_range(index, index + 1, size))
        with pytest.raises(ProofError, match="does not lead"):
            verify_range(index, index + 1, size, LEAVES[:1], LEAVES[:hashes_needed], LEAVES[0])
    for first in (1, size // 2, size - 1):
        with pytest.raises(ProofError):
            verify_consistency(first, size, LEAVES[0], LEAVES[1], LEAVES[: len(plan_consistency(first, size))])


def test_a_proof_fits_the_root_of_any_tree_with_that_node() -> None:
    """If false, the root is computed from something else than leaf, index, size and hashes."""
    assert root_from_inclusion(4, 7, LEAVES[4], inclusion(4, 7)) == tree_root(LEAVES[:7])

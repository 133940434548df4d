"""Files of evidence: what proves something is checked by anybody, and nothing else passes for a proof."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from ledger import base64
from ledger.add_checkpoint import AddCheckpoint
from ledger.errors import LedgerError, MalformedError
from ledger.hashing import leaf_hash
from ledger.proofs import compute, plan_consistency
from ledger.split_views import SplitView, verify_split_view
from ledger.tree import Node, tree_root
from ledger.witnessing import Policy
from services.monitoring.findings import TYPE, WITNESS_TYPE, check
from tests.support.ledgers import ORIGIN, POLICY, REGISTER
from tests.support.monitored import sign

ENTRIES = [b"entry %d" % number for number in range(20)]
OTHER = [b"another", *ENTRIES[1:]]


def consistency(entries: list[bytes], first: int) -> tuple[bytes, tuple[bytes, ...]]:
    """Return the root at size `first` of a tree over `entries`, and the proof from it to all of them."""
    leaves = [leaf_hash(entry) for entry in entries]

    def node(at: Node) -> Any:
        level, index = at
        return tree_root(leaves[index << level : index + 1 << level])

    return tree_root(leaves[:first]), compute(plan_consistency(first, len(entries)), node)


def evidence(
    first: int, entries: list[bytes] = OTHER, changes: Mapping[str, object] = MappingProxyType({})
) -> bytes:
    """Return evidence that the tree under the larger note is over `entries`."""
    root, hashes = consistency(entries, first)
    proof = {
        "type": "consistency",
        "origin": f"{ORIGIN}/{REGISTER}",
        "smaller": sign(REGISTER, ENTRIES[:first]).decode(),
        "larger": sign(REGISTER, entries).decode(),
        "root": base64.encode(root),
        "hashes": [base64.encode(each) for each in hashes],
    }
    return json.dumps({"type": TYPE, "proof": {**proof, **changes}}).encode()


@pytest.mark.parametrize("first", range(1, 20))
def test_a_consistency_proof_from_another_root_proves_a_fork(first: int) -> None:
    """False if a fork at some size had no proof."""
    assert f"first {first} entries" in check(evidence(first), POLICY).proved


@pytest.mark.parametrize("first", range(1, 20))
def test_an_honest_ledger_cannot_be_accused(first: int) -> None:
    """False if two checkpoints of one history could be made to look like two."""
    with pytest.raises(LedgerError):
        check(evidence(first, ENTRIES), POLICY)
    other_root, _ = consistency(OTHER, first)
    with pytest.raises(LedgerError):
        check(evidence(first, ENTRIES, {"root": base64.encode(other_root)}), POLICY)


def test_two_roots_of_one_size_prove_a_fork() -> None:
    """False if the simplest proof were refused, or one note twice were taken for two."""
    view = SplitView(f"{ORIGIN}/{REGISTER}", sign(REGISTER, ENTRIES), sign(REGISTER, OTHER))
    assert verify_split_view(view, POLICY).size == 20
    same = SplitView(f"{ORIGIN}/{REGISTER}", sign(REGISTER, ENTRIES), sign(REGISTER, ENTRIES))
    with pytest.raises(LedgerError):
        verify_split_view(same, POLICY)


@pytest.mark.parametrize(
    "change",
    [
        {"larger": sign("other/register", OTHER).decode()},
        {"smaller": sign(REGISTER, ENTRIES[:7]).decode()[:-9] + "AAAAAAA=\n"},
        {"origin": "other.test/governing"},
        {"hashes": []},
        {"root": "AAAA"},
        {"root": 7},
        {"hashes": "x"},
        {"larger": None},
    ],
)
def test_what_is_not_whole_proves_nothing(change: dict[str, object]) -> None:
    """False if somebody could accuse a ledger with a file that does not hold."""
    with pytest.raises(LedgerError):
        check(evidence(7, changes=change), POLICY)


def test_another_policy_decides_otherwise() -> None:
    """False if evidence brought its own key along."""
    stranger = Policy.parse(b"quorum none\n")
    with pytest.raises(LedgerError, match="names no key"):
        check(evidence(7), stranger)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"type":"daybook.monitor-evidence/1"}', b"[" * 100_000, b"\xff", b"null"],
    ids=len,
)
def test_what_is_no_evidence_is_malformed(data: bytes) -> None:
    """False if any file at all ended the program."""
    with pytest.raises(MalformedError):
        check(data, POLICY)


@pytest.mark.parametrize("first", [7, 19, 20])
def test_the_evidence_of_a_witness_is_checked_as_well(first: int) -> None:
    """False if a monitor's reader needed another program for what a witness has found."""
    _, hashes = consistency(OTHER, first) if first < 20 else (b"", ())
    theirs = sign(REGISTER, OTHER)
    request = AddCheckpoint(first, tuple(hashes), theirs)  # type: ignore[arg-type]
    members = {
        "type": WITNESS_TYPE,
        "kind": "proved",
        "origin": f"{ORIGIN}/{REGISTER}",
        "ours": sign(REGISTER, ENTRIES[:first]).decode(),
        "theirs": theirs.decode(),
        "request": request.data().decode(),
    }
    assert f"first {first} entries" in check(json.dumps(members).encode(), POLICY).proved
    # Of one size with two roots, as a fork that is served comes to a witness: with a proof from elsewhere.
    forked = members | {
        "ours": sign(REGISTER, ENTRIES).decode(),
        "request": AddCheckpoint(7, tuple(consistency(OTHER, 7)[1]), theirs).data().decode(),  # type: ignore[arg-type]
    }
    assert f"first {len(ENTRIES)} entries" in check(json.dumps(forked).encode(), POLICY).proved
    honest = members | {"request": AddCheckpoint(first, (), sign(REGISTER, ENTRIES)).data().decode()}
    with pytest.raises(LedgerError):
        check(json.dumps(honest).encode(), POLICY)


def entry_evidence(entry: bytes, changes: Mapping[str, object] = MappingProxyType({})) -> bytes:
    """Return evidence that an entry stands at index 0 of a register of two."""
    entries = [entry, b"another"]
    proof = {
        "type": "inclusion",
        "note": sign(REGISTER, entries).decode(),
        "index": 0,
        "entry": base64.encode(entry),
        "hashes": [base64.encode(leaf_hash(b"another"))],
    }
    return json.dumps({"type": TYPE, "proof": {**proof, **changes}}).encode()


def test_an_entry_that_is_none_is_proved_from_itself() -> None:
    """False if the proof said nothing of what is wrong, where the entry alone shows it."""
    checked = check(entry_evidence(b"no entry"), POLICY)
    assert "with this entry at 0" in checked.proved
    assert "which is none" in checked.proved
    assert checked.left == ""


@pytest.mark.parametrize(
    "change", [{"index": 1}, {"index": "0"}, {"entry": base64.encode(b"x")}, {"hashes": []}]
)
def test_an_entry_that_is_not_there_is_not_proved(change: dict[str, object]) -> None:
    """False if an entry could be put under a checkpoint that does not hold it."""
    with pytest.raises(LedgerError):
        check(entry_evidence(b"no entry", change), POLICY)

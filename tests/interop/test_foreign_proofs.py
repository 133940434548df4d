"""The proof in our receipts is checked by code of transparency-dev alone, offline: format, quorum, tree."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import grpc
import pytest
from daybook.registration.v1 import registration_service_pb2 as pb
from daybook.registration.v1 import registration_service_pb2_grpc as rpc

from ledger.errors import SignatureError
from ledger.governing import GOVERNING
from ledger.notes import SignerKey, cosignature_line, format_note, split_note
from ledger.receipt_file import Receipt
from ledger.tlog_proofs import TlogProof
from ledger.witnessing import Policy, judge
from tests.support.growing_log import GrowingLog, key
from tests.support.offices import SIZES, Served, office

pytestmark = [pytest.mark.journey, pytest.mark.timeout(1_200)]


@dataclass(frozen=True, slots=True)
class Checker:
    """The foreign verifier, and a folder for the files that it is given."""

    program: Path
    folder: Path

    def check(self, policy: str, vkey: str, entry: bytes, proof: bytes) -> subprocess.CompletedProcess[str]:
        files = {"policy": policy.encode(), "entry": entry, "proof": proof}
        for name, data in files.items():
            (self.folder / name).write_bytes(data)
        return subprocess.run(
            [self.program, "policy", vkey, "entry", "proof"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def checker(foreign: Path, tmp_path: Path) -> Checker:
    return Checker(foreign / "checkproof", tmp_path)


def receipt(served: Served, register: str, index: int) -> Receipt:
    """Ask the running ledger for a receipt."""
    with grpc.insecure_channel(served.grpc) as channel:
        request = pb.GetReceiptRequest(register=register, index=index)
        return Receipt.parse(rpc.RegistrationServiceStub(channel).GetReceipt(request, timeout=30).receipt)


PLACES = [(office(size), index, size) for size in SIZES if size for index in sorted({0, size // 2, size - 1})]
PLACES += [(GOVERNING, 1, 2 + len(SIZES))]


@pytest.mark.parametrize(("register", "index", "size"), PLACES)
def test_the_proof_of_a_receipt_verifies(
    checker: Checker, served: Served, register: str, index: int, size: int
) -> None:
    """If false, our receipts prove something to our own code only."""
    got = receipt(served, register, index)
    done = checker.check(served.register_policy(register), served.vkey(register), got.entry, got.proof.text())
    assert (done.returncode, done.stdout) == (0, f"entry {index} of {size}\n"), done.stderr


def test_the_proof_of_a_receipt_proves_no_other_entry(checker: Checker, served: Served) -> None:
    """If false, the check above would pass whatever it was given."""
    got, another = receipt(served, office(257), 100), receipt(served, office(257), 101)
    policy, vkey, proof = "quorum none\n", served.vkey(office(257)), got.proof.text()
    assert checker.check(policy, vkey, got.entry, proof).returncode == 0
    wrong = {
        "another entry": (another.entry, proof),
        "another index": (got.entry, proof.replace(b"index 100\n", b"index 101\n")),
        "another path": (got.entry, another.proof.text().replace(b"index 101\n", b"index 100\n")),
        "another size": (got.entry, proof.replace(b"\n257\n", b"\n258\n")),
    }
    for what, (entry, changed) in wrong.items():
        assert checker.check(policy, vkey, entry, changed).returncode == 1, what


WITNESSES = ("one", "two", "three")

POLICIES = {
    "nobody": "quorum none\n",
    "one witness": "quorum two\n",
    "all": "group g all one two three\nquorum g\n",
    "any": "group g any one two three\nquorum g\n",
    "two of three": "group g 2 one two three\nquorum g\n",
    "nested": "group either any two three\ngroup g all one either\nquorum g\n",
}


def cosigner(name: str) -> SignerKey:
    return SignerKey(f"witness-{name}.example/w", key(f"witness {name}"))


@pytest.mark.parametrize("quorum", POLICIES.values(), ids=POLICIES)
def test_whoever_has_cosigned_others_judge_the_quorum_as_we_do(checker: Checker, quorum: str) -> None:
    """If false, a policy file, or a cosignature of our witness, means something else to others."""
    log = GrowingLog("ledger.example/department/office")
    note = log.note(1)
    # With an address each: whoever wrote this parser does not take a witness without one.
    lines = (f"witness {name} {cosigner(name).cosigner} https://{name}.example\n" for name in WITNESSES)
    policy = Policy.parse(f"log {log.vkey}\n{''.join(lines)}{quorum}".encode())
    text, signed = split_note(note)
    for count in range(len(WITNESSES) + 1):
        for names in combinations(WITNESSES, count):
            cosigned = [cosignature_line(text, cosigner(name), 1_790_000_000) for name in names]
            proof = TlogProof(0, (), format_note(text, [*signed, *cosigned]))
            done = checker.check(policy.text().decode(), log.vkey, b":0", proof.text())
            assert (done.returncode == 0) == holds(proof, policy, log.origin), (names, done.stderr)


def holds(proof: TlogProof, policy: Policy, origin: str) -> bool:
    """Tell whether our own code finds the quorum met."""
    try:
        judge(proof.note, policy, origin)
    except SignatureError:
        return False
    return True

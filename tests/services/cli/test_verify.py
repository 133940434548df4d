from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ledger import canonical
from ledger.notes import format_note, split_note
from ledger.receipt_file import Receipt
from ledger.witnessing import Policy, cosign
from services.client.answers import Registered
from services.client.signing import sign_submission
from tests.support.answering import ORIGIN, AnsweringLedger, key
from tests.support.command import run, run_json
from tests.support.forged_ledger import ACCEPTED, Log, signed_entry
from tests.support.forged_ledger import canonical as canonical_json
from tests.support.records import decision_bytes
from tests.support.server import environment
from tests.support.story import LEDGER_ORIGIN, REGISTER, signer
from tests.support.vectors import VECTORS, load

POLICY = VECTORS / "policy"
RECEIPTS = VECTORS / "receipts"
FULLEST = RECEIPTS / "anchored-at-a-smaller-size.receipt"
CASES = load("receipts.json")["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["file"]))
def test_each_vector_ends_with_its_status(case: dict[str, str]) -> None:
    """False if a bad receipt passed, or a good one failed, for whoever relies on the exit status."""
    good = case["verdict"] == "verified"
    run("verify", VECTORS / case["file"], "--policy", POLICY, status=0 if good else 1)


def test_a_bad_receipt_is_reported_on_stderr_with_its_reason() -> None:
    """False if a failure were silent, or printed where a script reads results."""
    result = run("verify", RECEIPTS / "bad/proof-hashes-swapped.receipt", "--policy", POLICY, status=1)
    assert result.stdout == ""
    assert "does NOT verify" in result.stderr
    error = run_json("verify", RECEIPTS / "bad/proof-hashes-swapped.receipt", "--policy", POLICY, status=1)[
        "error"
    ]
    assert error["reason"] == "PROOF_INVALID"


def test_the_text_says_what_is_proved_and_what_is_not() -> None:
    """False if a reader could take a claim for a proof."""
    text = run("verify", FULLEST, "--policy", POLICY).stdout
    proved, claimed = text.split("Claimed by the ledger, not proved")
    claimed, not_proved = claimed.split("Not proved")
    assert "1168b4da-721e-452a-abad-d256e13d742c, version 1" in proved
    assert "department-for-synthetic-affairs/secretary-of-state" in proved
    assert "2026-07-03T15:20:11.042Z" in claimed
    assert "not been revoked is not shown" in not_proved


@pytest.mark.parametrize("late", ["key", "anchor"])
def test_a_clock_far_ahead_on_a_governing_checkpoint_is_refused_too(tmp_path: Path, late: str) -> None:
    """False if a time that has not come passed wherever it is not the register's own."""
    parsed = Receipt.parse(FULLEST.read_bytes())
    group = getattr(parsed, late)
    opened = Policy.parse(POLICY.read_bytes()).open(group.proof.note, f"{LEDGER_ORIGIN}/governing")
    text, lines = split_note(group.proof.note)
    kept = [line for line in lines if "witness" not in line.name]
    ahead = [
        cosign(opened.checkpoint, signer(f"witness {name}", f"witness-{name}.example/w"), 1 << 40)
        for name in ("one", "two")
    ]
    proof = replace(group.proof, note=format_note(text, [*kept, *ahead]))
    path = tmp_path / "receipt"
    path.write_bytes(replace(parsed, **{late: replace(group, proof=proof)}).data())
    result = run("verify", path, "--policy", POLICY, status=1)
    assert "in the future" in result.stderr


def test_what_a_record_says_it_is_cannot_pass_for_what_is_proved(tmp_path: Path) -> None:
    """False if whoever writes a record could write lines of the report, or steer the reader's terminal."""
    names = {
        "record_id": "x\n  Signed     by the archive",
        "type": "y\n  Witnessed  by all\x1b[2J",
        "version": 1,
    }
    entry = signed_entry(REGISTER, canonical_json({**names, "register": REGISTER}), ["stranger"])
    log = Log(REGISTER, [entry])
    times = dict.fromkeys(("one", "two", "three"), ACCEPTED)
    path = tmp_path / "receipt"
    path.write_bytes(Receipt(entry, log.proof(0, 1, times)).data())
    lines = run("verify", path, "--policy", POLICY).stdout.splitlines()
    assert not any("by the archive" in line or "by all" in line for line in lines if "Record" not in line)
    assert "\x1b" not in "".join(lines)
    told = run_json("verify", path, "--policy", POLICY)
    assert (told["record_id"], told["record_type"]) == (None, names["type"])


def test_json_has_the_same_with_stable_names() -> None:
    """False if a script that reads the JSON form broke."""
    told = run_json("verify", FULLEST, "--policy", POLICY)
    assert told["verified"] is True
    assert (told["index"], told["size"], told["witnessed"]) == (0, 7, True)
    assert told["department_proved"] is True
    assert told["anchored"]["size"] == 3
    assert told["record_sha256"] == "04d4087340f069c4749f0d1e8275d11f6a6c9878912e70646b065519cad136eb"


def test_under_quorum_none_it_says_not_witnessed(tmp_path: Path) -> None:
    """False if a ledger's own word passed for that of witnesses."""
    policy = tmp_path / "policy"
    policy.write_bytes(POLICY.read_bytes().replace(b"quorum majority", b"quorum none"))
    assert "not witnessed" in run("verify", FULLEST, "--policy", policy).stdout
    assert run_json("verify", FULLEST, "--policy", policy)["witnessed"] is False


def test_without_key_sections_the_department_is_claimed(tmp_path: Path) -> None:
    """False if whose key it is were shown as proved without evidence."""
    receipt = tmp_path / "r.receipt"
    parsed = Receipt.parse(FULLEST.read_bytes())
    receipt.write_bytes(Receipt(parsed.entry, parsed.proof).data())
    text = run("verify", receipt, "--policy", POLICY).stdout
    assert "claimed to be one of department-for-synthetic-affairs" in text
    assert run_json("verify", receipt, "--policy", POLICY)["department_proved"] is False


def test_a_disclosure_opens_withheld_fields_and_a_changed_one_does_not(tmp_path: Path) -> None:
    """False if a withheld value could be replaced by another after registration."""
    disclosure = VECTORS / "disclosure.json"
    told = run_json("verify", FULLEST, "--policy", POLICY, "--disclosure", disclosure)
    assert told["disclosed"]["title"] == "Approve purchase of 25 million gowns"
    changed = tmp_path / "changed.json"
    changed.write_bytes(disclosure.read_bytes().replace(b"25 million", b"26 million"))
    result = run("verify", FULLEST, "--policy", POLICY, "--disclosure", changed, status=1)
    assert "does NOT open" in result.stderr


def receipt_with_evidence(tmp_path: Path, document: bytes) -> tuple[Path, Path]:
    ledger = AnsweringLedger()
    evidence = {
        "kind": "minutes",
        "media_type": "text/plain",
        "size": len(document),
        "sha256": hashlib.sha256(document).hexdigest(),
    }
    signed = sign_submission([decision_bytes(evidence=[evidence])], ORIGIN, [key("department")])
    answer = ledger.verifier().verify(signed, ledger.answer(signed))
    assert isinstance(answer, Registered)
    receipt, policy = tmp_path / "r.receipt", tmp_path / "policy"
    receipt.write_bytes(answer.receipt(0))
    policy.write_bytes(ledger.policy().text())
    return receipt, policy


def test_a_document_is_compared_with_the_evidence_of_the_record(tmp_path: Path) -> None:
    """False if another document than the one registered passed, or the one registered did not."""
    receipt, policy = receipt_with_evidence(tmp_path, b"the minutes\n")
    document = tmp_path / "minutes.txt"
    document.write_bytes(b"the minutes\n")
    assert "is evidence 0" in run("verify", receipt, "--policy", policy, "--document", document).stdout
    document.write_bytes(b"other minutes\n")
    error = run_json("verify", receipt, "--policy", policy, "--document", document, status=1)["error"]
    assert error["reason"] == "DOCUMENT_DOES_NOT_MATCH"
    assert error["sha256"] == hashlib.sha256(b"other minutes\n").hexdigest()


def test_findings_are_printed_and_the_status_is_fine(tmp_path: Path) -> None:
    """False if a false statement that was duly registered were reported as a broken ledger."""
    ledger = AnsweringLedger()
    record = canonical.format({**json.loads(decision_bytes()), "channel": "carrier-pigeon"})
    signed = sign_submission([record], ORIGIN, [key("department")])
    answer = ledger.verifier().verify(signed, ledger.answer(signed))
    assert isinstance(answer, Registered)
    receipt, policy = tmp_path / "r.receipt", tmp_path / "policy"
    receipt.write_bytes(answer.receipt(0))
    policy.write_bytes(ledger.policy().text())
    assert "Findings" in run("verify", receipt, "--policy", policy).stdout
    assert run_json("verify", receipt, "--policy", policy)["findings"]


@pytest.mark.parametrize(
    ("receipt", "policy", "status", "reason"),
    [
        (RECEIPTS / "there-is-none.receipt", POLICY, 3, "UNREADABLE"),
        (FULLEST, VECTORS / "there-is-none", 3, "UNREADABLE"),
        (FULLEST, VECTORS / "keys.json", 2, "POLICY_MALFORMED"),
    ],
    ids=["no-receipt", "no-policy-file", "not-a-policy"],
)
def test_what_cannot_be_judged_is_neither_fine_nor_a_failure(
    receipt: Path, policy: Path, status: int, reason: str
) -> None:
    """False if a missing file were taken for tampering, or for success."""
    error = run_json("verify", receipt, "--policy", policy, status=status)["error"]
    assert error["reason"] == reason


def test_a_file_without_end_is_no_receipt() -> None:
    """False if a file from a stranger could fill the memory of whoever looks at it."""
    error = run_json("verify", "/dev/zero", "--policy", POLICY, status=2)["error"]
    assert error["reason"] == "NOT_A_RECEIPT"


def test_what_is_no_receipt_at_all_is_no_integrity_failure() -> None:
    """False if a slip of the hand were reported as tampering."""
    error = run_json("verify", POLICY, "--policy", POLICY, status=2)["error"]
    assert error["reason"] == "NOT_A_RECEIPT"
    assert "neither a receipt nor an evidence pack" in error["message"]


def test_a_receipt_that_lost_its_first_line_and_its_name_is_damaged_and_still_one(tmp_path: Path) -> None:
    """False if whoever changes one byte of a receipt turned tampering into a slip of the hand."""
    (tmp_path / "file").write_bytes(FULLEST.read_bytes()[1:])
    run("verify", tmp_path / "file", "--policy", POLICY, status=1)


def test_without_a_policy_it_teaches_where_one_comes_from() -> None:
    """False if a newcomer were told only that an option is missing."""
    assert "daybook policy" in run("verify", FULLEST, status=2).stderr


def test_it_loads_no_network_and_no_database_module() -> None:
    """False if whoever verifies had to trust, or install, what a server is made of."""
    program = f"""
import sys
from services.cli import main
try:
    main(["verify", {str(FULLEST)!r}, "--policy", {str(POLICY)!r}])
except SystemExit as end:
    assert end.code == 0, end.code
banned = "grpc google daybook faust aiokafka kafka sqlite3 psycopg starlette uvicorn".split()
loaded = sorted(name for name in sys.modules if name.split(".")[0] in banned)
assert not loaded, loaded
assert "asyncio" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], env=environment(), check=True, capture_output=True)

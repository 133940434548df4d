"""`daybook receipt`: what is pending is said to be, and what proves more is never replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

import services.compose
from services.compose import register_locally
from tests.support.command import run, run_json
from tests.support.ledger_dir import LedgerOnDisk, governing, make_ledger
from tests.support.server_process import running
from tests.support.witness_process import MadeWitness, RunningWitness, make_witness, witnessing


def published(ledger: LedgerOnDisk, made: MadeWitness, served: RunningWitness, policy: Path) -> None:
    """Have the ledger ask one witness, and write the policy file that verifiers then hold."""
    made.add_ledger(str(ledger.policy.logs[0].key))
    text = run("policy", ledger.root, "--witness", f"{made.directory / 'key.pub'}={served.url}").stdout
    policy.write_text(text, encoding="utf-8")
    asked = governing(
        "policy.published/1", kind="witness", name="default", text=text, effective_from="2026-01-01T00:00Z"
    )
    with pytest.MonkeyPatch.context() as patched:
        # It is to be sealed under the new policy, also where the machine is busy.
        patched.setattr(services.compose, "SETTLE_SECONDS", 60.0)
        register_locally(ledger.root, asked.body, asked.records, asked.signatures)


def test_a_receipt_that_is_not_sealed_yet_is_pending_and_no_failure(tmp_path: Path) -> None:
    """False if a department were told of an integrity failure while a witness is merely away."""
    ledger, made = make_ledger(tmp_path / "ledger"), make_witness(tmp_path / "one", "one.example/w")
    policy = tmp_path / "policy"
    command = ("receipt", "--register", "governing", "--policy", policy, "--receipts", tmp_path / "receipts")
    with witnessing(made.directory) as served:
        published(ledger, made, served, policy)
        address = served.http
    last = 3  # opened, a register, a key, and then the policy
    with running(ledger.root, tmp_path / "serve.log") as server:
        told = run_json(*command, "--server", server.grpc, "--index", str(last))
        assert told["witnesses"] == ["one.example/w"]
        assert told["replaced"]
    # From before any seal: a ledger whose witness has not been asked yet.
    fresh = make_ledger(tmp_path / "fresh")
    with witnessing(made.directory, "--listen", address) as served:
        text = run("policy", fresh.root, "--witness", f"{made.directory / 'key.pub'}={served.url}").stdout
    policy.write_text(text, encoding="utf-8")
    with running(fresh.root, tmp_path / "fresh.log") as server:
        error = run_json(*command, "--server", server.grpc, "--index", "0", status=3)["error"]
    assert error["reason"] == "NOT_SEALED"
    assert "cosigned by nobody" in error["message"]

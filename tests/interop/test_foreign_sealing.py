"""The whole way: a ledger whose published policy asks for omniwitness and litewitness, both of them.

From the real commands to a receipt that our own verifier and a foreign one judge alike.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError

import pytest

from ledger.governing import GOVERNING
from ledger.receipt_file import Receipt
from ledger.witnessing import Policy, judge
from tests.interop.programs import fetch, wait_until
from tests.support.foreign_witness import ForeignWitness, litewitness, log_list, omniwitness
from tests.support.records import DEPARTMENT, LEDGER_ORIGIN, REGISTER, decision_bytes, record_id
from tests.support.server import MadeLedger, Server, daybook, make_ledger, serving

pytestmark = [pytest.mark.journey, pytest.mark.timeout(1_200)]

BOTH: Final = {"omniwitness", "litewitness"}
SECOND: Final = f"{DEPARTMENT}/permanent-secretary"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A running ledger, its two witnesses, and the policy file that a verifier of it holds."""

    ledger: MadeLedger
    server: Server
    witnesses: tuple[ForeignWitness, ForeignWitness]
    policy: Path

    def register(self, number: int, register: str = REGISTER) -> Path:
        """Register one decision, and return the receipt that the client kept."""
        folder = self.policy.parent / f"record-{number}"
        folder.mkdir()
        (folder / "record.json").write_bytes(
            decision_bytes(
                register=register,
                record_id=record_id(number),
                reference={"number": number, "series": "MD/2026"},
            )
        )
        daybook(
            *("register", folder / "record.json", "--server", self.server.grpc, "--register", register),
            *("--key", self.ledger.key, "--policy", self.policy, "--receipts", folder),
        )
        (kept,) = folder.rglob("*.receipt")
        return kept

    def verify(self, receipt: Path, status: int = 0) -> dict[str, Any]:
        """Return what `daybook verify` reports."""
        report: dict[str, Any] = json.loads(
            daybook("verify", receipt, "--policy", self.policy, "--json", status=status).stdout
        )
        return report

    def shows(self, register: str) -> bool:
        """Tell whether the ledger shows a checkpoint of a register: a sealed one, since it has witnesses."""
        try:
            return bool(self.checkpoint(register))
        except HTTPError as error:
            if error.code != 404:
                raise
            return False

    def checkpoint(self, register: str) -> bytes:
        """Return the checkpoint note that the ledger shows of a register."""
        return fetch(f"http://{self.server.http}/logs/{register}/checkpoint")


def vkey(directory: Path, register: str) -> str:
    """Return a register's key, as other tools are told it."""
    (log,) = Policy.parse(daybook("policy", directory, "--register", register).stdout.encode()).logs
    return str(log.key)


@pytest.fixture(scope="module")
def sealed(foreign: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealed]:
    root = tmp_path_factory.mktemp("sealed")
    ledger = make_ledger(root)
    logs = log_list(vkey(ledger.directory, register) for register in (GOVERNING, REGISTER))
    with (
        omniwitness(foreign, root / "omniwitness", logs) as first,
        litewitness(foreign, root / "litewitness", logs) as second,
    ):
        policy = root / "verifier.policy"
        policy.write_text(
            f"log {vkey(ledger.directory, GOVERNING)}\n{first.policy_line}\n{second.policy_line}\n"
            "group both all omniwitness litewitness\nquorum both\n",
            encoding="utf-8",
        )
        daybook(
            *("govern", ledger.directory, "publish-policy", policy, "--kind", "witness", "--name", "ledger")
        )
        with serving(ledger.directory) as server:
            yield Sealed(ledger, server, (first, second), policy)


def test_a_record_is_sealed_by_both(sealed: Sealed) -> None:
    """If false, an institution that runs a witness of another make cannot witness our ledger."""
    report = sealed.verify(sealed.register(1))
    assert report["witnessed"] is True
    assert set(report["witnesses"]) == BOTH
    assert report["not_before"] <= report["not_after"]


def test_a_foreign_verifier_finds_the_receipts_quorum_met(sealed: Sealed, foreign: Path) -> None:
    """If false, the sealed note in a receipt is sealed by our own reckoning only."""
    receipt = Receipt.parse(sealed.register(2).read_bytes())
    folder = sealed.policy.parent
    (folder / "entry").write_bytes(receipt.entry)
    (folder / "proof").write_bytes(receipt.proof.text())
    done = subprocess.run(
        [
            *(foreign / "checkproof", sealed.policy, vkey(sealed.ledger.directory, REGISTER)),
            *(folder / "entry", folder / "proof"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"entry {receipt.proof.index} of ")


def test_every_register_is_shown_with_both_cosignatures(sealed: Sealed) -> None:
    """If false, what others read over HTTP is not what the witnesses have sealed."""
    sealed.register(3)
    policy = Policy.parse(sealed.policy.read_bytes())
    for register in (GOVERNING, REGISTER):
        judged = judge(sealed.checkpoint(register), policy, f"{LEDGER_ORIGIN}/{register}")
        assert {each.witness for each in judged.cosignatures} == BOTH


def test_after_a_restart_a_register_goes_on_once_its_witnesses_know_it(sealed: Sealed) -> None:
    """If false, a foreign witness cannot confirm a head, or a register opened since is never sealed."""
    assert sealed.server.stop() == 0
    directory = sealed.ledger.directory
    daybook("govern", directory, "open-register", SECOND, "--title", "Permanent Secretary")
    with serving(directory) as server:
        again = replace(sealed, server=server)
        assert set(again.verify(again.register(4))["witnesses"]) == BOTH
        # To them each register is a log, and of this one they have not heard.
        assert not again.shows(SECOND)
        logs = log_list(vkey(directory, register) for register in (GOVERNING, REGISTER, SECOND))
        for witness in sealed.witnesses:
            witness.learn(logs)
        wait_until(lambda: again.shows(SECOND), "a sealed checkpoint of the new register")
        assert set(again.verify(again.register(5, SECOND))["witnesses"]) == BOTH

"""Drills on real ledgers: every lie is caught, a clean copy is not, and the ledger is left as it was."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledger.ed25519 import SecretKey
from services.drill import drilling
from services.drill.lies import LIES, Lie
from services.drill.rewriting import rewritten
from tests.journeys.test_monitor import register, witnessed, write
from tests.support.command import run, run_json
from tests.support.ledger_dir import make_ledger as make_small_ledger
from tests.support.ledgers import DEPARTMENT, DEPARTMENT_KEY, decision
from tests.support.records import REGISTER
from tests.support.server import MadeLedger, daybook, make_ledger, serving
from tests.support.store_surgery import opened

REWRITTEN = {"back-dated", "altered", "re-ordered", "forked", "department-key-swapped"}
SHORTER = {"deleted", "truncated", "rolled-back"}


@dataclass(frozen=True, slots=True)
class Drilled:
    """A ledger that was made and filled with the real commands, and its department's receipts."""

    made: MadeLedger
    receipts: Path


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Drilled:
    root = tmp_path_factory.mktemp("drilled")
    made, receipts = make_ledger(root), root / "receipts"
    with serving(made.directory) as server:
        for first, last in ((0, 3), (3, 5), (5, 300), (300, 301)):
            records = root / "records.ndjson"
            records.write_bytes(b"".join(decision(n, REGISTER) + b"\n" for n in range(first, last)))
            daybook(
                *("register", "--server", server.grpc, "--register", REGISTER, "--key", made.key),
                *("--policy", made.policy, "--receipts", receipts, records),
            )
    return Drilled(made, receipts)


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of every file below a folder, and when it was written."""
    return {
        str(path): f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mtime_ns}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def by_tool(told: dict[str, Any], name: str) -> dict[str, set[str]]:
    """Return what each tool said of a lie: its codes, of the registers that were lied about."""
    (copy,) = (each for each in told["copies"] if each["name"] == name)
    assert not copy["why_not"], copy
    found: dict[str, set[str]] = {}
    for each in copy["caught"]:
        found.setdefault(each["tool"], set()).add(each["code"])
    return found


@pytest.mark.journey
def test_every_lie_about_a_real_ledger_is_caught_and_nothing_else_is(ledger: Drilled, tmp_path: Path) -> None:
    """False if an operator with every key could lie unseen, or an auditor were warned of an honest ledger."""
    before = digests(ledger.made.directory)
    kept = tmp_path / "kept"
    told = run_json("drill", ledger.made.directory, "--receipts", ledger.receipts, "--keep", kept)
    assert (told["ok"], told["control"], told["uncaught"]) == (True, [], [])
    assert told["register"] == REGISTER
    names = [each["name"] for each in told["copies"]]
    assert names == [*(lie.name for lie in LIES), "receipt-altered", "receipt-forged"]
    # Whoever has been here before needs nobody else's word.
    for name in REWRITTEN:
        assert by_tool(told, name)["audit"] >= {"fork"}, name
    for name in SHORTER:
        assert by_tool(told, name)["audit"] & {"fork", "rollback"}, name
    assert by_tool(told, "key-swapped")["audit"] == {"signature"}
    assert by_tool(told, "omitted-register")["audit"] == {"hidden"}
    assert by_tool(told, "back-dated-later")["audit"] >= {"claimed-before-visit", "key-unendorsed"}
    # Two auditors who compare, or a department with a receipt, find a rewritten history as well.
    for name in REWRITTEN:
        assert "fork" in by_tool(told, name)["compare"], name
        assert "fork" in by_tool(told, name)["audit, with a receipt's checkpoint"], name
    # A record that its department never signed is found by whoever reads it.
    assert "forged" in by_tool(told, "altered")["audit, first visit"]
    assert by_tool(told, "altered")["fsck"] == {"problem"}
    assert set(by_tool(told, "receipt-altered")) == {"verify"}
    assert by_tool(told, "receipt-forged") == {"audit, with a receipt's checkpoint": {"fork"}}
    # Nothing in the ledger was touched, and what is told as a proof is one.
    assert digests(ledger.made.directory) == before
    proofs = [
        each["evidence"]
        for copy in told["copies"]
        for each in copy["caught"]
        if each["code"] == "fork" and each["tool"] == "audit"
    ]
    assert proofs
    for path in proofs:
        run("monitor", "--policy", ledger.made.policy, "--check", path, status=1)


@pytest.mark.journey
def test_the_lies_agree_with_themselves(ledger: Drilled, tmp_path: Path) -> None:
    """False if a lie were found because it is damaged: then it would test nothing."""
    told = run_json("drill", ledger.made.directory, "--receipts", ledger.receipts)
    for name in (REWRITTEN | SHORTER) - {"altered"}:
        assert "fsck" not in by_tool(told, name), name
        assert not by_tool(told, name).get("audit, first visit", set()) - {"key-unendorsed"}, name


@pytest.mark.journey
def test_lies_about_a_witnessed_ledger_are_caught_with_its_anchors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if a drill could not be held where checkpoints are sealed and anchored."""
    monkeypatch.setenv("DAYBOOK_ANCHOR_SECONDS", "0.1")
    made = make_small_ledger(tmp_path / "ledger")
    write(made.root, range(3))
    (tmp_path / "policy").write_bytes(made.policy.text())
    with witnessed(made, tmp_path) as policy, serving(made.root) as server:
        for number in range(10, 14):
            asyncio.run(register(server, policy.read_bytes(), number))
    told = run_json("drill", made.root, "--policy", policy)
    assert (told["ok"], told["witnessed"], told["control"], told["uncaught"]) == (True, True, [], [])
    # Without the governance key there are lies that cannot be told.
    assert {each["name"] for each in told["copies"] if each["why_not"]} == {
        "department-key-swapped",
        "back-dated-later",
    }
    # Even somebody who comes for the first time sees that no witness has cosigned the lie.
    for name in REWRITTEN - {"department-key-swapped"}:
        assert by_tool(told, name)["audit, first visit"], name


@pytest.mark.journey
def test_a_lie_that_nothing_catches_is_told_with_status_1(
    ledger: Drilled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if a drill could end well although somebody lied unseen."""
    honest = Lie("honest", "nothing was done", lambda original, _, folder: rewritten(original, folder, {}))
    monkeypatch.setattr(drilling, "LIES", (honest,))
    told = run_json("drill", ledger.made.directory, status=1)
    assert (told["ok"], told["uncaught"]) == (False, ["honest"])
    text = run("drill", ledger.made.directory, status=1).stdout
    assert "UNCAUGHT: honest" in text


@pytest.mark.journey
def test_an_alarm_over_a_clean_copy_fails_the_drill(
    ledger: Drilled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if tools that cry wolf passed: they would catch every lie."""
    damaged = tmp_path / "damaged"
    shutil.copytree(ledger.made.directory, damaged)
    with opened(damaged / "daybook.sqlite3") as store:
        store.execute("UPDATE record SET version = version + 7")
    monkeypatch.setattr(drilling, "LIES", ())
    told = run_json("drill", damaged, status=1)
    assert not told["ok"]
    assert {each["tool"] for each in told["control"]} == {"fsck"}


@pytest.mark.journey
def test_findings_that_a_ledger_has_anyway_catch_no_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if an odd but honest ledger failed its drill, or its own oddities passed for detection."""
    made = make_small_ledger(tmp_path / "ledger", keys={DEPARTMENT: (DEPARTMENT_KEY, SecretKey(b"\x05" * 32))})
    write(made.root, range(3))
    honest = Lie("honest", "nothing was done", lambda original, _, folder: rewritten(original, folder, {}))
    monkeypatch.setattr(drilling, "LIES", (honest,))
    told = run_json("drill", made.root, status=1)
    assert (told["control"], told["uncaught"]) == ([], ["honest"])
    assert {each["code"] for each in told["known"]} == {"key-unendorsed"}


def test_a_ledger_that_is_served_is_left_alone(ledger: Drilled) -> None:
    """False if a copy could be made of a store in the middle of a write."""
    with serving(ledger.made.directory):
        assert "stop what serves it first" in run("drill", ledger.made.directory, status=2).output


def test_without_records_there_is_nothing_to_lie_about(tmp_path: Path) -> None:
    """False if an empty drill looked like one that was passed."""
    made = make_small_ledger(tmp_path / "ledger")
    told = run_json("drill", made.root, status=2)
    assert told["error"]["reason"] == "NOTHING_TO_DRILL"


def test_a_directory_to_keep_things_in_is_not_written_over(ledger: Drilled, tmp_path: Path) -> None:
    """False if evidence of an earlier drill could be lost."""
    run("drill", ledger.made.directory, "--keep", tmp_path, status=2)

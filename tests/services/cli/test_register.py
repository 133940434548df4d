"""`daybook register` against a real server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.receipts import verify_receipt
from ledger.witnessing import Policy
from services.cli.register import _together
from services.client.batches import Item, batches
from tests.support.records import REGISTER, correction, decision, decision_bytes, period_return, record_id
from tests.support.server import MadeLedger, Server, daybook, environment, make_ledger, serving

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> MadeLedger:
    return make_ledger(tmp_path_factory.mktemp("register"))


@pytest.fixture(scope="module")
def server(ledger: MadeLedger) -> Iterator[Server]:
    with serving(ledger.directory) as running:
        yield running


class Department:
    """Registers files with the command, in a folder of its own."""

    def __init__(self, ledger: MadeLedger, server: Server, folder: Path) -> None:
        self.ledger = ledger
        self.server = server
        self.folder = folder
        self.receipts = folder / "receipts"

    def write(self, records: list[dict[str, Any]], name: str = "records.ndjson") -> Path:
        path = self.folder / name
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
        return path

    def register(self, path: Path, *options: str | Path, status: int = 0) -> dict[str, Any]:
        done = daybook(
            *("register", "--server", self.server.grpc, "--register", REGISTER, "--key", self.ledger.key),
            *("--receipts", self.receipts, "--policy", self.ledger.policy, "--json", *options, path),
            status=status,
            unsynced=True,  # a receipt at a time, hundreds of them
        )
        value: dict[str, Any] = json.loads(done.stdout)
        return value

    def kept(self) -> list[Path]:
        return sorted(self.receipts.rglob("*.receipt"))


@pytest.fixture
def department(ledger: MadeLedger, server: Server, tmp_path: Path) -> Department:
    return Department(ledger, server, tmp_path)


def decisions(first: int, count: int) -> list[dict[str, Any]]:
    return [decision(record_id=record_id(number)) for number in range(first, first + count)]


def test_every_record_gets_a_receipt_that_verifies_offline(department: Department) -> None:
    """False if a department could be told "registered" without holding the proof."""
    told = department.register(department.write(decisions(1_000, 1_203)))
    assert (told["registered"], told["registered_before"], told["skipped"]) == (1_203, 0, 0)
    assert len(department.kept()) == 1_203
    policy = Policy.parse(department.ledger.policy.read_bytes())
    for path in department.kept()[::100]:
        verified = verify_receipt(path.read_bytes(), policy)
        assert path.name == f"{verified.record_id}.{verified.version}.receipt"
        assert verified.authorised is not None
    daybook("verify", department.kept()[0], "--policy", department.ledger.policy)


def test_a_second_run_sends_nothing_and_changes_nothing(department: Department) -> None:
    """False if running the command again registered anything twice, or rewrote receipts."""
    path = department.write(decisions(3_000, 7))
    department.register(path)
    before = {kept: kept.read_bytes() for kept in department.kept()}
    told = department.register(path)
    assert (told["registered"], told["registered_before"], told["skipped"]) == (0, 0, 7)
    assert {kept: kept.read_bytes() for kept in department.kept()} == before


def test_lost_receipts_are_fetched_and_only_the_rest_is_registered(department: Department) -> None:
    """False if a run that was interrupted could not be taken up again, or registered anything twice."""
    department.register(department.write(decisions(4_000, 5)))
    for path in department.kept():
        path.unlink()
    mixed = [*decisions(4_100, 2), *decisions(4_000, 5), *decisions(4_102, 2)]
    told = department.register(department.write(mixed))
    assert (told["registered"], told["registered_before"]) == (4, 5)
    assert len(department.kept()) == 9
    policy = Policy.parse(department.ledger.policy.read_bytes())
    indices = [verify_receipt(path.read_bytes(), policy).index for path in department.kept()]
    assert len(set(indices)) == 9


def test_very_many_registered_before_are_all_fetched(department: Department) -> None:
    """False if a list of positions that a trailer cannot hold lost the rest of them."""
    department.register(department.write(decisions(5_000, 900)))
    for path in department.kept():
        path.unlink()
    # Other cuts than the first time: no submission is known as a whole.
    told = department.register(department.write([*decisions(5_900, 1), *decisions(5_000, 900)]))
    assert (told["registered"], told["registered_before"]) == (1, 900)
    assert len(department.kept()) == 901


def test_corrections_and_returns_follow_what_they_speak_of(department: Department) -> None:
    """False if batches under way together could overtake each other where order means something."""
    firsts = decisions(6_000, 600)
    corrected = [
        correction(decision_bytes(record_id=first["record_id"]), title="Another title") for first in firsts
    ]
    filed = period_return(record_id=record_id(7_000), count=600, first=124, last=124)
    told = department.register(department.write([*firsts, *corrected, filed]))
    assert told["registered"] == 1_201
    policy = Policy.parse(department.ledger.policy.read_bytes())
    last = verify_receipt(
        (department.receipts / REGISTER / f"{record_id(7_000)}.1.receipt").read_bytes(), policy
    )
    assert last.index == told["last_index"]


def test_what_depends_on_order_is_under_way_alone() -> None:
    """False if a correction, or a return, could be sent while what it speaks of is still on its way."""
    single, after = "decision.registered/1", "decision.corrected/1"
    kinds = [single] * 1_100 + [after] * 600 + [single] * 3
    cut = batches(
        Item(b"x", str(number), 1 if kind == single else 2, kind, f"row {number}")
        for number, kind in enumerate(kinds)
    )
    groups = list(_together(cut))
    assert [[len(batch.items) for batch in group] for group in groups] == [[500, 500, 100], [500], [100], [3]]


def test_one_bad_record_and_nothing_is_sent(department: Department) -> None:
    """False if half a file could be registered before the first mistake was noticed."""
    records = decisions(8_000, 3)
    records[1]["channel"] = "pigeon"
    del records[2]["title"]
    error = department.register(department.write(records), status=2)["error"]
    assert {(each["place"], each["field"]) for each in error["violations"]} == {
        ("records.ndjson, line 2", "channel"),
        ("records.ndjson, line 3", "title"),
    }
    assert "whatsapp" in next(each for each in error["violations"] if each["field"] == "channel")["allowed"]
    records = decisions(8_000, 3)
    assert department.register(department.write(records))["registered"] == 3


def test_what_the_ledger_refuses_is_told_in_rows_of_the_file(department: Department) -> None:
    """False if a refusal named a position that nobody can find, or lost what was registered beside it."""
    department.register(department.write(decisions(9_000, 2)))
    for path in department.kept():
        path.unlink()
    edited = [*decisions(9_100, 1), *decisions(9_000, 2)]
    edited[2]["title"] = "Another title under the same id and version"
    error = department.register(department.write(edited), status=2)["error"]
    assert error["reason"] == "RECORD_CONFLICT"
    assert [each["place"] for each in error["violations"]] == ["records.ndjson, line 3"]


def test_an_edited_row_that_has_its_receipt_is_not_sent(department: Department) -> None:
    """False if editing a registered row passed silently, as if the new text were registered."""
    path = department.write(decisions(10_000, 1))
    department.register(path)
    edited = [{**decisions(10_000, 1)[0], "title": "Edited"}]
    assert department.register(department.write(edited), status=2)["error"]["reason"] == "RECORD_CONFLICT"


def test_a_damaged_receipt_is_evidence_and_never_overwritten(department: Department) -> None:
    """False if the command destroyed what may show that somebody tampered."""
    path = department.write(decisions(11_000, 1))
    department.register(path)
    (receipt,) = department.kept()
    damaged = receipt.read_bytes().replace(b"index ", b"index 1")
    receipt.write_bytes(damaged)
    assert department.register(path, status=1)["error"]["receipt"] == str(receipt)
    assert receipt.read_bytes() == damaged


def test_another_ledgers_policy_is_an_integrity_failure(department: Department, tmp_path: Path) -> None:
    """False if the server chose whom the department believes."""
    other = make_ledger(tmp_path / "other")
    path = department.write(decisions(12_000, 1))
    error = department.register(path, "--policy", other.policy, status=1)["error"]
    assert error["reason"] == "SIGNATURE_INVALID"
    assert department.kept() == []


def test_a_key_that_was_never_authorised_is_refused(department: Department, tmp_path: Path) -> None:
    """False if anybody could write to a department's register."""
    daybook("keygen", tmp_path / "stranger", "--name", "stranger")
    path = department.write(decisions(13_000, 1))
    assert (
        department.register(path, "--key", tmp_path / "stranger", status=2)["error"]["reason"] == "KEY_UNKNOWN"
    )


def test_a_ledger_that_is_away_is_not_a_mistake_of_the_caller(department: Department) -> None:
    """False if a script could not tell "try again" from "correct your file"."""
    path = department.write(decisions(14_000, 1))
    error = department.register(path, "--server", "127.0.0.1:1", "--timeout", "1", status=3)["error"]
    assert error["code"] == "UNAVAILABLE"


def test_without_a_policy_nothing_is_trusted(department: Department) -> None:
    """False if the first server that answers were believed silently."""
    path = department.write(decisions(15_000, 1))
    done = daybook(
        *("register", "--server", department.server.grpc, "--register", REGISTER),
        *("--key", department.ledger.key, "--receipts", department.receipts, path),
        status=2,
    )
    assert "daybook policy" in done.stderr


def test_the_policy_beside_the_key_is_used(department: Department, tmp_path: Path) -> None:
    """False if a department had to name its policy at every call."""
    key = tmp_path / "key"
    key.write_bytes(department.ledger.key.read_bytes())
    Path(f"{key}.policy").write_bytes(department.ledger.policy.read_bytes())
    done = daybook(
        *("register", "--server", department.server.grpc, "--register", REGISTER, "--key", key),
        *("--receipts", department.receipts, department.write(decisions(16_000, 1))),
    )
    assert done.stdout.startswith("1 record registered in ")


# The command, in small batches, which goes no further once the first of them is kept.
HELD_UP = """
import asyncio

from services.cli import main, register
from services.client import batches

keep = register._Run._keep

async def keep_and_wait(run, outcome) -> None:
    await keep(run, outcome)
    print("kept", flush=True)
    await asyncio.Event().wait()

batches.MAX_BATCH = 10
register._Run._keep = keep_and_wait
main()
"""


def test_an_interrupted_run_says_so_and_is_gone_on_with(department: Department) -> None:
    """False if Ctrl-C left nothing said, or a second run registered anything twice or left anything out."""
    path = department.write(decisions(50_000, 31))
    command: list[str | Path] = [
        # As from a terminal: what a shell starts in the background is deaf to Ctrl-C.
        *("env", "--default-signal=INT", sys.executable, "-c", HELD_UP),
        *("register", "--server", department.server.grpc),
        *("--register", REGISTER, "--key", department.ledger.key, "--policy", department.ledger.policy),
        *("--receipts", department.receipts, "--json", path),
    ]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "kept\n"
        running.send_signal(signal.SIGINT)
        said, _ = running.communicate()
    assert running.returncode == 130
    error = json.loads(said)["error"]
    assert error["reason"] == "INTERRUPTED"
    assert 0 < error["registered"] == len(department.kept()) < 31
    again = department.register(path)
    assert again["skipped"] == error["registered"]
    assert again["registered"] + again["registered_before"] + again["skipped"] == 31
    assert len(department.kept()) == 31

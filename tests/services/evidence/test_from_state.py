"""Packs from what a monitor has seen itself, with the ledger away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.command import run, run_json
from tests.support.ledgers import REGISTER
from tests.support.monitored import BEGAN, WITNESSED, Monitored, monitored
from tests.support.packs import write_manifests


@pytest.fixture
async def seen(tmp_path: Path) -> AsyncIterator[Monitored]:
    """A monitor that saw the register at two, at five and at seven entries, the five anchored."""
    with monitored(tmp_path, WITNESSED) as it:
        it.held.fill(2)
        it.publish(at=10)
        await it.round(at=11)
        it.held.fill(5)
        it.publish(at=20)
        await it.round(at=21)
        it.anchor()
        it.held.fill(7)
        it.publish(at=30)
        await it.round(at=31)
        yield it


def pack(it: Monitored, out: Path, *options: str, status: int = 0) -> None:
    run(
        "evidence", "--register", REGISTER, "--state", it.state, "--policy", it.policy_file, "--out", out,
        *options, status=status,
    )  # fmt: skip


def test_a_pack_from_a_state_verifies_with_the_times_that_were_seen(seen: Monitored, tmp_path: Path) -> None:
    """False if an auditor needed the ledger's help to show what they have seen."""
    pack(seen, tmp_path / "pack")
    told = run_json("verify", tmp_path / "pack", "--policy", seen.policy_file)
    bounds = [(each["not_before"], each["not_after"]) for each in told["exhibits"]]
    expected = [(None, 10), (None, 10), (10, 20), (10, 20), (10, 20), (20, 30), (20, 30)]
    assert bounds == [
        (before if before is None else BEGAN + before, BEGAN + after) for before, after in expected
    ]
    assert [each["anchored"] for each in told["exhibits"]] == [True] * 5 + [False] * 2
    assert all(each["department_proved"] for each in told["exhibits"])
    assert [each["record_type"] for each in told["keys"]] == [
        "ledger.opened/1", "register.opened/1", "key.authorised/1",
    ]  # fmt: skip
    assert told["one_history"]
    assert (tmp_path / "pack/data/consistency.json").exists()
    report = " ".join((tmp_path / "pack/data/report.txt").read_text().split())
    assert "all 7 entries were read when the pack was made" in report
    assert "All checkpoints are proved to be of one history" in report
    # What the receipts alone prove is less: their own file is gone, and with it the claim.
    (tmp_path / "pack/data/consistency.json").unlink()
    write_manifests(tmp_path / "pack")
    assert not run_json("verify", tmp_path / "pack", "--policy", seen.policy_file)["one_history"]


def test_a_selection_and_a_stricter_policy_hold_there_too(seen: Monitored, tmp_path: Path) -> None:
    """False if a state were believed beyond the reader's own policy."""
    pack(seen, tmp_path / "pack", "--select", "index=3..4")
    told = run_json("verify", tmp_path / "pack", "--policy", seen.policy_file)
    assert [each["index"] for each in told["exhibits"]] == [3, 4]
    strict = seen.policy_file.read_text().replace("two-of-three 2", "two-of-three 3")
    policy = tmp_path / "strict"
    policy.write_text(strict)
    run(
        "evidence", "--register", REGISTER, "--state", seen.state, "--policy", policy, "--out", tmp_path / "no",
        status=1,
    )  # fmt: skip


def test_what_is_no_state_is_told_and_nothing_is_made_of_it(tmp_path: Path) -> None:
    """False if a slip made an empty state, or an empty pack."""
    policy = tmp_path / "policy"
    policy.write_bytes(WITNESSED.text())
    run(
        "evidence", "--register", REGISTER, "--state", tmp_path / "none", "--policy", policy,
        "--out", tmp_path / "pack", status=2,
    )  # fmt: skip
    assert not (tmp_path / "none").exists()

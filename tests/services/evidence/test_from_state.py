"""Packs from what a monitor has seen itself, with the ledger away."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ledger import base64
from ledger.entries import Acceptance, accept
from ledger.governing import GOVERNING
from tests.support.command import run, run_json
from tests.support.governed_packs import take_governing_away
from tests.support.ledger_story import commit
from tests.support.ledgers import DEPARTMENT, DEPARTMENT_KEY, POLICY, REGISTER, decision, record_id, submission
from tests.support.monitored import BEGAN, WITNESSED, Monitored, monitored, seal, sign


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
    assert told["own_report"]
    assert (tmp_path / "pack/data/consistency.json").exists()
    report = " ".join((tmp_path / "pack/data/report.txt").read_text().split())
    assert "all 7 entries were read when the pack was made" in report
    assert "All checkpoints are proved to be of one history" in report
    # What the receipts alone prove is less: their own file is gone, and with it the claim.
    assert told["governing"]["until"] == BEGAN + 30
    assert all("not revoked up to governing size" in each["key"]["says"] for each in told["exhibits"])
    (tmp_path / "pack/data/consistency.json").unlink()
    take_governing_away(tmp_path / "pack")
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


async def test_no_entry_is_left_out_where_many_checkpoints_do_not_satisfy_the_policy(tmp_path: Path) -> None:
    """False if a pack that says that all entries were read lacked some of them, or said that none matches."""
    with monitored(tmp_path, WITNESSED) as it:
        it.held.fill(90)
        it.publish(at=10)
        await it.round(at=11)
        entries = it.entries(REGISTER)
        with it.opened() as state:
            for size in range(1, 90):
                state.seen.keep(REGISTER, size, sign(REGISTER, entries[:size]), BEGAN + size)
        pack(it, tmp_path / "all")
        pack(it, tmp_path / "one", "--select", f"record={record_id(0)}")
    told = run_json("verify", tmp_path / "all", "--policy", it.policy_file)
    assert [each["index"] for each in told["exhibits"]] == list(range(90))
    assert {each["not_after"] for each in told["exhibits"]} == {BEGAN + 10}
    told = run_json("verify", tmp_path / "one", "--policy", it.policy_file)
    assert [each["index"] for each in told["exhibits"]] == [0]


async def test_a_governing_entry_that_cannot_be_proved_yet_is_not_left_out(tmp_path: Path) -> None:
    """False if a revocation that the auditor holds were missing from a pack without a word."""
    with monitored(tmp_path, WITNESSED) as it:
        it.held.fill(2)
        it.publish(at=10)
        await it.round(at=11)
        it.held.govern(
            "key.revoked/1",
            department=DEPARTMENT,
            key=base64.encode(DEPARTMENT_KEY.public),
            reason="compromised",
            suspected_from="2026-01-01",
        )
        signed = it.held.published.latest(GOVERNING).note
        it.site.put(GOVERNING, it.entries(GOVERNING), signed)
        it.policy = POLICY
        await it.round(at=21)
        it.policy = WITNESSED
        result = run(
            "evidence", "--register", REGISTER, "--state", it.state, "--policy", it.policy_file,
            "--out", tmp_path / "pack", status=3,
        )  # fmt: skip
        assert (
            f"no checkpoint that was seen of governing covers its entry {len(it.entries(GOVERNING)) - 1}"
            in (" ".join(result.stderr.split()))
        )
    assert not (tmp_path / "pack").exists()


async def test_an_auditor_who_came_late_proves_lateness_by_the_anchors(tmp_path: Path) -> None:
    """False if a pack could not show that witnesses did not have an entry yet, though the auditor knows it."""
    with monitored(tmp_path, WITNESSED) as it:
        it.held.fill(2)
        it.publish(at=10)
        it.anchor()
        it.held.fill(5)
        it.publish(at=20)
        it.anchor()
        # Neither what is not sealed nor what is of another history says anything about these entries.
        it.anchor(note=sign(REGISTER, it.entries(REGISTER)[:3]))
        it.held.fill(7)
        it.publish(at=30)
        await it.round(at=31)
    pack(it, tmp_path / "pack")
    told = run_json("verify", tmp_path / "pack", "--policy", it.policy_file)
    assert [each["not_before"] for each in told["exhibits"]] == [
        None, None, BEGAN + 10, BEGAN + 10, BEGAN + 10, BEGAN + 20, BEGAN + 20,
    ]  # fmt: skip
    assert told["one_history"]


async def test_an_anchor_of_another_history_keeps_no_pack_from_being_made(tmp_path: Path) -> None:
    """False if a ledger could keep its own records out of a pack by anchoring a lie."""
    with monitored(tmp_path, WITNESSED) as it:
        it.held.fill(2)
        it.publish(at=10)
        it.anchor()
        it.held.fill(5)
        it.publish(at=20)
        it.anchor(note=seal(sign(REGISTER, it.entries(REGISTER)[1:4]), 15))
        it.publish(at=25)
        await it.round(at=31)
    pack(it, tmp_path / "pack", "--select", "index=2..4")
    told = run_json("verify", tmp_path / "pack", "--policy", it.policy_file)
    assert [each["not_before"] for each in told["exhibits"]] == [BEGAN + 10] * 3
    assert not any(each["anchored"] for each in told["exhibits"])


async def test_a_fork_that_was_seen_keeps_no_pack_from_being_made(seen: Monitored, tmp_path: Path) -> None:
    """False if a ledger that showed another history once kept the records of this one from a tribunal."""
    with seen.opened() as state:
        fork = seal(sign(REGISTER, seen.entries(REGISTER)[1:5]), 15)
        state.seen.keep(REGISTER, 4, fork, BEGAN + 25)
    pack(seen, tmp_path / "pack")
    told = run_json("verify", tmp_path / "pack", "--policy", seen.policy_file)
    assert [each["not_after"] for each in told["exhibits"]] == [
        BEGAN + at for at in (10, 10, 20, 20, 20, 30, 30)
    ]


async def test_a_record_that_may_match_is_packed_though_it_breaks_a_rule(tmp_path: Path) -> None:
    """False if an ill-formed date kept a record out of a pack that says that no other matches."""
    with monitored(tmp_path, WITNESSED) as it:
        it.held.fill(1)
        awkward = {**json.loads(decision(1)), "decided_at": "2026-05-03T9:30Z"}
        other = {**json.loads(decision(2)), "type": "decision.imagined/1"}
        for number, members in enumerate((awkward, other)):
            data = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
            acceptance = Acceptance(f"2026-05-28T20:30:0{number}.000Z", "anonymous", 3)
            turn = it.held.ledger.turn()
            turn.replay(accept(submission(REGISTER, [data], [DEPARTMENT_KEY]), acceptance))
            commit(it.held, turn)
        it.publish(at=10)
        await it.round(at=11)
    for select, indices in (
        (["decided=2026-05"], [0, 1, 2]),
        (["decided=2026-06"], [1, 2]),
        (["channel=whatsapp"], [1, 2]),
        ([f"record={record_id(1)}"], [1]),
        (["type=return.filed/1"], None),
        (["decided=2026-06", "type=decision.registered/1"], [1]),
    ):
        out = tmp_path / "-".join(select).replace("/", "_")
        options = [option for each in select for option in ("--select", each)]
        pack(it, out, *options, status=2 if indices is None else 0)
        if indices is not None:
            told = run_json("verify", out, "--policy", it.policy_file)
            assert [each["index"] for each in told["exhibits"]] == indices, select
    assert "breaks a registration rule" in (tmp_path / "decided=2026-06/data/report.txt").read_text()


async def test_times_that_may_not_be_compared_are_told_as_such(seen: Monitored, tmp_path: Path) -> None:
    """False if two times that two disjoint quorums gave stood side by side without a word."""
    policy = tmp_path / "loose"
    policy.write_text(seen.policy_file.read_text().replace("two-of-three 2", "two-of-three 1"))
    for name, given, said in (("loose", policy, True), ("strict", seen.policy_file, False)):
        out = tmp_path / f"{name}-pack"
        run("evidence", "--register", REGISTER, "--state", seen.state, "--policy", given, "--out", out)
        sentence = "two quorums may share no witness: the two may not be compared"
        assert (sentence in (out / "data/report.txt").read_text()) == said
        assert (sentence in run("verify", out, "--policy", given).stdout) == said

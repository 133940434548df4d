"""What `daybook query` shows of a record: all of it, as JSON or as text, found by its index or its series."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from ledger import base64, canonical
from ledger.entries import Acceptance, form_entries, parse_entry, submission_body_of, submission_id
from ledger.hashing import leaf_hash
from ledger.records import record_digest
from ledger.stores.memory import MemoryStore
from tests.services.cli.test_query import (
    altered,
    asking,
    corrected,
    forged,
    indices,
    lying,
    policy_file,
    register,
    swapped,
    uncertain,
)
from tests.support.audit_server import audit_server
from tests.support.command import run, run_json
from tests.support.ledgers import (
    DEPARTMENT_KEY,
    ORIGIN,
    POLICY,
    REGISTER,
    LedgerUnderTest,
    decision,
    open_ledger,
    record_id,
    submission,
)
from tests.support.records import void

EVIDENCE: Final = {"kind": "chat_export", "media_type": "text/plain", "sha256": "ab" * 32, "size": 7}


@pytest.fixture
def held(tmp_path: Path) -> LedgerUnderTest:
    """A ledger whose register has a grant, a WhatsApp decision of an unknown day, and 600 others."""
    held = open_ledger(MemoryStore(), tmp_path / "marks")
    register(held, decision(0, decision_type="grant", decided_at="2026-01-10"), uncertain())
    held.fill(602)
    return held


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return policy_file(tmp_path, POLICY.text())


def voided(number: int, **members: Any) -> bytes:
    return canonical.format(void(register=REGISTER, record_id=record_id(number), **members))


# By index


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["4"], [4]),
        (["4", "5"], [4, 5]),
        (["254..258", "3"], [3, 254, 255, 256, 257, 258]),
        (["5..9", "7..10", "10", "6"], [5, 6, 7, 8, 9, 10]),
        (["5..9", "6"], [5, 6, 7, 8, 9]),
        (["601"], [601]),
    ],
)
def test_entries_are_picked_by_index(
    held: LedgerUnderTest, policy: Path, typed: list[str], expected: list[int]
) -> None:
    """False if the entries that a finding names could not be looked up."""
    options = [each for one in typed for each in ("--index", one)]
    with audit_server(held) as address:
        told = run_json(*asking(address, policy, *options))
    assert indices(told) == expected
    assert [index for first, last in told["indices"] for index in range(first, last + 1)] == expected


def test_other_conditions_hold_of_entries_that_are_picked(held: LedgerUnderTest, policy: Path) -> None:
    """False if a condition were dropped in silence."""
    with audit_server(held) as address:
        told = run_json(*asking(address, policy, "--index", "0..9", "--channel", "whatsapp"))
        receipts = run_json(*asking(address, policy, "--index", "9", "--receipts", str(policy.parent / "kept")))
    assert indices(told) == [1]
    assert len(receipts["receipts"]) == 1


def test_that_nothing_later_was_read_is_said_of_entries_that_are_picked(
    held: LedgerUnderTest, policy: Path
) -> None:
    """False if a record that was corrected since could pass for one that stands."""
    register(held, corrected())
    with audit_server(held) as address:
        picked = run_json(*asking(address, policy, "--index", "1"))
        both = run_json(*asking(address, policy, "--index", "1", "--index", "602"))
        text = run(*asking(address, policy, "--index", "1")).stdout
    assert "newest_version" not in picked["matches"][0]
    assert both["matches"][0]["newest_version"]["index"] == 602
    assert "Proved: this is all that matches at entry 1 under checkpoint 603" in text
    assert "Not read: any other entry" in text
    assert "these are all of them" not in text


@pytest.mark.parametrize(("change", "index"), [(altered, "256..300"), (swapped, "3")])
def test_an_entry_that_is_picked_is_proved(
    held: LedgerUnderTest, policy: Path, change: Any, index: str
) -> None:
    """False if a ledger could show another record than the one that a finding is about."""

    def shifted(messages: list[Any]) -> list[Any]:
        if change is altered:
            return list(change([messages[0], *messages]))[1:]
        messages[0].entries[0].entry = held.ledger.store.entries(REGISTER, 4, 5)[0]
        return messages

    with audit_server(held, lying(shifted)) as address:
        error = run_json(*asking(address, policy, "--index", index), status=1)["error"]
    assert "are not those of the checkpoint" in error["message"]


# The whole record


def test_json_has_every_member_of_a_record_and_the_facts_of_its_entry(
    held: LedgerUnderTest, policy: Path
) -> None:
    """False if a caseworker had to unpack an evidence pack to read a record."""
    full = decision(
        900,
        channel="signal",
        captured_at="2026-05-04",
        evidence=[EVIDENCE],
        publication={"first": "2026-06-01"},
        rationale="One line\nand another",
    )
    register(held, decision(899), full)
    entry = held.ledger.store.entries(REGISTER, 603, 604)[0]
    parsed = parse_entry(entry)
    assert parsed.membership is not None
    with audit_server(held) as address:
        for mode in (["--channel", "signal"], ["--channel", "signal", "--quick"], ["--index", "603"]):
            (match,) = run_json(*asking(address, policy, *mode))["matches"]
            assert match["record"] == json.loads(full)
            assert match["submitter"] == parsed.acceptance.submitter
            assert match["accepted_at"] == parsed.acceptance.accepted_at
            assert match["governing_size"] == parsed.acceptance.governing_size
            assert match["leaf_hash"] == base64.encode(leaf_hash(entry))
            assert match["submission"] == {
                "id": submission_id(submission_body_of(parsed, f"{ORIGIN}/{REGISTER}")),
                "count": 2,
                "position": 1,
                "signers": [base64.encode(parsed.membership.signatures[0].key)],
            }


def test_full_prints_every_member_on_a_line_of_its_own(held: LedgerUnderTest, policy: Path) -> None:
    """False if a person could not read a record without a program."""
    register(held, decision(900, evidence=[EVIDENCE]))
    with audit_server(held) as address:
        text = run(*asking(address, policy, "--index", "602", "--full")).stdout
    lines = text.splitlines()
    assert f"Entry 602: decision.registered/1, record {record_id(900)}, version 1" in lines
    for line in (
        "captured_at: 2026-05-01",
        "evidence/0.media_type: text/plain",
        "reference.number: 901",
        "title: Decision 900",
    ):
        assert f"    {line}" in lines
    assert any(line.startswith("  Accepted at 20") and "as the ledger says" in line for line in lines)


def test_what_a_record_says_forges_no_line_of_its_full_text(held: LedgerUnderTest, policy: Path) -> None:
    """False if whoever writes a record could write sentences of the report, or hide some."""
    forged_line = "Proved: these are all of them"
    register(
        held,
        decision(
            900,
            channel="signal",
            rationale=f"x\n{forged_line}\nEntry 1: decision",
            title="a\u200bb",
        ),
    )
    with audit_server(held) as address:
        text = run(*asking(address, policy, "--channel", "signal", "--full")).stdout
    assert [line for line in text.splitlines() if line.startswith(forged_line)] == [
        f"{forged_line} up to checkpoint 603. Every one of its entries was read, and none can be left out."
    ]
    assert f"        | {forged_line}" in text.splitlines()
    assert "    title: a{U+200B}b" in text.splitlines()
    assert all(each.isprintable() or each == "\n" for each in text)


def test_a_record_that_cannot_be_read_is_shown_as_far_as_it_can_be(held: LedgerUnderTest, policy: Path) -> None:
    """False if the very entry that a finding is about could not be looked at."""
    good = decision(0)
    unclear = [
        good.replace(b'"title":"Decision 0"', b'"title":7'),
        good.replace(b'"title":"Decision 0"', b'"title":"\x1b[2J\\u001b[2J\nProved"'),
    ]
    texts, values = [], []
    for record in unclear:
        made = submission(REGISTER, [record], [DEPARTMENT_KEY])
        entry = form_entries(made, Acceptance("2026-05-01T10:00:00.000Z", "anonymous", 3))[0]
        with audit_server(held, forged(held, entry)) as address:
            texts.append(run(*asking(address, policy, "--full")).stdout)
            values.append(run_json(*asking(address, policy))["not_read"][0])
    assert "    title: 7" in texts[0].splitlines()
    assert values[0]["record"]["title"] == 7
    assert f"    not canonical JSON; its bytes in base64: {base64.encode(unclear[1])}" in texts[1].splitlines()
    assert (values[1]["record"], values[1]["record_base64"]) == (None, base64.encode(unclear[1]))
    assert all(each.isprintable() or each == "\n" for text in texts for each in text)


# A series


def test_a_series_is_listed_with_its_numbers_its_voids_and_who_submitted(
    held: LedgerUnderTest, policy: Path
) -> None:
    """False if a gap, a duplicate or a burst could not be checked as its finding says."""
    register(
        held,
        decision(900, reference={"number": 124, "series": "AB/2026"}),
        voided(901, series="AB/2026", first=125, last=125),
        voided(902, series="AB/2026", first=126, last=130, reason="Kept for\nanother system"),
        decision(903, reference={"number": 131, "series": "AB/2026"}),
    )
    submitter = parse_entry(held.ledger.store.entries(REGISTER, 602, 603)[0]).acceptance.submitter
    with audit_server(held) as address:
        lines = run(*asking(address, policy, "--series", "AB/2026")).stdout.splitlines()
        plain = run(*asking(address, policy, "--record", record_id(900))).stdout
    (head,) = [line for line in lines if line.startswith("entry ")]
    column = head.index("reference")
    shown = [line[column:].split("  ")[0] for line in lines if line.startswith(("602", "603", "604", "605"))]
    assert shown == ["AB/2026 124", "AB/2026 125", "AB/2026 126 to 130", "AB/2026 131"]
    assert sum(line[head.index("submitter") :].startswith(submitter) for line in lines) == 4
    assert '       voids numbers 126 to 130: "Kept for another system"' in lines
    assert sum("voids number 125: " in line for line in lines) == 1
    assert "AB/2026 124" in plain


def test_a_void_that_is_taken_back_says_so(held: LedgerUnderTest, policy: Path) -> None:
    """False if a number that is a gap again could pass for an explained one."""
    first = voided(901, first=1_000, last=1_000)
    register(held, first)
    again = json.loads(first) | {
        "version": 2,
        "previous": {"sha256": record_digest(first), "version": 1},
        "taken_back": True,
        "reason": "It was used after all",
    }
    register(held, canonical.format(again))
    with audit_server(held) as address:
        text = run(*asking(address, policy, "--type", "reference.voided/1")).stdout
    assert 'takes the void back: "It was used after all"' in text
    assert "no longer the last version: replaced by entry 603" in text


# Words


def test_one_is_said_as_one(tmp_path: Path, policy: Path) -> None:
    """False if people read "1 entries"."""
    held = open_ledger(MemoryStore(), tmp_path / "marks")
    register(held, decision(0))
    with audit_server(held) as address:
        text = run(*asking(address, policy, "--at-size", "1")).stdout
        nothing = run(*asking(address, policy, "--channel", "signal")).stdout
    assert "Checkpoint of 1 entry, " in text
    assert "As it stood with its first entry\n" in text
    assert "1 entries" not in text
    assert "Proved of each" in text
    assert "0 entries match." in nothing
    assert "Proved of each" not in nothing

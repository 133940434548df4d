from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from ledger.errors import MalformedError
from ledger.receipts import verify_receipt
from services.evidence import finding_links
from services.evidence.exhibits import Exhibit
from services.evidence.finding_links import link_findings
from tests.support.command import run, run_json
from tests.support.packs import POLICY, Packs
from tests.support.story import LEDGER_ORIGIN, REGISTER, policy, receipt

NAMES: Final = ("anchored-at-a-smaller-size", "anchored-at-the-same-size", "one-record-submission", "rejection")
"""Receipts of the entries 0, 3, 6 and 5."""


def exhibits() -> list[Exhibit]:
    found = [(receipt(name), verify_receipt(receipt(name), policy())) for name in NAMES]
    found.sort(key=lambda each: each[1].index)
    return [Exhibit(f"JS/{number}", *each) for number, each in enumerate(found, 1)]


def linked(*findings: dict[str, Any], **around: Any) -> list[tuple[str, str, tuple[str, ...]]]:
    found = link_findings({"findings": list(findings), **around}, LEDGER_ORIGIN, exhibits())
    return [(link.label, link.at, tuple(label for label, _ in link.exhibits)) for link in found]


def test_a_finding_is_about_the_exhibits_of_the_entries_that_it_lists() -> None:
    """False if a finding were pinned on an exhibit that it is not about, or not on one that it is."""
    assert linked(
        {"indices": [6, 0, 0, 1]},
        {"spans": [[1, 2], [4, 5]]},
        {"spans": [[0, 2**53 - 1]]},
        {"spans": [[1, 2], [5, 4], [-1, 0], ["0", 9], [0]], "indices": [True, -3, "0", 7]},
        register=REGISTER,
    ) == [
        ("F/1", "/findings/0", ("JS/1", "JS/4")),
        ("F/2", "/findings/1", ("JS/3",)),
        ("F/3", "/findings/2", ("JS/1", "JS/2", "JS/3", "JS/4")),
    ]


def test_a_finding_of_another_register_is_about_no_exhibit() -> None:
    """False if entries of two registers with one index were taken for each other."""
    assert linked({"indices": [0]}, {"indices": [0], "register": "a/b"}) == []
    assert linked({"indices": [0], "register": "a/b"}, register=REGISTER) == []
    assert linked({"indices": [0], "register": REGISTER}, register="a/b") == [("F/1", "/findings/0", ("JS/1",))]
    of_registers = {"registers": [{"register": "a/b", "findings": [{"indices": [0]}]}, 7, {"findings": 7}]}
    assert link_findings(of_registers, LEDGER_ORIGIN, exhibits()) == ()


def test_what_a_finding_names_itself_must_be_there_with_these_bytes() -> None:
    """False if a statement could name an exhibit that the pack has not, or had other bytes when it was made."""
    digest = exhibits()[1].digest
    assert linked({"exhibits": ["JS/1", {"label": "JS/2", "sha256": digest}]}) == [
        ("F/1", "/findings/0", ("JS/1", "JS/2"))
    ]
    assert linked({"exhibits": None}) == []
    for wrong in (
        ["JS/5"],
        "JS/1",
        [1],
        [{"label": "JS/1", "sha256": digest}],
        [{"label": "JS/2", "sha256": 1}],
    ):
        with pytest.raises(MalformedError, match="finding /findings/0"):
            linked({"exhibits": wrong})
    with pytest.raises(MalformedError, match="another ledger"):
        linked(ledger="other.example")


def test_findings_that_would_cost_hours_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """False if a small file of findings could keep whoever checks a pack busy for ever."""
    everywhere = {"spans": [[0, 2**53 - 1]] * 1_000}
    for name, most in (("MAX_VISITS", 4_999), ("MAX_LINKS", 3), ("MAX_FINDINGS", 0)):
        monkeypatch.setattr(finding_links, name, most)
        with pytest.raises(MalformedError, match="more than"):
            linked(everywhere, register=REGISTER)
        monkeypatch.undo()
    assert len(linked(everywhere, register=REGISTER)) == 1
    with pytest.raises(MalformedError, match="more than"):
        linked(*[everywhere] * 1_000, register=REGISTER)


def test_index_report_and_verifier_tell_of_the_same_findings(packs: Packs) -> None:
    """False if report and index told of different findings, or of findings as if they were proofs."""
    index = json.loads((packs.folder / "data/index.json").read_bytes())
    assert [(link["label"], link["code"]) for link in index["findings"]] == [
        ("F/1", "DET-01"),
        ("F/2", "DET-12"),
    ]
    assert [[each["label"] for each in link["exhibits"]] for link in index["findings"]] == [
        ["JS/1"], ["JS/2", "JS/4"],
    ]  # fmt: skip
    by_label = {each["label"]: each for each in index["exhibits"]}
    assert [by_label[label]["findings"] for label in sorted(by_label)] == [["F/1"], ["F/2"], [], ["F/2"]]
    assert all(each["sha256"] == by_label[each["label"]]["sha256"] for each in index["findings"][1]["exhibits"])
    report = (packs.folder / "data/report.txt").read_text()
    assert "    Stated      finding F/1, DET-01: Registered late.\n" in report
    assert "F/2, DET-12: A <b>burst</b>.\n    Exhibits    JS/2, JS/4\n" in report
    assert "statements of their author, and no proofs" in report
    told = run_json("verify", packs.folder, "--policy", POLICY)
    assert [each["stated_findings"] for each in told["exhibits"]] == [["F/1"], ["F/2"], [], ["F/2"]]
    text = run("verify", packs.folder, "--policy", POLICY).stdout
    assert "    Stated by F/1, not a proof: DET-01: Registered late.\n" in text
    assert "data/findings.json states 2 about these exhibits: its author's words, not a proof" in text


def test_findings_of_another_ledger_are_not_packed(packs: Packs, tmp_path: Path) -> None:
    """False if a slip put another ledger's findings beside these records."""
    findings = tmp_path / "findings.json"
    findings.write_text('{"ledger": "other.example", "findings": []}')
    error = run_json(
        "evidence", "--register", REGISTER, "--receipts", packs.root / "receipts", "--policy", POLICY,
        "--out", tmp_path / "pack", "--findings", findings, status=2,
    )["error"]  # fmt: skip
    assert "another ledger" in error["message"]
    assert not (tmp_path / "pack").exists()

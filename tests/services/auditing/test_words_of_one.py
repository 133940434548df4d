"""What is said of one thing is said of one, and only what asks for attention is said to do so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from services.auditing.found import Severity
from services.auditing.report.figures import Figures
from services.auditing.report.finding_list import weighed
from services.auditing.report.page import Basis, report_page
from services.auditing.report.timing_tables import registers_table
from services.auditing.results import AuditFinding, AuditResult, Counts, Promises, Source, Standing
from services.auditing.verdicts import Since, ledger_verdict, register_details, register_verdict
from services.cli.audit_report import audit_lines
from tests.services.auditing.test_report_plots import SEVEN, counted
from tests.support.audited_months import Months, months

PLURAL_OF_ONE = re.compile(
    r"\b1 (?:of )?(?:entries|decisions|corrections|registers|findings|files|others|days|marks)\b"
)


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Months]:
    with months(tmp_path, date(2026, 6, 3)) as it:
        yield it


def finding(severity: Severity, code: str = "DET-21") -> AuditFinding:
    what = "Something."
    return AuditFinding(code, Source.DETECTION, severity, is_failure=False, register="office", what=what)


def test_the_verdict_on_one_entry_is_on_one() -> None:
    """False if people read "All 1 entry are"."""
    first = register_verdict(Standing.INTACT, None, 1, (), "", None)
    assert first.startswith("Its only entry is what the ledger has signed, and holds. This is the first visit")
    later = register_verdict(Standing.INTACT, Since(1, 0), 1, (), "", None)
    assert later.endswith("nothing was added, and its only entry holds.")
    assert register_verdict(Standing.INTACT, None, 2, (), "", None).startswith("All 2 entries are what the")


def test_one_finding_is_one() -> None:
    """False if people read "1 findings that are no integrity failures"."""
    one, two = [finding(Severity.LOW)], [finding(Severity.LOW), finding(Severity.LOW)]
    assert list(register_details(one, is_closed=False, new=1)) == [
        "1 finding that is no integrity failure (1 low); it is new."
    ]
    assert list(register_details(one, is_closed=False, new=0)) == [
        "1 finding that is no integrity failure (1 low); it was known before."
    ]
    assert list(register_details(two, is_closed=False, new=1)) == [
        "2 findings that are no integrity failures (2 low), 1 of them new."
    ]


async def test_one_of_anything_is_one_in_the_report_and_on_the_screen(it: Months) -> None:
    """False if a small ledger were told of in the words for a large one."""
    small = one_of_everything(await it.visit())
    page = report_page(small, Basis("a", "b", counted(next(iter(SEVEN.values())))), str).decode()
    lines = "\n".join(audit_lines(small, None))
    for told in (re.sub(r"<[^>]*>", "", page), lines, small.verdict):
        assert PLURAL_OF_ONE.findall(told) == []
    assert "1 register with 1 entry, 1 new, is what the ledger has signed." in small.verdict
    assert "  1 entry, root" in lines
    assert "  1 decision, 1 correction, 1 withdrawal, 1 return, 1 rejection, 1 other" in lines
    assert "Acknowledgements: 1 file: 1 became entries" in lines


def one_of_everything(result: AuditResult) -> AuditResult:
    """Return the result of a ledger of one register with one entry and one finding."""
    one = replace(
        result.registers[1],
        before=0,
        size=1,
        counts=Counts(1, 1, 1, 1, 1, 1),
        findings=(finding(Severity.LOW),),
        verdict=register_verdict(Standing.INTACT, None, 1, (), "", None),
        details=tuple(register_details([finding(Severity.LOW)], is_closed=False, new=1)),
    )
    said = ledger_verdict([one], [])
    promises = Promises(1, kept=1)
    return replace(
        result, registers=(one,), findings=(), promises=promises, verdict=said, cannot_claim=("One.",)
    )


def test_one_register_beyond_those_listed_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """False if the last row of a table said "1 more registers"."""
    monkeypatch.setattr("services.auditing.report.timing_tables.MAX_ROWS", 1)
    figures: Figures = counted(*SEVEN.values())
    two = replace(figures, registers={"a/a": figures.totals, "a/b": figures.totals})
    assert "1 more register<" in registers_table(two)


async def test_only_what_is_more_than_information_asks_for_attention(it: Months) -> None:
    """False if a reader were told of a hundred things to look at, of which most are notes."""
    result = replace(await it.visit(), findings=(), more={})
    none = replace(result, registers=())
    info, low, grave = finding(Severity.INFO), finding(Severity.LOW), finding(Severity.HIGH, "DET-01")
    assert weighed(none) == "Beside that, nothing was found that somebody should look at."
    assert weighed(replace(none, findings=(info,))) == (
        "Beside that, nothing was found that somebody should look at. 1 finding is for information only."
    )
    said = weighed(replace(none, findings=(info, info, low, grave)))
    assert said.startswith(
        "2 findings ask for somebody's attention, and none is an integrity failure. 2 more are for information "
        "only. A finding is no accusation;"
    )
    assert weighed(replace(none, findings=(info,), more={"DET-21": 9})).endswith(
        "10 findings are for information only."
    )
    mixed = weighed(replace(none, findings=(info, low), more={"DET-21": 9, "DET-01": 5}))
    assert mixed.startswith("15 findings ask for somebody's attention")
    failure = replace(grave, code="fork", is_failure=True)
    assert weighed(replace(none, findings=(failure, low), more={"fork": 3})).startswith(
        "Beside the integrity failures, 1 finding asks for somebody's attention. A finding"
    )

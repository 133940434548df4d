"""What is new at a visit, and what was found before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger import canonical
from ledger.admission import instant
from ledger.entries import Acceptance, accept
from services.auditing.found import Severity
from services.auditing.known_findings import dated
from services.auditing.notebook import Notebook
from services.auditing.profiles import shipped
from services.auditing.results import AuditFinding, AuditResult, Source, Span
from services.monitoring.rounds import Limits
from tests.services.auditing.test_audit_findings import START
from tests.support.audited import visit
from tests.support.ledgers import DEPARTMENT_KEY, EPOCH, REGISTER, decision, submission
from tests.support.monitored import WITNESSED, Monitored, monitored, seal, sign
from tests.support.records import period_return, record_id

DAY = 86_400


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Notebook]:
    held = Notebook(tmp_path / "audit.sqlite3")
    yield held
    held.close()


def finding(code: str, *spans: Span, **inputs: str) -> AuditFinding:
    source = Source.DETECTION if code.startswith("DET") else Source.TIME
    return AuditFinding(code, source, Severity.LOW, False, REGISTER, "Text.", spans=spans, inputs=inputs)


def seen(notebook: Notebook, number: int, *findings: AuditFinding) -> list[tuple[int, bool]]:
    """Return since when each finding is known and whether it is new, in a visit at 100 times its number."""
    return [(each.since, each.is_new) for each in dated(notebook, findings, 100 * number, number)]


async def test_what_was_added_after_a_return_is_new_though_the_return_was_odd_before(tmp_path: Path) -> None:
    """False if a decision behind a return were passed over as an old story about the same return."""
    with monitored(tmp_path, WITNESSED) as it:
        it.limits = Limits(anchor_within=10**9, patience=0)
        it.held.fill(3)
        it.publish(at=START + 10)
        entries = it.entries(REGISTER)
        filed = period_return(register=REGISTER, series="MD/2026", period="2026-05", count=9, first=1, last=9)
        _append(it, entries, canonical.format({**filed, "record_id": record_id(900)}), 6 * DAY)
        assert {each[1] for each in _of_returns(await _visit(it, 6 * DAY + 5))} == {True}
        _append(it, entries, decision(50), 10 * DAY)
        later = _of_returns(await _visit(it, 10 * DAY + 5))
        _append(it, entries, decision(51), 11 * DAY)
        grown = _of_returns(await _visit(it, 11 * DAY + 5))
    assert [(what, is_new) for what, is_new, _ in later] == [
        ("added after return", True),
        ("another count", False),
        ("another range", False),
    ]
    assert [since - EPOCH for _, _, since in later] == [10 * DAY + 5, 6 * DAY + 5, 6 * DAY + 5]
    # One more is new, and the story is as old as it was.
    assert [(what, is_new) for what, is_new, _ in grown] == [(what, is_new) for what, is_new, _ in later]
    assert [since for _, _, since in grown] == [since for _, _, since in later]


def _append(it: Monitored, entries: list[bytes], record: bytes, at: int) -> None:
    accepted = Acceptance(instant(EPOCH + at), "anonymous", 3)
    entries += accept(submission(REGISTER, [record], [DEPARTMENT_KEY]), accepted).entries
    it.site.put(REGISTER, entries, seal(sign(REGISTER, entries), START + at))


async def _visit(it: Monitored, at: int) -> AuditResult:
    return await visit(it, at=START + at, profile=shipped("daybook-strict"))


def _of_returns(result: AuditResult) -> list[tuple[str, bool, int]]:
    return sorted(
        (each.inputs["what"], each.is_new, each.since)
        for each in result.all_findings()
        if each.code == "DET-09"
    )


def test_the_same_is_known_again(notebook: Notebook) -> None:
    """False if every visit called everything new."""
    one, gap = finding("DET-05", (3, 3)), finding("DET-08", (3, 3), (7, 7), what="gap", first_missing="4")
    assert seen(notebook, 1, one, gap) == [(100, True), (100, True)]
    assert seen(notebook, 2, one, gap) == [(100, False), (100, False)]


def test_findings_of_one_detection_that_begin_at_one_entry_are_told_apart(notebook: Notebook) -> None:
    """False if two things about one record were one, of which the second was never new."""
    pairs = [finding("DET-16", (3, 3), (last, last)) for last in (5, 6)]
    voids = [finding("DET-08", (3, 3), what="voided and used", first_used=number) for number in ("4", "9")]
    assert seen(notebook, 1, pairs[0], voids[0]) == [(100, True), (100, True)]
    assert seen(notebook, 2, *pairs, *voids) == [(100, False), (200, True), (100, False), (200, True)]


def test_another_way_in_which_one_entry_is_odd_is_new(notebook: Notebook) -> None:
    """False if a second thing about a return passed for the first one."""
    ways = [finding("DET-09", (3, 3), what=what) for what in ("another count", "another range")]
    assert seen(notebook, 1, ways[0]) == [(100, True)]
    assert seen(notebook, 2, *ways) == [(100, False), (200, True)]


def test_what_covers_further_entries_is_new_and_known_since_the_first_ones(notebook: Notebook) -> None:
    """False if one old case made every later one of its kind an old one."""
    early = finding("claimed-earlier", (3, 3))
    assert seen(notebook, 1, early) == [(100, True)]
    grown = finding("claimed-earlier", (3, 3), (8, 8))
    assert seen(notebook, 2, grown) == [(100, True)]
    assert seen(notebook, 3, grown) == [(100, False)]
    # One of them is explained by now.
    assert seen(notebook, 4, early) == [(100, False)]


def test_a_run_that_grows_is_the_same_run(notebook: Notebook) -> None:
    """False if entries that nobody has witnessed for a year were a finding of today."""
    runs = [
        finding("DET-29", (0, 0), (last, last), last_entry=str(last), what="never witnessed") for last in (5, 9)
    ]
    assert seen(notebook, 1, runs[0]) == [(100, True)]
    assert seen(notebook, 2, runs[1]) == [(100, True)]
    assert seen(notebook, 3, runs[1]) == [(100, False)]


def test_a_visit_that_was_killed_and_made_again_has_not_seen_its_findings_before(notebook: Notebook) -> None:
    """False if what nobody has read yet were called known."""
    assert seen(notebook, 1, finding("DET-05", (3, 3))) == [(100, True)]
    assert seen(notebook, 1, finding("DET-05", (3, 3))) == [(100, True)]

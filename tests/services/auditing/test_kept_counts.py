"""Counts that are kept from report to report: only what is known otherwise is judged anew, and all of that."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import StoreError
from ledger.witnessing import Cosignature
from services.auditing.audit_state import open_audit_state
from services.auditing.profile_types import Profile
from services.auditing.profiles import shipped
from services.auditing.report import writing
from services.auditing.report.figures import Figures, Tally
from services.auditing.report.kept_counts import FILE, kept_counts
from services.auditing.results import AuditResult
from tests.support.audited import verdict, visit
from tests.support.audited_months import PROFILE, Months, months
from tests.support.ledgers import REGISTER, decision
from tests.support.monitored import BEGAN

BLOCK = 8


@pytest.fixture
def it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Months]:
    monkeypatch.setattr(writing, "BLOCK", BLOCK)
    with months(tmp_path, date(2026, 7, 10)) as it:
        yield it


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Return what collects every entry that is judged."""
    seen: list[tuple[str, int]] = []
    take = Tally.take

    def watched(tally: Tally, facts: Any, *more: Any) -> None:
        held = list(facts)
        seen.extend((fact.register, fact.index) for fact in held)
        take(tally, held, *more)

    monkeypatch.setattr(Tally, "take", watched)
    return seen


def counted(
    it: Months, result: AuditResult, profile: Profile = PROFILE, late: Sequence[Cosignature] = ()
) -> Figures:
    """Count as for a report; `late` are cosignatures that the auditor sees before."""
    with it.it.opened() as monitored, open_audit_state(monitored, it.it.policy) as state:
        if late:
            state.times.add(REGISTER, late)
        return writing.judged(state, result, profile, lambda *_: nullcontext(lambda _: None)).figures


def anew(it: Months, result: AuditResult, profile: Profile = PROFILE) -> Figures:
    """Count without anything kept."""
    for path in it.it.state.glob(f"{FILE}*"):
        path.unlink()
    return counted(it, result, profile)


async def test_a_second_report_judges_only_blocks_with_new_entries(
    it: Months, judged: list[tuple[str, int]]
) -> None:
    """False if every report cost as much as the first, or missed what is new."""
    result = await it.visit()
    size = verdict(result).size
    first = counted(it, result)
    assert len(judged) == len(set(judged)) == sum(each.size for each in result.registers[1:])
    judged.clear()
    assert counted(it, await it.visit()) == first
    assert judged == []
    record = decision(900, reference={"number": 900, "series": "MD/2026"}, decided_at="2026-07-01")
    it.register(datetime(2026, 7, 14, 10, tzinfo=UTC), REGISTER, [record])
    result = await it.visit()
    grown = counted(it, result)
    assert grown.decisions == first.decisions + 1
    assert (REGISTER, size) in judged
    assert len(judged) <= 2 * BLOCK
    assert {register for register, _ in judged} == {REGISTER}
    assert anew(it, result) == grown


async def test_what_a_later_correction_puts_behind_a_return_is_counted_anew(
    it: Months, judged: list[tuple[str, int]]
) -> None:
    """False if a decision of an old block kept the class that it had before a return and a correction came."""
    counted(it, await it.visit())
    judged.clear()
    it.go_behind_a_return(date(2026, 7, 14))
    result = await it.visit()
    kept = counted(it, result)
    assert sum(kept.after_returns.values()) == 3
    assert (REGISTER, 0) in judged
    assert anew(it, result) == kept


async def test_a_window_that_is_narrower_later_is_counted_anew(
    it: Months, judged: list[tuple[str, int]]
) -> None:
    """False if a cosignature that is seen later could not make a late decision provably so, or one in time."""
    result = await it.visit()
    before = counted(it, result)
    judged.clear()
    # Of what came in last week witnesses are shown to have known nothing until long after.
    at = BEGAN + it.now + 90 * 86_400
    late = [Cosignature(witness, verdict(result).size - 4, at) for witness in ("one", "two")]
    narrower = counted(it, result, late=late)
    assert narrower != before
    assert 0 < len(judged) <= 2 * BLOCK
    assert anew(it, result) == narrower


async def test_under_another_profile_all_is_counted_anew(it: Months, judged: list[tuple[str, int]]) -> None:
    """False if counts of one profile were reported in the name of another."""
    result = await it.visit()
    strict = counted(it, result)
    all_of_them = len(judged)
    judged.clear()
    lenient = counted(it, result, shipped("cabinet-office-2013"))
    assert len(judged) == all_of_them
    assert lenient.totals != strict.totals
    assert anew(it, result, shipped("cabinet-office-2013")) == lenient


async def test_counts_that_cannot_be_read_are_counted_anew(it: Months, judged: list[tuple[str, int]]) -> None:
    """False if a damaged row ended the report, or was believed."""
    result = await it.visit()
    whole = counted(it, result)
    judged.clear()
    with sqlite3.connect(it.it.state / FILE) as connection:
        connection.execute("UPDATE block SET counts = x'c1' WHERE first = 0 AND register = ?", (REGISTER,))
    connection.close()
    assert counted(it, result) == whole
    assert judged == [(REGISTER, index) for index in range(BLOCK)]


async def test_audits_without_a_report_keep_nothing(it: Months) -> None:
    """False if counting cost whoever asked for no report."""
    await visit(it.it, it.now, profile=PROFILE)
    assert not list(it.it.state.glob(f"{FILE}*"))


def test_the_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """False if a file that is not ours were written to."""
    path = tmp_path / FILE
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    with pytest.raises(StoreError, match="not a file of counts"), kept_counts(path):
        pass

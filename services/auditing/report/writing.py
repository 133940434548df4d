"""Making the report of an audit from the auditor's state, and writing it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from ledger.governing import GOVERNING
from services.auditing.audit_state import STRETCH, AuditState, audited_facts
from services.auditing.examining import Bar
from services.auditing.lateness import LatenessJudge
from services.auditing.profile_types import Profile
from services.auditing.remembered.after_returns import KeptAfterReturns, kept_after_returns
from services.auditing.report.figures import Tally
from services.auditing.report.page import Basis, report_page
from services.auditing.results import AuditResult
from services.auditing.terms_in_force import terms_in_force


def write_report(path: Path, state: AuditState, result: AuditResult, own: Profile | None, bar: Bar) -> None:
    """Write the report of an audit; `own` is the profile that the auditor named.

    What stands at `path` is replaced at once or not at all. Raises OSError, StoreError.
    """
    basis = judged(state, result, own, bar) if result.profile else None
    page = report_page(result, basis, lambda evidence: relative(evidence, path))
    being_written = path.with_name(f"{path.name}.tmp")
    try:
        with being_written.open("wb") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        being_written.replace(path)
    finally:
        being_written.unlink(missing_ok=True)


def judged(state: AuditState, result: AuditResult, own: Profile | None, bar: Bar) -> Basis:
    """Judge every decision in the registers of a result, and count. Raises StoreError."""
    terms = terms_in_force(state, own, result.begun)
    judge, tally = LatenessJudge(terms.profile, terms.calendar), Tally()
    with kept_after_returns(state.detections) as kept:
        for each in result.registers:
            if each.register != GOVERNING:
                with bar(f"Counting in {each.register}", each.size) as advance:
                    _count(state, each.register, each.size, kept, judge, tally, advance)
    return Basis(terms.profile.title, terms.profile.basis, tally.figures())


def _count(
    state: AuditState,
    register: str,
    size: int,
    kept: KeptAfterReturns,
    judge: LatenessJudge,
    tally: Tally,
    advance: Callable[[int], None],
) -> None:
    for begin in range(0, size, STRETCH):
        end = min(begin + STRETCH, size)
        tally.take(audited_facts(state, register, begin, end), judge, kept.among(register, begin, end))
        advance(end - begin)


def relative(evidence: str, page: Path) -> str:
    """Return the address of a file of evidence as a page at `page` links to it."""
    path = os.path.relpath(Path(evidence).resolve(), page.resolve().parent)
    return quote(Path(path).as_posix())

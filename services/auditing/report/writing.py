"""Making the report of an audit from the auditor's state, and writing it."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from ledger.governing import GOVERNING
from ledger.hashing import leaf_hash
from services.auditing.audit_state import AuditState, audited_facts
from services.auditing.detections.rules import RULES
from services.auditing.examining import Bar
from services.auditing.facts import fact_of
from services.auditing.lateness import LatenessJudge
from services.auditing.profile_types import Profile
from services.auditing.profiles import identity
from services.auditing.remembered.after_returns import kept_after_returns
from services.auditing.report.exhibits import MAX_EXHIBITS, Exhibit, Place, exhibit, named
from services.auditing.report.figures import Figures, Tally
from services.auditing.report.finding_choice import told
from services.auditing.report.kept_counts import BLOCK, FILE, kept_counts, made_from
from services.auditing.report.page import Basis, report_page
from services.auditing.results import AuditResult
from services.auditing.terms_in_force import NONE_CHOSEN, ChosenDays, terms_in_force


def write_report(
    path: Path,
    state: AuditState,
    result: AuditResult,
    own: Profile | None,
    bar: Bar,
    days: ChosenDays = NONE_CHOSEN,
) -> Figures | None:
    """Write the report of an audit; `own` is the profile that the auditor named. Return what was counted.

    That is None where no decision was judged.

    What stands at `path` is replaced at once or not at all. Raises OSError, StoreError.
    """
    basis = judged(state, result, own, bar, days) if result.profile else None
    page = report_page(result, basis, lambda evidence: relative(evidence, path), exhibited(state, result))
    being_written = path.with_name(f"{path.name}.tmp")
    try:
        with being_written.open("wb") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        being_written.replace(path)
    finally:
        being_written.unlink(missing_ok=True)
    return basis.figures if basis is not None else None


def exhibited(state: AuditState, result: AuditResult) -> dict[Place, Exhibit]:
    """Return the entries that the findings of a report name, up to `MAX_EXHIBITS`. Raises StoreError."""
    exhibits: dict[Place, Exhibit] = {}
    heads = state.monitored.mirror.heads()
    for register, index in named(told(result).numbered):
        if len(exhibits) == MAX_EXHIBITS:
            break
        # A finding of the round may be about an entry that was never read.
        held = state.monitored.mirror.store.entries_at(register, [index]) if register in heads else {}
        for entry in held.values():
            fact = fact_of(register, index, entry, state.bounds(register, index))
            exhibits[register, index] = exhibit(len(exhibits) + 1, fact, leaf_hash(entry).hex())
    return exhibits


def judged(
    state: AuditState,
    result: AuditResult,
    own: Profile | None,
    bar: Bar,
    days: ChosenDays = NONE_CHOSEN,
) -> Basis:
    """Judge every decision in the registers of a result, and count.

    Of what an earlier report has counted, only that is judged anew of which something else is known now. Raises
    StoreError.
    """
    terms = terms_in_force(state, own, result.begun, days)
    judge, tally = LatenessJudge(terms.profile, terms.calendar), Tally()
    named_terms = (
        f"{identity(terms.profile)} {terms.calendar.version} {result.software} {RULES['DET-01'].version}"
    )
    path = state.monitored.directory.root / FILE
    with kept_after_returns(state.detections) as returns, kept_counts(path) as counts:
        for each in result.registers:
            if each.register == GOVERNING:
                continue
            with bar(f"Counting in {each.register}", each.size) as advance:
                for begin in range(0, each.size, BLOCK):
                    end = min(begin + BLOCK, each.size)
                    after = returns.among(each.register, begin, end)
                    digest = made_from(state, each.register, begin, end, after, named_terms)
                    packed = counts.get(each.register, begin, digest)
                    if packed is None:
                        block = Tally()
                        block.take(audited_facts(state, each.register, begin, end), judge, after)
                        packed = block.packed()
                        counts.put(each.register, begin, digest, packed)
                    tally.merge(packed)
                    advance(end - begin)
    return Basis(terms.profile.title, terms.profile.basis, tally.figures())


def relative(evidence: str, page: Path) -> str:
    """Return the address of a file of evidence as a page at `page` links to it."""
    path = os.path.relpath(Path(evidence).resolve(), page.resolve().parent)
    return quote(Path(path).as_posix())

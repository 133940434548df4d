"""What an audit came to, told: in lines for a person, verdict first, and as one JSON object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from services.auditing.after_returns import AfterReturnCounts
from services.auditing.report.figures import Figures, Timing
from services.auditing.report.words import many
from services.auditing.results import AuditFinding, AuditResult, Promises, RegisterVerdict
from services.auditing.windows import shown_time

_SHOWN: Final = 10
"""Findings of one kind that are shown for a register; --json lists more."""

_SPANS: Final = 8


def audit_json(result: AuditResult, figures: Figures | None = None) -> dict[str, Any]:
    """Return an audit as JSON values (docs/auditing.md); `figures` where a report has counted decisions."""
    told = asdict(result)
    for register in told["registers"]:
        counts = None if figures is None else figures.registers.get(register["register"], {})
        register["timing"] = (
            None if counts is None else {each.name.lower(): counts.get(each, 0) for each in Timing}
        )
    told["ok"] = not result.failed and not result.unread
    told["failed"] = result.failed
    return told


def audit_lines(result: AuditResult, figures: Figures | None = None) -> Iterator[str]:
    """Yield an audit as lines for a person; `figures` where a report has counted decisions."""
    yield f"Ledger {result.ledger}, judged by the policy with fingerprint {result.policy_fingerprint}."
    yield _which_visit(result)
    if result.profile:
        yield f"Profile {result.profile}; working days by {result.calendar}."
    yield ""
    yield f"VERDICT  {result.verdict}"
    for register in result.registers:
        yield from _register(register, {} if figures is None else figures.registers.get(register.register, {}))
    if result.findings:
        yield ""
        yield "THE LEDGER AS A WHOLE"
        yield from _findings(result.findings)
    if result.promises is not None:
        yield ""
        yield _promises(result.promises)
    yield from (f"Not read: {each.register or 'ledger'}: {each.why}" for each in result.unread)
    yield from result.remarks
    if result.more:
        listed = ", ".join(f"{count:,} of {code}" for code, count in sorted(result.more.items()))
        yield f"Not listed, since there are so many: {listed}."
    yield ""
    yield "What this audit leaves open:"
    yield from (f"- {each}" for each in result.cannot_claim)
    if result.profile and figures is None and any(each.counts.decisions for each in result.registers):
        yield "- How many decisions are in time, late or not decided was not counted: --report counts them."


def _which_visit(result: AuditResult) -> str:
    if result.previous is None:
        return f"First visit with this state, which was begun on {shown_time(result.since)}."
    return f"Visit {result.visit} with this state; the last one ended on {shown_time(result.previous)}."


def _register(verdict: RegisterVerdict, timing: Mapping[Timing, int]) -> Iterator[str]:
    yield ""
    title = f" ({verdict.title})" if verdict.title else ""
    yield f"{verdict.standing.value.upper()}  {verdict.register}{title}"
    yield f"  {verdict.verdict}"
    if verdict.checkpoint:
        sealed = ""
        if verdict.sealed_at is not None:
            sealed = f", sealed {shown_time(verdict.sealed_at)} by {', '.join(verdict.cosigned_by)}"
        anchored = "" if verdict.anchored is None else f"; anchored up to {verdict.anchored:,}"
        yield f"  {many(verdict.size, 'entry', 'entries')}, root {verdict.root}{sealed}{anchored}"
    # The names are plurals, of which each ends in one letter that a single one has not.
    counted = [many(count, name[:-1], name) for name, count in asdict(verdict.counts).items() if count]
    if counted:
        yield f"  {', '.join(counted)}"
    if timing:
        listed = "; ".join(f"{timing[each]:,} {each.value}" for each in Timing if timing.get(each))
        yield f"  Decisions by when they were registered: {listed}"
    if verdict.after_returns is not None and verdict.after_returns.either:
        yield f"  {_after_returns(verdict.after_returns)}"
    yield from (f"  {each}" for each in verdict.details)
    yield from _findings(verdict.findings)


def _after_returns(counts: AfterReturnCounts) -> str:
    said = [f"{counts.added:,} added after the return that should have counted them"] if counts.added else []
    if counts.changed:
        said.append(f"{counts.changed:,} changed after a return, into or out of what it counts")
    return f"Decisions by the returns before them: {'; '.join(said)}"


def _findings(findings: Sequence[AuditFinding]) -> Iterator[str]:
    shown: Counter[str] = Counter()
    for each in sorted(findings, key=lambda one: (not one.is_failure, -one.severity.rank)):
        shown[each.code] += 1
        if shown[each.code] <= _SHOWN:
            yield from _finding(each)
    for code, count in shown.items():
        if count > _SHOWN:
            yield f"  … and {count - _SHOWN:,} more of {code}, which --json lists"


def _finding(finding: AuditFinding) -> Iterator[str]:
    kind = "FAILURE" if finding.is_failure else finding.severity.value.upper()
    when = "" if finding.is_new else f" (since {shown_time(finding.since)})"
    yield f"  {kind} {finding.code}{when}: {finding.what}"
    if finding.expected:
        yield f"    Expected: {finding.expected}"
    if finding.spans:
        yield f"    Entries: {_entries(finding)}"
    if finding.innocent:
        yield f"    Innocent causes: {'; '.join(finding.innocent)}"
    if finding.evidence:
        named = f", finding {finding.evidence_id}" if finding.evidence_id else ""
        yield f"    Evidence: {finding.evidence}{named}"
    if finding.recheck:
        yield f"    To check it again: {finding.recheck}"


def _entries(finding: AuditFinding) -> str:
    spans = [str(a) if a == b else f"{a}-{b}" for a, b in finding.spans[:_SPANS]]
    listed = sum(b - a + 1 for a, b in finding.spans[:_SPANS])
    return ", ".join(spans) + (f" and {finding.count - listed:,} more" if finding.count > listed else "")


def _promises(promises: Promises) -> str:
    counted = {
        "became entries": promises.kept,
        "were rejected, provably": promises.rejected,
        "are too new to be judged": promises.open,
        "BROKEN": promises.broken,
        "are of registers that were not read": promises.unread,
        "prove nothing": promises.unusable,
    }
    told = ", ".join(f"{count:,} {what}" for what, count in counted.items() if count)
    return f"Acknowledgements: {many(promises.files, 'file')}" + (f": {told}." if told else ".")

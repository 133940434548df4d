"""DET-26: one document under several decisions, and decisions that rest on screenshots alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.auditing.detections.rules import Case, Terms, many
from services.auditing.found import Found, Severity


@dataclass(frozen=True, slots=True)
class Use:
    """A record that a document is evidence of.

    `record` is the index of its first version, `index` that of the version that attaches the document, and
    `submission` the index of the first entry of the submission that brought it.
    """

    register: str
    record: int
    index: int
    submission: int


def screenshots_only(terms: Terms, case: Case) -> Found | None:
    """Return the finding for a decision all of whose evidence is screenshots."""
    rule, evidence = terms.profile.detections.evidence_reuse, case.record.evidence
    if rule is None or not rule.screenshot_only or not evidence:
        return None
    if any(item.kind != "screenshot" for item in evidence):
        return None
    inputs = {"what": "screenshots only", "screenshots": len(evidence), "channel": case.record.channel}
    return terms.found(
        "DET-26",
        Severity.LOW,
        case.register,
        (case.index,),
        inputs,
        f"All the evidence of the decision is {many(len(evidence), 'screenshot')}. A screenshot keeps "
        "neither the "
        "message nor what came before and after it.",
    )


def reused(terms: Terms, digest: str, uses: Sequence[Use]) -> Iterator[Found]:
    """Yield a finding for each register where a document evidences records, if these are enough in all."""
    rule = terms.profile.detections.evidence_reuse
    records = {(use.register, use.record) for use in uses}
    if rule is None or len(records) < rule.decisions:
        return
    together = len({(use.register, use.submission) for use in uses}) == 1
    for register in sorted({use.register for use in uses}):
        here = [use for use in uses if use.register == register]
        elsewhere = sorted({use.register for use in uses} - {register})
        inputs = {
            "what": "evidence used again",
            "sha256": digest,
            "records": len(records),
            "records_here": len({use.record for use in here}),
            "one_submission": "yes" if together else "no",
            "other_registers": ", ".join(elsewhere[:10]) or None,
        }
        said = f"One document ({digest[:16]}…) is attached to {many(len(records), 'different decision')}"
        if together:
            said += ", all registered in one submission"
        if elsewhere:
            said += f", in this and {many(len(elsewhere), 'other register')}"
        yield terms.found(
            "DET-26",
            Severity.INFO if together else Severity.LOW,
            register,
            (use.index for use in here),
            inputs,
            f"{said}.",
        )

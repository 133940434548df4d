"""Which findings are known from an earlier visit, and which are new.

A finding is known again by what it is about, whatever its numbers are by now. One that covers later entries
than it did is new as well, and keeps the time at which it was seen first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from services.auditing.notebook import Notebook
from services.auditing.results import AuditFinding, Source

_SUBJECT: Final = (
    "key",
    "file",
    "what",
    "series",
    "period_from",
    "period_to",
    "first_missing",
    "number",
    "first_used",
    "matter",
    "scheme",
    "stage",
    "earlier_stage",
    "later_stage",
    "sealed_at",
)
"""Of what a finding was made from: what it is about, and not how much or when."""


def dated(
    notebook: Notebook, findings: Iterable[AuditFinding], begun: int, number: int
) -> Iterator[AuditFinding]:
    """Yield findings, each with when it was seen first and whether it is new in visit `number`.

    `begun` is when that began, POSIX seconds. Raises StoreError.
    """
    with notebook.together():
        for finding in findings:
            identity, last = identity_of(finding), finding.spans[-1][1] if finding.spans else -1
            notebook.write(
                "INSERT INTO reported VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE "
                "SET visit = excluded.visit, last = excluded.last WHERE excluded.last > last",
                (identity, begun, number, last),
            )
            since, visit = notebook.one("SELECT since, visit FROM reported WHERE identity = ?", (identity,))
            yield replace(finding, since=since, is_new=visit == number)


def identity_of(finding: AuditFinding) -> bytes:
    """Return by what a finding is known again."""
    said: list[object] = [finding.code, finding.register]
    if finding.is_failure:
        said.append(finding.evidence)
    else:
        subject = {name: finding.inputs[name] for name in _SUBJECT if name in finding.inputs}
        said.append(subject)
        if "key" not in subject and "file" not in subject:
            said += _place(finding) or ([] if subject else [finding.what])
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest()


def _place(finding: AuditFinding) -> list[object]:
    """Return where it begins. A detection finds one thing, and so where that ends too, unless it is a run."""
    if not finding.spans:
        return []
    ends = finding.source is Source.DETECTION and "last_entry" not in finding.inputs
    return [finding.spans[0][0], finding.spans[-1][1] if ends else None]

"""Which findings a report tells, and in which order: the gravest first, so many of each kind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from services.auditing.results import AuditFinding, AuditResult

MAX_OF_A_KIND: Final = 40
"""Findings of one code that a report tells; the others are counted."""

MAX_TOLD: Final = 400
"""Findings that a report tells in all."""

SPANS: Final = 12
"""Spans of entries that are told of a finding."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """A finding with the name by which this report calls it."""

    name: str
    finding: AuditFinding


@dataclass(frozen=True, slots=True)
class Told:
    """The findings that a report tells, in order, and how many of each code it does not."""

    numbered: tuple[Numbered, ...]
    left: Counter[str]


def told(result: AuditResult) -> Told:
    """Choose what a report tells, the gravest first."""
    ordered = sorted(result.all_findings(), key=gravest_first)
    seen: Counter[str] = Counter()
    numbered: list[Numbered] = []
    left = Counter(dict(result.more))
    for finding in ordered:
        seen[finding.code] += 1
        if seen[finding.code] <= MAX_OF_A_KIND and len(numbered) < MAX_TOLD:
            numbered.append(Numbered(f"F{len(numbered) + 1}", finding))
        else:
            left[finding.code] += 1
    return Told(tuple(numbered), left)


def gravest_first(finding: AuditFinding) -> tuple[bool, int, str, str, tuple[int, int], str]:
    """Return by what findings are sorted."""
    first = finding.spans[0] if finding.spans else (-1, -1)
    return (
        not finding.is_failure,
        -finding.severity.rank,
        finding.code,
        finding.register,
        first,
        finding.what,
    )

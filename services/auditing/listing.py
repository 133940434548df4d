"""Findings as they are listed: so many of each kind, and the others counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from services.auditing.results import AuditFinding

MAX_LISTED: Final = 1_000
"""Findings of one kind that are listed."""


@dataclass(slots=True)
class Listing:
    """What was found, up to `MAX_LISTED` of each code; `more` counts those that are not listed."""

    findings: list[AuditFinding] = field(default_factory=list[AuditFinding])
    more: dict[str, int] = field(default_factory=dict[str, int])
    _listed: dict[str, int] = field(default_factory=dict[str, int], init=False)

    def add(self, finding: AuditFinding) -> None:
        """List a finding, or count it."""
        if self.is_full(finding.code):
            self.count(finding.code)
            return
        self._listed[finding.code] = self._listed.get(finding.code, 0) + 1
        self.findings.append(finding)

    def is_full(self, code: str) -> bool:
        """Tell whether no more findings of a code are listed."""
        return self._listed.get(code, 0) >= MAX_LISTED

    def count(self, code: str) -> None:
        """Count a finding that is not listed."""
        self.more[code] = self.more.get(code, 0) + 1

"""Findings as they are listed: so many of each kind, and the others counted.

A register's standing rests on what is listed. So of every register at least one integrity failure is, however
many of the others came before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from services.auditing.results import AuditFinding

MAX_LISTED: Final = 1_000
"""Findings of one kind that are listed."""


@dataclass(slots=True)
class Listing:
    """What was found, up to `MAX_LISTED` of each code; `more` counts those that are not listed.

    A register's first integrity failure is listed in any case.
    """

    findings: list[AuditFinding] = field(default_factory=list[AuditFinding])
    more: dict[str, int] = field(default_factory=dict[str, int])
    _listed: dict[str, int] = field(default_factory=dict[str, int], init=False)
    _failed: set[str] = field(default_factory=set[str], init=False)

    def add(self, finding: AuditFinding) -> None:
        """List a finding, or count it."""
        is_first_failure = finding.is_failure and finding.register not in self._failed
        if self.is_full(finding.code) and not is_first_failure:
            self.count(finding.code)
            return
        if finding.is_failure:
            self._failed.add(finding.register)
        self._listed[finding.code] = self._listed.get(finding.code, 0) + 1
        self.findings.append(finding)

    def is_full(self, code: str) -> bool:
        """Tell whether no more findings of a code are listed."""
        return self._listed.get(code, 0) >= MAX_LISTED

    def count(self, code: str) -> None:
        """Count a finding that is not listed."""
        self.more[code] = self.more.get(code, 0) + 1

"""What a detection finds: a fact about records that somebody should look at, with its numbers.

A finding is no accusation and no integrity failure. It says by which rule and from which numbers it was made,
what else may explain it, and how to look at it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How much a finding asks for attention. It orders work; it measures no guilt."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info to 4 for critical."""
        return _RANKS[self]


_RANKS = {severity: rank for rank, severity in enumerate(Severity)}


@dataclass(frozen=True, slots=True)
class Found:
    """One finding of one detection.

    `detection` is its id (`DET-01`) and `version` that of its rule. `indices` are the entries of `register`
    that it is about, ascending; empty where it is about something that is not there. `inputs` are the numbers
    that it was made from, as text. `innocent` are known innocent causes. `recheck` says how to look at it
    again. `explanation` is plain English; what it repeats from records is text of the registers' vocabularies,
    numbers, dates and names, and may still be hostile: escape it wherever it is shown.
    """

    detection: str
    version: int
    severity: Severity
    register: str
    indices: tuple[int, ...]
    inputs: Mapping[str, str]
    explanation: str
    innocent: tuple[str, ...]
    recheck: str

    @property
    def order(self) -> tuple[str, int, str, str]:
        """What findings are sorted by: register, first index, detection, then the rest of what they say."""
        first = self.indices[0] if self.indices else -1
        return self.register, first, self.detection, self.explanation

    def members(self) -> dict[str, Any]:
        """Return the finding as JSON values, for files and `--json`."""
        return {
            "detection": self.detection,
            "version": self.version,
            "severity": self.severity.value,
            "register": self.register,
            "indices": list(self.indices),
            "inputs": dict(self.inputs),
            "explanation": self.explanation,
            "innocent": list(self.innocent),
            "recheck": self.recheck,
        }

"""What is counted of a register, for people: folded from its entries, and proving nothing.

Whoever does not trust it counts the entries that are proved to him.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ledger.admission import moment
from ledger.entries import parse_entry
from ledger.records import Broken, DecisionRegistered, NotUnderstood, SubmissionRejected, read_record
from ledger.values import partial

DAY: Final = 86_400

LAG_DAYS: Final = (1, 3, 7, 14, 30, 90, 365)
"""Upper bounds, in days, of the classes of lags; the last class has no bound."""


@dataclass(frozen=True, slots=True)
class Lags:
    """How long after a decision its first version was accepted: from the latest second of its `decided_at`.

    `classes` counts them by `LAG_DAYS`; `longest` is in seconds. One that was accepted within the time that its
    `decided_at` allows for has no lag, which counts as 0.
    """

    count: int = 0
    longest: int = 0
    classes: tuple[int, ...] = (0,) * (len(LAG_DAYS) + 1)

    def with_one(self, seconds: int) -> Lags:
        """Return these and one more."""
        at = next((number for number, days in enumerate(LAG_DAYS) if seconds <= days * DAY), len(LAG_DAYS))
        classes = tuple(count + (number == at) for number, count in enumerate(self.classes))
        return Lags(self.count + 1, max(self.longest, seconds), classes)


@dataclass(frozen=True, slots=True)
class Summary:
    """What is counted of the first `size` entries of a register.

    `decisions` counts first versions by `decision_type`; `latest_at` is the `accepted_at` of the last entry.
    `not_understood` counts records that break rules of registration, or are of a type that is not defined.
    """

    size: int = 0
    submissions: int = 0
    rejections: int = 0
    decisions: Mapping[str, int] = field(default_factory=dict[str, int])
    latest_at: str | None = None
    lags: Lags = Lags()
    not_understood: int = 0

    def extended(self, entries: Iterable[bytes]) -> Summary:
        """Return the summary with the entries that follow."""
        made = self
        for data in entries:
            made = made._with_one(data)
        return made

    def _with_one(self, data: bytes) -> Summary:
        entry = parse_entry(data)
        accepted_at = entry.acceptance.accepted_at
        made = replace(self, size=self.size + 1, latest_at=accepted_at)
        if entry.membership is not None and entry.membership.position == 0:
            made = replace(made, submissions=self.submissions + 1)
        # The append rules look at the headers of records only: what a department has signed may be anything.
        match read_record(entry.record):
            case SubmissionRejected():
                return replace(made, rejections=self.rejections + 1)
            case DecisionRegistered(decision_type=kind, decided_at=decided_at):
                decisions = {**self.decisions, kind: self.decisions.get(kind, 0) + 1}
                lag = max(0, int(moment(accepted_at)) - partial(decided_at).latest)
                return replace(made, decisions=decisions, lags=self.lags.with_one(lag))
            case NotUnderstood() | Broken():
                return replace(made, not_understood=self.not_understood + 1)
            case _:
                return made

    def told(self) -> dict[str, Any]:
        """Return it as JSON is to say it."""
        bounds = [*(f"up_to_{days}" for days in LAG_DAYS), f"over_{LAG_DAYS[-1]}"]
        return {
            "size": self.size,
            "submissions": self.submissions,
            "rejections": self.rejections,
            "not_understood": self.not_understood,
            "decisions": dict(sorted(self.decisions.items())),
            "latest_at": self.latest_at,
            "lag": {
                "count": self.lags.count,
                "longest_seconds": self.lags.longest,
                "days": dict(zip(bounds, self.lags.classes, strict=True)),
            },
        }


def nothing_counted() -> Mapping[str, Summary]:
    """Return no summary: where no projector counts."""
    return {}

"""DET-29: entries that no quorum of the auditor's witnesses has seen, or that one saw long after the ledger."""

from __future__ import annotations

from dataclasses import dataclass

from services.auditing.detections.rules import Terms, many
from services.auditing.found import Found, Severity
from services.auditing.lateness import shown


@dataclass(frozen=True, slots=True)
class Run:
    """Entries in a row of which the same holds: all never witnessed, or all witnessed too late.

    `accepted_at` is the earliest that the ledger claims of one of them, POSIX seconds; `delay` the longest in
    seconds, None where they were never witnessed.
    """

    register: str
    first: int
    last: int
    accepted_at: float
    delay: int | None


def is_late(terms: Terms, accepted_at: float, not_after: int) -> bool:
    """Tell whether an entry was witnessed later than the profile allows, by the ledger's own claim."""
    rule = terms.profile.detections.unwitnessed
    return rule is not None and not_after - accepted_at > rule.seconds


def unwitnessed(terms: Terms, run: Run, now: int) -> Found | None:
    """Return the finding for a run of entries as things stand at `now` (POSIX seconds)."""
    rule = terms.profile.detections.unwitnessed
    if rule is None:
        return None
    entries = many(run.last - run.first + 1, "entry", "entries")
    waited = run.delay if run.delay is not None else int(now - run.accepted_at)
    if waited <= rule.seconds:
        return None
    inputs = {
        "what": "never witnessed" if run.delay is None else "witnessed late",
        "first_entry": run.first,
        "last_entry": run.last,
        "accepted_at": shown(run.accepted_at),
        "waited_seconds": waited,
        "limit_seconds": rule.seconds,
        "as_at": shown(now) if run.delay is None else None,
    }
    if run.delay is None:
        severity = Severity.HIGH
        said = (
            f"No quorum of your witnesses has seen {entries}, from {run.first} to {run.last}. The "
            "ledger says that "
            f"it accepted the first at {shown(run.accepted_at)}, {waited // 3_600:,} hours before {shown(now)}"
        )
    else:
        severity = Severity.MEDIUM
        said = (
            f"A quorum of your witnesses saw {entries}, from {run.first} to {run.last}, up to "
            f"{waited // 3_600:,} "
            "hours after the ledger says that it accepted them"
        )
    return terms.found("DET-29", severity, run.register, {run.first, run.last}, inputs, f"{said}.")

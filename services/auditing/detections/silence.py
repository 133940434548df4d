"""DET-30: a register without new decisions while its department goes on."""

from __future__ import annotations

from dataclasses import dataclass

from services.auditing.detections.rules import Terms, many
from services.auditing.found import Found, Severity
from services.auditing.lateness import shown
from services.auditing.working_days import OutsideCalendarError, london_day, working_days_between


@dataclass(frozen=True, slots=True)
class LastSeen:
    """The last decision of a register: its index, and by when witnesses had it (POSIX seconds)."""

    register: str
    index: int
    not_after: int


def silence(terms: Terms, last: LastSeen, active: LastSeen) -> Found | None:
    """Return the finding for a register whose last decision is long before its department's last: `active`."""
    rule = terms.profile.detections.silence
    if rule is None:
        return None
    try:
        days = working_days_between(terms.calendar, london_day(last.not_after), london_day(active.not_after))
    except OutsideCalendarError:
        return None
    if days <= rule.working_days:
        return None
    inputs = {
        "last_decision": last.index,
        "last_not_after": shown(last.not_after),
        "active_register": active.register,
        "active_not_after": shown(active.not_after),
        "working_days": days,
        "limit_working_days": rule.working_days,
    }
    return terms.found(
        "DET-30",
        Severity.LOW,
        last.register,
        (last.index,),
        inputs,
        f"No decision came into the register after {shown(last.not_after)}, while {active.register} of the "
        f"same department had one by {shown(active.not_after)}, {many(days, 'working day')} later.",
    )

"""DET-30: a register without new decisions while its department goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from services.auditing.detections.rules import Terms, many
from services.auditing.found import Found, Severity
from services.auditing.lateness import shown
from services.auditing.working_days import OutsideCalendarError, london_day, working_days_between


@dataclass(frozen=True, slots=True)
class LastSeen:
    """The last decision of a register: its index, and by when witnesses had it (POSIX seconds).

    Without `index` there is none, and `moment` is since when there should be some.
    """

    register: str
    index: int | None
    moment: int


@dataclass(frozen=True, slots=True)
class Active:
    """The entry that shows at the latest moment (POSIX seconds) that a department is at work."""

    register: str
    index: int
    moment: int
    kind: Literal["decision", "return"]


def silence(terms: Terms, last: LastSeen, active: Active) -> Found | None:
    """Return the finding for a register whose last decision is long before its department was at work."""
    rule = terms.profile.detections.silence
    if rule is None:
        return None
    try:
        days = working_days_between(terms.calendar, london_day(last.moment), london_day(active.moment))
    except OutsideCalendarError:
        return None
    if days <= rule.working_days:
        return None
    inputs = {
        "last_decision": last.index,
        "last_not_after": None if last.index is None else shown(last.moment),
        "counted_from": shown(last.moment) if last.index is None else None,
        "active_by": active.kind,
        "active_register": active.register,
        "active_entry": active.index,
        "active_moment": shown(active.moment),
        "working_days": days,
        "limit_working_days": rule.working_days,
    }
    if last.index is None:
        said = f"There is no decision in the register, whose returns count some from {shown(last.moment)} on"
    else:
        said = f"No decision came into the register after {shown(last.moment)}"
    if active.kind == "return":
        said += (
            f", while entry {active.index} of {active.register}, a return, counts decisions made from "
            f"{shown(active.moment)} on, {many(days, 'working day')} later."
        )
    else:
        said += (
            f", while {active.register} of the same department had one by {shown(active.moment)}, "
            f"{many(days, 'working day')} later."
        )
    indices = {last.index} if last.index is not None else set[int]()
    if active.kind == "return" and active.register == last.register:
        indices.add(active.index)
    return terms.found("DET-30", Severity.LOW, last.register, indices, inputs, said)

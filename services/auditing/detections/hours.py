"""DET-21: late records that were registered, published or decided off hours."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from ledger.values import Partial, partial
from services.auditing.detections.rules import Case, Terms
from services.auditing.found import Found, Severity
from services.auditing.lateness import shown
from services.auditing.profile_types import OffHours
from services.auditing.working_days import Calendar, OutsideCalendarError, is_working_day, london_day

_LONDON: Final = ZoneInfo("Europe/London")
_HOUR: Final = 3_600


def off_hours(
    terms: Terms, case: Case, *, late_registration: bool, late_publication: bool
) -> tuple[Found, ...]:
    """Return the findings of one record that came late: each for one of its times that lies off hours wholly.

    A registration counts only where both of its bounds lie off hours, on one side of any working time between,
    and may be compared.
    """
    rule = terms.profile.detections.off_hours
    if rule is None or not (late_registration or late_publication):
        return ()
    times: list[tuple[str, Partial, Severity, str]] = []
    before, after = case.bounds.not_before, case.bounds.not_after
    is_asked = late_registration and case.bounds.comparable and case.index == case.registered_index
    if is_asked and before is not None and after is not None:
        times.append(("registered", Partial(before, after), Severity.LOW, "and late"))
    if case.record.publication is not None:
        how = "and late" if late_publication else "and the record was registered late"
        times.append(("published", partial(case.record.publication.first), Severity.LOW, how))
    # Decided at an odd hour is everyday; on a day when nobody works it is worth a look where it also came late.
    times.append(("decided", case.decided, Severity.INFO, "and it came late"))
    found = []
    for name, span, severity, how in times:
        reason = why_off_hours(terms.calendar, rule if name != "decided" else None, span)
        if reason is None:
            continue
        inputs = {"what": name, "from": shown(span.earliest), "to": shown(span.latest), "why": reason}
        said = f"It was {name} {reason} (between {shown(span.earliest)} and {shown(span.latest)}), {how}."
        found.append(terms.found("DET-21", severity, case.register, (case.index,), inputs, said))
    return tuple(found)


def why_off_hours(calendar: Calendar, hours: OffHours | None, span: Partial) -> str | None:
    """Return why all of a span of time lies off hours; None where it does not, or nobody knows.

    Without `hours` only whole days off count.
    """
    try:
        first, last = london_day(span.earliest), london_day(span.latest)
        if (last - first).days > 7:
            return None
        day = first
        while not is_working_day(calendar, day):
            if day == last:
                return (
                    "on a day that is no working day" if first == last else "on days that are no working days"
                )
            day = day.fromordinal(day.toordinal() + 1)
    except OutsideCalendarError:
        return None
    if hours is None or span.latest - span.earliest > 24 * _HOUR:
        return None
    moments = {*range(span.earliest, span.latest, _HOUR // 2), span.latest}
    if all(_is_at_night(hours, moment) for moment in moments):
        return f"between {hours.from_hour:02}:00 and {hours.until_hour:02}:00"
    return None


def _is_at_night(hours: OffHours, moment: int) -> bool:
    hour = datetime.fromtimestamp(moment, UTC).astimezone(_LONDON).hour
    if hours.from_hour < hours.until_hour:
        return hours.from_hour <= hour < hours.until_hour
    return hour >= hours.from_hour or hour < hours.until_hour

"""DET-09: returns that state what the register does not hold, and periods without one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice
from typing import Final

from ledger.values import Partial, partial
from services.auditing.detections.rules import Terms, many
from services.auditing.found import Found, Severity
from services.auditing.lateness import shown
from services.auditing.returns import JudgedReturn, ReturnFindingKind
from services.auditing.working_days import (
    OutsideCalendarError,
    deadline_after,
    london_day,
    working_days_between,
)

_SEVERITIES: Final = {
    ReturnFindingKind.COUNT: Severity.HIGH,
    ReturnFindingKind.RANGE: Severity.MEDIUM,
    ReturnFindingKind.EARLY: Severity.LOW,
    ReturnFindingKind.ADDED: Severity.HIGH,
    ReturnFindingKind.CHANGED: Severity.MEDIUM,
}
MAX_AFTER: Final = 100
"""Entries after a return that one finding lists; its inputs say how many there are."""

_MOST_NAMED: Final = 10

MAX_MISSING: Final = 120
"""Periods of one series without a return that are told."""

MAX_EXPECTED: Final = 600
"""Periods of one series that are looked at: fifty years of months."""


def mismatches(terms: Terms, register: str, judged: JudgedReturn) -> Iterator[Found]:
    """Yield a finding for each thing that differs between a return and the register as it stood then."""
    if terms.profile.detections.return_missing is None:
        return
    for each in judged.findings:
        inputs = {"what": each.kind.value, **_inputs(judged)}
        severity = _SEVERITIES[each.kind]
        yield terms.found("DET-09", severity, register, each.indices, inputs, each.sentence)


def _inputs(judged: JudgedReturn) -> dict[str, object]:
    filed, counted = judged.filed, judged.counted
    return {
        "series": filed.series,
        "period_from": shown(filed.period.earliest),
        "period_to": shown(filed.period.latest),
        "stated_count": filed.count,
        "stated_first": filed.first,
        "stated_last": filed.last,
        "counted": counted.count,
        "counted_first": counted.first,
        "counted_last": counted.last,
        "return": filed.index,
    }


@dataclass(frozen=True, slots=True)
class Moved:
    """What came after a return and belongs into it, or left it: `count` entries, of which some are listed.

    `kind` is ADDED or CHANGED, `indices` are the first of them and the last, ascending.
    """

    kind: ReturnFindingKind
    count: int
    indices: tuple[int, ...]


def moved(terms: Terms, register: str, judged: JudgedReturn, of: Moved) -> Found | None:
    """Return the one finding for all that came after a return in one way."""
    if terms.profile.detections.return_missing is None or not of.count:
        return None
    inputs = {
        "what": of.kind.value,
        **_inputs(judged),
        "entries_after": of.count,
        "first_after": of.indices[0],
        "last_entry": of.indices[-1],
    }
    listed = ", ".join(map(str, of.indices[:_MOST_NAMED]))
    if of.count > _MOST_NAMED:
        listed += f", … {of.indices[-1]}"
    entries = f"{'Entry' if of.count == 1 else 'Entries'} {listed}"
    if of.kind is ReturnFindingKind.ADDED:
        what = "is a decision" if of.count == 1 else f"are {of.count:,} decisions"
        sentence = f"{entries} {what} of the period, registered after the return at entry {judged.filed.index}."
    else:
        was = "was" if of.count == 1 else f"({of.count:,} in all) were"
        sentence = (
            f"{entries} {was} moved into or out of what the return at entry {judged.filed.index} counts, by "
            f"{'a correction' if of.count == 1 else 'corrections'} after it."
        )
    indices = (judged.filed.index, *of.indices)
    return terms.found("DET-09", _SEVERITIES[of.kind], register, indices, inputs, sentence)


def late_return(
    terms: Terms, register: str, index: int, period: Partial, not_before: int | None
) -> Found | None:
    """Return the finding for a period's first return that was provably not there by the deadline."""
    rule = terms.profile.detections.return_missing
    if rule is None or not_before is None:
        return None
    try:
        deadline = deadline_after(terms.calendar, period.latest, rule.working_days)
        days = working_days_between(terms.calendar, london_day(period.latest), london_day(not_before))
    except OutsideCalendarError:
        return None
    if not_before <= deadline:
        return None
    inputs = {
        "what": "late return",
        "period_from": shown(period.earliest),
        "period_to": shown(period.latest),
        "deadline": shown(deadline),
        "not_before": shown(not_before),
        "working_days": days,
        "limit_working_days": rule.working_days,
    }
    return terms.found(
        "DET-09",
        Severity.LOW,
        register,
        (index,),
        inputs,
        f"The return for the period to {shown(period.latest)} was not there "
        f"{many(days, 'working day')} after its "
        f"end; the profile has {rule.working_days}.",
    )


def missing(terms: Terms, register: str, series: str, periods: Sequence[Partial], now: int) -> Iterator[Found]:
    """Yield a finding for each period without a return that lies among, or after, those with one.

    The length that most of the returns have is that of a period: a month, or the like. `now` (POSIX seconds) is
    up to when returns can be due. At most `MAX_MISSING` are told.
    """
    rule = terms.profile.detections.return_missing
    if rule is None or not periods:
        return
    told = 0
    for first, last in islice(_expected(periods, now), MAX_EXPECTED):
        begin, end = partial(first.isoformat()).earliest, partial(last.isoformat()).latest
        if any(period.earliest <= end and period.latest >= begin for period in periods):
            continue
        try:
            deadline = deadline_after(terms.calendar, end, rule.working_days)
        except OutsideCalendarError:
            continue
        if deadline >= now or told == MAX_MISSING:
            continue
        told += 1
        inputs = {
            "what": "missing",
            "series": series,
            "period_from": first,
            "period_to": last,
            "deadline": shown(deadline),
            "as_at": shown(now),
            "limit_working_days": rule.working_days,
        }
        yield terms.found(
            "DET-09",
            Severity.MEDIUM,
            register,
            (),
            inputs,
            f"There is no return of series {series} for {first} to {last}; the profile expects one by "
            f"{shown(deadline)}. Other periods of the series have one.",
        )


def _expected(periods: Sequence[Partial], now: int) -> Iterator[tuple[date, date]]:
    """Yield the periods that follow one another from the first of the usual length, as first and last days."""
    lengths: dict[tuple[int, int], list[tuple[date, date]]] = {}
    for period in periods:
        try:
            begin, end = london_day(period.earliest), london_day(period.latest)
            lengths.setdefault(_length(begin, end), []).append((begin, end))
        except (OutsideCalendarError, OverflowError):
            # Some year that no calendar has.
            continue
    if not lengths:
        return
    (months, days), usual = max(lengths.items(), key=lambda each: (len(each[1]), each[0]))
    begin, end = min(usual)
    try:
        today = london_day(now)
        while end < today:
            yield begin, end
            begin = end + timedelta(days=1)
            end = (_months_on(begin, months) if months else begin + timedelta(days=days)) - timedelta(days=1)
    except (OutsideCalendarError, OverflowError, ValueError):
        return


def _length(begin: date, end: date) -> tuple[int, int]:
    """Return how long a period is: in whole months, or else 0 and days."""
    after = end + timedelta(days=1)
    months = (after.year - begin.year) * 12 + after.month - begin.month
    if begin.day == after.day == 1 and months:
        return months, 0
    return 0, (after - begin).days


def _months_on(day: date, months: int) -> date:
    years, month = divmod(day.month - 1 + months, 12)
    return date(day.year + years, month + 1, 1)

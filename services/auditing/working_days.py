"""Working days: which days count, the nth one after a day, and how many lie between two.

A calendar is a list of working days over the years that its data cover. Outside them nothing is known, and
nothing is guessed. A day is a civil date in Europe/London with no cut-off hour within it, and the day after the
one that counting starts from is the first that can be day 1.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from ledger.errors import LedgerError, MalformedError
from ledger.values import partial

_LONDON: Final = ZoneInfo("Europe/London")


class OutsideCalendarError(LedgerError):
    """A day lies outside the years that a calendar's data cover: whether it is a working day is not known."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """The working days from `first` to `last`, both included, as ascending ordinals (`date.toordinal`).

    `version` names the data that they come from, and stands in every result that is worked out with them: the
    lists of bank holidays change, and a result worked out anew with another list is another result.
    """

    name: str
    version: str
    first: date
    last: date
    days: tuple[int, ...]


def is_working_day(calendar: Calendar, day: date) -> bool:
    """Tell whether `day` is a working day. Raises OutsideCalendarError."""
    ordinal = _known(calendar, day)
    position = bisect_left(calendar.days, ordinal)
    return position < len(calendar.days) and calendar.days[position] == ordinal


def nth_working_day(calendar: Calendar, after: date, n: int) -> date:
    """Return the nth working day after `after`, n >= 1; `after` need not be one itself.

    Raises OutsideCalendarError where that day is beyond the data; ValueError for n below 1.
    """
    if n < 1:
        raise ValueError(f"there is no working day number {n}")
    position = bisect_right(calendar.days, _known(calendar, after)) + n - 1
    if position >= len(calendar.days):
        raise OutsideCalendarError(
            f"working day {n} after {after} is not known: the calendar {calendar.name} ends on {calendar.last}"
        )
    return date.fromordinal(calendar.days[position])


def working_days_between(calendar: Calendar, after: date, until: date) -> int:
    """Return how many working days are later than `after` and not later than `until`; 0 where none can be.

    Raises OutsideCalendarError.
    """
    begin, end = _known(calendar, after), _known(calendar, until)
    return max(0, bisect_right(calendar.days, end) - bisect_right(calendar.days, begin))


def working_days_at_least(calendar: Calendar, after: date, until: date) -> int:
    """Return how many working days lie between as `working_days_between` does, of those that are known.

    What is before the calendar's first day counts for nothing, so there are at least so many. Raises
    OutsideCalendarError where `until` is beyond its last day.
    """
    return working_days_between(calendar, max(after, calendar.first), max(until, calendar.first))


@lru_cache(maxsize=64)
def _begins(first: date) -> int:
    return partial(first.isoformat()).earliest


def begins(calendar: Calendar) -> int:
    """Return the first second of the calendar's first day in Europe/London (POSIX)."""
    return _begins(calendar.first)


def london_day(seconds: float) -> date:
    """Return the civil date in Europe/London at `seconds` (POSIX). Raises OutsideCalendarError for no such."""
    try:
        return datetime.fromtimestamp(seconds, UTC).astimezone(_LONDON).date()
    except (ValueError, OverflowError, OSError) as error:
        raise OutsideCalendarError(f"{seconds} seconds is no time that a calendar has") from error


@lru_cache(maxsize=4096)
def end_of_day(day: date) -> int:
    """Return the last second of a day in Europe/London (POSIX), which still belongs to it."""
    try:
        return partial(day.isoformat()).latest
    except MalformedError as error:
        raise OutsideCalendarError(f"{day} is no day that a record can name") from error


def deadline_after(calendar: Calendar, seconds: int, n: int) -> int:
    """Return the last second of the nth working day after the day on which `seconds` falls (all POSIX).

    Raises OutsideCalendarError; ValueError for n below 1.
    """
    return end_of_day(nth_working_day(calendar, london_day(seconds), n))


def _known(calendar: Calendar, day: date) -> int:
    if not calendar.first <= day <= calendar.last:
        raise OutsideCalendarError(
            f"{day} is outside the calendar {calendar.name}, which knows {calendar.first} to {calendar.last}"
        )
    return day.toordinal()

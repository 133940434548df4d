"""The two calendars, from the bank holidays that GOV.UK publishes, and files that override single days.

`dept-ew` has the bank holidays of England and Wales; `foi-uk` those of any part of the United Kingdom, with
Christmas Day and Good Friday (section 10(6) of the Freedom of Information Act 2000). The data are the copy that
comes with the package govuk-bank-holidays: nothing is fetched, so that everybody who has the same version has
the same days.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Final, Literal, get_args

from msgspec import Meta

from ledger.errors import MalformedError, Reason, Violation
from ledger.record_rules import refusal
from ledger.record_types import Line, Members
from ledger.values import Form, Slug, is_period
from services.auditing.declared import digest, parse
from services.auditing.working_days import Calendar

CalendarName = Literal["dept-ew", "foi-uk"]
NAMES: Final[tuple[str, ...]] = get_args(CalendarName)
"""The calendars that there are."""

OVERRIDES_TYPE: Final = "daybook.calendar/1"
"""The type of a file of overrides, and of the `calendar` object of a `policy.published/1`."""

_PACKAGE: Final = "govuk-bank-holidays"
_ENGLAND_AND_WALES: Final = ("england-and-wales",)
_UNITED_KINGDOM: Final = ("england-and-wales", "scotland", "northern-ireland")
_SATURDAY: Final = 5
_DIGEST: Final = 32
"""Hex digits of a digest in a version."""


def _is_day(text: str) -> bool:
    return len(text) == 10 and is_period(text)


Day = Annotated[str, Form("a day that exists, YYYY-MM-DD", _is_day)]


class OverriddenDay(Members, frozen=True, kw_only=True):
    """One day that is otherwise than in the packaged list, and why."""

    date: Day
    reason: Line


class Overrides(Members, frozen=True, kw_only=True):
    """Days to add to or to remove from a calendar's bank holidays, as stated on one day by somebody."""

    basis: Line
    calendar: CalendarName
    dated: Day
    name: Slug
    non_working: Annotated[tuple[OverriddenDay, ...], Meta(min_length=1, max_length=500)] | None = None
    type: Literal["daybook.calendar/1"]
    working: Annotated[tuple[OverriddenDay, ...], Meta(min_length=1, max_length=500)] | None = None


@dataclass(frozen=True, slots=True)
class _Packaged:
    """The packaged lists by part of the United Kingdom."""

    release: str
    holidays: Mapping[str, frozenset[date]]


@cache
def packaged(name: str) -> Calendar:
    """Return the calendar `dept-ew` or `foi-uk` from the packaged data. Raises RejectedError for another name.

    Its version is that of the package, the years that it covers and the digest of its days.
    """
    if name not in NAMES:
        raise refusal((Violation(Reason.INVALID_FIELD, f"{name!r} is not a calendar", "calendar", NAMES),))
    data = _packaged_data()
    parts = _UNITED_KINGDOM if name == "foi-uk" else _ENGLAND_AND_WALES
    # Only years that the list of every part has: the list of one part alone would make too many working days.
    years = sorted(set.intersection(*({day.year for day in data.holidays[part]} for part in parts)))
    if years != list(range(years[0], years[-1] + 1)):
        raise MalformedError(f"the bank holidays of {_PACKAGE} {data.release} leave out a year")
    first, last = date(years[0], 1, 1), date(years[-1], 12, 31)
    closed = frozenset[date]().union(*(data.holidays[part] for part in parts))
    if name == "foi-uk":
        closed |= {day for year in years for day in (date(year, 12, 25), good_friday(year))}
    days = tuple(_working(first, last, closed))
    version = f"{name} {_PACKAGE} {data.release} {years[0]}-{years[-1]} sha256:{_digest_of(days)}"
    return Calendar(name, version, first, last, days)


@cache
def _packaged_data() -> _Packaged:
    # The file is read and the module left alone: that one loads a network client.
    stated = json.loads((files("govuk_bank_holidays") / "bank-holidays.json").read_bytes())
    holidays = {
        part: frozenset(date.fromisoformat(event["date"]) for event in stated[part]["events"])
        for part in _UNITED_KINGDOM
    }
    return _Packaged(importlib.metadata.version(_PACKAGE), holidays)


def good_friday(year: int) -> date:
    """Return Good Friday of a year of the Gregorian calendar, two days before Easter Sunday."""
    # The anonymous Gregorian computus (Meeus, Jones, Butcher).
    golden, century, rest = year % 19, year // 100, year % 100
    leap, odd = divmod(century, 4)
    shift = (century - (century + 8) // 25 + 1) // 3
    moon = (19 * golden + century - leap - shift + 15) % 30
    quarter, rest = divmod(rest, 4)
    week = (32 + 2 * odd + 2 * quarter - moon - rest) % 7
    late = (golden + 11 * moon + 22 * week) // 451
    month, day = divmod(moon + week - 7 * late + 114, 31)
    return date(year, month, day + 1) - timedelta(days=2)


def parse_overrides(value: object) -> Overrides:
    """Return a file of overrides from its JSON value.

    Raises RejectedError with everything that is wrong with it, MalformedError for a character that no record
    may have.
    """
    return parse(value, Overrides, _rules)


def with_overrides(calendar: Calendar, *overrides: Overrides) -> Calendar:
    """Return a calendar in which these overrides hold, a later one over an earlier one.

    Its version names each by its digest. Raises RejectedError for one that is of another calendar, or has a day
    outside the years of this one, where it could have no effect.
    """
    days = set(calendar.days)
    version = calendar.version
    for each in overrides:
        found = tuple(_misfits(calendar, each))
        if found:
            raise refusal(found)
        days -= {_ordinal(one) for one in each.non_working or ()}
        days |= {_ordinal(one) for one in each.working or ()}
        version = f"{version} + {overrides_identity(each)}"
    return Calendar(calendar.name, version, calendar.first, calendar.last, tuple(sorted(days)))


def overrides_identity(overrides: Overrides) -> str:
    """Return what names a file of overrides in versions: its name, its date and its digest."""
    return f"overrides {overrides.name} of {overrides.dated} sha256:{digest(overrides)[:_DIGEST]}"


def _ordinal(day: OverriddenDay) -> int:
    return date.fromisoformat(day.date).toordinal()


def _rules(value: Mapping[str, Any]) -> Iterator[Violation]:
    """Yield what is wrong with overrides of the right shape."""
    if "working" not in value and "non_working" not in value:
        yield Violation(Reason.INVALID_FIELD, "is required, or working: an override has days", "non_working")
    seen: set[str] = set()
    for name in ("non_working", "working"):
        for index, item in enumerate(value.get(name, ())):
            path, day = f"{name}[{index}].date", item["date"]
            if day in seen:
                yield Violation(Reason.INVALID_FIELD, "is named twice", path)
            seen.add(day)
            if date.fromisoformat(day).weekday() >= _SATURDAY:
                yield Violation(Reason.INVALID_FIELD, "is a weekend, which is never a working day", path)


def _misfits(calendar: Calendar, overrides: Overrides) -> Iterator[Violation]:
    if overrides.calendar != calendar.name:
        yield Violation(Reason.INVALID_FIELD, "is another calendar", "calendar", (calendar.name,))
    for name, days in (("non_working", overrides.non_working), ("working", overrides.working)):
        for index, each in enumerate(days or ()):
            if not calendar.first <= date.fromisoformat(each.date) <= calendar.last:
                span = f"is outside the calendar's years, {calendar.first.year} to {calendar.last.year}"
                yield Violation(Reason.INVALID_FIELD, span, f"{name}[{index}].date")


def _working(first: date, last: date, closed: Collection[date]) -> Iterator[int]:
    for ordinal in range(first.toordinal(), last.toordinal() + 1):
        day = date.fromordinal(ordinal)
        if day.weekday() < _SATURDAY and day not in closed:
            yield ordinal


def _digest_of(days: tuple[int, ...]) -> str:
    """Return the digest of a list of working days: of their ISO dates, an LF behind each."""
    text = "".join(f"{date.fromordinal(day)}\n" for day in days)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]

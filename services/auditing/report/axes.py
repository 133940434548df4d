"""Axes of days: which days a plot shows, where it marks them, and what it writes there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Final

_MOST_TICKS: Final = 8
_MONTHS: Final = (1, 2, 3, 6, 12, 24, 60, 120, 240)
_DAYS: Final = (1, 2, 7, 14)


@dataclass(frozen=True, slots=True)
class Axis:
    """Days from `first` to `last` (ordinals) on a line from `begin` to `end`, in units of a plot."""

    first: int
    last: int
    begin: float
    end: float

    def at(self, day: float) -> float:
        """Return where a day stands; at the edge where it is beyond."""
        inside = min(max(day, self.first), self.last)
        return self.begin + (self.end - self.begin) * (inside - self.first) / (self.last - self.first)

    @property
    def scale(self) -> float:
        """How long a day is."""
        return (self.end - self.begin) / (self.last - self.first)

    def shows(self, day: float) -> bool:
        """Tell whether a day is within the axis."""
        return self.first <= day <= self.last


@dataclass(frozen=True, slots=True)
class Tick:
    """A day that is marked, and what is written there."""

    day: int
    label: str


def within(days: Iterable[int], lowest: int, highest: int) -> tuple[int, int] | None:
    """Return the first and the last of the days from `lowest` to `highest`; None where there is none."""
    inside = [day for day in days if lowest <= day <= highest]
    return (min(inside), max(inside)) if inside else None


def widened(first: int, last: int, least: int = 14) -> tuple[int, int]:
    """Return days with a margin: `least` days at the least, of which few are later, since they are to come."""
    span = last - first
    after = max(span // 80, 1)
    before = max(span // 40, least - span - after, 1)
    return max(first - before, 1), min(last + after, date.max.toordinal())


def ticks(first: int, last: int) -> list[Tick]:
    """Return the days to mark: at most eight, of whole months where there are more than two."""
    if last - first <= 62:
        step = next(step for step in _DAYS if (last - first) // step < _MOST_TICKS or step == _DAYS[-1])
        return [Tick(day, _day(day)) for day in range(first + -first % step, last + 1, step)]
    begin, end = _month(first), _month(last)
    step = next(step for step in _MONTHS if (end - begin) // step < _MOST_TICKS or step == _MONTHS[-1])
    marked = range(begin + -begin % step, end + 1, step)
    days = [date(month // 12, month % 12 + 1, 1) for month in marked]
    return [
        Tick(day.toordinal(), str(day.year) if step >= 12 else f"{day:%b} {day.year}")
        for day in days
        if first <= day.toordinal() <= last
    ]


def _month(day: int) -> int:
    found = date.fromordinal(day)
    return found.year * 12 + found.month - 1


def _day(day: int) -> str:
    found = date.fromordinal(day)
    return f"{found.day} {found:%b} {found.year}"

"""DET-20: many registrations, publications or updates within an hour, far over what was usual before.

Events come as ticks in the order of their latest moment, and are looked at as they pass: memory is that of one
window and of the hours of four weeks. A publication is claimed to some precision only, and counts in a window
that it may lie in.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from services.auditing.detections.rules import DAY, Terms, many
from services.auditing.found import Found, Severity
from services.auditing.lateness import shown
from services.auditing.profile_types import Burst as BurstRule

BASELINE: Final = 28 * DAY
"""Seconds before a window from which the usual rate is taken."""

OFFICE_HOURS: Final = 200
"""Hours in which an office works in that time: ten on each of twenty days."""

HOUR: Final = 3_600
"""Seconds."""

_ENOUGH: Final = 5
"""Hours with events that a median needs: fewer tell nothing of what is usual, and it counts as 0."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Events of one group that share their time: between `earliest` and `latest`, POSIX seconds.

    `late` and `migrated` are how many of them were registered late, and are marked as migrated. `first` and
    `last` are the lowest and highest index of their entries.
    """

    earliest: int
    latest: int
    count: int
    late: int
    migrated: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Burst:
    """Ticks of windows that overlap, each window far over the usual rate. `most` is the fullest window's count.

    `median` and `usual` (events an hour) are those before that window, and `chance` that of so many, at most.
    """

    begin: int
    end: int
    ticks: tuple[Tick, ...]
    most: int
    median: float
    usual: float
    chance: float

    @property
    def count(self) -> int:
        """How many events there are in all."""
        return sum(tick.count for tick in self.ticks)


def bursts(
    rule: BurstRule, before: Iterable[tuple[int, int]], ticks: Iterable[Tick], known_from: int
) -> Iterator[Burst]:
    """Yield the bursts of one group whose windows begin with one of `ticks`.

    `ticks` ascend by `latest`, and none is wider than two windows. `before` are the hours of the four weeks
    before the first of them, as numbers of hours since 1970, ascending, each with its number of events.
    `known_from` is when the group's first event of all was: what is usual is not known before four weeks after.
    """
    width = rule.minutes * 60
    usual = _Usual()
    for hour, count in before:
        usual.add(hour, count)
    ahead: deque[Tick] = deque()
    open_burst: Burst | None = None
    total = 0
    source = iter(ticks)
    upcoming = next(source, None)
    while upcoming is not None or ahead:
        # A window begins with the latest moment of its first tick. What may lie in it ends within three widths.
        while upcoming is not None and (not ahead or upcoming.latest <= ahead[0].latest + 3 * width):
            ahead.append(upcoming)
            total += upcoming.count
            upcoming = next(source, None)
        begin = ahead[0].latest
        if begin >= known_from + BASELINE:
            found = _judged(rule, begin, width, ahead, total, usual)
            if found is not None and open_burst is not None and found.begin <= open_burst.end:
                open_burst = _joined(open_burst, found)
            elif found is not None:
                if open_burst is not None:
                    yield open_burst
                open_burst = found
        passed = ahead.popleft()
        total -= passed.count
        usual.add(passed.latest // HOUR, passed.count)
    if open_burst is not None:
        yield open_burst


def _judged(
    rule: BurstRule, begin: int, width: int, ahead: Iterable[Tick], at_most: int, usual: _Usual
) -> Burst | None:
    """Judge the window at `begin`. `ahead` has all of it and more: `at_most` events."""
    if at_most < rule.registrations:
        return None
    median, total = usual.before(begin)
    per_window = rule.minutes / 60
    needed = rule.times_median * median * per_window
    if at_most <= needed:
        return None
    members = [tick for tick in ahead if tick.earliest <= begin + width]
    count = sum(tick.count for tick in members)
    if count < rule.registrations or count <= needed:
        return None
    rate = max(median, (total + 1) / OFFICE_HOURS) * per_window
    chance = at_least(count, rate)
    if chance * rule.one_in >= 1:
        return None
    return Burst(begin, begin + width, tuple(members), count, median, rate, chance)


def _joined(one: Burst, other: Burst) -> Burst:
    fuller = one if one.most >= other.most else other
    # Windows that overlap share ticks, and only the last ones of the earlier.
    shared = set(one.ticks[-4 * len(other.ticks) :])
    ticks = (*one.ticks, *(tick for tick in other.ticks if tick not in shared))
    return Burst(one.begin, other.end, ticks, fuller.most, fuller.median, fuller.usual, fuller.chance)


class _Usual:
    """The counts of the hours with events in the four weeks before a moment."""

    def __init__(self) -> None:
        self._hours: deque[tuple[int, int]] = deque()
        self._counts: list[int] = []
        self._total = 0

    def add(self, hour: int, count: int) -> None:
        """Add events of an hour that is not before the last one added."""
        added = count
        if self._hours and self._hours[-1][0] == hour:
            _, before = self._hours.pop()
            del self._counts[bisect_left(self._counts, before)]
            count += before
        self._hours.append((hour, count))
        insort(self._counts, count)
        self._total += added

    def before(self, moment: int) -> tuple[float, int]:
        """Return the median of the hours with events, and the number of events. What lies before is dropped."""
        while self._hours and self._hours[0][0] < (moment - BASELINE) // HOUR:
            _, count = self._hours.popleft()
            del self._counts[bisect_left(self._counts, count)]
            self._total -= count
        if len(self._counts) < _ENOUGH:
            return 0, self._total
        middle = len(self._counts) // 2
        if len(self._counts) % 2:
            return self._counts[middle], self._total
        return (self._counts[middle - 1] + self._counts[middle]) / 2, self._total


def at_least(count: int, rate: float) -> float:
    """Return the chance of `count` events or more where `rate` are expected (Poisson), or a bound above it."""
    if count <= rate:
        return 1.0
    # The first term, and then less than a geometric series.
    first = math.exp(count * math.log(rate) - rate - math.lgamma(count + 1))
    return min(1.0, first / (1 - rate / (count + 1)))


def burst(terms: Terms, register: str, what: str, found: Burst, indices: Iterable[int]) -> Found | None:
    """Return the finding for a burst. `what` names its events: registrations of a series by a submitter."""
    rule = terms.profile.detections.burst
    if rule is None:
        return None
    late = sum(tick.late for tick in found.ticks)
    migrated = sum(tick.migrated for tick in found.ticks)
    begin, end = min(tick.earliest for tick in found.ticks), max(tick.latest for tick in found.ticks)
    if migrated == found.count:
        severity = Severity.INFO
    else:
        severity = Severity.HIGH if 2 * late >= found.count else Severity.MEDIUM
    inputs = {
        "what": what,
        "events": found.count,
        "late": late,
        "migrated": migrated,
        "from": shown(begin),
        "to": shown(end),
        "window_minutes": rule.minutes,
        "fullest_window": found.most,
        "median_before": f"{found.median:g}",
        "usual_rate": f"{found.usual:.3g}",
        "chance_at_most": f"{found.chance:.2g}",
        "limit_events": rule.registrations,
        "limit_times_median": rule.times_median,
        "limit_one_in": rule.one_in,
    }
    several = f", {late} of them late" if late else ""
    declared = " All are marked as migrated from an older system." if migrated == found.count else ""
    return terms.found(
        "DET-20",
        severity,
        register,
        indices,
        inputs,
        f"{many(found.count, 'event')} ({what}){several}, between {shown(begin)} and {shown(end)}: up to "
        f"{found.most} that may lie within {rule.minutes} minutes. In the four weeks before, hours "
        "with any had "
        f"{found.median:g} at the median (0 where there are too few).{declared}",
    )

"""DET-08: reference numbers that are missing, given twice, or voided and used (docs/reference-voids.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.shapes import shown
from services.auditing.detections.rules import Terms, many
from services.auditing.found import Found, Severity
from services.auditing.lateness import shown as shown_time

MAX_GAPS: Final = 100
"""Gaps of one series that are told one by one; what is beyond is told in one finding."""

_MOST_NAMED: Final = 10
_MOST_REASON: Final = 1_000

Run = tuple[int, int]
"""Numbers in a row, the first and the last."""


@dataclass(frozen=True, slots=True)
class Series:
    """A series of one register. `departmental`: of the department's own free-text references."""

    register: str
    name: str
    departmental: bool = False

    @property
    def words(self) -> str:
        """The series as a sentence names it."""
        kind = "departmental references" if self.departmental else "series"
        return f"{kind} {shown(self.name)}"


@dataclass(frozen=True, slots=True)
class Void:
    """Numbers that the latest version of a void covers, and the entry that says so, with its bounds."""

    index: int
    first: int
    last: int
    reason: str
    not_before: int | None
    not_after: int | None


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The entries that have the nearest numbers below and above a gap; None where that is not known."""

    before: int | None
    after: int | None


def gaps(used: Iterable[Run], voids: Sequence[Void]) -> Iterator[Run]:
    """Yield the runs of numbers between the lowest and the highest used that are neither used nor voided.

    `used` are disjoint and ascending.
    """
    yield from _without(_between(used), merged((void.first, void.last) for void in voids))


def _between(used: Iterable[Run]) -> Iterator[Run]:
    last: int | None = None
    for run in used:
        if last is not None and run[0] > last + 1:
            yield last + 1, run[0] - 1
        last = run[1]


def merged(runs: Iterable[Run]) -> list[Run]:
    """Return runs that overlap or touch as one, ascending."""
    found: list[Run] = []
    for first, last in sorted(runs):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return found


def _without(runs: Iterable[Run], covered: Iterable[Run]) -> Iterator[Run]:
    """Yield what of `runs` is not covered. Both are disjoint and ascending, and each is read once."""
    left = iter(covered)
    cover = next(left, None)
    for first, last in runs:
        while cover is not None and cover[0] <= last:
            begin, end = cover
            if begin > first:
                yield first, begin - 1
            first = max(first, end + 1)
            if end > last:
                # It may cover some of the next run.
                break
            cover = next(left, None)
        if first <= last:
            yield first, last


def gap(terms: Terms, series: Series, run: Run, neighbours: Neighbours) -> Found | None:
    """Return the finding for one gap."""
    rule = terms.profile.detections.series_gap
    missing = run[1] - run[0] + 1
    if rule is None or missing < rule.missing:
        return None
    inputs = {
        "series": shown(series.name),
        "what": "gap",
        "first_missing": run[0],
        "last_missing": run[1],
        "missing": missing,
        "limit_missing": rule.missing,
    }
    numbers = f"number {run[0]} is" if missing == 1 else f"numbers {run[0]} to {run[1]} are"
    severity = Severity.LOW if series.departmental else Severity.MEDIUM
    return terms.found(
        "DET-08",
        severity,
        series.register,
        [index for index in (neighbours.before, neighbours.after) if index is not None],
        inputs,
        f"In {series.words} {numbers} not there, and no void explains that.",
    )


def more_gaps(terms: Terms, series: Series, count: int, missing: int) -> Found:
    """Return the one finding for the gaps beyond those told one by one."""
    inputs = {"series": shown(series.name), "what": "more gaps", "gaps": count, "missing": missing}
    return terms.found(
        "DET-08",
        Severity.MEDIUM,
        series.register,
        (),
        inputs,
        f"In {series.words} there are {many(count, 'more gap')}, with {many(missing, 'number')} missing.",
    )


def duplicate(terms: Terms, series: Series, number: int, indices: Sequence[int], records: int) -> Found | None:
    """Return the finding for a number that several records have."""
    if terms.profile.detections.series_gap is None or records < 2:
        return None
    inputs = {"series": shown(series.name), "what": "duplicate", "number": number, "records": records}
    return terms.found(
        "DET-08",
        Severity.MEDIUM,
        series.register,
        indices,
        inputs,
        f"In {series.words} {many(records, 'different record')} have the number {number}.",
    )


def void_of_used(terms: Terms, series: Series, void: Void, used: Run) -> Found | None:
    """Return the finding for a void of numbers that decisions have."""
    if terms.profile.detections.series_gap is None:
        return None
    inputs = {
        "series": shown(series.name),
        "what": "voided and used",
        "first_used": used[0],
        "last_used": used[1],
        "void": void.index,
    }
    numbers = f"number {used[0]}" if used[0] == used[1] else f"numbers {used[0]} to {used[1]}"
    return terms.found(
        "DET-08",
        Severity.MEDIUM,
        series.register,
        (void.index,),
        inputs,
        f"Entry {void.index} voids {numbers} of {series.words}, and decisions have them.",
    )


def void_ahead(terms: Terms, series: Series, void: Void, highest: int) -> Found | None:
    """Return the finding for a void of numbers that the series has not reached."""
    if terms.profile.detections.series_gap is None or void.last <= highest:
        return None
    first = max(void.first, highest + 1)
    inputs = {
        "series": shown(series.name),
        "what": "voided ahead",
        "first_ahead": first,
        "last_ahead": void.last,
        "highest_used": highest,
    }
    return terms.found(
        "DET-08",
        Severity.LOW,
        series.register,
        (void.index,),
        inputs,
        f"Entry {void.index} voids numbers up to {void.last} of {series.words}, which has come to {highest}.",
    )


def voided(terms: Terms, series: Series, void: Void, used: Sequence[Run]) -> Found | None:
    """Return the note that a void explains the numbers of it that no decision has, when it was seen, and why.

    `used` are those of its numbers that decisions have, disjoint and ascending.
    """
    runs = list(_without([(void.first, void.last)], used))
    if terms.profile.detections.series_gap is None or not runs:
        return None
    count = sum(last - first + 1 for first, last in runs)
    named = [str(first) if first == last else f"{first} to {last}" for first, last in runs]
    inputs = {
        "series": shown(series.name),
        "what": "voided",
        "numbers": ", ".join(named),
        "voided": count,
        "void": void.index,
        "reason": _in_one_line(void.reason),
        "not_before": None if void.not_before is None else shown_time(void.not_before),
        "not_after": None if void.not_after is None else shown_time(void.not_after),
    }
    listed = ", ".join(named[:_MOST_NAMED]) + (", …" if len(named) > _MOST_NAMED else "")
    seen = "no quorum of witnesses has seen it yet"
    if void.not_after is not None:
        seen = f"the witnesses had it by {shown_time(void.not_after)}"
    return terms.found(
        "DET-08",
        Severity.INFO,
        series.register,
        (void.index,),
        inputs,
        f"Entry {void.index} voids {'number' if count == 1 else 'numbers'} {listed} of {series.words}; {seen}. "
        f"The reason that it gives: {shown(void.reason)}{'' if void.reason.endswith('.') else '.'}",
    )


def _in_one_line(text: str) -> str:
    """Return a text as an input: in printable ASCII, all of it up to `_MOST_REASON` characters."""
    return ascii(text)[1:-1][:_MOST_REASON]

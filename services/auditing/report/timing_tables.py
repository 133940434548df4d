"""The numbers behind the plots, as tables: classes by register, classes by month, lags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Final

from services.auditing.after_returns import AfterReturnKind
from services.auditing.report.figures import FIRST_DAY, LAST_DAY, Figures, Timing, lag_names
from services.auditing.report.marks import MARKS, swatch, swatch_around
from services.auditing.report.markup import Markup, cut, join, tag
from services.auditing.report.tables import table
from services.auditing.report.words import many

MAX_ROWS: Final = 60
"""Rows of a table; the rest is one row more."""

MONTHS: Final = 36
"""Months that are told one by one; of more, years are."""

_NAME: Final = 200

_EDGES: Final = {
    date.fromordinal(FIRST_DAY).year: " or before",
    date.fromordinal(LAST_DAY).year: " or after",
}
"""What the first and the last year count as well."""


def classes_table(figures: Figures) -> Markup:
    """Return how many decisions are of each class, with the mark by which the plot shows it."""
    totals, decisions = figures.totals, figures.decisions
    rows = [
        (
            join([swatch(each), " ", _capital(each)]),
            f"{totals.get(each, 0):,}",
            _share(totals.get(each, 0), decisions),
        )
        for each in MARKS
    ]
    total = ("All decisions", f"{decisions:,}", _share(decisions, decisions))
    return table("Decisions by when they were registered", ("Class", "Decisions", "Share"), rows, total)


_AFTER_RETURN: Final = "Added or changed after a return"


def after_returns_table(figures: Figures) -> Markup:
    """Return how many decisions were added or changed after a return, beside their class in time."""
    counts, decisions = figures.after_returns, figures.decisions
    rows = [
        (
            join([swatch_around(), " ", _capital(each)]),
            f"{counts.get(each, 0):,}",
            _share(counts.get(each, 0), decisions),
        )
        for each in AfterReturnKind
    ]
    either = sum(counts.values())
    total = ("Either", f"{either:,}", _share(either, decisions))
    return table(
        "Decisions added or changed after a return", ("Class", "Decisions", "Share of all"), rows, total
    )


def after_returns_explained() -> Markup:
    """Return what it means to be after a return."""
    return tag(
        "p",
        "A return states how many decisions an office has made in a period. A decision that is registered "
        "after it, or that a correction moves into or out of it, is not in its count. That is told by the "
        "order of the register, and by no clock. Such a decision keeps its class in time, and is counted once "
        "more here: as added, where it was both added and changed. A later version of the return that counts "
        "it does not take that back.",
    )


def registers_table(figures: Figures) -> Markup:
    """Return the classes of each register."""
    rows = [
        (cut(name, _NAME), counts, sum(figures.registers_after_return.get(name, {}).values()))
        for name, counts in figures.registers.items()
    ]
    return _by("The same by register", "Register", rows, figures, "more register")


def months_table(figures: Figures) -> Markup:
    """Return the classes of each month of decision, or of each year where there are many months."""
    by_month = len(figures.months) <= MONTHS
    grouped: dict[str, Counter[Timing]] = {}
    after = Counter[str]()
    for month, counts in figures.months.items():
        day = date.fromordinal(month)
        name = (f"{day:%B} {day.year}" if by_month else str(day.year)) + _EDGES.get(day.year, "")
        grouped.setdefault(name, Counter()).update(counts)
        after[name] += figures.months_after_return.get(month, 0)
    span = "Month" if by_month else "Year"
    return _by(
        f"The same by {span.lower()} of decision",
        span,
        [(name, counts, after[name]) for name, counts in grouped.items()],
        figures,
        f"other {span.lower()}",
    )


def _by(
    caption: str, first: str, rows: list[tuple[str, Mapping[Timing, int], int]], figures: Figures, other: str
) -> Markup:
    present = [each for each in MARKS if figures.totals.get(each)]
    shown, rest = rows[:MAX_ROWS], rows[MAX_ROWS:]
    if rest:
        summed: Counter[Timing] = Counter()
        for _, counts, _ in rest:
            summed.update(counts)
        shown = [*shown, (many(len(rest), other), summed, sum(after for _, _, after in rest))]
    has_after = any(after for _, _, after in rows)
    columns = (
        first,
        "Decisions",
        *(_capital(each) for each in present),
        *([_AFTER_RETURN] if has_after else ()),
    )
    told = (
        (*_counts(name, counts, present), *([f"{after:,}"] if has_after else ()))
        for name, counts, after in shown
    )
    return table(caption, columns, told)


def _counts(name: str, counts: Mapping[Timing, int], present: list[Timing]) -> tuple[str, ...]:
    return (name, f"{sum(counts.values()):,}", *(f"{counts.get(each, 0):,}" for each in present))


def lags_table(figures: Figures) -> Markup:
    """Return the lags: at least so many working days, and at most."""
    return table(
        "Working days from decision to registration",
        (
            "Working days",
            "Decisions that took at least so long",
            "Decisions that took at most so long",
            *(
                [f"Of those that took at least so long, {_AFTER_RETURN.lower()}"]
                if figures.after_returns
                else ()
            ),
        ),
        _lags(figures),
    )


def _lags(figures: Figures) -> Iterator[tuple[str, ...]]:
    for place, name in [*enumerate(lag_names()), (None, "not proved by the witnesses")]:
        counts = [figures.at_least.get(place, 0), figures.at_most.get(place, 0)]
        if figures.after_returns:
            counts.append(figures.at_least_after_return.get(place, 0))
        yield name, *(f"{count:,}" for count in counts)


def in_a_sentence(figures: Figures) -> str:
    """Return the classes in words, for somebody who reads no table."""
    totals = figures.totals
    said = [f"{totals[each]:,} {each.value}" for each in MARKS if totals.get(each)]
    either, after = sum(figures.after_returns.values()), ""
    if either:
        after = (
            f" Whatever their class in time, {either:,} of them {_was(either)} added or changed after a "
            f"return that should have counted {'it' if either == 1 else 'them'}."
        )
    return f"Of {many(figures.decisions, 'decision')}: {'; '.join(said)}.{after}"


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


def lags_explained() -> Markup:
    """Return what the two columns of lags mean."""
    return tag(
        "p",
        "Witnesses prove two moments: the last at which they did not have a record yet, and the first at "
        "which they had it. Working days are counted from the decision to each of them, so a lag is known "
        "between two numbers.",
    )


def _share(count: int, of: int) -> str:
    return f"{100 * count / of:.1f}\u00a0%" if of else "0.0\u00a0%"


def _capital(timing: Timing | AfterReturnKind) -> str:
    return f"{timing.value[:1].upper()}{timing.value[1:]}"

"""The timeline plot: when decisions were decided, against when witnesses had them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Final

from services.auditing.report.axes import Axis, fence, ticks, widened
from services.auditing.report.figures import FIRST_DAY, LAST_DAY, Cell, Figures, Timing
from services.auditing.report.marks import (
    AFTER_RETURN,
    AFTER_RETURN_NAME,
    MARKS,
    drawn,
    drawn_around,
    swatch,
    swatch_around,
)
from services.auditing.report.markup import Markup, join, tag
from services.auditing.report.words import day_in_words, many

_WIDTH: Final = 760
_HEIGHT: Final = 470
_LEFT, _RIGHT, _TOP, _BOTTOM = 116, 744, 16, 408

_RADII: Final = ((1, 3.4), (10, 4.6), (100, 6.0), (1_000, 7.6))
"""From how many decisions on a mark has which radius."""

_RADII_OF_SPANS: Final = ((1, 2.0), (10, 3.2), (100, 5.2), (1_000, 8.0), (10_000, 11.0))
"""The same where marks stand for spans of days: what is rare must not cover what is frequent."""

_PLACES: Final[Mapping[Timing, tuple[float, float]]] = {
    Timing.IN_TIME: (0.0, 0.0),
    Timing.NO_LIMIT: (-0.3, 0.0),
    Timing.UNDETERMINED: (0.3, 0.0),
    Timing.EXEMPT: (-0.33, 0.33),
    Timing.LATE_EXPLAINED: (0.33, 0.33),
    Timing.LATE: (0.0, 0.33),
    Timing.IMPOSSIBLE: (0.0, -0.33),
}
"""Where in its span of days a class has its mark, so that the classes of one span stand side by side."""


def timeline(figures: Figures) -> Markup:
    """Return the plot with what it shows in words; nothing is drawn where nothing can be placed."""
    if not figures.cells:
        return tag("p", "No decision has a witnessed day of registration, so there is nothing to draw.")
    across, up = _axes(figures)
    drawing = tag(
        "svg",
        tag("title", "When decisions were decided, against when they were registered", id="timeline-title"),
        tag("desc", _description(figures), id="timeline-desc"),
        *_frame(across, up),
        *_marks(figures, across, up),
        class_="plot",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_labelledby="timeline-title",
        aria_describedby="timeline-desc",
    )
    return tag(
        "figure",
        tag(
            "div",
            drawing,
            class_="scroll",
            tabindex="0",
            role="region",
            aria_label="Timeline of decisions, drawn",
        ),
        _legend(figures),
        tag("figcaption", " ".join(_caption(figures, across, up))),
    )


def _axes(figures: Figures) -> tuple[Axis, Axis]:
    decided, registered = Counter[int](), Counter[int]()
    for cell in figures.cells:
        decided[cell.decided] += cell.count
        registered[cell.registered] += cell.count
    across = widened(*_within(*fence(list(decided.items())), figures.span))
    up = widened(*_within(*fence(list(registered.items())), figures.span))
    return Axis(*across, _LEFT, _RIGHT), Axis(*up, _BOTTOM, _TOP)


def _within(first: int, last: int, span: int) -> tuple[int, int]:
    return max(first, FIRST_DAY), min(last + span - 1, LAST_DAY)


def _frame(across: Axis, up: Axis) -> Iterator[Markup]:
    for tick in ticks(across.first, across.last):
        x = f"{across.at(tick.day):.1f}"
        yield tag("line", x1=x, x2=x, y1=str(_TOP), y2=str(_BOTTOM), class_="grid")
        yield tag("text", tick.label, x=x, y=str(_BOTTOM + 20), text_anchor="middle")
    for tick in ticks(up.first, up.last):
        y = up.at(tick.day)
        yield tag("line", x1=str(_LEFT), x2=str(_RIGHT), y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid")
        yield tag("text", tick.label, x=str(_LEFT - 8), y=f"{y + 4:.1f}", text_anchor="end")
    yield tag("path", d=f"M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}", class_="axis")
    middle = (_LEFT + _RIGHT) / 2
    yield tag(
        "text",
        "Day of decision, as the record states it",
        x=f"{middle:.0f}",
        y=str(_BOTTOM + 46),
        text_anchor="middle",
        class_="name",
    )
    turned = f"rotate(-90 16 {(_TOP + _BOTTOM) / 2:.0f})"
    yield tag(
        "text",
        "Day by which witnesses had it",
        x="16",
        y=f"{(_TOP + _BOTTOM) / 2:.0f}",
        text_anchor="middle",
        transform=turned,
        class_="name",
    )
    # Registered on the day of decision: what is late stands above.
    begin, end = max(across.first, up.first), min(across.last, up.last)
    if begin < end:
        corners = f"M{across.at(begin):.1f} {up.at(begin):.1f}L{across.at(end):.1f} {up.at(end):.1f}"
        yield tag("path", d=corners, class_="same-day")


def _marks(figures: Figures, across: Axis, up: Axis) -> Iterator[Markup]:
    paths: dict[Timing, list[str]] = {each: [] for each in MARKS}
    around: list[str] = []
    middle = (figures.span - 1) / 2
    for cell in figures.cells:
        aside, above = _PLACES[cell.timing] if figures.span > 1 else (0.0, 0.0)
        x = across.at(cell.decided + middle) + aside * figures.span * across.scale
        x = min(max(x, _LEFT), _RIGHT)
        y = up.at(cell.registered + middle) + above * figures.span * up.scale
        radius = max(radius for least, radius in _radii(figures) if cell.count >= least)
        paths[cell.timing].append(MARKS[cell.timing].path(x, y, radius))
        if cell.after_return:
            around.append(AFTER_RETURN.path(x, y, radius))
    yield from (drawn(each, "".join(data), fine=figures.span > 1) for each, data in paths.items() if data)
    # Last, so that nothing covers it.
    if around:
        yield drawn_around("".join(around))


def _radii(figures: Figures) -> tuple[tuple[int, float], ...]:
    return _RADII if figures.span == 1 else _RADII_OF_SPANS


def _legend(figures: Figures) -> Markup:
    present = {cell.timing for cell in figures.cells}
    items = (
        tag("li", swatch(each), f" {mark.name}: {each.value}")
        for each, mark in MARKS.items()
        if each in present
    )
    around = ""
    if any(cell.after_return for cell in figures.cells):
        around = tag("li", swatch_around(), f" {AFTER_RETURN.name} around a mark: {AFTER_RETURN_NAME}")
    return tag(
        "ul",
        join(items),
        around,
        tag("li", tag("span", class_="dash"), " dashed line: registered on the day of decision"),
        class_="legend",
    )


def _description(figures: Figures) -> str:
    drawn_in_all = sum(cell.count for cell in figures.cells)
    return (
        f"A plot of {many(drawn_in_all, 'decision')}. To the right the day of decision, upwards the day by "
        "which the witnesses had the record. The table after the plot gives the same numbers by month."
    )


def _caption(figures: Figures, across: Axis, up: Axis) -> Iterator[str]:
    yield "The higher a mark stands above the dashed line, the later the decision was registered."
    days = "the same day" if figures.span == 1 else f"the same {figures.span} days"
    radii = _radii(figures)
    more, most = ", ".join(f"{least:,}" for least, _ in radii[1:-1]), radii[-1][0]
    yield (
        f"Each mark stands for all decisions of one class that were decided within {days} and registered "
        f"within {days}; its size says whether it is 1 decision, or at least {more} or {most:,}."
    )
    if any(cell.after_return for cell in figures.cells):
        yield (
            "A mark with a diamond around it stands for at least one decision that was added or changed after "
            "a return; its own shape tells its class in time."
        )
    if figures.span > 1:
        yield "The marks of different classes for the same days stand side by side."
    yield "A decision that is dated to a month or year only stands at the last day of it."
    yield from _beyond(figures, across, up)
    if figures.unplaced:
        yield (
            f"Not drawn: {many(figures.unplaced, 'decision')} that no quorum of your witnesses has seen, so "
            "that no day of registration is proved."
        )


def _beyond(figures: Figures, across: Axis, up: Axis) -> Iterator[str]:
    def count(cells: Iterator[Cell]) -> int:
        return sum(cell.count for cell in cells)

    before = count(cell for cell in figures.cells if cell.decided + figures.span - 1 < across.first)
    after = count(cell for cell in figures.cells if cell.decided > across.last)
    if before:
        yield f"At the left edge: {many(before, 'decision')} dated before {_named(across.first)}."
    if after:
        yield f"At the right edge: {many(after, 'decision')} dated after {_named(across.last)}."
    outside = count(cell for cell in figures.cells if not up.shows(cell.registered))
    if outside:
        yield f"At the upper or lower edge: {many(outside, 'decision')} that were registered at other times."


def _named(day: int) -> str:
    return day_in_words(date.fromordinal(day))

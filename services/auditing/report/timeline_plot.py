"""The timeline plot: when decisions were decided, against when witnesses had them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from itertools import product
from typing import Final

from services.auditing.report.axes import Axis, ticks, widened, within
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
_LEFT, _RIGHT, _TOP, _BOTTOM = 124, 744, 16, 408

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

_PLACE: Final = 8
"""Units of the plot within which marks of different classes would cover each other."""

_ASIDE: Final = 24
"""Units of the plot that such marks share."""

_TO_COME: Final = 366
"""Days after the last registration up to which a day of decision has its place; later ones are absurd."""

_LEAST_LINE: Final = 24
"""Units of the plot that the line of the same day has on each side at the least, or it is left out."""


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
        _legend(figures, has_line=_same_day(across, up) is not None),
        tag("figcaption", " ".join(_caption(figures, across, up))),
    )


def _axes(figures: Figures) -> tuple[Axis, Axis]:
    """Return the axes: of all days but those that no decision of such a ledger can have.

    Whatever is late has its place on them, and its mark: how few there are of it is no reason to leave it out.
    """
    registered = [cell.registered for cell in figures.cells]
    shown = within(registered, FIRST_DAY + 1, LAST_DAY - figures.span) or (min(registered), max(registered))
    decided = [cell.decided for cell in figures.cells]
    ends = within(decided, FIRST_DAY + 1, shown[1] + figures.span + _TO_COME) or (min(decided), max(decided))
    across, up = (widened(*_whole(*each, figures.span)) for each in (ends, shown))
    return Axis(*across, _LEFT, _RIGHT), Axis(*up, _BOTTOM, _TOP)


def _whole(first: int, last: int, span: int) -> tuple[int, int]:
    return max(first, FIRST_DAY), min(last + span - 1, LAST_DAY)


def _same_day(across: Axis, up: Axis) -> tuple[float, float, float, float] | None:
    """Return the ends of the line on which decisions stand that were registered on their day; None for none."""
    begin, end = max(across.first, up.first), min(across.last, up.last)
    if (end - begin) * min(across.scale, -up.scale) < _LEAST_LINE:
        return None
    return across.at(begin), up.at(begin), across.at(end), up.at(end)


def _frame(across: Axis, up: Axis) -> Iterator[Markup]:
    for tick in ticks(across.first, across.last):
        x = f"{across.at(tick.day):.1f}"
        yield tag("line", x1=x, x2=x, y1=str(_TOP), y2=str(_BOTTOM), class_="grid")
        # Within the drawing, however near to its edge a day is.
        place = f"{min(across.at(tick.day), _WIDTH - 36):.1f}"
        yield tag("text", tick.label, x=place, y=str(_BOTTOM + 20), text_anchor="middle")
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
    line = _same_day(across, up)
    if line is not None:
        yield tag("path", d="M{:.1f} {:.1f}L{:.1f} {:.1f}".format(*line), class_="same-day")


def _marks(figures: Figures, across: Axis, up: Axis) -> Iterator[Markup]:
    paths: dict[Timing, list[str]] = {each: [] for each in MARKS}
    around: list[str] = []
    middle = (figures.span - 1) / 2
    points = [(across.at(cell.decided + middle), up.at(cell.registered + middle)) for cell in figures.cells]
    classes: dict[tuple[int, int], set[Timing]] = {}
    for cell, (x, y) in zip(figures.cells, points, strict=True):
        for near in _places(x, y):
            classes.setdefault(near, set()).add(cell.timing)
    for cell, (x, y) in zip(figures.cells, points, strict=True):
        aside, above = _PLACES[cell.timing]
        if figures.span > 1:
            x += aside * figures.span * across.scale
            y += above * figures.span * up.scale
        elif len(classes[int(x // _PLACE), int(y // _PLACE)]) > 1:
            x += aside * _ASIDE
            y -= above * _ASIDE
        x = min(max(x, _LEFT), _RIGHT)
        radius = max(radius for least, radius in _radii(figures) if cell.count >= least)
        paths[cell.timing].append(MARKS[cell.timing].path(x, y, radius))
        if cell.after_return:
            around.append(AFTER_RETURN.path(x, y, radius))
    yield from (drawn(each, "".join(data), fine=figures.span > 1) for each, data in paths.items() if data)
    # Last, so that nothing covers it.
    if around:
        yield drawn_around("".join(around))


def _places(x: float, y: float) -> Iterator[tuple[int, int]]:
    """Yield the place of a point, and those around it."""
    for aside, below in product((-1, 0, 1), repeat=2):
        yield int(x // _PLACE) + aside, int(y // _PLACE) + below


def _radii(figures: Figures) -> tuple[tuple[int, float], ...]:
    return _RADII if figures.span == 1 else _RADII_OF_SPANS


def _legend(figures: Figures, *, has_line: bool) -> Markup:
    present = {cell.timing for cell in figures.cells}
    items = (
        tag("li", swatch(each), f" {mark.name}: {each.value}")
        for each, mark in MARKS.items()
        if each in present
    )
    around = ""
    if any(cell.after_return for cell in figures.cells):
        around = tag("li", swatch_around(), f" {AFTER_RETURN.name} around a mark: {AFTER_RETURN_NAME}")
    line: Markup | str = ""
    if has_line:
        line = tag("li", tag("span", class_="dash"), " dashed line: registered on the day of decision")
    return tag("ul", join(items), around, line, class_="legend")


def _description(figures: Figures) -> str:
    drawn_in_all = sum(cell.count for cell in figures.cells)
    return (
        f"A plot of {many(drawn_in_all, 'decision')}. To the right the day of decision, upwards the day by "
        "which the witnesses had the record. The table after the plot gives the same numbers by month."
    )


def _caption(figures: Figures, across: Axis, up: Axis) -> Iterator[str]:
    if _same_day(across, up) is not None:
        yield "The higher a mark stands above the dashed line, the later the decision was registered."
    else:
        yield "The higher and the further to the left a mark stands, the later the decision was registered."
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
    elif len({cell.timing for cell in figures.cells}) > 1:
        yield "Marks of different classes that would cover each other are drawn a little apart."
    yield "A decision that is dated to a month or year only stands at the last day of it."
    yield from _beyond(figures, across, up)
    if figures.unplaced:
        yield (
            f"Not drawn: {many(figures.unplaced, 'decision')} that no quorum of your witnesses has seen, so "
            "that no day of registration is proved."
        )


def _beyond(figures: Figures, across: Axis, up: Axis) -> Iterator[str]:
    before = [cell for cell in figures.cells if cell.decided + figures.span - 1 < across.first]
    after = [cell for cell in figures.cells if cell.decided > across.last]
    if before:
        yield f"At the left edge: {_counted(before, f'dated before {_named(across.first)}')}"
    if after:
        yield f"At the right edge: {_counted(after, f'dated after {_named(across.last)}')}"
    outside = [cell for cell in figures.cells if not up.shows(cell.registered)]
    if outside:
        yield f"At the upper or lower edge: {_counted(outside, 'registered at other times')}"


def _counted(cells: Iterable[Cell], which: str) -> str:
    """Return how many decisions cells stand for, and in words of which class they are."""
    counts = Counter[Timing]()
    for cell in cells:
        counts[cell.timing] += cell.count
    classes = "; ".join(f"{counts[each]:,} {each.value}" for each in MARKS if counts[each])
    return f"{many(counts.total(), 'decision')} {which} ({classes})."


def _named(day: int) -> str:
    return day_in_words(date.fromordinal(day))

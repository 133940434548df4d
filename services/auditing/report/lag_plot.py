"""The histogram of lags: how many working days passed before a decision was registered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from services.auditing.report.figures import Figures, lag_names
from services.auditing.report.markup import Markup, tag
from services.auditing.report.words import many

_WIDTH: Final = 760
_HEIGHT: Final = 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 16, 744, 30, 260


def histogram(figures: Figures) -> Markup:
    """Return the histogram; the table after it has the same numbers."""
    counts = [figures.at_least.get(place, 0) for place in range(len(lag_names()))]
    if not any(counts):
        return tag("p", "For no decision do witnesses prove how long it took, so there is nothing to draw.")
    drawing = tag(
        "svg",
        tag("title", "Working days from decision to registration", id="lags-title"),
        tag(
            "desc",
            f"Bars that count {many(sum(counts), 'decision')} by how many working days had certainly "
            "passed. The table after the plot gives the same numbers.",
            id="lags-desc",
        ),
        *_bars(counts, [figures.at_least_after_return.get(place, 0) for place in range(len(counts))]),
        class_="plot",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_labelledby="lags-title",
        aria_describedby="lags-desc",
    )
    unknown = figures.at_least.get(None, 0)
    without = (
        f" Not drawn: {many(unknown, 'decision')} of which witnesses do not prove how long it took at least."
        if unknown
        else ""
    )
    hollow = ""
    if sum(count for place, count in figures.at_least_after_return.items() if place is not None):
        hollow = " The hollow part at the foot of a bar counts those that were added or changed after a return."
    return tag(
        "figure",
        tag(
            "div",
            drawing,
            class_="scroll",
            tabindex="0",
            role="region",
            aria_label="Working days until registration, drawn",
        ),
        tag(
            "figcaption",
            "Each bar counts decisions by the working days that had certainly passed: up to the last "
            "moment at which the witnesses still had no such record. The bars stand for unequal numbers of "
            f"days, as named below them.{hollow}{without}",
        ),
    )


def _bars(counts: list[int], after_return: list[int]) -> Iterator[Markup]:
    highest, step = max(counts), (_RIGHT - _LEFT) / len(counts)
    yield tag("path", d=f"M{_LEFT} {_BOTTOM}H{_RIGHT}", class_="axis")
    for place, (name, count) in enumerate(zip(lag_names(), counts, strict=True)):
        middle = f"{_LEFT + step * (place + 0.5):.1f}"
        # A bar of few among many is seen too.
        height = max((_BOTTOM - _TOP) * count / highest, 2.0) if count else 0.0
        yield tag(
            "rect",
            x=f"{_LEFT + step * (place + 0.14):.1f}",
            y=f"{_BOTTOM - height:.1f}",
            width=f"{step * 0.72:.1f}",
            height=f"{height:.1f}",
            class_="bar",
        )
        if after_return[place]:
            part = max(height * after_return[place] / count, 2.0)
            yield tag(
                "rect",
                x=f"{_LEFT + step * (place + 0.14):.1f}",
                y=f"{_BOTTOM - part:.1f}",
                width=f"{step * 0.72:.1f}",
                height=f"{part:.1f}",
                class_="bar after-return",
            )
        yield tag("text", f"{count:,}", x=middle, y=f"{_BOTTOM - height - 7:.1f}", text_anchor="middle")
        first, _, rest = name.partition(" ")
        yield tag("text", first, x=middle, y=str(_BOTTOM + 20), text_anchor="middle")
        if rest:
            yield tag("text", rest, x=middle, y=str(_BOTTOM + 37), text_anchor="middle")
    yield tag(
        "text",
        "Working days from decision to registration, at least",
        x=f"{(_LEFT + _RIGHT) / 2:.0f}",
        y=str(_BOTTOM + 64),
        text_anchor="middle",
        class_="name",
    )

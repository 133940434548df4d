"""The marks of the classes: a shape and a colour each, so that nothing is said by colour alone.

The colours are told apart from white, and by those who see few of them, by their darkness; the shapes without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.auditing.report.figures import Timing
from services.auditing.report.markup import Markup, tag


@dataclass(frozen=True, slots=True)
class Mark:
    """A shape: its corners in units of a radius, or an end of each stroke. A circle has none."""

    name: str
    colour: str
    points: tuple[tuple[float, float], ...]
    filled: bool

    def path(self, x: float, y: float, radius: float) -> str:
        """Return the path of the mark around a point."""
        if not self.points:
            half = f"a{radius:.1f} {radius:.1f} 0 1 0"
            return f"M{x - radius:.1f} {y:.1f}{half} {2 * radius:.1f} 0{half} {-2 * radius:.1f} 0z"
        if self.name in _STROKES:
            return "".join(
                f"M{x + a * radius:.1f} {y + b * radius:.1f}L{x - a * radius:.1f} {y - b * radius:.1f}"
                for a, b in self.points
            )
        corners = "L".join(f"{x + a * radius:.1f} {y + b * radius:.1f}" for a, b in self.points)
        return f"M{corners}z"


_STROKES: Final = frozenset({"cross", "plus"})

MARKS: Final[Mapping[Timing, Mark]] = {
    Timing.IN_TIME: Mark("filled circle", "#1d70b8", (), filled=True),
    Timing.NO_LIMIT: Mark("plus", "#505a5f", ((1, 0), (0, 1)), filled=False),
    Timing.UNDETERMINED: Mark("hollow circle", "#505a5f", (), filled=False),
    Timing.EXEMPT: Mark(
        "hollow square", "#4c2c92", ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)), filled=False
    ),
    Timing.LATE_EXPLAINED: Mark(
        "hollow triangle", "#a13a00", ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)), filled=False
    ),
    Timing.LATE: Mark("filled triangle", "#a3000f", ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)), filled=True),
    Timing.IMPOSSIBLE: Mark("cross", "#0b0c0c", ((1, 1), (1, -1)), filled=False),
}
"""The mark of each class, in the order in which they are drawn over each other."""


AFTER_RETURN: Final = Mark("diamond", "#b10e78", ((0, -1.9), (1.9, 0), (0, 1.9), (-1.9, 0)), filled=False)
"""What is drawn around the mark of a class where some of its decisions came after a return."""

AFTER_RETURN_NAME: Final = "added or changed after the return that should have counted it"


def drawn(timing: Timing, data: str, *, fine: bool = False) -> Markup:
    """Return marks of one class, given their paths one after the other; `fine` are many small ones."""
    mark = MARKS[timing]
    fill = mark.colour if mark.filled else "none"
    stroke = "#ffffff" if mark.filled else mark.colour
    width = "0.6" if mark.filled else "1" if fine else "1.8"
    return tag("path", d=data, fill=fill, stroke=stroke, stroke_width=width)


def drawn_around(data: str) -> Markup:
    """Return what is drawn around marks, given the paths of it one after the other."""
    return tag(
        "path", d=data, fill="none", stroke=AFTER_RETURN.colour, stroke_width="1.8", class_="after-return"
    )


def swatch_around() -> Markup:
    """Return what is drawn around marks as it stands beside its name, which says the same."""
    drawing = drawn_around(AFTER_RETURN.path(10, 10, 4.4))
    return tag(
        "svg", drawing, class_="swatch", width="20", height="20", viewBox="0 0 20 20", aria_hidden="true"
    )


def swatch(timing: Timing) -> Markup:
    """Return the mark of a class as it stands beside its name, which says the same."""
    drawing = drawn(timing, MARKS[timing].path(10, 10, 5.5))
    return tag(
        "svg", drawing, class_="swatch", width="20", height="20", viewBox="0 0 20 20", aria_hidden="true"
    )

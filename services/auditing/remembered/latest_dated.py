"""The entry dated latest among those that the witnesses had by a moment: of a series, or of a matter.

Of two entries the one counts that was witnessed no later and is dated no earlier. What is left ascends both in
time and in date. Of those that were witnessed before every entry to come the last is kept, so that few are.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

import msgspec

from ledger.timeline import Bounds

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(list[tuple[int, int, int]]).decode


@dataclass(frozen=True, slots=True)
class Dated:
    """An entry's place, by when a quorum had it, and the earliest second of what it states as its date."""

    not_after: int
    dated: int
    place: int


class LatestDated:
    """Takes the entries of one register in their order, with what the witnesses prove of each."""

    __slots__ = ("_steps",)

    def __init__(self, text: str | None = None) -> None:
        """Take what `text` made of another one, or nothing."""
        # Of each entry: not-after, date, place.
        self._steps: list[tuple[int, int, int]] = _decode(text) if text is not None else []

    @property
    def text(self) -> str:
        """It as text, to be kept."""
        return _encode(self._steps).decode("ascii")

    def known_by(self, moment: int) -> Dated | None:
        """Return the entry dated latest among those that a quorum had by then (POSIX seconds)."""
        place = bisect_right(self._steps, moment, key=_not_after)
        return Dated(*self._steps[place - 1]) if place else None

    def add(self, dated: int, place: int, bounds: Bounds) -> bool:
        """Add an entry, dated at the earliest then, and tell whether that changed anything."""
        steps, after, before = self._steps, bounds.not_after, bounds.not_before
        if after is None:
            return False
        at = len(steps)
        # Mostly it is the last one in time.
        if at and after < steps[-1][0]:
            at = bisect_right(steps, after, key=_not_after)
        if at and steps[at - 1][1] >= dated:
            return False
        begin, end = at, at
        if at and steps[at - 1][0] == after:
            begin -= 1
        while end < len(steps) and steps[end][1] <= dated:
            end += 1
        steps[begin:end] = [(after, dated, place)]
        # Bounds ascend with the index: whatever comes is not witnessed before this entry's not-before.
        while before is not None and len(steps) > 1 and steps[1][0] <= before:
            del steps[0]
        return True


def _not_after(step: tuple[int, int, int]) -> int:
    return step[0]

"""When entries came into the witnessed history, by every cosignature that this auditor has verified.

What `ledger.timeline` holds in memory stands here in the notebook, since a register may have been cosigned
millions of times. Of each witness two staircases are kept, and nothing else matters (formats.md, section 15):
for not-after the cosignatures that none of as large a size precedes, for not-before those that none of as
small a size follows. On each, larger sizes have later times, so that an answer is a few look-ups; and in
whatever order cosignatures come in, the same ones are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ledger.timeline import Bounds, Timeline
from ledger.witnessing import Cosignature, Quorum
from services.auditing.notebook import Notebook

_NO_END: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class _Staircase:
    """One table of the notebook. `up` where a cosignature is worth nothing once a larger size is as early."""

    table: str
    up: bool

    def add(self, notebook: Notebook, register: str, each: Cosignature) -> None:
        """Keep a cosignature where it says more than those that are there, and drop those that say less."""
        above, below = (self._above, self._below) if self.up else (self._below, self._above)
        dominating = above(notebook, register, each.witness, each.size)
        if dominating is not None and (dominating[1] <= each.time if self.up else dominating[1] >= each.time):
            return
        while (other := below(notebook, register, each.witness, each.size)) is not None and (
            other[1] >= each.time if self.up else other[1] <= each.time
        ):
            notebook.write(
                f"DELETE FROM {self.table} WHERE register = ? AND witness = ? AND size = ?",  # noqa: S608
                (register, each.witness, other[0]),
            )
        notebook.write(
            f"INSERT INTO {self.table} VALUES (?, ?, ?, ?)",  # noqa: S608
            (register, each.witness, each.size, each.time),
        )

    def _above(self, notebook: Notebook, register: str, witness: str, size: int) -> tuple[int, int] | None:
        return self._one(notebook, "size >= ? ORDER BY size", register, witness, size)

    def _below(self, notebook: Notebook, register: str, witness: str, size: int) -> tuple[int, int] | None:
        return self._one(notebook, "size <= ? ORDER BY size DESC", register, witness, size)

    def _one(
        self, notebook: Notebook, where: str, register: str, witness: str, size: int
    ) -> tuple[int, int] | None:
        row: tuple[int, int] | None = notebook.one(
            f"SELECT size, time FROM {self.table} WHERE register = ? AND witness = ? AND {where} LIMIT 1",  # noqa: S608
            (register, witness, size),
        )
        return row

    def around(
        self, notebook: Notebook, register: str, witness: str, index: int
    ) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        """Return the last of the sizes up to `index`, and the first beyond it: (size, time) each."""
        return self._below(notebook, register, witness, index), self._above(
            notebook, register, witness, index + 1
        )


_EARLIEST: Final = _Staircase("earliest", up=True)
_LATEST: Final = _Staircase("latest", up=False)


class WitnessedTimes:
    """The bounds of the entries of a ledger's registers, under the quorum of the auditor's policy."""

    def __init__(self, notebook: Notebook, quorum: Quorum) -> None:
        self._notebook = notebook
        self._quorum = quorum
        self._register = ""
        self._begin = 0
        self._end = 0
        self._bounds = Bounds(None, None, quorum.comparable)

    def add(self, register: str, cosignatures: Iterable[Cosignature]) -> None:
        """Keep verified cosignatures of a register's checkpoints, in any order."""
        self._end = self._begin  # what was answered last may hold no longer
        for each in cosignatures:
            _EARLIEST.add(self._notebook, register, each)
            _LATEST.add(self._notebook, register, each)

    def bounds(self, register: str, index: int) -> Bounds:
        """Return the bounds of an entry. O(w log n) for w witnesses, and mostly nothing for a neighbour."""
        if register != self._register or not self._begin <= index < self._end:
            self._look_up(register, index)
        return self._bounds

    def stretches(self, register: str, begin: int, end: int) -> Iterator[tuple[int, int, Bounds]]:
        """Yield the entries [begin, end) in runs of equal bounds: from, to (not included), bounds."""
        while begin < end:
            bounds = self.bounds(register, begin)
            to = min(end, self._end)
            yield begin, to, bounds
            begin = to

    def _look_up(self, register: str, index: int) -> None:
        """Work out the bounds at `index`, and up to where they are the same."""
        matter: list[Cosignature] = []
        end = _NO_END
        for witness in self._quorum.witnesses if self._quorum.root is not None else ():
            before, later = _LATEST.around(self._notebook, register, witness, index)
            _, after = _EARLIEST.around(self._notebook, register, witness, index)
            if before is not None:
                # At its own place in the timeline: any size up to the index says the same.
                matter.append(Cosignature(witness, *before))
            if after is not None:
                matter.append(Cosignature(witness, *after))
                end = min(end, after[0])
            if later is not None:
                end = min(end, later[0])
        self._bounds = Timeline(matter, self._quorum).bounds(index)
        self._register, self._begin, self._end = register, index, end

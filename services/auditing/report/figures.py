"""How late decisions were registered, counted: what the plots and their tables are drawn from.

Of bounded size whatever there is to count: days become spans of days, and dates that no decision of such a
ledger can have are counted at the edge.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from typing import Final

from ledger.records import DecisionRegistered
from services.auditing.after_returns import AfterReturn, AfterReturnKind
from services.auditing.facts import Fact
from services.auditing.lateness import Explained, Lateness, LatenessJudge, Verdict
from services.auditing.working_days import OutsideCalendarError, london_day

MAX_CELLS: Final = 2_048
"""Cells of the timeline: a class of decisions of one span of days, registered in one span of days."""

FIRST_DAY: Final = date(1990, 1, 1).toordinal()
LAST_DAY: Final = date(2100, 12, 31).toordinal()
"""The days that are told apart; what is before or after counts as the first or the last."""

LAGS: Final = (0, 1, 2, 3, 4, 5, 6, 11, 21, 61, 251)
"""From how many working days on each bar of the histogram counts; the last has no end."""


class Timing(StrEnum):
    """The class of a decision in time, as a reader is told it.

    Beside it stands whether it was added or changed after a return: a class of its own, which takes none out
    of these.
    """

    IN_TIME = "provably in time"
    EXEMPT = "provably late, for a reason that the profile exempts"
    LATE_EXPLAINED = "provably late, explained"
    LATE = "provably late, not explained"
    IMPOSSIBLE = "impossible: dated after the witnesses had it"
    UNDETERMINED = "not decided by the witnesses"
    NO_LIMIT = "no limit in the profile"


def timing(lateness: Lateness) -> Timing:
    """Return the class of a decision."""
    match lateness.verdict:
        case Verdict.IN_TIME:
            return Timing.IN_TIME
        case Verdict.EXEMPT:
            return Timing.EXEMPT
        case Verdict.LATE:
            return Timing.LATE if lateness.explained is Explained.NO else Timing.LATE_EXPLAINED
        case Verdict.IMPOSSIBLE:
            return Timing.IMPOSSIBLE
        case Verdict.NO_LIMIT:
            return Timing.NO_LIMIT
        case Verdict.UNDETERMINED:
            return Timing.UNDETERMINED


@dataclass(frozen=True, slots=True)
class Cell:
    """Decisions of one class: the first days (ordinals) of their spans, and how many they are.

    So many of them, `after_return`, were added or changed after a return.
    """

    decided: int
    registered: int
    timing: Timing
    count: int
    after_return: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """What was counted. `span` is how many days a cell has on each side.

    `registers` counts the classes of each register, `months` those of each month of decision, by the first
    day's ordinal. `unplaced` decisions have no not-after, so no day of registration. `at_least` and `at_most`
    count lags by their place in `LAGS`; None where the witnesses state no such side. What ends in
    `after_return` counts in the same way those that were added or changed after a return.
    """

    registers: Mapping[str, Mapping[Timing, int]]
    months: Mapping[int, Mapping[Timing, int]]
    cells: tuple[Cell, ...]
    span: int
    unplaced: int
    at_least: Mapping[int | None, int]
    at_most: Mapping[int | None, int]
    registers_after_return: Mapping[str, Mapping[AfterReturnKind, int]]
    months_after_return: Mapping[int, int]
    at_least_after_return: Mapping[int | None, int]

    @property
    def after_returns(self) -> Mapping[AfterReturnKind, int]:
        """What came after a return, of all registers together."""
        return sum(map(Counter, self.registers_after_return.values()), Counter[AfterReturnKind]())

    @property
    def totals(self) -> Mapping[Timing, int]:
        """The classes of all registers together."""
        return sum(map(Counter, self.registers.values()), Counter[Timing]())

    @property
    def decisions(self) -> int:
        """How many decisions were counted."""
        return sum(self.totals.values())


@dataclass(frozen=True, slots=True)
class PackedTally:
    """What a tally has counted, as plain lists, to be kept."""

    registers: list[tuple[str, Timing, int]]
    months: list[tuple[int, Timing, int]]
    cells: list[tuple[int, int, Timing, int, int]]
    shift: int
    unplaced: int
    at_least: list[tuple[int | None, int]]
    at_most: list[tuple[int | None, int]]
    registers_after: list[tuple[str, AfterReturnKind, int]]
    months_after: list[tuple[int, int]]
    at_least_after: list[tuple[int | None, int]]


@dataclass(slots=True)
class Tally:
    """Counts decisions one by one. What comes of it does not depend on their order, nor how it was divided."""

    _registers: defaultdict[str, Counter[Timing]] = field(default_factory=lambda: defaultdict(Counter))
    _months: defaultdict[int, Counter[Timing]] = field(default_factory=lambda: defaultdict(Counter))
    _cells: Counter[tuple[int, int, Timing]] = field(default_factory=Counter[tuple[int, int, Timing]])
    _shift: int = 0
    _unplaced: int = 0
    _at_least: Counter[int | None] = field(default_factory=Counter[int | None])
    _at_most: Counter[int | None] = field(default_factory=Counter[int | None])
    _after: defaultdict[str, Counter[AfterReturnKind]] = field(default_factory=lambda: defaultdict(Counter))
    _months_after: Counter[int] = field(default_factory=Counter[int])
    _cells_after: Counter[tuple[int, int, Timing]] = field(default_factory=Counter[tuple[int, int, Timing]])
    _at_least_after: Counter[int | None] = field(default_factory=Counter[int | None])

    def take(self, facts: Iterable[Fact], judge: LatenessJudge, after: Mapping[int, AfterReturn]) -> None:
        """Count the decisions among facts of one register, each as it was first registered.

        `after` are those among them that were added or changed after a return, by their indices.
        """
        for fact in facts:
            if isinstance(fact.record, DecisionRegistered):
                accepted_at, bounds = fact.accepted_at, fact.bounds
                self.add(fact.register, judge.judge(fact.record, accepted_at, bounds, after.get(fact.index)))

    def add(self, register: str, lateness: Lateness) -> None:
        """Count one decision."""
        kind = timing(lateness)
        decided = _day(lateness.decided.latest)
        self._registers[register][kind] += 1
        self._months[_month(decided)][kind] += 1
        lag = lateness.lag
        self._at_least[_bar(lag.at_least)] += 1
        self._at_most[_bar(lag.at_most)] += 1
        after = lateness.after_return
        if after is not None:
            self._after[register][after.kind] += 1
            self._months_after[_month(decided)] += 1
            self._at_least_after[_bar(lag.at_least)] += 1
        if lateness.bounds.not_after is None:
            self._unplaced += 1
            return
        registered = _day(lateness.bounds.not_after)
        cell = decided >> self._shift, registered >> self._shift, kind
        self._cells[cell] += 1
        if after is not None:
            self._cells_after[cell] += 1
        while len(self._cells) > MAX_CELLS:
            self._widen()

    def _widen(self) -> None:
        self._cells, self._cells_after = _wider(self._cells), _wider(self._cells_after)
        self._shift += 1

    def packed(self) -> PackedTally:
        """Return what was counted by now, to be kept."""
        return PackedTally(
            [(name, kind, count) for name, counts in self._registers.items() for kind, count in counts.items()],
            [(month, kind, count) for month, counts in self._months.items() for kind, count in counts.items()],
            [(*cell, count, self._cells_after[cell]) for cell, count in self._cells.items()],
            self._shift,
            self._unplaced,
            list(self._at_least.items()),
            list(self._at_most.items()),
            [(name, kind, count) for name, counts in self._after.items() for kind, count in counts.items()],
            list(self._months_after.items()),
            list(self._at_least_after.items()),
        )

    def merge(self, packed: PackedTally) -> None:
        """Add what another tally has counted."""
        for name, kind, count in packed.registers:
            self._registers[name][kind] += count
        for month, kind, count in packed.months:
            self._months[month][kind] += count
        for name, after, count in packed.registers_after:
            self._after[name][after] += count
        for counter, counts in (
            (self._at_least, packed.at_least),
            (self._at_most, packed.at_most),
            (self._at_least_after, packed.at_least_after),
        ):
            for place, count in counts:
                counter[place] += count
        for month, count in packed.months_after:
            self._months_after[month] += count
        self._unplaced += packed.unplaced
        while self._shift < packed.shift:
            self._widen()
        wider = self._shift - packed.shift
        for decided, registered, kind, count, count_after in packed.cells:
            cell = decided >> wider, registered >> wider, kind
            self._cells[cell] += count
            if count_after:
                self._cells_after[cell] += count_after
        while len(self._cells) > MAX_CELLS:
            self._widen()

    def figures(self) -> Figures:
        """Return what was counted by now."""
        cells = (
            Cell(
                max(cell[0] << self._shift, FIRST_DAY),
                max(cell[1] << self._shift, FIRST_DAY),
                cell[2],
                count,
                self._cells_after[cell],
            )
            for cell, count in self._cells.items()
        )
        order = list(Timing)
        return Figures(
            registers={name: dict(counts) for name, counts in sorted(self._registers.items())},
            months={month: dict(counts) for month, counts in sorted(self._months.items())},
            cells=tuple(
                sorted(cells, key=lambda each: (order.index(each.timing), each.decided, each.registered))
            ),
            span=1 << self._shift,
            unplaced=self._unplaced,
            at_least=dict(self._at_least),
            at_most=dict(self._at_most),
            registers_after_return={name: dict(counts) for name, counts in sorted(self._after.items())},
            months_after_return=dict(sorted(self._months_after.items())),
            at_least_after_return=dict(self._at_least_after),
        )


def _wider(cells: Counter[tuple[int, int, Timing]]) -> Counter[tuple[int, int, Timing]]:
    wider: Counter[tuple[int, int, Timing]] = Counter()
    for (decided, registered, kind), count in cells.items():
        wider[decided >> 1, registered >> 1, kind] += count
    return wider


def lag_names() -> list[str]:
    """Return what each place of `LAGS` counts, in words: ``3``, ``6 to 10``, ``251 or more``."""
    names = [str(low) if high == low + 1 else f"{low} to {high - 1}" for low, high in pairwise(LAGS)]
    return [*names, f"{LAGS[-1]} or more"]


def _bar(lag: int | None) -> int | None:
    return None if lag is None else bisect_right(LAGS, lag) - 1


@lru_cache(maxsize=4_096)
def _month(day: int) -> int:
    """Return the first day of the month of a day, both ordinals."""
    return date.fromordinal(day).replace(day=1).toordinal()


@lru_cache(maxsize=4_096)
def _day(seconds: int) -> int:
    """Return the ordinal of a London day, at the edge where there is no such or it is beyond."""
    try:
        day = london_day(seconds).toordinal()
    except OutsideCalendarError:
        return FIRST_DAY if seconds < 0 else LAST_DAY
    return min(max(day, FIRST_DAY), LAST_DAY)

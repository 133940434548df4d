"""One measure beside its floor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Measure:
    """What was measured, in `unit`; the floor in the same run; their ratio, and what it should be."""

    letter: str
    name: str
    value: float
    floor: float | None
    unit: str
    ratio: float | None
    target: str
    met: bool

    def line(self) -> str:
        """Return one line for a person."""
        floor = "" if self.floor is None else f", floor {self.floor:,.4g}"
        ratio = "" if self.ratio is None else f", ratio {self.ratio:.2f}"
        verdict = "met" if self.met else "MISSED"
        value = f"{self.value:,.4g} {self.unit}"
        return f"({self.letter}) {self.name}: {value}{floor}{ratio} (target {self.target}: {verdict})"


async def keep_in_flight(calls: Sequence[Callable[[], Awaitable[object]]], in_flight: int) -> float:
    """Return the seconds to make all calls, so many at a time."""
    waiting = iter(calls)

    async def work() -> None:
        for call in waiting:
            await call()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(in_flight):
            tasks.create_task(work())
    return time.perf_counter() - began


async def seconds_each(calls: Sequence[Callable[[], Awaitable[object]]]) -> list[float]:
    """Return the seconds of each call, made one after the other."""
    found = []
    for call in calls:
        began = time.perf_counter()
        await call()
        found.append(time.perf_counter() - began)
    return found


def middle(values: Sequence[float]) -> float:
    """Return the median."""
    return median(values)

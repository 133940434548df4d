"""Returns: what a department says that a series holds for a period, against what the register holds.

A return is judged as it stood when it was filed, by its own index, and against everything that came after it
(formats.md, section 16). A later version of a return is judged by itself; the earlier one stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from ledger.records import DecisionCorrected, DecisionRegistered, DecisionWithdrawn, ReturnFiled
from ledger.values import Partial, partial
from services.auditing.lateness import shown


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a decision in a register, as far as returns ask.

    A withdrawal has no `series`, `number` and `decided`: the version before it is what counts.
    """

    index: int
    record_id: str
    version: int
    series: str | None = None
    number: int | None = None
    decided: Partial | None = None


@dataclass(frozen=True, slots=True)
class Filed:
    """One version of a return: `count` 0 and no numbers where it is a nil return."""

    index: int
    record_id: str
    version: int
    accepted_at: float
    series: str
    period: Partial
    count: int
    first: int | None
    last: int | None


@dataclass(frozen=True, slots=True)
class Counted:
    """How many decisions the register holds for a return, and the lowest and highest of their numbers."""

    count: int
    first: int | None
    last: int | None


class ReturnFindingKind(StrEnum):
    """What is odd about a return."""

    COUNT = "another count"
    RANGE = "another range"
    EARLY = "filed before the period had ended"
    ADDED = "added after return"
    CHANGED = "changed after return"


@dataclass(frozen=True, slots=True)
class ReturnFinding:
    """One finding about a return. `indices` are entries of the register, the return's own first."""

    kind: ReturnFindingKind
    indices: tuple[int, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class JudgedReturn:
    """A return, what the register held when it was filed, and what is odd."""

    filed: Filed
    counted: Counted
    findings: tuple[ReturnFinding, ...]


def version_of(index: int, record: DecisionRegistered | DecisionCorrected | DecisionWithdrawn) -> Version:
    """Return what returns ask of a version of a decision that stands at `index`."""
    if isinstance(record, DecisionWithdrawn):
        return Version(index, record.record_id, record.version)
    reference = record.reference
    decided = partial(record.decided_at)
    return Version(index, record.record_id, record.version, reference.series, reference.number, decided)


def filed_of(index: int, accepted_at: float, record: ReturnFiled) -> Filed:
    """Return a return that stands at `index`; `accepted_at` is its entry's, POSIX seconds."""
    return Filed(
        index,
        record.record_id,
        record.version,
        accepted_at,
        record.series,
        partial(record.period),
        record.count or 0,
        record.first,
        record.last,
    )


def judge_return(filed: Filed, versions: Iterable[Version]) -> JudgedReturn:
    """Judge one version of a return against its register.

    `versions` are those of decisions in the order of the register, up to wherever it was read: at least every
    version of each record of which any version has the return's series. Others have no effect. Memory is O(n)
    over the records that have the series.
    """
    latest: dict[str, Version] = {}
    counted: Counted | None = None
    after: list[ReturnFinding] = []
    for version in versions:
        if counted is None and version.index > filed.index:
            counted = _counted(filed, latest.values())
        before = latest.get(version.record_id)
        if version.decided is None:
            # A withdrawn decision is still one of the period.
            continue
        if counted is not None:
            after += _moved(filed, before, version)
        if version.series == filed.series or before is not None:
            latest[version.record_id] = version
    if counted is None:
        counted = _counted(filed, latest.values())
    return JudgedReturn(filed, counted, (*_misstated(filed, counted), *_early(filed), *after))


def judge_counted(filed: Filed, counted: Counted) -> JudgedReturn:
    """Judge as `judge_return` does where it is known what the register held when the return was filed.

    What came after it is left out.
    """
    return JudgedReturn(filed, counted, (*_misstated(filed, counted), *_early(filed)))


def _is_counted(filed: Filed, version: Version | None) -> bool:
    return (
        version is not None
        and version.series == filed.series
        and version.decided is not None
        and filed.period.earliest <= version.decided.latest <= filed.period.latest
    )


def _counted(filed: Filed, latest: Iterable[Version]) -> Counted:
    numbers = [each.number for each in latest if _is_counted(filed, each) and each.number is not None]
    return Counted(len(numbers), min(numbers, default=None), max(numbers, default=None))


def _moved(filed: Filed, before: Version | None, version: Version) -> Iterable[ReturnFinding]:
    """Yield the finding for a version later than the return, where it changes what the return should count."""
    is_in, was_in = _is_counted(filed, version), _is_counted(filed, before)
    indices = (filed.index, version.index)
    name = _named(version)
    if version.version == 1 and is_in:
        sentence = f"{name} is a decision of the period, and was registered after the return."
        yield ReturnFinding(ReturnFindingKind.ADDED, indices, sentence)
    elif is_in != was_in:
        way = "into" if is_in else "out of"
        sentence = f"{name} was moved {way} what the return counts, by a correction after it."
        yield ReturnFinding(ReturnFindingKind.CHANGED, indices, sentence)


def _misstated(filed: Filed, counted: Counted) -> Iterable[ReturnFinding]:
    if filed.count != counted.count:
        sentence = (
            f"The return states {_decisions(filed.count)}, and the register held {_decisions(counted.count)} "
            f"of the period when it was filed: {_difference(filed.count, counted.count)}."
        )
        yield ReturnFinding(ReturnFindingKind.COUNT, (filed.index,), sentence)
    if (filed.first, filed.last) != (counted.first, counted.last):
        sentence = (
            f"The return states {_numbers(filed.first, filed.last)}, and the register held "
            f"{_numbers(counted.first, counted.last)} when it was filed."
        )
        yield ReturnFinding(ReturnFindingKind.RANGE, (filed.index,), sentence)


def _early(filed: Filed) -> Iterable[ReturnFinding]:
    # The last second of the period is still part of it.
    if filed.accepted_at < filed.period.latest + 1:
        sentence = (
            f"The ledger says that it accepted the return at {shown(filed.accepted_at)}, and its period ends "
            f"with {shown(filed.period.latest)}."
        )
        yield ReturnFinding(ReturnFindingKind.EARLY, (filed.index,), sentence)


def _named(version: Version) -> str:
    return f"Entry {version.index} (number {version.number}, version {version.version})"


def _decisions(count: int) -> str:
    return "1 decision" if count == 1 else f"{count or 'no'} decisions"


def _numbers(first: int | None, last: int | None) -> str:
    return "no numbers" if first is None or last is None else f"numbers {first} to {last}"


def _difference(stated: int, counted: int) -> str:
    return f"{stated - counted} too many" if stated > counted else f"{counted - stated} too few"

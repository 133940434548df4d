"""What is asked of a register's records: their kind, their channel, their series, when they were decided.

The ledger's preview and an auditor's own filter judge by this one module. A query selects entries, not
decisions: a correction that says another channel answers for itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, get_args

from ledger.errors import MalformedError, Reason, RejectedError, Violation
from ledger.record_types import Decision
from ledger.records import KNOWN_TYPES, Header, Record
from ledger.shapes import shown
from ledger.values import Partial, is_series, is_uuid, partial
from ledger.vocabularies import Channel, DecisionType

TYPES: Final = tuple(KNOWN_TYPES)
"""The record types that may be asked for."""

DECISION_TYPES: Final[tuple[str, ...]] = get_args(DecisionType)
"""The codes of `decision_type` that may be asked for."""

CHANNELS: Final[tuple[str, ...]] = get_args(Channel)
"""The codes of `channel` that may be asked for."""


class Fit(StrEnum):
    """How a record fits a query."""

    NO = "no"
    PERHAPS = "perhaps"
    """Its `decided_at` is too coarse to tell: the decision may have been taken within the time asked for."""

    YES = "yes"


@dataclass(frozen=True, slots=True)
class Query:
    """Conditions, all of which a record must meet; one that is empty or None is no condition.

    `decided_from` and `decided_to` are POSIX seconds, both included. Made by `make_query`, which refuses what
    no record can say.
    """

    types: frozenset[str] = frozenset()
    decision_types: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()
    record_id: str | None = None
    series: str | None = None
    decided_from: int | None = None
    decided_to: int | None = None

    def fit(self, record: Record) -> Fit:
        """Tell how a record fits. One whose type lacks a member that is asked for does not."""
        if self.types and record.type not in self.types:
            return Fit.NO
        if self.record_id is not None and record.record_id != self.record_id:
            return Fit.NO
        if self.series is not None and _series(record) != self.series:
            return Fit.NO
        if not self._asks_for_decisions:
            return Fit.YES
        if not isinstance(record, Decision):
            return Fit.NO
        if self.decision_types and record.decision_type not in self.decision_types:
            return Fit.NO
        if self.channels and record.channel not in self.channels:
            return Fit.NO
        return self._fit_of_time(partial(record.decided_at))

    def may_fit(self, header: Header) -> bool:
        """Tell whether a record of which only this much can be read may fit."""
        if self.types and header.type is not None and header.type not in self.types:
            return False
        return self.record_id is None or header.record_id in (None, self.record_id)

    @property
    def _asks_for_decisions(self) -> bool:
        times = self.decided_from is not None or self.decided_to is not None
        return times or bool(self.decision_types or self.channels)

    def _fit_of_time(self, decided: Partial) -> Fit:
        begin = decided.earliest if self.decided_from is None else self.decided_from
        end = decided.latest if self.decided_to is None else self.decided_to
        if decided.latest < begin or decided.earliest > end:
            return Fit.NO
        return Fit.YES if begin <= decided.earliest and decided.latest <= end else Fit.PERHAPS


def _series(record: Record) -> str | None:
    if isinstance(record, Decision):
        return record.reference.series
    series: str | None = getattr(record, "series", None)
    return series if isinstance(series, str) else None


def make_query(
    *,
    types: Iterable[str] = (),
    decision_types: Iterable[str] = (),
    channels: Iterable[str] = (),
    record_id: str = "",
    series: str = "",
    decided_from: str = "",
    decided_to: str = "",
    path: str = "",
) -> Query:
    """Return a query; an empty string is no condition. Times are partial dates (formats.md, section 2).

    What no record can say is refused: a slip of the pen would otherwise be answered, and proved, with nothing.
    Raises RejectedError INVALID_FIELD with every violation; their fields begin with `path`.
    """
    found: list[Violation] = []

    def wrong(field: str, description: str, allowed: tuple[str, ...] = ()) -> None:
        found.append(Violation(Reason.INVALID_FIELD, description, path + field, allowed))

    def codes(field: str, values: Iterable[str], allowed: tuple[str, ...]) -> frozenset[str]:
        held = frozenset(values)
        for value in sorted(held.difference(allowed))[:1]:
            wrong(field, f"{shown(value)!r} is not one of {', '.join(allowed)}", allowed)
        return held

    def second(field: str, value: str) -> Partial | None:
        try:
            return partial(value) if value else None
        except MalformedError:
            wrong(
                field, "must be a date (YYYY, YYYY-MM, YYYY-MM-DD), an instant in UTC, or a/b of two of these"
            )
            return None

    begin, end = second("decided_from", decided_from), second("decided_to", decided_to)
    if begin is not None and end is not None and begin.earliest > end.latest:
        wrong("decided_to", "is before `decided_from`")
    if record_id and not is_uuid(record_id):
        wrong("record_id", "must be a uuid, lowercase with hyphens")
    if series and not is_series(series):
        wrong("series", "must be letters and digits, joined by / . _ or -")
    query = Query(
        codes("types", types, TYPES),
        codes("decision_types", decision_types, DECISION_TYPES),
        codes("channels", channels, CHANNELS),
        record_id or None,
        series or None,
        None if begin is None else begin.earliest,
        None if end is None else end.latest,
    )
    if found:
        text = "; ".join(f"{each.field}: {each.description}" for each in found)
        raise RejectedError(Reason.INVALID_FIELD, text, violations=tuple(found))
    return query

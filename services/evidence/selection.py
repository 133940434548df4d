"""Which entries go into a pack: a few plain criteria, of which an entry must meet one of each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ledger.errors import MalformedError
from ledger.record_queries import TYPES
from ledger.records import Broken, Header, NotUnderstood, read_record
from ledger.values import Partial, is_partial, is_uuid, partial
from services import criteria

EVERYTHING: Final = "all"


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked for. Empty criteria let everything pass; an entry must satisfy all that are not empty.

    `ranges` are of indices, both ends included; `decided` are spans of POSIX seconds, both included, of which
    one must overlap the span that `decided_at` may mean. `types` are record types. All codes are of the
    vocabularies: any other would select nothing.
    """

    text: str
    record_ids: frozenset[str] = frozenset()
    ranges: tuple[tuple[int, int], ...] = ()
    types: frozenset[str] = frozenset()
    decision_types: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()
    decided: tuple[Partial, ...] = ()

    @property
    def by_index(self) -> bool:
        """Whether indices alone are asked for."""
        return bool(self.ranges) and not self.needs_records

    @property
    def needs_records(self) -> bool:
        """Whether entries must be read to know which are meant."""
        codes = self.types or self.decision_types or self.channels
        return bool(self.record_ids or codes or self.decided)

    def indices(self, size: int) -> Sequence[int]:
        """Return the indices below `size` that the ranges leave, in order."""
        if not self.ranges:
            return range(size)
        spans = [range(first, min(last + 1, size)) for first, last in self.ranges]
        return spans[0] if len(spans) == 1 else sorted({index for span in spans for index in span})

    def takes(self, index: int, record: bytes) -> bool:
        """Tell whether the entry at `index` with this record is meant, or may be.

        A record that breaks a rule, or of a type that is not understood, cannot be read for sure: it is left
        out only where what it says it is rules it out. Its exhibit then tells what is odd about it.
        """
        if self.ranges and not any(first <= index <= last for first, last in self.ranges):
            return False
        if not self.needs_records:
            return True
        read = read_record(record)
        if isinstance(read, Broken | NotUnderstood):
            return self._may_take(read.header)
        return (
            _is_one(read.record_id, self.record_ids)
            and _is_one(read.type, self.types)
            and _is_one(getattr(read, "decision_type", None), self.decision_types)
            and _is_one(getattr(read, "channel", None), self.channels)
            and (not self.decided or _overlaps(getattr(read, "decided_at", None), self.decided))
        )

    def _may_take(self, header: Header) -> bool:
        """Tell whether a record of which only this much can be read may be meant."""
        return (header.type is None or _is_one(header.type, self.types)) and (
            header.record_id is None or _is_one(header.record_id, self.record_ids)
        )


def parse_selection(expressions: Sequence[str]) -> Selection:
    """Return what ``record=UUID``, ``index=3..9``, ``type=…``, ``channel=…`` and ``decided=…`` ask for.

    ``all``, or nothing at all, is every entry. Of one kind any may hold, of several kinds all must; a record
    type and a decision type are of two kinds. Raises MalformedError, and RejectedError for a code that no
    record can have; both name the expression.
    """
    found: dict[str, list[Any]] = {name: [] for name in ("record", "index", "type", "channel", "decided")}
    for expression in expressions:
        if expression == EVERYTHING:
            continue
        name, equals, value = expression.partition("=")
        if not equals or name not in found:
            raise MalformedError(
                f"--select {expression!r}: not all, record=, index=, type=, channel= or decided=, and a value"
            )
        found[name].append(_value(name, value, f"--select {expression!r}"))
    types = frozenset(found["type"])
    return Selection(
        " and ".join(expressions) if expressions else EVERYTHING,
        frozenset(found["record"]),
        tuple(found["index"]),
        types.intersection(TYPES),
        types.difference(TYPES),
        frozenset(found["channel"]),
        tuple(found["decided"]),
    )


def _value(name: str, value: str, typed: str) -> object:
    try:
        match name:
            case "index":
                return criteria.index_range(value)
            case "decided":
                first, last = criteria.decided_within(value)
                return Partial(partial(first).earliest, partial(last).latest)
            case "type":
                return criteria.kind(typed, value)
            case "channel":
                return criteria.channel(typed, value)
        if not is_uuid(value):
            raise MalformedError("not a uuid, lowercase with hyphens")
    except MalformedError as error:
        raise MalformedError(f"{typed}: {error}") from error
    return value


def _is_one(value: object, wanted: frozenset[str]) -> bool:
    """Tell whether a member is one of those that are wanted, of which none is no criterion."""
    return not wanted or (isinstance(value, str) and value in wanted)


def _overlaps(decided_at: object, spans: Sequence[Partial]) -> bool:
    if not isinstance(decided_at, str) or not is_partial(decided_at):
        return False
    decided = partial(decided_at)
    return any(decided.latest >= span.earliest and decided.earliest <= span.latest for span in spans)

"""Which entries go into a pack: a few plain criteria, of which an entry must meet one of each kind."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ledger.errors import MalformedError
from ledger.values import Partial, is_partial, is_uuid, partial

EVERYTHING: Final = "all"

_RANGE: Final = re.compile(r"(0|[1-9][0-9]{0,15})(?:\.\.(0|[1-9][0-9]{0,15}))?")
_MEMBER: Final = re.compile(r"[!-~]{1,200}")


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked for. Empty criteria let everything pass; an entry must satisfy all that are not empty.

    `ranges` are of indices, both ends included; `decided` are spans of POSIX seconds, both included, of which
    one must overlap the span that `decided_at` may mean.
    """

    text: str
    record_ids: frozenset[str] = frozenset()
    ranges: tuple[tuple[int, int], ...] = ()
    types: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()
    decided: tuple[Partial, ...] = ()

    @property
    def by_index(self) -> bool:
        """Whether indices alone are asked for."""
        return bool(self.ranges) and not self.needs_records

    @property
    def needs_records(self) -> bool:
        """Whether entries must be read to know which are meant."""
        return bool(self.record_ids or self.types or self.channels or self.decided)

    def indices(self, size: int) -> Sequence[int]:
        """Return the indices below `size` that the ranges leave, in order."""
        if not self.ranges:
            return range(size)
        spans = [range(first, min(last + 1, size)) for first, last in self.ranges]
        return spans[0] if len(spans) == 1 else sorted({index for span in spans for index in span})

    def takes(self, index: int, record: bytes) -> bool:
        """Tell whether the entry at `index` with this record is meant."""
        if self.ranges and not any(first <= index <= last for first, last in self.ranges):
            return False
        if not self.needs_records:
            return True
        members = _members(record)
        return (
            (not self.record_ids or members.get("record_id") in self.record_ids)
            and (not self.types or members.get("type") in self.types)
            and (not self.channels or members.get("channel") in self.channels)
            and (not self.decided or _overlaps(members.get("decided_at"), self.decided))
        )


def parse_selection(expressions: Sequence[str]) -> Selection:
    """Return what ``record=UUID``, ``index=3..9``, ``type=…``, ``channel=…`` and ``decided=…`` ask for.

    ``all``, or nothing at all, is every entry. Of one kind any may hold, of several kinds all must. Raises
    MalformedError, which names the expression.
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
        found[name].append(_value(name, value, expression))
    return Selection(
        " and ".join(expressions) if expressions else EVERYTHING,
        frozenset(found["record"]),
        tuple(found["index"]),
        frozenset(found["type"]),
        frozenset(found["channel"]),
        tuple(found["decided"]),
    )


def _value(name: str, value: str, expression: str) -> object:
    if name == "record":
        if not is_uuid(value):
            raise MalformedError(f"--select {expression!r}: not a uuid, lowercase with hyphens")
        return value
    if name == "index":
        span = _RANGE.fullmatch(value)
        if span is None or int(span[2] or span[1]) < int(span[1]):
            raise MalformedError(f"--select {expression!r}: not an index, or two in order: 3 or 3..9")
        return int(span[1]), int(span[2] or span[1])
    if name == "decided":
        first, dots, last = value.partition("..")
        if not is_partial(first) or not is_partial(last if dots else first):
            raise MalformedError(f"--select {expression!r}: not a date, or two of them: 2026-01..2026-03-15")
        begin, end = partial(first), partial(last if dots else first)
        if end.latest < begin.earliest:
            raise MalformedError(f"--select {expression!r}: ends before it begins")
        return Partial(begin.earliest, end.latest)
    if not _MEMBER.fullmatch(value):
        raise MalformedError(f"--select {expression!r}: not a {name}")
    return value


def _members(record: bytes) -> Mapping[str, Any]:
    try:
        value = msgspec.json.decode(record)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _overlaps(decided_at: object, spans: Sequence[Partial]) -> bool:
    if not isinstance(decided_at, str) or not is_partial(decided_at):
        return False
    decided = partial(decided_at)
    return any(decided.latest >= span.earliest and decided.earliest <= span.latest for span in spans)

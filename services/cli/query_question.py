"""The question that `daybook query` is asked, from what was typed: a refusal names the option."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from daybook.audit.v1 import audit_service_pb2 as pb

from ledger.errors import MalformedError
from ledger.record_queries import TYPES, Query, make_query
from ledger.values import partial
from services import criteria
from services.as_at import Moment
from services.cli.reporting import UsageError


@dataclass(frozen=True, slots=True)
class Keeping:
    """What is kept of every match: its entry; its path, for a receipt."""

    entries: bool
    paths: bool


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    `spans` are ranges of indices, begin and end, which alone are asked about; empty for all.
    """

    register: str
    filter: pb.RecordFilter
    query: Query
    spans: tuple[tuple[int, int], ...]
    at_size: int | None
    when: Moment | None
    quick: bool
    keeping: Keeping


def spelled(option: str, text: str | None, is_spelled: Callable[[str], bool], words: str) -> str:
    """Return the value of an option, an empty one for none. Raises UsageError where it is spelled otherwise."""
    if text is not None and not is_spelled(text):
        raise UsageError(f"{option} {text!r}: must be {words}", "INVALID_FIELD")
    return text or ""


def decided_dates(within: str | None, begins: str | None, ends: str | None) -> tuple[str, str]:
    """Return from when and until when decisions are meant, empty strings for no limit; both are included.

    Raises UsageError, which names the option that was typed.
    """
    if within is not None:
        return _dates("--decided", within)
    earliest = "" if begins is None else _dates("--decided-from", begins)[0]
    latest = "" if ends is None else _dates("--decided-to", ends)[1]
    if earliest and latest and partial(latest).latest < partial(earliest).earliest:
        raise UsageError(f"--decided-to {ends!r}: is before --decided-from {begins!r}", "INVALID_FIELD")
    return earliest, latest


def _dates(option: str, text: str) -> tuple[str, str]:
    try:
        return criteria.decided_within(text)
    except MalformedError as error:
        raise UsageError(f"{option} {text!r}: {error}", "INVALID_FIELD") from error


def index_spans(typed: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Return the ranges of indices that were asked for, begin and end, in order, none twice."""
    ranges = []
    for text in typed:
        try:
            ranges.append(criteria.index_range(text))
        except MalformedError as error:
            raise UsageError(f"--index {text!r}: {error}", "INVALID_FIELD") from error
    spans: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if spans and first <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(spans[-1][1], last + 1)
        else:
            spans.append((first, last + 1))
    return tuple(spans)


def conditions(kinds: Sequence[str], **others: Any) -> tuple[Query, pb.RecordFilter]:
    """Return what is looked for here, and what a preview would be asked with.

    `kinds` are decision types and record types alike. Raises RejectedError for what no record can say.
    """
    known = [criteria.kind("--type", each) for each in kinds]
    types = [each for each in known if each in TYPES]
    decision_types = [each for each in known if each not in TYPES]
    conditions: dict[str, Any] = {"types": types, "decision_types": decision_types, **others}
    return make_query(**conditions), pb.RecordFilter(**conditions)

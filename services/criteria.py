"""What people type to say which entries they mean: one spelling and one meaning in every command."""

from __future__ import annotations

import re
from typing import Final

from ledger.errors import MalformedError, Reason, RejectedError, Violation
from ledger.record_queries import CHANNELS, DECISION_TYPES, TYPES
from ledger.shapes import shown
from ledger.values import is_partial, partial

KINDS: Final = (*DECISION_TYPES, *TYPES)
"""What a kind may be: a decision type or a record type."""

_RANGE: Final = re.compile(r"(0|[1-9][0-9]{0,15})(?:\.\.(0|[1-9][0-9]{0,15}))?")


def kind(typed: str, value: str) -> str:
    """Return a decision type or a record type. Raises RejectedError, which names what was `typed`."""
    return _code(typed, value, KINDS)


def channel(typed: str, value: str) -> str:
    """Return a channel. Raises RejectedError, which names what was `typed`."""
    return _code(typed, value, CHANNELS)


def _code(typed: str, value: str, allowed: tuple[str, ...]) -> str:
    """Return a code that a record can have: any other would be answered with nothing, and that be believed."""
    if value in allowed:
        return value
    description = f"{shown(value)!r} is not one of {', '.join(allowed)}"
    violation = Violation(Reason.INVALID_FIELD, description, typed.partition(" ")[0], allowed)
    raise RejectedError(Reason.INVALID_FIELD, f"{typed}: {description}", violations=(violation,))


def decided_within(text: str) -> tuple[str, str]:
    """Return the partial dates between which a decision is meant to be; both are included.

    One date is both. Two are spelled ``2026-01..2026-03-15`` or ``2026-01/2026-03-15``. Raises
    MalformedError, which does not repeat `text`.
    """
    mark = ".." if ".." in text else "/"
    first, found, last = text.partition(mark)
    last = last if found else first
    if not all(is_partial(each) and "/" not in each for each in (first, last)):
        raise MalformedError(
            "not a date (YYYY, YYYY-MM, YYYY-MM-DD), an instant in UTC, or two of these: 2026-01..2026-03-15"
        )
    if partial(last).latest < partial(first).earliest:
        raise MalformedError("ends before it begins")
    return first, last


def index_range(text: str) -> tuple[int, int]:
    """Return the first and the last index of ``3`` or ``3..9``, both included.

    Raises MalformedError, which does not repeat `text`.
    """
    span = _RANGE.fullmatch(text)
    if span is None or int(span[2] or span[1]) < int(span[1]):
        raise MalformedError("not an index, or two in order: 3 or 3..9")
    return int(span[1]), int(span[2] or span[1])

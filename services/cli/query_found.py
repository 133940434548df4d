"""What `daybook query` has found, and the words for it that its text and its JSON share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ledger.timeline import Bounds
from services.as_at import Cut, Moment
from services.query_answer import Answer
from services.querying import Register


@dataclass(frozen=True, slots=True)
class Found:
    """What was found: the entries up to `end` were read, or looked through by the ledger where `quick`.

    `spans` are the ranges of indices that were asked for, begin and end, and alone read; empty for all.
    `at_size` or `when` is the moment asked for, None for none. `cut` is where it falls: None where only
    `accepted_at` says. `windows` has the bounds of entries that straddle it, by index.
    """

    register: Register
    end: int
    spans: Sequence[tuple[int, int]]
    at_size: int | None
    when: Moment | None
    cut: Cut | None
    quick: bool
    answer: Answer
    windows: Mapping[int, Bounds]

    @property
    def as_at(self) -> bool:
        """Whether the register as it stood at some time was asked for."""
        return self.at_size is not None or self.when is not None


def entries(count: int) -> str:
    """Return a number of entries: ``1 entry``, ``2 entries``."""
    return "1 entry" if count == 1 else f"{count} entries"


def first_entries(count: int) -> str:
    """Return the beginning of a register: ``first entry``, ``first 2 entries``."""
    return "first entry" if count == 1 else f"first {count} entries"


def span(begin: int, end: int) -> str:
    """Return a range of indices that ends before `end`: ``3``, ``3 to 9``."""
    return str(begin) if end == begin + 1 else f"{begin} to {end - 1}"


def instant(seconds: int | None) -> str | None:
    """Return POSIX seconds as an instant; a witness may have signed a time that no calendar has."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"

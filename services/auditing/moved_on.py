"""Whether a register has moved on since a moment: something was added to it that came later.

Submissions of a register are taken up in the order in which they were accepted. So one that was acknowledged
and is not there can still come while the register stands still, or while what is added was accepted before. A
checkpoint that is only cosigned again says nothing, and neither does when an auditor happens to look.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from ledger.admission import moment
from ledger.entries import parse_entry
from ledger.receipts import CLOCK_ALLOWANCE
from services.auditing.audit_state import AuditState
from services.auditing.claimed_times import Visits
from services.auditing.windows import shown_time

A_DAY: Final = 86_400
"""Seconds after which what is added counts whatever it claims: no ledger works through older ones for ever."""

AN_HOUR: Final = 3_600
"""Seconds in which a ledger that was away has worked through what it had accepted before."""

Window = tuple[float | None, float | None]
"""When an entry was not there yet, and when it was, POSIX seconds; None for unknown."""


def moved_on(state: AuditState, register: str, since: float, now: float) -> str | None:
    """Say what shows that a register was added to by what was accepted after `since`; None where nothing does.

    `since` and `now` are POSIX seconds. The register was read and examined to its end. Raises StoreError.
    """
    later = _accepted_later(state, register, since, now)
    if later is not None:
        index, claimed = later
        return f"entry {index} was accepted at {shown_time(claimed)}, and is there"
    for whose, window in (("your witnesses", _witnessed(state, register)), ("you", _visited(state, register))):
        added = _added_later(window, state.monitored.size(register), since)
        if added is not None:
            # What is added with earlier times of acceptance hides nothing from those who were there.
            before = shown_time(window(added)[0] or 0)
            return (
                f"entry {added}, which was not there when {whose} saw it at {before}, and later ones are there"
            )
    return None


def _accepted_later(state: AuditState, register: str, since: float, now: float) -> tuple[int, float] | None:
    """Return an entry, with what it claims, that says itself that it was accepted after `since`.

    Clocks may differ; and a claim that is still to come, or of an entry that was there before, is none.
    """
    threshold, end = since + CLOCK_ALLOWANCE, state.monitored.size(register)
    for first, latest in state.notebook.rows(
        "SELECT first, latest FROM claimed WHERE register = ? ORDER BY first DESC", (register,)
    ):
        if latest > threshold:
            for index, entry in enumerate(state.entries(register, first, end), first):
                claimed = moment(parse_entry(entry).acceptance.accepted_at)
                is_later = threshold < claimed <= now + CLOCK_ALLOWANCE
                if is_later and not _was_there(state, register, index, threshold):
                    return index, claimed
        end = first
    return None


def _was_there(state: AuditState, register: str, index: int, at: float) -> bool:
    """Tell whether an entry was there at `at`, by the witnesses or as this auditor saw himself."""
    known = state.bounds(register, index).not_after, _seen_at(state, register, index)
    return any(each is not None and each <= at for each in known)


def _seen_at(state: AuditState, register: str, index: int) -> float | None:
    seen = state.monitored.seen.next_above(register, index)
    return None if seen is None else seen.at


def _added_later(window: Callable[[int], Window], size: int, since: float) -> int | None:
    """Return the first entry that came in more than a day after `since`, where others came an hour after it."""
    if not size:
        return None
    # Larger indices came no earlier.
    index = bisect_left(range(size), since + A_DAY, key=lambda each: window(each)[0] or 0)
    if index == size:
        return None
    after, last = window(index)[1], window(size - 1)[0]
    return index if after is not None and last is not None and last > after + AN_HOUR else None


def _witnessed(state: AuditState, register: str) -> Callable[[int], Window]:
    def window(index: int) -> Window:
        bounds = state.bounds(register, index)
        return (bounds.not_before, bounds.not_after) if bounds.comparable else (None, None)

    return window


def _visited(state: AuditState, register: str) -> Callable[[int], Window]:
    visits = Visits(state, register)

    def window(index: int) -> Window:
        return visits.before(index), _seen_at(state, register, index)

    return window

"""What the ledger claims of time, `accepted_at`, held against the witnesses' clocks and the auditor's visits.

Every entry is looked at when it is examined first, and again when its bounds are others than then
(`services.auditing.bounds_used`).
"""

from __future__ import annotations

from typing import Final

from ledger.entries import Entry, EntryReader, submission_body_of, submission_id
from ledger.receipts import CLOCK_ALLOWANCE
from services.auditing.audit_state import STRETCH, AuditState
from services.auditing.bounds_used import (
    BEFORE_VISIT,
    CLAIMED_EARLIER,
    CLAIMS,
    IMPOSSIBLE,
    JUST_EARLIER,
    SUPPORTED,
)
from services.auditing.facts import Fact, fact_of_parsed
from services.auditing.spans import OddSpans
from services.auditing.windows import shown_time
from services.monitoring.following import Bar

_NO_END: Final = 1 << 62


class Visits:
    """When this auditor was there, and a register had fewer entries than it has now."""

    def __init__(self, state: AuditState, register: str) -> None:
        self._notebook = state.notebook
        self._register = register
        self._begin = self._end = 0
        self._begun: int | None = None

    def before(self, index: int) -> int | None:
        """Return when the last visit began at which an entry was not there, POSIX seconds; None for none."""
        if not self._begin <= index < self._end:
            upto = self._notebook.one(
                "SELECT size, begun FROM visited WHERE register = ? AND size <= ? ORDER BY size DESC LIMIT 1",
                (self._register, index),
            )
            beyond = self._notebook.one(
                "SELECT min(size) FROM visited WHERE register = ? AND size > ?", (self._register, index)
            )
            self._begin, self._begun = upto or (0, None)
            self._end = _NO_END if beyond[0] is None else beyond[0]
        return self._begun


class Claims:
    """Holds the entries of one register, a stretch at a time, against the bounds of now. Raises StoreError."""

    def __init__(self, state: AuditState, register: str) -> None:
        self._state = state
        self._register = register
        self._visits = Visits(state, register)
        self._odd = OddSpans()
        self._latest: tuple[int, float] | None = None

    def look(self, fact: Fact, parsed: Entry) -> None:
        """Look at the next entry (formats.md, section 15)."""
        claimed, bounds = fact.accepted_at, fact.bounds
        first, latest = self._latest or (fact.index, claimed)
        self._latest = first, max(latest, claimed)
        if bounds.not_after is not None and claimed > bounds.not_after + CLOCK_ALLOWANCE:
            known = shown_time(bounds.not_after)
            text = f"claims {shown_time(claimed)}, and a quorum of witnesses knew it by {known}"
            self._odd.add(IMPOSSIBLE, fact.index, text)
        if bounds.not_before is not None and claimed < bounds.not_before:
            self._look_earlier(fact, parsed, bounds.not_before)
            return
        visited = self._visits.before(fact.index)
        if visited is not None and claimed + CLOCK_ALLOWANCE < visited:
            # What the auditor saw himself is no witness for others, and needs none for him.
            text = f"claims {shown_time(claimed)}, and at your visit of {shown_time(visited)} it was not there"
            self._odd.add(BEFORE_VISIT, fact.index, text)

    def _look_earlier(self, fact: Fact, parsed: Entry, not_before: int) -> None:
        unknown = shown_time(not_before)
        text = (
            f"claims {shown_time(fact.accepted_at)}, and a quorum of witnesses knew no such entry at {unknown}"
        )
        if fact.accepted_at + CLOCK_ALLOWANCE >= not_before:
            self._odd.add(JUST_EARLIER, fact.index, text)
            return
        identity = _submission_id(self._state.origin, fact, parsed)
        supported = identity is not None and self._state.notebook.one(
            "SELECT 1 FROM supported WHERE register = ? AND submission_id = ?", (fact.register, identity)
        )
        self._odd.add(SUPPORTED if supported else CLAIMED_EARLIER, fact.index, text, identity)

    def write(self, end: int) -> None:
        """Write what was found up to the entry before `end`, in a transaction that the caller has begun."""
        notebook = self._state.notebook
        self._odd.write(notebook, self._register)
        if self._latest is not None:
            notebook.write("INSERT OR REPLACE INTO claimed VALUES (?, ?, ?)", (self._register, *self._latest))
        notebook.set_position(f"{CLAIMS}{self._register}", end)
        self._odd, self._latest = OddSpans(), None


def look_again(state: AuditState, register: str, end: int, bar: Bar) -> None:
    """Look again at the entries of a register below `end` whose bounds are others than at the last look."""
    position = f"{CLAIMS}{register}"
    at = state.notebook.position(position)
    claims, reader = Claims(state, register), EntryReader()
    with bar(f"Looking again at {register}", end - at) as advance:
        while at < end:
            to = min(end, (at // STRETCH + 1) * STRETCH)
            for index, entry in enumerate(state.entries(register, at, to), at):
                parsed = reader.parse(entry)
                claims.look(fact_of_parsed(register, index, parsed, state.bounds(register, index)), parsed)
            with state.notebook.together():
                claims.write(to)
            advance(to - at)
            at = to


def _submission_id(origin: str, fact: Fact, parsed: Entry) -> bytes | None:
    if parsed.membership is None:
        return None
    body = submission_body_of(parsed, f"{origin}/{fact.register}")
    return bytes.fromhex(submission_id(body))

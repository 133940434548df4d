"""In whose terms records are looked at: the auditor's own profile, or the one that the ledger has published.

A profile is policy, never law. The auditor's choice comes first; then what the governing register has in
force; then the strictest profile that comes with Daybook. What was taken is said with every result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ledger.errors import LedgerError, MalformedError, RejectedError
from ledger.governing import GOVERNING
from ledger.ledger import LedgerView
from services.auditing.audit_state import AuditState
from services.auditing.calendars import packaged, with_overrides
from services.auditing.profile_types import Profile
from services.auditing.profiles import (
    CALENDAR,
    PROFILE,
    identity,
    in_force,
    published_overrides,
    published_profile,
    shipped,
)
from services.auditing.working_days import Calendar

DEFAULT: Final = "daybook-strict"
"""The profile that holds where neither the auditor nor the ledger names one."""


@dataclass(frozen=True, slots=True)
class TermsInForce:
    """A profile and its calendar. `profile_named` says which it is and whose; `remarks` are sentences."""

    profile: Profile
    calendar: Calendar
    profile_named: str
    remarks: tuple[str, ...]


def terms_in_force(state: AuditState, own: Profile | None, now: float) -> TermsInForce:
    """Return the terms of an audit at `now`, POSIX seconds; `own` is the profile that the auditor names.

    Raises StoreError.
    """
    return ledger_terms(state.monitored.mirror, own, now)


def ledger_terms(ledger: LedgerView, own: Profile | None, now: float) -> TermsInForce:
    """Return the terms in which a ledger is looked at, from its governing register. Raises StoreError."""
    remarks: list[str] = []
    profile, whose = own, "chosen by you"
    if profile is None:
        profile, whose = _published(ledger, now, remarks) or (shipped(DEFAULT), "the default")
    calendar = _calendar(ledger, packaged(profile.calendar), now, remarks)
    return TermsInForce(profile, calendar, f"{identity(profile)}, {whose}", tuple(remarks))


def _published(ledger: LedgerView, now: float, remarks: list[str]) -> tuple[Profile, str] | None:
    """Return the last profile in force that the governing register holds and that can be read."""
    for index, entry in reversed(list(_in_force(ledger, PROFILE, now))):
        try:
            return published_profile(entry), f"published by governing entry {index}"
        except (MalformedError, RejectedError) as error:
            remarks.append(f"Governing entry {index} publishes a profile that is none: {error}.")
    return None


def _calendar(ledger: LedgerView, calendar: Calendar, now: float, remarks: list[str]) -> Calendar:
    """Return a calendar with the days that the governing register overrides."""
    for index, entry in _in_force(ledger, CALENDAR, now):
        try:
            overrides = published_overrides(entry)
            if overrides.calendar == calendar.name:
                calendar = with_overrides(calendar, overrides)
        except LedgerError as error:
            remarks.append(f"Governing entry {index} overrides a calendar, which cannot be done: {error}.")
    return calendar


def _in_force(ledger: LedgerView, kind: str, now: float) -> Iterator[tuple[int, bytes]]:
    for each in in_force(ledger.fold.published, kind, now):
        yield each.index, ledger.reader(GOVERNING).entry(each.index)

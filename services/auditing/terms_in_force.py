"""In whose terms records are looked at: the auditor's own profile, or the one that the ledger has published.

A profile is policy, never law. The auditor's choice comes first; then what the governing register has in
force; then the strictest profile that comes with Daybook. The days of its calendar that are otherwise are the
auditor's choice as well: beside his own profile those that the ledger publishes hold only where he says so.
What was taken is said with every result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from ledger.errors import LedgerError, MalformedError, RejectedError
from ledger.governing import GOVERNING
from ledger.ledger import LedgerView
from services.auditing.audit_state import AuditState
from services.auditing.calendars import Overrides, packaged, with_overrides
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

_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class ChosenDays:
    """Which days an auditor has otherwise than in the packaged calendar: `own` are his overrides.

    With `published`, those of the ledger hold before his own. They do without it only where he has chosen
    neither a profile nor overrides.
    """

    own: tuple[Overrides, ...] = ()
    published: bool = False


NONE_CHOSEN: Final = ChosenDays()


@dataclass(frozen=True, slots=True)
class TermsInForce:
    """A profile and its calendar. `profile_named` says which it is and whose; `remarks` are sentences.

    `overrides` are those that the calendar has by now, and `days_from` the governing entries of some of them.
    """

    profile: Profile
    calendar: Calendar
    profile_named: str
    remarks: tuple[str, ...]
    overrides: tuple[Overrides, ...] = ()
    days_from: tuple[int, ...] = ()


def terms_in_force(
    state: AuditState, own: Profile | None, now: float, days: ChosenDays = NONE_CHOSEN
) -> TermsInForce:
    """Return the terms of an audit at `now`, POSIX seconds; `own` is the profile that the auditor names.

    Raises StoreError.
    """
    return ledger_terms(state.monitored.mirror, own, now, days)


def ledger_terms(
    ledger: LedgerView, own: Profile | None, now: float, days: ChosenDays = NONE_CHOSEN
) -> TermsInForce:
    """Return the terms in which a ledger is looked at, from its governing register. Raises StoreError."""
    remarks: list[str] = []
    profile, whose = own, "chosen by you"
    if profile is None:
        profile, whose = _published(ledger, now, remarks) or (shipped(DEFAULT), "the default")
    held = _Days(packaged(profile.calendar), remarks)
    takes_published = days.published or (own is None and not days.own)
    held.take_published(ledger, now, applies=takes_published)
    held.take_own(days.own)
    named = f"{identity(profile)}, {whose}"
    return TermsInForce(
        profile, held.calendar, named, tuple(remarks), tuple(held.overrides), tuple(held.published_by)
    )


@dataclass(slots=True)
class _Days:
    """A calendar as overrides are taken, one after the other; `remarks` are sentences about them."""

    calendar: Calendar
    remarks: list[str]
    overrides: list[Overrides] = field(default_factory=list[Overrides])
    published_by: list[int] = field(default_factory=list[int])

    def take_published(self, ledger: LedgerView, now: float, *, applies: bool) -> None:
        """Take what the governing register overrides, or say that it is not applied."""
        left: list[str] = []
        for index, entry in _in_force(ledger, CALENDAR, now):
            try:
                overrides = published_overrides(entry)
                if overrides.calendar != self.calendar.name:
                    continue
                if not applies:
                    left.append(str(index))
                    continue
                self.calendar = with_overrides(self.calendar, overrides)
            except LedgerError as error:
                what = f"Governing entry {index} overrides a calendar, which cannot be done: {error}."
                self.remarks.append(what)
                continue
            self.overrides.append(overrides)
            self.published_by.append(index)
        if left:
            entries = ", ".join(left[:_SHOWN]) + (", …" if len(left) > _SHOWN else "")
            self.remarks.append(
                f"The ledger publishes other working days for {self.calendar.name}, in governing entries "
                f"{entries}. They are not applied, since you chose the terms; --overrides published does that."
            )

    def take_own(self, own: Iterable[Overrides]) -> None:
        """Take the auditor's own overrides."""
        for each in own:
            try:
                self.calendar = with_overrides(self.calendar, each)
            except RejectedError:
                self.remarks.append(
                    f"Your overrides {each.name} are of {each.calendar}. The profile counts in "
                    f"{self.calendar.name}, so they change nothing."
                )
            else:
                self.overrides.append(each)


def _published(ledger: LedgerView, now: float, remarks: list[str]) -> tuple[Profile, str] | None:
    """Return the last profile in force that the governing register holds and that can be read."""
    for index, entry in reversed(list(_in_force(ledger, PROFILE, now))):
        try:
            return published_profile(entry), f"published by governing entry {index}"
        except (MalformedError, RejectedError) as error:
            remarks.append(f"Governing entry {index} publishes a profile that is none: {error}.")
    return None


def _in_force(ledger: LedgerView, kind: str, now: float) -> Iterator[tuple[int, bytes]]:
    for each in in_force(ledger.fold.published, kind, now):
        yield each.index, ledger.reader(GOVERNING).entry(each.index)

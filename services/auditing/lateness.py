"""Lateness: whether a decision was registered in time, as far as the witnesses' clocks prove it.

Four times meet here. A department claims when it decided and when it captured, the ledger claims when it
accepted, and witnesses prove between which two moments the entry came into the history that they have seen.
The verdict rests on the witnessed times alone (formats.md, section 15). The deadline comes from a policy
profile and is no law. Beside it stands whether the decision was added or changed after a return, by the order
of its register (section 16): that is a class of its own, and a decision may be both in time and after a return.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Final

from ledger.records import Decision
from ledger.timeline import Bounds
from ledger.values import Partial, partial
from services.auditing.after_returns import AfterReturn, AfterReturnKind
from services.auditing.profile_types import LateRegistration, Limit, Profile
from services.auditing.profiles import identity, limit_for
from services.auditing.working_days import (
    Calendar,
    OutsideCalendarError,
    begins,
    deadline_after,
    london_day,
    working_days_at_least,
    working_days_between,
)


class Verdict(StrEnum):
    """What may be said of a decision's registration."""

    IN_TIME = "provably in time"
    """In the witnessed history by the deadline."""

    LATE = "provably late"
    """Not yet in the witnessed history at a moment after the deadline."""

    EXEMPT = "provably late, exempt"
    """Late, for a reason that the profile exempts: listed, and not held late."""

    UNDETERMINED = "undetermined"
    """The witnesses leave a window in which the deadline lies, or state nothing that decides it.

    Or the record states two times for the decision that lie so far apart that its limit passed between them.
    """

    IMPOSSIBLE = "impossible"
    """Stated to have been decided after the witnesses had the entry."""

    NO_LIMIT = "no limit"
    """The profile has no limit for such a decision."""


class Explained(StrEnum):
    """Whether the record says why it is late."""

    NO = "not explained"
    STATED = "explained"
    WITHHELD = "explained, the explanation is withheld"


@dataclass(frozen=True, slots=True)
class Lag:
    """Working days from the decision to the registration: at least, at most. None where not known."""

    at_least: int | None
    at_most: int | None


@dataclass(frozen=True, slots=True)
class Lateness:
    """The verdict on one decision with everything that it was worked out from. Times are POSIX seconds.

    `limit` is the profile's limit for it, None where there is none. `deadline` is the last second by which the
    entry was to be witnessed; None without a limit, and where the calendar does not reach so far. `is_exact` is
    False where the decision is dated before the calendar begins: then it was counted from the calendar's first
    day, and the true one is no later. `at_award` says that the award date is what sets it. `profile` is the
    profile's identity. `after_return` is the return that it was added or changed after, None for none.
    `too_wide` says that the record dates the decision between two times, and that only by the first it is late.
    """

    verdict: Verdict
    explained: Explained
    late_reason: str | None
    decided: Partial
    captured_at: str
    accepted_at: float
    bounds: Bounds
    limit: Limit | None
    deadline: int | None
    at_award: bool
    counted_in: Calendar
    profile: str
    after_return: AfterReturn | None = None
    is_exact: bool = True
    too_wide: bool = False

    @property
    def calendar(self) -> str:
        """The version of the calendar."""
        return self.counted_in.version

    @property
    def captured(self) -> Partial:
        """When the department says that it captured the decision."""
        return partial(self.captured_at)

    @property
    def lag(self) -> Lag:
        """How long registering took."""
        bounds = self.bounds
        return Lag(
            self._days_between(working_days_at_least, self.decided.latest, bounds.not_before),
            self._days_between(working_days_between, self.decided.earliest, bounds.not_after),
        )

    @property
    def sentence(self) -> str:
        """The verdict in plain English, with its numbers; of the record's own text only codes."""
        uncertain = ""
        if not self.bounds.comparable and None not in (self.bounds.not_before, self.bounds.not_after):
            uncertain = (
                " Two quorums of this policy need not share a witness, so the two times may not be compared."
            )
        return f"{self.verdict[:1].upper()}{self.verdict[1:]}. {self._why()}{uncertain}{self._after()}"

    @property
    def inputs(self) -> Mapping[str, str]:
        """What the verdict was worked out from, as text."""
        lag, limit = self.lag, self.limit
        stated: dict[str, int | str | None] = {
            "decided_earliest": shown(self.decided.earliest),
            "decided_latest": shown(self.decided.latest),
            "captured_earliest": shown(self.captured.earliest),
            "captured_latest": shown(self.captured.latest),
            "accepted_at": shown(self.accepted_at),
            "not_before": _shown_or_none(self.bounds.not_before),
            "not_after": _shown_or_none(self.bounds.not_after),
            "bounds_comparable": "yes" if self.bounds.comparable else "no",
            "limit_working_days": limit.working_days if limit is not None else None,
            "deadline": _shown_or_none(self.deadline),
            "deadline_counted_from": None if self.is_exact else str(self.counted_in.first),
            "dated_too_widely": "yes" if self.too_wide else None,
            "lag_at_least": lag.at_least,
            "lag_at_most": lag.at_most,
            "late_reason": self.late_reason,
            "explained": self.explained.value,
            "after_return": self.after_return.kind.value if self.after_return is not None else None,
            "return": self.after_return.returned if self.after_return is not None else None,
            "calendar": self.calendar,
            "profile": self.profile,
        }
        return {name: str(value) for name, value in stated.items() if value is not None}

    def _days_between(self, count: _Count, decided: int, witnessed: int | None) -> int | None:
        if witnessed is None:
            return None
        try:
            return count(self.counted_in, london_day(decided), london_day(witnessed))
        except OutsideCalendarError:
            return None

    def _after(self) -> str:
        if self.after_return is None:
            return ""
        after = self.after_return
        if after.kind is AfterReturnKind.ADDED:
            return f" It was added after the return at entry {after.returned}, which should have counted it."
        return f" It was changed after the return at entry {after.returned}, into or out of what that counts."

    def _why(self) -> str:
        before, after = self.bounds.not_before, self.bounds.not_after
        if self.verdict is Verdict.IMPOSSIBLE:
            return (
                f"The record says that it was decided at {shown(self.decided.earliest)} at the earliest, and "
                f"the witnesses had it by {_shown_or_none(after)}."
            )
        if self.limit is None:
            return "The profile has no limit for such a decision."
        if self.too_wide:
            return self._why_too_wide(self.limit)
        if self.deadline is None:
            return (
                f"The deadline is not known: the calendar {self.counted_in.name} knows {self.counted_in.first} "
                f"to {self.counted_in.last}."
            )
        days = self.limit.working_days
        due = f"{days} working {'day' if days == 1 else 'days'} after the decision"
        if self.at_award:
            due = "the end of the award date"
        stated = f"The deadline, {due}, was {shown(self.deadline)}"
        if not self.is_exact:
            stated += (
                f" at the latest (the decision is dated before {self.counted_in.first}, on which the calendar "
                f"{self.counted_in.name} begins, and days were counted from there)"
            )
        reason = f" ({self.late_reason})" if self.late_reason is not None else ""
        match self.verdict:
            case Verdict.IN_TIME:
                return f"{stated}; the witnesses had it by {_shown_or_none(after)}."
            case Verdict.LATE:
                late = f"{stated}; at {_shown_or_none(before)} the witnesses did not have it yet"
                return f"{late}. It is {self.explained.value}{reason}."
            case Verdict.EXEMPT:
                late = f"{stated}; at {_shown_or_none(before)} the witnesses did not have it yet"
                return f"{late}. The profile exempts the reason that is given{reason}."
            case _ if before is None and after is None:
                return f"{stated}; no quorum of witnesses proves when it was registered."
            case _ if before is not None and before > self.deadline:
                return (
                    f"{stated}; the witnesses contradict each other: it was registered {_window(self.bounds)}."
                )
            case _:
                return f"{stated}; it was registered {_window(self.bounds)}."

    def _why_too_wide(self, limit: Limit) -> str:
        due = f"{limit.working_days} working {'day' if limit.working_days == 1 else 'days'}"
        return (
            f"The record dates the decision between {shown(self.decided.earliest)} and "
            f"{shown(self.decided.latest)}, which is too wide for a limit of {due}: by the first of these it "
            f"may be late, and by the last it may not. It was registered {_window(self.bounds)}."
        )


_Count = Callable[[Calendar, date, date], int]


class LatenessJudge:
    """Judges decisions under one profile and its calendar, with whatever overrides of it hold."""

    def __init__(self, profile: Profile, calendar: Calendar) -> None:
        self._rule = profile.detections.late_registration
        self._calendar = calendar
        self._profile = identity(profile)

    def judge(
        self, decision: Decision, accepted_at: float, bounds: Bounds, after_return: AfterReturn | None = None
    ) -> Lateness:
        """Judge when a decision was registered against when it is stated to have been decided.

        `accepted_at` (POSIX seconds) and `bounds` are those of the entry that registered it, version 1. A
        correction that restates `decided_at` is judged with the same two: it does not change when the decision
        was registered. `after_return` is passed on: it depends on the register, and not on the decision alone.
        """
        decided = partial(decision.decided_at)
        limit = limit_for(self._rule.limits, decision) if self._rule is not None else None
        due, first_due = _NOT_KNOWN, _NOT_KNOWN
        if self._rule is not None and limit is not None:
            award = _award(self._rule, decision)
            due = self._due(decided.latest, limit.working_days, award)
            first_due = self._due(decided.earliest, limit.working_days, award)
        too_wide = False
        if bounds.not_after is not None and decided.earliest > bounds.not_after:
            verdict = Verdict.IMPOSSIBLE
        elif limit is None:
            verdict = Verdict.NO_LIMIT
        else:
            verdict = _against(due, bounds)
            if is_interval(decision.decided_at):
                by_first = _against(first_due, bounds)
                # Whoever states two times far apart has stated nothing that shows it to be in time.
                too_wide = verdict is not Verdict.LATE and by_first is Verdict.LATE
                too_wide |= verdict is Verdict.IN_TIME and by_first is not Verdict.IN_TIME
            if too_wide:
                verdict = Verdict.UNDETERMINED
        exempt = self._rule.exempt_late_reasons if self._rule is not None else None
        if verdict is Verdict.LATE and decision.late_reason in (exempt or ()):
            verdict = Verdict.EXEMPT
        return Lateness(
            verdict,
            _explained(decision),
            decision.late_reason,
            decided,
            decision.captured_at,
            accepted_at,
            bounds,
            limit,
            due.deadline,
            due.at_award,
            self._calendar,
            self._profile,
            after_return,
            due.is_exact,
            too_wide,
        )

    def _due(self, decided: int, working_days: int, award: int | None) -> _Due:
        """Return by when a decision of `decided` (POSIX seconds) was to be witnessed, by the award if earlier.

        Where no list of holidays reaches so far back, counting begins with the calendar. What comes of that is
        no earlier than the true deadline, so what is late by it is late.
        """
        begin = begins(self._calendar)
        is_exact = decided >= begin
        try:
            deadline = deadline_after(self._calendar, max(decided, begin), working_days)
        except OutsideCalendarError:
            return _Due(award, is_exact=is_exact, at_award=award is not None)
        if award is not None and award < deadline:
            return _Due(award, is_exact=is_exact, at_award=True)
        return _Due(deadline, is_exact=is_exact, at_award=False)


@dataclass(frozen=True, slots=True)
class _Due:
    """A deadline as `Lateness` states it."""

    deadline: int | None
    is_exact: bool
    at_award: bool


_NOT_KNOWN: Final = _Due(None, is_exact=True, at_award=False)


def is_interval(stated: str) -> bool:
    """Tell whether a partial date is two: `a/b`."""
    return "/" in stated


def last_begun(stated: str, covered: Partial) -> int:
    """Return the first second of the last time that a partial date states: of `a/b` that of b (POSIX seconds).

    `covered` is what all of it covers.
    """
    return partial(stated.partition("/")[2]).earliest if is_interval(stated) else covered.earliest


def _award(rule: LateRegistration, decision: Decision) -> int | None:
    """Return the last second of the award date that a contract approval must not come after."""
    procurement = decision.procurement
    is_due = rule.contract_approval_before_award and decision.decision_type == "contract_approval"
    if not is_due or procurement is None or procurement.award_date is None:
        return None
    return partial(procurement.award_date).latest


def _against(due: _Due, bounds: Bounds) -> Verdict:
    if due.deadline is None:
        return Verdict.UNDETERMINED
    is_late = bounds.not_before is not None and bounds.not_before > due.deadline
    is_in_time = due.is_exact and bounds.not_after is not None and bounds.not_after <= due.deadline
    # Both at once: witnesses of two quorums were shown different things, or a clock is wrong.
    if is_late == is_in_time:
        return Verdict.UNDETERMINED
    return Verdict.LATE if is_late else Verdict.IN_TIME


def _explained(decision: Decision) -> Explained:
    if decision.withheld is not None and "late_explanation" in decision.withheld:
        return Explained.WITHHELD
    if decision.late_reason is not None or decision.late_explanation is not None:
        return Explained.STATED
    return Explained.NO


# Words


def shown(seconds: float) -> str:
    """Return POSIX seconds as an instant, to the second; a witness may sign a time that no calendar has."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return f"{seconds} seconds after 1970"


def _shown_or_none(seconds: float | None) -> str | None:
    return None if seconds is None else shown(seconds)


def _window(bounds: Bounds) -> str:
    before = (
        "at a time that no witness bounds" if bounds.not_before is None else f"after {shown(bounds.not_before)}"
    )
    after = "not witnessed yet" if bounds.not_after is None else f"by {shown(bounds.not_after)}"
    return (
        f"{before}, {after}"
        if bounds.not_before is None or bounds.not_after is None
        else f"{before} and {after}"
    )

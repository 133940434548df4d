"""DET-01 to DET-04: records that came late, were captured late, came out of order, or before their own date."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.values import partial
from services.auditing.detections.rules import DAY, Case, Terms, many
from services.auditing.found import Found, Severity
from services.auditing.lateness import Explained, Lateness, LatenessJudge, Verdict, shown
from services.auditing.profiles import limit_for
from services.auditing.working_days import OutsideCalendarError, london_day, working_days_between


def late_registration(terms: Terms, judge: LatenessJudge, case: Case) -> tuple[Lateness, Found | None]:
    """DET-01: provably witnessed only after the deadline. Exempt ones are listed for information."""
    verdict = judge.judge(case.record, case.accepted_at, case.bounds)
    if verdict.verdict is Verdict.EXEMPT:
        severity = Severity.INFO
    elif verdict.verdict is Verdict.LATE:
        severity = Severity.HIGH if verdict.explained is Explained.NO else Severity.MEDIUM
    else:
        return verdict, None
    lag = verdict.lag.at_least
    counted = "" if lag is None else f" That is at least {many(lag, 'working day')} after the decision."
    found = terms.found(
        "DET-01", severity, case.register, (case.index,), verdict.inputs, verdict.sentence + counted
    )
    return verdict, found


def late_capture(terms: Terms, case: Case) -> Found | None:
    """DET-02: captured more working days after the decision than the channel allows, at both dates' best."""
    rule = terms.profile.detections.late_capture
    if rule is None:
        return None
    limit = limit_for(rule.limits, case.record)
    captured = partial(case.record.captured_at)
    if limit is None or captured.earliest <= case.decided.latest + limit.working_days * DAY:
        return None
    try:
        days = working_days_between(
            terms.calendar, london_day(case.decided.latest), london_day(captured.earliest)
        )
    except OutsideCalendarError:
        return None
    if days <= limit.working_days:
        return None
    inputs = {
        "decided_latest": shown(case.decided.latest),
        "captured_earliest": shown(captured.earliest),
        "working_days": days,
        "limit_working_days": limit.working_days,
        "channel": case.record.channel,
    }
    return terms.found(
        "DET-02",
        Severity.LOW if case.record.late_reason is not None else Severity.MEDIUM,
        case.register,
        (case.index,),
        inputs,
        f"By the record's own dates it was captured at least {many(days, 'working day')} after the "
        "decision, over "
        f"{case.record.channel}; the profile has {limit.working_days}.",
    )


@dataclass(frozen=True, slots=True)
class Inversion:
    """An entry that was registered before, of the same series or matter, and is dated later than this one.

    `ahead` is its index, `dated` the earliest second of its `decided_at`; `among` is ``series`` or ``matter``;
    `count` how many such entries there are at least.
    """

    among: str
    ahead: int
    dated: int
    count: int


def back_dated(terms: Terms, case: Case, inversion: Inversion | None) -> Found | None:
    """DET-03: registered long after the date it states, behind later-dated entries of its series or matter."""
    rule = terms.profile.detections.back_dated
    before = case.bounds.not_before
    if rule is None or inversion is None or before is None or inversion.count < rule.inversions:
        return None
    try:
        days = working_days_between(terms.calendar, london_day(case.decided.latest), london_day(before))
    except OutsideCalendarError:
        return None
    if days <= rule.working_days:
        return None
    migrated = case.record.late_reason == "migration_of_legacy"
    inputs = {
        "decided_latest": shown(case.decided.latest),
        "not_before": shown(before),
        "working_days": days,
        "limit_working_days": rule.working_days,
        "inversions_at_least": inversion.count,
        "among": inversion.among,
        "later_dated_entry": inversion.ahead,
        "later_dated": shown(inversion.dated),
        "late_reason": case.record.late_reason,
    }
    return terms.found(
        "DET-03",
        Severity.INFO if migrated else Severity.HIGH,
        case.register,
        (case.index, inversion.ahead),
        inputs,
        f"The record is dated {shown(case.decided.latest)} at the latest, and the witnesses did not have it at "
        f"{shown(before)}, {many(days, 'working day')} later. By then entry {inversion.ahead} of the same "
        f"{inversion.among}, dated {shown(inversion.dated)} or later, was registered already"
        + (". The department marks it as migrated from an older system." if migrated else "."),
    )


def future_dated(terms: Terms, case: Case) -> Found | None:
    """DET-04: the earliest moment it states is later than when the witnesses had it."""
    rule = terms.profile.detections.future_dated
    after = case.bounds.not_after
    if rule is None or after is None or case.decided.earliest <= after + rule.seconds:
        return None
    ahead = case.decided.earliest - after
    inputs = {
        "decided_earliest": shown(case.decided.earliest),
        "not_after": shown(after),
        "seconds_ahead": ahead,
        "tolerance_seconds": rule.seconds,
    }
    return terms.found(
        "DET-04",
        Severity.HIGH,
        case.register,
        (case.index,),
        inputs,
        f"The record says that it was decided at {shown(case.decided.earliest)} at the earliest; the "
        "witnesses had "
        f"the entry by {shown(after)}, {ahead:,} seconds before.",
    )

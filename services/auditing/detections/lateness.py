"""DET-01 to DET-04: records that came late, were captured late, came out of order, or before their own date."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.values import partial
from services.auditing.detections.rules import DAY, Case, Terms, many
from services.auditing.found import Found, Severity
from services.auditing.lateness import (
    Explained,
    Lateness,
    LatenessJudge,
    Verdict,
    is_interval,
    last_begun,
    shown,
)
from services.auditing.profiles import limit_for
from services.auditing.working_days import OutsideCalendarError, begins, london_day, working_days_at_least


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
        days = working_days_at_least(
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
        "counted_from": _counted_from(terms, case),
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
    """An entry of the same series or matter that is dated later than this one, and was witnessed before it.

    `ahead` is its index, `dated` the earliest second of its `decided_at`, and `not_after` by when witnesses had
    it, no later than this one's not-before; `among` is ``series`` or ``matter``; `count` how many such entries
    there are at least.
    """

    among: str
    ahead: int
    dated: int
    not_after: int
    count: int


def back_dated(terms: Terms, case: Case, inversion: Inversion | None) -> Found | None:
    """DET-03: registered long after the date it states, behind later-dated entries of its series or matter."""
    rule = terms.profile.detections.back_dated
    before = case.bounds.not_before
    if rule is None or inversion is None or before is None or inversion.count < rule.inversions:
        return None
    try:
        days = working_days_at_least(terms.calendar, london_day(case.decided.latest), london_day(before))
    except OutsideCalendarError:
        return None
    if days <= rule.working_days:
        return None
    migrated = case.record.late_reason == "migration_of_legacy"
    counted = _counted_from(terms, case)
    inputs = {
        "decided_latest": shown(case.decided.latest),
        "not_before": shown(before),
        "working_days": days,
        "counted_from": counted,
        "limit_working_days": rule.working_days,
        "inversions_at_least": inversion.count,
        "among": inversion.among,
        "later_dated_entry": inversion.ahead,
        "later_dated": shown(inversion.dated),
        "later_dated_not_after": shown(inversion.not_after),
        "bounds_comparable": "yes" if case.bounds.comparable else "no",
        "late_reason": case.record.late_reason,
    }
    least, said = "" if counted is None else "at least ", ""
    if not case.bounds.comparable:
        said = ". Two quorums of this policy need not share a witness, so these times may not be compared"
    if migrated:
        said += ". The department marks it as migrated from an older system"
    return terms.found(
        "DET-03",
        Severity.INFO if migrated else Severity.HIGH,
        case.register,
        (case.index, inversion.ahead),
        inputs,
        f"The record is dated {shown(case.decided.latest)} at the latest, and the witnesses did not have it at "
        f"{shown(before)}, {least}{many(days, 'working day')} later. By {shown(inversion.not_after)} "
        f"they had entry {inversion.ahead} of the same {inversion.among}, dated {shown(inversion.dated)} or "
        f"later{said}.",
    )


def _counted_from(terms: Terms, case: Case) -> str | None:
    """Return from where working days are counted where the decision is dated before the calendar begins."""
    return str(terms.calendar.first) if case.decided.latest < begins(terms.calendar) else None


def future_dated(terms: Terms, case: Case) -> Found | None:
    """DET-04: a moment that it states is later than when the witnesses had it, even at its earliest.

    Of two that it lies between, the last: no decision is still to be made when it is registered. A correction
    restates a decision: what registered that cannot be before its date either.
    """
    rule = terms.profile.detections.future_dated
    after, stated = case.bounds.not_after, case.record.decided_at
    begun = last_begun(stated, case.decided)
    if rule is None or after is None or begun <= after + rule.seconds:
        return None
    only_its_end = is_interval(stated) and case.decided.earliest <= after + rule.seconds
    inputs = {
        "decided_earliest": shown(case.decided.earliest),
        "interval_ends_earliest": shown(begun) if is_interval(stated) else None,
        "not_after": shown(after),
        "seconds_ahead": begun - after if only_its_end else case.decided.earliest - after,
        "tolerance_seconds": rule.seconds,
        "registered_by_entry": case.registered_index,
    }
    said = f"at {shown(case.decided.earliest)} at the earliest"
    if only_its_end:
        said = (
            f"between {shown(case.decided.earliest)} and a time that begins at {shown(begun)} at the earliest"
        )
    entry = "the entry"
    if case.index != case.registered_index:
        entry = f"entry {case.registered_index}, which registered the decision that it corrects,"
    return terms.found(
        "DET-04",
        Severity.MEDIUM if only_its_end else Severity.HIGH,
        case.register,
        (case.index,),
        inputs,
        f"The record says that it was decided {said}; the witnesses had {entry} by {shown(after)}, "
        f"{inputs['seconds_ahead']:,} seconds before.",
    )

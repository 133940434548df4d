"""A ledger publishes the rules by which it is judged; an auditor is told, and his own rules stay his own.

Visit 1 has a decision that was registered late (DET-01). Then the ledger publishes terms in which it is not.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ledger.governing import GOVERNING
from services.auditing.audit_round import audit
from services.auditing.audit_state import open_audit_state
from services.auditing.calendars import packaged, parse_overrides
from services.auditing.declared import members, read_object
from services.auditing.found import Severity
from services.auditing.profile_types import Profile
from services.auditing.profiles import parse_profile, shipped
from services.auditing.results import AuditResult
from services.auditing.terms_in_force import NONE_CHOSEN, ChosenDays
from services.auditing.visit import Asked
from services.auditing.windows import shown_time
from services.monitoring.fetching import Site
from services.monitoring.rounds import Limits
from tests.support.audited import codes, found
from tests.support.ledgers import DEPARTMENT_KEY, EPOCH, POLICY, REGISTER, decision, submission
from tests.support.monitored import BEGAN, WITNESSED, Monitored, monitored

DAY = 86_400
START = EPOCH - BEGAN
STRICT = shipped("daybook-strict")
LONG_AGO = "1900-01-01T00:00Z"
LATER = "2026-07-01T00:00Z"
"""A time after all that the ledger is given here was published."""


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Monitored]:
    """A ledger whose one decision, of 1 May, came in on 28 May."""
    with monitored(tmp_path, WITNESSED) as it:
        begin(it)
        yield it


def begin(it: Monitored) -> None:
    it.limits = Limits(anchor_within=400 * DAY, patience=0)
    it.publish(at=START)
    it.anchor()
    it.publish(at=START + 5)
    it.held.turn([submission(REGISTER, [decision(0, decision_type="policy")], [DEPARTMENT_KEY])])
    it.publish(at=START + 10)


async def look(
    it: Monitored, at: int, profile: Profile | None = None, days: ChosenDays = NONE_CHOSEN
) -> AuditResult:
    """Make a visit `at` seconds after `START`; in the terms that are in force, where no profile is given."""
    asked = Asked(limits=it.limits, profile=profile, days=days)
    async with Site(it.site.url, timeout=10) as site:
        with it.opened() as monitored_state, open_audit_state(monitored_state, it.policy) as state:
            return await audit(site, state, it.policy, asked, clock=lambda: BEGAN + START + at)


def lax(**also: Any) -> dict[str, Any]:
    """Return a profile that asks for next to nothing, as a JSON value."""
    return members(STRICT) | {"detections": {"return_missing": {"working_days": 10_000}}} | also


def publish(it: Monitored, value: Mapping[str, Any], effective_from: str, at: int) -> int:
    """Publish a profile or overrides, sealed `at` seconds after `START`; return the index of the entry."""
    kind = "profile" if value["type"] == "daybook.profile/1" else "calendar"
    members_of_it = {kind: dict(value), "kind": kind, "name": value["name"], "effective_from": effective_from}
    index = it.held.govern("policy.published/1", **members_of_it)
    it.publish(at=START + at)
    return index


def holidays() -> dict[str, Any]:
    """Return overrides that make every working day of May 2026 a holiday."""
    first, last = date(2026, 5, 1).toordinal(), date(2026, 5, 31).toordinal()
    days = [date.fromordinal(day) for day in packaged("dept-ew").days if first <= day <= last]
    return {
        "type": "daybook.calendar/1",
        "name": "may",
        "basis": "Made up",
        "calendar": "dept-ew",
        "dated": "2026-05-01",
        "non_working": [{"date": str(day), "reason": "Made up"} for day in days],
    }


def declared(path: str) -> dict[str, Any]:
    return read_object(Path(path).read_bytes())


async def test_terms_that_make_a_finding_vanish_are_told_with_what_is_gone(it: Monitored) -> None:
    """False if a ledger could publish a profile in which what was found is not, and nobody were told."""
    before = await look(it, 20)
    assert "DET-01" in codes(before)
    assert before.changed_terms == ""
    index = publish(it, lax(name="ours"), LONG_AGO, 30)
    after = await look(it, 40)
    assert "DET-01" not in codes(after)
    said = after.changed_terms
    assert f"by profile {before.profile.partition(',')[0]} then, by {after.profile} now" in said
    assert f"published by governing entry {index}" in said
    assert "1 is not listed now" in said
    assert said.endswith("--profile daybook-strict")
    assert said in after.cannot_claim
    assert any("other" in each and "last visit" in each for each in after.remarks)
    again = await look(it, 50, profile=STRICT)
    assert "DET-01" in codes(again)
    assert "0 are not listed now" in again.changed_terms
    assert (await look(it, 60, profile=STRICT)).changed_terms == ""


async def test_days_that_make_a_finding_vanish_are_told_with_what_is_gone(it: Monitored) -> None:
    """False if a ledger could publish holidays in which nothing is late, and nobody were told."""
    assert "DET-01" in codes(await look(it, 20))
    index = publish(it, holidays(), LONG_AGO, 30)
    after = await look(it, 40)
    assert "DET-01" not in codes(after)
    assert f"which governing entries {index} override now" in after.changed_terms
    assert "1 is not listed now" in after.changed_terms


async def test_published_days_do_not_hold_with_the_auditors_own_profile(it: Monitored) -> None:
    """False if a ledger could have a say in the terms that the auditor has chosen."""
    index = publish(it, holidays(), LONG_AGO, 30)
    own = await look(it, 40, profile=STRICT)
    assert "DET-01" in codes(own)
    assert own.calendar == packaged("dept-ew").version
    assert any(f"in governing entries {index}." in each for each in own.remarks)
    agreed = await look(it, 50, profile=STRICT, days=ChosenDays(published=True))
    assert "DET-01" not in codes(agreed)
    assert "overrides may of 2026-05-01" in agreed.calendar


async def test_the_auditors_own_days_hold_and_those_of_the_ledger_do_not(it: Monitored) -> None:
    """False if an auditor could not say himself which days are none, or got the ledger's with them."""
    own = parse_overrides(holidays() | {"name": "own"})
    publish(it, holidays(), LONG_AGO, 30)
    result = await look(it, 40, days=ChosenDays((own,)))
    assert "overrides own of" in result.calendar
    assert "overrides may of" not in result.calendar
    assert "DET-01" not in codes(result)
    other = replace_calendar(own.calendar)
    told = await look(it, 50, profile=STRICT, days=ChosenDays((parse_overrides(holidays() | other),)))
    assert told.calendar == packaged("dept-ew").version
    assert any("they change nothing" in each for each in told.remarks)


def replace_calendar(name: str) -> dict[str, str]:
    return {"calendar": "foi-uk" if name == "dept-ew" else "dept-ew"}


async def test_the_terms_of_then_are_kept_and_can_be_used_again(it: Monitored) -> None:
    """False if a profile that only the ledger had could not be had again once it publishes another."""
    publish(it, members(STRICT) | {"name": "theirs"}, LONG_AGO, 12)
    publish(it, holidays(), LONG_AGO, 14)
    before = await look(it, 20)
    assert "theirs/1" in before.profile
    publish(it, lax(name="zz-others"), LONG_AGO, 30)
    after = await look(it, 40)
    options = shlex.split(after.changed_terms.partition("in the terms of then: ")[2])
    assert options[0::2] == ["--profile", "--overrides"]
    profile = parse_profile(declared(options[1]))
    days = parse_overrides(declared(options[3]))
    again = await look(it, 50, profile=profile, days=ChosenDays((days,)))
    assert (again.profile.partition(",")[0], again.calendar) == (
        before.profile.partition(",")[0],
        before.calendar,
    )


# What is odd about what was published


async def test_terms_that_hold_from_before_anybody_knew_of_them_are_a_finding(it: Monitored) -> None:
    """False if rules that were made afterwards, for what was there already, passed for the rules of then.

    At a first visit nothing says so but the ledger's own word for when it was published.
    """
    index = publish(it, lax(name="ours"), LONG_AGO, 30)
    result = await look(it, 40)
    back_dated = found(result, "terms-back-dated")
    assert back_dated.spans == ((index, index),)
    assert (back_dated.severity, back_dated.is_failure) == (Severity.MEDIUM, False)
    assert back_dated.inputs["came_in_not_before"] == shown_time(EPOCH + it.held.turns - 1)
    assert back_dated.is_proof
    assert not result.failed


async def test_terms_that_hold_from_when_they_were_known_are_none(it: Monitored) -> None:
    """False if whoever publishes a profile as it should be done were suspected."""
    publish(it, lax(name="ours"), LATER, 30)
    publish(it, holidays(), LATER, 31)
    it.refresh(REGISTER, START + 60 * DAY)
    result = await look(it, 60 * DAY + 10)
    assert "ours/1" in result.profile
    assert not codes(result) & {"terms-back-dated", "terms-misnamed"}


async def test_witnesses_show_that_terms_came_later_than_the_ledger_says(it: Monitored) -> None:
    """False if a ledger that lies about when it published a profile were believed against its witnesses."""
    it.refresh(GOVERNING, START + 30 * DAY)
    await look(it, 30 * DAY - 200)  # his own clock is behind theirs
    publish(it, lax(name="ours"), "2026-05-29T00:00Z", 40 * DAY)
    result = await look(it, 40 * DAY + 10)
    assert found(result, "terms-back-dated").inputs["came_in_not_before"] == shown_time(EPOCH + 30 * DAY)


async def test_an_auditors_own_visit_shows_that_terms_came_later(tmp_path: Path) -> None:
    """False if without witnesses a ledger could make rules for what the auditor has seen already."""
    with monitored(tmp_path, POLICY) as it:
        begin_unwitnessed(it)
        await look(it, 20 * DAY)
        publish(it, lax(name="ours"), "2026-05-29T00:00Z", 0)
        result = await look(it, 21 * DAY)
        assert found(result, "terms-back-dated").inputs["came_in_not_before"] == shown_time(EPOCH + 20 * DAY)


def begin_unwitnessed(it: Monitored) -> None:
    it.held.turn([submission(REGISTER, [decision(0, decision_type="policy")], [DEPARTMENT_KEY])])
    it.publish()


@pytest.mark.parametrize(("also", "is_found"), [({}, True), ({"version": 2}, False), ({"name": "ours"}, False)])
async def test_a_profile_that_bears_the_name_of_a_shipped_one_and_is_another_is_a_finding(
    it: Monitored, also: dict[str, Any], is_found: bool
) -> None:
    """False if `daybook-strict/1` could be whatever the ledger likes."""
    publish(it, lax(**also), LONG_AGO, 30)
    assert ("terms-misnamed" in codes(await look(it, 40))) is is_found


async def test_a_shipped_profile_that_is_published_is_no_finding(it: Monitored) -> None:
    """False if whoever publishes what comes with Daybook were suspected."""
    publish(it, members(STRICT), LONG_AGO, 30)
    assert "terms-misnamed" not in codes(await look(it, 40))


async def test_a_profile_with_a_grace_without_end_is_none(it: Monitored) -> None:
    """False if a ledger could publish a grace in which no view is ever stale."""
    publish(it, lax(name="ours", revocation_grace_seconds=2**53 - 1), LONG_AGO, 30)
    result = await look(it, 40)
    assert "the default" in result.profile
    assert any("revocation_grace_seconds" in each and "3600" in each for each in result.remarks)
    assert parse_profile(lax(revocation_grace_seconds=3_600)).revocation_grace_seconds == 3_600

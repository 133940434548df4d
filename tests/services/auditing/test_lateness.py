"""Lateness: verdicts rest on witnessed times, and say no more than those prove."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.records import Decision, parse_record
from ledger.timeline import Bounds
from services.auditing.calendars import packaged
from services.auditing.declared import members
from services.auditing.lateness import (
    Explained,
    Lag,
    Lateness,
    LatenessJudge,
    Verdict,
)
from services.auditing.profiles import identity, parse_profile, shipped
from tests.support.records import RECORD_ID, decision_bytes
from tests.support.times import seconds

STRICT = shipped("daybook-strict")
CALENDAR = packaged("dept-ew")
JUDGE = LatenessJudge(STRICT, CALENDAR)

DECIDED = "2026-06-25"
DEADLINE = seconds("2026-07-02T22:59:59Z")
"""The end of the fifth working day after a Thursday in June: in London, where it is summer."""

EARLY = seconds("2026-06-26T10:00:00Z")
LATE = seconds("2026-07-10T10:00:00Z")


def bounds(before: int | None, after: int | None, *, comparable: bool = True) -> Bounds:
    return Bounds(before, after, comparable)


def judged(of: Bounds, accepted_at: float = EARLY, judge: LatenessJudge = JUDGE, **changes: Any) -> Lateness:
    record = parse_record(
        decision_bytes(**{"decided_at": DECIDED, "captured_at": "2026-06-25T15:00Z", **changes})
    )
    assert isinstance(record, Decision)
    return judge.judge(record, accepted_at, of)


def test_witnessed_by_the_deadline_is_in_time() -> None:
    """False if the last second of the last working day were late, or the next one in time."""
    found = judged(bounds(EARLY, DEADLINE))
    assert (found.verdict, found.deadline) == (Verdict.IN_TIME, DEADLINE)
    assert judged(bounds(EARLY, DEADLINE + 1)).verdict is Verdict.UNDETERMINED
    assert judged(bounds(None, DEADLINE)).verdict is Verdict.IN_TIME


def test_not_yet_witnessed_after_the_deadline_is_late() -> None:
    """False if at the deadline itself it were late already, or a second after it not yet."""
    assert judged(bounds(DEADLINE + 1, LATE)).verdict is Verdict.LATE
    assert judged(bounds(DEADLINE + 1, None)).verdict is Verdict.LATE
    assert judged(bounds(DEADLINE, LATE)).verdict is Verdict.UNDETERMINED


@given(
    before=st.none() | st.integers(EARLY, LATE),
    after=st.none() | st.integers(EARLY, LATE),
    accepted=st.floats(0, 4e9),
)
def test_the_verdict_never_rests_on_what_the_ledger_claims(
    before: int | None, after: int | None, accepted: float
) -> None:
    """False if a lie in accepted_at changed a verdict, or a bound that is missing decided one."""
    found = judged(bounds(before, after), accepted)
    assert found.verdict is judged(bounds(before, after)).verdict
    is_late, is_in_time = before is not None and before > DEADLINE, after is not None and after <= DEADLINE
    expected = Verdict.LATE if is_late else Verdict.IN_TIME
    assert found.verdict is (expected if is_late != is_in_time else Verdict.UNDETERMINED)


def test_without_witnesses_nothing_is_proved() -> None:
    """False if a policy of quorum none gave a verdict."""
    found = judged(bounds(None, None, comparable=False), LATE)
    assert found.verdict is Verdict.UNDETERMINED
    assert found.lag == Lag(None, None)
    assert "no quorum of witnesses proves when it was registered" in found.sentence


def test_undetermined_states_the_window() -> None:
    """False if a reader could not see between which moments it was."""
    sentence = judged(bounds(EARLY, LATE)).sentence
    assert "after 2026-06-26T10:00:00Z and by 2026-07-10T10:00:00Z" in sentence
    assert "not witnessed yet" in judged(bounds(EARLY, None)).sentence


def test_witnesses_that_contradict_each_other_prove_neither() -> None:
    """False if one quorum's word were taken against another's."""
    found = judged(bounds(LATE, EARLY, comparable=False))
    assert found.verdict is Verdict.UNDETERMINED
    assert "contradict" in found.sentence
    assert "may not be compared" in found.sentence


def test_bounds_that_may_not_be_compared_say_so() -> None:
    """False if two witnesses without a common quorum passed for one clock."""
    assert "may not be compared" in judged(bounds(DEADLINE + 1, LATE, comparable=False)).sentence
    assert "may not be compared" not in judged(bounds(DEADLINE + 1, LATE)).sentence
    assert "may not be compared" not in judged(bounds(DEADLINE + 1, None, comparable=False)).sentence


def test_decided_after_it_was_witnessed_is_impossible() -> None:
    """False if a date in the future passed, or a coarse one that may be right did not."""
    found = judged(bounds(None, EARLY), decided_at="2026-06-26T10:00:01Z")
    assert found.verdict is Verdict.IMPOSSIBLE
    assert "2026-06-26T10:00:01Z" in found.sentence
    assert judged(bounds(None, EARLY), decided_at="2026-06-26T10:00:00Z").verdict is Verdict.IN_TIME
    assert judged(bounds(None, EARLY), decided_at="2026").verdict is Verdict.IN_TIME
    lenient = LatenessJudge(shipped("nccc-2023"), CALENDAR)
    assert judged(bounds(None, EARLY), judge=lenient, decided_at="2026-07").verdict is Verdict.IMPOSSIBLE


def test_a_coarse_date_is_given_its_latest_moment() -> None:
    """False if somebody who only knows the month were late from its first day on."""
    assert judged(bounds(EARLY, LATE), decided_at="2026-06").deadline == seconds("2026-07-07T22:59:59Z")
    assert judged(bounds(EARLY, LATE), decided_at="2026-06-25T23:30Z").deadline == seconds(
        "2026-07-03T22:59:59Z"
    )


def test_easter_and_winter_move_the_deadline() -> None:
    """False if bank holidays counted, or London's clock were another one."""
    found = judged(bounds(None, None), decided_at="2022-04-13")
    assert found.deadline == seconds("2022-04-22T22:59:59Z")
    assert judged(bounds(None, None), decided_at="2025-12-23").deadline == seconds("2026-01-02T23:59:59Z")


def test_the_limit_is_that_of_the_channel() -> None:
    """False if a private channel had as long as a corporate one."""
    assert judged(bounds(None, None), channel="whatsapp").deadline == seconds("2026-06-29T22:59:59Z")
    direction = judged(bounds(None, None), decision_type="ministerial_direction")
    assert direction.deadline == seconds("2026-06-26T22:59:59Z")
    assert direction.limit is not None
    assert direction.limit.working_days == 1


def test_a_contract_is_approved_by_the_award() -> None:
    """False if an approval could be registered long after the contract, within its five days."""
    approved: dict[str, Any] = {
        "decision_type": "contract_approval",
        "procurement": {"award_date": "2026-06-26"},
    }
    found = judged(bounds(LATE, None), **approved)
    assert (found.deadline, found.verdict) == (seconds("2026-06-26T22:59:59Z"), Verdict.LATE)
    assert "the end of the award date" in found.sentence
    later = judged(bounds(LATE, None), **{**approved, "procurement": {"award_date": "2026-09"}})
    assert (later.deadline, later.at_award) == (DEADLINE, False)
    assert judged(bounds(None, None), **{**approved, "decision_type": "policy"}).deadline == DEADLINE
    assert judged(bounds(None, None), decision_type="contract_approval").deadline == DEADLINE


@pytest.mark.parametrize(
    ("changes", "explained"),
    [
        ({}, Explained.NO),
        ({"late_reason": "oversight"}, Explained.STATED),
        ({"late_explanation": "The minister was away."}, Explained.STATED),
        ({"withheld": {"late_explanation": "0" * 64}}, Explained.WITHHELD),
        ({"late_reason": "other", "withheld": {"late_explanation": "0" * 64}}, Explained.WITHHELD),
        ({"withheld": {"rationale": "0" * 64}}, Explained.NO),
    ],
)
def test_late_is_told_with_or_without_an_explanation(changes: dict[str, Any], explained: Explained) -> None:
    """False if an explanation that is withheld passed for none, or something else for one."""
    found = judged(bounds(LATE, None), **changes)
    assert (found.verdict, found.explained) == (Verdict.LATE, explained)
    assert found.sentence.endswith(f"It is {explained.value}{_code(changes)}.")


def _code(changes: dict[str, Any]) -> str:
    return f" ({changes['late_reason']})" if "late_reason" in changes else ""


def test_legacy_material_is_exempt_and_listed() -> None:
    """False if a migration of old files were held late, or were not to be seen as late at all."""
    found = judged(bounds(LATE, None), late_reason="migration_of_legacy")
    assert found.verdict is Verdict.EXEMPT
    assert found.lag == Lag(11, None)
    assert judged(bounds(EARLY, DEADLINE), late_reason="migration_of_legacy").verdict is Verdict.IN_TIME
    assert judged(bounds(EARLY, LATE), late_reason="migration_of_legacy").verdict is Verdict.UNDETERMINED


@pytest.mark.parametrize("name", ["cabinet-office-2013", "nccc-2023"])
def test_a_profile_without_a_limit_calls_nothing_late(name: str) -> None:
    """False if Daybook's own days were held against somebody under guidance that has none."""
    found = judged(bounds(LATE, None), judge=LatenessJudge(shipped(name), CALENDAR))
    assert (found.verdict, found.deadline, found.limit) == (Verdict.NO_LIMIT, None, None)
    assert found.profile == identity(shipped(name))


def test_a_channel_without_a_limit_is_told_apart() -> None:
    """False if a profile that names some channels judged the others too."""
    stated = members(STRICT)
    stated["detections"]["late_registration"] = {"limits": [{"channels": ["whatsapp"], "working_days": 2}]}
    judge = LatenessJudge(parse_profile(stated), CALENDAR)
    assert judged(bounds(LATE, None), judge=judge).verdict is Verdict.NO_LIMIT
    assert judged(bounds(LATE, None), judge=judge, channel="whatsapp").verdict is Verdict.LATE


@pytest.mark.parametrize("decided", ["2028-12-29", "9999"])
def test_outside_the_calendar_nothing_is_guessed(decided: str) -> None:
    """False if a deadline were made up where no list of holidays reaches."""
    found = judged(bounds(LATE, None), decided_at=decided)
    assert found.deadline is None
    assert found.verdict is Verdict.UNDETERMINED
    assert "2012-01-01 to 2028-12-31" in found.sentence


FIRST_DEADLINE = seconds("2012-01-09T23:59:59Z")
"""End of the fifth working day after 1 January 2012, on which the calendar begins (2 January was none)."""


@pytest.mark.parametrize("decided", ["2011-12-30", "2010-05-01", "1900", "2011-06-01/2011-12-31"])
def test_what_is_dated_before_the_calendar_is_late_by_the_calendars_first_days(decided: str) -> None:
    """False if an early enough date were never late, or were in time by a deadline that may be too long."""
    found = judged(bounds(FIRST_DEADLINE + 1, None), decided_at=decided)
    assert (found.verdict, found.deadline) == (Verdict.LATE, FIRST_DEADLINE)
    assert found.inputs["deadline_counted_from"] == "2012-01-01"
    assert "2012-01-09T23:59:59Z at the latest (the decision is dated before 2012-01-01" in found.sentence
    assert judged(bounds(None, FIRST_DEADLINE), decided_at=decided).verdict is Verdict.UNDETERMINED
    late = judged(bounds(LATE, LATE + 1), decided_at=decided)
    assert (late.verdict, late.lag.at_most) == (Verdict.LATE, None)
    assert late.lag.at_least == judged(bounds(LATE, None), decided_at="2012-01-01").lag.at_least


def test_an_early_contract_is_late_by_its_award_and_in_time_by_nothing() -> None:
    """False if an award date made a deadline exact that is not known."""
    contract: dict[str, Any] = {
        "decision_type": "contract_approval",
        "decided_at": "2010-05-01",
        "procurement": {"award_date": "2010-05-04"},
    }
    at = seconds("2010-05-04T22:59:59Z")
    assert judged(bounds(at + 1, None), **contract).verdict is Verdict.LATE
    assert judged(bounds(None, at), **contract).verdict is Verdict.UNDETERMINED


@pytest.mark.parametrize("decided", ["2026-01-05/2026-12-31", "2026-01-05/9999-12-31"])
def test_two_times_too_far_apart_for_the_limit_show_nothing_to_be_in_time(decided: str) -> None:
    """False if a decision were provably in time since its record names a far day beside the true one."""
    found = judged(bounds(EARLY, LATE), decided_at=decided)
    assert (found.verdict, found.too_wide) == (Verdict.UNDETERMINED, True)
    assert "too wide for a limit of 5 working days" in found.sentence
    assert "after 2026-06-26T10:00:00Z and by 2026-07-10T10:00:00Z" in found.sentence
    assert found.inputs["dated_too_widely"] == "yes"


def test_two_times_near_each_other_are_as_good_as_one() -> None:
    """False if whoever knows the hour no better were never in time, or never late."""
    near: dict[str, Any] = {"decided_at": "2026-06-24/2026-06-25"}
    assert judged(bounds(None, seconds("2026-07-01T22:59:59Z")), **near).verdict is Verdict.IN_TIME
    assert judged(bounds(DEADLINE + 1, None), **near).verdict is Verdict.LATE
    between = judged(bounds(None, DEADLINE), **near)
    assert (between.verdict, between.too_wide) == (Verdict.UNDETERMINED, True)
    open_still = judged(bounds(seconds("2026-07-01T10:00:00Z"), LATE), **near)
    assert (open_still.verdict, open_still.too_wide) == (Verdict.UNDETERMINED, False)


def test_the_lag_is_counted_in_working_days_between_the_bounds() -> None:
    """False if the lag were the shortest or the longest one only."""
    found = judged(bounds(seconds("2026-06-29T09:00:00Z"), seconds("2026-07-02T09:00:00Z")))
    assert found.lag == Lag(2, 5)
    coarse = judged(bounds(seconds("2026-07-02T09:00:00Z"), LATE), decided_at="2026-06")
    assert coarse.lag == Lag(2, 29)


def test_every_number_behind_a_verdict_is_stated_with_its_versions() -> None:
    """False if somebody could not work the verdict out again."""
    found = judged(bounds(EARLY, LATE), late_reason="oversight")
    assert found.inputs == {
        "decided_earliest": "2026-06-24T23:00:00Z",
        "decided_latest": "2026-06-25T22:59:59Z",
        "captured_earliest": "2026-06-25T15:00:00Z",
        "captured_latest": "2026-06-25T15:00:59Z",
        "accepted_at": "2026-06-26T10:00:00Z",
        "not_before": "2026-06-26T10:00:00Z",
        "not_after": "2026-07-10T10:00:00Z",
        "bounds_comparable": "yes",
        "limit_working_days": "5",
        "deadline": "2026-07-02T22:59:59Z",
        "lag_at_least": "1",
        "lag_at_most": "11",
        "late_reason": "oversight",
        "explained": "explained",
        "calendar": CALENDAR.version,
        "profile": identity(STRICT),
    }


def test_no_text_of_a_record_is_in_a_sentence() -> None:
    """False if a record could put words into a verdict."""
    hostile = "IGNORE THIS"
    for of in (bounds(LATE, None), bounds(EARLY, DEADLINE), bounds(None, None), bounds(None, 0)):
        found = judged(of, title=hostile, late_explanation=hostile, matter_id=hostile)
        assert hostile not in found.sentence
        assert hostile not in str(found.inputs)
        assert RECORD_ID not in found.sentence


def test_a_time_that_no_calendar_has_is_shown_all_the_same() -> None:
    """False if a witness that signs an absurd time ended the program."""
    found = judged(bounds(2**62, None))
    assert found.verdict is Verdict.LATE
    assert f"{2**62} seconds after 1970" in found.sentence
    assert found.lag == Lag(None, None)
    assert found.inputs["not_before"] == f"{2**62} seconds after 1970"

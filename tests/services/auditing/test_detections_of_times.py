"""What rests on the witnesses' times: amendments, order, bursts, off hours and silence, each at its edge."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import canonical
from ledger.timeline import Bounds
from ledger.values import partial
from services.auditing.detections.rules import DAY
from services.auditing.facts import Fact
from services.auditing.found import Found, Severity
from services.auditing.lateness import shown
from services.auditing.remembered.latest_dated import Dated, LatestDated
from tests.support.facts import SEEN, Record, facts_of, found_in, numbered
from tests.support.records import changed, correction, decision, following, period_return, record_id


def seconds(text: str) -> int:
    return partial(text).earliest


def only(found: list[Found], *detections: str) -> list[Found]:
    return [each for each in found if each.detection in detections]


def incomparable(fact: Fact) -> Fact:
    bounds = fact.bounds
    return replace(fact, bounds=Bounds(bounds.not_before, bounds.not_after, comparable=False))


# Amendments

FIRST = decision(decided_at="2026-05-01", captured_at="2026-05-01")
SEEN_FIRST = seconds("2026-05-01T12:00Z")


def after_first(seen: str, how: str, **members: str) -> list[Found]:
    """Return what is found of a second version, seen then."""
    second = correction(canonical.format(FIRST), correction=how, **members)
    return only(found_in(facts_of([FIRST, second], [SEEN_FIRST, seconds(seen)])), "DET-01", "DET-03", "DET-04")


def test_an_amendment_that_was_decided_after_the_first_version_is_in_time_by_its_own_entry() -> None:
    """False if a new decision were called impossible since there had been one before."""
    assert after_first("2026-06-02T10:00Z", "amendment", decided_at="2026-06-01") == []


def test_an_amendment_that_was_registered_a_year_late_is_late() -> None:
    """False if the first version in time covered whatever was decided after it."""
    (late,) = after_first("2027-06-02T10:00Z", "amendment", decided_at="2026-06-01")
    assert (late.detection, late.indices) == ("DET-01", (1,))
    assert late.inputs["not_before"] == "2027-06-02T09:59:30Z"


def test_an_amendment_that_states_no_other_date_was_not_decided_anew_at_any_known_time() -> None:
    """A notice that is added to a record a year after restates its date, and that was registered in time."""
    assert after_first("2027-06-02T10:00Z", "amendment", title="Another title") == []


def test_an_amendment_that_is_dated_after_witnesses_had_it_is_found() -> None:
    """False if the amendment's own entry bounded nothing."""
    (found,) = after_first("2026-06-02T10:00Z", "amendment", decided_at="2026-06-03")
    assert (found.detection, found.indices) == ("DET-04", (1,))
    assert found.inputs["not_after"] == "2026-06-02T10:00:20Z"
    assert "the witnesses had the entry by 2026-06-02T10:00:20Z" in found.explanation


def test_a_correction_cannot_date_a_decision_after_it_was_registered() -> None:
    """False if a late decision could be corrected into one in time; it says which entry was there."""
    (found,) = after_first("2026-06-02T10:00Z", "correction", decided_at="2026-06-01")
    assert (found.detection, found.indices) == ("DET-04", (1,))
    assert "the witnesses had entry 0, which registered the decision that it corrects," in found.explanation


# Dates that end after they were registered, or begin before the calendar


def dated(decided: str, **members: Any) -> list[Found]:
    """Return what is found of a record that is dated so, seen in August 2026, behind one of that month."""
    other = decision(decided_at="2026-08-03", captured_at="2026-08-03", record_id=record_id(1))
    record = decision(decided_at=decided, record_id=record_id(2), **members)
    return [each for each in found_in(facts_of([other, record])) if 1 in each.indices]


@pytest.mark.parametrize("decided", ["2026-05-01/9999-12-31", "2026-05-01/2026-08-06", "2026-05-01/9999"])
def test_a_date_that_may_be_after_it_was_registered_is_found(decided: str) -> None:
    """False if a far day beside the true one hid a late registration from every rule."""
    (found,) = only(dated(decided, captured_at="2026-08-04"), "DET-01", "DET-04")
    assert (found.detection, found.severity, found.indices) == ("DET-04", Severity.MEDIUM, (1,))
    assert found.inputs["interval_ends_earliest"] == shown(partial(decided.partition("/")[2]).earliest)
    assert "between 2026-04-30T23:00:00Z and a time that begins at" in found.explanation


@pytest.mark.parametrize("decided", ["2026-08-04/2026-08-05", "2026", "2026-08", "2026-08-05"])
def test_a_date_that_is_registered_before_it_is_over_is_not(decided: str) -> None:
    """False if a month that had not ended yet were a date in the future."""
    assert only(dated(decided, captured_at="2026-08-04"), "DET-04") == []


def test_a_date_wholly_after_it_was_registered_is_graver() -> None:
    """False if two days in the future were held less impossible than one."""
    for decided in ("2026-08-07/2026-08-09", "2026-08-07"):
        (found,) = only(dated(decided), "DET-04")
        assert found.severity is Severity.HIGH
        assert "at 2026-08-06T23:00:00Z at the earliest" in found.explanation


@pytest.mark.parametrize("decided", ["2010-05-01", "1900"])
def test_what_is_dated_before_the_calendar_is_late_by_every_rule(decided: str) -> None:
    """False if a date was too early to be late: registered, captured, or behind what is dated later."""
    found = only(dated(decided, channel="whatsapp", captured_at="2026-08-04"), "DET-01", "DET-02", "DET-03")
    assert [each.detection for each in found] == ["DET-03", "DET-01", "DET-02"]
    assert [each.inputs.get("counted_from") for each in found] == ["2012-01-01", None, "2012-01-01"]
    assert found[1].inputs["deadline_counted_from"] == "2012-01-01"
    assert int(found[0].inputs["working_days"]) > 3_000
    assert "at least 3," in found[0].explanation


# Corrections of amendments


def test_a_correction_of_an_amendment_counts_from_the_amendment() -> None:
    """False if a correction put its registration back to that of version 1, or on to its own."""
    amended = correction(canonical.format(FIRST), correction="amendment", decided_at="2026-06-01")
    for moved, expected in (("2026-05-29", []), ("2026-05-20", ["DET-01"])):
        corrected = correction(canonical.format(amended), correction="correction", decided_at=moved)
        times = [SEEN_FIRST, seconds("2026-06-02T10:00Z"), seconds("2026-09-01T10:00Z")]
        found = only(found_in(facts_of([FIRST, amended, corrected], times)), "DET-01", "DET-04")
        assert [each.detection for each in found] == expected
        assert all(each.inputs["not_before"] == "2026-06-02T09:59:30Z" for each in found)


def test_an_amendment_is_behind_what_was_witnessed_before_it() -> None:
    """DET-03 asks of a new decision what it asks of a first one."""
    other = decision(
        record_id=record_id(5),
        decided_at="2026-06-20",
        captured_at="2026-06-20",
        reference={"number": 125, "series": "MD/2026"},
    )
    amended = correction(canonical.format(FIRST), correction="amendment", decided_at="2026-06-01")
    times = [SEEN_FIRST, seconds("2026-06-20T12:00Z"), seconds("2026-07-01T12:00Z")]
    (found,) = only(found_in(facts_of([FIRST, other, amended], times)), "DET-03")
    assert found.indices == (1, 2)


# Order


def behind(*apart: int, matter: str | None = None) -> list[Fact]:
    """Return a decision of 20 June and then one of 10 June, witnessed so many seconds after."""
    records = [
        {**each, "decided_at": day, "captured_at": day} | ({"matter_id": matter} if matter else {})
        for each, day in zip(numbered(2, 1), ("2026-06-20", "2026-06-10"), strict=True)
    ]
    if matter:
        records[1]["reference"] = {"number": 1, "series": "OTHER/1"}
    return facts_of(records, [SEEN, SEEN + sum(apart)])


@pytest.mark.parametrize("matter", [None, "M1"])
def test_an_entry_is_behind_another_only_where_witnesses_had_that_one_before(matter: str | None) -> None:
    """The first was seen by 20 seconds after its time; of the second they know 30 seconds before its own."""
    assert only(found_in(behind(0, matter=matter)), "DET-03") == []
    assert only(found_in(behind(49, matter=matter)), "DET-03") == []
    (found,) = only(found_in(behind(50, matter=matter)), "DET-03")
    assert found.indices == (0, 1)
    assert found.inputs["among"] == ("matter" if matter else "series")
    assert found.inputs["later_dated_not_after"] == found.inputs["not_before"] == "2026-08-05T10:00:20Z"


def test_an_order_of_times_that_may_not_be_compared_says_so() -> None:
    """False if two quorums without a common witness passed for one clock (formats.md, section 15)."""
    sure = only(found_in(behind(60)), "DET-03")
    unsure = only(found_in([incomparable(fact) for fact in behind(60)]), "DET-03")
    assert ["may not be compared" in each.explanation for each in (*sure, *unsure)] == [False, True]


def test_the_latest_dated_is_that_of_those_known_by_then() -> None:
    """False if one that came later, or one that is dated earlier, stood in its place; and also when kept."""
    dated = LatestDated()
    for place, (date, after) in enumerate([(50, 100), (40, 110), (60, 120), (70, 120), (65, 130), (80, None)]):
        dated.add(date, place, Bounds(None, after, comparable=True))
    for each in (dated, LatestDated(dated.text)):
        assert each.known_by(99) is None
        assert each.known_by(119) == Dated(100, 50, 0)
        assert each.known_by(1_000) == Dated(120, 70, 3)
    # Of those that were witnessed together one is kept.
    assert dated.text == "[[100,50,0],[120,70,3]]"
    # Nothing that comes now is known before 125.
    dated.add(90, 6, Bounds(125, 140, comparable=True))
    assert dated.known_by(139) == Dated(120, 70, 3)
    assert dated.known_by(140) == Dated(140, 90, 6)
    assert dated.text == "[[120,70,3],[140,90,6]]"


@settings(max_examples=300)
@given(
    entries=st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 6)), min_size=2, max_size=8
    ),
    kept=st.booleans(),
)
def test_whatever_is_known_by_a_moment_the_latest_dated_of_it_is_kept(
    entries: list[tuple[int, int, int]], kept: bool
) -> None:
    """Against looking through all of them; not-before ascends, and not-after comes as it likes."""
    dated, begun = LatestDated(), 0
    for place, (wait, width, date) in enumerate(entries):
        begun += wait
        dated.add(date, place, Bounds(begun, begun + width, comparable=True))
        dated = LatestDated(dated.text) if kept else dated
    moments = accumulate(wait for wait, _, _ in entries)
    known = [(moment + width, date) for moment, (_, width, date) in zip(moments, entries, strict=True)]
    for moment in range(begun, begun + 12):
        expected = max((date for after, date in known if after <= moment), default=None)
        found = dated.known_by(moment)
        assert (None if found is None else found.dated) == expected


# Bursts and hours


def crowd(*after: int) -> list[Fact]:
    """Return a decision, and forty days later some that were witnessed by so many seconds after a moment."""
    moments = [SEEN, *(SEEN + 40 * DAY + each for each in after)]
    records: list[Record] = [
        {**each, "decided_at": "2026-08-05", "captured_at": "2026-08-05"}
        for each in numbered(*range(1, len(moments) + 1))
    ]
    return facts_of(records, moments)


def test_an_hour_is_an_hour_to_the_second() -> None:
    """False if five within 60 minutes and 59 seconds, or one second too many, were within 60 minutes."""
    for last, expected in ((3_600, [(1, 2, 3, 4, 5)]), (3_601, []), (3_659, [])):
        found = only(found_in(crowd(0, 900, 1_800, 2_700, last)), "DET-20")
        assert [each.indices for each in found] == expected


def test_registrations_whose_bounds_may_not_be_compared_count_in_no_burst() -> None:
    """False if a span between the clocks of two quorums told how close together they came."""
    facts = crowd(0, 10, 20, 30, 40)
    assert only(found_in(facts), "DET-20")
    assert not only(found_in([incomparable(fact) for fact in facts]), "DET-20")


def test_a_registration_whose_bounds_may_not_be_compared_lies_off_no_hours() -> None:
    """The decision came late at 23:30 in summer; under one clock that is at night."""
    late = decision(decided_at="2026-06-10", captured_at="2026-06-10")
    facts = facts_of([late], [seconds("2026-08-05T23:30Z")])
    assert [each.inputs["what"] for each in only(found_in(facts), "DET-21")] == ["registered"]
    assert only(found_in([incomparable(fact) for fact in facts]), "DET-21") == []


# Silence

MONTHS = ("2026-03", "2026-04", "2026-05", "2026-06")


def filed(months: tuple[str, ...], count: int = 3, first: int = 50) -> list[Record]:
    counted = {"count": count, "first": 1, "last": 3} if count else {"nil_return": True, **NOTHING}
    return [
        period_return(record_id=record_id(first + place), period=month, **counted)
        for place, month in enumerate(months)
    ]


NOTHING = {"count": None, "first": None, "last": None}
TIMES = [seconds(f"2026-{month:02}-03T10:00Z") for month in (4, 5, 6, 7)]


def test_returns_that_count_decisions_where_none_come_are_a_silence() -> None:
    """False if only other offices' decisions showed that there should be some: a department may have one."""
    last = decision(decided_at="2026-03-02", captured_at="2026-03-02")
    facts = facts_of([last, *filed(MONTHS)], [seconds("2026-03-03T10:00Z"), *TIMES])
    (found,) = only(found_in(facts), "DET-30")
    assert found.indices == (0, 4)
    # From 3 March to 1 June 2026, the first day of the last period: 60 working days.
    assert (found.inputs["active_by"], found.inputs["working_days"]) == ("return", "60")


def test_returns_without_any_decision_at_all_are_a_silence() -> None:
    """Counted from the first day of the first period that is said to have had some."""
    (found,) = only(found_in(facts_of(filed(MONTHS), TIMES)), "DET-30")
    assert found.indices == (3,)
    assert found.inputs["counted_from"] == "2026-03-01T00:00:00Z"
    assert only(found_in(facts_of(filed(MONTHS[:1]), TIMES[:1])), "DET-30") == []


def test_nil_returns_are_no_silence() -> None:
    """An office that states that it decided nothing is silent, and says so."""
    last = decision(decided_at="2026-03-02", captured_at="2026-03-02")
    facts = facts_of([last, *filed(MONTHS, 0)], [seconds("2026-03-03T10:00Z"), *TIMES])
    assert only(found_in(facts), "DET-30") == []
    assert only(found_in(facts_of(filed(MONTHS, 0), TIMES)), "DET-30") == []


def test_a_return_that_is_corrected_to_nil_shows_nothing_any_more() -> None:
    """False if a slip that was put right were held against the department."""
    last = decision(decided_at="2026-03-02", captured_at="2026-03-02")
    (wrong,) = filed(MONTHS[3:])
    put_right = {"reason": "None was decided.", "nil_return": True, **following(canonical.format(wrong))}
    second = changed({**wrong, **put_right}, NOTHING)
    facts = facts_of([last, wrong, second], [seconds("2026-03-03T10:00Z"), TIMES[3], TIMES[3] + DAY])
    assert len(only(found_in(facts[:2]), "DET-30")) == 1
    assert only(found_in(facts), "DET-30") == []

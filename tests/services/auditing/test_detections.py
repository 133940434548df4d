"""The rules one by one, at their edges: what the year of the fictional department does not reach."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import canonical
from ledger.own_records import record_digest
from ledger.timeline import Bounds
from ledger.values import Partial, partial
from services.auditing.detecting import Detector
from services.auditing.detections.bursts import BASELINE, Burst, Tick, at_least, bursts
from services.auditing.detections.hours import why_off_hours
from services.auditing.detections.procurement import normalised
from services.auditing.detections.references import Void, gaps, merged
from services.auditing.facts import fact_of
from services.auditing.found import Severity
from tests.support.facts import CALENDAR, SEEN, STRICT, Record, facts_of, found_in, numbered, said
from tests.support.records import REGISTER, correction, decision, period_return, record_id, void, withdrawal
from tests.support.vectors import load

# Facts


def test_a_fact_is_of_the_entry_that_was_verified() -> None:
    """Its digest is that of the record, and its submission_id that of the specification's example."""
    submissions = load("submissions.json")["submissions"]
    submission = next(each for each in submissions if each["name"] == "three decision records")
    bounds = Bounds(1, 2, comparable=True)
    entry = submission["entries"][1].encode()
    fact = fact_of(REGISTER, 5, entry, bounds, "ledger.daybook.example")
    assert fact.submission_id == submission["submission_id"]
    assert fact.submission_first == 4
    assert fact.sha256.hex() == record_digest(entry.partition(b"\n")[2])
    assert fact.members == msgspec.json.decode(entry.partition(b"\n")[2])
    assert fact_of(REGISTER, 5, entry, bounds).submission_id is None


def test_what_is_not_understood_is_a_fact_without_a_record() -> None:
    """A later type must be passed over, and counted."""
    envelope = (
        b'{"accepted_at":"2026-08-05T10:00:00.000Z","governing_size":7,"submitter":"ledger","type":"entry/1"}\n'
    )
    fact = fact_of(
        REGISTER, 0, envelope + canonical.format(decision(type="decision.burnt/1")), Bounds(1, 2, True)
    )
    assert (fact.record, fact.type, dict(fact.members)) == (None, "decision.burnt/1", {})
    assert found_in([fact]) == []


# References


@given(
    used=st.sets(st.integers(1, 60), min_size=1),
    voided=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), max_size=4),
)
def test_a_gap_is_what_is_neither_used_nor_voided(used: set[int], voided: list[tuple[int, int]]) -> None:
    """Number by number, between the lowest and the highest that is used."""
    voids = [Void(0, first, first + more, "Drafts.", None, None) for first, more in voided]
    covered = {number for first, more in voided for number in range(first, first + more + 1)}
    expected = set(range(min(used), max(used))) - used - covered
    runs = list(gaps(merged((number, number) for number in used), voids))
    assert {number for first, last in runs for number in range(first, last + 1)} == expected
    assert sum(last - first + 1 for first, last in runs) == len(expected)


@given(st.permutations(list(range(1, 13))).map(lambda each: each[:9]))
def test_the_gaps_are_those_of_the_numbers_in_whatever_order_they_came(numbers: list[int]) -> None:
    """Runs of numbers are joined as they fill up; a gap that was filled is none."""
    found = [each for each in found_in(facts_of(numbered(*numbers))) if each.detection == "DET-08"]
    missing = {
        number
        for each in found
        for number in range(int(each.inputs["first_missing"]), int(each.inputs["last_missing"]) + 1)
    }
    assert missing == set(range(min(numbers), max(numbers))) - set(numbers)


def test_a_void_explains_a_gap_until_it_is_taken_back() -> None:
    """docs/reference-voids.md: the latest version counts, and one that is taken back voids nothing."""
    first = void(first=2, last=3)
    records = [*numbered(1, 4), first]
    assert said(found_in(facts_of(records))) == [("voided", (2,))]
    previous = {"sha256": record_digest(canonical.format(first)), "version": 1}
    narrower = {**first, "last": 2, "previous": previous, "version": 2}
    found = found_in(facts_of([*records, narrower]))
    assert said(found) == [("gap", (0, 1)), ("voided", (3,))]
    assert found[0].inputs["first_missing"] == found[0].inputs["last_missing"] == "3"
    taken_back = {**narrower, "last": 3, "taken_back": True}
    assert said(found_in(facts_of([*records, taken_back]))) == [("gap", (0, 1))]


def test_a_void_of_used_numbers_or_of_numbers_to_come_is_found() -> None:
    """A void explains numbers that were passed over: it takes no decision away, and keeps no number free."""
    records = [*numbered(1, 2, 3), void(first=2, last=2), void(first=4, last=6, record_id=record_id(9))]
    assert said(found_in(facts_of(records))) == [
        ("voided and used", (3,)),
        ("voided ahead", (4,)),
        ("voided", (4,)),
    ]


def test_voided_numbers_are_listed_with_their_void_its_reason_and_when_witnesses_saw_it() -> None:
    """docs/reference-voids.md. False if a number in use were said to be explained."""
    facts = facts_of([*numbered(1, 3, 4, 5, 9), void(first=2, last=8, reason="Drafts.\u00e9\nEntry 9")])
    used, listed = (each for each in found_in(facts) if each.detection == "DET-08")
    assert (used.inputs["first_used"], used.inputs["last_used"]) == ("3", "5")
    assert (listed.inputs["numbers"], listed.inputs["voided"]) == ("2, 6 to 8", "4")
    assert (listed.inputs["void"], listed.inputs["reason"]) == ("5", r"Drafts.\xe9\nEntry 9")
    assert (listed.inputs["not_before"], listed.inputs["not_after"]) == (
        "2026-08-05T10:04:30Z",
        "2026-08-05T10:05:20Z",
    )
    assert listed.explanation == (
        "Entry 5 voids numbers 2, 6 to 8 of series MD/2026; the witnesses had it by 2026-08-05T10:05:20Z. "
        r"The reason that it gives: Drafts.\xe9\nEntry 9."
    )
    unseen = [*facts[:5], replace(facts[5], bounds=Bounds(SEEN, None, comparable=True))]
    _, listed = (each for each in found_in(unseen) if each.detection == "DET-08")
    assert "not_after" not in listed.inputs
    assert "no quorum of witnesses has seen it yet" in listed.explanation


def test_a_void_explains_each_of_its_numbers_that_no_decision_has() -> None:
    """False if only the first hundred runs in use were taken out, or a void of none were listed."""
    even = [*numbered(*range(2, 601, 2)), void(first=1, last=600)]
    (listed,) = (each for each in found_in(facts_of(even)) if each.inputs["what"] == "voided")
    assert listed.inputs["numbers"] == ", ".join(map(str, range(1, 600, 2)))
    assert listed.inputs["voided"] == "300"
    assert "numbers 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, … of series" in listed.explanation
    assert said(found_in(facts_of([*numbered(1, 2), void(first=1, last=2)]))) == [("voided and used", (2,))]


def test_a_withdrawn_decision_keeps_its_number_and_a_correction_uses_another() -> None:
    """Withdrawing is no way to make a number free again; one that was corrected has had both."""
    first, second, third = numbered(1, 2, 3)
    gone = withdrawal(canonical.format(second))
    moved = correction(canonical.format(third), reference={"number": 5, "series": "MD/2026"})
    found = found_in(facts_of([first, second, third, gone, moved]))
    assert said(found) == [("gap", (2, 4))]
    assert found[0].inputs["first_missing"] == "4"
    again = numbered(1, 2, 3, 2)[3]
    assert said(found_in(facts_of([first, second, third, gone, again]))) == [("duplicate", (1, 4))]


def test_a_thousand_gaps_are_told_in_a_hundred_and_one() -> None:
    """False if a register could drown its reader."""
    found = found_in(facts_of(numbered(*range(1, 601, 2))))
    assert len(found) == 101
    assert found[0].inputs["what"] == "more gaps"
    assert (found[0].inputs["gaps"], found[0].inputs["missing"]) == ("199", "199")


def test_departmental_references_that_end_in_a_number_are_a_series_of_their_own() -> None:
    """Whatever stands before the number names the series; a hostile name stays in its place."""
    texts = ("DSA-2026-07", "DSA-2026-09", "\u202fx\u001b[31m-1".replace("\u001b", "é"), "no number")
    records = [
        {**each, "departmental_reference": text} for each, text in zip(numbered(1, 2, 3, 4), texts, strict=True)
    ]
    (gap,) = found_in(facts_of(records))
    assert gap.severity is Severity.LOW
    assert (gap.inputs["series"], gap.inputs["first_missing"]) == ("DSA-2026-", "8")


def test_a_number_that_is_given_again_after_its_neighbours_came_is_a_duplicate() -> None:
    """A run of numbers that grows up to the next one has taken in its numbers."""
    assert said(found_in(facts_of(numbered(1, 5, 2, 3, 4, 5)))) == [("duplicate", (1, 5))]


# Stages


def staged(number: int, code: str | None, outcome: str = "pass", **members: str) -> Record:
    """Return a decision of one matter: at a stage, or an award that names none."""
    stage = {"scheme": "three-case", "scheme_version": 1, "code": code, "outcome": outcome}
    stated = {"stage": stage} if code else {"decision_type": "contract_award"}
    record = {**numbered(*range(1, number + 1))[number - 1], "matter_id": "M1", **stated, **members}
    return {**record, "title": f"Stage {number}"}


STRATEGIC = staged(1, "strategic")
AUTHORITY = {"delegated_authority": "HMT delegation 7"}


@pytest.mark.parametrize("last", [staged(3, "full"), staged(3, None)])
@pytest.mark.parametrize(
    ("outline", "expected"),
    [
        (staged(2, "outline"), []),
        (staged(2, "outline", "fail"), [("fail", (1,)), ("missing", (2,))]),
        (staged(2, "outline", "fail", **AUTHORITY), []),
        (staged(2, "outline", "waived"), [("waived", (1,))]),
        (staged(2, "outline", "waived", **AUTHORITY), []),
        (staged(2, "outline", "not_performed"), [("missing", (2,))]),
    ],
)
def test_an_award_behind_a_stage_that_is_not_passed_is_found_with_a_stage_or_without(
    outline: Record, last: Record, expected: list[tuple[str, tuple[int, ...]]]
) -> None:
    """False if an award that names no stage could go on from one that failed."""
    assert said(found_in(facts_of([STRATEGIC, outline, last])), "DET-10") == expected


def test_a_stage_that_failed_is_found_only_where_the_matter_went_on() -> None:
    """A failed offer that went no further is how it should be; one that passed later leaves none missing."""
    failed, passed = staged(2, "outline", "fail"), staged(3, "outline")
    assert said(found_in(facts_of([STRATEGIC, failed])), "DET-10") == []
    assert said(found_in(facts_of([STRATEGIC, failed, passed, staged(4, "full")])), "DET-10") == [
        ("fail", (1,))
    ]


# Returns


def test_missing_quarters_are_found_up_to_now() -> None:
    """The first return sets the length of a period; what is due is due ten working days after."""
    first = period_return(period="2026-01/2026-03", nil_return=True, count=None, first=None, last=None)
    second = {**first, "period": "2026-10/2026-12", "record_id": record_id(5)}
    times = [partial(day).earliest for day in ("2026-04-08", "2027-01-08")]
    found = found_in(facts_of([first, second], times), partial("2027-02-01").earliest)
    assert [(each.inputs["what"], each.inputs["period_from"]) for each in found] == [
        ("missing", "2026-04-01"),
        ("missing", "2026-07-01"),
    ]

    def due(now: str) -> list[str]:
        only = found_in(facts_of([first], times[:1]), partial(now).earliest)
        return [each.inputs["period_from"] for each in only]

    # Ten working days after 30 June are 14 July 2026.
    assert due("2026-07-14T12:00Z") == []
    assert due("2026-07-15T12:00Z") == ["2026-04-01"]
    # Ten working days after 31 March, over Easter, are 16 April 2026.
    only = facts_of([first], [partial("2026-04-17T10:00Z").earliest])
    assert [each.inputs["what"] for each in found_in(only)] == ["late return"]
    in_time = facts_of([first], [partial("2026-04-16T10:00Z").earliest])
    assert found_in(in_time) == []


# Bursts


@given(count=st.integers(1, 40), rate=st.floats(0.01, 30))
def test_the_chance_of_so_many_is_bounded_from_above(count: int, rate: float) -> None:
    """A bound below the truth would call everyday things rare."""
    below = sum(math.exp(k * math.log(rate) - rate - math.lgamma(k + 1)) for k in range(count))
    bound = at_least(count, rate)
    assert bound >= 1 - below - 1e-9
    if count > 2 * rate:
        assert bound <= 3 * (1 - below) + 1e-9


def ticks(*minutes: int) -> Iterator[Tick]:
    yield from (Tick(60 * minute, 60 * minute, 1, 0, 0, place, place) for place, minute in enumerate(minutes))


def found_bursts(*minutes: int) -> list[Burst]:
    rule = STRICT.detections.burst
    assert rule is not None
    return list(bursts(rule, [], ticks(*minutes), 60 * minutes[0]))


def test_five_in_an_hour_are_a_burst_where_nothing_is_usual_and_four_are_not() -> None:
    """The edge of the rule, and of the hour."""
    later = BASELINE // 60 + 60
    assert [burst.count for burst in found_bursts(0, *(later + minute for minute in (0, 15, 30, 45, 60)))] == [
        5
    ]
    assert found_bursts(0, *(later + minute for minute in (0, 15, 30, 45, 61))) == []
    assert found_bursts(0, *(later + minute for minute in (0, 15, 30, 45))) == []


def test_what_is_usual_is_no_burst() -> None:
    """Twenty at once every day is how this office works; two hundred is not."""
    daily = [1_440 * day + minute for day in range(40) for minute in range(20)]
    assert found_bursts(*daily) == []
    (burst,) = found_bursts(*daily, *(1_440 * 40 + minute // 4 for minute in range(200)))
    assert (burst.count, burst.median) == (200, 20)


def test_two_busy_hours_are_not_one_window() -> None:
    """Each hour has a hundred, where twenty are usual; together they would be more than eight times that."""
    daily = [1_440 * day + minute for day in range(40) for minute in range(20)]
    busy = [1_440 * 40 + 90 * hour + minute // 2 for hour in range(2) for minute in range(100)]
    assert found_bursts(*daily, *busy) == []


def published(minutes: list[int]) -> list[Record]:
    """Return awards whose notices came out at these minutes of a day, and one of months before."""
    times = ["2026-03-01T09:00:00Z", *(f"2026-08-04T{10 + each // 60}:{each % 60:02}:00Z" for each in minutes)]
    return [
        {**each, "decision_type": "contract_award", "publication": {"first": time}}
        for each, time in zip(numbered(*range(1, len(times) + 1)), times, strict=True)
    ]


@pytest.mark.parametrize("minutes", [[0, 10, 20, 30, 40, 75, 80, 85, 90, 95], list(range(0, 320, 10))])
@pytest.mark.parametrize("cut", [1, 3, 5, 6, 8, 10, 11, 20, 31])
def test_a_burst_that_grows_after_it_was_looked_at_is_still_one(minutes: list[int], cut: int) -> None:
    """A look in between must neither split it nor keep what it was before."""
    facts = facts_of(published(minutes))
    whole = [each for each in found_in(facts) if each.detection == "DET-20"]
    # After five busy hours they are what is usual, and the last event of the long one stands alone.
    assert [each.indices[:10] for each in whole] == [tuple(range(1, 11))]
    with Detector(None, STRICT, CALENDAR) as detector:
        detector.observe(facts[:cut])
        list(detector.found())
        detector.observe(facts[cut:])
        assert [each for each in detector.found() if each.detection == "DET-20"] == whole


def test_in_the_first_four_weeks_nothing_is_usual_yet() -> None:
    """A register that has just been opened has no everyday to compare with."""
    assert found_bursts(*range(40)) == []
    assert found_bursts(0, *range(BASELINE // 60 - 100, BASELINE // 60 - 60)) == []


# Hours


@pytest.mark.parametrize(
    ("begin", "end", "is_off"),
    [
        ("2026-08-05T20:59:59Z", "2026-08-05T21:30:00Z", False),
        ("2026-08-05T21:00:00Z", "2026-08-06T04:59:59Z", True),
        ("2026-08-05T21:00:00Z", "2026-08-06T05:00:00Z", False),
        ("2026-01-05T22:00:00Z", "2026-01-06T05:59:59Z", True),
        ("2026-08-07T12:00:00Z", "2026-08-10T12:00:00Z", False),
        ("2026-08-08", "2026-08-09", True),
        ("2026-04-03", "2026-04-06", True),
        ("2026-04-03", "2026-04-07", False),
        ("2026-12-25", "2026-12-26", True),
        ("1999-12-25", "1999-12-26", False),
    ],
)
def test_off_hours_are_nights_in_london_and_days_off_wholly(begin: str, end: str, is_off: bool) -> None:
    """In summer London is an hour ahead; a span that touches a working hour proves nothing, nor one unknown."""
    span = Partial(partial(begin).earliest, partial(end).latest)
    hours = STRICT.detections.off_hours
    assert (why_off_hours(CALENDAR, hours, span) is not None) == is_off


# Contracts


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Yearntree t/a Deflecto", "Yearntree", True),
        ("The Paper Straw Co. Ltd", "paper straw company", True),
        ("Gowns Direct (UK) plc", "GOWNS DIRECT", True),
        ("Gowns Direct", "Gowns", False),
        ("Ltd", "plc", False),
        ("t/a Someone", "Someone", False),
    ],
)
def test_a_supplier_is_known_again_by_the_words_of_its_name(one: str, other: str, same: bool) -> None:
    """Legal forms and trading names differ from notice to notice."""
    assert (normalised(one) == normalised(other)) == same


def test_one_contract_recorded_by_two_offices_is_found_whichever_came_first() -> None:
    """The register that comes first in name must not decide what is found."""
    one = {"supplier": {"name": "Twin Ltd"}, "value": {"amount": "100.00", "currency": "GBP"}}
    registers = ("a-department/office-a", "a-department/office-b")
    facts = [
        facts_of(
            [
                decision(
                    register=register, decision_type="contract_award", procurement={**one, "ocid": register}
                )
            ],
            register=register,
        )
        for register in registers
    ]
    outcomes = []
    for order in (facts, facts[::-1]):
        with Detector(None, STRICT, CALENDAR) as detector:
            for each in order:
                detector.observe(each)
            outcomes.append([each for each in detector.found() if each.detection == "DET-16"])
    assert outcomes[0] == outcomes[1]
    assert [each.register for each in outcomes[0]] == ["a-department/office-b"]


def contract(index: int, amount: str = "1000.00", day: str = "2026-08-04", ocid: str | None = None) -> Record:
    procurement = {
        "ocid": ocid or f"ocds-{index}",
        "supplier": {"name": "Twin Ltd"},
        "value": {"amount": amount, "currency": "GBP"},
    }
    return {
        **numbered(*range(1, index + 2))[index],
        "decided_at": day,
        "decision_type": "contract_award",
        "procurement": procurement,
    }


@pytest.mark.parametrize(
    ("amount", "day", "ocid", "alike"),
    [
        ("1000.00", "2026-08-04", None, True),
        ("1000.00", "2026-08-05", None, True),
        ("1000.00", "2026-08-06", None, False),
        ("1000.00", "2026-08-02/2026-08-03", None, True),
        ("1005.02", "2026-08-04", None, True),
        ("1005.03", "2026-08-04", None, False),
        ("995.00", "2026-08-04", None, True),
        ("994.99", "2026-08-04", None, False),
        ("1000.00", "2026-08-04", "ocds-0", False),
    ],
)
def test_contracts_are_alike_within_half_a_percent_of_the_larger_and_a_day(
    amount: str, day: str, ocid: str | None, alike: bool
) -> None:
    """The edges of the tolerance."""
    found = found_in(facts_of([contract(0), contract(1, amount, day, ocid)]))
    assert [each.indices for each in found if each.detection == "DET-16"] == ([(0, 1)] if alike else [])


def test_a_pair_stays_one_when_a_record_of_it_is_corrected() -> None:
    """It is compared again, and found again, and is the same pair."""
    first, second = contract(0), contract(1)
    corrected = correction(canonical.format(first), title="Another title")
    found = [each for each in found_in(facts_of([first, second, corrected])) if each.detection == "DET-16"]
    assert len(found) == 1


def test_as_many_decisions_as_the_profile_says_share_a_document() -> None:
    """Two are nothing where it says three."""
    assert STRICT.detections.evidence_reuse is not None
    three = msgspec.structs.replace(STRICT.detections.evidence_reuse, decisions=3)
    lenient = msgspec.structs.replace(
        STRICT, detections=msgspec.structs.replace(STRICT.detections, evidence_reuse=three)
    )
    document = {"kind": "minutes", "media_type": "application/pdf", "sha256": "ab" * 32, "size": 1}
    facts = facts_of([{**each, "evidence": [document]} for each in numbered(1, 2, 3)])
    for count, expected in ((2, []), (3, [(0, 1, 2)])):
        with Detector(None, lenient, CALENDAR) as detector:
            detector.observe(facts[:count])
            assert [each.indices for each in detector.found() if each.detection == "DET-26"] == expected


def test_years_that_no_calendar_has_stop_nothing() -> None:
    """A department may date what it likes, within what a record may hold."""
    records = [
        decision(decided_at="1900", captured_at="9999", channel="whatsapp", effective_at="1900/9999"),
        {**contract(1, day="9999-12-31"), "publication": {"first": "9999-12-31T23:59Z", "updates": ["1900"]}},
        period_return(period="9999-12-31"),
        period_return(period="1900/9999", record_id=record_id(7), count=3),
    ]
    found = found_in(facts_of(records), partial("9999").latest)
    assert "DET-05" in {each.detection for each in found}


# Witnesses


def test_each_run_of_unwitnessed_entries_is_told_with_what_lies_between_left_out() -> None:
    """Entries 0, 2 and 3 are witnessed by nobody, entry 1 is: as two runs, once a day has gone by."""
    facts = [
        fact if fact.index == 1 else replace(fact, bounds=Bounds(None, None, comparable=True))
        for fact in facts_of(numbered(1, 2, 3, 4))
    ]
    assert found_in(facts, SEEN + 86_400) == []
    found = found_in(facts, SEEN + 86_400 + 180)
    assert [each.indices for each in found] == [(0,), (2, 3)]
    assert {(each.detection, each.severity) for each in found} == {("DET-29", Severity.HIGH)}


# Versions


def test_a_flaw_that_later_versions_repeat_is_one_finding() -> None:
    """A correction restates the decision in full: what was odd before is not odd a second time."""
    first = decision(channel="whatsapp", significant=True)
    second = correction(canonical.format(first))
    third = correction(canonical.format(second), channel_justification="No other was in reach.")
    found = [each for each in found_in(facts_of([first, second, third])) if each.detection == "DET-05"]
    assert [(each.indices, each.severity) for each in found] == [
        ((0, 1), Severity.MEDIUM),
        ((2,), Severity.LOW),
    ]


def test_a_correction_does_not_change_when_a_decision_was_registered() -> None:
    """The bounds of version 1 count, also where a later version moves the date."""
    first = decision(decided_at="2026-08-04")
    moved = correction(canonical.format(first), decided_at="2026-06-04")
    found = found_in(facts_of([first, moved], [SEEN, SEEN + 86_400 * 60]))
    (late,) = [each for each in found if each.detection == "DET-01"]
    assert late.indices == (1,)
    assert late.inputs["not_before"] == "2026-08-05T09:59:30Z"

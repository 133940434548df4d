"""What is found depends on what the registers hold, and not on when, or in which order, an auditor came by."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import canonical
from services.auditing.detecting import Detector
from services.auditing.detections.rules import DAY
from services.auditing.facts import Fact
from services.auditing.found import Found
from tests.support.facts import CALENDAR, SEEN, STRICT, Record, facts_of, found_in, numbered, said
from tests.support.random_registers import random_registers
from tests.support.records import correction, following, record_id, void
from tests.support.records import decision as decided

BEGUN: Final = SEEN - 60 * DAY


def seen_at_visits(visits: Iterable[Iterable[Fact]], now: int | None = None) -> list[Found]:
    """Return what stands after several visits, each of which looks at what it finds."""
    with Detector(None, STRICT, CALENDAR) as detector:
        for facts in visits:
            detector.observe(facts)
            list(detector.found(now))
        return list(detector.found(now))


def in_order(found: Iterable[Found]) -> list[Found]:
    return sorted(found, key=lambda each: (each.order, each.detection, each.indices, str(each.inputs)))


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 32), cuts=st.randoms(use_true_random=False))
def test_any_order_of_registers_and_any_visits_give_what_one_look_gives(seed: int, cuts: Random) -> None:
    """False if a finding stayed that is true no longer, or was missed since things came in turn."""
    registers, last = random_registers(Random(seed), BEGUN)
    now = last + 60 * DAY
    with Detector(None, STRICT, CALENDAR) as detector:
        for facts in registers.values():
            detector.observe(facts)
        at_once = in_order(detector.found(now))
    left = {name: list(facts) for name, facts in registers.items()}
    with Detector(None, STRICT, CALENDAR) as detector:
        while any(left.values()):
            name = cuts.choice([name for name, facts in left.items() if facts])
            most = cuts.randint(1, 6)
            taken, left[name] = left[name][:most], left[name][most:]
            detector.observe(taken)
            if cuts.random() < 0.4:
                list(detector.found(int(taken[-1].accepted_at) + 30))
        assert in_order(detector.found(now)) == at_once


def test_the_random_registers_reach_every_rule_about_what_is_not_alone() -> None:
    """False if the property above could hold since there was nothing to find."""
    found = [each for seed in range(40) for each in found_in_all(random_registers(Random(seed), BEGUN)[0])]
    reached = {(each.detection, each.inputs.get("what", "")) for each in found}
    gaps = {("DET-08", what) for what in ("gap", "duplicate", "voided", "voided and used", "voided ahead")}
    alone = {("DET-03", ""), ("DET-16", ""), ("DET-28", "answer turned"), ("DET-30", "")}
    stages = {("DET-10", "missing"), ("DET-10", "fail"), ("DET-10", "waived"), ("DET-11", "")}
    returns = {("DET-09", what) for what in ("another count", "added after return", "late return")}
    others = {("DET-26", "evidence used again"), ("DET-29", "never witnessed"), ("DET-15", "")}
    assert gaps | alone | stages | returns | others <= reached
    assert {detection for detection, _ in reached} >= {
        "DET-01",
        "DET-04",
        "DET-20",
        "DET-12",
        "DET-13",
        "DET-14",
    }


def found_in_all(registers: dict[str, list[Fact]]) -> list[Found]:
    with Detector(None, STRICT, CALENDAR) as detector:
        for facts in registers.values():
            detector.observe(facts)
        return list(detector.found())


def test_a_gap_that_is_filled_is_none_any_more() -> None:
    """False if an auditor who came in between were told for ever of a number that is there."""
    facts = facts_of(numbered(1, 2, 4, 3))
    assert said(seen_at_visits([facts[:3]])) == [("gap", (1, 2))]
    assert said(seen_at_visits([facts[:3], facts[3:]])) == []


def test_a_void_that_names_another_series_voids_nothing_of_the_first() -> None:
    """False if a slip that was put right were held against the department."""
    first = void(record_id=record_id(9), first=2, last=2)
    second = {**first, **following(canonical.format(first)), "series": "OTHER/1"}
    facts = facts_of([*numbered(1, 2, 3), first, second])
    assert said(seen_at_visits([facts[:4]])) == [("voided and used", (3,))]
    later = said(seen_at_visits([facts[:4], facts[4:]]))
    assert later == said(found_in(facts)) == [("voided ahead", (4,)), ("voided", (4,))]


def twin(office: str, ocid: str, amount: str = "100.00") -> Record:
    return decided(
        register=f"a-department/{office}",
        decision_type="contract_award",
        procurement={
            "ocid": ocid,
            "supplier": {"name": "Twin Ltd"},
            "value": {"amount": amount, "currency": "GBP"},
        },
    )


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 0, 1)])
@pytest.mark.parametrize("looks", [True, False])
def test_a_pair_is_one_of_the_latest_versions_in_whatever_order_registers_come(
    order: tuple[int, ...], looks: bool
) -> None:
    """False if what an earlier version stated were held against the next one, now and then."""
    first = twin("office-a", "ocds-1")
    dearer = correction(
        canonical.format(first),
        procurement={**first["procurement"], "value": {"amount": "900.00", "currency": "GBP"}},
    )
    one = facts_of([first, dearer], register="a-department/office-a")
    (other,) = facts_of([twin("office-b", "ocds-2")], register="a-department/office-b")
    facts = [one[0], one[1], other]
    visits = [[facts[place]] for place in order]
    found = seen_at_visits(visits if looks else [[fact for visit in visits for fact in visit]])
    assert [each.indices for each in found if each.detection == "DET-16"] == []


def test_more_than_twenty_contracts_that_are_alike_are_told_one_by_one_and_not_in_pairs() -> None:
    """False if hundreds of one value on one day were ten thousand pairs, or nothing."""
    facts = facts_of(
        [{**twin("x", f"ocds-{number}"), **only(number)} for number in range(22)], register="a-department/x"
    )
    pairs = [each for each in found_in(facts[:21]) if each.detection == "DET-16"]
    assert len(pairs) == 21 * 20 / 2
    many = [each for each in seen_at_visits([facts[:21], facts[21:]]) if each.detection == "DET-16"]
    assert [each.indices for each in many] == [(index,) for index in range(22)]
    assert {each.inputs["others_at_least"] for each in many} == {"21"}


def only(number: int) -> Record:
    return {"record_id": record_id(number), "reference": {"number": number + 1, "series": "CA/1"}}

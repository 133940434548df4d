"""The detector over a year of the fictional department: everything planted, nothing else, however it comes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain, cycle, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import StoreError
from services.auditing import detecting
from services.auditing.calendars import packaged
from services.auditing.detecting import Detector
from services.auditing.detections.rules import RULES
from services.auditing.facts import Fact
from services.auditing.found import Found
from services.auditing.profiles import shipped
from tests.support.synthetic_plants import OFFICER, PERMANENT, make_year
from tests.support.synthetic_year import DEPARTMENT, Truth, Year, matches, write

STRICT = shipped("daybook-strict")
CALENDAR = packaged("dept-ew")


@pytest.fixture(scope="module")
def year() -> Year:
    return make_year()


@pytest.fixture(scope="module")
def found(year: Year) -> list[Found]:
    return judged(year)


def judged(year: Year) -> list[Found]:
    with Detector(None, STRICT, CALENDAR) as detector:
        for facts in year.facts.values():
            detector.observe(facts)
        return list(detector.found(year.now))


def is_one(truth: Truth, found: Found) -> bool:
    return matches(truth, found.detection, found.register, found.indices, found.inputs.get("what", ""))


@pytest.mark.parametrize("seed", [2024, 7, 11])
def test_every_planted_anomaly_is_found_and_nothing_else(seed: int) -> None:
    """A rule that misses what it is for, or speaks of what is in order, is worse than none."""
    year = make_year(seed)
    found = judged(year)
    missed = [truth for truth in year.truth if not any(is_one(truth, each) for each in found)]
    wrong = [each for each in found if not any(is_one(truth, each) for truth in year.truth)]
    assert (missed, wrong) == ([], [])


def test_every_rule_is_planted(year: Year) -> None:
    """A rule without an anomaly in the year would pass every test."""
    assert {truth.detection for truth in year.truth} == set(RULES)


def test_the_year_is_the_same_with_the_same_seed(year: Year, tmp_path: Path) -> None:
    """Otherwise a measure of it could not be repeated."""
    again = make_year()
    assert again.records == year.records
    assert again.truth == year.truth
    write(year, tmp_path)
    truth = msgspec.json.decode((tmp_path / "ground-truth.json").read_bytes())
    assert len(truth["must_be_found"]) == len(year.truth)
    lines = (tmp_path / f"{DEPARTMENT}+{OFFICER}.ndjson").read_bytes().splitlines()
    assert lines == year.records[f"{DEPARTMENT}/{OFFICER}"]


def test_every_finding_can_be_worked_out_again(found: list[Found]) -> None:
    """Its numbers, the calendar and profile they rest on, what else explains it, and how to look again."""
    for each in found:
        assert each.version == RULES[each.detection].version
        assert each.inputs["calendar"] == CALENDAR.version
        assert each.inputs["profile"].startswith("daybook-strict/1 sha256:")
        assert len(each.inputs) >= 4
        assert each.innocent
        assert each.recheck
        assert each.explanation.endswith((".", "…"))
        assert any(character.isdigit() for value in each.inputs.values() for character in value)


ACCUSATIONS = re.compile(
    r"\b(fraud|guilt\w*|lied|lies|lying|conceal\w*|hid|hidden|suspect\w*|illegal\w*|breach\w*)\b", re.IGNORECASE
)


def test_no_finding_accuses(found: list[Found]) -> None:
    """A finding is a reason to look, and its words must not say more."""
    assert not [each for each in found if ACCUSATIONS.search(each.explanation + " ".join(each.innocent))]


@settings(max_examples=8)
@given(
    cuts=st.lists(st.integers(0, 5_000), max_size=4),
    looks=st.lists(st.booleans(), min_size=20, max_size=20),
    reopened=st.booleans(),
)
def test_the_findings_are_the_same_however_the_facts_come(
    cuts: list[int], looks: list[bool], reopened: bool
) -> None:
    """In one batch or many, with looks in between, in one process or several: all give the same."""
    year, expected = known_year()
    # Each register in parts, and the parts of all registers in turn.
    parts = chain.from_iterable(zip(*(slices(facts, cuts) for facts in year.facts.values()), strict=True))
    looking = cycle(looks)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "facts.sqlite3"
        detector = Detector(path, STRICT, CALENDAR)
        for part in parts:
            detector.observe(part)
            if next(looking):
                list(detector.found())
            if reopened:
                detector.close()
                detector = Detector(path, STRICT, CALENDAR)
        assert [detector.next_index(name) for name in year.facts] == [
            len(facts) for facts in year.facts.values()
        ]
        found = list(detector.found(year.now))
        detector.close()
    assert found == expected


def slices(facts: Sequence[Fact], cuts: Sequence[int]) -> Iterator[Sequence[Fact]]:
    edges = [0, *sorted(cut % (len(facts) + 1) for cut in cuts), len(facts)]
    yield from (facts[begin:end] for begin, end in pairwise(edges))


@cache
def known_year() -> tuple[Year, list[Found]]:
    year = make_year(5)
    return year, judged(year)


def test_a_long_register_is_taken_in_several_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beyond the first must not be left out."""
    year, expected = known_year()
    monkeypatch.setattr(detecting, "BATCH", 300)
    assert judged(year) == expected


def test_a_fact_that_does_not_follow_is_refused_and_its_batch_forgotten(year: Year) -> None:
    """A gap in what was given would make findings of it; and half a batch would be given twice."""
    facts = year.facts[f"{DEPARTMENT}/{OFFICER}"]
    with Detector(None, STRICT, CALENDAR) as detector:
        detector.observe(facts[:100])
        with pytest.raises(ValueError, match=r"entry 151 of .*, where 150 is the next"):
            detector.observe([*facts[100:150], facts[151]])
        with pytest.raises(ValueError, match=r"entry 0 of .*, where 100 is the next"):
            detector.observe(facts)
        detector.observe(facts[100:])
        after = list(detector.found(year.now))
    with Detector(None, STRICT, CALENDAR) as whole:
        whole.observe(facts)
        assert list(whole.found(year.now)) == after


def test_a_file_that_was_made_under_another_profile_is_emptied(year: Year, tmp_path: Path) -> None:
    """Findings of two profiles must not stand side by side as those of one."""
    name, path = f"{DEPARTMENT}/{PERMANENT}", tmp_path / "facts.sqlite3"
    with Detector(path, STRICT, CALENDAR) as detector:
        detector.observe(year.facts[name])
        assert list(detector.found(year.now))
    with Detector(path, STRICT, CALENDAR) as detector:
        assert detector.next_index(name) == len(year.facts[name])
    other = msgspec.structs.replace(STRICT, version=2)
    with Detector(path, other, CALENDAR) as detector:
        assert detector.next_index(name) == 0
        assert list(detector.found(year.now)) == []


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """False if a mistaken path cost somebody a database."""
    path = tmp_path / "facts.sqlite3"
    path.write_bytes(b"Minutes of the meeting of 3 March. " * 200)
    with pytest.raises(StoreError):
        Detector(path, STRICT, CALENDAR)
    assert path.read_bytes().startswith(b"Minutes")


def test_what_a_profile_leaves_out_is_not_run(year: Year) -> None:
    """A profile without limits must hold nobody late, and one without any rule finds nothing."""
    none = msgspec.structs.replace(STRICT, detections=type(STRICT.detections)())
    with Detector(None, none, CALENDAR) as detector:
        for facts in year.facts.values():
            detector.observe(facts)
        assert list(detector.found(year.now)) == []
    with Detector(None, shipped("cabinet-office-2013"), CALENDAR) as detector:
        for facts in year.facts.values():
            detector.observe(facts)
        assert not {"DET-01", "DET-02"} & {each.detection for each in detector.found(year.now)}

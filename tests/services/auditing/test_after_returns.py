"""Decisions added or changed after a return: a class of its own, by the order of the register alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import canonical
from ledger.errors import StoreError
from ledger.own_records import record_digest
from ledger.records import Decision, ReturnFiled, parse_record
from ledger.timeline import Bounds
from services.auditing.after_returns import AfterReturn, AfterReturnCounts, AfterReturnKind
from services.auditing.calendars import packaged
from services.auditing.declared import members
from services.auditing.detecting import Detector
from services.auditing.facts import Fact
from services.auditing.profile_types import Profile
from services.auditing.profiles import parse_profile, shipped
from services.auditing.remembered.after_returns import kept_after_returns
from services.auditing.returns import ReturnFindingKind, filed_of, judge_return, version_of
from tests.support.records import REGISTER, correction, decision, period_return, record_id, withdrawal
from tests.support.times import seconds

ADDED, CHANGED = AfterReturnKind.ADDED, AfterReturnKind.CHANGED
STRICT = shipped("daybook-strict")
OTHER = "department-for-synthetic-affairs/permanent-secretary"
SEPTEMBER = seconds("2026-09-02T09:00:00Z")


def registered(number: int, decided: str, series: str = "MD/2026") -> bytes:
    """Return decision `number`, decided then."""
    reference = {"number": number, "series": series}
    record = record_id(100 + number)
    return canonical.format(
        decision(record_id=record, reference=reference, decided_at=decided, captured_at=decided[:10])
    )


def corrected(previous: bytes, **changes: Any) -> bytes:
    return canonical.format(correction(previous, **changes))


def filed(**changes: Any) -> bytes:
    return canonical.format(period_return(**changes))


def facts_of(
    records: Sequence[bytes], times: Sequence[float] | None = None, register: str = REGISTER
) -> list[Fact]:
    """Return the facts of records that witnesses had a minute apart; the ledger claims `times` for them."""
    facts = []
    for index, data in enumerate(records):
        record, at = parse_record(data), SEPTEMBER + 60 * index
        claimed = at if times is None else times[index]
        bounds = Bounds(at - 30, at + 20, comparable=True)
        digest = bytes.fromhex(record_digest(data))
        facts.append(
            Fact(register, index, record, record.type, digest, claimed, "anonymous", None, index, 7, bounds)
        )
    return facts


def kept(
    path: Path, facts: Sequence[Fact], terms: Profile = STRICT, pause: int = 1_000
) -> dict[int, AfterReturn]:
    """Have the detections take facts, settled after every `pause` of them; return what they keep."""
    with Detector(path, terms, packaged(terms.calendar)) as detector:
        for begin in range(0, len(facts), pause):
            detector.observe(facts[begin : begin + pause])
            detector.settle()
    with kept_after_returns(path) as held:
        found = held.among(REGISTER, 0, 10_000)
        counts = held.counts(REGISTER)
    kinds = [each.kind for each in found.values()]
    assert counts == AfterReturnCounts(kinds.count(ADDED), kinds.count(CHANGED))
    return found


ONE, TWO = registered(1, "2026-08-03"), registered(2, "2026-07-01")
GOLDEN = (
    (ONE, AfterReturn(CHANGED, 2)),  # by entry 6
    (TWO, AfterReturn(CHANGED, 2)),  # by entry 7
    (filed(count=1, first=1, last=1), None),
    (registered(3, "2026-08-31"), AfterReturn(ADDED, 2)),
    (registered(4, "2026-09-01"), None),
    (moved := corrected(ONE, title="Another title"), None),
    (corrected(moved, decided_at="2026-09-01"), None),
    (corrected(TWO, decided_at="2026-08-05"), None),
    (registered(5, "2026-08-05", "OTHER"), None),
    (filed(record_id=record_id(2), period="2026-07", count=None, first=None, last=None, nil_return=True), None),
    (registered(6, "2026-07-31"), AfterReturn(ADDED, 9)),
    (registered(7, "2026-08"), AfterReturn(ADDED, 2)),
    (registered(8, "2026-08-30/2026-09-01"), None),
    (registered(9, "2026-08-31T22:59:59Z"), AfterReturn(ADDED, 2)),
    (registered(10, "2026-08-31T23:00:00Z"), None),
)
"""A register, entry by entry, and what formats.md, section 16, makes of each decision in it.

The latest second of `decided_at` is what a return counts by, and the end of August is London's.
"""


def test_what_formats_says_of_each_decision(tmp_path: Path) -> None:
    """False if a decision slipped in behind a return, or moved past it, passed for one that it had counted."""
    expected = {index: after for index, (_, after) in enumerate(GOLDEN) if after is not None}
    assert kept(tmp_path / "file", facts_of([record for record, _ in GOLDEN])) == expected


def test_no_clock_decides_it(tmp_path: Path) -> None:
    """False if a ledger could take a decision out of this class by claiming that it had accepted it earlier."""
    records = [record for record, _ in GOLDEN]
    honest = kept(tmp_path / "honest", facts_of(records))
    back_dated = [seconds("2026-08-05T10:00:00Z") - index for index in range(len(records))]
    assert kept(tmp_path / "lying", facts_of(records, back_dated)) == honest


def test_a_later_version_of_the_return_takes_nothing_back(tmp_path: Path) -> None:
    """False if a corrected return made it unsaid that the first one could not count a decision."""
    first = filed()
    second = filed(
        version=2,
        previous={"version": 1, "sha256": record_digest(first)},
        reason="One came late.",
        count=2,
        last=125,
    )
    records = [registered(124, "2026-08-04"), first, registered(125, "2026-08-05"), second]
    assert kept(tmp_path / "file", facts_of(records)) == {2: AfterReturn(ADDED, 1)}


def test_what_was_added_is_that_even_where_it_is_moved_away_again(tmp_path: Path) -> None:
    """False if a correction could make an added decision look like a changed one, or like none."""
    late = registered(3, "2026-08-04")
    records = [filed(), late, corrected(late, decided_at="2026-09-01")]
    assert kept(tmp_path / "file", facts_of(records)) == {1: AfterReturn(ADDED, 0)}


def test_a_withdrawal_changes_nothing(tmp_path: Path) -> None:
    """False if a decision that is withdrawn were called moved: withdrawn ones are counted."""
    one = registered(124, "2026-08-04")
    records = [one, filed(), canonical.format(withdrawal(one))]
    assert kept(tmp_path / "file", facts_of(records)) == {}


def test_it_is_no_matter_of_the_profile(tmp_path: Path) -> None:
    """False if a profile that asks nothing of returns hid what came after one."""
    stated = members(STRICT)
    del stated["detections"]["return_missing"]
    records = [filed(), registered(1, "2026-08-04")]
    assert kept(tmp_path / "file", facts_of(records), parse_profile(stated)) == {1: AfterReturn(ADDED, 0)}


def test_registers_are_kept_apart(tmp_path: Path) -> None:
    """False if a return of one office were held against the decisions of another."""
    path = tmp_path / "file"
    returned = facts_of([filed(register=OTHER)], register=OTHER)
    assert kept(path, [*returned, *facts_of([registered(1, "2026-08-04")])]) == {}
    with kept_after_returns(path) as held:
        assert held.counts(OTHER) == AfterReturnCounts()


def test_without_detections_nothing_is_kept_and_a_foreign_file_is_not_read(tmp_path: Path) -> None:
    """False if a missing file ended a report, or another's were taken for ours."""
    with kept_after_returns(tmp_path / "none") as held:
        assert held.among(REGISTER, 0, 10) == {}
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"no database" * 100)
    with pytest.raises(StoreError), kept_after_returns(foreign):
        pass


DATES = ("2026-07-31", "2026-08-01", "2026-08-31")
PERIODS = ("2026-08", "2026-07/2026-08", "2026-07")
SERIES = ("MD/2026", "OTHER")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(1, 6),
            st.sampled_from(DATES),
            st.sampled_from(SERIES),
            st.sampled_from(PERIODS),
            st.sampled_from(("decision", "decision", "decision", "return", "withdrawal")),
        ),
        max_size=25,
    ),
    st.integers(1, 5),
)
def test_it_does_not_depend_on_when_returns_are_judged(
    tmp_path_factory: pytest.TempPathFactory, story: list[tuple[int, str, str, str, str]], pause: int
) -> None:
    """False if what is kept differed between auditors who came at different times, or from each return's judge.

    The reference looks at every return by itself, with all versions in memory.
    """
    facts = facts_of(list(_told(story)))
    expected = _by_each_return(facts)
    folder = tmp_path_factory.mktemp("kept")
    assert kept(folder / "whole", facts) == expected
    assert kept(folder / "by and by", facts, pause=pause) == expected


def _told(story: Sequence[tuple[int, str, str, str, str]]) -> Any:
    latest: dict[int, bytes] = {}
    gone: set[int] = set()
    for place, (number, decided, series, period, what) in enumerate(story):
        before = latest.get(number)
        if what == "return":
            yield filed(record_id=record_id(9_000 + place), period=period, series=series)
        elif before is None:
            latest[number] = registered(number, decided, series)
            yield latest[number]
        elif what == "withdrawal" and number not in gone:
            gone.add(number)
            yield canonical.format(withdrawal(before))
        elif number not in gone:
            reference = {"number": number, "series": series}
            latest[number] = corrected(before, decided_at=decided, captured_at=decided, reference=reference)
            yield latest[number]


def _by_each_return(facts: Sequence[Fact]) -> dict[int, AfterReturn]:
    records = [(fact.index, fact.record) for fact in facts]
    versions = [version_of(index, each) for index, each in records if not isinstance(each, ReturnFiled)]  # type: ignore[arg-type]
    first: dict[int, int] = {}
    seen: dict[str, int] = {}
    for version in versions:
        first[version.index] = seen.setdefault(version.record_id, version.index)
    found: dict[int, list[AfterReturn]] = {}
    for fact in facts:
        if not isinstance(fact.record, ReturnFiled):
            continue
        for each in judge_return(filed_of(fact.index, fact.accepted_at, fact.record), versions).findings:
            if each.kind in (ReturnFindingKind.ADDED, ReturnFindingKind.CHANGED):
                kind = ADDED if each.kind is ReturnFindingKind.ADDED else CHANGED
                found.setdefault(first[each.indices[1]], []).append(AfterReturn(kind, fact.index))
    return {
        index: min(all_of_it, key=lambda each: (each.kind is CHANGED, each.returned))
        for index, all_of_it in found.items()
    }


def test_a_decision_of_the_golden_register_is_one() -> None:
    """False if the golden register held records that registration refuses."""
    assert sum(isinstance(parse_record(record), Decision) for record, _ in GOLDEN) == len(GOLDEN) - 2

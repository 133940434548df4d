"""Returns: what is counted, as of when, and what was added or changed behind a return's back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import canonical
from ledger.records import DecisionCorrected, DecisionRegistered, DecisionWithdrawn, ReturnFiled, parse_record
from services.auditing.returns import (
    Counted,
    Filed,
    JudgedReturn,
    ReturnFindingKind,
    Version,
    filed_of,
    judge_return,
    version_of,
)
from tests.support.records import correction, decision, period_return, record_id, withdrawal
from tests.support.times import seconds

SEPTEMBER = seconds("2026-09-01T09:00:00Z")
ADDED, CHANGED = ReturnFindingKind.ADDED, ReturnFindingKind.CHANGED
COUNT, RANGE, EARLY = ReturnFindingKind.COUNT, ReturnFindingKind.RANGE, ReturnFindingKind.EARLY


def registered(number: int, **changes: Any) -> bytes:
    stated = {"record_id": record_id(number), "reference": {"number": number, "series": "MD/2026"}, **changes}
    return canonical.format(decision(**stated))


def corrected(previous: bytes, **changes: Any) -> bytes:
    return canonical.format(correction(previous, **changes))


def withdrawn(previous: bytes) -> bytes:
    return canonical.format(withdrawal(previous))


def versions(entries: Iterable[bytes | None]) -> list[Version]:
    found = []
    for index, data in enumerate(entries):
        record = parse_record(data) if data is not None else None
        if isinstance(record, DecisionRegistered | DecisionCorrected | DecisionWithdrawn):
            found.append(version_of(index, record))
    return found


def filed(index: int, accepted_at: float = SEPTEMBER, **changes: Any) -> Filed:
    record = parse_record(canonical.format(period_return(**changes)))
    assert isinstance(record, ReturnFiled)
    return filed_of(index, accepted_at, record)


def judged(entries: Sequence[bytes | None], accepted_at: float = SEPTEMBER, **changes: Any) -> JudgedReturn:
    """Judge the return that stands in the one place where `entries` has None."""
    return judge_return(filed(entries.index(None), accepted_at, **changes), versions(entries))


def kinds(found: JudgedReturn) -> list[tuple[ReturnFindingKind, tuple[int, ...]]]:
    return [(each.kind, each.indices) for each in found.findings]


def test_a_return_that_is_right_has_no_finding() -> None:
    """False if an honest return were called wrong."""
    found = judged([registered(7), registered(8), registered(9), None], count=3, first=7, last=9)
    assert (found.counted, found.findings) == (Counted(3, 7, 9), ())


def test_a_right_nil_return_has_no_finding() -> None:
    """False if nothing could not be stated."""
    nil: dict[str, Any] = {"count": None, "first": None, "last": None, "nil_return": True}
    assert judged([registered(7, decided_at="2026-07-31"), None], **nil).findings == ()
    found = judged([registered(7), None], **nil)
    assert kinds(found) == [(COUNT, (1,)), (RANGE, (1,))]
    assert "states no decisions, and the register held 1 decision" in found.findings[0].sentence


@pytest.mark.parametrize(
    ("stated", "expected", "words"),
    [
        ({"count": 1, "first": 7, "last": 8}, [COUNT], "1 too few"),
        ({"count": 4, "first": 7, "last": 8}, [COUNT], "2 too many"),
        ({"count": 2, "first": 6, "last": 8}, [RANGE], "numbers 6 to 8"),
        ({"count": 2, "first": 7, "last": 9}, [RANGE], "numbers 7 to 8"),
    ],
)
def test_another_count_or_range_states_the_difference(
    stated: dict[str, Any], expected: list[ReturnFindingKind], words: str
) -> None:
    """False if a department's wrong statement went unsaid."""
    found = judged([registered(7), registered(8), None], **stated)
    assert [each.kind for each in found.findings] == expected
    assert words in found.findings[0].sentence


def test_only_the_series_and_the_period_are_counted() -> None:
    """False if another series, or a day beside the period, were counted."""
    entries = [
        registered(1, decided_at="2026-07-31"),
        registered(2, decided_at="2026-08-01"),
        registered(3, decided_at="2026-08-31T22:59:59Z"),
        registered(4, decided_at="2026-08-31T23:00:00Z"),
        registered(5, decided_at="2026-08"),
        registered(6, decided_at="2026-08-30/2026-09-01"),
        registered(7, decided_at="2026-07-30/2026-08-01"),
        registered(8, reference={"number": 8, "series": "OTHER"}),
        None,
    ]
    assert judged(entries).counted == Counted(4, 2, 7)


def test_the_latest_version_before_the_return_counts() -> None:
    """False if a correction before the return had no effect, or one after it had."""
    one, two = registered(1), registered(2, decided_at="2026-07-01")
    out, into = corrected(one, decided_at="2026-07-01"), corrected(two, decided_at="2026-08-02")
    assert judged([one, two, out, into, None], count=1, first=2, last=2).findings == ()
    assert judged([one, two, None, out, into]).counted == Counted(1, 1, 1)


def test_a_withdrawn_decision_is_counted_as_it_was() -> None:
    """False if a decision could be made to go away by withdrawing it."""
    one = registered(1)
    assert judged([one, withdrawn(one), None], count=1, first=1, last=1).findings == ()
    assert judged([one, None, withdrawn(one)], count=1, first=1, last=1).findings == ()


@pytest.mark.parametrize(
    ("accepted_at", "early"),
    [("2026-08-31T22:59:59Z", True), ("2026-08-31T23:00:00Z", False), ("2026-08-01T00:00:00Z", True)],
)
def test_a_return_before_the_end_of_its_period_is_early(accepted_at: str, early: bool) -> None:
    """False if a period could be reported on before it was over. Its end is London's."""
    found = judged([registered(124), None], seconds(accepted_at) + 0.999)
    assert kinds(found) == ([(EARLY, (1,))] if early else [])


def test_a_return_of_the_first_moment_after_its_period_is_not_early() -> None:
    """False if the period ended a second later than it does."""
    assert judged([registered(124), None], seconds("2026-08-31T23:00:00Z")).findings == ()


def test_what_comes_after_the_return_is_named() -> None:
    """False if a decision could be slipped into a period that had been reported on."""
    one, two = registered(1), registered(2, decided_at="2026-07-01")
    entries = [
        one,
        two,
        None,
        registered(3),
        registered(4, decided_at="2026-09-01"),
        corrected(one, title="Another title"),
        corrected(one, decided_at="2026-09-01"),
        corrected(two, decided_at="2026-08-05"),
        registered(5, reference={"number": 5, "series": "OTHER"}),
    ]
    found = judged(entries, count=1, first=1, last=1)
    assert kinds(found) == [(ADDED, (2, 3)), (CHANGED, (2, 6)), (CHANGED, (2, 7))]
    assert "out of" in found.findings[1].sentence
    assert "into" in found.findings[2].sentence


def test_a_decision_that_is_added_and_moved_away_stays_named() -> None:
    """False if a correction could hide that a decision of the period came late."""
    late = registered(3)
    found = judged([registered(124), None, late, corrected(late, decided_at="2026-09-09")])
    assert kinds(found) == [(ADDED, (1, 2)), (CHANGED, (1, 3))]


def test_a_number_moved_to_another_series_is_a_change() -> None:
    """False if a decision could leave a return's series unseen, or enter it."""
    one = registered(124)
    other = registered(2, reference={"number": 2, "series": "OTHER"})
    entries = [
        one,
        other,
        None,
        corrected(one, reference={"number": 1, "series": "OTHER"}),
        corrected(other, reference={"number": 2, "series": "MD/2026"}),
    ]
    assert kinds(judged(entries)) == [(CHANGED, (2, 3)), (CHANGED, (2, 4))]
    away = corrected(one, reference={"number": 1, "series": "OTHER"})
    still_away = corrected(away, title="Another title")
    assert kinds(judged([one, None, away, still_away])) == [(CHANGED, (1, 2))]
    assert judged([one, away, None]).counted == Counted(0, None, None)


def test_every_version_of_a_return_is_judged_by_its_own_place() -> None:
    """False if a corrected return made the wrong one disappear."""
    entries = [registered(124), None, registered(125), None]
    second = filed(
        3, count=2, first=124, last=125, version=2, previous={"version": 1, "sha256": "0" * 64}, reason="x"
    )
    assert judge_return(second, versions(entries)).findings == ()
    assert kinds(judge_return(filed(1), versions(entries))) == [(ADDED, (1, 2))]


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.sampled_from(["2026-07-31", "2026-08-01", "2026-08-31"]), st.booleans())
    ),
    st.integers(0, 20),
)
def test_counting_is_to_look_at_each_record(story: list[tuple[int, str, bool]], at: int) -> None:
    """False if what is counted depended on how the register came about."""
    latest: dict[int, bytes] = {}
    gone: set[int] = set()
    entries: list[bytes | None] = []
    for number, decided, withdraws in story:
        if number in gone:
            continue
        before = latest.get(number)
        if before is None:
            latest[number] = registered(number, decided_at=decided)
        elif withdraws:
            gone.add(number)
            entries.append(withdrawn(before))
            continue
        else:
            latest[number] = corrected(before, decided_at=decided)
        entries.append(latest[number])
    at = min(at, len(entries))
    stated: dict[str, str] = {}
    for data in entries[:at]:
        assert data is not None
        record = canonical.parse(data)
        if "decided_at" in record:
            stated[record["record_id"]] = record["decided_at"]
    expected = sum(each.startswith("2026-08") for each in stated.values())
    entries.insert(at, None)
    assert judged(entries).counted.count == expected

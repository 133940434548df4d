"""What detections find, keep and look at grows with the register, and not with its square."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import pytest

from ledger import canonical
from services.auditing.detecting import Detector
from services.auditing.detections import references
from services.auditing.detections.evidence import Use, reused
from services.auditing.detections.references import Void
from services.auditing.detections.returns import MAX_AFTER
from services.auditing.detections.rules import Terms
from services.auditing.found import Found
from tests.support.facts import CALENDAR, STRICT, Record, facts_of, found_in, numbered
from tests.support.records import correction, decision, period_return, record_id, void

DATED = {"decided_at": "2026-08-04", "captured_at": "2026-08-04"}


def in_turns(count: int) -> list[Record]:
    """Return decisions of one month, each followed by a return that counts all so far."""
    records: list[Record] = []
    for number in range(1, count + 1):
        reference = {"number": number, "series": "MD/2026"}
        records.append(decision(record_id=record_id(number), reference=reference, **DATED))
        filed = period_return(series="MD/2026", period="2026-08", count=number, first=1, last=number)
        records.append({**filed, "record_id": record_id(10_000 + number)})
    return records


def of_returns(records: list[Record], what: str) -> list[Found]:
    return [each for each in found_in(facts_of(records)) if each.inputs.get("what") == what]


def test_what_came_after_a_return_is_one_finding_for_each_return() -> None:
    """False if returns and decisions in turn made as many findings as there are pairs of them."""
    found = of_returns(in_turns(120), "added after return")
    assert [each.inputs["return"] for each in found] == [str(index) for index in range(1, 238, 2)]
    assert [int(each.inputs["entries_after"]) for each in found] == list(range(119, 0, -1))
    first, last = found[0], found[-1]
    assert len(first.indices) == MAX_AFTER + 1
    assert first.indices[:4] == (1, 2, 4, 6)
    assert first.indices[-1] == int(first.inputs["last_entry"]) == 238
    assert "Entries 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, … 238 are 119 decisions of the period" in (
        first.explanation
    )
    assert last.explanation == (
        "Entry 238 is a decision of the period, registered after the return at entry 237."
    )


def test_what_was_moved_by_a_return_is_one_finding_as_well() -> None:
    """False if what left the period, or came into it, were told apart from the other, or twice."""
    three = in_turns(3)
    changed = [
        correction(canonical.format(three[0]), decided_at="2026-07-31"),
        correction(canonical.format(three[2]), title="Another title"),
    ]
    back = correction(canonical.format(changed[0]), decided_at="2026-08-04")
    found = of_returns([*three, *changed, back], "changed after return")
    assert [each.indices for each in found] == [(1, 6, 8), (3, 6, 8), (5, 6, 8)]
    assert found[0].explanation == (
        "Entries 6, 8 (2 in all) were moved into or out of what the return at entry 1 counts, by corrections "
        "after it."
    )


def evidenced(count: int) -> list[Record]:
    """Return decisions that all have the same forty documents."""
    items = [{"kind": "email", "media_type": "a/b", "sha256": f"{each:064x}", "size": 1} for each in range(40)]
    return [
        decision(
            record_id=record_id(number),
            reference={"number": number, "series": "MD/2026"},
            evidence=items,
            **DATED,
        )
        for number in range(1, count + 1)
    ]


def test_a_document_is_looked_at_once_however_many_records_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """False if each record had all those before it looked at again, for each of its documents."""
    looked_at: list[int] = []

    def counting(terms: Terms, digest: str, uses: Sequence[Use]) -> Iterator[Found]:
        looked_at.append(len(uses))
        return reused(terms, digest, uses)

    monkeypatch.setattr("services.auditing.remembered.documents.reused", counting)
    facts = facts_of(evidenced(20))
    with Detector(None, STRICT, CALENDAR) as detector:
        detector.observe(facts[:19])
        assert looked_at == []
        at_first = [each for each in detector.found() if each.detection == "DET-26"]
        assert looked_at == [19] * 40
        detector.settle()
        assert len(looked_at) == 40
        detector.observe(facts[19:])
        at_last = [each for each in detector.found() if each.detection == "DET-26"]
        assert looked_at[40:] == [20] * 40
    assert {each.inputs["records"] for each in at_first} == {"19"}
    assert {each.inputs["records"] for each in at_last} == {"20"}
    assert [each.indices for each in at_last] == [tuple(range(20))] * 40


def voided(count: int) -> list[Record]:
    """Return decisions with every fourth number, and a void of one number between each and the next."""
    used = numbered(*range(1, 4 * count, 4))
    voids = [void(first=4 * n + 3, last=4 * n + 3, record_id=record_id(10_000 + n)) for n in range(count)]
    return [*used, *voids]


def lines_of_gaps(count: int) -> int:
    """Return how many lines of code it takes to tell the gaps among so many numbers and voids."""
    voids = [Void(n, 4 * n + 3, 4 * n + 3, "Drafts.", None, None) for n in range(count)]
    used = [(4 * n + 1, 4 * n + 1) for n in range(count)]
    lines = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        lines += event == "line" and frame.f_code.co_filename == references.__file__
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        found = list(references.gaps(used, voids))
    finally:
        sys.settrace(before)
    assert len(found) == 2 * count - 2
    return lines


def test_gaps_are_told_in_one_pass_over_numbers_and_voids() -> None:
    """False if every run of numbers were held against every void."""
    assert lines_of_gaps(200) < 2.5 * lines_of_gaps(100)


def steps_of_settling(records: list[Record]) -> int:
    """Return how many steps the database takes to make the findings about what is not there."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    with Detector(None, STRICT, CALENDAR) as detector:
        detector.observe(facts_of(records))
        detector.settle()
        detector._store._connection.set_progress_handler(step, 1)
        detector.settle()
    return steps


def test_voids_are_settled_without_a_look_at_every_number_for_each() -> None:
    """False if every visit paid for each void with all runs of numbers below it."""
    assert steps_of_settling(voided(400)) < 2.5 * steps_of_settling(voided(200))


def test_what_a_void_covers_is_found_whatever_lies_below_it() -> None:
    """False if a run of numbers that begins below a void and reaches into it were passed over."""
    records = [*numbered(1, 3, 4, 5, 8), void(first=4, last=9)]
    told = [each.inputs for each in found_in(facts_of(records)) if each.detection == "DET-08"]
    used = [(each["first_used"], each["last_used"]) for each in told if each["what"] == "voided and used"]
    assert used == [("4", "5"), ("8", "8")]
    assert [each["numbers"] for each in told if each["what"] == "voided"] == ["6 to 7, 9"]

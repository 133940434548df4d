"""How a visit is made: incrementally, in stretches that a death loses one of, and with bounded findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.auditing import listing
from services.auditing.audit_state import STRETCH, audited_facts, open_audit_state
from services.auditing.calendars import packaged
from services.auditing.detecting import Detector
from services.auditing.examining import Examiner
from services.auditing.profiles import shipped
from services.auditing.results import MAX_SPANS, Source
from services.auditing.second_tree import SecondTree
from tests.support.audited import found, verdict, visit
from tests.support.ledgers import DEPARTMENT_KEY, EPOCH, REGISTER, decision, record_id, submission
from tests.support.monitored import BEGAN, WITNESSED, Monitored, monitored

START = EPOCH - BEGAN


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Monitored]:
    with monitored(tmp_path) as it:
        yield it


class Death(BaseException):
    """What nothing catches."""


def tables(it: Monitored) -> dict[str, list[object]]:
    """Return what the notebook holds of the entries, and what the detections have found."""
    with it.opened() as monitored_state, open_audit_state(monitored_state, it.policy) as state:
        names = ("examined", "counted", "signed", "relation", "rejection", "odd")
        held: dict[str, list[object]] = {
            name: list(state.notebook.rows(f"SELECT * FROM {name} ORDER BY 1, 2, 3")) for name in names
        }
        profile = shipped("daybook-strict")
        calendar = packaged(profile.calendar)
        with Detector(state.detections, profile, calendar, state.bounds_named) as detector:
            held["next"] = [detector.next_index(REGISTER)]
            held["found"] = [each.order for each in detector.found(BEGAN + START + 10**7)]
        return held


@pytest.mark.parametrize("stretches", [1, 2])
@pytest.mark.parametrize("method", ["_facts", "_write"])
async def test_a_death_in_the_middle_loses_nothing_and_counts_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stretches: int, method: str
) -> None:
    """False if what was examined depended on how often an audit was killed, and where.

    `_facts` dies before the detections have taken a stretch, `_write` after that and before the commit.
    """
    profile = shipped("daybook-strict")
    (tmp_path / "whole").mkdir()
    with monitored(tmp_path) as it, monitored(tmp_path / "whole") as whole:
        for each in (it, whole):
            for first in range(0, 4 * STRETCH, 900):
                each.held.add(range(first, first + 900))
            each.publish()
        await visit(whole, profile=profile)
        left = [stretches]
        as_it_is: Callable[..., Any] = getattr(Examiner, method)

        def dying(examiner: Examiner, register: str, *more: Any) -> Any:
            left[0] -= register == REGISTER
            if left[0] < 0:
                raise Death
            return as_it_is(examiner, register, *more)

        monkeypatch.setattr(Examiner, method, dying)
        with pytest.raises(Death):
            await visit(it, profile=profile)
        monkeypatch.undo()
        assert not (await visit(it, profile=profile)).failed
        assert tables(it) == tables(whole)


async def test_only_new_entries_are_examined(it: Monitored, monkeypatch: pytest.MonkeyPatch) -> None:
    """False if every visit cost as much as the first."""
    it.held.fill(3_000)
    it.publish()
    await visit(it)
    taken: list[int] = []
    append = SecondTree.append

    def counted(tree: SecondTree, entries: list[bytes]) -> None:
        taken.append(len(entries))
        append(tree, entries)

    monkeypatch.setattr(SecondTree, "append", counted)
    it.held.fill(3_010)
    it.publish()
    assert verdict(await visit(it)).added == 10
    assert taken == [10]


async def test_under_another_profile_everything_is_looked_at_again(it: Monitored) -> None:
    """False if findings of one profile were reported in the name of another."""
    private = decision(1, channel="whatsapp", device="privately_owned")
    it.held.turn([submission(REGISTER, [private], [DEPARTMENT_KEY])])
    it.publish()
    assert found(await visit(it, profile=shipped("daybook-strict")), "DET-05").source is Source.DETECTION
    first = await visit(it, profile=shipped("cabinet-office-2013"))
    again = await visit(it, profile=shipped("daybook-strict"))
    assert "cabinet-office-2013" in first.profile
    assert found(again, "DET-05").is_new is False


async def test_findings_beyond_those_that_are_listed_are_counted(
    it: Monitored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if a year of one mistake filled the memory, or went unsaid."""
    monkeypatch.setattr(listing, "MAX_LISTED", 5)
    it.held.turn(
        [submission(REGISTER, [decision(number, channel="whatsapp") for number in range(9)], [DEPARTMENT_KEY])]
    )
    it.publish()
    result = await visit(it, profile=shipped("daybook-strict"))
    assert sum(each.code == "DET-05" for each in result.all_findings()) == 5
    assert result.more["DET-05"] == 4


async def test_one_finding_stands_for_all_entries_of_its_kind(it: Monitored) -> None:
    """False if a finding listed a million entries one by one."""
    missing = {"type": "supersedes", "target": {"record_id": record_id(7_000), "version": 1}}
    related: dict[str, Any] = {"relations": [missing]}
    records = [decision(number, **(related if number % 2 else {})) for number in range(300)]
    it.held.turn([submission(REGISTER, records, [DEPARTMENT_KEY])])
    it.publish()
    one = found(await visit(it), "relation-to-nothing")
    assert (one.count, len(one.spans)) == (150, MAX_SPANS)
    assert one.spans[:2] == ((1, 1), (3, 3))


async def test_facts_can_be_read_with_their_bounds_for_a_report(tmp_path: Path) -> None:
    """False if whoever makes the report had to look entries up in another way than the audit did."""
    with monitored(tmp_path, WITNESSED) as it:
        it.held.fill(3)
        it.publish(at=START + 10)
        await visit(it, at=START + 11)
        with it.opened() as monitored_state, open_audit_state(monitored_state, it.policy) as state:
            facts = list(audited_facts(state, REGISTER))
    assert [(fact.index, fact.bounds.not_after) for fact in facts] == [
        (index, EPOCH + 10) for index in range(3)
    ]


async def test_a_visit_that_read_nothing_leaves_nothing_to_compare_with(it: Monitored) -> None:
    """False if an auditor were told that nothing was altered since a visit at which he saw nothing."""
    nothing = await visit(it, at=START)
    assert nothing.verdict.startswith("Nothing could be read")
    it.held.fill(3)
    it.publish()
    result = await visit(it, at=START + 60)
    assert (result.visit, result.previous) == (2, None)
    assert any("This is the first visit with this state" in each for each in result.cannot_claim)
    again = await visit(it, at=START + 120)
    assert again.previous == result.ended
    assert not any("first visit" in each or "earlier visit" in each for each in again.cannot_claim)


async def test_a_register_that_was_left_out_before_is_said_to_be_new(it: Monitored) -> None:
    """False if the first look at a register passed for a second one, since another was read before."""
    other = "department-for-testing/another-office"
    it.held.open_register(other)
    it.held.fill(3)
    it.held.turn([submission(other, [decision(9, register=other)], [DEPARTMENT_KEY])])
    it.publish()
    await visit(it, at=START, registers=[REGISTER])
    result = await visit(it, at=START + 60)
    assert any(f"Nothing of {other} was read at an earlier visit" in each for each in result.cannot_claim)

"""Registers that no witness has seen empty: a ledger may fill one long after the fact, and show it then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.auditing.found import Severity
from services.auditing.results import AuditResult
from services.monitoring.rounds import Limits
from tests.support.audited import codes, found, verdict, visit
from tests.support.ledgers import DEPARTMENT_KEY, EPOCH, POLICY, REGISTER, decision, submission
from tests.support.monitored import BEGAN, WITNESSED, Monitored, monitored

DAY = 86_400
START = EPOCH - BEGAN


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Monitored]:
    with monitored(tmp_path, WITNESSED) as it:
        yield it


def fill(it: Monitored, after: int, count: int = 5) -> None:
    """Register old decisions at once, `after` seconds after `EPOCH`, and have them sealed and anchored."""
    it.held.turns = after
    records = [decision(number, decided_at="2025-06-01") for number in range(count)]
    it.held.turn([submission(REGISTER, records, [DEPARTMENT_KEY])])
    it.publish(at=START + after)
    it.anchor()
    it.publish(at=START + after + 5)


def left_open(result: AuditResult) -> list[str]:
    return [each for each in result.cannot_claim if "while empty" in each]


async def test_a_register_that_stood_open_unseen_and_was_filled_at_once_is_a_finding(it: Monitored) -> None:
    """False if a year of decisions could be registered in one go, and shown, without a word about when."""
    fill(it, after=4 * DAY)
    result = await visit(it, at=START + 4 * DAY + 10)
    unseen = found(result, "unwitnessed-beginning")
    assert (unseen.severity, unseen.is_failure, unseen.register) == (Severity.HIGH, False, REGISTER)
    assert (unseen.spans, unseen.count) == (((0, 4),), 5)
    assert unseen.inputs["waited_seconds"] == str(4 * DAY - 1)
    assert verdict(result).undated == 5
    (said,) = left_open(result)
    assert f"{REGISTER} (5)" in said
    assert "from when 5 entries can be is not proved" in said


async def test_a_register_that_was_sealed_and_anchored_empty_is_none(it: Monitored) -> None:
    """False if what an honest ledger does with every register were held against it."""
    it.publish(at=START + 1)
    it.anchor()
    fill(it, after=4 * DAY)
    result = await visit(it, at=START + 4 * DAY + 10)
    assert "unwitnessed-beginning" not in codes(result)
    assert verdict(result).undated == 0
    assert left_open(result) == []


async def test_a_register_that_grows_faster_than_witnesses_answer_is_left_open_only(it: Monitored) -> None:
    """False if a register whose first entries came in a moment after its opening were suspected."""
    fill(it, after=it.limits.anchor_within)
    result = await visit(it, at=START + it.limits.anchor_within + 10)
    assert "unwitnessed-beginning" not in codes(result)
    assert len(left_open(result)) == 1


async def test_what_came_before_the_first_sealed_checkpoint_is_counted_and_nothing_else(it: Monitored) -> None:
    """False if entries that witnesses date were counted among those that nobody does."""
    it.limits = Limits(anchor_within=100 * DAY, patience=0)
    fill(it, after=4 * DAY)
    it.held.add([7, 8])
    it.publish(at=START + 4 * DAY + 50)
    result = await visit(it, at=START + 4 * DAY + 60)
    assert (verdict(result).size, verdict(result).undated) == (7, 5)


async def test_without_witnesses_it_is_said_of_all_and_of_no_register(tmp_path: Path) -> None:
    """False if the same were said twice to whoever asks no witness."""
    with monitored(tmp_path, POLICY) as it:
        it.held.turns = 4 * DAY
        it.held.add(range(5))
        it.publish()
        result = await visit(it, at=START + 5 * DAY)
        assert "unwitnessed-beginning" not in codes(result)
        assert left_open(result) == []
        assert verdict(result).undated == 0

"""Promises that are not kept yet: open, overdue, or broken, by what the register shows and nothing else.

An honest ledger may be slow, stand still, and have its checkpoints cosigned again. A lying one withholds what
it has acknowledged, says of everything else that it came before, or dates its promises ahead.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.admission import instant
from ledger.entries import Acceptance, accept
from services.auditing.results import Promises
from services.monitoring.rounds import Limits
from tests.services.auditing.test_audit_findings import START, acknowledge, append, one
from tests.support.audited import codes, found, visit
from tests.support.ledger_story import SECOND
from tests.support.ledgers import DEPARTMENT_KEY, EPOCH, REGISTER, decision, submission
from tests.support.monitored import WITNESSED, Monitored, monitored, seal, sign

DAY = 86_400


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Monitored]:
    with monitored(tmp_path, WITNESSED) as it:
        it.limits = Limits(anchor_within=100 * DAY, patience=0)
        it.held.fill(3)
        it.publish(at=START + 3)
        yield it


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Monitored]:
    """A ledger without witnesses."""
    with monitored(tmp_path) as it:
        it.limits = Limits(patience=0)
        it.held.fill(3)
        it.publish()
        yield it


class Appended:
    """A register that grows by single submissions, each accepted and sealed when a test says."""

    def __init__(self, it: Monitored) -> None:
        self._it = it
        self._entries = it.entries(REGISTER)

    def add(self, number: int, at: int, sealed: int) -> None:
        accepted = Acceptance(instant(EPOCH + at), "anonymous", 3)
        self._entries += accept(one(number), accepted).entries
        note = sign(REGISTER, self._entries)
        sealing = self._it.policy is WITNESSED
        self._it.site.put(REGISTER, self._entries, seal(note, START + sealed) if sealing else note)


async def test_a_register_that_stands_still_breaks_no_promise(alone: Monitored, tmp_path: Path) -> None:
    """False if the moment at which an auditor happens to come proved something against a ledger."""
    acknowledge(tmp_path / "receipts", one(50), at=5)
    result = await visit(alone, at=START + 605, acknowledgements=tmp_path / "receipts")
    assert result.promises == Promises(files=1, open=1)
    assert codes(result) == set()


async def test_a_promise_that_stays_open_is_overdue_after_a_day(alone: Monitored, tmp_path: Path) -> None:
    """False if what never comes went unsaid, as long as nothing else comes either."""
    acknowledge(tmp_path / "receipts", one(50), at=5)
    result = await visit(alone, at=START + 2 * DAY, acknowledgements=tmp_path / "receipts")
    assert result.promises == Promises(files=1, open=1)
    assert codes(result) == {"promise-overdue"}
    assert not result.failed


async def test_what_was_accepted_before_may_come_before(it: Monitored, tmp_path: Path) -> None:
    """False if a ledger that works through a queue were caught in the middle of it."""
    register = Appended(it)
    acknowledge(tmp_path / "receipts", one(50), at=500)
    it.refresh(REGISTER, START + 900)
    await visit(it, at=START + 901)
    register.add(49, at=495, sealed=910)
    result = await visit(it, at=START + 911, acknowledgements=tmp_path / "receipts")
    assert result.promises == Promises(files=1, open=1)
    register.add(50, at=500, sealed=920)
    result = await visit(it, at=START + 921, acknowledgements=tmp_path / "receipts")
    assert result.promises == Promises(files=1, kept=1)


async def test_a_queue_of_days_breaks_no_promise_while_it_is_worked_through(
    it: Monitored, tmp_path: Path
) -> None:
    """False if a ledger whose sequencer was away for days had broken what it is about to keep."""
    register = Appended(it)
    acknowledge(tmp_path / "receipts", one(50), at=500)
    it.refresh(REGISTER, START + 3 * DAY)
    await visit(it, at=START + 3 * DAY + 1)
    register.add(48, at=400, sealed=3 * DAY + 10)
    await visit(it, at=START + 3 * DAY + 11)
    register.add(49, at=450, sealed=3 * DAY + 20)
    result = await visit(it, at=START + 3 * DAY + 21, acknowledgements=tmp_path / "receipts")
    assert result.promises == Promises(files=1, open=1)
    assert "broken-promise" not in codes(result)


async def test_a_ledger_that_back_dates_all_else_is_caught_by_the_witnesses(
    it: Monitored, tmp_path: Path
) -> None:
    """False if one submission could be withheld for ever by saying of every other one that it came before."""
    register = Appended(it)
    acknowledge(tmp_path / "receipts", one(50), at=500)
    it.refresh(REGISTER, START + 2 * DAY)
    await visit(it, at=START + 2 * DAY + 1)
    for day in (3, 4, 5):
        register.add(50 + day, at=400, sealed=day * DAY)
        result = await visit(it, at=START + day * DAY + 1, acknowledgements=tmp_path / "receipts")
        assert result.promises is not None
        # What came in on the fourth day may have been of one queue with what came in on the third.
        assert result.promises.broken == (day == 5)
    assert "your witnesses saw it" in found(result, "broken-promise").what
    assert result.failed


async def test_a_ledger_that_back_dates_all_else_is_caught_by_whoever_was_there(
    alone: Monitored, tmp_path: Path
) -> None:
    """False if an auditor without witnesses had to believe that what is new to him is old."""
    register = Appended(alone)
    acknowledge(tmp_path / "receipts", one(50), at=500)
    await visit(alone, at=START + 2 * DAY)
    for day in (3, 4, 5):
        register.add(50 + day, at=400, sealed=0)
        result = await visit(alone, at=START + day * DAY, acknowledgements=tmp_path / "receipts")
        assert result.promises is not None
        assert result.promises.broken == (day == 5)
    assert "you saw it" in found(result, "broken-promise").what


async def test_a_claim_that_is_still_to_come_proves_nothing(alone: Monitored, tmp_path: Path) -> None:
    """False if one wrong clock in the ledger broke every promise that is older than it says."""
    register = Appended(alone)
    register.add(49, at=90 * DAY, sealed=0)
    acknowledge(tmp_path / "receipts", one(50), at=5)
    result = await visit(alone, at=START + 600, acknowledgements=tmp_path / "receipts")
    assert result.promises == Promises(files=1, open=1)
    assert "broken-promise" not in codes(result)


async def test_what_witnesses_knew_before_the_promise_is_not_later_than_it(
    it: Monitored, tmp_path: Path
) -> None:
    """False if an entry that claims too late a time counted as one that came later."""
    register = Appended(it)
    register.add(49, at=5_000, sealed=10)
    acknowledge(tmp_path / "receipts", one(50), at=500)
    result = await visit(it, at=START + 6_000, acknowledgements=tmp_path / "receipts")
    assert result.promises == Promises(files=1, open=1)
    assert not result.failed


async def test_a_promise_that_is_dated_ahead_is_told(it: Monitored, tmp_path: Path) -> None:
    """False if a ledger could make promises that it has years to break."""
    acknowledge(tmp_path / "receipts", one(50), at=3_000 * DAY)
    append(it, REGISTER, one(51), at=900, view=3, sealed=1_000)
    result = await visit(it, at=START + 1_001, acknowledgements=tmp_path / "receipts")
    assert result.promises == Promises(files=1, open=1)
    assert codes(result) == {"acknowledgement-ahead"}


# Registers that are not there


async def test_a_register_whose_opening_is_not_sealed_yet_is_waited_for(it: Monitored, tmp_path: Path) -> None:
    """False if a new office's first submission were a broken promise until its governing entry is sealed."""
    promised = submission(SECOND, [decision(1, register=SECOND)], [DEPARTMENT_KEY])
    acknowledge(tmp_path / "receipts", promised, at=20)
    result = await visit(it, at=START + 30, acknowledgements=tmp_path / "receipts")
    assert result.promises == Promises(files=1, unread=1)
    assert codes(result) == set()


async def test_a_register_that_is_never_opened_breaks_a_promise(it: Monitored, tmp_path: Path) -> None:
    """False if a ledger could acknowledge what it has no place for."""
    nowhere = submission(SECOND, [decision(1, register=SECOND)], [DEPARTMENT_KEY])
    acknowledge(tmp_path / "receipts", nowhere, at=20)
    it.held.turns = 2_000
    it.held.open_register("department-for-testing/other")
    it.publish(at=START + 2_010)
    result = await visit(it, at=START + 2_011, acknowledgements=tmp_path / "receipts")
    assert result.promises == Promises(files=1, broken=1)
    assert "the ledger has no such register" in found(result, "broken-promise").what


# What supports an early time


async def test_a_later_acknowledgement_supports_no_earlier_time(it: Monitored, tmp_path: Path) -> None:
    """False if back-dating were excused by a promise of hours later."""
    it.refresh(REGISTER, START + 5_000)
    await visit(it, at=START + 5_001)
    append(it, REGISTER, one(50), at=100, view=3, sealed=6_000)
    acknowledge(tmp_path / "receipts", one(50), at=4_990)
    result = await visit(it, at=START + 6_001, acknowledgements=tmp_path / "receipts")
    assert codes(result) == {"claimed-earlier"}


async def test_what_was_supported_once_stays_so_without_the_acknowledgement(
    it: Monitored, tmp_path: Path
) -> None:
    """False if an entry became suspect again when it was looked at under better bounds."""
    it.refresh(REGISTER, START + 5_000)
    await visit(it, at=START + 5_001)
    append(it, REGISTER, one(50), at=100, view=3, sealed=6_000)
    acknowledge(tmp_path / "receipts", one(50), at=350)
    result = await visit(it, at=START + 6_001, acknowledgements=tmp_path / "receipts")
    assert codes(result) == {"claimed-earlier-acknowledged"}
    # The register as it was, as late as 5,500 s: that narrows the window.
    kept = tmp_path / "kept.note"
    kept.write_bytes(seal(it.held.published.latest(REGISTER).note, START + 5_500))
    result = await visit(it, at=START + 6_010, kept=[kept])
    assert codes(result) == {"claimed-earlier-acknowledged"}
    assert instant(EPOCH + 5_500).partition(".")[0] in found(result, "claimed-earlier-acknowledged").what

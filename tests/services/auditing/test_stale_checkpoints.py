"""A register of which only an old checkpoint is served: nobody can say that nothing was added."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.governing import GOVERNING
from services.auditing.found import Severity
from services.auditing.profiles import shipped
from services.monitoring.rounds import Limits
from tests.services.auditing.test_audit_findings import START
from tests.support.audited import codes, found, verdict, visit
from tests.support.ledgers import REGISTER
from tests.support.monitored import WITNESSED, Monitored, monitored, seal
from tests.support.tiled_site import status

DAY = 86_400


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Monitored]:
    with monitored(tmp_path, WITNESSED) as it:
        it.limits = Limits(anchor_within=10**9, patience=0)
        it.held.fill(3)
        it.publish(at=START + 60)
        yield it


async def test_a_checkpoint_that_was_sealed_long_ago_is_told(it: Monitored) -> None:
    """False if a register that is kept as it was 200 days ago were called intact, and that was all."""
    assert codes(await visit(it, at=START + 61)) == set()
    it.refresh(GOVERNING, START + 200 * DAY)
    result = await visit(it, at=START + 200 * DAY + 1)
    stale = found(result, "stale-checkpoint")
    assert (stale.register, stale.severity, stale.is_failure) == (REGISTER, Severity.HIGH, False)
    assert stale.inputs["waited_seconds"] == str(200 * DAY + 1 - 60)
    assert "in what was served, sealed 2026-05-28T20:27:40Z, nothing was added" in verdict(result).verdict
    (left,) = (each for each in result.cannot_claim if "old checkpoints" in each)
    assert REGISTER in left
    assert GOVERNING not in left
    assert not result.failed


async def test_a_first_visit_is_told_as_well(it: Monitored) -> None:
    """False if whoever comes for the first time could be shown last year's register as today's."""
    assert "stale-checkpoint" in codes(await visit(it, at=START + 200 * DAY))


async def test_a_register_that_stands_still_and_is_cosigned_anew_is_not_stale(it: Monitored) -> None:
    """False if an office that decides nothing were suspected of hiding it."""
    await visit(it, at=START + 61)
    for register in (GOVERNING, REGISTER):
        it.refresh(register, START + 200 * DAY)
    result = await visit(it, at=START + 200 * DAY + 1)
    assert codes(result) == set()
    assert "in what was served, sealed 2026-12-14T20:26:40Z, nothing was added" in verdict(result).verdict


async def test_one_fresh_witness_does_not_make_an_old_checkpoint_new(it: Monitored) -> None:
    """False if less than a quorum sufficed to pass the old for the present."""
    it.refresh(GOVERNING, START + 200 * DAY)
    old = seal(it.held.published.latest(REGISTER).note, START + 60, ["one"])
    it.site.files[f"/logs/{REGISTER}/checkpoint"] = seal(old, START + 200 * DAY, ["two"])
    assert found(await visit(it, at=START + 200 * DAY + 1), "stale-checkpoint").register == REGISTER


async def test_how_old_is_too_old_comes_from_the_profile(it: Monitored) -> None:
    """False if a day were written into the program."""
    limit = shipped("daybook-strict").detections.unwitnessed
    assert limit is not None
    assert "stale-checkpoint" not in codes(await visit(it, at=START + 60 + limit.seconds))
    assert "stale-checkpoint" in codes(await visit(it, at=START + 61 + limit.seconds))


async def test_what_could_not_be_fetched_is_not_called_stale(it: Monitored) -> None:
    """False if a network that is down were taken for a ledger that serves the old."""
    await visit(it, at=START + 61)
    it.refresh(GOVERNING, START + 200 * DAY)
    it.site.answers[f"/logs/{REGISTER}/checkpoint"] = status(503)
    result = await visit(it, at=START + 200 * DAY + 1)
    assert "stale-checkpoint" not in codes(result)
    assert "Nothing is said" in verdict(result).verdict


async def test_without_witnesses_nothing_is_said_of_how_old_it_is(tmp_path: Path) -> None:
    """False if an auditor were not told that he cannot know whether he was shown the newest."""
    with monitored(tmp_path) as it:
        it.held.fill(3)
        it.publish()
        await visit(it, at=START + 61)
        result = await visit(it, at=START + 200 * DAY)
    assert codes(result) == set()
    assert "in what was served nothing was added" in verdict(result).verdict
    assert any("how old it is what you were served" in each for each in result.cannot_claim)

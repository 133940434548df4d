"""What an auditor is told of a ledger: verdict first, and only what he can claim."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.governing import GOVERNING
from services.auditing import second_tree
from services.auditing.kept_checkpoints import KeptCheckpointError
from services.auditing.results import Standing
from services.auditing.visit import UnknownRegisterError
from tests.support.audited import codes, found, verdict, visit
from tests.support.ledger_story import SECOND
from tests.support.ledgers import REGISTER
from tests.support.monitored import WITNESSED, Monitored, monitored, sign
from tests.support.tiled_site import status


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Monitored]:
    with monitored(tmp_path) as it:
        it.held.fill(300)
        it.publish()
        yield it


async def test_a_first_visit_says_that_nothing_earlier_could_be_compared(it: Monitored) -> None:
    """False if an auditor were told of a past that his state knows nothing of."""
    result = await visit(it)
    assert not result.failed
    assert [each.standing for each in result.registers] == [Standing.INTACT, Standing.INTACT]
    assert "first visit" in verdict(result).verdict
    assert "since your last visit" not in verdict(result).verdict
    assert any("cannot be told" in each for each in result.cannot_claim)
    assert any("no witness" in each for each in result.cannot_claim)


async def test_a_second_visit_says_what_was_added_and_that_nothing_else_changed(it: Monitored) -> None:
    """False if growth and alteration were not told apart."""
    await visit(it, at=10)
    it.held.fill(305)
    it.publish()
    result = await visit(it, at=3_600)
    assert verdict(result).verdict == (
        "Nothing was altered or removed since your last visit on 2023-11-14T22:13:30Z; 5 entries were added, "
        "and all 305 entries hold together."
    )
    assert (verdict(result).before, verdict(result).size, verdict(result).added) == (300, 305, 5)
    assert verdict(result).counts.decisions == 305
    assert (result.visit, result.previous) == (2, 1_700_000_010)
    assert "nothing was added" in verdict(result, GOVERNING).verdict


async def test_an_integrity_failure_is_the_verdict_and_stays_it(it: Monitored) -> None:
    """False if a fork that was proved once were forgotten when the ledger shows its first face again."""
    await visit(it)
    honest = dict(it.site.files)
    entries = it.entries(REGISTER)[:200]
    it.site.put(REGISTER, [*entries, *reversed(it.entries(REGISTER)[200:])], b"")
    it.site.files[f"/logs/{REGISTER}/checkpoint"] = sign(
        REGISTER, [*entries, *reversed(it.entries(REGISTER)[200:])]
    )
    result = await visit(it)
    assert result.failed
    assert verdict(result).standing is Standing.FAILED
    assert verdict(result).verdict.startswith("Do not rely on this register: the ledger has signed two")
    fork = found(result, "fork")
    assert fork.is_proof
    assert fork.evidence.startswith(str(it.state))
    assert "--check" in fork.recheck
    it.site.files = honest
    again = await visit(it)
    assert again.failed
    assert "earlier visit" in found(again, "fork").what


async def test_what_could_not_be_read_is_not_called_intact(it: Monitored) -> None:
    """False if an office whose records are not served passed for one without changes."""
    await visit(it)
    it.held.fill(310)
    it.publish()
    it.site.answers[f"/logs/{REGISTER}/tile/entries/001.p/54"] = status(403)
    result = await visit(it)
    assert not result.failed
    assert verdict(result).standing is Standing.UNREAD
    assert "Nothing is said" in verdict(result).verdict
    assert any("not affected" in each for each in result.cannot_claim)
    # And what was read later is compared with the visit that was whole.
    it.site.answers.clear()
    assert verdict(await visit(it)).before == 300


async def test_a_governing_register_that_fails_leaves_no_other_verdict(it: Monitored) -> None:
    """False if records were called authorised when who may write is itself in doubt."""
    await visit(it)
    it.site.put(GOVERNING, it.entries(GOVERNING)[:2], sign(GOVERNING, it.entries(GOVERNING)[:2]))
    result = await visit(it)
    assert verdict(result, GOVERNING).standing is Standing.FAILED
    assert verdict(result).standing is Standing.UNREAD


async def test_only_the_registers_that_are_asked_for_are_read(it: Monitored) -> None:
    """False if an auditor of one office had to read all others, or were told about them."""
    it.held.open_register(SECOND)
    it.held.add(range(7), SECOND)
    it.publish()
    result = await visit(it, registers=[SECOND])
    assert [each.register for each in result.registers] == [GOVERNING, SECOND]
    assert verdict(result, SECOND).size == 7
    assert it.mirrored()[REGISTER] == []
    assert any(
        f"1 register was not asked for, and nothing is said of its entries: {REGISTER}" in each
        for each in result.cannot_claim
    )
    # The rest can be asked for later, and what is kept from view is found all the same.
    assert verdict(await visit(it)).size == 300
    del it.site.files[f"/logs/{REGISTER}/checkpoint"]
    assert codes(await visit(it, registers=[SECOND])) == {"hidden"}


async def test_a_register_that_nobody_opened_cannot_be_asked_for(it: Monitored) -> None:
    """False if a typing error in a name looked like a clean audit."""
    with pytest.raises(UnknownRegisterError, match=REGISTER):
        await visit(it, registers=["department-for-testing/nobody"])


async def test_a_second_tree_that_differs_is_a_finding_of_its_own(
    it: Monitored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if the second implementation were computed and not compared."""
    assert not (await visit(it)).failed
    it.held.fill(400)
    it.publish()
    # As if one of the two libraries were wrong about nodes.
    monkeypatch.setattr(second_tree.SecondTree, "root", lambda _self: b"\x00" * 32)
    result = await visit(it)
    assert {each.register for each in result.all_findings() if each.code == "second-tree"} == {
        GOVERNING,
        REGISTER,
    }
    assert result.failed
    assert verdict(result).standing is Standing.FAILED


async def test_witnesses_and_when_it_was_sealed_are_told(tmp_path: Path) -> None:
    """False if a reader could not see on whose word times rest."""
    with monitored(tmp_path, WITNESSED) as it:
        it.held.fill(3)
        it.publish(at=60)
        result = await visit(it, at=61)
    assert result.witnessed
    assert result.comparable
    assert verdict(result).cosigned_by == ("one", "two")
    assert verdict(result).sealed_at == 1_700_000_060
    assert not any("no witness" in each for each in result.cannot_claim)


# Lost states


async def test_a_checkpoint_that_was_kept_stands_in_for_a_lost_state(it: Monitored, tmp_path: Path) -> None:
    """False if whoever lost his state could not use what he had kept of it."""
    kept = tmp_path / "kept.note"
    kept.write_bytes(it.notes[REGISTER])
    it.held.fill(302)
    it.publish()
    result = await visit(it, kept=[kept])
    assert (
        "since the checkpoint of 300 entries that you had kept; 2 entries were added" in verdict(result).verdict
    )
    assert [(each.register, each.size, each.agrees) for each in result.kept] == [(REGISTER, 300, True)]
    (left,) = (each for each in result.cannot_claim if "first visit" in each)
    assert f"anything of {GOVERNING} was" in left


@pytest.mark.parametrize("size", [100, 301, 400])
async def test_a_kept_checkpoint_of_another_history_is_a_fork(it: Monitored, tmp_path: Path, size: int) -> None:
    """False if a new history could be shown to whoever had lost his state but for one note."""
    other = [*it.entries(REGISTER)[:50], *it.entries(REGISTER)[60:], *it.entries(REGISTER)[:110]][:size]
    kept = tmp_path / "kept.note"
    kept.write_bytes(sign(REGISTER, other))
    it.held.fill(410)
    it.publish()
    result = await visit(it, kept=[kept])
    assert result.failed
    assert found(result, "fork").is_proof
    assert "since" not in verdict(result).verdict


async def test_less_than_a_kept_checkpoint_is_a_rollback(it: Monitored, tmp_path: Path) -> None:
    """False if yesterday's copy could be shown to whoever has lost his state."""
    kept = tmp_path / "kept.note"
    kept.write_bytes(it.notes[REGISTER])
    entries = it.entries(REGISTER)[:120]
    it.site.put(REGISTER, entries, sign(REGISTER, entries))
    result = await visit(it, kept=[kept])
    assert codes(result) == {"rollback"}


async def test_a_kept_checkpoint_shows_that_a_state_is_an_older_copy(tmp_path: Path) -> None:
    """False if an auditor who restored an old state were told that it was the last visit's."""
    with monitored(tmp_path, WITNESSED) as it:
        it.held.fill(3)
        it.publish(at=60)
        await visit(it, at=61)
        it.held.fill(5)
        it.publish(at=500)
        kept = tmp_path / "kept.note"
        kept.write_bytes(it.notes[REGISTER])
        it.held.fill(6)
        it.publish(at=900)
        result = await visit(it, at=901, kept=[kept])
    assert any("older copy" in each for each in result.cannot_claim)
    assert "checkpoint of 5 entries that you had kept" in verdict(result).verdict


async def test_a_note_that_the_ledger_has_not_signed_is_refused(it: Monitored, tmp_path: Path) -> None:
    """False if anybody's note could stand in for the auditor's own memory."""
    kept = tmp_path / "kept.note"
    kept.write_bytes(it.notes[REGISTER].replace(b"\n300\n", b"\n200\n"))
    with pytest.raises(KeptCheckpointError):
        await visit(it, kept=[kept])

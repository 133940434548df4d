"""Rounds over an honest ledger: everything is read, nothing is found, whatever its size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.governing import GOVERNING
from services.monitoring.following import STRETCH
from services.monitoring.rounds import Limits
from tests.support.ledger_story import SECOND
from tests.support.ledgers import REGISTER
from tests.support.monitored import Monitored, monitored
from tests.support.tiled_site import status


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Monitored]:
    with monitored(tmp_path) as it:
        yield it


async def clean_round(it: Monitored) -> None:
    """Make a round that finds nothing, and has then just what the ledger has."""
    made = await it.round()
    assert (made.findings, made.troubles) == ([], [])
    held = it.held.ledger.heads()
    assert it.mirrored() == {name: it.entries(name) for name in held}
    with it.opened() as state:
        assert state.mirror.heads() == held


async def test_growth_over_every_border_of_a_tile_is_followed(it: Monitored) -> None:
    """False if an honest ledger were accused when a tile fills up, or an entry of it were missed."""
    for size in (0, 1, 2, 255, 256, 257, 511, 513):
        it.held.fill(size)
        it.publish()
        await clean_round(it)


async def test_many_entries_are_read_in_stretches_that_no_submission_is_divided_by(it: Monitored) -> None:
    """False if a submission across the end of a stretch were taken for one that is not all there."""
    for first in range(0, 3 * STRETCH, 900):
        it.held.add(range(first, min(first + 900, 3 * STRETCH)))
    it.publish()
    await clean_round(it)
    it.held.fill(3 * STRETCH + 1)
    it.publish()
    await clean_round(it)


async def test_registers_are_opened_and_closed_while_it_follows(it: Monitored) -> None:
    """False if a register that opens later were not followed, or one that ends were taken for hidden."""
    it.publish()
    await clean_round(it)
    it.held.open_register(SECOND)
    it.held.add(range(3), SECOND)
    it.publish()
    await clean_round(it)
    it.held.govern("register.closed/1", name=SECOND, size=3, reason="The office was abolished.")
    it.publish()
    await clean_round(it)
    assert set(it.mirrored()) == {GOVERNING, REGISTER, SECOND}


async def test_a_round_tells_what_was_there_before_and_what_is_now(it: Monitored) -> None:
    """False if a person could not see what has changed, or that a state is new."""
    it.held.fill(3)
    it.publish()
    made = await it.round()
    assert made.is_first
    assert {(each.register, each.before, each.size) for each in made.followed} == {
        (GOVERNING, 0, 3),
        (REGISTER, 0, 3),
    }
    it.held.fill(5)
    it.publish()
    made = await it.round()
    assert not made.is_first
    assert (made.followed[1].before, made.followed[1].size) == (3, 5)


async def test_only_what_is_new_is_read(it: Monitored) -> None:
    """False if every round read a whole ledger again."""
    it.limits = Limits(patience=0, reread=0)
    it.held.fill(600)
    it.publish()
    await clean_round(it)
    it.held.fill(601)
    it.publish()
    it.site.asked.clear()
    await clean_round(it)
    entries = [path for path in it.site.asked if "/entries/" in path]
    assert entries == [f"/logs/{REGISTER}/tile/entries/002.p/89"]


async def test_partial_tiles_that_are_gone_are_cut_from_the_full_ones(it: Monitored) -> None:
    """False if a server that drops partial tiles once they are full, as it may, were accused."""
    it.held.fill(200)
    it.publish()
    old = {path: data for path, data in it.site.files.items() if path.endswith("/checkpoint")}
    it.held.fill(300)
    it.publish()
    it.site.files = {path: data for path, data in it.site.files.items() if ".p/200" not in path} | old
    made = await it.round()
    assert made.findings == []
    assert made.followed[1].size == 200


async def test_old_bundles_are_read_again_all_of_them_in_the_long_run(it: Monitored) -> None:
    """False if something that was read once were never looked at again."""
    it.limits = Limits(patience=0, reread=2)
    it.held.fill(1_500)
    it.publish()
    await clean_round(it)
    it.site.asked.clear()
    for _ in range(4):
        await clean_round(it)
    again = {path for path in it.site.asked if "/entries/" in path}
    assert len(again) == 7  # six of the register, one of the governing register


async def test_a_server_that_fails_for_a_while_is_waited_for(it: Monitored) -> None:
    """False if trouble of the network were an integrity failure, or were passed over in silence."""
    it.held.fill(10)
    it.publish()
    path = f"/logs/{REGISTER}/tile/entries/000.p/10"
    it.site.answers[path] = status(403)
    made = await it.round()
    assert made.findings == []
    assert [each.register for each in made.troubles] == [REGISTER]
    assert "403" in made.troubles[0].why
    del it.site.answers[path]
    await clean_round(it)


async def test_no_list_of_registers_is_no_finding(it: Monitored) -> None:
    """False if a ledger that is served as plain files, without the operator's list, were accused."""
    it.publish()
    del it.site.files["/registers.json"]
    made = await it.round()
    assert made.findings == []
    assert made.remarks


async def test_what_was_read_before_a_checkpoint_was_withheld_is_gone_on_with(it: Monitored) -> None:
    """False if a death, or a gap, in the middle of a long way cost all of it."""
    it.limits = Limits(patience=0, reread=0)
    it.held.fill(2 * STRETCH)
    it.publish()
    late = f"/logs/{REGISTER}/tile/entries/020"
    it.site.answers[late] = status(403)
    made = await it.round()
    assert made.findings == []
    reached = made.followed[1].size
    assert STRETCH - 1_000 < reached <= 20 * 256
    del it.site.answers[late]
    it.site.asked.clear()
    await clean_round(it)
    assert f"/logs/{REGISTER}/tile/entries/000" not in it.site.asked

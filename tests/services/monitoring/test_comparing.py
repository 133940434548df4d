"""Gossip: two monitors that were shown two histories find the proof when they compare what they saw."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from ledger.errors import StoreError
from ledger.split_views import SplitView, verify_split_view
from services.monitoring.comparing import Comparison, compare_states
from services.monitoring.findings import Kind, check, keep
from services.monitoring.following import STRETCH
from services.monitoring.state import StateDirectory, StateError
from tests.support.ledgers import ORIGIN, POLICY, REGISTER
from tests.support.monitored import BEGAN, WITNESSED, Monitored, monitored, sign
from tests.support.tiled_site import status


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Monitored]:
    """What we are shown."""
    (tmp_path / "ours").mkdir()
    with monitored(tmp_path / "ours") as it:
        yield it


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Monitored]:
    """What somebody else is shown: by the same keys, and at first the same."""
    (tmp_path / "theirs").mkdir()
    with monitored(tmp_path / "theirs") as it:
        yield it


async def see(it: Monitored, numbers: Sequence[int]) -> None:
    """Register decisions, 900 together, and have the monitor read them."""
    for start in range(0, len(numbers), 900):
        it.held.add(numbers[start : start + 900])
    it.publish()
    assert (await it.round()).findings == []


def compared(ours: Monitored, theirs: Monitored) -> Comparison:
    with ours.opened() as state:
        return compare_states(state, theirs.state, POLICY)


async def test_two_who_saw_the_same_agree(ours: Monitored, theirs: Monitored) -> None:
    """False if honest ledgers were accused by comparing."""
    for it in (ours, theirs):
        await see(it, range(5))
        await see(it, range(5, 300))
    await see(theirs, range(300, 400))
    for one, other in ((ours, theirs), (theirs, ours)):
        made = compared(one, other)
        assert (made.findings, made.undecided, made.ignored) == ([], [], 0)
        assert made.registers == {"governing", REGISTER}
        assert made.checkpoints >= 3


@pytest.mark.parametrize("more", [0, 1, 100, 212, 213, STRETCH + 1])
@pytest.mark.parametrize("common", [0, 7, 256])
async def test_a_split_view_becomes_a_proof_whoever_has_more(
    ours: Monitored, theirs: Monitored, tmp_path: Path, common: int, more: int
) -> None:
    """False if two people with two histories in their hands had no proof of it, whichever is longer."""
    if common:
        for it in (ours, theirs):
            await see(it, range(common))
    await see(ours, range(common, common + 43))
    await see(theirs, range(10_000, 10_043 + more))
    for one, other in ((ours, theirs), (theirs, ours)):
        made = compared(one, other)
        assert [(each.kind, each.register) for each in made.findings] == [(Kind.FORK, REGISTER)]
        assert made.undecided == []
        (finding,) = made.findings
        assert isinstance(finding.proof, SplitView)
        assert verify_split_view(finding.proof, POLICY).size == common + 43
        # It convinces somebody who has neither of the two states, nor trusts either witness.
        path = keep(tmp_path / "evidence", ORIGIN, finding, BEGAN)
        assert f"first {common + 43} entries" in check(path.read_bytes(), POLICY).proved
    # The other's state was only read.
    assert not list(theirs.state.glob("compare-*"))
    assert not theirs.state.joinpath("evidence").exists()


async def test_what_only_one_has_signed_notes_of_is_not_decided(ours: Monitored, theirs: Monitored) -> None:
    """False if a comparison that was not made passed for one that found nothing."""
    for it in (ours, theirs):
        await see(it, range(10))
    theirs.held.fill(20)
    theirs.publish()
    theirs.site.answers[f"/logs/{REGISTER}/tile/entries/000.p/20"] = status(403)
    assert (await theirs.round()).troubles
    made = compared(ours, theirs)
    assert made.findings == []
    assert len(made.undecided) == 1


async def test_what_we_have_not_read_above_theirs_is_not_decided(ours: Monitored, theirs: Monitored) -> None:
    """False if a larger checkpoint of ours, whose entries are withheld, passed for one that agrees."""
    for it in (ours, theirs):
        await see(it, range(4))
    await see(theirs, range(4, 7))
    ours.held.add(range(104, 110))
    ours.publish()
    ours.site.answers[f"/logs/{REGISTER}/tile/entries/000.p/10"] = status(403)
    assert (await ours.round()).troubles
    made = compared(ours, theirs)
    assert made.findings == []
    assert len(made.undecided) == 1


async def test_notes_that_the_ledger_has_not_signed_are_ignored(ours: Monitored, theirs: Monitored) -> None:
    """False if somebody could accuse a ledger with notes that he made himself."""
    for it in (ours, theirs):
        await see(it, range(10))
    rewrite_seen(theirs, sign(REGISTER, [b"x"] * 10)[:-10] + b"AAAAAAAA=\n")
    made = compared(ours, theirs)
    assert (made.findings, made.ignored) == ([], 1)


async def test_a_note_under_another_size_than_its_own_is_ignored(ours: Monitored, theirs: Monitored) -> None:
    """False if a row could say of a note what the note does not."""
    for it in (ours, theirs):
        await see(it, range(10))
    rewrite_seen(theirs, sign(REGISTER, ours.entries(REGISTER)[:7]))
    assert compared(ours, theirs).ignored == 1


async def test_without_a_mirror_the_others_notes_still_count(ours: Monitored, theirs: Monitored) -> None:
    """False if a few notes, all that somebody may have kept, proved nothing."""
    await see(ours, range(50))
    await see(theirs, range(100, 130))
    StateDirectory(theirs.state).mirror.unlink()
    (finding,) = compared(ours, theirs).findings
    assert finding.kind is Kind.FORK


async def test_a_lying_mirror_proves_nothing(ours: Monitored, theirs: Monitored) -> None:
    """False if hashes that anybody can write could accuse a ledger that has done nothing wrong."""
    for it in (ours, theirs):
        await see(it, range(10))
    await see(theirs, range(10, 20))
    with sqlite3.connect(StateDirectory(theirs.state).mirror) as connection:
        connection.execute("UPDATE tile SET hashes = zeroblob(length(hashes))")
    connection.close()
    made = compared(ours, theirs)
    assert made.findings == []
    assert len(made.undecided) == 1


@pytest.mark.parametrize("table", ["seen", "mirror"])
async def test_a_database_with_anything_beside_our_tables_is_not_used(
    ours: Monitored, theirs: Monitored, table: str
) -> None:
    """False if a state could bring code of its own with it."""
    for it in (ours, theirs):
        await see(it, range(10))
    await see(theirs, range(10, 20))
    path = getattr(StateDirectory(theirs.state), table)
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE VIEW endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT * FROM n"
        )
    connection.close()
    if table == "seen":
        with pytest.raises(StateError):
            compared(ours, theirs)
    else:
        made = compared(ours, theirs)
        assert made.undecided
        assert "nobody has the entries" in made.undecided[0]


@pytest.mark.parametrize("data", [b"", b"x" * 5_000], ids=["empty", "no-database"])
async def test_a_damaged_state_cannot_be_read(ours: Monitored, theirs: Monitored, data: bytes) -> None:
    """False if what cannot be read passed for what agrees."""
    for it in (ours, theirs):
        await see(it, range(10))
    StateDirectory(theirs.state).seen.write_bytes(data)
    with pytest.raises((StoreError, StateError)):
        compared(ours, theirs)


async def test_the_state_of_another_ledger_is_refused(ours: Monitored, theirs: Monitored) -> None:
    """False if two ledgers were compared as if they were one."""
    await see(ours, range(10))
    await see(theirs, range(10))
    with sqlite3.connect(StateDirectory(theirs.state).seen) as connection:
        connection.execute("UPDATE about SET origin = 'other.test'")
    connection.close()
    with pytest.raises(StateError, match=r"other\.test"):
        compared(ours, theirs)
    with pytest.raises(StateError), ours.opened() as state:
        compare_states(state, ours.folder, POLICY)


async def test_a_state_that_was_copied_while_in_use_is_read(
    ours: Monitored, theirs: Monitored, tmp_path: Path
) -> None:
    """False if the log beside a database, in which the latest commits are, were left out."""
    await see(ours, range(50))
    await see(theirs, range(100, 120))
    with closing(sqlite3.connect(StateDirectory(theirs.state).mirror)) as reader:
        # Whoever reads keeps what is committed meanwhile from being moved into the database itself.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM tile").fetchone()
        await see(theirs, range(120, 180))
        shutil.copytree(theirs.state, tmp_path / "copy")
    with ours.opened() as state:
        made = compare_states(state, tmp_path / "copy", POLICY)
    assert len(made.findings) == 2
    assert made.undecided == []


async def test_witnesses_who_saw_one_history_do_not_excuse_the_other(tmp_path: Path, theirs: Monitored) -> None:
    """False if a second history without cosignatures, shown to somebody careless, were no proof."""
    await see(theirs, range(100, 110))
    with monitored(tmp_path, WITNESSED) as it:
        it.held.fill(10)
        it.publish(at=10)
        assert (await it.round(20)).findings == []
        with it.opened() as state:
            (finding,) = compare_states(state, theirs.state, WITNESSED).findings
    assert finding.kind is Kind.FORK


def rewrite_seen(it: Monitored, note: bytes) -> None:
    """Put another note in the place of the latest one that was seen of the register."""
    with sqlite3.connect(StateDirectory(it.state).seen) as connection:
        connection.execute(
            "UPDATE seen SET first = ?1, last = ?1 WHERE register = ?2 "
            "AND size = (SELECT max(size) FROM seen WHERE register = ?2)",
            (note, REGISTER),
        )
    connection.close()

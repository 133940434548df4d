"""A monitor's state: one monitor, one ledger, and nothing that is taken for what it is not."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ledger.errors import StoreError
from services.monitoring.state import SeenCheckpoints, StateDirectory, StateError, open_mirror, open_seen
from tests.support.ledgers import ORIGIN, REGISTER
from tests.support.monitored import monitored


def test_what_is_kept_is_there_again(tmp_path: Path) -> None:
    """False if a monitor forgot what it has seen."""
    with open_seen(tmp_path / "state") as seen:
        assert (seen.origin(), seen.begun()) == (None, None)
        seen.begin(ORIGIN, 7)
        seen.keep(REGISTER, 5, b"five", 100)
        seen.keep(REGISTER, 9, b"nine", 200)
        seen.keep(REGISTER, 5, b"five again", 300)
        seen.keep("other/register", 6, b"six", 400)
        seen.set_position("tiles", REGISTER, 5)
        seen.set_position("tiles", REGISTER, 9)
    with open_seen(tmp_path / "state") as seen:
        assert (seen.origin(), seen.begun()) == (ORIGIN, 7)
        five = seen.at(REGISTER, 5)
        assert five is not None
        assert (five.first, five.last, five.at) == (b"five", b"five again", 100)
        assert seen.latest(REGISTER) == seen.at(REGISTER, 9)
        assert seen.latest(REGISTER, 8) == five
        assert seen.latest(REGISTER, 4) is None
        assert seen.next_above(REGISTER, 5) == seen.at(REGISTER, 9)
        assert seen.next_above(REGISTER, 9) is None
        assert [(each.register, each.size) for each in seen.all()] == [
            (REGISTER, 5),
            (REGISTER, 9),
            ("other/register", 6),
        ]
        assert seen.position("tiles", REGISTER, 0) == 9
        assert seen.position("tiles", "other/register", -1) == -1


def test_many_checkpoints_are_all_read(tmp_path: Path) -> None:
    """False if only the first page of what was seen were compared with others."""
    with open_seen(tmp_path / "state") as seen:
        for size in range(150):
            seen.keep(REGISTER, size, b"note", size)
        assert [each.size for each in seen.all()] == list(range(150))


def test_two_monitors_do_not_share_a_state(tmp_path: Path) -> None:
    """False if two processes could write one mirror."""
    with (
        open_seen(tmp_path / "state"),
        pytest.raises(StateError, match="in use"),
        open_seen(tmp_path / "state"),
    ):
        pass


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """False if a mistyped directory were filled with a mirror."""
    (tmp_path / "letter").write_text("Dear Sir")
    with pytest.raises(StateError, match="not empty"), open_seen(tmp_path):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["letter"]


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """False if another program's database were taken for a state."""
    path = StateDirectory(tmp_path).seen
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a file"):
        SeenCheckpoints(path)
    assert path.read_bytes() == before


async def test_a_damaged_mirror_is_not_gone_on_with(tmp_path: Path) -> None:
    """False if a mirror that no longer agrees with itself were the judge of what is served."""
    with monitored(tmp_path) as it:
        it.held.fill(10)
        it.publish()
        assert (await it.round()).findings == []
        with sqlite3.connect(StateDirectory(it.state).mirror) as connection:
            connection.execute("UPDATE tile SET hashes = zeroblob(length(hashes))")
        connection.close()
        with pytest.raises(StoreError), open_mirror(it.state, ORIGIN):
            pass

"""The witnesses' times in the notebook: what `ledger.timeline` says, whatever came in and in any order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.timeline import Timeline
from ledger.witnessing import Cosignature, Group, Quorum
from services.auditing.notebook import Notebook
from services.auditing.witnessed_times import WitnessedTimes

NAMES = ("one", "two", "three")
TWO_OF_THREE = Quorum(NAMES, (Group("majority", 2, NAMES),), "majority")
KEYS = {name: f"{name}.example/w+0000000{number}" for number, name in enumerate(NAMES)}

cosignatures = st.lists(
    st.builds(Cosignature, st.sampled_from(NAMES), st.integers(0, 12), st.integers(1, 40)), max_size=30
)


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Notebook]:
    held = Notebook(tmp_path / "audit.sqlite3")
    yield held
    held.close()


@given(cosignatures)
def test_the_bounds_are_those_of_the_timeline(given_in: list[Cosignature]) -> None:
    """False if a bound depended on the order in which cosignatures were seen, or on a clock that went back."""
    notebook = Notebook(Path(":memory:"))
    times = WitnessedTimes(notebook, TWO_OF_THREE, KEYS)
    times.add("a/b", given_in[::2])
    times.bounds("a/b", 3)
    times.add("a/b", given_in[1::2])
    timeline = Timeline(given_in, TWO_OF_THREE)
    for index in range(14):
        assert times.bounds("a/b", index) == timeline.bounds(index)
    pieces = list(times.stretches("a/b", 0, 14))
    assert [piece[0] for piece in pieces[1:]] == [piece[1] for piece in pieces[:-1]]
    for begin, end, bounds in pieces:
        assert all(timeline.bounds(index) == bounds for index in range(begin, end))
    notebook.close()


@given(st.lists(cosignatures, max_size=4), st.integers(0, 14))
def test_what_was_looked_at_under_other_bounds_is_told(batches: list[list[Cosignature]], below: int) -> None:
    """False if an entry kept what was said of it under bounds of the past, or all were looked at again."""
    notebook = Notebook(Path(":memory:"))
    times = WitnessedTimes(notebook, TWO_OF_THREE, KEYS)
    for batch in batches:
        before = [times.bounds("a/b", index) for index in range(below)]
        changed = times.add("a/b", batch, below)
        after = [times.bounds("a/b", index) for index in range(below)]
        others = [index for index in range(below) if before[index] != after[index]]
        assert changed == (others[0] if others else None)
    notebook.close()


def test_a_name_that_another_policy_gives_to_another_key_is_another_witness(notebook: Notebook) -> None:
    """False if the times of a key were told as those of one that was named like it."""
    WitnessedTimes(notebook, TWO_OF_THREE, KEYS).add("a/b", [Cosignature(name, 5, 100) for name in NAMES])
    others = {name: f"other.example/{name}+00000009" for name in NAMES}
    assert WitnessedTimes(notebook, TWO_OF_THREE, others).bounds("a/b", 2).not_after is None


def test_a_cosignature_that_says_nothing_more_is_not_kept(notebook: Notebook) -> None:
    """False if the notebook grew with every visit that saw the same again."""
    times = WitnessedTimes(notebook, TWO_OF_THREE, KEYS)
    for time in range(100, 200):
        times.add("a/b", [Cosignature("one", 7, time)])
    assert notebook.one("SELECT count(*) FROM earliest")[0] == 1
    assert notebook.one("SELECT count(*) FROM latest")[0] == 1


def test_registers_do_not_mix(notebook: Notebook) -> None:
    """False if one office's checkpoints proved the time of another's entries."""
    times = WitnessedTimes(notebook, TWO_OF_THREE, KEYS)
    times.add("a/b", [Cosignature(name, 5, 100) for name in NAMES])
    assert times.bounds("a/b", 2).not_after == 100
    assert times.bounds("a/c", 2).not_after is None
    assert times.bounds("a/b", 2).not_after == 100


def test_where_no_witness_is_asked_for_nothing_bounds_an_entry(notebook: Notebook) -> None:
    """False if cosignatures that the auditor does not rely on proved a time to him."""
    times = WitnessedTimes(notebook, Quorum(NAMES, (), None), KEYS)
    times.add("a/b", [Cosignature(name, 5, 100) for name in NAMES])
    bounds = times.bounds("a/b", 2)
    assert (bounds.not_before, bounds.not_after, bounds.comparable) == (None, None, False)

"""When an entry came in: what the times of cosignatures prove, held against the definition word for word."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.timeline import Bounds, Timeline, judge_revocation
from ledger.witnessing import Cosignature, Group, Quorum
from tests.support.quorums import quorums
from tests.support.vectors import load

SIZES = 6
NESTED = Quorum(("a", "b", "c", "d"), (Group("x", 1, ("a", "b")), Group("q", 2, ("x", "c", "d"))), "q")


def quorum_of(value: dict[str, Any]) -> Quorum:
    """Return the quorum that a case of time-bounds.json gives."""
    groups = tuple(Group(name, k, tuple(members)) for name, (k, members) in value["groups"].items())
    root = None if value["quorum"] == "none" else value["quorum"]
    return Quorum(tuple(value["witnesses"]), groups, root)


@pytest.mark.parametrize("case", load("time-bounds.json"), ids=lambda case: case["name"])
def test_time_bounds_are_those_of_the_vectors(case: dict[str, Any]) -> None:
    """Were this false, a report would name a time that the witnesses do not support (section 15)."""
    cosignatures = [Cosignature(**each) for each in case["cosignatures"]]
    bounds = Timeline(cosignatures, quorum_of(case["policy"])).bounds(case["index"])
    assert bounds == Bounds(case["not_before"], case["not_after"], case["comparable"])


def naive_bounds(
    cosignatures: Collection[Cosignature], quorum: Quorum, index: int
) -> tuple[int | None, int | None]:
    """Return not-before and not-after word for word as formats.md, section 15, defines them."""
    times = {each.time for each in cosignatures}
    after = [
        time
        for time in times
        if quorum.is_met_by({c.witness for c in cosignatures if c.time <= time and c.size > index})
    ]
    before = [
        time
        for time in times
        if quorum.is_met_by({c.witness for c in cosignatures if c.time >= time and c.size <= index})
    ]
    return max(before, default=None), min(after, default=None)


cosignatures = st.lists(
    st.builds(Cosignature, st.sampled_from("abcde"), st.integers(0, SIZES), st.integers(1, 20)), max_size=16
)
"""Cosignatures of witnesses whose clocks do as they like."""


@given(cosignatures, quorums())
def test_a_timeline_agrees_with_the_definition_at_every_index(made: list[Cosignature], quorum: Quorum) -> None:
    """Were this false, answering for all indices at once would give another answer than for one."""
    check(Timeline(made, quorum), made, quorum)


@given(st.data(), quorums())
def test_a_timeline_that_grows_agrees_with_the_definition_at_every_step(
    data: st.DataObject, quorum: Quorum
) -> None:
    """Were this false, a ledger that runs for long would state other times than one that starts anew.

    A witness cosigns ever larger sizes, or the same again; its clock may go back, and come forward again.
    """
    timeline = Timeline((), quorum)
    sizes = dict.fromkeys("abcde", 0)
    added: list[Cosignature] = []
    for _ in range(data.draw(st.integers(0, 16))):
        witness = data.draw(st.sampled_from("abcde"))
        sizes[witness] = data.draw(st.integers(sizes[witness], SIZES))
        added.append(Cosignature(witness, sizes[witness], data.draw(st.integers(1, 20))))
        timeline.add(added[-1])
        check(timeline, added, quorum)


def check(timeline: Timeline, made: Collection[Cosignature], quorum: Quorum) -> None:
    """Compare a timeline with the definition; and what it says proves a bound, with that bound."""
    for index in range(SIZES + 2):
        bounds = timeline.bounds(index)
        assert (bounds.not_before, bounds.not_after) == naive_bounds(made, quorum, index)
        before, after = timeline.before(index), timeline.after(index)
        assert naive_bounds(before, quorum, index)[0] == bounds.not_before
        assert naive_bounds(after, quorum, index)[1] == bounds.not_after
        for proof in (before, after):
            assert set(proof) <= set(made)
            # None more than it takes.
            assert not quorum.is_met_by({each.witness for each in proof[:-1]})


@given(cosignatures, quorums(), st.randoms())
def test_the_order_in_which_cosignatures_are_given_makes_no_difference(
    made: list[Cosignature], quorum: Quorum, draw: Any
) -> None:
    """Were this false, two stores with the same cosignatures would state two times."""
    shuffled = list(made)
    draw.shuffle(shuffled)
    one, other = Timeline(made, quorum), Timeline(shuffled, quorum)
    assert [one.bounds(index) for index in range(SIZES + 2)] == [
        other.bounds(index) for index in range(SIZES + 2)
    ]


def test_a_smaller_size_after_a_larger_one_is_refused() -> None:
    """Were this false, a timeline that grows would be searched as if it were in order, and be wrong."""
    timeline = Timeline([Cosignature("a", 5, 100)], NESTED)
    with pytest.raises(ValueError, match="size 4 after size 5 of a"):
        timeline.add(Cosignature("a", 4, 200))
    timeline.add(Cosignature("b", 4, 200))


def test_no_quorum_bounds_nothing() -> None:
    """Were this false, a ledger without witnesses would state times that nobody vouches for."""
    nobody = Quorum(("a",), (), None)
    assert Timeline([Cosignature("a", 5, 100)], nobody).bounds(3) == Bounds(None, None, comparable=False)


@pytest.mark.parametrize(
    "case", load("revocation.json"), ids=lambda case: f"{case['verdict']} {case['entry_not_before']}"
)
def test_verdicts_on_revoked_keys_are_those_of_the_vectors(case: dict[str, Any]) -> None:
    """Were this false, an entry would be condemned or cleared against formats.md, section 7."""
    entry = Bounds(case["entry_not_before"], case["entry_not_after"], comparable=True)
    revocation = Bounds(case["revocation_not_before"], case["revocation_not_after"], comparable=True)
    verdict = judge_revocation(case["governing_size"], case["revoked_at"], entry, revocation, case["grace"])
    assert verdict == case["verdict"]

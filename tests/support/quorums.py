"""Quorums of any shape, for properties."""

from __future__ import annotations

from hypothesis import strategies as st

from ledger.witnessing import Group, Quorum


@st.composite
def quorums(draw: st.DrawFn) -> Quorum:
    """Return a quorum of random nested groups over at most 5 witnesses."""
    witnesses = tuple("abcde"[: draw(st.integers(1, 5))])
    free = list(witnesses)
    groups: list[Group] = []
    while len(free) > 1 or (free and not groups):
        members = tuple(draw(st.lists(st.sampled_from(free), min_size=1, unique=True)))
        group = Group(f"g{len(groups)}", draw(st.integers(1, len(members))), members)
        groups.append(group)
        free = [name for name in free if name not in members]
        if len(groups) > 4:
            break
        free.append(group.name)
    root = draw(st.sampled_from([*witnesses, *(group.name for group in groups)]))
    return Quorum(witnesses, tuple(groups), root)

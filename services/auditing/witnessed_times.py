"""When entries came into the witnessed history, by every cosignature that this auditor has verified.

What `ledger.timeline` holds in memory stands here in the notebook, since a register may have been cosigned
millions of times. Of each witness two staircases are kept, and nothing else matters (formats.md, section 15):
for not-after the cosignatures that none of as large a size precedes, for not-before those that none of as
small a size follows. On each, larger sizes have later times, so that an answer is a few look-ups; and in
whatever order cosignatures come in, the same ones are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.timeline import Bounds, Timeline
from ledger.witnessing import Cosignature, Policy, Quorum
from services.auditing.notebook import Notebook

_NO_END: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class _Staircase:
    """One table of the notebook. `up` where a cosignature is worth nothing once a larger size is as early."""

    table: str
    up: bool

    def reach(self, notebook: Notebook, register: str, each: Cosignature) -> tuple[int, int] | None:
        """Return of which entries a cosignature says more than those that are there: from, to (not included).

        None where it says no more of any.
        """
        as_much = self._above if self.up else self._below
        dominating = as_much(notebook, register, each.witness, each.size)
        if dominating is not None and (dominating[1] <= each.time if self.up else dominating[1] >= each.time):
            return None
        if self.up:
            less = "size <= ? AND time < ? ORDER BY size DESC"
            other = self._one(notebook, less, register, each.witness, each.size, each.time)
            return (0 if other is None else other[0]), each.size
        more = "size >= ? AND time > ? ORDER BY size"
        other = self._one(notebook, more, register, each.witness, each.size, each.time)
        return each.size, (_NO_END if other is None else other[0])

    def add(self, notebook: Notebook, register: str, each: Cosignature) -> None:
        """Keep a cosignature where it says more than those that are there, and drop those that say less."""
        above, below = (self._above, self._below) if self.up else (self._below, self._above)
        dominating = above(notebook, register, each.witness, each.size)
        if dominating is not None and (dominating[1] <= each.time if self.up else dominating[1] >= each.time):
            return
        while (other := below(notebook, register, each.witness, each.size)) is not None and (
            other[1] >= each.time if self.up else other[1] <= each.time
        ):
            notebook.write(
                f"DELETE FROM {self.table} WHERE register = ? AND witness = ? AND size = ?",  # noqa: S608
                (register, each.witness, other[0]),
            )
        notebook.write(
            f"INSERT INTO {self.table} VALUES (?, ?, ?, ?)",  # noqa: S608
            (register, each.witness, each.size, each.time),
        )

    def _above(self, notebook: Notebook, register: str, witness: str, size: int) -> tuple[int, int] | None:
        return self._one(notebook, "size >= ? ORDER BY size", register, witness, size)

    def _below(self, notebook: Notebook, register: str, witness: str, size: int) -> tuple[int, int] | None:
        return self._one(notebook, "size <= ? ORDER BY size DESC", register, witness, size)

    def _one(
        self, notebook: Notebook, where: str, register: str, witness: str, *values: int
    ) -> tuple[int, int] | None:
        row: tuple[int, int] | None = notebook.one(
            f"SELECT size, time FROM {self.table} WHERE register = ? AND witness = ? AND {where} LIMIT 1",  # noqa: S608
            (register, witness, *values),
        )
        return row

    def around(
        self, notebook: Notebook, register: str, witness: str, index: int
    ) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        """Return the last of the sizes up to `index`, and the first beyond it: (size, time) each."""
        return self._below(notebook, register, witness, index), self._above(
            notebook, register, witness, index + 1
        )


_EARLIEST: Final = _Staircase("earliest", up=True)
_LATEST: Final = _Staircase("latest", up=False)


def keys_of(policy: Policy) -> dict[str, str]:
    """Return the key of each witness of a policy, by its name there: key name and key ID, as in a vkey."""
    return {each.name: f"{each.key.name}+{each.key.key_id:08x}" for each in policy.witnesses}


class WitnessedTimes:
    """The bounds of the entries of a ledger's registers, under the quorum of the auditor's policy.

    `keys` has what stands in the notebook for each witness, by its name in the policy: another policy may give
    that name to another key.
    """

    def __init__(self, notebook: Notebook, quorum: Quorum, keys: Mapping[str, str]) -> None:
        self._notebook = notebook
        self._quorum = quorum
        self._keys = keys
        self._register = ""
        self._begin = 0
        self._end = 0
        self._bounds = Bounds(None, None, quorum.comparable)

    def add(self, register: str, cosignatures: Iterable[Cosignature], below: int = 0) -> int | None:
        """Keep verified cosignatures of a register's checkpoints, in any order.

        Returns the first entry below `below` whose bounds are others now; None where there is none.
        """
        keyed = [Cosignature(self._keys[each.witness], each.size, each.time) for each in cosignatures]
        begin, end = self._reach(register, keyed, below)
        before = list(self.stretches(register, begin, end))
        self._end = self._begin  # what was answered last may hold no longer
        for each in keyed:
            _EARLIEST.add(self._notebook, register, each)
            _LATEST.add(self._notebook, register, each)
        return _first_difference(before, list(self.stretches(register, begin, end)))

    def _reach(self, register: str, keyed: Iterable[Cosignature], below: int) -> tuple[int, int]:
        """Return from where up to where cosignatures can change bounds, below `below`; (0, 0) for nowhere."""
        if self._quorum.root is None or not below:
            return 0, 0
        begin, end = below, 0
        for each in keyed:
            for staircase in (_EARLIEST, _LATEST):
                reach = staircase.reach(self._notebook, register, each)
                if reach is not None and reach[0] < below:
                    begin, end = min(begin, reach[0]), max(end, min(reach[1], below))
        return (begin, end) if begin < end else (0, 0)

    def bounds(self, register: str, index: int) -> Bounds:
        """Return the bounds of an entry. O(w log n) for w witnesses, and mostly nothing for a neighbour."""
        if register != self._register or not self._begin <= index < self._end:
            self._look_up(register, index)
        return self._bounds

    def stretches(self, register: str, begin: int, end: int) -> Iterator[tuple[int, int, Bounds]]:
        """Yield the entries [begin, end) in runs of equal bounds: from, to (not included), bounds."""
        while begin < end:
            bounds = self.bounds(register, begin)
            to = min(end, self._end)
            yield begin, to, bounds
            begin = to

    def _look_up(self, register: str, index: int) -> None:
        """Work out the bounds at `index`, and up to where they are the same."""
        matter: list[Cosignature] = []
        end = _NO_END
        for witness in self._quorum.witnesses if self._quorum.root is not None else ():
            key = self._keys[witness]
            before, later = _LATEST.around(self._notebook, register, key, index)
            _, after = _EARLIEST.around(self._notebook, register, key, index)
            if before is not None:
                # At its own place in the timeline: any size up to the index says the same.
                matter.append(Cosignature(witness, *before))
            if after is not None:
                matter.append(Cosignature(witness, *after))
                end = min(end, after[0])
            if later is not None:
                end = min(end, later[0])
        self._bounds = Timeline(matter, self._quorum).bounds(index)
        self._register, self._begin, self._end = register, index, end


def _first_difference(
    before: Sequence[tuple[int, int, Bounds]], after: Sequence[tuple[int, int, Bounds]]
) -> int | None:
    """Return the first entry of which two lists of runs, over the same entries, have other bounds."""
    one, two = iter(before), iter(after)
    was, now = next(one, None), next(two, None)
    while was is not None and now is not None:
        if was[2] != now[2]:
            return max(was[0], now[0])
        end = min(was[1], now[1])
        if was[1] == end:
            was = next(one, None)
        if now[1] == end:
            now = next(two, None)
    return None

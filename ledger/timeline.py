"""The timeline: what the witnesses' clocks prove of when an entry came in (formats.md, sections 7 and 15).

Over all verified cosignatures of a register, an entry at `index` was in the witnessed history at *not-after*,
and was not yet in it at *not-before*.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from ledger.witnessing import Cosignature, Quorum

GRACE = 60
"""Seconds after a revocation by which every acceptor must have seen it (formats.md, section 7)."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """When an entry came into the witnessed history, POSIX seconds (formats.md, section 15).

    None where no quorum bounds that side. The two may be compared with each other, and with those of another
    entry, only if `comparable`.
    """

    not_before: int | None
    not_after: int | None
    comparable: bool


class Timeline:
    """All verified cosignatures of one register, arranged to answer when any of its entries came in.

    To add one is O(1) over many; an answer is O(w log n) for w witnesses and n cosignatures of each.
    """

    def __init__(self, cosignatures: Iterable[Cosignature], quorum: Quorum) -> None:
        self._quorum = quorum
        self._comparable = quorum.comparable
        self._witnesses: dict[str, _Times] = {}
        for cosignature in sorted(cosignatures, key=lambda each: each.size):
            self.add(cosignature)

    def add(self, cosignature: Cosignature) -> None:
        """Add a cosignature. Raises ValueError for a smaller size than its witness has cosigned already."""
        self._witnesses.setdefault(cosignature.witness, _Times()).add(cosignature)

    def bounds(self, index: int) -> Bounds:
        """Return the bounds of the entry at `index` (formats.md, section 15)."""
        before, after = self.before(index), self.after(index)
        return Bounds(before[-1].time if before else None, after[-1].time if after else None, self._comparable)

    def before(self, index: int) -> tuple[Cosignature, ...]:
        """Return the cosignatures of sizes up to `index` that prove not-before, the latest first.

        Their last one states it. None where no quorum knew the register without the entry.
        """
        latest = (times.latest_up_to(index) for times in self._witnesses.values())
        known = (each for each in latest if each is not None)
        return self._up_to_quorum(sorted(known, key=lambda each: -each.time))

    def after(self, index: int) -> tuple[Cosignature, ...]:
        """Return the cosignatures of sizes beyond `index` that prove not-after, the earliest first.

        Their last one states it. None where no quorum has known the entry yet.
        """
        earliest = (times.earliest_beyond(index) for times in self._witnesses.values())
        known = (each for each in earliest if each is not None)
        return self._up_to_quorum(sorted(known, key=lambda each: each.time))

    def _up_to_quorum(self, cosignatures: Iterable[Cosignature]) -> tuple[Cosignature, ...]:
        """Return the first of these with whose witnesses the quorum is met; nothing where it never is."""
        if self._quorum.root is None:
            return ()
        taken: list[Cosignature] = []
        for cosignature in cosignatures:
            taken.append(cosignature)
            if self._quorum.is_met_by({each.witness for each in taken}):
                return tuple(taken)
        return ()


class _Times:
    """One witness's cosignatures, by size."""

    def __init__(self) -> None:
        # The latest up to each size.
        self._sizes: list[int] = []
        self._latest: list[Cosignature] = []
        # Those that no cosignature of as large a size precedes: larger sizes have later times here, though a
        # witness's clock may have gone back.
        self._early: list[Cosignature] = []

    def add(self, added: Cosignature) -> None:
        if self._sizes and added.size < self._sizes[-1]:
            raise ValueError(f"size {added.size} after size {self._sizes[-1]} of {added.witness}")
        latest = self._latest[-1] if self._latest and self._latest[-1].time >= added.time else added
        if self._sizes and added.size == self._sizes[-1]:
            self._latest[-1] = latest
        else:
            self._sizes.append(added.size)
            self._latest.append(latest)
        while self._early and self._early[-1].time >= added.time:
            self._early.pop()
        if not self._early or self._early[-1].size < added.size:
            self._early.append(added)

    def latest_up_to(self, index: int) -> Cosignature | None:
        position = bisect_right(self._sizes, index)
        return self._latest[position - 1] if position else None

    def earliest_beyond(self, index: int) -> Cosignature | None:
        position = bisect_left(self._early, index + 1, key=lambda each: each.size)
        return self._early[position] if position < len(self._early) else None


class RevocationVerdict(StrEnum):
    """What may be said of an entry whose key has been revoked (formats.md, section 7)."""

    INVALID = "invalid"
    """Accepted against a view that held the revocation: an integrity failure."""

    STALE_VIEW = "stale view after revocation"
    """Accepted on a view older than the grace allows: a critical finding."""

    PROVABLY_BEFORE = "provably before"
    """In the witnessed history before the revocation was."""

    CONCURRENT = "concurrent"
    """Neither can be shown: print both windows."""


def judge_revocation(
    governing_size: int, revoked_at: int, entry: Bounds, revocation: Bounds, grace: int = GRACE
) -> RevocationVerdict:
    """Judge an entry against the revocation of its key (formats.md, section 7).

    `governing_size` is the entry's, `revoked_at` the governing index of the revocation, `revocation` the
    bounds of that index, `grace` seconds from the profile.
    """
    if governing_size > revoked_at:
        return RevocationVerdict.INVALID
    match entry.not_before, revocation.not_after:
        case int(begin), int(end) if begin > end + grace:
            return RevocationVerdict.STALE_VIEW
    match entry.not_after, revocation.not_before:
        case int(end), int(begin) if end < begin:
            return RevocationVerdict.PROVABLY_BEFORE
    return RevocationVerdict.CONCURRENT

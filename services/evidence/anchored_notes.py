"""Sealed checkpoints of a register that the governing register carries: what was not there yet at their times.

An auditor who came late has seen one large checkpoint alone. The anchors have the smaller ones, with their
cosignatures, and so they prove when witnesses did not have an entry yet.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ledger.checkpoints import Checkpoint
from ledger.entries import parse_entry
from ledger.errors import LedgerError
from ledger.governing_types import CheckpointAnchored
from ledger.records import read_record
from ledger.witnessing import Policy, check_clocks, judge
from services.evidence.judged_notes import JudgedNote

_ANCHORED: Final = b'"type":"checkpoint.anchored/1"'


class AnchoredNotes:
    """Takes governing entries, and keeps of each of `indices` the anchored checkpoint that bounds it best.

    `indices` are of the register `origin`, sorted; `now` is POSIX seconds: cosignatures of the future prove
    nothing. `is_here` tells whether a checkpoint is of the history of these entries, for whoever has them: one
    of another says nothing about them. Holds at most one note for each index.
    """

    def __init__(
        self,
        policy: Policy,
        origin: str,
        indices: Sequence[int],
        now: int,
        is_here: Callable[[Checkpoint], bool] = bool,
    ) -> None:
        self._policy = policy
        self._origin = origin
        self._opens_with = f'"{origin}\\n'.encode()
        self._indices = indices
        self._now = now
        self._is_here = is_here
        # By the first index that they do not cover; each holds for all later ones too.
        self._best: dict[int, JudgedNote] = {}

    def look(self, entry: bytes) -> None:
        """Look at a governing entry. One that anchors nothing that satisfies the policy says nothing here."""
        if self._policy.quorum.root is None or _ANCHORED not in entry or self._opens_with not in entry:
            return
        found = judged_anchor(entry, self._policy, self._origin)
        if found is None or not _is_past(found, self._now):
            return
        position = bisect_left(self._indices, found.size)
        if position < len(self._indices) and self._is_here(found.judged.checkpoint):
            index = self._indices[position]
            self._best[index] = max(self._best.get(index, found), found, key=lambda each: each.rank)

    def best(self) -> Mapping[int, JudgedNote]:
        """Return by index the checkpoint that does not cover it, of the latest time."""
        best: dict[int, JudgedNote] = {}
        held: JudgedNote | None = None
        for index in self._indices:
            notes = [each for each in (held, self._best.get(index)) if each is not None]
            if notes:
                held = best[index] = max(notes, key=lambda each: each.rank)
        return best


def judged_anchor(entry: bytes, policy: Policy, origin: str) -> JudgedNote | None:
    """Return the checkpoint of a register that a governing entry carries; None for none that satisfies it."""
    try:
        record = read_record(parse_entry(entry).record)
        if not isinstance(record, CheckpointAnchored):
            return None
        note = record.checkpoint.encode()
        return JudgedNote.of(note, judge(note, policy, origin), policy)
    except LedgerError:
        return None


def _is_past(found: JudgedNote, now: int) -> bool:
    try:
        check_clocks(found.judged.cosignatures, now)
    except LedgerError:
        return False
    return True

"""Sealed checkpoints as they are kept: notes and cosignatures put together under one witness policy.

A checkpoint is sealed when a quorum of witnesses has cosigned it. Of each size and witness the store keeps
the first cosignature, which says how early an entry was known, and the last, which says how long nothing was
added (formats.md, sections 10 and 15).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Final

from ledger.checkpoints import Checkpoint
from ledger.errors import StoreError
from ledger.notes import SignatureLine, cosignature_time, format_note, split_note
from ledger.store import Cosigned, Store, StoredNote
from ledger.timeline import Timeline
from ledger.witnessing import Cosignature, Policy

_BEYOND: Final = 1 << 40
"""A size that no register reaches."""


@dataclass(frozen=True, slots=True)
class SealedCheckpoint:
    """A checkpoint and its note with the log's signature and `cosignatures`, which meet the policy's quorum."""

    checkpoint: Checkpoint
    note: bytes
    cosignatures: tuple[Cosignature, ...]

    @property
    def size(self) -> int:
        """The size that it states."""
        return self.checkpoint.size


class SealedReader:
    """Finds sealed checkpoints in a store, under a policy whose witnesses' lines were verified when kept."""

    def __init__(self, store: Store, policy: Policy) -> None:
        self._store = store
        self.policy = policy
        self._names = {(each.key.name, each.key.key_id): each.name for each in policy.witnesses}

    def first_covering(self, register: str, index: int) -> SealedCheckpoint | None:
        """Return the smallest sealed checkpoint of more than `index` entries, each witness's first line in it.

        Of all notes of the register it bounds best how late the entry at `index` can have come in.
        """
        kept = self._nearest_sealed(partial(self._store.next_cosigned, register), index + 1)
        return self.assemble(register, kept[0].size, [one.first for one in kept]) if kept else None

    def last_up_to(self, register: str, size: int) -> SealedCheckpoint | None:
        """Return the largest sealed checkpoint of at most `size` entries, each witness's last line in it.

        Of all notes of the register it bounds best how early the entry at index `size` can have come in.
        """
        kept = self._nearest_sealed(partial(self._store.last_cosigned, register), size)
        return self.assemble(register, kept[0].size, [one.last for one in kept]) if kept else None

    def witnessed_by(self, register: str, time: int, size: int) -> SealedCheckpoint | None:
        """Return the largest sealed checkpoint of at most `size` entries whose quorum had cosigned by `time`.

        `time` is in POSIX seconds. First lines are in its note: those by which it is decided.
        """
        for kept in _by_size(self._store.cosigned_back(register, size)):
            by_then = [one for one in kept if cosignature_time(one.first.signature) <= time]
            if self._is_quorum(by_then):
                return self.assemble(register, kept[0].size, [one.first for one in by_then])
        return None

    def timeline(self, register: str) -> Timeline:
        """Return the timeline of all that is kept of a register."""
        kept = self._store.cosigned(register, 0, _BEYOND)
        lines = ((one.size, line) for one in kept for line in (one.first, one.last))
        cosignatures = (each for size, line in lines for each in self.cosignatures(size, [line]))
        return Timeline(cosignatures, self.policy.quorum)

    def cosignatures(self, size: int, lines: Iterable[SignatureLine]) -> tuple[Cosignature, ...]:
        """Return what lines over a checkpoint of `size` say; lines of nobody in the policy say nothing."""
        return tuple(
            Cosignature(self._names[line.by], size, cosignature_time(line.signature))
            for line in lines
            if line.by in self._names
        )

    def assemble(self, register: str, size: int, lines: Iterable[SignatureLine]) -> SealedCheckpoint:
        """Return the kept checkpoint of `size` with these lines, without those of nobody in the policy.

        Raises StoreError where no note of that size is kept.
        """
        stored = self._store.note(register, size)
        if stored is None or stored.size != size:
            raise StoreError(f"{register}: cosignatures of size {size}, but no note")
        return self.sealed(stored, lines)

    def sealed(self, stored: StoredNote, lines: Iterable[SignatureLine]) -> SealedCheckpoint:
        """Return the checkpoint of a note that the log signed, with these lines."""
        text, signed = split_note(stored.note)
        by = {line.by: line for line in lines}
        known = [by[witness] for witness in self._names if witness in by]
        note = format_note(text, [*signed, *known])
        return SealedCheckpoint(Checkpoint.parse(text), note, self.cosignatures(stored.size, known))

    def _nearest_sealed(
        self, nearest: Callable[[tuple[str, int], int], Cosigned | None], start: int
    ) -> list[Cosigned]:
        """Return what witnesses have cosigned of the sealed size that is nearest to `start`; empty for none.

        `nearest` finds what one of them has cosigned from a size on, upwards or downwards. Nearer than where
        those of a quorum have all come, some of them have cosigned nothing: so many sizes as there may be in
        between, none is looked at.
        """
        size = start
        while True:
            found = [nearest(by, size) for by in self._names]
            kept = sorted((one for one in found if one is not None), key=lambda one: abs(one.size - start))
            come = (one for number, one in enumerate(kept, 1) if self._is_quorum(kept[:number]))
            reached = next((one.size for one in come), None)
            if reached is None:
                return []
            if kept[0].size == reached:
                return [one for one in kept if one.size == reached]
            size = reached

    def _is_quorum(self, kept: Iterable[Cosigned]) -> bool:
        names = {self._names[one.first.by] for one in kept if one.first.by in self._names}
        return self.policy.quorum.root is not None and self.policy.quorum.is_met_by(names)


def _by_size(kept: Iterable[Cosigned]) -> Iterator[list[Cosigned]]:
    for _, alike in groupby(kept, lambda one: one.size):
        yield list(alike)

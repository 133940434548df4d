"""When entries came into the witnessed history, over all cosignatures that are kept (formats.md, section 15).

A register's timeline is read from the store when it is first asked for, and kept up from then on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ledger.hashing import Hash
from ledger.ledger import Ledger
from ledger.notes import SignatureLine
from ledger.sealing import SealedReader
from ledger.store import Store
from ledger.timeline import Bounds, Timeline
from ledger.witnessing import Cosignature, Policy
from services.published import Published


class Timelines:
    """The timelines of one ledger's registers, under the policy in force. For the event loop's thread."""

    def __init__(self, store: Store, published: Published) -> None:
        self._store = store
        self._published = published
        self._policy: Policy | None = None
        self._loaded: dict[str, Timeline] = {}
        self._loading: dict[str, list[Cosignature]] = {}
        self._lock = asyncio.Lock()

    def kept(self, register: str, size: int, lines: Iterable[SignatureLine]) -> None:
        """Take in cosignatures of a checkpoint that were just kept."""
        reader = self._published.sealed_reader
        if reader is None or self._published.policy is not self._policy:
            return
        cosignatures = reader.cosignatures(size, lines)
        if register in self._loading:
            self._loading[register] += cosignatures
        elif register in self._loaded:
            _add(self._loaded[register], cosignatures)

    async def of(self, register: str, reader: SealedReader) -> Timeline:
        """Return a register's timeline, as `reader` reads it."""
        async with self._lock:
            if self._published.policy is not self._policy:
                self._policy = self._published.policy
                self._loaded.clear()
            if register not in self._loaded:
                self._loading[register] = []
                try:
                    timeline = await asyncio.to_thread(reader.timeline, register)
                finally:
                    meanwhile = self._loading.pop(register)
                _add(timeline, meanwhile)
                self._loaded[register] = timeline
            return self._loaded[register]


def _add(timeline: Timeline, cosignatures: Iterable[Cosignature]) -> None:
    for each in cosignatures:
        try:
            timeline.add(each)
        except ValueError:
            # A witness cosigns ever larger sizes: what comes out of order was read from the store already.
            continue


@dataclass(frozen=True, slots=True)
class ProvedNote:
    """A note, and the consistency proof from its size to that of the answer."""

    note: bytes
    consistency: tuple[Hash, ...]


@dataclass(frozen=True, slots=True)
class ProvedBounds:
    """The bounds of an entry, and the notes from whose cosignatures they follow."""

    bounds: Bounds
    before: tuple[ProvedNote, ...]
    after: tuple[ProvedNote, ...]


class BoundsProver:
    """Says when an entry came in, and proves it."""

    def __init__(self, ledger: Ledger, published: Published, timelines: Timelines) -> None:
        self._ledger = ledger
        self._published = published
        self._timelines = timelines

    async def prove(self, register: str, index: int, size: int) -> ProvedBounds | None:
        """Return the bounds of entry `index`, proved to the tree of `size`; None without witnesses."""
        reader = self._published.sealed_reader
        if reader is None:
            return None
        timeline = await self._timelines.of(register, reader)
        return ProvedBounds(
            timeline.bounds(index),
            self._notes(register, reader, timeline.before(index), size),
            self._notes(register, reader, timeline.after(index), size),
        )

    def _notes(
        self, register: str, reader: SealedReader, cosignatures: Sequence[Cosignature], size: int
    ) -> tuple[ProvedNote, ...]:
        """Return a note for each size, with the very lines that are meant."""
        notes = []
        for stated in sorted({each.size for each in cosignatures if each.size <= size}):
            wanted = {each for each in cosignatures if each.size == stated}
            lines = [
                line
                for kept in self._ledger.store.cosigned(register, stated, stated + 1)
                for line in dict.fromkeys((kept.first, kept.last))
                if wanted.intersection(reader.cosignatures(stated, [line]))
            ]
            # Of two lines of one witness a note can hold only one; they state the same time here.
            note = reader.assemble(register, stated, {line.by: line for line in lines}.values()).note
            consistency: tuple[Hash, ...] = ()
            if 0 < stated < size:
                consistency = self._ledger.reader(register).consistency(stated, size)
            notes.append(ProvedNote(note, consistency))
        return tuple(notes)

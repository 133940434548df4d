"""When entries came into the witnessed history, over all cosignatures that are kept (formats.md, section 15).

A register's timeline is read from the store when it is first asked for, and kept up from then on.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from ledger.errors import StoreError
from ledger.hashing import Hash
from ledger.ledger import LedgerView
from ledger.notes import MAX_TIME, SignatureLine
from ledger.sealing import SealedCheckpoint, SealedReader
from ledger.store import Cosigned
from ledger.timeline import Bounds, Timeline
from ledger.witnessing import Cosignature
from services.published import Published, SignedCheckpoint

KEPT: Final = 64
"""Registers whose timelines are kept: each takes some hundred bytes for every size that is cosigned."""


@dataclass(slots=True)
class _Loading:
    """A timeline that is being read, and what was kept meanwhile, of which the reading may not know."""

    reader: SealedReader
    meanwhile: list[Cosignature] = field(default_factory=list[Cosignature])
    stale: bool = False
    task: asyncio.Task[Timeline] = field(init=False)


class Timelines:
    """The timelines of one ledger's registers, under the policy in force. For the event loop's thread.

    One is read at a time, in a thread of its own: whoever asks takes none from others.
    """

    def __init__(self, published: Published) -> None:
        self._published = published
        self._reader: SealedReader | None = None
        self._loaded: OrderedDict[str, Timeline] = OrderedDict()
        self._loading: dict[str, _Loading] = {}
        self._thread = ThreadPoolExecutor(1, "timelines")
        self._closed = False

    def kept(self, register: str, size: int, lines: Iterable[SignatureLine]) -> None:
        """Take in cosignatures of a checkpoint that were just kept."""
        reader = self._reader
        if reader is None or reader is not self._published.sealed_reader:
            return  # under a new policy everything is read anew, when it is asked for
        cosignatures = reader.cosignatures(size, lines)
        loading = self._loading.get(register)
        if loading is not None and loading.reader is reader:
            loading.meanwhile += cosignatures
        elif register in self._loaded:
            _add(self._loaded[register], cosignatures)

    def forget(self, register: str) -> None:
        """Read a register's timeline anew when it is next asked for: another process has kept cosignatures."""
        self._loaded.pop(register, None)
        if register in self._loading:
            self._loading[register].stale = True

    async def of(self, register: str) -> tuple[Timeline, SealedReader] | None:
        """Return a register's timeline under the policy in force, and what has read it; None without witnesses.

        Whoever gives up leaves the reading to the next one who asks. Raises StoreError.
        """
        while not self._closed:
            reader = self._published.sealed_reader
            if reader is not self._reader:
                self._reader = reader
                self._loaded.clear()
            if reader is None:
                return None
            if register in self._loaded:
                self._loaded.move_to_end(register)
                return self._loaded[register], reader
            loading = self._loading.get(register) or self._load(register, reader)
            # It may miss what was kept before this call: then another one follows, never two at once.
            missing = loading.stale or loading.reader is not reader
            # Unlike awaiting the task, this does not cancel it.
            await asyncio.wait([loading.task])
            if not missing:
                return loading.task.result(), reader
        raise StoreError("the timelines were closed")

    async def aclose(self) -> None:
        """Wait for what is being read, also for nobody: a store in a file may be closed only after it."""
        self._closed = True
        if self._loading:
            await asyncio.wait([each.task for each in self._loading.values()])
        self._thread.shutdown()

    def _load(self, register: str, reader: SealedReader) -> _Loading:
        loading = self._loading[register] = _Loading(reader)
        loading.task = asyncio.create_task(self._loaded_by(register, loading))
        loading.task.add_done_callback(_seen)
        return loading

    async def _loaded_by(self, register: str, loading: _Loading) -> Timeline:
        loop = asyncio.get_running_loop()
        try:
            timeline = await loop.run_in_executor(self._thread, self._read, register, loading.reader)
        finally:
            del self._loading[register]
        _add(timeline, loading.meanwhile)
        # Under a new policy, or where what was kept while it was read may be missing, it is good only for
        # those who have asked by then.
        if loading.reader is self._reader and not loading.stale:
            self._loaded[register] = timeline
            while len(self._loaded) > KEPT:
                self._loaded.popitem(last=False)
        return timeline

    def _read(self, register: str, reader: SealedReader) -> Timeline:
        if self._closed:
            raise StoreError("the timelines were closed")
        return reader.timeline(register)


def _seen(task: asyncio.Task[Timeline]) -> None:
    """Keep a failure from being logged as never seen, where all who asked have given up."""
    if not task.cancelled():
        task.exception()


def _add(timeline: Timeline, cosignatures: Iterable[Cosignature]) -> None:
    for each in cosignatures:
        try:
            timeline.add(each)
        except ValueError:
            # A witness cosigns ever larger sizes: what comes out of order was read from the store already.
            continue


@dataclass(frozen=True, slots=True)
class ProvedNote:
    """A note with the cosignatures that matter; `consistency` proves its tree to be that of the answer."""

    note: bytes
    cosignatures: tuple[Cosignature, ...]
    consistency: tuple[Hash, ...]


@dataclass(frozen=True, slots=True)
class ProvedBounds:
    """The bounds of an entry, and the notes from whose cosignatures they follow, proved to `checkpoint`."""

    bounds: Bounds
    checkpoint: SignedCheckpoint | SealedCheckpoint
    before: tuple[ProvedNote, ...]
    after: tuple[ProvedNote, ...]


class BoundsProver:
    """Says when an entry came in, and proves it.

    With `apart` nothing is read from the store in the event loop; timelines are then only ever read anew.
    """

    def __init__(
        self, ledger: LedgerView, published: Published, timelines: Timelines, *, apart: bool = False
    ) -> None:
        self._ledger = ledger
        self._published = published
        self._timelines = timelines
        self._apart = apart

    async def prove(self, register: str, index: int) -> ProvedBounds | None:
        """Return the bounds of entry `index`, which a published checkpoint covers; None without witnesses."""
        found = await self._timelines.of(register)
        if found is None:
            return None
        if self._apart:
            return await asyncio.to_thread(self._proved, register, index, *found)
        return self._proved(register, index, *found)

    def _proved(self, register: str, index: int, timeline: Timeline, reader: SealedReader) -> ProvedBounds:
        after = timeline.after(index)
        # The latest sealed one, where it covers the entry and all that is to be proved: a single witness may
        # have cosigned more.
        checkpoint: SignedCheckpoint | SealedCheckpoint = self._published.latest(register)
        sealed = self._published.sealed(register)
        if sealed is not None and sealed.size >= max([index + 1, *(each.size for each in after)]):
            checkpoint = sealed
        before_notes = tuple(self._notes(register, reader, timeline.before(index), checkpoint.size, _last))
        after_notes = tuple(self._notes(register, reader, after, checkpoint.size, _first))
        # From what is shown: a witness may have cosigned one of the sizes anew at this very moment.
        shown = (each for note in (*before_notes, *after_notes) for each in note.cosignatures)
        bounds = Timeline(shown, reader.policy.quorum).bounds(index)
        return ProvedBounds(bounds, checkpoint, before_notes, after_notes)

    async def known_by(self, register: str, time: int, size: int) -> int:
        """Return how many of the first `size` entries a quorum knew by `time`, POSIX seconds.

        No checkpoint of more entries had been cosigned by a quorum then.
        """
        held = await self._timelines.of(register)
        if held is None:
            return 0
        timeline, _ = held

        def not_after(index: int) -> int:
            bound = timeline.bounds(index).not_after
            return MAX_TIME + 1 if bound is None else bound

        return bisect_right(range(size), time, key=not_after)

    def _notes(
        self,
        register: str,
        reader: SealedReader,
        cosignatures: Sequence[Cosignature],
        size: int,
        line: Callable[[Cosigned], SignatureLine],
    ) -> Iterator[ProvedNote]:
        """Yield a note for each size, with the lines of just those who are meant, proved to `size`."""
        for stated in sorted({each.size for each in cosignatures}):
            meant = {each.witness for each in cosignatures if each.size == stated}
            kept = map(line, self._ledger.store.cosigned(register, stated, stated + 1))
            lines = [
                one for one in kept if meant & {each.witness for each in reader.cosignatures(stated, [one])}
            ]
            assembled = reader.assemble(register, stated, lines)
            consistency: tuple[Hash, ...] = ()
            if 0 < stated < size:
                consistency = self._ledger.reader(register).consistency(stated, size)
            yield ProvedNote(assembled.note, assembled.cosignatures, consistency)


def _first(kept: Cosigned) -> SignatureLine:
    return kept.first


def _last(kept: Cosigned) -> SignatureLine:
    return kept.last

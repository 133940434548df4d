"""A database that was restored from an older copy: it is waited for, made whole, and the restore is declared.

Every signed note was in the store before the relay sent it: so a note on `daybook.checkpoints` that the store
lacks shows an older copy, and of each register how far it went. While the store catches up from the topic of
submissions nothing is asked of witnesses, and nothing confirmed. When all of it is done, the store must hold
what was signed, with the same root: otherwise there is another history, and that ends the process with both
notes. Then one `restore.declared/1` for each register goes into the event log (formats.md, section 11), and
behind it the notes come back: until they do, whoever begins again finds the same restore.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry

from ledger.catch_up import Missing
from ledger.checkpoints import Checkpoint, OpenedCheckpoint, open_checkpoint
from ledger.errors import MalformedError, RejectedError, SplitViewError, VerificationError
from ledger.event_log import CHECKPOINTS, SUBMISSIONS, LogMessage
from ledger.governing import GOVERNING
from ledger.ledger import LedgerView
from ledger.notes import VerifierKey, split_note
from ledger.rebuild import NoteChecker
from ledger.stores.postgres import PostgresStore
from ledger.values import is_register
from services.distributed.anchorer_service import LogWriter
from services.distributed.following_checkpoints import LATEST
from services.distributed.log_errors import GapError
from services.distributed.log_notes import keep_logged_notes
from services.distributed.log_reader import LogReader, log_reader
from services.distributed.settings import DistributedSettings
from services.distributed.submission_log import SubmissionLog
from services.known_history import AheadError
from services.restoring import PendingRestore
from services.sealing_state import MOST_NAMED

WINDOW: Final = 1_000
"""Messages of a partition of `daybook.checkpoints`, the last ones, that are looked through at every start."""

FIRST_DELAY: Final = 0.25
"""Seconds after a first look whether the store has caught up; twice as long after each further one."""

LAST_DELAY: Final = 5.0
"""Seconds between two looks, at the most."""

_log = structlog.get_logger()


@dataclass(slots=True)
class _Lacking:
    """What the store lacks of one register: the first size, and the last checkpoint with its note."""

    first: int
    last: Checkpoint
    note: bytes

    def add(self, other: _Lacking) -> None:
        self.first = min(self.first, other.first)
        if self.last.size < other.last.size:
            self.last, self.note = other.last, other.note


@dataclass(slots=True)
class _Found:
    """What the store lacks, by register; `begins` tells from where on each partition's notes are to be read."""

    registers: dict[str, _Lacking] = field(default_factory=dict[str, _Lacking])
    begins: dict[int, int] = field(default_factory=dict[int, int])

    def add(self, registers: Mapping[str, _Lacking]) -> None:
        for name, lacking in registers.items():
            if name in self.registers:
                self.registers[name].add(lacking)
            else:
                self.registers[name] = lacking


class RestoredStore:
    """Waits for a store that is behind the event log, and makes it whole. Only for the event loop's thread."""

    def __init__(
        self, settings: DistributedSettings, store: PostgresStore, registry: CollectorRegistry
    ) -> None:
        self._settings = settings
        self._store = store
        self._registry = registry
        self._submissions = SubmissionLog(settings, registry)
        self._writer: LogWriter | None = None
        self._ends: dict[str, Mapping[int, int]] = {}
        self._reached: set[tuple[str, int]] = set()
        self._why: str | None = None
        self._left: Mapping[int, tuple[int, int]] = {}

    def told(self) -> dict[str, Any] | None:
        """Return, for readiness, why the store is waited for and what it has to do; None where it is not."""
        if self._why is None:
            return None
        left = {
            str(partition): {"done": done, "until": end}
            for partition, (done, end) in sorted(self._left.items())
        }
        return {"why": self._why, "partitions": left}

    async def make_whole(self) -> None:
        """Where the store is an older copy, wait for it, declare the restore, and bring the notes back.

        Nothing may be asked of witnesses or confirmed meanwhile. Raises SplitViewError or ProofError where the
        event log does not make what was signed; StoreError, OSError.
        """
        async with log_reader(self._settings) as reader:
            notes = await reader.ends(self._settings.topic_prefix + CHECKPOINTS)
            view = await asyncio.to_thread(self._opened)
            if view.fold.opened is None:
                return  # whoever begins without a ledger ends, and is started again
            found = await self._find(reader, notes, VerifierKey.parse(view.fold.opened.ledger_key))
            messages = await reader.ends(self._settings.topic_prefix + SUBMISSIONS)
        if not found.registers:
            return
        await self._until_done(f"the store lacks what was signed: {_named(found)}", messages, _never)
        await self._declare(await asyncio.to_thread(self._pending, found))
        checker = NoteChecker(await asyncio.to_thread(self._opened))
        async with log_reader(self._settings) as reader:
            for partition, begin in found.begins.items():
                where = (self._settings.topic_prefix + CHECKPOINTS, partition)
                await keep_logged_notes(reader, where, notes[partition], checker, self._store, begin=begin)
        _log.info("the store has caught up: its notes are back", registers=len(found.registers))
        self._why = None

    async def catch_up(self, ahead: AheadError) -> None:
        """Wait until the store has as much as a witness holds, which is then to be asked again.

        Raises `ahead` itself where the event log gives no more, or the store had as much already; StoreError,
        OSError.
        """
        register, size = ahead.register, ahead.size
        if (register, size) in self._reached:
            raise ahead

        def reached() -> bool:
            head = self._store.heads().get(register)
            return head is not None and head.size >= size

        note = await asyncio.to_thread(self._store.note, register, LATEST)
        stored = note.size if note is not None else 0
        if register not in self._ends:
            # Read behind the witness's answer: what it holds was signed before, and in the topic before that.
            # And read once: under load no store ever reaches the end.
            async with log_reader(self._settings) as reader:
                self._ends[register] = await reader.ends(self._settings.topic_prefix + SUBMISSIONS)
        await self._until_done(str(ahead), self._ends[register], reached)
        if not await asyncio.to_thread(reached):
            raise ahead
        self._reached.add((register, size))
        pending = await asyncio.to_thread(self._witnessed, ahead, stored)
        if pending is not None:
            await self._declare(pending)
        _log.info("the store has caught up with a witness", register=register, size=size)
        self._why = None

    def _opened(self) -> LedgerView:
        """Return the ledger as it is committed now."""
        view = LedgerView(self._store, self._settings.origin)
        head = view.heads().get(GOVERNING)
        if head is not None:
            view.follow(head.size)
        return view

    # What is lacking.

    async def _find(self, reader: LogReader, ends: Mapping[int, int], key: VerifierKey) -> _Found:
        """Look through the last notes of each partition, and further back for as long as any is lacking."""
        found = _Found()
        for partition, end in ends.items():
            while end > 0:
                begin = max(0, end - WINDOW)
                try:
                    lacking = await self._window(reader, partition, begin, end, key)
                except GapError as error:
                    _log.warning("older notes are not in the topic any more", why=str(error))
                    if partition in found.begins:
                        found.begins[partition] = end
                    break
                if not lacking:
                    break
                found.add(lacking)
                # One window more: a cosignature may have come later than the note that is there.
                found.begins[partition] = max(0, begin - WINDOW)
                end = begin
        return found

    async def _window(
        self, reader: LogReader, partition: int, begin: int, end: int, key: VerifierKey
    ) -> dict[str, _Lacking]:
        notes: dict[str, dict[int, list[bytes]]] = {}
        topic = self._settings.topic_prefix + CHECKPOINTS
        async for messages in reader.read(topic, partition, begin, end):
            for message in messages:
                if (place := _place(message)) is not None:
                    notes.setdefault(place[0], {}).setdefault(place[1], []).append(message.value)
        # Only now: whatever is in the topic was in the store before.
        return await asyncio.to_thread(self._not_held, notes, key)

    def _not_held(
        self, notes: Mapping[str, Mapping[int, list[bytes]]], key: VerifierKey
    ) -> dict[str, _Lacking]:
        found: dict[str, _Lacking] = {}
        heads = self._store.heads()
        for register, sizes in notes.items():
            held: set[int] = set()
            if register in heads:
                held = {one.size for one in self._store.notes(register, min(sizes), max(sizes) + 1)}
            origin = f"{self._settings.origin}/{register}"
            for size in sorted(sizes.keys() - held):
                for note in sizes[size]:
                    opened = _signed(note, origin, key.renamed(origin))
                    if opened is not None:
                        lacking = _Lacking(size, opened.checkpoint, opened.note.trimmed())
                        found.setdefault(register, lacking).add(lacking)
                        break
        return found

    # Waiting.

    async def _until_done(self, why: str, ends: Mapping[int, int], enough: Callable[[], bool]) -> None:
        """Wait until everything before `ends` is done, or it is `enough`, looking ever more seldom."""
        delay = FIRST_DELAY
        told = False
        while True:
            self._left = await asyncio.to_thread(self._not_done, ends)
            over = not self._left or await asyncio.to_thread(enough)
            # Without an await up to the log: whoever reads in readiness that it waits finds it there, too.
            self._why = why
            if over:
                return
            if not told:
                _log.warning(
                    "the store is behind: waiting for it to catch up from the topic. Nothing is cosigned or "
                    "confirmed before",
                    why=why,
                    left={partition: end - done for partition, (done, end) in self._left.items()},
                )
                told = True
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_DELAY)

    def _not_done(self, ends: Mapping[int, int]) -> dict[int, tuple[int, int]]:
        left = {}
        for partition, end in ends.items():
            position = self._store.position(SUBMISSIONS, partition)
            done = position.next_offset if position is not None else 0
            if done < end:
                left[partition] = done, end
        return left

    # Declaring.

    def _pending(self, found: _Found) -> PendingRestore:
        """Return what is to be declared. Raises SplitViewError where the event log does not make it."""
        restored = {}
        view = self._opened()
        heads = self._store.heads()
        for register, lacking in found.registers.items():
            head = heads.get(register)
            size = lacking.last.size
            if head is None or head.size < size:
                raise _split_view(
                    self._store, lacking, f"was signed, and the event log makes {head.size if head else 0}"
                )
            if view.reader(register).root(size) != lacking.last.root:
                raise _split_view(self._store, lacking, "was signed, and the event log makes another root")
            before = self._store.note(register, lacking.first - 1) if lacking.first else None
            stored = before.size if before is not None else 0
            if stored < size:
                restored[register] = Missing(register, stored, size)
        return PendingRestore(restored, self._governing_size(found.registers.get(GOVERNING)))

    def _witnessed(self, ahead: AheadError, stored: int) -> PendingRestore | None:
        """Return what is to be declared where the store has come to hold what a witness has shown."""
        view = self._opened()
        if view.fold.opened is None:
            return None
        origin = f"{self._settings.origin}/{ahead.register}"
        opened = _signed(ahead.second, origin, VerifierKey.parse(view.fold.opened.ledger_key).renamed(origin))
        if opened is None or opened.checkpoint.size != ahead.size or stored >= ahead.size:
            return None
        if view.reader(ahead.register).root(ahead.size) != opened.checkpoint.root:
            return None  # the witness is asked again, and that is then the end
        lacking = _Lacking(ahead.size, opened.checkpoint, ahead.second)
        governing = self._governing_size(lacking if ahead.register == GOVERNING else None)
        return PendingRestore({ahead.register: Missing(ahead.register, stored, ahead.size)}, governing)

    def _governing_size(self, lacking: _Lacking | None) -> int:
        """Return the signed size of the governing register.

        While nothing is confirmed it stays: so a restore that is declared twice is one record.
        """
        note = self._store.note(GOVERNING, LATEST)
        return max(note.size if note is not None else 0, lacking.last.size if lacking is not None else 0)

    async def _declare(self, pending: PendingRestore) -> None:
        """Write the records into the event log, and wait until the sequencer has appended them."""
        if not pending.restored:
            return
        view = await asyncio.to_thread(self._opened)
        async with self._submissions.started():
            for record in pending.records(self._settings.origin):
                await self._write(self._log_writer(view), record)
        for one in pending.restored.values():
            _log.warning(
                "a restore is declared in the governing register",
                register=one.register,
                stored=one.stored_size,
                recovered=one.recovered_size,
            )

    def _log_writer(self, view: LedgerView) -> LogWriter:
        if self._writer is None:
            self._writer = LogWriter(view, self._store, self._submissions, self._registry)
        return self._writer

    async def _write(self, writer: LogWriter, record: bytes) -> None:
        while True:
            try:
                await writer.write(GOVERNING, record)
                return
            except RejectedError as error:
                # It has waited long enough already: see PATIENCE.
                _log.warning("a restore is not declared yet", why=str(error))


def _named(found: _Found) -> str:
    sizes = [f"{name} up to {one.last.size}" for name, one in sorted(found.registers.items())]
    more = len(sizes) - MOST_NAMED
    return ", ".join(sizes[:MOST_NAMED]) + (f", and {more} more registers" if more > 0 else "")


def _place(message: LogMessage) -> tuple[str, int] | None:
    """Return the register and the size that a message says it is of; None where it is no note."""
    try:
        register = message.key.decode("ascii")
        size = Checkpoint.parse(split_note(message.value)[0]).size
    except (MalformedError, UnicodeDecodeError):
        return None
    return (register, size) if is_register(register) else None


def _signed(note: bytes, origin: str, key: VerifierKey) -> OpenedCheckpoint | None:
    """Return a note that our key has signed; None for any other."""
    try:
        return open_checkpoint(note, origin, [key])
    except (MalformedError, VerificationError):
        return None


def _split_view(store: PostgresStore, lacking: _Lacking, what: str) -> SplitViewError:
    register = lacking.last.origin.partition("/")[2]
    ours = store.note(register, LATEST) if register in store.heads() else None
    return SplitViewError(
        f"{lacking.last.origin}: a checkpoint of {lacking.last.size} entries {what}. Nothing more is signed: "
        "is a part of the topic lost, or is another ledger running with this key?",
        ours.note if ours is not None else b"(the store has no note of it)\n",
        lacking.note,
    )


def _never() -> bool:
    return False

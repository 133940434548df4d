"""The comparison of a distributed ledger's store with its topics: nothing of either is changed.

The messages that the store has done are replayed into a scratch store, and everything that follows from them is
compared: outcomes, positions, entries, roots, notes, cosignatures. Services may be running meanwhile: what
comes in after the comparison began is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Final

from ledger import base64
from ledger.errors import ProofError, VerificationError
from ledger.event_log import CHECKPOINTS, EMPTY_CHAIN, SUBMISSIONS, Disposition, Position
from ledger.export import NOTES_TOGETHER, noted_sizes
from ledger.governing import GOVERNING
from ledger.ledger import Ledger
from ledger.reader import RegisterReader, TileCache
from ledger.rebuild import NoteChecker
from ledger.store import Head
from ledger.stores.postgres import PostgresStore
from ledger.stores.sqlite import SqliteStore
from services.distributed.log_errors import OtherTopicError
from services.distributed.log_notes import LoggedNotes, keep_logged_notes
from services.distributed.log_reader import LogReader, log_reader
from services.distributed.partitions import partition_of
from services.distributed.rebuilding import Progress, Replay, belonging_to, check_last, read_ends
from services.distributed.replaying import Replayed
from services.distributed.settings import DistributedSettings

_ENTRIES: Final = 1_024
"""Entries that are compared at once."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What was the same. `behind` counts the messages that the topics have and the store had not done yet."""

    origin: str
    messages: int
    behind: int
    registers: Mapping[str, int]
    notes: LoggedNotes
    quarantined: int


@dataclass(frozen=True, slots=True)
class _State:
    """A store as it stood at the beginning. Partitions in `moved` went on while it was read."""

    positions: Mapping[int, Position]
    heads: Mapping[str, Head]
    moved: frozenset[int]

    def stands_still(self, register: str) -> bool:
        return partition_of(register, len(self.positions)) not in self.moved


async def compare(
    settings: DistributedSettings, store: PostgresStore, folder: Path, progress: Progress
) -> Compared:
    """Compare a store with the topics. The scratch store, in `folder`, takes as much room as the ledger.

    `progress` is told of messages. Raises VerificationError for the first difference, which it names;
    StoreError; OSError for Kafka.
    """
    async with log_reader(settings) as reader:
        # What a note states was committed before; what was committed is in the log.
        notes = (await read_ends(reader, settings)).notes
        state = await asyncio.to_thread(_state, store, settings.partitions)
        ends = (await read_ends(reader, settings)).messages
        with closing(SqliteStore(folder / "scratch.sqlite3")) as scratch:
            ledger = Ledger.open(scratch, settings.origin)
            comparison = _Comparison(settings, store, reader, ledger, state)
            governing = partition_of(GOVERNING, settings.partitions)
            quarantined = 0
            for partition in sorted(state.positions, key=lambda each: (each != governing, each)):
                await check_last(reader, settings, state.positions[partition], ends[partition])
                quarantined += await comparison.replay(partition, progress)
            checker = await asyncio.to_thread(NoteChecker, ledger)
            told = [
                await keep_logged_notes(
                    reader,
                    (settings.topic_prefix + CHECKPOINTS, partition),
                    end,
                    checker,
                    scratch,
                    all_replayed=state.positions[partition].next_offset == ends[partition],
                )
                for partition, end in notes.items()
            ]
            await asyncio.to_thread(comparison.registers, checker)
            return Compared(
                settings.origin,
                sum(each.next_offset for each in state.positions.values()),
                sum(ends.values()) - sum(each.next_offset for each in state.positions.values()),
                {name: head.size for name, head in ledger.heads().items()},
                LoggedNotes.summed([replace(each, dropped=0) for each in told]),
                quarantined,
            )


def _state(store: PostgresStore, partitions: int) -> _State:
    fixed = store.partitions(SUBMISSIONS)
    if fixed not in (None, partitions):
        raise OtherTopicError(f"the store was made from {fixed} partitions, not {partitions}")
    governing = partition_of(GOVERNING, partitions)
    # Whatever the others were judged against is then in the governing partition, up to its position.
    order = [*(each for each in range(partitions) if each != governing), governing]
    positions = {each: _position(store, each) for each in order}
    heads = store.heads()
    moved = frozenset(each for each in order if _position(store, each) != positions[each])
    return _State(positions, heads, moved)


def _position(store: PostgresStore, partition: int) -> Position:
    found = store.position(SUBMISSIONS, partition)
    return found or Position(SUBMISSIONS, partition, 0, 0, None, EMPTY_CHAIN)


@dataclass(frozen=True, slots=True)
class _Comparison:
    settings: DistributedSettings
    store: PostgresStore
    reader: LogReader
    ledger: Ledger
    state: _State

    async def replay(self, partition: int, progress: Progress) -> int:
        """Replay what was done of a partition, and compare outcomes and position; count the quarantined."""
        expected = self.state.positions[partition]
        where = f"{self.settings.topic_prefix}{SUBMISSIONS}/{partition}"
        quarantined = 0

        def commit(replayed: Replayed) -> None:
            nonlocal quarantined
            # Only a commit tells that what was taken to be new was so.
            replayed.turn.commit()
            advance = replayed.advance
            begin, end = advance.before.next_offset, advance.after.next_offset
            kept = self.store.dispositions(SUBMISSIONS, partition, begin, end)
            _compare_outcomes(where, kept, advance.dispositions)
            quarantined += len(advance.quarantined)

        start = replace(expected, next_offset=0, last=None, chain=EMPTY_CHAIN)
        belongs = belonging_to(partition, self.settings.partitions)
        replay = Replay(self.reader, self.settings, self.ledger, belongs)
        reached = await replay.run(start, expected.next_offset, commit, progress)
        if reached != expected:
            raise OtherTopicError(
                f"{where}: the messages up to {expected.next_offset - 1} are not those that the store was made "
                f"from: their chain is {reached.chain.hex()}, and the store's {expected.chain.hex()}"
            )
        return quarantined

    def registers(self, checker: NoteChecker) -> None:
        """Compare every register, `governing` first. Raises VerificationError for the first difference."""
        rebuilt = self.ledger.heads()
        for name in sorted({*rebuilt, *self.state.heads}, key=lambda name: (name != GOVERNING, name.encode())):
            mine, theirs = self.state.heads.get(name), rebuilt.get(name)
            if theirs is None:
                if self.state.stands_still(GOVERNING):
                    raise ProofError(f"{name}: in the store, but no message opens it")
                continue
            if mine is None:
                raise ProofError(f"{name}: opened by the messages, but not in the store")
            self._entries(name, theirs)
            if mine.size < theirs.size or (mine.size > theirs.size and self.state.stands_still(name)):
                raise ProofError(
                    f"{name}: the store has {mine.size} entries, and the messages make {theirs.size}; the "
                    f"roots are {base64.encode(mine.root)} and {base64.encode(theirs.root)}"
                )
            self._roots(name, theirs, checker)
            if mine.size == theirs.size and mine.root != theirs.root:
                raise self._difference(name, mine.size, mine.root)
            self._notes(name, theirs.size)

    def _entries(self, register: str, head: Head) -> None:
        """Compare the entries themselves: the tree may have been left as it was."""
        for begin in range(0, head.size, _ENTRIES):
            end = min(begin + _ENTRIES, head.size)
            mine = self.store.entries(register, begin, end)
            theirs = self.ledger.store.entries(register, begin, end)
            if mine != theirs:
                at = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), len(mine))
                held = sha256(mine[at]).hexdigest() if at < len(mine) else "missing"
                raise ProofError(
                    f"{register}: entry {begin + at} (SHA-256) is {held} in the store, and "
                    f"{sha256(theirs[at]).hexdigest()} by the messages"
                )

    def _roots(self, register: str, head: Head, checker: NoteChecker) -> None:
        """Compare the root at every size that has a note, by the store's tiles, and what the note states."""
        reader = RegisterReader(self.store, register, TileCache())
        kept = noted_sizes(self.store, register, 0, head.size + 1)
        while some := list(islice(kept, NOTES_TOGETHER)):
            sizes = [noted.size for noted in some]
            checker.look_up((register, size) for size in sizes)
            mine = reader.roots(sizes)
            for noted in some:
                checker.checked(register, noted.size, noted.exported(register))
                if mine[noted.size] != checker.root(register, noted.size):
                    raise self._difference(register, noted.size, mine[noted.size])

    def _difference(self, register: str, size: int, root: bytes) -> VerificationError:
        made = self.ledger.reader(register).root(size)
        return ProofError(
            f"{register}: the root of size {size} is {base64.encode(root)} in the store, and the messages make "
            f"{base64.encode(made)}"
        )

    def _notes(self, register: str, size: int) -> None:
        """Check that the store has every note and cosignature that was sent."""
        mine = noted_sizes(self.store, register, 0, size + 1)
        for noted in noted_sizes(self.ledger.store, register, 0, size + 1):
            held = next((each for each in mine if each.size >= noted.size), None)
            if held is None or held.size != noted.size:
                raise VerificationError(
                    f"{register}: the store lacks the note of size {noted.size}, which was published. Where a "
                    "rebuild was interrupted, or an older backup restored: daybook rebuild --from kafka "
                    "--resume"
                )
            kept = {one.first.by: one for one in held.cosigned}
            for one in noted.cosigned:
                there = kept.get(one.first.by)
                if (
                    there is None
                    or there.first.signature > one.first.signature
                    or there.last.signature < one.last.signature
                ):
                    raise VerificationError(
                        f"{register}: the store lacks a cosignature of size {noted.size} by {one.first.name}"
                    )


def _compare_outcomes(where: str, kept: Sequence[Disposition], made: Sequence[Disposition]) -> None:
    for at, disposition in enumerate(made):
        if at >= len(kept) or kept[at] != disposition:
            held = _told(kept[at]) if at < len(kept) else "nothing"
            raise VerificationError(
                f"{where}: of message {disposition.offset} the store says {held}, and it comes to "
                f"{_told(disposition)}"
            )


def _told(one: Disposition) -> str:
    return f"{one.kind.name.lower()}, {one.register} from {one.first} on, {one.count} entries"

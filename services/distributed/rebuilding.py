"""The rebuild of a distributed ledger's store from its topics: entries, outcomes, positions and notes.

The partition of `governing` comes first, since every other message was judged against what it says; the others
follow, in several processes where there are many messages. Each commit moves the partition's position as the
live writer's does, so a rebuild that was interrupted goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from typing import Final

from ledger.errors import MalformedError, ProofError, TakenError, VerificationError
from ledger.event_log import CHECKPOINTS, EMPTY_CHAIN, SUBMISSIONS, LogMessage, Position
from ledger.governing import GOVERNING
from ledger.ledger import Ledger
from ledger.rebuild import NoteChecker
from ledger.store import Store
from ledger.stores.postgres import PostgresStore
from services.collecting import collect_seldom
from services.distributed.log_errors import OtherTopicError, TruncatedError
from services.distributed.log_notes import LoggedNotes, keep_logged_notes
from services.distributed.log_reader import LogReader, log_reader
from services.distributed.partitions import partition_of
from services.distributed.replaying import Opened, Replayed, open_logged, replay_logged
from services.distributed.settings import DistributedSettings

MESSAGES_TOGETHER: Final = 5_000
"""Messages after which a commit takes no further one."""

BYTES_TOGETHER: Final = 16 * 1024 * 1024
"""Bytes after which a commit takes no further message."""

_MANY: Final = 400
"""Messages from which on it is worth to start other processes."""

_LOOK_SECONDS: Final = 0.5

MOST_NAMED: Final = 1_000
"""Quarantined messages that are named."""

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class LogEnds:
    """Where the topics ended when somebody began to read them, by partition."""

    messages: Mapping[int, int]
    notes: Mapping[int, int]

    @property
    def partitions(self) -> int:
        """The number of partitions of each topic."""
        return len(self.messages)

    def in_order(self) -> list[int]:
        """Return the partitions, that of `governing` first."""
        first = partition_of(GOVERNING, self.partitions)
        return [first, *(each for each in sorted(self.messages) if each != first)]


@dataclass(frozen=True, slots=True)
class RebuiltStore:
    """What a rebuild came to. `quarantined` names messages, of which each is an alarm: see `MOST_NAMED`."""

    origin: str
    messages: int
    registers: Mapping[str, int]
    notes: LoggedNotes
    quarantined: tuple[str, ...]


async def read_ends(reader: LogReader, settings: DistributedSettings) -> LogEnds:
    """Return where the topics end now. Raises MalformedError where they are missing or of other numbers."""
    messages, notes = [await reader.ends(settings.topic_prefix + topic) for topic in (SUBMISSIONS, CHECKPOINTS)]
    for topic, ends in ((SUBMISSIONS, messages), (CHECKPOINTS, notes)):
        if len(ends) != settings.partitions:
            raise MalformedError(
                f"{settings.topic_prefix}{topic} has {len(ends)} partitions, not {settings.partitions}: "
                "see daybook topics --check"
            )
    return LogEnds(messages, notes)


async def rebuild_store(
    settings: DistributedSettings,
    store: PostgresStore,
    ends: LogEnds,
    processes: int,
    progress: Progress,
) -> RebuiltStore:
    """Fill a store from the topics, up to `ends`; go on where an interrupted rebuild was.

    No service may be running: each partition is taken over from whoever held it. Raises VerificationError where
    the topics are not whole, are not what the store was made from, or have a note that the messages do not
    make; MalformedError where they hold no ledger of this origin; StoreError; OSError for Kafka.
    """
    first, *others = ends.in_order()
    outbox_end = await asyncio.to_thread(store.outbox_end)
    await asyncio.to_thread(store.fix_partitions, SUBMISSIONS, ends.partitions)
    notes = [await _rebuild_one(settings, store, ends, first, progress)]
    left = sum(ends.messages[each] + ends.notes[each] for each in others)
    if processes > 1 and left >= _MANY:
        notes += await _in_processes(settings, store, ends, others, processes, progress)
    else:
        notes += [await _rebuild_one(settings, store, ends, each, progress) for each in others]
    return await asyncio.to_thread(_told, settings, store, ends, notes, outbox_end)


def _told(
    settings: DistributedSettings,
    store: PostgresStore,
    ends: LogEnds,
    notes: Iterable[LoggedNotes],
    outbox_end: int,
) -> RebuiltStore:
    # What came from the topic need not go there again. What the outbox had before may never have been there,
    # and stays: also what an interrupted rebuild has left, which is then sent twice.
    while rows := store.outbox(1_000, outbox_end):
        store.sent([row.id for row in rows if row.topic == CHECKPOINTS])
        outbox_end = rows[-1].id
    quarantined = (
        f"{settings.topic_prefix}{SUBMISSIONS}/{each}, message {one.offset} of {one.register}: {one.why}"
        for each in ends.messages
        for one in store.quarantined(SUBMISSIONS, each)
    )
    return RebuiltStore(
        settings.origin,
        sum(ends.messages.values()),
        {name: head.size for name, head in store.heads().items()},
        LoggedNotes.summed(notes),
        tuple(islice(quarantined, MOST_NAMED)),
    )


async def _in_processes(
    settings: DistributedSettings,
    store: PostgresStore,
    ends: LogEnds,
    partitions: Sequence[int],
    processes: int,
    progress: Progress,
) -> list[LoggedNotes]:
    longest_first = sorted(partitions, key=lambda each: -ends.messages[each])
    done = 0
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running: list[Future[LoggedNotes]] = [
            pool.submit(_rebuild_in_process, settings, ends, each) for each in longest_first
        ]
        waiting = {asyncio.wrap_future(each) for each in running}
        try:
            while waiting:
                over, waiting = await asyncio.wait(
                    waiting, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_EXCEPTION
                )
                for each in over:
                    each.result()
                reached = await asyncio.to_thread(_reached, store, partitions)
                progress(reached - done)
                done = reached
        finally:
            for future in running:
                future.cancel()
    return [each.result() for each in running]


def _reached(store: PostgresStore, partitions: Iterable[int]) -> int:
    positions = (store.position(SUBMISSIONS, each) for each in partitions)
    return sum(each.next_offset for each in positions if each is not None)


def _rebuild_in_process(settings: DistributedSettings, ends: LogEnds, partition: int) -> LoggedNotes:
    collect_seldom()
    store = PostgresStore(settings.conninfo())
    try:
        return asyncio.run(_rebuild_one(settings, store, ends, partition, lambda _: None))
    finally:
        store.close()


async def _rebuild_one(
    settings: DistributedSettings, store: PostgresStore, ends: LogEnds, partition: int, progress: Progress
) -> LoggedNotes:
    """Fill a store from one partition of each topic. The partition of `governing` must be done before."""
    belongs = belonging_to(partition, ends.partitions)
    async with log_reader(settings) as reader:
        position = await asyncio.to_thread(store.take_over, SUBMISSIONS, partition)
        await check_last(reader, settings, position, ends.messages[partition])
        ledger = await asyncio.to_thread(Ledger.open, store, settings.origin, belongs)

        def commit(replayed: Replayed) -> None:
            replayed.turn.commit(lambda batches: store.commit_log(batches, replayed.advance))

        replay = Replay(reader, settings, ledger, belongs)
        await replay.run(position, ends.messages[partition], commit, progress)
        checker = await asyncio.to_thread(NoteChecker, ledger)
        where = (settings.topic_prefix + CHECKPOINTS, partition)
        try:
            return await keep_logged_notes(reader, where, ends.notes[partition], checker, store)
        except ProofError as error:
            first = next(store.quarantined(SUBMISSIONS, partition), None)
            if first is None:
                raise
            # The notes are not to blame where a message before them was altered.
            blamed = f"{settings.topic_prefix}{SUBMISSIONS}/{partition}, message {first.offset}"
            raise ProofError(f"{blamed} of {first.register} is quarantined: {first.why}\n{error}") from error


@dataclass(frozen=True, slots=True)
class Derived:
    """A ledger that was derived from the topics into another store. `quarantined` is as in `RebuiltStore`."""

    ledger: Ledger
    notes: LoggedNotes
    quarantined: tuple[str, ...]


async def derive(settings: DistributedSettings, store: Store, ends: LogEnds, progress: Progress) -> Derived:
    """Fill an empty store of any kind from the topics, up to `ends`, without positions. Raises as a rebuild."""
    ledger = Ledger.open(store, settings.origin)
    quarantined: list[str] = []

    def commit(replayed: Replayed) -> None:
        replayed.turn.commit()
        where = f"{settings.topic_prefix}{SUBMISSIONS}/{replayed.advance.before.partition}"
        quarantined.extend(
            f"{where}, message {one.offset} of {one.register}: {one.why}"
            for one in replayed.advance.quarantined[: MOST_NAMED - len(quarantined)]
        )

    async with log_reader(settings) as reader:
        for partition in ends.in_order():
            replay = Replay(reader, settings, ledger, belonging_to(partition, ends.partitions))
            start = Position(SUBMISSIONS, partition, 0, 0, None, EMPTY_CHAIN)
            await replay.run(start, ends.messages[partition], commit, progress)
        notes = []
        for partition, end in ends.notes.items():
            checker = await asyncio.to_thread(NoteChecker, ledger)
            where = (settings.topic_prefix + CHECKPOINTS, partition)
            notes.append(await keep_logged_notes(reader, where, end, checker, store))
    return Derived(ledger, LoggedNotes.summed(notes), tuple(quarantined))


def belonging_to(partition: int, partitions: int) -> Callable[[str], bool]:
    """Return what tells whether a register is of this partition."""
    known: dict[str, bool] = {}

    def belongs(register: str) -> bool:
        found = known.get(register)
        if found is None:
            found = known[register] = partition_of(register, partitions) == partition
        return found

    return belongs


async def check_last(reader: LogReader, settings: DistributedSettings, position: Position, end: int) -> None:
    """Check that a partition is the one that `position` speaks of. Raises TruncatedError, OtherTopicError."""
    topic, partition = settings.topic_prefix + position.topic, position.partition
    if position.next_offset > end:
        raise TruncatedError(
            f"{topic}/{partition}: it ends at {end}, and the store has {position.next_offset} of it"
        )
    if position.next_offset:
        last = await reader.read_one(topic, partition, position.next_offset - 1)
        if last.hash() != position.last:
            raise OtherTopicError(
                f"{topic}/{partition}: message {last.offset} is not the one that the store was made from: its "
                f"SHA-256 is {last.hash().hex()}, not {(position.last or b'').hex()}"
            )


@dataclass(frozen=True, slots=True)
class Replay:
    """The replay of one partition into a ledger, whose store need not be PostgreSQL."""

    reader: LogReader
    settings: DistributedSettings
    ledger: Ledger
    belongs: Callable[[str], bool]

    async def run(
        self, position: Position, end: int, commit: Callable[[Replayed], None], progress: Progress
    ) -> Position:
        """Replay the messages from `position` up to `end`; return where that is.

        While one batch is committed the next is read and its signatures are verified.
        """
        topic = self.settings.topic_prefix + position.topic
        batches = _together(self.reader.read(topic, position.partition, position.next_offset, end))
        upcoming = asyncio.ensure_future(self._next(batches))
        try:
            while messages := await upcoming:
                upcoming = asyncio.ensure_future(self._next(batches))
                replayed = await asyncio.to_thread(self._commit, position, messages, commit)
                position = replayed.advance.after
                progress(len(messages))
        finally:
            upcoming.cancel()
        return position

    async def _next(self, batches: AsyncIterator[list[LogMessage]]) -> list[Opened]:
        messages: list[LogMessage] = await anext(batches, [])
        return await asyncio.to_thread(self._open, messages)

    def _open(self, messages: Sequence[LogMessage]) -> list[Opened]:
        return [open_logged(each, self.settings.origin, self.belongs) for each in messages]

    def _commit(
        self, position: Position, messages: Sequence[Opened], commit: Callable[[Replayed], None]
    ) -> Replayed:
        try:
            return self._commit_all(position, messages, commit, new=True)
        except TakenError:
            return self._commit_all(position, messages, commit, new=False)

    def _commit_all(
        self, position: Position, messages: Sequence[Opened], commit: Callable[[Replayed], None], *, new: bool
    ) -> Replayed:
        replayed = replay_logged(self.ledger, position, messages, new=new)
        where = f"{self.settings.topic_prefix}{position.topic}/{position.partition}"
        if replayed.waits is not None:
            raise VerificationError(
                f"{where}: message {replayed.advance.after.next_offset} was judged at governing size "
                f"{replayed.waits.governing_size}, which the log does not reach"
            )
        opened = replayed.turn.fold.opened
        if opened is None or opened.origin != self.settings.origin:
            # Another ledger's log would be quarantined whole.
            raise MalformedError(f"{where} does not open a ledger {self.settings.origin}")
        commit(replayed)
        return replayed


async def _together(messages: AsyncIterator[Sequence[LogMessage]]) -> AsyncIterator[list[LogMessage]]:
    """Yield messages in batches of one commit each."""
    batch: list[LogMessage] = []
    size = 0
    async for some in messages:
        for message in some:
            batch.append(message)
            size += len(message.value)
            if len(batch) >= MESSAGES_TOGETHER or size >= BYTES_TOGETHER:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch

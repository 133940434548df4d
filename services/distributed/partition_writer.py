"""The single writer of one partition of the event log: what it makes of messages, over a log store.

It knows nothing of Kafka or Faust: whoever reads the topic hands the messages over in their order, and may
hand any of them over again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import structlog

from ledger.errors import TakenError
from ledger.event_log import Disposition, Kind, LogMessage, LogStore, Position
from ledger.governing import GOVERNING
from ledger.ledger import Growth, Ledger, Waiting
from services.distributed.head_signing import HeadSigning
from services.distributed.log_errors import GapError, LogError, OtherTopicError, TruncatedError
from services.distributed.partitions import partition_of
from services.distributed.replaying import Opened, Replayed, open_logged, replay_logged

MAX_BYTES: Final = 16 * 1024 * 1024
"""Bytes of messages after which a commit takes no further one."""

MAX_MESSAGES: Final = 512
"""Messages of one commit, at the most."""

_SAY_AGAIN: Final = 10.0
"""Seconds after which a writer that waits says so again."""

_SHOWN: Final = 256
"""Characters of a quarantined message's key that are logged: it may be of any length."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Appendage:
    """What `append` has done: of its messages, the first `done` are over.

    `repeated` of these had been done before; of the others there is a disposition each. Behind them the next
    one waits for a governing size, where `waiting` is set; else what is left was too much for one commit.
    """

    done: int
    repeated: int
    dispositions: Sequence[Disposition] = ()
    growths: Mapping[str, Growth] = field(default_factory=dict[str, Growth])
    waiting: Waiting | None = None

    @property
    def entries(self) -> int:
        """The number of entries that were appended."""
        return sum(each.count for each in self.dispositions if each.kind in (Kind.APPENDED, Kind.REJECTED))


class PartitionWriter:
    """The writer of one partition, under one epoch.

    For one thread at a time. After any error but SignerAwayError it is spent, after FencedError above all:
    nothing of it is kept, and a new one is opened.
    """

    def __init__(self, store: LogStore, ledger: Ledger, position: Position, partitions: int) -> None:
        self.position = position
        self._store = store
        self._ledger = ledger
        self._partitions = partitions
        self._waiting: Waiting | None = None
        self._said_at = float("-inf")
        self.heads: Final = HeadSigning(store, ledger, self._signs)
        """The committed heads that wait for their signature."""

    @classmethod
    def open(cls, store: LogStore, topic: str, partition: int, partitions: int, origin: str) -> Self:
        """Take the partition over from whoever had it, and read its registers' edges.

        Raises OtherTopicError where the store was made from a topic of another number of partitions,
        StoreError where it does not agree with itself.
        """
        fixed = store.partitions(topic)
        if fixed is None:
            store.fix_partitions(topic, partitions)
        elif fixed != partitions:
            raise OtherTopicError(
                f"{topic} has {partitions} partitions; the database was made from {fixed}, which decides where "
                "each register is. Is this another topic, or were partitions added? Point the services at the "
                "topic that the database was made from, or rebuild into a new database"
            )
        # First the epoch: from here on the one before can change nothing that is read below.
        position = store.take_over(topic, partition)
        ledger = Ledger.open(store, origin, mine=lambda name: partition_of(name, partitions) == partition)
        writer = cls(store, ledger, position, partitions)
        writer.heads.look_up()
        return writer

    def _place(self) -> str:
        return f"{self.position.topic}/{self.position.partition}"

    def _is_mine(self, register: str) -> bool:
        return partition_of(register, self._partitions) == self.position.partition

    def _signs(self, register: str, size: int) -> bool:
        # Whoever writes `governing` opens every register, and so signs its size 0: its own writer may not have
        # heard of it yet.
        return self._is_mine(register) or (size == 0 and self._is_mine(GOVERNING))

    def check(self, end_offset: int, before: LogMessage | None) -> None:
        """Compare the topic with what was done of it: its end, and the message at `position.next_offset - 1`.

        `before` is None where that message is not there. Raises TruncatedError or OtherTopicError; LogError
        where the store does not say what became of that message.
        """
        done = self.position.next_offset
        if end_offset < done:
            raise truncated(self._place(), end_offset, done)
        if done == 0:
            return
        if self._store.disposition(self.position.topic, self.position.partition, done - 1) is None:
            raise self._forgotten(done - 1)
        there = before is not None and before.offset == done - 1
        if before is None or not there or before.hash() != self.position.last:
            raise OtherTopicError(
                f"{self._place()}: the message at offset {done - 1}, the last that was appended, "
                f"{'is another one' if there else 'is not there'}. The topic is not the one that the database "
                "was made from: nothing is appended. Point the services at that topic, or rebuild a new "
                "database from this one"
            )

    def append(self, messages: Sequence[LogMessage]) -> Appendage:
        """Append messages, which follow each other, in one commit; see `Appendage` for what is left over.

        Messages below the position are skipped, each where its outcome is recorded. Raises GapError for one
        beyond the position, LogError for one below it without an outcome, FencedError where another writer has
        taken the partition over, StoreError.
        """
        repeated = self._repeated(messages)
        fresh = messages[repeated:]
        self._check_order(fresh)
        if not fresh or not self._reached():
            return Appendage(repeated, repeated, waiting=self._waiting if fresh else None)
        opened = [open_logged(message, self._ledger.origin, self._is_mine) for message in _together(fresh)]
        try:
            done, growths = self._append(opened, new=True)
        except TakenError:
            done, growths = self._append(opened, new=False)
        return Appendage(repeated + len(done), repeated, done, growths, self._waiting)

    def _append(
        self, opened: Sequence[Opened], *, new: bool
    ) -> tuple[tuple[Disposition, ...], Mapping[str, Growth]]:
        replayed = self._replay(opened, new=new)
        if not replayed.advance.dispositions and self._reached():
            # What the first waited for was there already, and only unknown here.
            replayed = self._replay(opened, new=new)
        done = tuple(replayed.advance.dispositions)
        return done, self._commit(replayed) if done else {}

    def _replay(self, opened: Sequence[Opened], *, new: bool) -> Replayed:
        replayed = replay_logged(self._ledger, self.position, opened, new=new)
        self._waiting = replayed.waits
        return replayed

    def _repeated(self, messages: Sequence[LogMessage]) -> int:
        position = self.position
        below = [message.offset for message in messages if message.offset < position.next_offset]
        if not below:
            return 0
        if below != list(range(below[0], below[0] + len(below))):
            raise GapError(f"{self._place()}: messages {below[0]} to {below[-1]} do not follow each other")
        found = self._store.dispositions(position.topic, position.partition, below[0], below[-1] + 1)
        if [each.offset for each in found] != below:
            raise self._forgotten(min(set(below) - {each.offset for each in found}))
        return len(below)

    def _forgotten(self, offset: int) -> LogError:
        return LogError(
            f"{self._place()}: the store does not say what became of message {offset}, which lies before "
            f"the position {self.position.next_offset}. It is damaged: run fsck"
        )

    def _check_order(self, fresh: Sequence[LogMessage]) -> None:
        for expected, message in enumerate(fresh, self.position.next_offset):
            if message.offset != expected:
                raise GapError(
                    f"{self._place()}: message {message.offset} came where {expected} should be: messages are "
                    "missing, and nothing behind them is appended. Is something deleted or compacted in the "
                    "topic, or written in transactions?"
                )

    def _reached(self) -> bool:
        """Tell whether nothing waits any more: follow the governing register as far as it is committed."""
        waiting = self._waiting
        if waiting is None:
            return True
        head = self._store.heads().get(GOVERNING)
        reached = head.size if head else 0
        self._ledger.follow(reached)
        if reached >= waiting.governing_size:
            self._waiting = None
            return True
        if time.monotonic() - self._said_at >= _SAY_AGAIN:
            self._said_at = time.monotonic()
            _log.warning(
                "a message waits for the governing register, and all behind it",
                topic=self.position.topic,
                partition=self.position.partition,
                offset=self.position.next_offset,
                wanted=waiting.governing_size,
                reached=reached,
                # Beside `governing` itself it was judged against entries before it, which are all done.
                for_ever=self._is_mine(GOVERNING),
            )
        return False

    def _commit(self, replayed: Replayed) -> Mapping[str, Growth]:
        advance = replayed.advance
        growths = replayed.turn.commit(lambda batches: self._store.commit_log(batches, advance))
        # A crash above leaves nothing: the messages come again. A crash below loses nothing: they then lie
        # below the position, and the heads without a note are found on opening.
        self.position = advance.after
        self.heads.grew(growths)
        for each in advance.quarantined:
            _log.error(
                "a message is quarantined: registration cannot have made it",
                topic=self.position.topic,
                partition=self.position.partition,
                offset=each.offset,
                register=each.register[:_SHOWN],
                why=each.why,
            )
        return growths


def truncated(place: str, end_offset: int, done: int) -> TruncatedError:
    """Return the error that says that a partition ends before what was done of it."""
    return TruncatedError(
        f"{place} ends at offset {end_offset}; messages up to {done - 1} were appended. The topic was "
        "truncated, made anew, or is another one: nothing is appended. Restore the topic, or point the "
        "services at the right one; what was appended is safe in the database"
    )


def beheaded(place: str, begin: int, done: int) -> TruncatedError:
    """Return the error that says that messages of a partition are gone which were not appended yet."""
    return TruncatedError(
        f"{place} begins at offset {begin}; messages up to {done - 1} were appended. Those between were "
        "deleted before they were: nothing is appended. Restore the topic from a copy, and find out who or "
        "what deletes from it"
    )


def _together(messages: Sequence[LogMessage]) -> Iterator[LogMessage]:
    """Yield as many messages as one commit may have."""
    size = 0
    for message in messages[:MAX_MESSAGES]:
        if size >= MAX_BYTES:
            return
        yield message
        size += message.size

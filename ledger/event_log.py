"""The event log of a distributed ledger: where the writers of its partitions stand, what became of messages.

A message's key is its register, its value the entries in entry-bundle framing (formats.md, section 10). The
store, not the log, is the authority on how far a partition is done: see `LogStore`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from hashlib import sha256
from typing import Final, Protocol

from ledger.store import Batch, Store, StoredNote

SUBMISSIONS: Final = "daybook.submissions"
"""The topic that is the history of the ledger."""

CHECKPOINTS: Final = "daybook.checkpoints"
"""The topic of signed notes, with and without cosignatures."""

REJECTIONS: Final = "daybook.rejections"
"""The topic of copies of quarantined messages."""

EMPTY_CHAIN: Final = bytes(32)
"""The chain before the first message of a partition."""


def message_hash(register: str, value: bytes) -> bytes:
    """Return SHA-256(register LF value), 32 bytes."""
    return sha256(register.encode() + b"\n" + value).digest()


def chained(chain: bytes, message: bytes) -> bytes:
    """Return SHA-256(chain || message): the chain after one more message, given by its hash."""
    return sha256(chain + message).digest()


@dataclass(frozen=True, slots=True)
class LogMessage:
    """One message of a partition, as it was read: its key should be a register, in UTF-8."""

    offset: int
    key: bytes
    value: bytes

    @property
    def size(self) -> int:
        """Bytes of the key and the value."""
        return len(self.key) + len(self.value)

    def hash(self) -> bytes:
        """Return SHA-256(key LF value): that of `message_hash`, whatever the key is."""
        # Piece by piece: a value that nobody may send can have hundreds of megabytes.
        digest = sha256(self.key)
        digest.update(b"\n")
        digest.update(self.value)
        return digest.digest()


@dataclass(frozen=True, slots=True)
class Position:
    """How far a partition is done, and under which epoch: each writer that takes it over has its own.

    `last` is the hash of the message at `next_offset - 1`, None before the first; `chain` goes over all.
    """

    topic: str
    partition: int
    epoch: int
    next_offset: int
    last: bytes | None
    chain: bytes

    def after(self, hashes: Iterable[bytes]) -> Position:
        """Return the position after these messages, given by their hashes, in order."""
        offset, last, chain = self.next_offset, self.last, self.chain
        for message in hashes:
            offset, last, chain = offset + 1, message, chained(chain, message)
        return replace(self, next_offset=offset, last=last, chain=chain)


class Kind(IntEnum):
    """What became of a message. The numbers are kept in stores."""

    APPENDED = 1
    KNOWN = 2
    REJECTED = 3
    QUARANTINED = 4


@dataclass(frozen=True, slots=True)
class Disposition:
    """What became of the message at `offset`: it stands at entries `first` to `first + count - 1`.

    A rejected one stands at its rejection. A quarantined one stands nowhere: 0 and 0.
    """

    offset: int
    kind: Kind
    register: str
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class QuarantinedMessage:
    """A message that registration cannot have made, and why.

    `key` and `value` are verbatim, or the first `MAX_MESSAGE` bytes of what is larger: `why` then has the
    length and the SHA-256 of the whole. `register` is `key` as text, for people: bytes that are not UTF-8 are
    replaced.
    """

    offset: int
    register: str
    key: bytes
    value: bytes
    why: str


@dataclass(frozen=True, slots=True)
class Advance:
    """How one commit moves a partition: one disposition for each message from `before` to `after`, in order.

    Each that is quarantined has its message in `quarantined`.
    """

    before: Position
    after: Position
    dispositions: Sequence[Disposition]
    quarantined: Sequence[QuarantinedMessage]


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A message that is committed here and still to be sent."""

    id: int
    topic: str
    key: bytes
    value: bytes


class LogStore(Store, Protocol):
    """A store that is filled from an event log, by one writer for each partition.

    Two may believe that they are it: the one that took over last is right, and the other writes nothing.
    """

    def position(self, topic: str, partition: int) -> Position | None:
        """Return where a partition stands, None where nobody has taken it over yet."""
        ...

    def take_over(self, topic: str, partition: int) -> Position:
        """Raise the epoch of a partition, or begin it at epoch 1 and offset 0; return where it stands.

        From then on whoever held it before is fenced. Durable on return.
        """
        ...

    def commit_log(self, batches: Sequence[Batch], advance: Advance) -> None:
        """Commit the batches and the partition's new position, together or not at all.

        With them go the outcomes, the quarantined messages, and an outbox row for each head that moved (its
        value is the note, once there is one) and each quarantined message. Durable on return. Raises
        FencedError if another has taken the partition over; ConflictError if it does not stand at
        `advance.before`, or a head moved; StorageFullError where there was no room: nothing was written in
        any of these cases. After any other StoreError the outcome is unknown: take over again.
        """
        ...

    def disposition(self, topic: str, partition: int, offset: int) -> Disposition | None:
        """Return what became of one message, None where it is not done."""
        ...

    def dispositions(self, topic: str, partition: int, begin: int, end: int) -> list[Disposition]:
        """Return what became of the messages at offsets begin to end - 1, in order, as far as they are done."""
        ...

    def quarantined(self, topic: str, partition: int) -> Iterator[QuarantinedMessage]:
        """Yield every quarantined message of a partition, in order."""
        ...

    def rejection(self, register: str, submission_ids: Sequence[bytes]) -> dict[bytes, int]:
        """Return the index of the latest rejection of each of the submissions that was rejected."""
        ...

    def publish_notes(self, notes: Mapping[str, StoredNote]) -> None:
        """Keep newly signed notes, by register, and let their outbox rows be sent. Durable on return.

        A note whose size is kept already stays as it is. Where there is no outbox row, because it was sent or
        never made, there is one afterwards. Rows of smaller sizes that were never signed are dropped: nobody
        signs behind a newer note.
        """
        ...

    def unsigned(self) -> list[tuple[str, int]]:
        """Return the registers whose head has no note, and the sizes of those heads."""
        ...

    def outbox(self, limit: int) -> list[OutboxRow]:
        """Return up to `limit` messages that are to be sent, in the order in which to send them."""
        ...

    def sent(self, ids: Sequence[int]) -> None:
        """Drop outbox rows that the log has acknowledged."""
        ...

    def wait_for_outbox(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for news in the outbox; tell whether there may be some.

        What comes between two calls is not missed. For one thread at a time.
        """
        ...

    def partitions(self, topic: str) -> int | None:
        """Return the number of partitions that was fixed for a topic, if it was."""
        ...

    def fix_partitions(self, topic: str, count: int) -> None:
        """Fix the number of a topic's partitions for ever. Raises StoreError where another number is there."""
        ...

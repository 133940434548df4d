"""What becomes of the messages of a partition: each is opened and replayed, and its outcome told.

The same messages come to the same outcomes whoever replays them, and in whatever batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from ledger.entries import MAX_MESSAGE, Message, open_message
from ledger.errors import LedgerError
from ledger.event_log import Advance, Disposition, Kind, LogMessage, Position, QuarantinedMessage
from ledger.ledger import Appended, FinishedTurn, Known, Ledger, Outcome, Quarantined, Rejected, Waiting
from ledger.values import is_register


@dataclass(frozen=True, slots=True)
class Opened:
    """A message of the log with what it says, or why registration cannot have made it."""

    logged: LogMessage
    message: Message | Quarantined


def open_logged(logged: LogMessage, origin: str, belongs: Callable[[str], bool]) -> Opened:
    """Parse and verify a message. `belongs` tells whether a register is of the partition that it came from."""
    if len(logged.key) > MAX_MESSAGE:
        return Opened(logged, Quarantined("key or register: the key is not the name of a register"))
    try:
        register = logged.key.decode("utf-8")
    except UnicodeDecodeError:
        return Opened(logged, Quarantined("key or register: the key is not UTF-8"))
    if not is_register(register):
        return Opened(logged, Quarantined("key or register: the key is not the name of a register"))
    if not belongs(register):
        return Opened(logged, Quarantined("key or register: the register is of another partition"))
    try:
        return Opened(logged, open_message(register, logged.value, origin))
    except LedgerError as error:
        return Opened(logged, Quarantined(f"signature or shape: {error}"))


@dataclass(frozen=True, slots=True)
class Replayed:
    """A turn that took in messages, to be committed with `advance`.

    `waits` is the outcome of the first message that could not be judged yet: it and all behind it are left.
    """

    turn: FinishedTurn
    advance: Advance
    waits: Waiting | None


def replay_logged(
    ledger: Ledger, position: Position, messages: Sequence[Opened], *, new: bool = False
) -> Replayed:
    """Replay messages, the first of which is at `position`'s next offset. `new` is as in Turn.replay_all."""
    turn = ledger.turn()
    read = [one.message for one in messages if not isinstance(one.message, Quarantined)]
    outcomes = turn.replay_all(read, new=new)
    dispositions: list[Disposition] = []
    quarantined: list[QuarantinedMessage] = []
    waits: Waiting | None = None
    for one in messages:
        outcome = one.message if isinstance(one.message, Quarantined) else next(outcomes)
        if isinstance(outcome, Waiting):
            waits = outcome
            break
        register = one.logged.key[:MAX_MESSAGE].decode("utf-8", "replace")
        dispositions.append(_disposition(one.logged.offset, register, outcome))
        if isinstance(outcome, Quarantined):
            quarantined.append(_set_aside(one.logged, register, outcome.why))
    after = position.after(one.logged.hash() for one in messages[: len(dispositions)])
    return Replayed(turn.finish({}), Advance(position, after, dispositions, quarantined), waits)


def _set_aside(logged: LogMessage, register: str, why: str) -> QuarantinedMessage:
    # A message may have been compressed from more than a store can hold.
    said = "; ".join([why, *_cut("key", logged.key), *_cut("value", logged.value)])
    return QuarantinedMessage(
        logged.offset, register, logged.key[:MAX_MESSAGE], logged.value[:MAX_MESSAGE], said
    )


def _cut(what: str, data: bytes) -> Iterator[str]:
    if len(data) > MAX_MESSAGE:
        digest = sha256(data).hexdigest()
        yield f"only the first {MAX_MESSAGE} of its {what}'s {len(data)} bytes are kept, SHA-256 {digest}"


def _disposition(offset: int, register: str, outcome: Outcome) -> Disposition:
    match outcome:
        case Appended(run=run):
            return Disposition(offset, Kind.APPENDED, register, run.first, run.count)
        case Known(run):
            return Disposition(offset, Kind.KNOWN, register, run.first, run.count)
        case Rejected(index=index):
            return Disposition(offset, Kind.REJECTED, register, index, 1)
        case Quarantined():
            return Disposition(offset, Kind.QUARANTINED, register, 0, 0)
        case Waiting():
            raise AssertionError("a message that waits has no outcome")

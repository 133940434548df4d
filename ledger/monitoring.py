"""Monitoring: what somebody who reads every entry of a ledger judges for himself.

A monitor feeds the entries that it reads through the same append rules by which the ledger made them
(formats.md, section 9). Whatever those rules would not have appended, registration cannot have made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ledger.checkpoints import OpenedCheckpoint, peek_origin
from ledger.entries import messages_of, open_message, parse_entry
from ledger.errors import MalformedError, RejectedError, VerificationError
from ledger.governing import GOVERNING, Fold
from ledger.governing_types import CheckpointAnchored
from ledger.ledger import Appended, Known, Outcome, Quarantined, Rejected, Turn, Waiting
from ledger.records import parse_record
from ledger.tiles import encode_bundle
from ledger.timeline import Timeline
from ledger.values import is_register
from ledger.witnessing import Cosignature, Policy, Quorum


@dataclass(frozen=True, slots=True)
class Fault:
    """The entry at `index` is none that registration can have made, and why."""

    index: int
    why: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """How far entries were replayed: up to, not including, index `end`.

    It stopped there before a submission that is not all there yet, or for `fault`, after which the turn is
    spoilt and must be dropped, or because the entry names a governing size, `waits_for`, that is not reached.
    """

    end: int
    fault: Fault | None = None
    waits_for: int | None = None


def replay(turn: Turn, register: str, ledger_origin: str, entries: Sequence[bytes], first: int) -> Replayed:
    """Replay the entries of a register from index `first`, the size that the turn's ledger has reached.

    Raises StoreError.
    """
    end = first
    messages = messages_of(entries, first)
    while True:
        try:
            message = next(messages, None)
        except MalformedError as error:
            return Replayed(end, Fault(_spoken_of(end, entries, first), str(error)))
        if message is None:
            return Replayed(end)
        try:
            outcome = turn.replay(open_message(register, encode_bundle(message), ledger_origin))
        except (MalformedError, RejectedError, VerificationError) as error:
            return Replayed(end, Fault(end, f"signature or shape: {error}"))
        if isinstance(outcome, Waiting):
            return Replayed(end, waits_for=outcome.governing_size)
        if (why := _wrong(outcome)) is not None:
            return Replayed(end, Fault(end, why))
        end += len(message)


def _spoken_of(end: int, entries: Sequence[bytes], first: int) -> int:
    """Return the index of the first entry from `end` on that does not go on as it should."""
    for index in range(end, first + len(entries)):
        try:
            membership = parse_entry(entries[index - first]).membership
        except MalformedError:
            return index
        if (membership.position if membership else 0) != index - end:
            return index
    return end


def _wrong(outcome: Outcome) -> str | None:
    match outcome:
        case Appended() | Waiting():
            return None
        case Known(run):
            return f"it was appended already, at index {run.first}"
        case Rejected(refusal, _):
            return f"the append rules refuse it: {refusal.reason.value}"
        case Quarantined(why):
            return why


@dataclass(frozen=True, slots=True)
class AnchoredNote:
    """A checkpoint of `register` that a governing entry carries, signed by the ledger.

    `sealed` tells whether it meets the quorum of the reader's own policy.
    """

    register: str
    opened: OpenedCheckpoint
    sealed: bool


def open_anchor(
    entry: bytes, index: int, ledger_origin: str, fold: Fold, policy: Policy
) -> AnchoredNote | None:
    """Return what the governing entry at `index` anchors, verified; None where it is no anchor.

    Whether the register has that root at that size is for the caller, who has its entries. Raises
    MalformedError, RejectedError or SignatureError for an anchor that the ledger cannot have written.
    """
    parsed = parse_entry(entry)
    # Signed entries never anchor: the fold judges those.
    if parsed.membership is not None:
        return None
    record = parse_record(parsed.record)
    if not isinstance(record, CheckpointAnchored):
        return None
    note = record.checkpoint.encode()
    ledger, _, register = peek_origin(note).partition("/")
    if ledger != ledger_origin or not is_register(register) or register == GOVERNING:
        raise MalformedError(
            f"anchors a checkpoint of {peek_origin(note)!r}, which is no register of this ledger"
        )
    state = fold.registers.get(register)
    if state is None or state.opened >= index:
        raise MalformedError(f"anchors a checkpoint of {register}, which was not open then")
    opened = policy.open(note, f"{ledger_origin}/{register}")
    return AnchoredNote(register, opened, policy.is_sealed(opened))


def seconds_unanchored(
    register: Iterable[Cosignature],
    size: int,
    governing: Iterable[Cosignature],
    governing_size: int,
    quorum: Quorum,
) -> int | None:
    """Return for how long, by the witnesses' clocks, a sealed checkpoint is known not to have been anchored.

    `register` are the cosignatures of the register's checkpoint of `size`, `governing` those of a governing
    checkpoint of `governing_size`, which holds no anchor of it. None where no quorum says, or where two
    quorums need not share a clock (formats.md, section 15).
    """
    if not quorum.comparable:
        return None
    sealed_by = Timeline(register, quorum).bounds(size - 1).not_after
    unanchored_at = Timeline(governing, quorum).bounds(governing_size).not_before
    return None if sealed_by is None or unanchored_at is None else unanchored_at - sealed_by

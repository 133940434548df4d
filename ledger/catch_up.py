"""Catching up: a ledger that was restored from an older copy is brought to where its event log ends.

Never a second history (formats.md, section 11): what the ledger holds must be a beginning of what was rebuilt
from the event log, root by root, or nothing is done and both notes are the evidence. Only what is missing is
replayed, through the same rules; every state on the way is a state that the ledger once had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.checkpoints import Checkpoint
from ledger.entries import open_message
from ledger.errors import MalformedError, ProofError, SplitViewError, StoreError, VerificationError
from ledger.export import NOTES_TOGETHER, NotedSize, noted_sizes, submissions
from ledger.governing import GOVERNING
from ledger.ledger import Appended, Ledger
from ledger.notes import SignatureLine, split_note
from ledger.store import Cosigned, NewCosignatures, Store, StoredNote
from ledger.tiles import encode_bundle

ENTRIES_TOGETHER: Final = 4_096
"""Entries after which a commit takes no further submission."""

BYTES_TOGETHER: Final = 16 * 1024 * 1024
"""Bytes after which a commit takes no further submission."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What a ledger lacks of one register: the entries `stored_size` to `recovered_size - 1`."""

    register: str
    stored_size: int
    recovered_size: int


def missing(held: Ledger, rebuilt: Ledger) -> tuple[Missing, ...]:
    """Return what `held` lacks of `rebuilt`, `governing` first: nothing where it goes as far, or further.

    Both are of one origin. Raises SplitViewError, or ProofError where not both sides have a note that covers
    the difference, when one of the two is not the beginning of the other.
    """
    heads = held.heads()
    found = []
    for register in in_order(rebuilt):
        size = heads[register].size if register in heads else 0
        recovered = rebuilt.heads()[register].size
        if register in heads:
            _compare(held, rebuilt, register, min(size, recovered))
        if size < recovered:
            found.append(Missing(register, size, recovered))
    return tuple(found)


def in_order(ledger: Ledger) -> list[str]:
    """Return a ledger's registers as an export has them: `governing` first, then in byte order."""
    return sorted(ledger.heads(), key=lambda name: (name != GOVERNING, name.encode()))


def _compare(held: Ledger, rebuilt: Ledger, register: str, size: int) -> None:
    """Compare a register's first `size` entries, and the notes that `held` keeps of them."""
    mine, theirs = held.reader(register), rebuilt.reader(register)
    if mine.root(size) != theirs.root(size):
        # The first size at which the roots differ: below it, they agree at every one.
        low, high = 0, size
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if mine.root(middle) == theirs.root(middle) else (low, middle)
        raise _difference(held, rebuilt, register, high - 1)
    for stored in held.store.notes(register, 0, size + 1):
        stated = _stated(register, stored)
        if stated.root != theirs.root(stored.size):
            other = rebuilt.store.note(register, stored.size)
            text = f"{register}: the note of size {stored.size} states another root than the event log makes"
            if other is None or other.size != stored.size:
                raise ProofError(f"{text}:\n{stored.note.decode()}")
            raise SplitViewError(text, stored.note, other.note)


def _stated(register: str, stored: StoredNote) -> Checkpoint:
    try:
        return Checkpoint.parse(split_note(stored.note)[0])
    except MalformedError as error:
        raise StoreError(f"{register}: the note of size {stored.size} is damaged; run fsck: {error}") from error


def _difference(held: Ledger, rebuilt: Ledger, register: str, index: int) -> VerificationError:
    digests = [_sha256(ledger.reader(register).entry(index)) for ledger in (held, rebuilt)]
    text = (
        f"{held.register_origin(register)}: two histories. Entry {index} (SHA-256) is {digests[0]} in the "
        f"ledger, and {digests[1]} in the event log"
    )
    notes = [covering_note(ledger.store, register, index) for ledger in (held, rebuilt)]
    mine, theirs = notes
    if mine is not None and theirs is not None:
        return SplitViewError(f"{text}; each is under a checkpoint:", mine, theirs)
    signed = [note.decode(errors="replace") for note in notes if note is not None]
    return ProofError("\n".join([f"{text}; no checkpoints of both cover it", *signed]))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def covering_note(store: Store, register: str, index: int) -> bytes | None:
    """Return the smallest kept note of more than `index` entries."""
    head = store.heads()[register].size
    found = next(store.notes(register, index + 1, head + 1), None)
    return found.note if found else None


def catch_up(held: Ledger, rebuilt: Ledger, lacking: Sequence[Missing]) -> None:
    """Replay what `missing` found. Interrupted anywhere it can be begun again.

    Raises StoreError, also where a replay does not lead where it
    led in `rebuilt`.
    """
    for one in lacking:
        for batch in _batches(rebuilt.store, one):
            turn = held.turn()
            reached = held.heads()[one.register].size if one.register in held.heads() else 0
            for entries in batch:
                message = open_message(one.register, encode_bundle(entries), held.origin)
                outcome = turn.replay(message)
                if not isinstance(outcome, Appended) or outcome.run.first != reached:
                    raise StoreError(f"{one.register}: the message of entry {reached} comes out otherwise")
                reached += len(entries)
            turn.commit({})
        if held.heads().get(one.register) != rebuilt.heads()[one.register]:
            raise StoreError(f"{one.register}: the replay does not lead to the root of the event log")


def _batches(store: Store, one: Missing) -> Iterator[list[list[bytes]]]:
    batch: list[list[bytes]] = []
    count = size = 0
    for entries in submissions(store, one.register, one.stored_size, one.recovered_size):
        batch.append(entries)
        count += len(entries)
        size += sum(map(len, entries))
        if count >= ENTRIES_TOGETHER or size >= BYTES_TOGETHER:
            yield batch
            batch, count, size = [], 0, 0
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class KeptNotes:
    """How many notes and cosignature lines were brought that were not there."""

    notes: int
    cosignatures: int


def keep_notes(held: Ledger, store: Store) -> KeptNotes:
    """Bring into a ledger the notes and cosignatures of a store that was rebuilt from its event log.

    Only of sizes that the ledger has reached. What is there stays: of cosignatures first and last by time.
    """
    notes = cosignatures = 0
    for register in in_order(held):
        if register not in store.heads():
            continue
        end = min(held.heads()[register].size, store.heads()[register].size) + 1
        waiting: list[NewCosignatures] = []
        for noted, mine in _beside(held.store, store, register, end):
            lines = _news(mine.cosigned if mine else (), noted.cosigned)
            if mine is not None and not lines:
                continue
            notes += mine is None
            cosignatures += len(lines)
            waiting.append(NewCosignatures(register, noted.note, lines))
            if len(waiting) >= NOTES_TOGETHER:
                held.store.keep_cosignatures(waiting)
                waiting = []
        if waiting:
            held.store.keep_cosignatures(waiting)
    return KeptNotes(notes, cosignatures)


def _beside(
    mine: Store, theirs: Store, register: str, end: int
) -> Iterator[tuple[NotedSize, NotedSize | None]]:
    """Yield what `theirs` keeps of each size below `end`, and what `mine` keeps of the same size."""
    kept = noted_sizes(mine, register, 0, end)
    beside = next(kept, None)
    for noted in noted_sizes(theirs, register, 0, end):
        while beside is not None and beside.size < noted.size:
            beside = next(kept, None)
        yield noted, beside if beside is not None and beside.size == noted.size else None


def _news(mine: Sequence[Cosigned], theirs: Sequence[Cosigned]) -> list[SignatureLine]:
    """Return the lines of `theirs` that would change `mine`: earlier than the first, or later than the last."""
    by = {row.first.by: row for row in mine}
    found: dict[SignatureLine, None] = {}
    for row in theirs:
        held = by.get(row.first.by)
        for line in (row.first, row.last):
            if held is None or line.signature < held.first.signature or line.signature > held.last.signature:
                found[line] = None
    return list(found)

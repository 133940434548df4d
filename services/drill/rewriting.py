"""Writing a register anew, whatever its entries are: tiles, index and roots are made as if it were honest.

No rule is applied here. What the copy says of itself agrees with itself, and its checkpoints are signed with
the ledger's own key: a lie that is simply corrupt would be no test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ledger import tree
from ledger.checkpoints import Checkpoint
from ledger.entries import (
    Acceptance,
    Message,
    Submission,
    form_entries,
    form_ledger_entry,
    parse_entry,
    submission_body,
    submission_id,
)
from ledger.errors import MalformedError, RejectedError
from ledger.governing import GOVERNING
from ledger.governing_types import CheckpointAnchored
from ledger.hashing import Hash, leaf_hashes
from ledger.notes import split_note
from ledger.own_records import checkpoint_anchored
from ledger.reader import RegisterReader, TileCache
from ledger.records import parse_record
from ledger.register import Draft, Edge
from ledger.rules import read_header
from ledger.store import Batch, Head, Store, StoredNote
from ledger.stores.sqlite import SqliteStore
from services.drill.originals import Original
from services.ledger_files import LedgerDirectory, public_path

AT_ONCE: Final = 2_048
"""Entries of one commit."""

Entries = list[bytes]
"""The entries of one message."""


@dataclass(slots=True)
class LyingCopy:
    """A copy that lies: its directory, the checkpoints that it serves, and the registers that it hides."""

    directory: LedgerDirectory
    notes: dict[str, bytes]
    hidden: frozenset[str] = frozenset()
    listed: tuple[str, ...] = field(default=())


def rewritten(original: Original, folder: Path, changed: Mapping[str, Iterable[Entries]]) -> LyingCopy:
    """Write a copy with other messages in some registers, signed by the ledger's own key.

    The anchors of a register that is changed are replaced by ones of its new history, as far as that is long
    enough and another one. Raises StoreError, OSError.
    """
    directory = LedgerDirectory(folder)
    directory.log_key.parent.mkdir(parents=True)
    public = public_path(original.directory.log_key).read_bytes()
    public_path(directory.log_key).write_bytes(public)
    copy = LyingCopy(directory, {}, listed=tuple(sorted(original.notes)))
    with closing(SqliteStore(directory.store)) as store:
        # The governing register last: its anchors are of what the others have become.
        for register in sorted(original.notes, key=lambda name: name == GOVERNING):
            messages = changed.get(register, original.messages(register))
            if register == GOVERNING:
                messages = _anchored_anew(original, store, messages, changed)
            head = write(store, original.ledger.origin, register, messages)
            signed = original.sign(register, head.size, head.root)
            store.commit([Batch(register, head, head, notes=[StoredNote(head.size, signed)])])
            copy.notes[register] = original.best_note(register, head.size, head.root)
    return copy


def write(store: Store, origin: str, register: str, messages: Iterable[Entries]) -> Head:
    """Write a new register of these messages, and return its head. Raises StoreError."""
    edge: Edge | None = None
    draft = Draft(store, register, None)
    waiting = 0
    for entries in messages:
        message = _unjudged(origin, register, entries)
        headers = [read_header(record) for record in message.records()]
        ids = [bytes.fromhex(message.submission.submission_id)] if message.submission else []
        draft.look_up(ids, headers)
        draft.add(message, headers)
        waiting += len(entries)
        if waiting >= AT_ONCE:
            edge, draft, waiting = _commit(store, register, draft)
    edge, _, _ = _commit(store, register, draft)
    return edge.head


def _commit(store: Store, register: str, draft: Draft) -> tuple[Edge, Draft, int]:
    batch, edge, _ = draft.finish([])
    store.commit([batch])
    return edge, Draft(store, register, edge), 0


def _unjudged(origin: str, register: str, entries: Sequence[bytes]) -> Message:
    """Return a message as it stands, without asking whether its signatures hold."""
    first = parse_entry(entries[0])
    if first.membership is None:
        return Message(register, first.acceptance, tuple(entries), None)
    return Message(register, first.acceptance, tuple(entries), submission_of(origin, register, entries))


def submission_of(origin: str, register: str, entries: Sequence[bytes]) -> Submission:
    """Return the submission whose entries these are, its signatures as they stand."""
    first = parse_entry(entries[0])
    assert first.membership is not None  # noqa: S101 - the caller has looked
    records = tuple(entry.partition(b"\n")[2] for entry in entries)
    root, paths = tree.paths(leaf_hashes(records))
    body = submission_body(f"{origin}/{register}", len(records), root)
    return Submission(register, records, first.membership.signatures, submission_id(body), tuple(paths))


def accepted_anew(
    register: str,
    entries: Sequence[bytes],
    *,
    accepted_at: str | None = None,
    records: Sequence[bytes] | None = None,
    governing_size: int | None = None,
) -> Entries:
    """Return a submission's entries as if they had been accepted otherwise: the signatures stay as they are."""
    acceptance = parse_entry(entries[0]).acceptance
    submission = submission_of("", register, entries)  # its id is not part of the entries
    held = submission.records if records is None else tuple(records)
    _, paths = tree.paths(leaf_hashes(held))
    return form_entries(
        Submission(register, held, submission.signatures, submission.submission_id, tuple(paths)),
        Acceptance(
            accepted_at or acceptance.accepted_at,
            acceptance.submitter,
            acceptance.governing_size if governing_size is None else governing_size,
        ),
    )


def _anchored_anew(
    original: Original, store: Store, governing: Iterable[Entries], changed: Iterable[str]
) -> Iterator[Entries]:
    """Yield governing messages, the anchors of changed registers replaced by ones of their new history."""
    readers = {
        register: RegisterReader(store, register, TileCache()) for register in changed if register != GOVERNING
    }
    for entries in governing:
        anchor = anchor_of(entries)
        if anchor is None or anchor.register not in readers:
            yield entries
            continue
        held = store.heads()[anchor.register].size
        root = readers[anchor.register].root(anchor.size) if anchor.size <= held else anchor.root
        if root == anchor.root:
            yield entries
            continue
        acceptance = parse_entry(entries[0]).acceptance
        record = checkpoint_anchored(original.sign(anchor.register, anchor.size, root))
        yield [form_ledger_entry(record, acceptance.accepted_at, acceptance.governing_size)]


@dataclass(frozen=True, slots=True)
class AnchorHere:
    """What a governing message anchors."""

    register: str
    size: int
    root: Hash


def anchor_of(entries: Sequence[bytes]) -> AnchorHere | None:
    """Return what a governing message anchors; None where it anchors nothing."""
    parsed = parse_entry(entries[0])
    if parsed.membership is not None:
        return None
    try:
        record = parse_record(parsed.record)
        if not isinstance(record, CheckpointAnchored):
            return None
        checkpoint = Checkpoint.parse(split_note(record.checkpoint.encode())[0])
    except (MalformedError, RejectedError):
        return None
    return AnchorHere(checkpoint.origin.partition("/")[2], checkpoint.size, checkpoint.root)

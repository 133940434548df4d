"""The last notes of a ledger that another one succeeds: what entry 0 of the new one carries of the old one.

A ledger that cannot catch up is closed for ever; its successor has a new origin and names the old one
(formats.md, section 11). The notes say what the old one's history was when it ended, and whose word that is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledger import canonical
from ledger.checkpoints import Checkpoint, open_checkpoint, peek_origin
from ledger.errors import MalformedError
from ledger.export import noted_sizes, opening_of
from ledger.governing import GOVERNING
from ledger.notes import SignatureLine, VerifierKey, format_note, split_note
from ledger.published_policies import WitnessKeys, witness_keys, witness_policies
from ledger.reader import RegisterReader, TileCache
from ledger.records import MAX_RECORD
from ledger.sealing import SealedReader
from ledger.store import Store
from ledger.stores.sqlite import SqliteStore
from ledger.values import MAX_TEXT, is_register
from ledger.witnessing import Policy
from services.ledger_files import DirectoryError, LedgerDirectory, WriterLock

_REST: Final = 4_096
"""Bytes that a `ledger.opened/1` has at the most besides its predecessor."""


@dataclass(frozen=True, slots=True)
class LastNote:
    """A checkpoint note of the old ledger, verified under its log key; only lines that were verified."""

    register: str
    size: int
    note: bytes


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The old ledger as the new one names it: its last notes, as many as a record holds.

    `left_out` are those that it does not hold, `unsigned` registers of which the old ledger's directory keeps
    no note.
    """

    origin: str
    notes: tuple[LastNote, ...]
    left_out: tuple[LastNote, ...]
    unsigned: tuple[str, ...]

    def member(self) -> dict[str, Any]:
        """Return the member `predecessor` of `ledger.opened/1`."""
        return _member(self.origin, self.notes)


def predecessor_in(root: Path) -> Predecessor:
    """Return what the directory of the old ledger, which nobody may serve any more, says of its end.

    Of each register the last note, with the cosignatures that are kept of it; and, where that is another, the
    last one that is sealed under the latest policy under which anything is. Raises DirectoryError, StoreError,
    or SignatureError for a note that does not hold.
    """
    directory = LedgerDirectory(root)
    directory.require_ledger()
    with WriterLock(directory), closing(SqliteStore(directory.store)) as store:
        opened = opening_of(store)
        heads = store.heads()
        entries = RegisterReader(store, GOVERNING, TileCache()).entries(0, heads[GOVERNING].size)
        published = [policy for _, _, policy in witness_policies(entries) if policy is not None]
        witnesses = witness_keys(published)
        log = VerifierKey.parse(opened.ledger_key)
        readers = (SealedReader(store, policy) for policy in reversed(published))
        governing_size = heads[GOVERNING].size
        reader = next((each for each in readers if each.last_up_to(GOVERNING, governing_size)), None)
        found: list[LastNote] = []
        unsigned = []
        for register in sorted(heads, key=_governing_first):
            last = [*_last_notes(store, reader, register, heads[register].size)]
            origin = f"{opened.origin}/{register}"
            found += (_verified(note, origin, [log.renamed(origin)], witnesses) for note in last)
            if not last:
                unsigned.append(register)
    return _fitted(opened.origin, found, unsigned)


def _last_notes(store: Store, reader: SealedReader | None, register: str, size: int) -> Iterator[bytes]:
    last = store.note(register, size)
    if last is None:
        return
    (noted,) = noted_sizes(store, register, last.size, last.size + 1)
    text, signed = split_note(last.note)
    yield format_note(text, [*signed, *(row.last for row in noted.cosigned)])
    sealed = reader.last_up_to(register, size) if reader else None
    if sealed is not None and sealed.size < last.size:
        yield sealed.note


def predecessor_of(data: bytes, policy: Policy) -> Predecessor:
    """Return what saved notes say of the old ledger's end, under the policy file that its verifiers hold.

    `data` has checkpoint notes one after the other, empty lines between them or not. Of each register the
    largest size counts; where its notes differ, all of them do. Raises MalformedError, SignatureError, or
    DirectoryError for notes of several ledgers.
    """
    found: dict[str, dict[bytes, dict[tuple[str, int], SignatureLine]]] = {}
    origins = set()
    for note in split_notes(data):
        origin = peek_origin(note)
        ledger_origin, _, register = origin.partition("/")
        if not is_register(register):
            raise MalformedError(f"a note of {origin!r}, which is no register of a ledger")
        origins.add(ledger_origin)
        opened = policy.open(note, origin)
        lines = found.setdefault(register, {}).setdefault(opened.note.text, {})
        for line in opened.note.verified:
            lines.setdefault(line.by, line)
    if len(origins) != 1:
        raise DirectoryError(f"one ledger is succeeded, not {len(origins)}: {', '.join(sorted(origins))}")
    last: list[LastNote] = []
    for register in sorted(found, key=_governing_first):
        sizes = {text: Checkpoint.parse(text).size for text in found[register]}
        largest = max(sizes.values())
        last += [
            LastNote(register, largest, format_note(text, lines.values()))
            for text, lines in found[register].items()
            if sizes[text] == largest
        ]
    return _fitted(origins.pop(), last, [])


def split_notes(data: bytes) -> list[bytes]:
    """Cut a file into its notes. A line that begins a text follows the last signature line before it."""
    notes: list[list[bytes]] = []
    signatures = True
    for line in data.splitlines(keepends=True):
        is_signature = line.startswith("— ".encode())
        if signatures and not is_signature:
            if line == b"\n":
                continue  # between two notes
            notes.append([])
            signatures = False
        signatures = signatures or is_signature
        if not notes:
            raise MalformedError("the file begins with a signature line")
        notes[-1].append(line)
    if not notes or not signatures:
        raise MalformedError("the file holds no whole checkpoint note")
    return [b"".join(note) for note in notes]


def _verified(note: bytes, origin: str, log: Sequence[VerifierKey], witnesses: WitnessKeys) -> LastNote:
    opened = open_checkpoint(note, origin, log, list(witnesses.values()))
    return LastNote(origin.partition("/")[2], opened.checkpoint.size, opened.note.trimmed())


def _governing_first(register: str) -> tuple[bool, bytes]:
    return register != GOVERNING, register.encode()


def _member(origin: str, notes: Iterable[LastNote]) -> dict[str, Any]:
    return {"notes": [one.note.decode() for one in notes], "origin": origin}


def _fitted(origin: str, found: Sequence[LastNote], unsigned: Sequence[str]) -> Predecessor:
    """Take notes, in order, while the record holds them. Raises DirectoryError where there is none."""
    taken: list[LastNote] = []
    left_out: list[LastNote] = []
    for one in found:
        fits = len(one.note.decode()) <= MAX_TEXT and _size(origin, [*taken, one]) <= MAX_RECORD - _REST
        (taken if fits else left_out).append(one)
    if not taken:
        raise DirectoryError(f"nothing is left of {origin} that says where it ended: no note")
    return Predecessor(origin, tuple(taken), tuple(left_out), tuple(unsigned))


def _size(origin: str, notes: Sequence[LastNote]) -> int:
    return len(canonical.format(_member(origin, notes)))

"""The whole governing register of a pack: whoever checks folds it, so that no revocation can be left out.

Receipts show that a key was authorised. That it was not revoked only all entries together show: they are those
of a witnessed governing checkpoint, each is judged as the ledger must have judged it (formats.md, section 7),
and so they say for every exhibit whether its key might sign when it did. Beyond the last entry here nothing is
known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ledger.entries import Entry, parse_entry, verify_entry
from ledger.errors import LedgerError, MalformedError, VerificationError
from ledger.governing import GOVERNING, Fold, judge_governance
from ledger.records import (
    KeyAuthorised,
    KeyRevoked,
    check_place,
    ledger_may_write,
    parse_record,
)
from ledger.rules import read_header
from ledger.tiles import decode_entries, encode_bundle
from ledger.timeline import Timeline
from ledger.witnessing import Cosignature, Policy, check_clocks
from services.evidence.roots import Roots

MAX_GOVERNING: Final = 10_000
"""Entries of the largest governing register that goes into a pack: a browser folds it in a few seconds."""

MAX_GOVERNING_BYTES: Final = 16 * 1024 * 1024
"""Bytes of its entries together."""


@dataclass(frozen=True, slots=True)
class WholeRegister:
    """All entries of the governing register under a checkpoint `note`, as a source has found them."""

    note: bytes
    entries: Sequence[bytes]


@dataclass(slots=True)
class Collector:
    """Collects governing entries as they are read, and lets go of them where they are too many for a pack."""

    _entries: list[bytes] = field(default_factory=list[bytes])
    _bytes: int = 0
    _too_many: bool = False

    def add(self, entry: bytes) -> None:
        """Take the next entry."""
        self._bytes += len(entry)
        self._too_many |= self._bytes > MAX_GOVERNING_BYTES or len(self._entries) == MAX_GOVERNING
        if self._too_many:
            self._entries.clear()
        else:
            self._entries.append(entry)

    @property
    def is_too_large(self) -> bool:
        """Whether there were more than fit a pack."""
        return self._too_many

    def whole(self, note: bytes) -> WholeRegister | None:
        """Return all of them, under the note whose tree they are; None for too many, or none."""
        return WholeRegister(note, tuple(self._entries)) if self._entries else None


def collected(note: bytes, entries: Iterable[bytes]) -> WholeRegister | None:
    """Return the governing register as it goes into a pack; None where it is too large, or empty."""
    collector = Collector()
    for entry in entries:
        collector.add(entry)
        if collector.is_too_large:
            return None
    return collector.whole(note)


def governing_file(entries: Sequence[bytes]) -> bytes:
    """Return the file of these entries: each with its length before it, as bundles have them."""
    return encode_bundle(entries)


def parse_governing_file(data: bytes) -> tuple[bytes, ...]:
    """Return the entries of a file. Raises MalformedError."""
    most = MAX_GOVERNING_BYTES + 2 * MAX_GOVERNING
    if len(data) > most:
        raise MalformedError(f"{len(data)} bytes: no pack has more than {most}")
    entries = tuple(decode_entries(data))
    if len(entries) > MAX_GOVERNING:
        raise MalformedError(f"{len(entries)} entries: no pack has more than {MAX_GOVERNING}")
    return entries


@dataclass(frozen=True, slots=True)
class Governing:
    """What the governing entries [0, size) decide, each of them verified and judged in its turn.

    `revocations` are by key, `unendorsed` the indices of authorisations that no current key of the department
    signed though it had one. `times` bounds when an entry came in. `until` is the latest time, POSIX seconds,
    at which a quorum of witnesses knew of no further entry; None without witnesses.
    """

    fold: Fold
    revocations: Mapping[bytes, KeyRevoked]
    unendorsed: frozenset[int]
    times: Timeline

    @property
    def size(self) -> int:
        """How many entries there are."""
        return self.fold.size

    @property
    def until(self) -> int | None:
        """See above."""
        return self.times.bounds(self.size).not_before


def fold_whole(whole: WholeRegister, ledger_origin: str, policy: Policy, roots: Roots, now: int) -> Governing:
    """Return what the governing register of a pack decides, once its entries are those of its checkpoint.

    `roots` has the other checkpoints of the pack, and gets this one; `now` is POSIX seconds. Raises what
    `Roots.add_whole` does, and VerificationError for a register that its own rules do not allow.
    """
    origin = f"{ledger_origin}/{GOVERNING}"
    roots.add_whole(origin, whole.note, whole.entries)
    cosignatures = roots.cosignatures(origin)
    check_clocks(cosignatures, now)
    return replay(whole.entries, ledger_origin, policy, cosignatures)


def replay(
    entries: Sequence[bytes], ledger_origin: str, policy: Policy, cosignatures: Iterable[Cosignature]
) -> Governing:
    """Return what governing entries decide. `cosignatures` are verified ones of governing checkpoints.

    That the entries are those of a checkpoint is not judged here. Raises VerificationError, which names the
    entry, where one is not signed by those who governed before it.
    """
    fold = Fold()
    revocations: dict[bytes, KeyRevoked] = {}
    unendorsed: set[int] = set()
    for index, data in enumerate(entries):
        try:
            before, fold, entry = fold, *_extended(fold, data, ledger_origin)
        except LedgerError as error:
            raise VerificationError(f"governing entry {index}: {error}") from error
        if entry is None:
            continue
        record = parse_record(entry.record)
        if isinstance(record, KeyRevoked):
            changed = [key for key, held in fold.keys.items() if held.revoked == index]
            revocations.update(dict.fromkeys(changed, record))
        elif isinstance(record, KeyAuthorised) and not _is_endorsed(before, record.department, entry):
            unendorsed.add(index)
    return Governing(fold, revocations, frozenset(unendorsed), Timeline(cosignatures, policy.quorum))


def _extended(fold: Fold, data: bytes, ledger_origin: str) -> tuple[Fold, Entry | None]:
    """Return the fold with one more entry, and the entry where somebody signed it."""
    entry = parse_entry(data)
    if entry.membership is None:
        if fold.opened is None or not ledger_may_write(read_header(entry.record).type, GOVERNING):
            raise VerificationError("nobody has signed it, and the ledger may not write it")
        return fold.extended(entry), None
    verify_entry(entry, f"{ledger_origin}/{GOVERNING}")
    record = parse_record(entry.record)
    check_place(record, GOVERNING)
    judge_governance(fold, record, {each.key for each in entry.membership.signatures})
    return fold.extended_by(record), entry


def _is_endorsed(fold: Fold, department: str, entry: Entry) -> bool:
    earlier = [held for held in fold.keys.values() if held.department == department]
    current = {held.key for held in earlier if held.revoked is None}
    signers = {each.key for each in entry.membership.signatures} if entry.membership else set()
    return not earlier or bool(current & signers)

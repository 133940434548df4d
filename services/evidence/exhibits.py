"""Exhibits: one record version each, under a label such as JS/1, with all that proves it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from ledger.checkpoints import Checkpoint, peek_origin
from ledger.entries import parse_entry
from ledger.errors import MalformedError
from ledger.notes import split_note
from ledger.own_records import record_digest
from ledger.receipt_file import Receipt, file_name
from ledger.receipts import VerifiedReceipt
from services.evidence.layout import CHECKPOINTS, exhibit_folder

MAX_EXHIBITS: Final = 10_000
"""Exhibits of one pack: with all their files they fit an ordinary ZIP file."""

_PREFIX: Final = re.compile("[A-Za-z]{1,8}")


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A record version in a pack: its label, its receipt, and what that proves."""

    label: str
    receipt: bytes
    verified: VerifiedReceipt

    @property
    def folder(self) -> str:
        """Where its files are in the bag, ending with a slash."""
        return exhibit_folder(self.label)

    @property
    def receipt_path(self) -> str:
        """Where its receipt is: named as receipts are, where the record has a name."""
        verified = self.verified
        if verified.record_id is None or verified.version is None or verified.version < 1:
            return f"{self.folder}entry.receipt"
        return self.folder + file_name(verified.record_id, verified.version)

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the record's bytes."""
        return record_digest(self.verified.record)

    def listed(self) -> dict[str, Any]:
        """Return what the exhibit index says of it: facts that its receipt proves, and its files."""
        verified = self.verified
        return {
            "label": self.label,
            "register": verified.register,
            "index": verified.index,
            "record_type": verified.record_type,
            "record_id": verified.record_id,
            "version": verified.version,
            "sha256": self.digest,
            "receipt": self.receipt_path,
            "record": f"{self.folder}record.json",
            "text": f"{self.folder}record.txt",
        }


def label(prefix: str, number: int) -> str:
    """Return the label of an exhibit: initials, a slash, a number from 1."""
    return f"{prefix}/{number}"


def exhibits_in_words(number: int) -> str:
    """Return a number of exhibits in words."""
    return "1 exhibit" if number == 1 else f"{number} exhibits"


def identifier(ledger_origin: str, register: str, receipts: Iterable[bytes]) -> str:
    """Return the name of a pack, which follows from its receipts in order."""
    digest = hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in receipts)).hexdigest()
    return f"daybook:{ledger_origin}/{register}:{digest[:16]}"


def check_prefix(prefix: str) -> str:
    """Return initials that may begin a label. Raises MalformedError for others."""
    if not _PREFIX.fullmatch(prefix):
        raise MalformedError(f"exhibit prefix {prefix!r}: not 1 to 8 letters")
    return prefix


def check_count(number: int) -> None:
    """See that this many entries fit one pack. Raises MalformedError."""
    if number > MAX_EXHIBITS:
        raise MalformedError(f"{number} entries match, and a pack has at most {MAX_EXHIBITS}: choose fewer")


def key_receipts(receipts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the receipts of the governing entries that authorised the signing keys, each index once."""
    seen: dict[int, bytes] = {}
    for data in receipts:
        key = Receipt.parse(data).key
        if key is not None and key.proof.index not in seen:
            seen[key.proof.index] = Receipt(key.entry, key.proof).data()
    yield from (seen[index] for index in sorted(seen))


def notes_of(receipt: Receipt) -> Iterator[bytes]:
    """Yield every checkpoint note in a receipt that was verified, the anchored one too."""
    yield receipt.proof.note
    if receipt.not_before is not None:
        yield receipt.not_before.note
    if receipt.key is not None:
        yield receipt.key.proof.note
    if receipt.anchor is not None:
        yield receipt.anchor.proof.note
        # Read leniently, as verifying the receipt does: a record that breaks a rule is a finding there.
        members = json.loads(parse_entry(receipt.anchor.entry).record)
        yield members["checkpoint"].encode()


def note_path(note: bytes) -> str:
    """Return where a checkpoint note is kept in a pack: by register, size and digest."""
    size = Checkpoint.parse(split_note(note)[0]).size
    register = peek_origin(note).partition("/")[2].replace("/", "--")
    return f"{CHECKPOINTS}{register}-{size}-{record_digest(note)[:16]}.note"

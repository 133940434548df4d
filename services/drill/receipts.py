"""Forged receipts: one with another record in it, and one for a record that was never registered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from ledger import canonical
from ledger.ed25519 import SecretKey
from ledger.entries import parse_entry
from ledger.reader import RegisterReader, TileCache
from ledger.receipt_file import Receipt
from ledger.stores.sqlite import SqliteStore
from ledger.tlog_proofs import TlogProof
from services.compose import new_key
from services.drill.lies import signed_anew
from services.drill.originals import Original
from services.drill.rewriting import Entries, rewritten


@dataclass(frozen=True, slots=True)
class ForgedReceipt:
    """A receipt that lies, by the name of the lie; `note` is the checkpoint that it rests on."""

    name: str
    what: str
    data: bytes
    note: bytes


def true_receipt(original: Original, register: str) -> Receipt:
    """Return a receipt of the last entry that is served, as far as an operator must go to make one."""
    size = original.size(register)
    reader = original.reader(register)
    path = reader.inclusion(size - 1, size)
    return Receipt(reader.entry(size - 1), TlogProof(size - 1, path, original.notes[register]))


def forged_receipts(original: Original, register: str, true: Receipt, folder: Path) -> Iterator[ForgedReceipt]:
    """Yield receipts that lie: `true` with another record, and one made up, under a checkpoint made up too.

    Raises StoreError, OSError.
    """
    envelope, _, record = true.entry.partition(b"\n")
    altered = Receipt(envelope + b"\n" + _other(record), true.proof, true.not_before, true.key, true.anchor)
    yield ForgedReceipt(
        "receipt-altered", "a receipt with another record in it", altered.data(), true.proof.note
    )
    yield _made_up(original, register, folder)


def _made_up(original: Original, register: str, folder: Path) -> ForgedReceipt:
    """Register a record that never was in a copy, in the place of the last submission, and give its receipt."""
    *_, last = original.messages(register)
    acceptance = parse_entry(last[0]).acceptance
    records = [entry.partition(b"\n")[2] for entry in last]
    records[-1] = _other(records[-1])
    key = SecretKey(new_key("drill").secret.seed)
    forged = signed_anew(original, register, records, key, acceptance, acceptance.governing_size)

    def messages() -> Iterator[Entries]:
        waiting: Entries | None = None
        for entries in original.messages(register):
            if waiting is not None:
                yield waiting
            waiting = entries
        yield forged

    copy = rewritten(original, folder, {register: messages()})
    with closing(SqliteStore(copy.directory.store)) as store:
        size = store.heads()[register].size
        path = RegisterReader(store, register, TileCache()).inclusion(size - 1, size)
    note = copy.notes[register]
    receipt = Receipt(forged[-1], TlogProof(size - 1, path, note))
    return ForgedReceipt(
        "receipt-forged", "a receipt for a record that was never registered, signed anew", receipt.data(), note
    )


def _other(record: bytes) -> bytes:
    """Return a record like this one with an id of its own: one that nobody has registered."""
    return canonical.format(json.loads(record) | {"record_id": str(uuid4())})

"""A folder of receipts as the source of a pack: offline, and only what a department or an auditor has kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ledger.checkpoints import peek_origin
from ledger.entries import parse_entry
from ledger.errors import MalformedError
from ledger.receipt_file import FIRST_LINE, Receipt
from services.evidence.exhibits import key_receipts
from services.evidence.gathered import Gathered
from services.evidence.selection import Selection

LONGEST: Final = 16 * 1024 * 1024
"""Bytes of the longest file that is taken for a receipt."""


def gather(folder: Path, register: str, selection: Selection) -> Gathered:
    """Return the receipts of a register, among the files below `folder`, that a selection takes.

    Of two receipts of one entry the longer one is taken: it has more sections. Raises OSError; MalformedError,
    which names the file, for a receipt that does not parse.
    """
    chosen: dict[int, bytes] = {}
    for path, data in _receipts(folder):
        try:
            receipt = Receipt.parse(data)
            record = parse_entry(receipt.entry).record
            origin = peek_origin(receipt.proof.note)
        except MalformedError as error:
            raise MalformedError(f"{path}: {error}") from error
        if origin.partition("/")[2] != register or not selection.takes(receipt.proof.index, record):
            continue
        held = chosen.get(receipt.proof.index)
        if held is None or (len(data), data) > (len(held), held):
            chosen[receipt.proof.index] = data
    receipts = [chosen[index] for index in sorted(chosen)]
    return Gathered(
        receipts, list(key_receipts(receipts)), f"a folder of receipts, {folder.name}", selection.text
    )


def _receipts(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        with path.open("rb") as file:
            if file.read(len(FIRST_LINE)) == FIRST_LINE:
                file.seek(0)
                yield path, file.read(LONGEST)

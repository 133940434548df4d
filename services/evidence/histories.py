"""That the checkpoints of a pack are of one history: consistency proofs between their sizes, in one file.

Each exhibit is proved under a checkpoint of its own. A ledger that lies could have signed two histories and
show one record of each; where every checkpoint is proved to be a beginning of the largest one, it has not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, Final

from ledger import base64
from ledger.checkpoints import Checkpoint, peek_origin
from ledger.errors import MalformedError
from ledger.hashing import HASH_SIZE, Hash
from ledger.notes import split_note
from ledger.receipt_file import Receipt
from services.evidence.exhibits import notes_of

CONSISTENCY_TYPE: Final = "daybook.consistency/1"


@dataclass(frozen=True, slots=True)
class Step:
    """From one size of a register to the next larger one that a pack has a checkpoint of."""

    register: str
    first: int
    second: int


@dataclass(frozen=True, slots=True)
class Consistency:
    """A consistency proof of a step (RFC 6962, section 2.1.2)."""

    step: Step
    hashes: tuple[Hash, ...]


def steps(receipts: Iterable[bytes], notes: Iterable[bytes] = ()) -> Iterator[Step]:
    """Yield the steps between the sizes of the checkpoints in receipts and of `notes`, those of 0 left out."""
    sizes: dict[str, set[int]] = {}
    for note in chain(notes, *(notes_of(Receipt.parse(data)) for data in receipts)):
        register = peek_origin(note).partition("/")[2]
        sizes.setdefault(register, set()).add(Checkpoint.parse(split_note(note)[0]).size)
    for register in sorted(sizes):
        yield from (Step(register, first, second) for first, second in pairwise(sorted(sizes[register] - {0})))


def consistency_file(proofs: Iterable[Consistency]) -> Mapping[str, Any]:
    """Return the file of these proofs, as it stands in a pack."""
    return {
        "type": CONSISTENCY_TYPE,
        "proofs": [
            {
                "register": proof.step.register,
                "first": proof.step.first,
                "second": proof.step.second,
                "hashes": [base64.encode(each) for each in proof.hashes],
            }
            for proof in proofs
        ],
    }


def parse_consistency_file(value: Mapping[str, Any]) -> Iterator[Consistency]:
    """Yield the proofs of a file. Raises MalformedError."""
    proofs = value.get("proofs")
    if value.get("type") != CONSISTENCY_TYPE or not isinstance(proofs, list) or not proofs:
        raise MalformedError(f"not a file of type {CONSISTENCY_TYPE}, or without a proof")
    for proof in proofs:
        if not isinstance(proof, dict) or proof.keys() != {"register", "first", "second", "hashes"}:
            raise MalformedError("a proof has other members than it must have")
        register, first, second, hashes = (proof[name] for name in ("register", "first", "second", "hashes"))
        if not isinstance(register, str) or type(first) is not int or type(second) is not int:
            raise MalformedError("a proof without register or sizes")
        if not isinstance(hashes, list) or any(not isinstance(each, str) for each in hashes):
            raise MalformedError("a proof without a list of hashes")
        decoded = tuple(Hash(base64.decode(each, HASH_SIZE)) for each in hashes)
        yield Consistency(Step(register, first, second), decoded)

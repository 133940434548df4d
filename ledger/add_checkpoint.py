"""The request by which a log asks a witness to cosign (C2SP tlog-witness, "add-checkpoint").

The body that the log writes and the witness reads: the size from which the witness is to go on, the
consistency proof from there, and the checkpoint note.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from ledger import base64
from ledger.checkpoints import parse_decimal
from ledger.errors import MalformedError
from ledger.hashing import HASH_SIZE, Hash
from ledger.tree import MAX_SIZE

MAX_PROOF: Final = 63
"""Hashes of the longest consistency proof."""

MAX_BODY: Final = 128 * 1024
"""Bytes of the largest body that a witness reads."""

_OLD: Final = "old "


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """What a log asks of a witness (witness.md, section 2).

    `old` is the size that the log believes to be the witness's latest for this origin (0 for none), `proof`
    the RFC 6962 consistency proof from there to the checkpoint (empty where `old` is 0 or the checkpoint's
    size), `note` the signed checkpoint, verbatim: bytes of anybody's, still to be verified.

    Raises MalformedError: `old` not 0..2^63-1, more than 63 hashes, or one not of 32 bytes.
    """

    old: int
    proof: tuple[Hash, ...]
    note: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.old <= MAX_SIZE:
            raise MalformedError(f"add-checkpoint: old size {self.old} is not 0..2^63-1")
        if len(self.proof) > MAX_PROOF:
            raise MalformedError(f"add-checkpoint: {len(self.proof)} proof hashes, more than {MAX_PROOF}")
        for value in self.proof:
            if len(value) != HASH_SIZE:
                raise MalformedError(f"add-checkpoint: a proof hash of {len(value)} bytes, not {HASH_SIZE}")

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Parse a body; raises MalformedError. The note is not looked at."""
        # The first blank line: the note has one of its own.
        head, separator, note = body.partition(b"\n\n")
        if not separator:
            raise MalformedError("add-checkpoint: no blank line before the note")
        try:
            old, *proof = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise MalformedError("add-checkpoint: not ASCII before the note", error.start) from error
        if not old.startswith(_OLD):
            raise MalformedError("add-checkpoint: the first line is not 'old' and a size", 0)
        if len(proof) > MAX_PROOF:
            raise MalformedError(f"add-checkpoint: {len(proof)} proof lines, more than {MAX_PROOF}")
        size = parse_decimal(old.removeprefix(_OLD))
        return cls(size, tuple(Hash(base64.decode(line, HASH_SIZE)) for line in proof), note)

    def data(self) -> bytes:
        """Return the body of the request."""
        hashes = "".join(f"{base64.encode(value)}\n" for value in self.proof)
        return f"{_OLD}{self.old}\n{hashes}\n".encode() + self.note

"""A log asks a witness to cosign a checkpoint, and how the witness decides (C2SP tlog-witness).

The body that the log writes and the witness reads: the size from which the witness is to go on, the
consistency proof from there, and the checkpoint note. Then the checks in their order (specs/witness.md,
section 2), each refusal with its HTTP status; and what a refused checkpoint shows about its log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from ledger import base64
from ledger.checkpoints import Checkpoint, OpenedCheckpoint, parse_decimal
from ledger.errors import LedgerError, MalformedError, ProofError, SignatureError
from ledger.hashing import EMPTY_ROOT, HASH_SIZE, Hash
from ledger.notes import VerifierKey, open_note
from ledger.proofs import roots_from_consistency, verify_consistency
from ledger.tree import MAX_SIZE

MAX_PROOF: Final = 63
"""Hashes of the longest consistency proof."""

MAX_BODY: Final = 128 * 1024
"""Bytes of the largest body that a witness reads."""

BAD_REQUEST: Final = 400
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
CONFLICT: Final = 409
UNPROCESSABLE: Final = 422

_OLD: Final = "old "


class CheckpointRefusedError(LedgerError):
    """A witness does not cosign. `status` is the HTTP status that says why (witness.md, section 2).

    `latest` is the size of the latest checkpoint cosigned for the origin: with status 409, and only then.
    """

    def __init__(self, status: int, message: str, latest: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.latest = latest


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
        size = parse_decimal(old.removeprefix(_OLD))
        return cls(size, tuple(Hash(base64.decode(line, HASH_SIZE)) for line in proof), note)

    @property
    def origin(self) -> str:
        """The first line of the note: a hint which keys to try, no more.

        Bytes that are no UTF-8 are replaced. Should that spell a log's name, the note is refused as no note.
        """
        return self.note.partition(b"\n")[0].decode("utf-8", "replace")

    def data(self) -> bytes:
        """Return the body of the request."""
        hashes = "".join(f"{base64.encode(value)}\n" for value in self.proof)
        return f"{_OLD}{self.old}\n{hashes}\n".encode() + self.note


def open_submitted(request: AddCheckpoint, keys: Sequence[VerifierKey]) -> OpenedCheckpoint:
    """Verify the checkpoint that a log submits, with the keys trusted for its origin; no key, no log.

    Rows 2 to 7 of the table in witness.md, section 2, in their order. The note that is returned has the lines
    of these keys among its verified ones, whatever else was on it among the unverified.

    Raises CheckpointRefusedError.
    """
    if not keys:
        raise CheckpointRefusedError(NOT_FOUND, "this witness does not know the log")
    try:
        note = open_note(request.note, keys)
    except MalformedError as error:
        raise CheckpointRefusedError(BAD_REQUEST, str(error)) from error
    except SignatureError as error:
        raise CheckpointRefusedError(FORBIDDEN, str(error)) from error
    origin, size, root = _parsed(note.text)
    if request.old > size:
        raise CheckpointRefusedError(BAD_REQUEST, f"old size {request.old} is above the checkpoint's {size}")
    if size == 0 and root != EMPTY_ROOT:
        raise CheckpointRefusedError(UNPROCESSABLE, "size 0 without the root of the empty tree")
    return OpenedCheckpoint(Checkpoint(origin, size, root), note)


def _parsed(text: bytes) -> tuple[str, int, Hash]:
    """Parse a checkpoint's three lines, even of one that calls a tree empty and gives it another root."""
    try:
        origin, size, root, *more = text.decode("utf-8").removesuffix("\n").split("\n")
        if more:
            # A local rule, as deployed witnesses have it: not every kind of cosignature covers them.
            raise MalformedError("checkpoint: extension lines are not cosigned here")
        return origin, parse_decimal(size), Hash(base64.decode(root, HASH_SIZE))
    except (ValueError, MalformedError) as error:
        reason = str(error) if isinstance(error, MalformedError) else "checkpoint: not origin, size and root"
        raise CheckpointRefusedError(BAD_REQUEST, reason) from error


def check_follows(request: AddCheckpoint, checkpoint: Checkpoint, latest: Checkpoint | None) -> None:
    """Return when `checkpoint` follows from the latest one cosigned for its origin; None for none.

    Rows 8 and 9 of the table in witness.md, section 2. The proof starts from the root that the witness holds,
    never from one that it is given. Raises CheckpointRefusedError.
    """
    size = 0 if latest is None else latest.size
    if request.old != size:
        raise CheckpointRefusedError(CONFLICT, f"the latest checkpoint cosigned has size {size}", size)
    if latest is None or not size:
        if request.proof:
            raise CheckpointRefusedError(UNPROCESSABLE, "a proof from size 0 is empty")
        return
    try:
        verify_consistency(size, checkpoint.size, latest.root, checkpoint.root, request.proof)
    except ProofError as error:
        raise CheckpointRefusedError(UNPROCESSABLE, str(error)) from error


class Contradiction(StrEnum):
    """What a refused checkpoint, signed by its log, shows beside the one that was cosigned before."""

    PROVED = "proved"
    """Both cannot be of one append-only tree: the log has signed two histories, whoever sent them."""

    SUSPECTED = "suspected"
    """The proof that came with it does not connect the two. Anybody can send a wrong proof."""


def contradiction(
    request: AddCheckpoint, checkpoint: Checkpoint, latest: Checkpoint | None
) -> Contradiction | None:
    """Return what a refused checkpoint, whose log signature holds, shows beside the latest one cosigned.

    PROVED: of one size with another root; or the proof does lead to the root that the log has signed, but
    from another tree of our size than it had signed before. None where nothing speaks against the log, as
    when the proof starts from another size than ours.
    """
    if latest is None or not latest.size:
        return None
    if checkpoint.size == latest.size:
        return Contradiction.PROVED if checkpoint.root != latest.root else None
    if request.old != latest.size or checkpoint.size < latest.size:
        return None
    try:
        old, new = roots_from_consistency(latest.size, checkpoint.size, latest.root, request.proof)
    except ProofError:
        return Contradiction.SUSPECTED
    if new != checkpoint.root:
        return Contradiction.SUSPECTED
    return Contradiction.PROVED if old != latest.root else None

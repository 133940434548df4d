"""Checkpoints: origin, size and root of a log, signed (C2SP tlog-checkpoint)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ledger import base64
from ledger.errors import MalformedError, SignatureError
from ledger.hashing import EMPTY_ROOT, HASH_SIZE, Hash
from ledger.notes import Note, SignerKey, VerifierKey, open_note, sign_note
from ledger.tree import MAX_SIZE

_DECIMAL = re.compile("0|[1-9][0-9]{0,18}")


def parse_decimal(text: str) -> int:
    """Return the number 0..2^63-1 that ``0|[1-9][0-9]*`` spells.

    Raises MalformedError. (int() would take ``+7``, ``7_000`` and digits of other scripts.)
    """
    if not _DECIMAL.fullmatch(text) or (number := int(text)) > MAX_SIZE:
        raise MalformedError(f"not a decimal number of 0..2^63-1: {text[:40]!r}")
    return number


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log states of itself: its first `size` entries have the root `root`.

    `extensions` are further lines of the text, without LF. Daybook writes none; a reader keeps them.

    Raises MalformedError: empty origin or line, size not 0..2^63-1, root not 32 bytes, or size 0 with
    another root than that of the empty tree.
    """

    origin: str
    size: int
    root: Hash
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for line in (self.origin, *self.extensions):
            if not line or "\n" in line:
                raise MalformedError("checkpoint: an empty line, or a line that is not one line")
        if not 0 <= self.size <= MAX_SIZE:
            raise MalformedError(f"checkpoint: size {self.size} is not 0..2^63-1")
        if len(self.root) != HASH_SIZE:
            raise MalformedError(f"checkpoint: root of {len(self.root)} bytes, not {HASH_SIZE}")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise MalformedError("checkpoint: size 0 without the root of the empty tree")

    def text(self) -> bytes:
        """Return the text that is signed, final LF included."""
        lines = (self.origin, str(self.size), base64.encode(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines).encode()

    @classmethod
    def parse(cls, text: bytes) -> Checkpoint:
        """Parse a checkpoint's text, final LF included; raises MalformedError."""
        try:
            lines = text.decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise MalformedError("checkpoint: not UTF-8", error.start) from error
        if lines.pop() or len(lines) < 3:
            raise MalformedError("checkpoint: not origin, size and root, each a line with LF")
        origin, size, root, *extensions = lines
        checkpoint = cls(origin, parse_decimal(size), Hash(base64.decode(root, HASH_SIZE)), tuple(extensions))
        # Two spellings of one checkpoint would be two texts that a witness could sign.
        if checkpoint.text() != text:
            raise MalformedError("checkpoint: not in canonical form")
        return checkpoint


@dataclass(frozen=True, slots=True)
class OpenedCheckpoint:
    """A checkpoint that its log has signed, with the note that says so."""

    checkpoint: Checkpoint
    note: Note


def sign_checkpoint(checkpoint: Checkpoint, signer: SignerKey) -> bytes:
    """Return the signed note of `checkpoint`.

    Only a committed head may come here (formats.md, section 11). Raises ValueError if the signer's name is
    not the origin.
    """
    if signer.name != checkpoint.origin:
        raise ValueError(f"signer {signer.name} is not the log {checkpoint.origin}")
    return sign_note(checkpoint.text(), [signer])


def peek_origin(note: bytes) -> str:
    """Return the first line of a note that is still to be verified: a hint which keys to try, no more.

    Raises MalformedError if the line is not UTF-8 or there is no line.
    """
    line, end, _ = note.partition(b"\n")
    try:
        origin = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError("checkpoint: not UTF-8", error.start) from error
    if not origin or not end:
        raise MalformedError("checkpoint: no origin", 0)
    return origin


def open_checkpoint(
    note: bytes, origin: str, log: Sequence[VerifierKey], others: Sequence[VerifierKey] = ()
) -> OpenedCheckpoint:
    """Verify a checkpoint note and return what it states.

    `log` are the keys of which one must have signed; `others` (witnesses) are verified where they signed.

    Raises MalformedError; SignatureError when a known signature is wrong, no key of `log` has signed, or the
    origin is not `origin` (UnverifiedNoteError when nobody known has signed).
    """
    opened = open_note(note, [*log, *others])
    log_keys = {(key.name, key.key_id) for key in log}
    if not any(line.by in log_keys for line in opened.verified):
        raise SignatureError(f"checkpoint: no signature of the log {origin}")
    checkpoint = Checkpoint.parse(opened.text)
    if checkpoint.origin != origin:
        raise SignatureError(f"checkpoint: origin is {checkpoint.origin!r}, not {origin!r}")
    return OpenedCheckpoint(checkpoint, opened)

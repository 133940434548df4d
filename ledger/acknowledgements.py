"""Acknowledgements: the ledger's signed promise that a submission will be in its register.

A signed note (formats.md, section 12) by a key of its own, never the log key: durably accepted, not yet in
the tree. What is promised is entries, or one provable rejection.
"""

from __future__ import annotations

from dataclasses import dataclass

from ledger.checkpoints import parse_decimal
from ledger.entries import MAX_RECORDS
from ledger.errors import MalformedError, SignatureError
from ledger.notes import SignerKey, VerifierKey, open_note, sign_note
from ledger.values import is_accepted_at, is_ledger_origin, is_register, is_sha256

VERSION = "daybook.acknowledgement/1"
"""The first line of an acknowledgement."""

_KEY = "/acknowledgements"


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What is acknowledged: a submission of `count` records to the register of this origin.

    `submission_id` is 64 hex digits; `accepted_at` (``YYYY-MM-DDTHH:MM:SS.mmmZ``) says when this replica
    accepted it, and may differ from that of the entries.

    Raises MalformedError for values outside formats.md, section 12.
    """

    register_origin: str
    submission_id: str
    count: int
    accepted_at: str

    def __post_init__(self) -> None:
        ledger_origin, _, register = self.register_origin.partition("/")
        if not is_ledger_origin(ledger_origin) or not is_register(register):
            raise MalformedError(f"acknowledgement: {self.register_origin!r} is not the origin of a register")
        if not is_sha256(self.submission_id):
            raise MalformedError("acknowledgement: submission_id is not 64 hex digits")
        if not 1 <= self.count <= MAX_RECORDS:
            raise MalformedError(f"acknowledgement: count {self.count} is not 1..{MAX_RECORDS}")
        if not is_accepted_at(self.accepted_at):
            raise MalformedError("acknowledgement: accepted_at is not YYYY-MM-DDTHH:MM:SS.mmmZ")

    @property
    def key_name(self) -> str:
        """The name of the key that must sign: ``<ledger origin>/acknowledgements``."""
        return self.register_origin.partition("/")[0] + _KEY

    def text(self) -> bytes:
        """Return the text that is signed, final LF included."""
        lines = (VERSION, self.register_origin, self.submission_id, str(self.count), self.accepted_at)
        return "".join(f"{line}\n" for line in lines).encode()

    @classmethod
    def parse(cls, text: bytes) -> Acknowledgement:
        """Parse the text, final LF included; raises MalformedError."""
        try:
            lines = text.decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise MalformedError("acknowledgement: not UTF-8", error.start) from error
        if len(lines) != 6 or lines[5] or lines[0] != VERSION:
            raise MalformedError(f"acknowledgement: not five lines, the first {VERSION!r}")
        return cls(lines[1], lines[2], parse_decimal(lines[3]), lines[4])


def sign_acknowledgement(acknowledgement: Acknowledgement, signer: SignerKey) -> bytes:
    """Return the signed note. Only a durably accepted submission may come here.

    Raises ValueError if the signer is not the acknowledgement key of that ledger by name.
    """
    if signer.name != acknowledgement.key_name:
        raise ValueError(f"signer {signer.name} is not {acknowledgement.key_name}")
    return sign_note(acknowledgement.text(), [signer])


def open_acknowledgement(note: bytes, key: VerifierKey) -> Acknowledgement:
    """Verify an acknowledgement note and return what it promises.

    `key` is the `acknowledgement_key` of the verified ``ledger.opened/1``.

    Raises MalformedError; SignatureError when the signature is missing or wrong, or the key is that of
    another ledger.
    """
    acknowledgement = Acknowledgement.parse(open_note(note, [key]).text)
    if acknowledgement.key_name != key.name:
        raise SignatureError(f"acknowledgement: of {acknowledgement.register_origin}, but signed by {key.name}")
    return acknowledgement

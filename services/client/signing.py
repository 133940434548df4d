"""Signing a submission on the department's side (formats.md, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger import base64
from ledger.ed25519 import SecretKey
from ledger.entries import Signature, pae, submission_body, submission_id
from ledger.errors import MalformedError
from services.client.submission_tree import submission_tree


@dataclass(frozen=True, slots=True)
class SignedSubmission:
    """Records of one register, signed once, ready to be sent any number of times.

    `paths` has each record's concatenated path in the submission tree, sibling first; `signatures` are
    sorted by base64 key; `submission_id` is 64 hex digits and covers neither key nor signature.
    """

    register_origin: str
    records: tuple[bytes, ...]
    body: bytes
    signatures: tuple[Signature, ...]
    paths: tuple[bytes, ...]
    submission_id: str

    @property
    def register(self) -> str:
        """The register that the records go to: what follows the ledger origin."""
        return self.register_origin.partition("/")[2]

    def signed_by(self, signatures: Sequence[Signature]) -> SignedSubmission:
        """Return the same submission with other signatures: it keeps its `submission_id`."""
        ordered = tuple(sorted(signatures, key=lambda each: base64.encode(each.key)))
        return SignedSubmission(
            self.register_origin, self.records, self.body, ordered, self.paths, self.submission_id
        )


def sign_submission(
    records: Sequence[bytes], register_origin: str, keys: Sequence[SecretKey]
) -> SignedSubmission:
    """Sign canonical records, in order, for one register.

    A department signs with one key; governance with as many as its threshold asks for. What the records
    say is not judged here: `ledger.records.parse_record` does, and the ledger again. Raises MalformedError
    where there is no record.
    """
    unsigned = unsigned_submission(records, register_origin)
    message = pae(unsigned.body)
    return unsigned.signed_by([Signature(key.public, key.sign(message)) for key in keys])


def unsigned_submission(records: Sequence[bytes], register_origin: str) -> SignedSubmission:
    """Return a submission that nobody has signed yet, for keys that are held elsewhere.

    Raises MalformedError where there is no record.
    """
    if not records:
        raise MalformedError("a submission has at least one record")
    root, paths = submission_tree(records)
    body = submission_body(register_origin, len(records), root)
    return SignedSubmission(register_origin, tuple(records), body, (), tuple(paths), submission_id(body))

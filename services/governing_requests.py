"""Governance requests as files, so that holders of governance keys in different places can sign one.

A request file has the exact record and the exact body to be signed; a signature file has one key's signature
over it. Both are small JSON files that a person can read. Which signatures suffice is the ledger's to judge
(formats.md, section 7).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from ledger import base64, ed25519
from ledger.ed25519 import SecretKey
from ledger.entries import Signature, pae, submission_body, submission_id
from ledger.errors import MalformedError
from ledger.hashing import leaf_hash
from ledger.records import Record, check_place, parse_record
from ledger.values import is_ledger_origin

REQUEST_TYPE: Final = "daybook.governing-request/1"
SIGNATURE_TYPE: Final = "daybook.governing-signature/1"

_GOVERNING: Final = "governing"


@dataclass(frozen=True, slots=True)
class Request:
    """One governing record, to be signed for the register of this origin (``<ledger origin>/governing``)."""

    register_origin: str
    record: bytes

    @property
    def body(self) -> bytes:
        """The submission body, of one record (formats.md, section 5)."""
        return submission_body(self.register_origin, 1, leaf_hash(self.record))

    @property
    def submission_id(self) -> str:
        """The submission_id, 64 hex digits: what two holders read to each other before they sign."""
        return submission_id(self.body)

    def bytes_to_sign(self) -> bytes:
        """Return the PAE that each key signs."""
        return pae(self.body)

    def sign(self, key: SecretKey) -> Signature:
        """Return one key's signature."""
        return Signature(key.public, key.sign(self.bytes_to_sign()))

    def parsed(self) -> Record:
        """Return the record that is asked for.

        Raises MalformedError or RejectedError where registration would refuse it.
        """
        record = parse_record(self.record)
        check_place(record, _GOVERNING)
        return record

    def data(self) -> bytes:
        """Return the request file."""
        return _format(
            {
                "body": self.body.decode(),
                "record": self.record.decode(),
                "register_origin": self.register_origin,
                "submission_id": self.submission_id,
                "type": REQUEST_TYPE,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Request:
        """Parse a request file, and form its body again from origin and record.

        Raises MalformedError, also where the body or submission_id in the file is another: what a person
        reads in the file is then not what they would sign. RejectedError where the record breaks a rule.
        """
        members = _members(data, REQUEST_TYPE, ("body", "record", "register_origin", "submission_id"))
        origin, _, register = members["register_origin"].partition("/")
        if not is_ledger_origin(origin) or register != _GOVERNING:
            raise MalformedError("governing request: register_origin is not <ledger origin>/governing")
        request = cls(members["register_origin"], members["record"].encode())
        if members["body"].encode() != request.body or members["submission_id"] != request.submission_id:
            raise MalformedError("governing request: the body is not that of the record")
        request.parsed()
        return request


def signature_file(request: Request, signature: Signature) -> bytes:
    """Return the file of one signature over a request."""
    return _format(
        {
            "key": base64.encode(signature.key),
            "signature": base64.encode(signature.signature),
            "submission_id": request.submission_id,
            "type": SIGNATURE_TYPE,
        }
    )


def read_signature(data: bytes, request: Request) -> Signature:
    """Parse a signature file and verify it over `request`.

    Raises MalformedError, also for a signature over another request, and SignatureError where it is wrong.
    """
    members = _members(data, SIGNATURE_TYPE, ("key", "signature", "submission_id"))
    if members["submission_id"] != request.submission_id:
        raise MalformedError(
            f"governing signature: over request {members['submission_id']}, not {request.submission_id}"
        )
    signature = Signature(base64.decode(members["key"], 32), base64.decode(members["signature"], 64))
    ed25519.verify(signature.key, request.bytes_to_sign(), signature.signature)
    return signature


def _format(value: dict[str, str]) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True).encode() + b"\n"


def _members(data: bytes, file_type: str, names: tuple[str, ...]) -> dict[str, str]:
    try:
        value: Any = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not a {file_type} file: {error}") from error
    if not isinstance(value, dict) or value.get("type") != file_type:
        raise MalformedError(f"not a {file_type} file")
    if set(value) != {*names, "type"} or not all(isinstance(item, str) for item in value.values()):
        raise MalformedError(f"{file_type}: the members must be {', '.join(names)}")
    return value

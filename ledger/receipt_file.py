"""The file of a receipt: sections in a fixed order, groups that are whole or absent (formats.md, section 13).

Framing and grammar only. Nothing here is verified: `receipts.verify_receipt` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ledger.checkpoints import parse_decimal
from ledger.errors import MalformedError
from ledger.hashing import Hash
from ledger.tlog_proofs import TlogProof, hash_lines, parse_hash_lines
from ledger.values import is_uuid

FIRST_LINE = b"daybook.receipt/1\n"
"""How every receipt starts."""

_SECTIONS = (
    "entry",
    "proof",
    "not-before",
    "not-before-consistency",
    "key-entry",
    "key-proof",
    "anchor-entry",
    "anchor",
    "consistency",
)


@dataclass(frozen=True, slots=True)
class NotBefore:
    """An earlier checkpoint note of the register, which does not cover the entry yet.

    `consistency` leads from it to the checkpoint of the receipt's proof; empty exactly at size 0.
    """

    note: bytes
    consistency: tuple[Hash, ...]


@dataclass(frozen=True, slots=True)
class KeyEvidence:
    """The governing entry that authorised the signing key, and its proof."""

    entry: bytes
    proof: TlogProof


@dataclass(frozen=True, slots=True)
class Anchor:
    """The governing entry that carries a checkpoint of the register, and its proof.

    `consistency` leads from the smaller to the larger of that checkpoint and the one of the receipt's proof;
    empty exactly when they have one size.
    """

    entry: bytes
    proof: TlogProof
    consistency: tuple[Hash, ...]


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt as parsed, or put together from its parts. Nothing in it is verified."""

    entry: bytes
    proof: TlogProof
    not_before: NotBefore | None = None
    key: KeyEvidence | None = None
    anchor: Anchor | None = None

    @classmethod
    def parse(cls, data: bytes) -> Receipt:
        """Parse a receipt file: framing, order, partners, the grammar of proofs; raises MalformedError."""
        sections = _split(data)
        not_before = key = anchor = None
        if _present(sections, ("not-before",), "not-before-consistency"):
            consistency = _hashes(sections, "not-before-consistency")
            not_before = NotBefore(sections["not-before"], consistency)
        if _present(sections, ("key-entry", "key-proof")):
            key = KeyEvidence(sections["key-entry"], _proof(sections, "key-proof"))
        if _present(sections, ("anchor-entry", "anchor"), "consistency"):
            consistency = _hashes(sections, "consistency")
            anchor = Anchor(sections["anchor-entry"], _proof(sections, "anchor"), consistency)
        if not _present(sections, ("entry", "proof")):
            raise MalformedError("receipt: no entry and no proof")
        return cls(sections["entry"], _proof(sections, "proof"), not_before, key, anchor)

    def data(self) -> bytes:
        """Return the bytes of the receipt file."""
        sections: dict[str, bytes] = {"entry": self.entry, "proof": self.proof.text()}
        if self.not_before is not None:
            sections["not-before"] = self.not_before.note
            sections["not-before-consistency"] = hash_lines(self.not_before.consistency)
        if self.key is not None:
            sections["key-entry"] = self.key.entry
            sections["key-proof"] = self.key.proof.text()
        if self.anchor is not None:
            sections["anchor-entry"] = self.anchor.entry
            sections["anchor"] = self.anchor.proof.text()
            sections["consistency"] = hash_lines(self.anchor.consistency)
        framed = (b"%b %d\n%b\n" % (name.encode(), len(body), body) for name, body in sections.items() if body)
        return FIRST_LINE + b"".join(framed)


def _split(data: bytes) -> dict[str, bytes]:
    """Return the sections by name. Each at most once, in the fixed order, none empty, nothing else."""
    if not data.startswith(FIRST_LINE):
        raise MalformedError("receipt: the first line is not 'daybook.receipt/1'", 0)
    sections: dict[str, bytes] = {}
    allowed = iter(_SECTIONS)
    position = len(FIRST_LINE)
    while position < len(data):
        # The longest heading has 42 bytes: no need to look further for its end.
        heading, end, _ = data[position : position + 64].partition(b"\n")
        name, space, length = heading.decode("ascii", "replace").partition(" ")
        if not end or not space:
            raise MalformedError("receipt: not a section heading", position)
        # The iterator only moves on: a name that came before, or out of order, is not found any more.
        if name not in allowed:
            raise MalformedError(f"receipt: section {name!r} is unknown, or not in its place", position)
        start = position + len(heading) + 1
        position = start + parse_decimal(length)
        if position >= len(data) or data[position : position + 1] != b"\n":
            raise MalformedError(f"receipt: section {name!r} has not the length that it states", start)
        if start == position:
            raise MalformedError(f"receipt: section {name!r} is empty", start)
        sections[name] = data[start:position]
        position += 1
    return sections


def _present(sections: Mapping[str, bytes], required: tuple[str, ...], optional: str | None = None) -> bool:
    """Tell whether a group of sections is there; raises MalformedError where only part of it is."""
    there = [name in sections for name in required]
    if not all(there) and (any(there) or optional in sections):
        raise MalformedError(f"receipt: of the sections {', '.join(required)} one is missing")
    return all(there)


def _proof(sections: Mapping[str, bytes], name: str) -> TlogProof:
    proof = TlogProof.parse(sections[name])
    if proof.extra is not None:
        raise MalformedError(f"receipt: section {name!r} has an extra line, which nothing vouches for")
    return proof


def _hashes(sections: Mapping[str, bytes], name: str) -> tuple[Hash, ...]:
    return parse_hash_lines(sections.get(name, b""))


def file_name(record_id: str, version: int) -> str:
    """Return the name of a receipt's file, ``<record_id>.<version>.receipt``.

    Raises MalformedError if `record_id` is not a uuid: a name from outside must not become a path.
    """
    if not is_uuid(record_id) or version < 1:
        raise MalformedError(f"receipt: not a record_id and version: {record_id!r}, {version}")
    return f"{record_id}.{version}.receipt"

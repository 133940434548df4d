"""The append rules of entry/1 that concern records (formats.md, section 9, rule 4).

Decided from the message and the register's earlier entries alone: never from clocks, settings or the version
of this software, so that a replay decides the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from ledger.entries import Message
from ledger.errors import MalformedError, Reason, RejectedError, Violation
from ledger.records import Record
from ledger.values import FromOne, are_uuids, is_uuid

_DEEPEST: Final = 256
"""Objects and arrays of a record nest at most this deep; registration lets through far less.

The decoder itself gives up where the stack of whoever calls it ends, which no two callers agree on.
"""

_ARRAY: Final = ord("[")

_LEAST: Final = len(b'{"":')
"""Bytes that an object in an object begins with, at the least."""

_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKET: Final = re.compile(rb"[\[{]|[\]}]")

_WITHDRAWN: Final = "decision.withdrawn/1"


class Previous(msgspec.Struct, frozen=True):
    """The version that a record says it follows, and the hex SHA-256 of its bytes."""

    version: int
    sha256: str


class Header(msgspec.Struct, frozen=True):
    """What the append rules read of a record; the rest was judged at registration."""

    type: str
    record_id: str
    register: str
    version: FromOne
    previous: Previous | None = None


_decode_header = msgspec.json.Decoder(Header).decode


def read_header(record: bytes) -> Header:
    """Return the header of a record. Raises MalformedError where registration cannot have let it through."""
    if _is_too_deep(record):
        raise MalformedError(f"record: it nests more than {_DEEPEST} deep")
    try:
        header = _decode_header(record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedError(f"record: no type, record_id and version: {error}") from error
    if not is_uuid(header.record_id):
        raise MalformedError(f"record: {header.record_id[:80]!r} is no record_id")
    return header


def read_headers(records: Sequence[bytes]) -> list[Header]:
    """Return the header of each record. Raises as `read_header` does for the first that has none."""
    # What nearly all pass is asked of all at once. The first that does not is found one by one.
    if not any(map(_is_too_deep, records)):
        try:
            headers = [_decode_header(record) for record in records]
        except (msgspec.DecodeError, UnicodeDecodeError):
            headers = []
        if headers and are_uuids([header.record_id for header in headers]):
            return headers
    return [read_header(record) for record in records]


def _is_too_deep(record: bytes) -> bool:
    if _ARRAY not in record and len(record) < _LEAST * _DEEPEST:
        return False
    if record.count(b"{") + record.count(b"[") <= _DEEPEST:
        return False
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", record)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > _DEEPEST:
            return True
    return False


def header_of(record: Record) -> Header:
    """Return the header of a record that was parsed in full."""
    followed = getattr(record, "previous", None)
    previous = Previous(followed.version, followed.sha256) if followed is not None else None
    return Header(record.type, record.record_id, record.register, record.version, previous)


def record_key(header: Header) -> bytes:
    """Return the 16 bytes of the record_id."""
    return bytes.fromhex(header.record_id.replace("-", ""))


def record_keys(headers: Iterable[Header]) -> list[bytes]:
    """Return the 16 bytes of each record_id."""
    keys = bytes.fromhex("".join([header.record_id for header in headers]).replace("-", ""))
    return [keys[start : start + 16] for start in range(0, len(keys), 16)]


class Earlier(msgspec.Struct, frozen=True):
    """A version that counts as registered. `index` is None for one earlier in the same submission."""

    header: Header
    record: bytes
    index: int | None

    def sha256(self) -> str:
        """Return the record's digest, hex."""
        return hashlib.sha256(self.record).hexdigest()


Registered = Mapping[str, Mapping[int, Earlier]]
"""For each record_id, of the versions that count as registered: the latest, and those that are asked about."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The first rule that a submission breaks.

    `position` is that of the record refused, None where no one record is; `record` its bytes; `earlier` what
    it met; `registered` every position whose very bytes are registered already, with its index.
    """

    reason: Reason
    position: int | None = None
    header: Header | None = None
    earlier: Earlier | None = None
    registered: tuple[tuple[int, int], ...] = ()
    record: bytes = b""

    def error(self) -> RejectedError:
        """Return the refusal as registration reports it before acceptance (formats.md, section 19)."""
        if self.header is None or self.position is None:
            return RejectedError(self.reason, _MEANING[self.reason])
        detail = {"record_id": self.header.record_id, "version": str(self.header.version)}
        if self.earlier is not None:
            detail["last_version"] = str(self.earlier.header.version)
            detail["last_sha256"] = self.earlier.sha256()
            if self.earlier.index is not None:
                detail["index"] = str(self.earlier.index)
        if self.reason is Reason.RECORD_CONFLICT:
            detail["sha256"] = hashlib.sha256(self.record).hexdigest()
        positions = self.registered or ((self.position, -1),)
        if self.registered:
            detail["registered"] = ",".join(f"{position}:{index}" for position, index in self.registered)
        text = _MEANING[self.reason]
        violations = tuple(
            Violation(self.reason, text if index < 0 else f"{text} (index {index})", f"records[{position}]")
            for position, index in positions
        )
        message = f"records[{self.position}] ({self.header.record_id}, version {self.header.version}): {text}"
        return RejectedError(self.reason, message, violations=violations, detail=detail)


_MEANING: Final = {
    Reason.STALE_VIEW: "judged against an older view of the governing register than an earlier entry",
    Reason.RECORD_ALREADY_REGISTERED: "this very record is registered already",
    Reason.RECORD_CONFLICT: "this version of the record is registered already, with other bytes",
    Reason.PREVIOUS_UNKNOWN: "no version of the record is registered, so there is nothing to follow",
    Reason.RECORD_WITHDRAWN: "the record has been withdrawn",
    Reason.VERSION_CONFLICT: "the version does not follow the last one registered",
    Reason.TYPE_CONFLICT: "a decision, a return and a void cannot follow one another",
    Reason.PREVIOUS_MISMATCH: "`previous` is not the version and digest of the last one registered",
}


def judge_records(message: Message, headers: Sequence[Header], registered: Registered) -> Refusal | None:
    """Return the first refusal of a submission's records, in order, or None.

    `registered` has, of every record_id that `headers` name, the latest version and the versions that they are.
    """
    within: dict[str, dict[int, Earlier]] = {}
    repeats = len({header.record_id for header in headers}) < len(headers)
    records = message.records()
    for position, header in enumerate(headers):
        known = registered.get(header.record_id, {})
        if repeats:
            known = {**known, **within.get(header.record_id, {})}
            within.setdefault(header.record_id, {})[header.version] = Earlier(header, records[position], None)
        if known or header.version > 1:
            found = _judge(header, records[position], known)
            if found is not None:
                reason, earlier = found
                same = _registered_positions(headers, records, registered, reason)
                return Refusal(reason, position, header, earlier, same, records[position])
    return None


def _judge(header: Header, record: bytes, known: Mapping[int, Earlier]) -> tuple[Reason, Earlier | None] | None:
    same = known.get(header.version)
    if same is not None:
        identical = same.record == record
        return (Reason.RECORD_ALREADY_REGISTERED if identical else Reason.RECORD_CONFLICT), same
    if not known:
        return Reason.PREVIOUS_UNKNOWN, None
    last = known[max(known)]
    if last.header.type == _WITHDRAWN:
        return Reason.RECORD_WITHDRAWN, last
    if header.version != last.header.version + 1:
        return Reason.VERSION_CONFLICT, last
    if _kind(header) != _kind(last.header):
        return Reason.TYPE_CONFLICT, last
    if header.previous != Previous(last.header.version, last.sha256()):
        return Reason.PREVIOUS_MISMATCH, last
    return None


def _kind(header: Header) -> str:
    """Return which records may follow one another: returns, voids of references, and all others."""
    name = header.type.partition(".")[0]
    return name if name in ("return", "reference") else "decision"


def _registered_positions(
    headers: Sequence[Header], records: Sequence[bytes], registered: Registered, reason: Reason
) -> tuple[tuple[int, int], ...]:
    """Return every position that is registered already, so that the rest can be signed again at once."""
    if reason is not Reason.RECORD_ALREADY_REGISTERED:
        return ()
    found = []
    for position, header in enumerate(headers):
        same = registered.get(header.record_id, {}).get(header.version)
        if same is not None and same.index is not None and same.record == records[position]:
            found.append((position, same.index))
    return tuple(found)

"""Records: parse what a department asserts into a frozen value, or say everything that is wrong with it.

`parse_record` is called for every record at registration. It tries a short way first: one typed decode, one
re-encode, a few checks of the bytes. Whatever does not pass the short way goes the long way, which alone
decides and explains; the property tests hold the short way to the long one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, TypeAlias, get_args, get_type_hints

import msgspec

from ledger import canonical
from ledger.errors import MalformedError, Reason, RejectedError, Violation
from ledger.governing_types import (
    CheckpointAnchored,
    GovernanceChanged,
    KeyAuthorised,
    KeyRevoked,
    LedgerOpened,
    PolicyPublished,
    RegisterClosed,
    RegisterOpened,
    RestoreDeclared,
    SubmissionRejected,
)
from ledger.own_records import checkpoint_anchored, record_digest, submission_rejected, uuid8
from ledger.record_rules import faults_between, refusal, without_rules
from ledger.record_types import (
    Decision,
    DecisionCorrected,
    DecisionRegistered,
    DecisionWithdrawn,
    Recorded,
    ReferenceVoided,
    ReturnFiled,
)
from ledger.shapes import join, shape_of, shown, spelling_of, texts_of
from ledger.values import is_register, is_uuid, partial
from ledger.vocabularies import REFUSED_TIERS

__all__ = [
    "DEPARTMENT_TYPES",
    "GOVERNING_TYPES",
    "KNOWN_TYPES",
    "LEDGER_WRITTEN",
    "MAX_RECORD",
    "RESERVED",
    "Broken",
    "CheckpointAnchored",
    "Decision",
    "DecisionCorrected",
    "DecisionRegistered",
    "DecisionWithdrawn",
    "GovernanceChanged",
    "Header",
    "KeyAuthorised",
    "KeyRevoked",
    "LedgerOpened",
    "NotUnderstood",
    "PolicyPublished",
    "Record",
    "ReferenceVoided",
    "RegisterClosed",
    "RegisterOpened",
    "RestoreDeclared",
    "ReturnFiled",
    "SubmissionRejected",
    "check_place",
    "checkpoint_anchored",
    "decided_earliest",
    "findings",
    "ledger_may_write",
    "parse_record",
    "read_record",
    "record_digest",
    "submission_rejected",
    "uuid8",
    "violations",
]

MAX_RECORD: Final = 61_440
"""Bytes of the largest record (formats.md, section 18)."""

Record: TypeAlias = (
    DecisionRegistered
    | DecisionCorrected
    | DecisionWithdrawn
    | ReturnFiled
    | ReferenceVoided
    | LedgerOpened
    | GovernanceChanged
    | RegisterOpened
    | RegisterClosed
    | KeyAuthorised
    | KeyRevoked
    | PolicyPublished
    | CheckpointAnchored
    | SubmissionRejected
    | RestoreDeclared
)
"""A record that keeps every rule, by its type."""


def _name_of(record_type: type[Recorded]) -> str:
    (name,) = get_args(get_type_hints(record_type)["type"])
    return str(name)


KNOWN_TYPES: Final[Mapping[str, type[Record]]] = MappingProxyType(
    {_name_of(record_type): record_type for record_type in get_args(Record)}
)
"""Every record type that is defined, by its name."""

DEPARTMENT_TYPES: Final = frozenset(
    {
        "decision.registered/1",
        "decision.corrected/1",
        "decision.withdrawn/1",
        "reference.voided/1",
        "return.filed/1",
    }
)
"""What departments submit, to their own registers."""

GOVERNING_TYPES: Final = frozenset(
    {
        "ledger.opened/1",
        "governance.changed/1",
        "register.opened/1",
        "register.closed/1",
        "key.authorised/1",
        "key.revoked/1",
        "policy.published/1",
    }
)
"""What is submitted to the register `governing`, signed by governance keys."""

LEDGER_WRITTEN: Final[Mapping[str, str | None]] = MappingProxyType(
    {
        "checkpoint.anchored/1": "governing",
        "submission.rejected/1": None,
        "access.read/1": "access",
        "restore.declared/1": "governing",
    }
)
"""The closed list of what the ledger writes without a submission, and the register for each; None is any."""

RESERVED: Final = frozenset(
    {
        "ledger.rekeyed/1",
        "grant.made/1",
        "grant.ended/1",
        "disposal.certified/1",
        "search.certified/1",
    }
)
"""Names that are kept for later types, and refused until those are defined."""

_encode: Final = msgspec.json.Encoder(order="sorted").encode
_decode: Final = msgspec.json.Decoder().decode
_TYPE: Final = b'"type":"'
# As numbers: a byte is found many times faster than bytes are.
_DEL: Final = 0x7F
_BACKSLASH: Final = ord("\\")


@dataclass(frozen=True, slots=True)
class _ShortWay:
    """What the short way needs for one record type."""

    decode: Callable[[bytes], Record]
    is_spelled: Callable[[Record], bool]
    texts: tuple[str, ...]


def _short_way(record_type: type[Recorded]) -> _ShortWay:
    is_spelled = spelling_of(record_type)
    if is_spelled is None:
        raise TypeError(f"{record_type.__name__} has no record_id")
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(record_type)
    return _ShortWay(decoder.decode, is_spelled, texts_of(record_type))


# Governing and ledger-written records are few, and some nest texts: they go the long way.
_SHORT_WAYS: Final = {name.encode(): _short_way(KNOWN_TYPES[name]) for name in DEPARTMENT_TYPES}


def parse_record(data: bytes) -> Record:
    """Return the record of which `data` is the canonical JSON (formats.md, sections 1 to 4).

    Which register it may stand in is `check_place`'s question. Raises MalformedError for bytes that are not
    canonical JSON, with the byte offset, and RejectedError with every violation otherwise.
    """
    record = _parse_shortly(data)
    return _parse_fully(data) if record is None else record


def _parse_shortly(data: bytes) -> Record | None:
    """Return the record, or None when only the long way can tell. Never returns what that would refuse."""
    if len(data) > MAX_RECORD:
        return None
    # The last one in canonical order is the top one: only `version` and `withheld` follow it. It is a guess,
    # which the decoder confirms.
    start = data.rfind(_TYPE) + len(_TYPE)
    way = _SHORT_WAYS.get(data[start : data.find(b'"', start)])
    if way is None:
        return None
    value: dict[str, Any] | None = None
    if not data.isascii():
        value = canonical.parse(data)
    elif _DEL in data:
        return None
    line_ends = 0
    if _BACKSLASH in data:
        escapes = data.replace(b"\\\\", b"")
        line_ends = escapes.count(b"\\n")
        if escapes.count(b"\\") != line_ends + escapes.count(b'\\"'):
            return None
    try:
        record = way.decode(data)
    except msgspec.MsgspecError:
        return None
    # Duplicates, order, white space, null and other spellings of numbers do not survive this.
    if _encode(record) != data or not way.is_spelled(record):
        return None
    # Every LF of the bytes is in a text, or one of them is where none may be.
    if line_ends and line_ends != _line_ends(record, way.texts):
        return None
    if without_rules(record):
        return record
    for _ in faults_between(type(record), _decode(data) if value is None else value):
        return None
    return record


def _line_ends(record: Record, texts: tuple[str, ...]) -> int:
    count = 0
    for name in texts:
        text: str | tuple[str, ...] | None = getattr(record, name)
        if isinstance(text, str):
            count += text.count("\n")
        elif text is not None:
            count += sum(item.count("\n") for item in text)
    return count


def _parse_fully(data: bytes) -> Record:
    if len(data) > MAX_RECORD:
        raise RejectedError(
            Reason.RECORD_TOO_LARGE,
            f"a record has at most {MAX_RECORD} bytes, this one {len(data)}",
            violations=(_too_large(len(data)),),
            detail={"limit": str(MAX_RECORD)},
        )
    value = canonical.parse(data)
    found = tuple(_faults(value))
    if found:
        raise refusal(found)
    record: Record = msgspec.convert(value, KNOWN_TYPES[value["type"]])
    return record


# msgspec looks into a type when it is first converted to, and crashes where two threads do so at the same time.
for _each in KNOWN_TYPES.values():
    msgspec.json.Decoder(_each)


def violations(value: Mapping[str, Any]) -> tuple[Violation, ...]:
    """Return everything that is wrong with a record that is still to be formatted; empty when all is well.

    `value` is built of dict, list, str, int and bool. Beyond the rules that `parse_record` applies this looks
    at the characters of every string and at the size.
    """
    found = (*_faults(value), *_characters(value, ""))
    if found:
        return found
    try:
        data = canonical.format(value)
    except MalformedError as error:
        return (Violation(Reason.NOT_CANONICAL, str(error), offset=error.offset),)
    return (_too_large(len(data)),) if len(data) > MAX_RECORD else ()


def _faults(value: Mapping[str, Any]) -> Iterator[Violation]:
    name = value.get("type")
    if name is None:
        yield Violation(Reason.INVALID_FIELD, "is required", "type", tuple(KNOWN_TYPES))
        return
    record_type = KNOWN_TYPES.get(name) if isinstance(name, str) else None
    if record_type is None:
        reserved = isinstance(name, str) and name in RESERVED
        description = "is reserved until it is defined" if reserved else "is not a type that is defined"
        yield Violation(Reason.UNKNOWN_TYPE, description, "type", tuple(KNOWN_TYPES))
        return
    refused = _tier(value) in REFUSED_TIERS
    for fault in shape_of(record_type).faults(value, ""):
        if refused and fault.field == "classification.tier":
            yield replace(
                fault,
                reason=Reason.CLASSIFICATION_REFUSED,
                description="must not be here: the register holds records up to OFFICIAL only",
            )
        else:
            yield fault
    yield from faults_between(record_type, value)


def _tier(value: Mapping[str, Any]) -> str | None:
    classification = value.get("classification")
    tier = classification.get("tier") if isinstance(classification, Mapping) else None
    return tier if isinstance(tier, str) else None


def _characters(value: object, path: str) -> Iterator[Violation]:
    """Yield each string with a character that canonical JSON refuses. Empty ones are faults already."""
    match value:
        case str() if value:
            try:
                canonical.format({"text": value})
            except MalformedError as error:
                yield Violation(Reason.NOT_CANONICAL, str(error).removeprefix("text: "), path)
        case Mapping():
            for name, item in value.items():
                yield from _characters(item, join(path, name))
        case list():
            for index, item in enumerate(value):
                yield from _characters(item, f"{path}[{index}]")


def _too_large(size: int) -> Violation:
    return Violation(Reason.RECORD_TOO_LARGE, f"must have at most {MAX_RECORD} bytes, has {size}")


def check_place(record: Record, register: str) -> None:
    """Check that `record` may be submitted to `register` (formats.md, section 8).

    Governing types stand only in `governing`, decisions, returns and voids only in departments' registers, and
    what the ledger writes is never submitted. Raises RejectedError: WRONG_REGISTER or UNKNOWN_TYPE.
    """
    here = _submittable(register)
    if record.register == register and record.type in here:
        return
    found = []
    if record.type in LEDGER_WRITTEN:
        found.append(Violation(Reason.UNKNOWN_TYPE, "is written only by the ledger", "type", tuple(here)))
    elif record.type not in here:
        description = "does not stand in this register"
        found.append(Violation(Reason.WRONG_REGISTER, description, "type", tuple(sorted(here))))
    if record.register != register:
        description = "is not the register of the submission"
        found.append(Violation(Reason.WRONG_REGISTER, description, "register", (register,)))
    raise refusal(tuple(found))


def _submittable(register: str) -> frozenset[str]:
    if register == "governing":
        return GOVERNING_TYPES
    return DEPARTMENT_TYPES if "/" in register else frozenset()


def ledger_may_write(record_type: str, register: str) -> bool:
    """Tell whether an entry without a submission may hold this type here (formats.md, section 3)."""
    return record_type in LEDGER_WRITTEN and LEDGER_WRITTEN[record_type] in (None, register)


def decided_earliest(record: Record) -> int | None:
    """Return the earliest second of `decided_at`, POSIX; None for a record that is no decision."""
    if isinstance(record, Decision):
        return partial(record.decided_at).earliest
    return None


@dataclass(frozen=True, slots=True)
class Header:
    """What a record says it is, as far as it can be read: None where a member is missing or ill formed."""

    type: str | None = None
    record_id: str | None = None
    register: str | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class NotUnderstood:
    """A record of a type that this release does not define: provably included, not understood."""

    header: Header

    @property
    def findings(self) -> tuple[str, ...]:
        """The one finding to report."""
        return (f"type not understood: {shown(self.header.type)}",)


@dataclass(frozen=True, slots=True)
class Broken:
    """A record that breaks rules of registration: a finding for a verifier, never an integrity failure."""

    header: Header
    findings: tuple[str, ...]


def read_record(data: bytes) -> Record | NotUnderstood | Broken:
    """Return what a verifier can make of the bytes of a record. Never raises (formats.md, section 1)."""
    try:
        return parse_record(data)
    except MalformedError as error:
        return Broken(_header(data), (f"not canonical: {error}",))
    except RejectedError as error:
        header = _header(data)
        if error.reason is Reason.UNKNOWN_TYPE and header.type is not None:
            return NotUnderstood(header)
        return Broken(header, tuple(_finding(violation) for violation in error.violations))


def findings(data: bytes) -> tuple[str, ...]:
    """Return what a verifier reports about the bytes of a record, one sentence each."""
    read = read_record(data)
    return read.findings if isinstance(read, NotUnderstood | Broken) else ()


def _finding(violation: Violation) -> str:
    return f"{violation.field}: {violation.description}" if violation.field else violation.description


def _header(data: bytes) -> Header:
    try:
        value = _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Header()
    if not isinstance(value, dict):
        return Header()
    name, record_id = value.get("type"), value.get("record_id")
    register, version = value.get("register"), value.get("version")
    return Header(
        name if isinstance(name, str) else None,
        record_id if isinstance(record_id, str) and is_uuid(record_id) else None,
        register if isinstance(register, str) and is_register(register) else None,
        version if isinstance(version, int) and not isinstance(version, bool) and version > 0 else None,
    )

"""Ledger errors as gRPC and HTTP statuses: one table, from which docs/errors.md is made too.

A refusal is a `google.rpc.Status` with ErrorInfo (domain ``daybook``, a stable reason, details), BadRequest
where fields are at fault, and RetryInfo where the same call may succeed later (formats.md, section 19).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final, NoReturn

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from ledger.errors import (
    ConflictError,
    Reason,
    RejectedError,
    StorageFullError,
    StoreError,
    Violation,
)

DOMAIN: Final = "daybook"
DETAILS_KEY: Final = "grpc-status-details-bin"

MAX_MESSAGE: Final = 500
"""Bytes of a status message: it travels percent-encoded, up to three times as long."""
MAX_TRAILER: Final = 6_000
"""Bytes of a status in trailing metadata. A gRPC client drops a call whose metadata is over 8 KiB."""
_MAX_DETAIL: Final = 3_000
_ELLIPSIS: Final = "…"


class Retry(StrEnum):
    """Whether the same call may succeed when sent again."""

    NO = "no"
    AFTER_READING = "after reading what was registered meanwhile"
    LATER = "later"
    YES = "yes"
    ONCE = "once"


@dataclass(frozen=True, slots=True)
class Row:
    """What one reason means to a caller.

    `delay` is the RetryInfo in seconds, None where sending the same call again does not help.
    """

    code: grpc.StatusCode
    meaning: str
    carries: str
    retry: Retry = Retry.NO
    delay: float | None = None


_C = grpc.StatusCode
_FIELD = "BadRequest: each field, what is wrong with it, and the values that are accepted"
_SAME = "Nothing was changed."
_LAST = "`record_id`, `version`; `last_version` and `last_sha256` of the latest version registered"

TABLE: Final[Mapping[Reason, Row]] = {
    Reason.NOT_CANONICAL: Row(
        _C.INVALID_ARGUMENT,
        "The bytes of a record are not canonical JSON (formats.md, section 1).",
        "BadRequest: the record; `offset`, the zero-based byte at fault, where it is known",
    ),
    Reason.INVALID_FIELD: Row(
        _C.INVALID_ARGUMENT,
        "A field is missing, unknown, or has a value that its rule does not allow.",
        _FIELD,
    ),
    Reason.UNKNOWN_TYPE: Row(
        _C.INVALID_ARGUMENT,
        "The record's type is not known, is reserved, or is one that only the ledger writes.",
        _FIELD,
    ),
    Reason.WRONG_REGISTER: Row(
        _C.INVALID_ARGUMENT,
        "The record names another register than its submission, or its type cannot stand in this one.",
        _FIELD,
    ),
    Reason.CLASSIFICATION_REFUSED: Row(
        _C.INVALID_ARGUMENT,
        "The record is not classified OFFICIAL. Anything above must not be sent to this ledger at all.",
        _FIELD,
    ),
    Reason.DECIDED_IN_FUTURE: Row(
        _C.INVALID_ARGUMENT,
        "The decision is dated more than five minutes after the ledger's clock.",
        _FIELD,
    ),
    Reason.BODY_MISMATCH: Row(
        _C.INVALID_ARGUMENT,
        "The signed body does not say what the submission holds. Nothing was believed of it.",
        "`line`: which line differs, one of version, origin, register, count, root",
    ),
    Reason.RECORD_TOO_LARGE: Row(
        _C.INVALID_ARGUMENT,
        "A record has more than 61,440 bytes.",
        "BadRequest: the record; `limit` in bytes",
    ),
    Reason.SUBMISSION_TOO_LARGE: Row(
        _C.INVALID_ARGUMENT,
        "The records of the submission have more than 1,048,576 bytes together.",
        "`limit` and `bytes`",
    ),
    Reason.TOO_MANY_RECORDS: Row(
        _C.INVALID_ARGUMENT,
        "The submission has more than 1,000 records, or more than one in the register `governing`.",
        "`limit` and `count`",
    ),
    Reason.DUPLICATE_IN_SUBMISSION: Row(
        _C.INVALID_ARGUMENT,
        "One version of one record stands twice in the submission.",
        "BadRequest: the second of the two",
    ),
    Reason.SIGNATURE_COUNT: Row(
        _C.INVALID_ARGUMENT,
        "A department signs exactly once; a governance submission has 1 to 8 signatures, no key twice.",
        "`count` and `limit`",
    ),
    Reason.SIGNATURE_INVALID: Row(
        _C.UNAUTHENTICATED,
        "A signature does not verify over the submission's body.",
        "`key`, base64",
    ),
    Reason.KEY_UNKNOWN: Row(
        _C.PERMISSION_DENIED,
        "The signing key was never authorised.",
        "`key`, base64",
    ),
    Reason.KEY_REVOKED: Row(
        _C.PERMISSION_DENIED,
        "The signing key has been revoked.",
        "`key`, base64",
    ),
    Reason.KEY_OF_OTHER_DEPARTMENT: Row(
        _C.PERMISSION_DENIED,
        "The signing key belongs to another department than the register.",
        "`key`, base64; `department` of the key; `register`",
    ),
    Reason.GOVERNANCE_REFUSED: Row(
        _C.PERMISSION_DENIED,
        "Too few governance keys have signed, or a new key has not signed for itself.",
        "`threshold` and `valid`, or `missing`: the keys whose signatures are needed",
    ),
    Reason.REGISTER_CLOSED: Row(
        _C.FAILED_PRECONDITION,
        "The register is closed: nothing can be added to it.",
        "`register`; `successor`, where it has one",
    ),
    Reason.REGISTER_UNKNOWN: Row(
        _C.NOT_FOUND,
        "This ledger has no such register.",
        "`register`",
    ),
    Reason.RECORD_UNKNOWN: Row(
        _C.NOT_FOUND,
        "The register has no such entry, record or version.",
        "`index`, or `record_id` and `version`",
    ),
    Reason.SUBMISSION_UNKNOWN: Row(
        _C.NOT_FOUND,
        "The register has not accepted such a submission.",
        "`submission_id`",
    ),
    Reason.PREVIOUS_UNKNOWN: Row(
        _C.FAILED_PRECONDITION,
        "The record has no earlier version here, so there is nothing that this one could follow.",
        "BadRequest: the record; `record_id`, `version`",
    ),
    Reason.RECORD_WITHDRAWN: Row(
        _C.FAILED_PRECONDITION,
        "The record has been withdrawn: no version can follow.",
        f"BadRequest: the record; {_LAST}",
    ),
    Reason.TYPE_CONFLICT: Row(
        _C.FAILED_PRECONDITION,
        "A decision, a return and a void cannot follow one another under one record_id.",
        f"BadRequest: the record; {_LAST}",
    ),
    Reason.PREVIOUS_MISMATCH: Row(
        _C.FAILED_PRECONDITION,
        "`previous` is not the version and digest of the latest version registered.",
        f"BadRequest: the record; {_LAST}",
    ),
    Reason.VERSION_CONFLICT: Row(
        _C.ABORTED,
        "Someone registered another version first. Read it, then write yours to follow it and sign again.",
        f"BadRequest: the record; {_LAST}",
        Retry.AFTER_READING,
    ),
    Reason.STALE_VIEW: Row(
        _C.ABORTED,
        "The keys were judged against an older view of the governing register than an earlier entry.",
        "RetryInfo",
        Retry.YES,
        0.1,
    ),
    Reason.RECORD_CONFLICT: Row(
        _C.ALREADY_EXISTS,
        "This version of the record is registered already, with other bytes.",
        "BadRequest: the record; `record_id`, `version`, `sha256` of the record sent; `last_version` and "
        "`last_sha256` of the one that stands there; `index` of its entry",
    ),
    Reason.RECORD_ALREADY_REGISTERED: Row(
        _C.ALREADY_EXISTS,
        "Some of these very records are registered already, in another submission. Sign the rest again.",
        "`registered`: every such position with its index",
    ),
    Reason.KEY_ALREADY_BOUND: Row(
        _C.ALREADY_EXISTS,
        "The key was bound to a department before, and that is for ever.",
        "`key`, base64; `department`; `index` of the governing entry",
    ),
    Reason.REGISTER_ALREADY_OPEN: Row(
        _C.ALREADY_EXISTS,
        "A register of this name was opened before.",
        "`register`; `index` of the governing entry",
    ),
    Reason.SIZE_NOT_REACHED: Row(
        _C.OUT_OF_RANGE,
        "The register has fewer entries than the size asked for.",
        "`latest_size`; RetryInfo",
        Retry.LATER,
        1.0,
    ),
    Reason.OVERLOADED: Row(
        _C.RESOURCE_EXHAUSTED,
        f"More work is waiting than the ledger can take. {_SAME}",
        "RetryInfo",
        Retry.YES,
        0.5,
    ),
    Reason.RATE_LIMITED: Row(
        _C.RESOURCE_EXHAUSTED,
        f"You have sent more than your share. {_SAME}",
        "RetryInfo",
        Retry.YES,
        1.0,
    ),
    Reason.STORAGE_FULL: Row(
        _C.UNAVAILABLE,
        f"The ledger has no room for new entries; reading goes on. {_SAME}",
        "RetryInfo",
        Retry.YES,
        60.0,
    ),
    Reason.DRAINING: Row(
        _C.UNAVAILABLE,
        f"This server is shutting down; another one, or the next, will answer. {_SAME}",
        "RetryInfo",
        Retry.YES,
        0.5,
    ),
    Reason.BACKEND_DOWN: Row(
        _C.UNAVAILABLE,
        "The store behind the server does not answer, and whether it took the submission is not known; or a "
        "quorum of witnesses has not confirmed yet that this is the register's latest state, and nothing was "
        "taken. Sending the very same submission again is safe.",
        "RetryInfo",
        Retry.YES,
        1.0,
    ),
    Reason.GOVERNING_VIEW_OLD: Row(
        _C.UNAVAILABLE,
        f"The server's view of the governing register is over 30 seconds old, so it accepts nothing. {_SAME}",
        "RetryInfo",
        Retry.YES,
        1.0,
    ),
    Reason.NOT_YET_AVAILABLE: Row(
        _C.UNIMPLEMENTED,
        "The call is part of the interface, but this server does not serve it yet.",
        "nothing",
    ),
    Reason.INTERNAL: Row(
        _C.INTERNAL,
        "The server failed in a way that it did not expect. Its log says more under the request id.",
        "`request_id`; RetryInfo",
        Retry.ONCE,
        1.0,
    ),
}
"""Every reason, in the order of formats.md, section 19."""

CODES: Final[Mapping[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}
"""gRPC codes by number."""

_HTTP: Final = {
    _C.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    _C.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    _C.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    _C.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    _C.NOT_FOUND: HTTPStatus.NOT_FOUND,
    _C.ABORTED: HTTPStatus.CONFLICT,
    _C.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    _C.OUT_OF_RANGE: HTTPStatus.NOT_FOUND,
    _C.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    _C.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    _C.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    _C.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
}


def reason_of(error: BaseException) -> Reason:
    """Return the reason under which an exception is answered.

    Only RejectedError speaks of the caller's input. MalformedError and VerificationError do not say whose
    bytes are at fault: the edge that knows they are the caller's raises RejectedError from them, and what
    is left means that the ledger's own data is damaged. That is INTERNAL.
    """
    match error:
        case RejectedError():
            return error.reason
        case StorageFullError():
            return Reason.STORAGE_FULL
        case StoreError() | ConflictError():
            return Reason.BACKEND_DOWN
        case _:
            return Reason.INTERNAL


def http_status(reason: Reason) -> HTTPStatus:
    """Return the HTTP status under which a reason is answered by the read-only endpoints."""
    return _HTTP[TABLE[reason].code]


def to_status(error: BaseException, request_id: str = "") -> Status:
    """Return the whole status of an exception; nothing of what is not a RejectedError is shown.

    `request_id` is added to the details unless empty.
    """
    if isinstance(error, RejectedError):
        return _status(error.reason, str(error), error.violations, error.detail, request_id)
    reason = reason_of(error)
    return _status(reason, TABLE[reason].meaning, (), {}, request_id)


def deadline_status(message: str, request_id: str) -> Status:
    """Return the status of a call whose time is too short to begin: DEADLINE_EXCEEDED, nothing changed."""
    info = ErrorInfo(domain=DOMAIN, reason=_C.DEADLINE_EXCEEDED.name, metadata={"request_id": request_id})
    return Status(code=number_of(_C.DEADLINE_EXCEEDED), message=message, details=[_packed(info)])


def _status(
    reason: Reason,
    message: str,
    violations: tuple[Violation, ...],
    detail: Mapping[str, str],
    request_id: str,
) -> Status:
    row = TABLE[reason]
    metadata = {**detail, "request_id": request_id} if request_id else dict(detail)
    details: list[Message] = [ErrorInfo(domain=DOMAIN, reason=reason.value, metadata=metadata)]
    if violations:
        details.append(BadRequest(field_violations=map(_field_violation, violations)))
    if row.delay is not None:
        details.append(RetryInfo(retry_delay=timedelta(seconds=row.delay)))
    return Status(code=number_of(row.code), message=_cut(message, MAX_MESSAGE), details=map(_packed, details))


def _field_violation(violation: Violation) -> BadRequest.FieldViolation:
    description = violation.description
    if violation.allowed:
        description += f"; one of: {', '.join(violation.allowed)}"
    return BadRequest.FieldViolation(
        field=violation.field, reason=violation.reason.value, description=description
    )


def number_of(code: grpc.StatusCode) -> int:
    """Return a gRPC code's number."""
    value: tuple[int, str] = code.value
    return value[0]


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def _cut(text: str, most: int) -> str:
    """Return at most `most` bytes of a text, whole code points, with an ellipsis where it was cut."""
    data = text.encode()
    if len(data) <= most:
        return text
    return data[: most - len(_ELLIPSIS.encode())].decode(errors="ignore") + _ELLIPSIS


def fitted(status: Status) -> Status:
    """Return a status that fits in trailing metadata: at most 6,000 bytes.

    Long details are cut at a comma and end in an ellipsis; fields are left out from the end, and
    `fields_left_out` says how many.
    """
    if status.ByteSize() <= MAX_TRAILER:
        return status
    info, bad = ErrorInfo(), BadRequest()
    rest = [packed for packed in status.details if not packed.Unpack(info) and not packed.Unpack(bad)]
    for key, value in info.metadata.items():
        if len(value.encode()) > _MAX_DETAIL:
            info.metadata[key] = _cut(value, _MAX_DETAIL).rpartition(",")[0] + "," + _ELLIPSIS
    total = len(bad.field_violations)
    info.metadata["fields_left_out"] = "0000"  # room for the number
    room = (
        MAX_TRAILER
        - Status(code=status.code, message=status.message, details=[_packed(info), *rest]).ByteSize()
    )
    kept = 0
    room -= 80  # what wraps the BadRequest: its type URL and lengths
    for violation in bad.field_violations:
        room -= violation.ByteSize() + 4
        if room < 0:
            break
        kept += 1
    del bad.field_violations[kept:]
    info.metadata["fields_left_out"] = str(total - kept)
    details = [_packed(info), *([_packed(bad)] if kept else []), *rest]
    return Status(code=status.code, message=status.message, details=details)


async def abort(context: grpc.aio.ServicerContext[Any, Any], status: Status) -> NoReturn:
    """End a call with a status and its details, cut to what trailing metadata can carry.

    Not `abort_with_status`: tracing records the wrong code after that one.
    """
    small = fitted(status)
    await context.abort(
        CODES[small.code], small.message, trailing_metadata=((DETAILS_KEY, small.SerializeToString()),)
    )


def chain(error: BaseException) -> list[BaseException]:
    """Return an exception and whatever it came from, the latest first."""
    found = [error]
    for link in found:  # which grows
        found += [one for one in (link.__cause__, link.__context__) if one is not None and one not in found]
    return found


def let_go(error: BaseException) -> None:
    """Let go of the frames through which an exception came that has been answered.

    They hold what a caller sent, and where one of them holds the exception too, or gRPC keeps it with the call,
    that is a cycle: all of it would stay until Python's collector comes, thousands of calls later.
    """
    for link in chain(error):
        link.__traceback__ = None

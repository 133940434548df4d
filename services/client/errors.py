"""What a call to a ledger can end in, for the caller: typed, with all that the server said.

CallError
├ RefusedError        the request is at fault: change it, then send it again
├ UnavailableError    not now, or no answer in time: the very same call may be sent again
└ FaultError          the server failed: report the request id

Sending the very same submission again is always safe, whatever the first call ended in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

_DOMAIN: Final = "daybook"
_DETAILS_KEY: Final = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One rule that one field of the request breaks: its path, such as ``records[3].title``, and why."""

    field: str
    reason: str
    description: str


class CallError(Exception):
    """A call ended in an error.

    `reason` is a name of docs/errors.md, empty where gRPC itself ended the call; `violations` names the
    fields at fault; `metadata` has the details that go with the reason; `retry_after` is the number of
    seconds after which the very same call may succeed, None where the server gave none.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        violations: tuple[FieldViolation, ...] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.violations = violations
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.retry_after = retry_after

    @property
    def request_id(self) -> str:
        """The name under which the server's log knows the call; empty where it gave none."""
        return self.metadata.get("request_id", "")


class RefusedError(CallError):
    """The request is at fault. Nothing was changed; change the request, then send it again."""


class UnavailableError(CallError):
    """Not now, or no answer in time: whether a submission was accepted may not be known.

    The very same call may be sent again, after `retry_after` where it is given.
    """


class FaultError(CallError):
    """The server failed. Whether a submission was accepted is not known."""


_CLASSES: Final[Mapping[grpc.StatusCode, type[CallError]]] = {
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: UnavailableError,
    grpc.StatusCode.CANCELLED: UnavailableError,
    grpc.StatusCode.INTERNAL: FaultError,
    grpc.StatusCode.UNKNOWN: FaultError,
    grpc.StatusCode.DATA_LOSS: FaultError,
}
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc_error(error: grpc.RpcError) -> CallError:
    """Return what a failed call says; details that do not parse are left out, never raised."""
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return FaultError(grpc.StatusCode.UNKNOWN, str(error))
    code = error.code()
    status = Status()
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            status = _parsed(value)
    return _error(code, error.details() or code.name, status)


def from_status(status: Status) -> CallError:
    """Return what a status says: RegisterStreamResponse.error."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return _error(code, status.message or code.name, status)


def _parsed(data: bytes) -> Status:
    try:
        return Status.FromString(data)
    except DecodeError:
        return Status()


def _error(code: grpc.StatusCode, message: str, status: Status) -> CallError:
    info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
    retry_after: float | None = None
    for packed in status.details:
        try:
            if packed.Unpack(retry):
                retry_after = max(0.0, retry.retry_delay.ToTimedelta().total_seconds())
            elif not packed.Unpack(bad):
                packed.Unpack(info)
        except (DecodeError, OverflowError):
            continue
    ours = info.domain == _DOMAIN
    return _CLASSES.get(code, RefusedError)(
        code,
        message,
        reason=info.reason if ours else "",
        violations=tuple(
            FieldViolation(violation.field, violation.reason, violation.description)
            for violation in bad.field_violations
        ),
        metadata=info.metadata if ours else None,
        retry_after=retry_after,
    )

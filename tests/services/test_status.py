"""Ledger errors become statuses that say why, where and what next, and show nothing else."""

from __future__ import annotations

from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import (
    ConflictError,
    MalformedError,
    ProofError,
    Reason,
    RejectedError,
    SignatureError,
    StorageFullError,
    StoreError,
    Violation,
)
from services.client.errors import (
    FaultError,
    FieldViolation,
    RefusedError,
    UnavailableError,
    from_rpc_error,
    from_status,
)
from services.errors_page import page
from services.status import DETAILS_KEY, MAX_MESSAGE, MAX_TRAILER, TABLE, fitted, http_status, to_status

# Transcribed from formats.md, section 19.
CODES = {
    "INVALID_ARGUMENT": """NOT_CANONICAL INVALID_FIELD UNKNOWN_TYPE WRONG_REGISTER CLASSIFICATION_REFUSED
        DECIDED_IN_FUTURE BODY_MISMATCH RECORD_TOO_LARGE SUBMISSION_TOO_LARGE TOO_MANY_RECORDS
        DUPLICATE_IN_SUBMISSION SIGNATURE_COUNT""",
    "UNAUTHENTICATED": "SIGNATURE_INVALID",
    "PERMISSION_DENIED": "KEY_UNKNOWN KEY_REVOKED KEY_OF_OTHER_DEPARTMENT GOVERNANCE_REFUSED",
    "FAILED_PRECONDITION": """REGISTER_CLOSED PREVIOUS_UNKNOWN RECORD_WITHDRAWN TYPE_CONFLICT
        PREVIOUS_MISMATCH""",
    "NOT_FOUND": "REGISTER_UNKNOWN RECORD_UNKNOWN SUBMISSION_UNKNOWN",
    "ABORTED": "VERSION_CONFLICT STALE_VIEW",
    "ALREADY_EXISTS": "RECORD_CONFLICT RECORD_ALREADY_REGISTERED KEY_ALREADY_BOUND REGISTER_ALREADY_OPEN",
    "OUT_OF_RANGE": "SIZE_NOT_REACHED",
    "RESOURCE_EXHAUSTED": "OVERLOADED RATE_LIMITED",
    "UNAVAILABLE": "STORAGE_FULL DRAINING BACKEND_DOWN GOVERNING_VIEW_OLD",
    "UNIMPLEMENTED": "NOT_YET_AVAILABLE",
    "INTERNAL": "INTERNAL",
}
PASSING = {
    Reason.STALE_VIEW,
    Reason.SIZE_NOT_REACHED,
    Reason.OVERLOADED,
    Reason.RATE_LIMITED,
    Reason.STORAGE_FULL,
    Reason.DRAINING,
    Reason.BACKEND_DOWN,
    Reason.GOVERNING_VIEW_OLD,
    Reason.INTERNAL,
}


def test_every_reason_has_the_code_that_the_formats_give_it() -> None:
    """If false, a client that acts on codes would act wrongly, or a reason would have no answer."""
    expected = {reason: code for code, reasons in CODES.items() for reason in reasons.split()}
    assert {reason.value: row.code.name for reason, row in TABLE.items()} == expected
    assert set(TABLE) == set(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_retry_advice_goes_with_exactly_the_reasons_that_pass(reason: Reason) -> None:
    """If false, a client would give up too early, or send for ever what cannot succeed."""
    error = from_status(to_status(RejectedError(reason, "no")))
    assert (error.retry_after is not None) == (reason in PASSING)
    assert 400 <= http_status(reason) < 600


def test_a_refusal_reaches_the_client_whole() -> None:
    """If false, a department could not see from the answer what to correct."""
    refusal = RejectedError(
        Reason.INVALID_FIELD,
        "records[3].channel: not a channel",
        violations=(Violation(Reason.INVALID_FIELD, "not a channel", "records[3].channel", ("a", "b")),),
        detail={"allowed": "a,b"},
    )
    status = to_status(refusal, "r-1")
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("daybook", "INVALID_FIELD")
    error = from_status(status)
    assert isinstance(error, RefusedError)
    assert str(error) == "records[3].channel: not a channel"
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, Reason.INVALID_FIELD)
    assert error.violations == (
        FieldViolation("records[3].channel", "INVALID_FIELD", "not a channel; one of: a, b"),
    )
    assert error.metadata == {"allowed": "a,b", "request_id": "r-1"}
    assert error.request_id == "r-1"


@pytest.mark.parametrize(
    ("error", "reason", "client_error"),
    [
        (StorageFullError("/var/secret is full"), Reason.STORAGE_FULL, UnavailableError),
        (StoreError("secret went away"), Reason.BACKEND_DOWN, UnavailableError),
        (ConflictError("secret"), Reason.BACKEND_DOWN, UnavailableError),
        (MalformedError("secret", 3), Reason.INTERNAL, FaultError),
        (SignatureError("secret"), Reason.INTERNAL, FaultError),
        (ProofError("secret"), Reason.INTERNAL, FaultError),
        (ValueError("secret"), Reason.INTERNAL, FaultError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_is_not_a_refusal_shows_nothing_of_itself(
    error: Exception, reason: Reason, client_error: type[Exception]
) -> None:
    """If false, paths, addresses or payloads would leak, or the ledger's fault be called the client's."""
    status = to_status(error, "r-2")
    assert b"secret" not in status.SerializeToString()
    seen = from_status(status)
    assert type(seen) is client_error
    assert (seen.reason, seen.request_id) == (reason, "r-2")


@given(
    st.text(max_size=2_000),
    st.lists(st.tuples(st.text(max_size=200), st.text(max_size=1_000)), max_size=64),
    st.dictionaries(st.text("abc_", min_size=1, max_size=3), st.text(max_size=20_000), max_size=2),
)
def test_any_refusal_fits_in_the_metadata_that_a_client_accepts(
    message: str, fields: list[tuple[str, str]], detail: dict[str, str]
) -> None:
    """If false, gRPC would drop the call with "received metadata size exceeds limit" for a reason."""
    violations = tuple(Violation(Reason.INVALID_FIELD, text, field) for field, text in fields)
    whole = to_status(RejectedError(Reason.INVALID_FIELD, message, violations=violations, detail=detail), "r-3")
    small = fitted(whole)
    assert small.ByteSize() <= MAX_TRAILER
    assert len(small.message.encode()) <= MAX_MESSAGE
    error = from_status(small)
    assert error.reason == Reason.INVALID_FIELD
    assert error.request_id == "r-3"
    left_out = int(error.metadata.get("fields_left_out", "0"))
    assert len(error.violations) + left_out == len(violations)


def test_a_status_that_fits_is_left_as_it_is() -> None:
    """If false, small refusals would lose details for nothing."""
    status = to_status(RejectedError(Reason.OVERLOADED, "later"))
    assert fitted(status) is status


def test_the_retry_advice_survives_the_cut() -> None:
    """If false, the larger the refusal the less a client would know about what to do."""
    detail = {"long": "1:2," * 9_000}
    violations = (Violation(Reason.OVERLOADED, "x" * 900, "y"),) * 64
    error = from_status(
        fitted(to_status(RejectedError(Reason.OVERLOADED, "z", violations=violations, detail=detail)))
    )
    assert error.retry_after == 0.5
    assert error.metadata["long"].endswith("1:2,…")
    assert 0 < len(error.violations) < 64


@given(st.binary(max_size=200))
def test_details_that_do_not_parse_never_hide_the_failure(data: bytes) -> None:
    """If false, a hostile server could crash a client with its error."""
    error = from_rpc_error(
        grpc.aio.AioRpcError(
            grpc.StatusCode.NOT_FOUND,
            grpc.aio.Metadata(),
            grpc.aio.Metadata((DETAILS_KEY, data)),
            details="no such thing",
        )
    )
    assert (error.code, error.message) == (grpc.StatusCode.NOT_FOUND, "no such thing")


@given(st.binary(max_size=30))
def test_packed_details_that_do_not_parse_are_left_out(data: bytes) -> None:
    """If false, a hostile server could crash a client with a well-formed status around garbage."""
    status = Status(code=5, message="gone")
    for kind in (ErrorInfo, BadRequest, RetryInfo):
        packed = status.details.add()
        packed.Pack(kind())
        packed.value = data
    assert from_status(status).code is grpc.StatusCode.NOT_FOUND


def test_another_domain_gives_no_reason() -> None:
    """If false, a proxy's reason would be read as one of ours."""
    status = Status(code=14, message="proxy")
    packed = status.details.add()
    packed.Pack(ErrorInfo(domain="proxy.example", reason="DRAINING", metadata={"a": "b"}))
    error = from_status(status)
    assert (error.reason, error.metadata) == ("", {})
    assert isinstance(error, UnavailableError)


def test_an_error_without_a_call_is_a_fault() -> None:
    """If false, an odd error of the gRPC library would escape as something else."""
    assert isinstance(from_rpc_error(grpc.RpcError("odd")), FaultError)


def test_the_page_of_errors_is_up_to_date() -> None:
    """If false, docs/errors.md says something else than the server does."""
    shipped = Path(__file__).parents[2] / "docs" / "errors.md"
    assert shipped.read_text() == page(), "run .venv/bin/python -m services.errors_page > docs/errors.md"

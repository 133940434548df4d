"""Every call through a real server is named, counted, guarded, and answered with a status when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog
from daybook.audit.v1 import audit_service_pb2 as audit
from daybook.audit.v1.audit_service_pb2_grpc import (
    AuditServiceServicer,
    AuditServiceStub,
    add_AuditServiceServicer_to_server,
)
from daybook.registration.v1 import registration_service_pb2 as registration
from daybook.registration.v1.registration_service_pb2_grpc import (
    RegistrationServiceServicer,
    RegistrationServiceStub,
    add_RegistrationServiceServicer_to_server,
)
from prometheus_client import CollectorRegistry

from ledger.errors import Reason, RejectedError, StoreError, Violation
from services.client.errors import CallError, FaultError, RefusedError, UnavailableError, from_rpc_error
from services.interceptors import GUARDED, CallInterceptor, CallMetrics, ran_out

SERVICE = "/daybook.registration.v1.RegistrationService"


class Registration(RegistrationServiceServicer):
    """Answers as `register` tells it; PrepareRecords is left out."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.entered = asyncio.Event()
        self.left = asyncio.Event()
        self.bound: dict[str, Any] = {}

    async def Register(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.bound = dict(structlog.contextvars.get_contextvars())
        if self.error is not None:
            raise self.error
        return registration.RegisterResponse()

    async def RegisterStream(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        try:
            async for request in request_iterator:
                yield registration.RegisterStreamResponse(tag=request.tag)
        finally:
            self.left.set()

    async def GetSubmission(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()

    async def GetReceipt(self, request: Any, context: Any) -> Any:  # noqa: N802
        await context.abort(grpc.StatusCode.DATA_LOSS, "said by the handler")


class Audit(AuditServiceServicer):
    """Streams two answers, then fails; or writes them itself."""

    async def ReadEntries(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        for _ in range(2):
            yield audit.ReadEntriesResponse()
        raise RejectedError(Reason.SIZE_NOT_REACHED, "later", detail={"latest_size": "2"})

    async def WatchCheckpoints(self, request: Any, context: Any) -> None:  # type: ignore[override] # noqa: N802
        await context.write(audit.WatchCheckpointsResponse(size=7))
        raise RejectedError(Reason.DRAINING, "shutting down")


class Served:
    """A running server with its parts."""

    def __init__(self, channel: grpc.aio.Channel, servicer: Registration, registry: CollectorRegistry) -> None:
        self.channel = channel
        self.servicer = servicer
        self.registry = registry
        self.registration = RegistrationServiceStub(channel)
        self.audit = AuditServiceStub(channel)

    async def register(self, error: BaseException | None, seconds: float | None = 10) -> CallError:
        """Call Register, which raises `error`; return what the client makes of the answer."""
        self.servicer.error = error
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.registration.Register(registration.RegisterRequest(), timeout=seconds)
        return from_rpc_error(caught.value)

    def handled(self, method: str, code: str, kind: str = "unary_unary", area: str = "registration") -> float:
        """Return how many calls of a method ended with a code."""
        labels = {
            "grpc_type": kind,
            "grpc_service": f"daybook.{area}.v1.{area.capitalize()}Service",
            "grpc_method": method,
            "grpc_code": code,
        }
        return self.registry.get_sample_value("grpc_server_handled_total", labels) or 0


@asynccontextmanager
async def serving() -> AsyncIterator[Served]:
    registry = CollectorRegistry()
    server = grpc.aio.server(interceptors=[CallInterceptor(CallMetrics(registry))])
    servicer = Registration()  # type: ignore[abstract]  # PrepareRecords is left out on purpose
    add_RegistrationServiceServicer_to_server(servicer, server)
    add_AuditServiceServicer_to_server(Audit(), server)  # type: ignore[abstract]  # the same
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Served(channel, servicer, registry)
    finally:
        await server.stop(None)


async def test_a_refusal_arrives_with_code_reason_and_field() -> None:
    """If false, bad input would not get a precise error."""
    async with serving() as served:
        violation = Violation(Reason.INVALID_FIELD, "not a channel", "records[3].channel", ("a", "b"))
        error = await served.register(
            RejectedError(Reason.INVALID_FIELD, "no", violations=(violation,), detail={"limit": "7"})
        )
        assert isinstance(error, RefusedError)
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert [violation.field for violation in error.violations] == ["records[3].channel"]
        assert error.metadata["limit"] == "7"
        assert error.request_id == served.servicer.bound["request_id"]
        assert served.servicer.bound["grpc_method"] == f"{SERVICE}/Register"
        assert served.handled("Register", "INVALID_ARGUMENT") == 1


async def test_a_refusal_larger_than_gRPC_carries_arrives_all_the_same() -> None:  # noqa: N802
    """If false, a submission with many faults would end in a transport error that names none of them."""
    async with serving() as served:
        violations = tuple(
            Violation(Reason.INVALID_FIELD, "ü" * 200, f"records[{position}].title") for position in range(64)
        )
        error = await served.register(
            RejectedError(
                Reason.INVALID_FIELD, "ü" * 5_000, violations=violations, detail={"long": "1," * 9_000}
            )
        )
        assert error.reason == "INVALID_FIELD"
        assert len(error.violations) + int(error.metadata["fields_left_out"]) == 64


async def test_an_unexpected_exception_leaks_nothing() -> None:
    """If false, a bug would show payloads or the inside of the server to whoever can call it."""
    async with serving() as served:
        with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
            error = await served.register(ValueError("a minister's secret"))
        assert isinstance(error, FaultError)
        assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert "secret" not in f"{error}{error.metadata}"
        assert "ValueError" not in f"{error}{error.metadata}"
        (line,) = lines
        assert line["request_id"] == error.request_id
        assert line["exceptions"] == ["builtins.ValueError"]
        assert any("test_interceptors.py" in place for place in line["raised_at"])
        assert "secret" not in str(line)
        assert served.handled("Register", "INTERNAL") == 1


async def test_a_failing_store_is_unavailable_and_its_cause_logged() -> None:
    """If false, operators would not learn why, or clients would take it for a refusal."""
    async with serving() as served:
        failure = StoreError("cannot commit")
        failure.__cause__ = OSError(5, "Input/output error")
        with structlog.testing.capture_logs() as lines:
            error = await served.register(failure)
        assert isinstance(error, UnavailableError)
        assert (error.reason, error.retry_after) == ("BACKEND_DOWN", 1.0)
        assert lines[0]["exceptions"] == [
            "ledger.errors.StoreError: cannot commit",
            "builtins.OSError: [Errno 5] Input/output error",
        ]


async def test_a_write_without_a_deadline_is_told_to_set_one() -> None:
    """If false, a call could wait for a seal for ever."""
    async with serving() as served:
        error = await served.register(None, seconds=None)
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert [violation.field for violation in error.violations] == ["grpc-timeout"]
        assert served.servicer.bound == {}


async def test_a_write_that_arrives_too_late_is_not_begun() -> None:
    """If false, the ledger would accept what its caller has given up already."""
    async with serving() as served:
        await served.registration.Register(registration.RegisterRequest(), timeout=10)
        served.servicer.bound = {}
        error = await served.register(None, seconds=0.015)
        assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert isinstance(error, UnavailableError)
        assert served.servicer.bound == {}


async def test_a_read_needs_no_deadline() -> None:
    """If false, tools that only read would be refused for nothing."""
    async with serving() as served:
        stream = served.audit.WatchCheckpoints(audit.WatchCheckpointsRequest())
        assert await stream.read() == audit.WatchCheckpointsResponse(size=7)


def test_exactly_the_waiting_writes_are_guarded() -> None:
    """If false, a call that waits was forgotten, or the guard names one that does not exist."""
    from daybook.governance.v1 import governance_service_pb2 as governance

    service = governance.DESCRIPTOR.services_by_name["GovernanceService"]
    writes = {f"/{service.full_name}/{method.name}" for method in service.methods}
    assert writes | {f"{SERVICE}/Register"} == GUARDED


async def test_bytes_that_are_no_message_get_a_precise_error() -> None:
    """If false, garbage would be answered with the text of an exception and the code UNKNOWN."""
    async with serving() as served:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = served.channel.unary_unary(f"{SERVICE}/Register")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"\xff\xff", timeout=10)
        error = from_rpc_error(caught.value)
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert "DecodeError" not in str(error)


async def test_bytes_that_are_no_message_end_a_stream_precisely() -> None:
    """If false, garbage in a stream would be answered with the text of an exception."""
    async with serving() as served:
        call: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = served.channel.stream_stream(
            f"{SERVICE}/RegisterStream"
        )
        stream = call(timeout=10)
        await stream.write(b"\x08\x05")
        assert await stream.read() == b"\x08\x05"
        await stream.write(b"\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        error = from_rpc_error(caught.value)
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert served.handled("RegisterStream", "INVALID_ARGUMENT", "stream_stream") == 1


async def test_a_stream_that_yields_then_refuses_keeps_what_it_sent() -> None:
    """If false, errors of server streams would go unmapped."""
    async with serving() as served:
        stream = served.audit.ReadEntries(audit.ReadEntriesRequest())
        assert [await stream.read(), await stream.read()] == [audit.ReadEntriesResponse()] * 2
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        error = from_rpc_error(caught.value)
        assert (error.code, error.reason) == (grpc.StatusCode.OUT_OF_RANGE, "SIZE_NOT_REACHED")
        assert error.metadata["latest_size"] == "2"
        assert served.handled("ReadEntries", "OUT_OF_RANGE", "unary_stream", "audit") == 1


async def test_a_stream_that_writes_by_itself_is_wrapped_too() -> None:
    """If false, one of the two ways to write a stream would be unguarded."""
    async with serving() as served:
        stream = served.audit.WatchCheckpoints(audit.WatchCheckpointsRequest())
        assert await stream.read() == audit.WatchCheckpointsResponse(size=7)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        error = from_rpc_error(caught.value)
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert served.handled("WatchCheckpoints", "UNAVAILABLE", "unary_stream", "audit") == 1


async def test_a_client_that_leaves_closes_the_handlers_stream_at_once() -> None:
    """If false, what a handler holds for a client would stay until the garbage is collected."""
    async with serving() as served:
        stream = served.registration.RegisterStream()
        await stream.write(registration.RegisterStreamRequest(tag=1))
        await stream.read()
        stream.cancel()
        await asyncio.wait_for(served.servicer.left.wait(), 10)


async def test_a_client_that_leaves_ends_the_call_as_cancelled() -> None:
    """If false, calls that nobody waits for would count as failures of the server."""
    async with serving() as served:
        call = served.registration.GetSubmission(registration.GetSubmissionRequest())
        await asyncio.wait_for(served.servicer.entered.wait(), 10)
        call.cancel()
        await asyncio.wait_for(served.servicer.left.wait(), 10)
        assert served.handled("GetSubmission", "CANCELLED") == 1


async def test_a_call_that_runs_out_of_time_counts_as_that() -> None:
    """If false, slow answers would hide among calls that clients cancelled."""
    async with serving() as served:
        # Told to the server only: a caller whose own clock ran out would cancel the call as well.
        deadline = (("grpc-timeout", "200m"),)
        # Again where the time was over before the call had begun, on a busy machine.
        while not served.servicer.entered.is_set():
            with pytest.raises(grpc.aio.AioRpcError):
                await served.registration.GetSubmission(registration.GetSubmissionRequest(), metadata=deadline)
        await asyncio.wait_for(served.servicer.left.wait(), 10)
        assert served.handled("GetSubmission", "DEADLINE_EXCEEDED") >= 1
        assert served.handled("GetSubmission", "CANCELLED") == 0


@pytest.mark.parametrize(
    ("elapsed", "remaining", "late"),
    [
        (1, 0, True),
        (1, -0.1, True),
        (1, 0.02, True),  # it travelled for as long
        (1, 0.04, False),
        (59.5, 0.5, True),  # the caller's 59.5 s were sent as 60
        (59, 1, False),
        (1, None, False),
    ],
)
def test_a_caller_whose_own_clock_ends_a_call_ran_out_of_time_as_well(
    elapsed: float, remaining: float | None, late: bool
) -> None:
    """If false, most calls that ran out of time would count as cancelled: the caller's clock is first."""
    assert ran_out(elapsed, remaining) is late


async def test_a_call_that_a_servicer_leaves_out_is_not_yet_available() -> None:
    """If false, a call that this release does not serve would look like a fault."""
    async with serving() as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.registration.PrepareRecords(registration.PrepareRecordsRequest())
        error = from_rpc_error(caught.value)
        assert (error.code, error.reason) == (grpc.StatusCode.UNIMPLEMENTED, "NOT_YET_AVAILABLE")


async def test_a_handler_that_aborts_by_itself_is_counted_under_its_code() -> None:
    """If false, an answer made by a handler would be replaced or miscounted."""
    async with serving() as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.registration.GetReceipt(registration.GetReceiptRequest())
        assert (caught.value.code(), caught.value.details()) == (
            grpc.StatusCode.DATA_LOSS,
            "said by the handler",
        )
        async with asyncio.timeout(30):
            # It is counted once the handler has ended, and that answers first.
            while not served.handled("GetReceipt", "DATA_LOSS"):  # noqa: ASYNC110 - a counter tells nobody
                await asyncio.sleep(0.01)
        assert served.handled("GetReceipt", "DATA_LOSS") == 1


async def test_an_unknown_call_is_left_to_grpc() -> None:
    """If false, a call that does not exist would crash the interceptor or swell the metrics."""
    async with serving() as served:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = served.channel.unary_unary(
            "/no.such.Service/Call"
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert not [
            sample
            for family in served.registry.collect()
            for sample in family.samples
            if sample.labels.get("grpc_service") == "no.such.Service"
        ]


async def test_good_calls_are_counted_and_timed() -> None:
    """If false, dashboards would show nothing, or failures only."""
    async with serving() as served:
        for _ in range(3):
            await served.registration.Register(registration.RegisterRequest(), timeout=10)
        labels = {
            "grpc_type": "unary_unary",
            "grpc_service": "daybook.registration.v1.RegistrationService",
            "grpc_method": "Register",
        }
        assert served.registry.get_sample_value("grpc_server_started_total", labels) == 3
        assert served.registry.get_sample_value("grpc_server_handling_seconds_count", labels) == 3
        assert served.handled("Register", "OK") == 3

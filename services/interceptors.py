"""What happens around every gRPC call: an id, metrics, its request, the deadline guard, errors as statuses.

One interceptor, not four: each one more costs every call a coroutine and a handler. What can be worked out
once for a method is.

Logs carry ids, sizes and hashes only, never payloads: of an exception that nobody foresaw, its type and
where it was raised, but its text only where that cannot hold what a caller sent.
"""

from __future__ import annotations

import itertools
import secrets
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing, nullcontext
from inspect import isasyncgenfunction, iscoroutinefunction
from pathlib import Path
from time import perf_counter
from typing import Any, Final, NoReturn, TypeAlias

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from prometheus_client import CollectorRegistry, Counter, Histogram
from structlog.contextvars import bind_contextvars

from ledger.errors import LedgerError, Reason, RejectedError, Violation
from services.receiving import Context, Receiver, TooLateError
from services.status import (
    CODES,
    abort,
    chain,
    deadline_status,
    fitted,
    let_go,
    number_of,
    reason_of,
    to_status,
)

MIN_TIME: Final = 0.02
"""Seconds that a guarded call must have left when it arrives; with less it cannot be answered in time."""

DEADLINE_FIELD: Final = "grpc-timeout"
"""The header that carries a deadline: named as the field at fault where there is none."""

GUARDED: Final = frozenset(
    {
        "/daybook.registration.v1.RegistrationService/Register",
        "/daybook.governance.v1.GovernanceService/OpenRegister",
        "/daybook.governance.v1.GovernanceService/CloseRegister",
        "/daybook.governance.v1.GovernanceService/AuthoriseKey",
        "/daybook.governance.v1.GovernanceService/RevokeKey",
        "/daybook.governance.v1.GovernanceService/PublishPolicy",
    }
)
"""The calls that must have a deadline, because it bounds their wait. A stream waits as long as it is open."""

OWN_PLACES: Final = 16
"""Requests received at once, and streams of them, by the services of gRPC itself: health and reflection."""

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_log = structlog.get_logger(__name__)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class CallMetrics:
    """The counters of go-grpc-prometheus, whose names dashboards know; all are labelled by method."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("grpc_type", "grpc_service", "grpc_method")
        self.started = Counter("grpc_server_started", "Calls started on the server.", labels, registry=registry)
        self.handled = Counter(
            "grpc_server_handled",
            "Calls ended on the server, whatever their outcome.",
            (*labels, "grpc_code"),
            registry=registry,
        )
        self.seconds = Histogram(
            "grpc_server_handling_seconds",
            "Seconds from the start of a call to its end.",
            labels,
            registry=registry,
            buckets=_BUCKETS,
        )


class _Method:
    """What is worked out once for a method: its name, its counters, whether it is guarded."""

    def __init__(self, path: str, kind: str, metrics: CallMetrics, guarded: bool) -> None:
        service, _, name = path.removeprefix("/").rpartition("/")
        self.path = path
        self.guarded = guarded
        self._labels = (kind, service, name)
        self._handled = metrics.handled
        self._started = metrics.started.labels(*self._labels)
        self._ok = metrics.handled.labels(*self._labels, grpc.StatusCode.OK.name)
        self._seconds = metrics.seconds.labels(*self._labels)

    def begin(self) -> float:
        """Count a call; return the time at which it began."""
        self._started.inc()
        return perf_counter()

    def end(self, began: float, code: int) -> None:
        """Count its end under a gRPC code, 0 being OK."""
        self._seconds.observe(perf_counter() - began)
        if code == 0:
            self._ok.inc()
        else:
            self._handled.labels(*self._labels, CODES[code].name).inc()


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of a server, whichever of the four kinds it is. One for a server.

    To gRPC all of them take streams, so that the only request of most is received where its bounds are kept
    (services/receiving.py). What gRPC's own services receive, health above all, has places of its own.

    A handler must be asynchronous: what the generated base class answers for a method that a servicer
    leaves out is a plain function, and becomes UNIMPLEMENTED, NOT_YET_AVAILABLE.
    """

    def __init__(self, metrics: CallMetrics, guarded: Iterable[str] = GUARDED) -> None:
        self._metrics = metrics
        self._guarded = frozenset(guarded)
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}
        self._receiver = Receiver()
        self._own_receiver = Receiver(OWN_PLACES, OWN_PLACES)
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count(1)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the method's handler, wrapped; None, answered UNIMPLEMENTED by gRPC, where there is none."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        path = handler_call_details.method
        known = self._wrapped.get(path)
        if known is None or known[0] is not handler:
            known = self._wrapped[path] = (handler, self._wrap(path, handler))
        return known[1]

    def _wrap(self, path: str, handler: Handler) -> Handler:
        kind = _kind(handler)
        method = _Method(path, kind, self._metrics, path in self._guarded)
        inner: Any = getattr(handler, kind)
        receiver = self._own_receiver if path.startswith("/grpc.") else self._receiver
        incoming = _Incoming(path, handler, receiver)
        if isasyncgenfunction(inner):
            wrapped: Any = self._generating(method, inner, incoming)
        else:
            wrapped = self._awaiting(method, inner if iscoroutinefunction(inner) else _not_served, incoming)
        responses = "stream" if handler.response_streaming else "unary"
        make = getattr(grpc, f"stream_{responses}_rpc_method_handler")
        result: Handler = make(wrapped, incoming.decode_stream, handler.response_serializer)
        return result

    def _awaiting(
        self, method: _Method, inner: Callable[[Any, Context], Awaitable[Any]], incoming: _Incoming
    ) -> Any:
        async def call(requests: Any, context: Context) -> Any:
            request_id = self._name_call(method)
            began, status = method.begin(), None
            try:
                with incoming.place():
                    request = await incoming.request(requests, context)
                    _admit(method, context)
                    response = await inner(request, context)
            except BaseException as error:
                status = _failed(error, method, began, context, request_id)
                if status is None:
                    raise
            if status is not None:
                # gRPC keeps what ends a call: this frame, and what is being handled, which out here is nothing.
                request = None
                await abort(context, status)
            method.end(began, _code(context))
            return response

        return call

    def _generating(
        self, method: _Method, inner: Callable[[Any, Context], AsyncGenerator[Any, None]], incoming: _Incoming
    ) -> Any:
        async def call(requests: Any, context: Context) -> AsyncGenerator[Any, None]:
            request_id = self._name_call(method)
            began, status = method.begin(), None
            try:
                with incoming.place():
                    request = await incoming.request(requests, context)
                    _admit(method, context)
                    # Closed at once when the client leaves, not when the garbage is collected.
                    async with aclosing(inner(request, context)) as responses:
                        async for response in responses:
                            yield response
            except BaseException as error:
                status = _failed(error, method, began, context, request_id)
                if status is None:
                    raise
            if status is not None:
                request = None
                await abort(context, status)
            method.end(began, _code(context))

        return call

    def _name_call(self, method: _Method) -> str:
        """Give the call an id, and bind it for every log line of this call: each call has its own task."""
        request_id = f"{self._prefix}-{next(self._numbers)}"
        bind_contextvars(request_id=request_id, grpc_method=method.path)
        return request_id


class _Incoming:
    """How the requests of a method reach its handler, worked out once.

    A handler whose requests are a stream gets the stream, for which it needs a place; any other gets its only
    request. `decode_stream` is what gRPC is to parse the messages of a stream with.
    """

    def __init__(self, path: str, handler: Handler, receiver: Receiver) -> None:
        self._path = path
        self._decode = handler.request_deserializer
        self._receiver = receiver
        self.place = receiver.streams.one if handler.request_streaming else nullcontext
        self.request = self._stream if handler.request_streaming else self._one
        self.decode_stream = self._parse if handler.request_streaming else None

    async def _stream(self, requests: Any, _: Context) -> Any:
        return requests

    async def _one(self, _: Any, context: Context) -> Any:
        return self._parse(await self._receiver.one(context))

    def _parse(self, data: bytes) -> Any:
        try:
            return self._decode(data) if self._decode else data
        except DecodeError:
            text = f"the request is not a protobuf message of the type that {self._path} takes"
            violation = Violation(Reason.INVALID_FIELD, text)
            raise RejectedError(Reason.INVALID_FIELD, text, violations=(violation,)) from None


def _kind(handler: Handler) -> str:
    requests = "stream" if handler.request_streaming else "unary"
    responses = "stream" if handler.response_streaming else "unary"
    return f"{requests}_{responses}"


async def _not_served(request: Any, context: Context) -> NoReturn:  # noqa: ARG001
    raise RejectedError(Reason.NOT_YET_AVAILABLE, "this server does not serve the call yet")


def _admit(method: _Method, context: Context) -> None:
    if method.guarded:
        remaining = context.time_remaining()
        if remaining is None:
            text = "set a deadline: it bounds how long the call waits for the state asked for"
            violation = Violation(Reason.INVALID_FIELD, text, DEADLINE_FIELD)
            raise RejectedError(Reason.INVALID_FIELD, f"{DEADLINE_FIELD}: {text}", violations=(violation,))
        if remaining < MIN_TIME:
            text = f"less than {MIN_TIME * 1000:.0f} ms were left when the call arrived; nothing was changed"
            raise TooLateError(text)


def _failed(
    error: BaseException, method: _Method, began: float, context: Context, request_id: str
) -> Status | None:
    """Count a call that raised, log what nobody foresaw, and return its answer.

    Of what was raised only its text is left then. None where nothing is to be answered: raise it again.
    """
    if isinstance(error, grpc.aio.AbortError):  # the handler has answered already
        method.end(began, _code(context))
        return None
    if not isinstance(error, Exception):  # cancelled: nobody is left to be answered
        late = ran_out(perf_counter() - began, context.time_remaining())
        method.end(began, number_of(grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED))
        return None
    if isinstance(error, TooLateError):
        status = deadline_status(str(error), request_id)
    else:
        # Cut here, not only in the answer: its texts may repeat what was sent, and gRPC keeps it too.
        status = fitted(to_status(error, request_id))
    method.end(began, status.code)
    if not isinstance(error, RejectedError | TooLateError):
        _log.error(
            "call failed",
            reason=reason_of(error).value,
            exceptions=[_described(link) for link in chain(error)],
            raised_at=[
                f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(error.__traceback__)
            ],
        )
    let_go(error)
    return status


def ran_out(elapsed: float, remaining: float | None) -> bool:
    """Say whether a call that was cancelled had run out of time; both in seconds, None without a deadline.

    The caller's clock ends it too, and most often just before ours: gRPC sends the time that it has rounded
    up, by a hundredth at the most, and the call took a moment to arrive.
    """
    return remaining is not None and remaining <= MIN_TIME + (elapsed + remaining) / 100


def _code(context: Context) -> int:
    """Return the code that the handler set, 0 (OK) where it set none."""
    code: Any = context.code()  # what `abort` sets is a StatusCode, what `set_code` sets may be a number
    return number_of(code) if isinstance(code, grpc.StatusCode) else code or 0


def _described(error: BaseException) -> str:
    """Return an exception's type, and its text only where that cannot hold what a caller sent."""
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    return f"{name}: {error}" if isinstance(error, LedgerError | OSError) else name

"""Somebody between a department and its ledger, who may alter, refuse or lose what passes.

    with between(server.grpc, {"Register": losing_first_answer()}) as address:
        ...a client that calls `address`

The ledger behind it is real, so that an altered answer is wrong in one place only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

import grpc
from daybook.registration.v1 import registration_service_pb2 as pb
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.duration_pb2 import Duration
from google.rpc.code_pb2 import UNAVAILABLE
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

Forward: TypeAlias = Callable[[bytes], bytes]
Meddling: TypeAlias = Callable[[bytes, Forward, grpc.ServicerContext], bytes]
"""Answers one request, with the ledger's help or without."""

Response = TypeVar("Response", pb.RegisterResponse, pb.PrepareRecordsResponse, pb.GetReceiptResponse)


class _GoBetween(grpc.GenericRpcHandler):
    """Passes every unary call on to the ledger, through the meddling with its method."""

    def __init__(self, channel: grpc.Channel, meddling: Mapping[str, Meddling]) -> None:
        self._channel = channel
        self._meddling = meddling

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler[bytes, bytes]:
        method: str = handler_call_details.method
        meddling = self._meddling.get(method.rpartition("/")[2], _honest)
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(method)

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            def forward(passed_on: bytes) -> bytes:
                try:
                    return call(passed_on, timeout=context.time_remaining())
                except grpc.RpcError as error:
                    context.set_trailing_metadata(
                        tuple((each.key, each.value) for each in error.trailing_metadata())
                    )
                    context.abort(error.code(), error.details() or "")

            return meddling(request, forward, context)

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def between(ledger: str, meddling: Mapping[str, Meddling]) -> Iterator[str]:
    """Stand before the ledger at this address, HOST:PORT, and yield the address to be called instead."""
    with grpc.insecure_channel(ledger) as channel:
        server = grpc.server(futures.ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers((_GoBetween(channel, meddling),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


def altering(kind: type[Response], alter: Callable[[Response], None]) -> Meddling:
    """Return a meddling that changes every answer of a method."""

    def meddling(request: bytes, forward: Forward, context: grpc.ServicerContext) -> bytes:
        response = kind.FromString(forward(request))
        alter(response)
        return response.SerializeToString()

    return meddling


def busy_at_first() -> Meddling:
    """Return a meddling that refuses the first call as an overloaded ledger does, unseen by the ledger."""
    calls = 0

    def meddling(request: bytes, forward: Forward, context: grpc.ServicerContext) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 1:
            _refuse(context)
        return forward(request)

    return meddling


def losing_first_answer() -> Meddling:
    """Return a meddling that lets the ledger take the first call, and loses its answer."""
    calls = 0

    def meddling(request: bytes, forward: Forward, context: grpc.ServicerContext) -> bytes:
        nonlocal calls
        calls += 1
        response = forward(request)
        if calls == 1:
            _refuse(context)
        return response

    return meddling


def _refuse(context: grpc.ServicerContext) -> None:
    details = [PackedAny(), PackedAny()]
    details[0].Pack(ErrorInfo(reason="BACKEND_DOWN", domain="daybook"))
    details[1].Pack(RetryInfo(retry_delay=Duration(nanos=50_000_000)))
    status = Status(code=UNAVAILABLE, message="not now", details=details)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.UNAVAILABLE, "not now")


def _honest(request: bytes, forward: Forward, context: grpc.ServicerContext) -> bytes:
    return forward(request)

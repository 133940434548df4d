"""A gRPC server as all of ours are: the interceptor around every call, health, reflection, TLS, and its end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from services.interceptors import CallInterceptor, CallMetrics
from services.settings import split_address
from services.stopping import Stop

MAX_MESSAGE: Final = 2 * 1024 * 1024
"""Bytes of the largest request (formats.md, section 18): no valid submission comes near."""

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", -1),
    # Two servers on one port would take turns: the second must fail instead.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 30_000),
)


class TlsFiles(Protocol):
    """The settings that name the files of a server's TLS."""

    @property
    def tls_certificate(self) -> Path | None:
        """PEM certificate chain."""

    @property
    def tls_key(self) -> Path | None:
        """PEM private key."""

    @property
    def client_ca(self) -> Path | None:
        """PEM certificates of those who issue client certificates."""


class GrpcSettings(TlsFiles, Protocol):
    """Where to serve, with which certificate, and who may call."""

    @property
    def grpc(self) -> str:
        """HOST:PORT."""


class _Health(health.aio.HealthServicer):  # type: ignore[misc]  # it has no types
    """The library's health service, whose watchers are sent away when the server stops: it would keep them."""

    def __init__(self, stopping: asyncio.Event) -> None:
        super().__init__()
        self._stopping = stopping

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 - gRPC names it
        """Tell each change of a service's state, the last of them that it stops."""
        telling = asyncio.create_task(super().Watch(request, context))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({telling, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            telling.cancel()
            await asyncio.wait({telling})
        await context.write(health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING))


@dataclass(frozen=True, slots=True)
class GrpcServer:
    """A running server. `address` is HOST:PORT as it was bound."""

    server: grpc.aio.Server
    address: str
    _healthy: health.aio.HealthServicer
    _services: Sequence[str]

    async def say_not_serving(self) -> None:
        """Tell whoever asks after the server's health that it stops."""
        for name in ("", *self._services):
            await self._healthy.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)


@asynccontextmanager
async def grpc_server(
    settings: GrpcSettings,
    registry: CollectorRegistry,
    stop: Stop,
    services: Sequence[str],
    add: Callable[[grpc.aio.Server], None],
) -> AsyncIterator[GrpcServer]:
    """Serve while the block runs. `add` adds the servicers, whose full names are `services`.

    Raises OSError where the address cannot be bound, or the TLS files cannot be used.
    """
    server = grpc.aio.server(interceptors=[CallInterceptor(CallMetrics(registry))], options=_OPTIONS)
    add(server)
    healthy = _Health(stop.asked)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection((*services, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    port = _add_port(server, settings)
    for name in ("", *services):
        await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
    await server.start()
    host, _ = split_address(settings.grpc)
    try:
        yield GrpcServer(server, f"{host}:{port}", healthy, services)
    finally:
        await server.stop(0)


def _add_port(server: grpc.aio.Server, settings: GrpcSettings) -> int:
    try:
        if settings.tls_certificate is None or settings.tls_key is None:
            port = server.add_insecure_port(settings.grpc)
        else:
            port = server.add_secure_port(settings.grpc, server_credentials(settings))
    except RuntimeError as error:
        raise OSError(f"cannot bind gRPC to {settings.grpc}: is another server running there?") from error
    if not port:
        raise OSError(f"cannot bind gRPC to {settings.grpc}")
    return port


def server_credentials(settings: TlsFiles) -> grpc.ServerCredentials:
    """Read the TLS files for gRPC. Raises OSError, which names the files that cannot be used."""
    assert settings.tls_certificate is not None  # noqa: S101 - the caller has looked
    assert settings.tls_key is not None  # noqa: S101
    pair = (settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes())
    # Tried here first: gRPC would only say that it cannot bind the port.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except ssl.SSLError as error:
        files = f"{settings.tls_certificate} and {settings.tls_key}"
        raise OSError(
            f"{files} are not a PEM certificate and its private key: {error.reason or error}"
        ) from error
    if settings.client_ca is None:
        return grpc.ssl_server_credentials([pair])
    issuers = settings.client_ca.read_bytes()
    try:
        context.load_verify_locations(settings.client_ca)
    except ssl.SSLError as error:
        raise OSError(f"{settings.client_ca} holds no PEM certificates: {error.reason or error}") from error
    return grpc.ssl_server_credentials([pair], issuers, require_client_auth=True)

"""A gRPC server as all of ours are: the interceptor around every call, health, reflection, TLS, and its end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
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

MAX_CONNECTIONS: Final = 1_024
"""Connections at once; one more is closed. The store needs descriptors as well."""

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", -1),
    # Else every call may send megabytes before anybody has asked for its request (services/receiving.py).
    ("grpc.http2.bdp_probe", 0),
    # Two servers on one port would take turns: the second must fail instead.
    ("grpc.so_reuseport", 0),
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
    # Those who hold them for nothing are sent away; a gRPC client connects again by itself.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 600_000),
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


class _Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it has no types
    """gRPC's health service. The library's waits for each watcher to read, and keeps all of them at the end."""

    def __init__(self, stopping: asyncio.Event, services: Iterable[str]) -> None:
        self._stopping = stopping
        self._services = frozenset(("", *services))

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC names it
        """Tell how a service is."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "this server has no such service")
        return self._now()

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ARG002, N802
        """Tell each change of a service's state, the last of them that it stops."""
        known = request.service in self._services
        if not self._stopping.is_set():
            yield self._now() if known else _health(health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            await self._stopping.wait()
        yield self._now()

    def _now(self) -> Any:
        state = health_pb2.HealthCheckResponse
        return _health(state.NOT_SERVING if self._stopping.is_set() else state.SERVING)


def _health(status: int) -> Any:
    return health_pb2.HealthCheckResponse(status=status)


@dataclass(frozen=True, slots=True)
class GrpcServer:
    """A running server. `address` is HOST:PORT as it was bound."""

    server: grpc.aio.Server
    address: str


@asynccontextmanager
async def grpc_server(
    settings: GrpcSettings,
    registry: CollectorRegistry,
    stop: Stop,
    services: Sequence[str],
    add: Callable[[grpc.aio.Server], None],
) -> AsyncIterator[GrpcServer]:
    """Serve while the block runs. `add` adds the servicers, whose full names are `services`.

    They are healthy until `stop` is asked for.

    Raises OSError where the address cannot be bound, or the TLS files cannot be used.
    """
    server = grpc.aio.server(interceptors=[CallInterceptor(CallMetrics(registry))], options=_OPTIONS)
    add(server)
    health_pb2_grpc.add_HealthServicer_to_server(_Health(stop.asked, services), server)
    reflection.enable_server_reflection((*services, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    port = _add_port(server, settings)
    await server.start()
    host, _ = split_address(settings.grpc)
    try:
        yield GrpcServer(server, f"{host}:{port}")
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

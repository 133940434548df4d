"""The embedded server: gRPC, HTTP and the sequencer in one process and one event loop, and its end.

A stop (SIGTERM, SIGINT) is graceful: health says NOT_SERVING, watchers are told, calls under way are
answered, the sequencer drains, notes are kept. A store whose state is unknown ends the process at once: the
next start opens it again and verifies its right edge.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import structlog
import uvicorn
from daybook.audit.v1 import audit_service_pb2, audit_service_pb2_grpc
from daybook.governance.v1 import governance_service_pb2, governance_service_pb2_grpc
from daybook.registration.v1 import registration_service_pb2, registration_service_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from ledger.errors import RejectedError, SplitViewError
from services.anchoring import Anchorer
from services.audit import AuditServicer
from services.compose import Embedded
from services.governance import GovernanceServicer
from services.interceptors import CallInterceptor, CallMetrics
from services.published import Published
from services.reached import Waiter
from services.receipts import ReceiptBuilder
from services.registrar import Registrar
from services.registration import RegistrationServicer
from services.sealing_state import SealingMetrics, SealingState
from services.settings import ServeSettings, split_address
from services.tile_endpoint import Readiness, build_app
from services.time_bounds import BoundsProver, Timelines
from services.witnessing import SETTLE_SECONDS, cosigning, until_all_sealed

MAX_MESSAGE: Final = 2 * 1024 * 1024
"""Bytes of the largest request (formats.md, section 18): no valid submission comes near."""

MAX_HTTP: Final = 256
"""HTTP connections at once; one more is answered 503. An entry bundle may have 16 MiB."""

DECLARE_AGAIN: Final = 5.0
"""Seconds after which it is tried again to declare a restore, where there was no room."""

SEAL_LINGER: Final = 1.0
"""Seconds for which a stopping server still waits for seals, before it answers with the state reached."""

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", -1),
    # Two servers on one port would take turns: the second must fail instead.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 30_000),
)

_SERVICES: Final = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (registration_service_pb2, "RegistrationService"),
        (audit_service_pb2, "AuditService"),
        (governance_service_pb2, "GovernanceService"),
    )
)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a server listens, HOST:PORT."""

    grpc: str
    http: str


class _Http(uvicorn.Server):
    """Uvicorn, leaving signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


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


@dataclass(slots=True)
class Stop:
    """Asked for once, by a signal or by a failure; whoever must end early waits for it."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def on_signals(self) -> None:
        """Ask for a stop at SIGTERM and SIGINT. A second signal ends the process as usual."""
        loop = asyncio.get_running_loop()

        def ask(number: signal.Signals) -> None:
            loop.remove_signal_handler(number)
            self.asked.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ask, number)


async def serve(
    opened: Embedded, settings: ServeSettings, ready: Callable[[Addresses], None], stop: Stop
) -> None:
    """Serve until a stop is asked for; `ready` is called with the bound addresses once both answer.

    Raises OSError where an address cannot be bound, SplitViewError where a witness knows a longer or another
    history, and whatever made the store's state unknown.
    """
    registry = CollectorRegistry()
    readiness = Readiness()
    ledger, published, sequencer = opened.ledger, opened.published, opened.sequencer
    timelines = Timelines(published)
    # The cosigner is made further down: nobody asks before the server answers.
    sealing = SealingState(published, sequencer, lambda: cosigner.standings())
    app = build_app(ledger, published, registry, readiness, sealing)
    metrics = SealingMetrics(sealing, timelines, registry)
    bounds = BoundsProver(ledger, published, timelines)
    with _bound(settings.http) as http_socket:
        async with (
            cosigning(
                ledger,
                published,
                sequencer,
                settings,
                metrics,
                time.time,
                opened.declared,
                opened.policies.history,
            ) as cosigner,
            _grpc_server(opened, settings, registry, bounds, stop) as (grpc_server, port, healthy),
        ):
            http = _Http(_http_config(app, settings))
            anchorer = Anchorer(ledger, published, sequencer, settings.anchor_seconds)
            serving = asyncio.create_task(http.serve(sockets=[http_socket]))
            sequencing = asyncio.create_task(sequencer.run())
            following = asyncio.create_task(cosigner.run())
            anchoring = asyncio.create_task(_anchor(opened, anchorer))
            await _started(http, serving)
            host, _ = split_address(settings.grpc)
            http_host, http_port = http_socket.getsockname()[:2]
            # What is here now stays; and batches make many small objects that are garbage soon after, without
            # cycles: to look through them at every 700 costs more than anything found.
            gc.collect()
            gc.freeze()
            gc.set_threshold(50_000, 20, 50)
            readiness.ready()
            ready(Addresses(f"{host}:{port}", f"{http_host}:{http_port}"))
            asked = asyncio.create_task(stop.asked.wait())
            working = {sequencing, following, anchoring}
            await asyncio.wait({asked, serving, *working}, return_when=asyncio.FIRST_COMPLETED)
            failed = any(task.done() for task in working)
            if failed:
                # Nothing more is signed, whatever waits: least of all beside another history.
                sequencing.cancel()
            readiness.draining()
            stop.asked.set()
            asyncio.get_running_loop().call_later(SEAL_LINGER, published.give_up_waiting)
            await _say_not_serving(healthy)
            await grpc_server.stop(0.5 if failed else settings.grace_seconds)
            if not failed:
                await _end_sealed(published, anchorer, following)
            anchoring.cancel()
            sequencer.drain()
            http.should_exit = True
            await serving
            await _ended(sequencing, following, anchoring)


async def _anchor(opened: Embedded, anchorer: Anchorer) -> None:
    """Write what the ledger itself has to say, for ever: first what an import has recovered, then anchors."""
    while True:
        try:
            await opened.declare_restores()
            break
        except RejectedError as error:
            _log.warning("a restore is not declared yet", why=error.reason.value)
            await asyncio.sleep(DECLARE_AGAIN)
    await anchorer.run()


async def _end_sealed(published: Published, anchorer: Anchorer, following: asyncio.Task[None]) -> None:
    """Leave every register sealed and anchored, as far as the witnesses answer in a few seconds."""
    if published.policy is None:
        return
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLE_SECONDS
    await until_all_sealed(published, SETTLE_SECONDS)
    if following.done():
        return  # it has failed: nothing more is signed beside another history
    await anchorer.anchor()
    await until_all_sealed(published, deadline - loop.time())


async def _ended(sequencing: asyncio.Task[None], *others: asyncio.Task[None]) -> None:
    """End the tasks, the sequencer's last turn first; raise what one of them failed with."""
    failures = []
    for task in (sequencing, *others):
        if task is not sequencing:
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            continue
        except Exception as error:
            failures.append(error)
    if failures:
        # A witness's word on another history says more than what failed because of it.
        raise next((each for each in failures if isinstance(each, SplitViewError)), failures[0])


async def _started(http: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    """Wait until uvicorn listens: it says so in a flag only. Raises what made it fail."""
    while not http.started:
        if serving.done():
            serving.result()
        await asyncio.sleep(0.005)


def _http_config(app: Any, settings: ServeSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        timeout_graceful_shutdown=2,
        limit_concurrency=MAX_HTTP,
    )


@contextlib.contextmanager
def _bound(address: str) -> Iterator[socket.socket]:
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError as error:
            raise OSError(error.errno, f"cannot bind HTTP to {address}: {error.strerror}") from error
        bound.listen(512)
        yield bound


@asynccontextmanager
async def _grpc_server(
    opened: Embedded,
    settings: ServeSettings,
    registry: CollectorRegistry,
    bounds: BoundsProver,
    stop: Stop,
) -> AsyncIterator[tuple[grpc.aio.Server, int, health.aio.HealthServicer]]:
    server = grpc.aio.server(interceptors=[CallInterceptor(CallMetrics(registry))], options=_OPTIONS)
    receipts = ReceiptBuilder(opened.ledger, opened.published)
    registration_service_pb2_grpc.add_RegistrationServiceServicer_to_server(
        RegistrationServicer(opened.ledger, opened.published, opened.sequencer, receipts, stop.asked), server
    )
    audit_service_pb2_grpc.add_AuditServiceServicer_to_server(
        AuditServicer(opened.ledger, opened.published, bounds, stop.asked), server
    )
    waiter = Waiter(opened.ledger, opened.published, receipts)
    governance_service_pb2_grpc.add_GovernanceServiceServicer_to_server(
        GovernanceServicer(Registrar(opened.ledger, opened.sequencer), waiter), server
    )
    healthy = _Health(stop.asked)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    port = _add_port(server, settings)
    for name in ("", *_SERVICES):
        await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
    await server.start()
    try:
        yield server, port, healthy
    finally:
        await server.stop(0)


def _add_port(server: grpc.aio.Server, settings: ServeSettings) -> int:
    try:
        if settings.tls_certificate is None or settings.tls_key is None:
            port = server.add_insecure_port(settings.grpc)
        else:
            port = server.add_secure_port(settings.grpc, _credentials(settings))
    except RuntimeError as error:
        raise OSError(f"cannot bind gRPC to {settings.grpc}: is another server running there?") from error
    if not port:
        raise OSError(f"cannot bind gRPC to {settings.grpc}")
    return port


def _credentials(settings: ServeSettings) -> grpc.ServerCredentials:
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


async def _say_not_serving(healthy: health.aio.HealthServicer) -> None:
    for name in ("", *_SERVICES):
        await healthy.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)

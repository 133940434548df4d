"""The embedded server: gRPC, HTTP and the sequencer in one process and one event loop, and its end.

A stop (SIGTERM, SIGINT) is graceful: health says NOT_SERVING, watchers are told, calls under way are
answered, the sequencer drains, notes are kept. A store whose state is unknown ends the process at once: the
next start opens it again and verifies its right edge.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import grpc
import structlog
from daybook.audit.v1 import audit_service_pb2, audit_service_pb2_grpc
from daybook.governance.v1 import governance_service_pb2, governance_service_pb2_grpc
from daybook.registration.v1 import registration_service_pb2, registration_service_pb2_grpc
from prometheus_client import CollectorRegistry

from ledger.errors import RejectedError, SplitViewError
from services.anchoring import Anchorer
from services.audit import AuditServicer
from services.collecting import collect_seldom
from services.compose import Embedded
from services.finding import Finder, Findings
from services.following import cancel
from services.governance import GovernanceServicer
from services.grpc_server import MAX_MESSAGE, GrpcServer, grpc_server, server_credentials
from services.http_server import Http, bound, http_config, started
from services.published import Published
from services.reached import Waiter
from services.receipts import ReceiptBuilder
from services.registrar import Registrar
from services.registration import RegistrationServicer
from services.sealing_state import SealingMetrics, SealingState
from services.settings import ServeSettings
from services.stopping import Stop
from services.tile_endpoint import Readiness, build_app
from services.time_bounds import BoundsProver, Timelines
from services.witnessing import SETTLE_SECONDS, cosigning, until_all_sealed

DECLARE_AGAIN: Final = 5.0
"""Seconds after which it is tried again to declare a restore, where there was no room."""

SEAL_LINGER: Final = 1.0
"""Seconds for which a stopping server still waits for seals, before it answers with the state reached."""

_SERVICES: Final = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (registration_service_pb2, "RegistrationService"),
        (audit_service_pb2, "AuditService"),
        (governance_service_pb2, "GovernanceService"),
    )
)

__all__ = ["MAX_MESSAGE", "Addresses", "Stop", "serve", "server_credentials"]

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a server listens, HOST:PORT."""

    grpc: str
    http: str


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
    finder = None
    if settings.detections:
        finder = Finder(ledger, published, opened.directory.detections)
        registry.register(finder)
    told = finder.told if finder else None
    app = build_app(ledger, published, registry, readiness, sealing, found=told)
    metrics = SealingMetrics(sealing, timelines, registry)
    bounds = BoundsProver(ledger, published, timelines)
    with bound(settings.http) as http_socket:
        async with (
            aclosing(timelines),
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
            _grpc_server(opened, settings, registry, bounds, finder, stop) as calls,
            _running(finder),
        ):
            http = Http(http_config(app, settings))
            anchorer = Anchorer(ledger, published, sequencer, settings.anchor_seconds)
            serving = asyncio.create_task(http.serve(sockets=[http_socket]))
            sequencing = asyncio.create_task(sequencer.run())
            following = asyncio.create_task(cosigner.run())
            anchoring = asyncio.create_task(_anchor(opened, anchorer))
            await started(http, serving)
            http_host, http_port = http_socket.getsockname()[:2]
            collect_seldom()
            readiness.ready()
            ready(Addresses(calls.address, f"{http_host}:{http_port}"))
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
            await calls.server.stop(0.5 if failed else settings.grace_seconds)
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


@asynccontextmanager
async def _running(finder: Finder | None) -> AsyncIterator[None]:
    """Have the detections run while the block does: whatever becomes of them ends nothing else."""
    if finder is None:
        yield
        return
    running = asyncio.create_task(finder.run())
    try:
        yield
    finally:
        await cancel([running])
        await finder.close()


@asynccontextmanager
async def _grpc_server(
    opened: Embedded,
    settings: ServeSettings,
    registry: CollectorRegistry,
    bounds: BoundsProver,
    findings: Findings | None,
    stop: Stop,
) -> AsyncIterator[GrpcServer]:
    def add(server: grpc.aio.Server) -> None:
        receipts = ReceiptBuilder(opened.ledger, opened.published)
        registration_service_pb2_grpc.add_RegistrationServiceServicer_to_server(
            RegistrationServicer(opened.ledger, opened.published, opened.sequencer, receipts, stop.asked),
            server,
        )
        audit_service_pb2_grpc.add_AuditServiceServicer_to_server(
            AuditServicer(opened.ledger, opened.published, bounds, stop.asked, findings=findings), server
        )
        waiter = Waiter(opened.ledger, opened.published, receipts)
        governance_service_pb2_grpc.add_GovernanceServiceServicer_to_server(
            GovernanceServicer(Registrar(opened.ledger, opened.sequencer), waiter), server
        )

    async with grpc_server(settings, registry, stop, _SERVICES, add) as calls:
        yield calls

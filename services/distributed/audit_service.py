"""`daybook run audit`: where auditors read registers and have them proved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Final

import grpc
from daybook.audit.v1 import audit_service_pb2, audit_service_pb2_grpc
from prometheus_client import CollectorRegistry

from services.audit import AuditServicer
from services.distributed.ops import ops_endpoint
from services.distributed.projection import ProjectedRegisters
from services.distributed.reading import readiness, reading, until_over
from services.distributed.running import CALLS, served
from services.distributed.settings import DistributedSettings
from services.distributed.shown_findings import ListedFindings
from services.grpc_server import grpc_server
from services.stopping import Stop
from services.time_bounds import BoundsProver, Timelines

_SERVICES: Final = (audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name,)


async def run(settings: DistributedSettings, ready: Callable[[Mapping[str, str]], None]) -> None:
    """Serve until SIGTERM or SIGINT. Raises as `serve` does."""
    await served(settings.grace_seconds, lambda running: serve(settings, ready, running.stop))


async def serve(settings: DistributedSettings, ready: Callable[[Mapping[str, str]], None], stop: Stop) -> None:
    """Serve until a stop is asked for, and then answer what is under way.

    Raises OSError or StoreError where what is needed cannot be reached; SplitViewError.
    """
    registry = CollectorRegistry()
    async with AsyncExitStack() as last, reading(settings, registry) as held:
        counted = ProjectedRegisters(settings.reader_conninfo())
        timelines = Timelines(held.published)
        # After the end of the store, which makes what still reads fail, soon: a whole timeline may take long.
        last.push_async_callback(timelines.aclose)
        held.follower.tell_of_cosignatures(timelines.forget)

        def add(server: grpc.aio.Server) -> None:
            bounds = BoundsProver(held.view, held.published, timelines, apart=True)
            servicer = AuditServicer(
                held.view,
                held.published,
                bounds,
                stop.asked,
                apart=True,
                counted=counted.shown,
                findings=findings,
            )
            audit_service_pb2_grpc.add_AuditServiceServicer_to_server(servicer, server)

        async with (
            aclosing(ListedFindings(settings.reader_conninfo())) as findings,
            grpc_server(settings, registry, stop, _SERVICES, add) as calls,
            ops_endpoint(settings.ops, registry, partial(readiness, held, stop)) as ops,
        ):
            ready({"grpc": calls.address, "ops": ops})
            try:
                await until_over(stop, held.following)
            finally:
                stop.asked.set()
                await calls.server.stop(CALLS * settings.grace_seconds)
                counted.close()

"""Every service's /healthz, /readyz and /metrics, on a port of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from services.http_server import Http, bound, http_config

MAX_OPS: Final = 64
"""Connections at once."""

Readiness = Callable[[], Mapping[str, Any]]
"""Tells how a service stands; its member `ready` decides between 200 and 503."""


@asynccontextmanager
async def ops_endpoint(address: str, registry: CollectorRegistry, readiness: Readiness) -> AsyncIterator[str]:
    """Serve while the block runs; yield HOST:PORT. Raises OSError where the address cannot be bound."""

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n", headers={"Cache-Control": "no-store"})

    async def readyz(_request: Request) -> Response:
        told = dict(readiness())
        return JSONResponse(told, 200 if told.get("ready") else 503, headers={"Cache-Control": "no-store"})

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    app = Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)])
    with bound(address) as listening:
        server = Http(http_config(app, most=MAX_OPS))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        taken_host, taken_port = listening.getsockname()[:2]
        try:
            yield f"[{taken_host}]:{taken_port}" if ":" in taken_host else f"{taken_host}:{taken_port}"
        finally:
            server.should_exit = True
            await serving

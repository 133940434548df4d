"""Every service's /healthz, /readyz and /metrics, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from services.settings import split_address
from services.witness.connections import Impatient

Readiness = Callable[[], Mapping[str, Any]]
"""Tells how a service stands; its member `ready` decides between 200 and 503."""


class _Http(uvicorn.Server):
    """Uvicorn, leaving signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


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
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError as error:
            raise OSError(error.errno, f"cannot bind {address}: {error.strerror}") from error
        bound.listen(64)
        config = uvicorn.Config(
            app,
            http=Impatient,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=64,
        )
        server = _Http(config)
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        taken_host, taken_port = bound.getsockname()[:2]
        try:
            yield f"[{taken_host}]:{taken_port}" if ":" in taken_host else f"{taken_host}:{taken_port}"
        finally:
            server.should_exit = True
            await serving

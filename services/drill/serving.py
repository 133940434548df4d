"""Serving a copy over HTTP as a ledger is served, with whatever checkpoints its operator shows."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ledger.errors import MalformedError, StoreError
from ledger.reader import RegisterReader, TileCache
from ledger.stores.sqlite import SqliteStore
from ledger.tiles import Tile, parse_path
from services.drill.rewriting import LyingCopy
from services.http_server import Http, bound, started

_LOOPBACK: Final = "127.0.0.1:0"


@asynccontextmanager
async def served(copy: LyingCopy) -> AsyncIterator[str]:
    """Serve a copy from a free port of this machine while the block runs; yield its address."""
    with closing(SqliteStore(copy.directory.store)) as store, bound(_LOOPBACK) as listening:
        config = uvicorn.Config(
            _app(copy, store), lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=2
        )
        http = Http(config)
        serving = asyncio.create_task(http.serve(sockets=[listening]))
        try:
            await started(http, serving)
            yield f"http://127.0.0.1:{_port(listening)}"
        finally:
            http.should_exit = True
            await serving


def _port(listening: socket.socket) -> int:
    port: int = listening.getsockname()[1]
    return port


def _app(copy: LyingCopy, store: SqliteStore) -> Starlette:
    readers = {name: RegisterReader(store, name, TileCache()) for name in copy.notes if name not in copy.hidden}

    async def log(request: Request) -> Response:
        return _answer(copy, readers, request.path_params["path"])

    async def registers(_request: Request) -> Response:
        listed = [{"name": name} for name in copy.listed if name not in copy.hidden]
        return JSONResponse({"registers": listed})

    return Starlette(routes=[Route("/logs/{path:path}", log), Route("/registers.json", registers)])


def _answer(copy: LyingCopy, readers: Mapping[str, RegisterReader], path: str) -> Response:
    for register, reader in readers.items():
        resource = path.removeprefix(f"{register}/")
        if resource == path:
            continue
        if resource == "checkpoint":
            return PlainTextResponse(copy.notes[register])
        try:
            asked = parse_path(resource)
            data = reader.tile(asked) if isinstance(asked, Tile) else reader.bundle(asked)
        except (MalformedError, StoreError) as error:
            raise HTTPException(404) from error
        return Response(data, media_type="application/octet-stream")
    raise HTTPException(404)

"""The read-only HTTP endpoint: checkpoints, tiles and entry bundles (specs/tiles.md), and the operator's pages.

Only published sizes are served: a tile is as wide as the latest signed checkpoint implies, or any narrower,
since a partial tile is a prefix of the full one. The checkpoint is the latest sealed one where the ledger has
witnesses. One spelling of a path each, everything else is 404; there are no redirects.
"""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, Protocol, TypeVar, TypeVarTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ledger.admission import moment
from ledger.entries import parse_entry
from ledger.errors import LedgerError, MalformedError, RejectedError
from ledger.ledger import LedgerView
from ledger.reader import READ_AHEAD, RegisterReader
from ledger.tiles import TILE_WIDTH, Bundle, Tile, encode_bundle, implied_width, parse_path
from ledger.values import is_register
from services.counting import Summary, nothing_counted
from services.directory import Listed, directory
from services.published import Published, SignedCheckpoint
from services.status import http_status, reason_of

IMMUTABLE: Final = "public, max-age=31536000, immutable"
"""How tiles are cached: what stands under a tile's path never changes."""

_FOR_EVER: Final = {"Content-Type": "application/octet-stream", "Cache-Control": IMMUTABLE}

NO_STORE: Final = "no-store"
"""How everything else is cached: a checkpoint moves on, and what is not there may come."""

_WHOLE: Final = 512 * 1024
"""Bytes up to which a bundle is sent whole, with its length."""

_GZIP_LEVEL: Final = 1
_GZIP_FORMAT: Final = zlib.MAX_WBITS | 16
_CODING: Final = re.compile(r"\s*([^\s;,]+)\s*(?:;\s*q=([0-9.]+)\s*)?", re.IGNORECASE)


_Asked = TypeVarTuple("_Asked")
_Result = TypeVar("_Result")


class Readiness:
    """Whether this server should be sent calls. Starting, then ready, then draining; never back.

    `trouble` tells what keeps a server that is ready from being asked for now, None where nothing does.
    """

    def __init__(self, trouble: Callable[[], str | None] = lambda: None) -> None:
        self._stage: str | None = "starting"
        self._trouble = trouble

    @property
    def reason(self) -> str | None:
        """Why not; None while ready."""
        return self._trouble() if self._stage is None else self._stage

    def ready(self) -> None:
        """Say that the server answers."""
        self._stage = None

    def draining(self) -> None:
        """Say that the server is stopping."""
        self._stage = "draining"


class Sealing(Protocol):
    """Tells how sealing stands."""

    def unconfirmed(self) -> list[str]:
        """Return the registers that may not grow yet, since no quorum has confirmed their stored heads."""
        ...

    def told(self) -> dict[str, Any] | str:
        """Return it for /readyz: whether the quorum is met for every register, and who takes part."""
        ...


def build_app(
    ledger: LedgerView,
    published: Published,
    registry: CollectorRegistry,
    readiness: Readiness,
    sealing: Sealing,
    clock: Callable[[], float] = time.time,
    *,
    apart: bool = False,
    counted: Callable[[], Mapping[str, Summary]] = nothing_counted,
    found: Callable[[], Mapping[str, Any]] | None = None,
) -> Starlette:
    """Return the HTTP application. `registry` is what /metrics shows; `clock` gives POSIX seconds.

    With `apart` nothing is read from the store in the event loop: where the store is another process. `counted`
    tells what a projector has counted of registers, `found` how the detections stand, where they run here.
    """
    endpoint = _Endpoint(ledger, published, registry, readiness, sealing, apart, counted, found)
    registry.register(_Registers(ledger, published, clock))
    app = Starlette(
        routes=[
            Route("/logs/{path:path}", endpoint.log, methods=["GET"]),
            Route("/registers.json", endpoint.registers, methods=["GET"]),
            Route("/healthz", endpoint.health, methods=["GET"]),
            Route("/readyz", endpoint.ready, methods=["GET"]),
            Route("/metrics", endpoint.metrics, methods=["GET"]),
        ],
        middleware=[Middleware(_Open)],
        exception_handlers={HTTPException: _refused, LedgerError: _failed, Exception: _broken},
    )
    app.router.redirect_slashes = False
    return app


class _Endpoint:
    def __init__(
        self,
        ledger: LedgerView,
        published: Published,
        registry: CollectorRegistry,
        readiness: Readiness,
        sealing: Sealing,
        apart: bool,
        counted: Callable[[], Mapping[str, Summary]],
        found: Callable[[], Mapping[str, Any]] | None,
    ) -> None:
        self._ledger = ledger
        self._published = published
        self._registry = registry
        self._readiness = readiness
        self._sealing = sealing
        self._apart = apart
        self._counted = counted
        self._found = found

    async def _read(self, work: Callable[[*_Asked], _Result], *asked: *_Asked) -> _Result:
        return await asyncio.to_thread(work, *asked) if self._apart else work(*asked)

    async def log(self, request: Request) -> Response:
        """Answer for `/logs/<register>/checkpoint` and `/logs/<register>/tile/...`."""
        register, resource = _split(request)
        checkpoint = self._published.latest(register)
        if resource == "checkpoint":
            return await self._read(self._checkpoint, register, checkpoint)
        try:
            tile = parse_path(resource)
        except MalformedError as error:
            raise HTTPException(404) from error
        level = tile.level if isinstance(tile, Tile) else 0
        if tile.width > implied_width(level, tile.index, checkpoint.size):
            raise HTTPException(404)
        if isinstance(tile, Tile):
            return _immutable(await self._read(self._ledger.reader(register).tile, tile))
        return await _bundle(self._ledger.reader(register), tile, packed=_takes_gzip(request))

    def _checkpoint(self, register: str, signed: SignedCheckpoint) -> Response:
        """Return the latest sealed checkpoint; where no witness is asked, the latest signed one."""
        if self._published.policy is None:
            return PlainTextResponse(signed.note, headers={"Cache-Control": NO_STORE})
        sealed = self._published.sealed(register)
        if sealed is None:
            raise HTTPException(404, "no checkpoint of this register is sealed yet")
        return PlainTextResponse(sealed.note, headers={"Cache-Control": NO_STORE})

    async def registers(self, _request: Request) -> Response:
        """Answer for `/registers.json`: the operator's word (formats.md, section 17)."""
        found = await self._read(lambda: directory(self._ledger, self._published, self._counted()))
        content: dict[str, Any] = {
            "origin": self._ledger.origin,
            "governing_size": found.governing_size,
            "registers": [_listed(one) for one in found.registers],
        }
        if (policy := self._published.policy) is not None:
            content["witness_policy"] = policy.text().decode("utf-8", "replace")
        return JSONResponse(content, headers={"Cache-Control": NO_STORE})

    async def health(self, _request: Request) -> Response:
        """Answer for `/healthz`: the process is alive."""
        return PlainTextResponse("ok\n", headers={"Cache-Control": NO_STORE})

    async def ready(self, _request: Request) -> Response:
        """Answer for `/readyz`: 200 while this server should be sent calls, else 503 with the reason."""
        reason = self._readiness.reason
        if reason is None and self._sealing.unconfirmed():
            reason = "a quorum of witnesses has not confirmed every stored head yet: those registers only read"
        content: dict[str, Any] = {
            "ready": reason is None,
            "witnesses": await self._read(self._sealing.told),
        }
        if self._found is not None:
            content["findings"] = self._found()
        if reason is not None:
            content["reason"] = reason
        return JSONResponse(content, 200 if reason is None else 503, headers={"Cache-Control": NO_STORE})

    async def metrics(self, request: Request) -> Response:
        """Answer for `/metrics`, in the exposition format that the client prefers."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        data = await asyncio.to_thread(encode, self._registry)
        return Response(data, headers={"Content-Type": content_type, "Cache-Control": NO_STORE})


def _listed(one: Listed) -> dict[str, Any]:
    members: dict[str, Any] = {
        "name": one.name,
        "title": one.title,
        "origin": one.origin,
        "vkey": one.vkey,
        "size": one.size,
        "sealed_size": one.sealed_size,
        "opened_index": one.opened,
        "closed_index": one.closed,
        "counted": one.counted.told() if one.counted is not None else None,
    }
    return {name: value for name, value in members.items() if value is not None}


class _Registers(Collector):
    """Gauges of every published register, read when they are asked for."""

    def __init__(self, ledger: LedgerView, published: Published, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._published = published
        self._clock = clock

    def describe(self) -> Iterable[Metric]:
        """Return the gauges without samples, so that registering reads nothing."""
        return _gauges()

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        sizes, ages = _gauges()
        now = self._clock()
        for register, checkpoint in sorted(self._published.registers().items()):
            sizes.add_metric([register], checkpoint.size)
            if checkpoint.size:
                last = self._ledger.reader(register).entry(checkpoint.size - 1)
                ages.add_metric([register], now - moment(parse_entry(last).acceptance.accepted_at))
        yield from (sizes, ages)


def _gauges() -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
    return (
        GaugeMetricFamily(
            "daybook_tree_size", "Entries under the latest published checkpoint.", labels=["register"]
        ),
        GaugeMetricFamily(
            "daybook_checkpoint_age_seconds",
            "Seconds since the last entry under the latest published checkpoint was accepted.",
            labels=["register"],
        ),
    )


def _split(request: Request) -> tuple[str, str]:
    """Return the register and the resource that a path under `/logs/` names. 404 for any other spelling."""
    path = request.scope["path"]
    # No name or number here needs an escape: one that has any is a second spelling.
    if request.scope["raw_path"] != path.encode():
        raise HTTPException(404)
    first, _, rest = path.removeprefix("/logs/").partition("/")
    if not is_register(first):
        second, _, rest = rest.partition("/")
        first = f"{first}/{second}"
        if not is_register(first):
            raise HTTPException(404)
    return first, rest


def _takes_gzip(request: Request) -> bool:
    """Tell whether the client accepts gzip (RFC 9110, section 12.5.3)."""
    weights = {"gzip": 0.0}
    for header in request.headers.getlist("accept-encoding"):
        for part in header.split(","):
            match = _CODING.fullmatch(part)
            if match is None:
                continue
            try:
                weights[match[1].lower()] = float(match[2] or 1)
            except ValueError:
                continue
    return weights["gzip"] > 0


async def _bundle(reader: RegisterReader, bundle: Bundle, *, packed: bool) -> Response:
    """Answer with a bundle: whole where it is small, else piece by piece, as it is taken."""
    headers = {"Vary": "Accept-Encoding", **({"Content-Encoding": "gzip"} if packed else {})}
    pieces = _pieces(reader, bundle, packed)
    begun = b""
    while len(begun) < _WHOLE:
        # To read, and perhaps to compress: not in the event loop.
        piece = await asyncio.to_thread(next, pieces, None)
        if piece is None:
            return Response(begun, headers=_FOR_EVER | headers)
        begun += piece

    async def taken() -> AsyncIterator[bytes]:
        yield begun
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece

    return StreamingResponse(taken(), headers=_FOR_EVER | headers)


def _pieces(reader: RegisterReader, bundle: Bundle, packed: bool) -> Iterator[bytes]:
    """Yield a bundle, up to 16 MiB, in pieces of at most 2: who reads slowly has us hold no more than some."""
    begin = bundle.index * TILE_WIDTH
    entries = reader.entries(begin, begin + bundle.width)
    packing = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_FORMAT) if packed else None
    while group := tuple(islice(entries, READ_AHEAD)):
        data = encode_bundle(group)
        yield packing.compress(data) if packing else data
    if packing:
        yield packing.flush()


def _immutable(data: bytes) -> Response:
    return Response(data, headers=_FOR_EVER)


def _text(status: int, text: str, headers: Any = None) -> Response:
    return PlainTextResponse(f"{text}\n", status, headers={**(headers or {}), "Cache-Control": NO_STORE})


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    return _text(error.status_code, error.detail, error.headers)


async def _failed(_request: Request, error: Exception) -> Response:
    """Answer for a ledger error; of what is not the caller's doing, only the reason is shown."""
    reason = reason_of(error)
    return _text(http_status(reason), str(error) if isinstance(error, RejectedError) else reason.value)


async def _broken(_request: Request, _error: Exception) -> Response:
    # Made outside of all middleware, so it needs its own header.
    return _text(500, "INTERNAL", {"Access-Control-Allow-Origin": "*"})


class _Open:
    """Every reply, errors too, may be read by any page in a browser."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def opened(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Access-Control-Allow-Origin"] = "*"
            await send(message)

        await self._app(scope, receive, opened)

"""A witness's HTTP interface: add-checkpoint, the monitoring endpoint, and the operator's pages.

C2SP tlog-witness; specs/witness.md, sections 2 and 3. There is no sign-subtree here: it needs another kind
of key, and its path is 404 like every other.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ledger.add_checkpoint import (
    BAD_REQUEST,
    CONFLICT,
    MAX_BODY,
    AddCheckpoint,
    CheckpointRefusedError,
    open_submitted,
)
from ledger.errors import MalformedError, StoreError
from services.witness.accepting import AcceptedLogs
from services.witness.cosigning import Cosigner
from services.witness.evidence import EvidenceFolder
from services.witness.state import State

SIZE_TYPE: Final = "text/x.tlog.size"
"""Content-Type of the size that a 409 states, exactly."""

BODY_SECONDS: Final = 10.0
"""How long a body may take to arrive."""

_NO_STORE: Final = {"Cache-Control": "no-store"}
_CLOSE: Final = {**_NO_STORE, "Connection": "close"}
_ORIGIN_HASH: Final = re.compile("[0-9a-f]{64}")
_TIMEOUT: Final = 408


def build_app(state: State, cosigner: Cosigner, evidence: EvidenceFolder) -> Starlette:
    """Return the HTTP application. `state` is a reader of its own; `cosigner` is running."""
    registry = CollectorRegistry()
    registry.register(_Gauges(state, evidence))
    endpoint = _Endpoint(state, cosigner, registry)
    app = Starlette(
        routes=[
            Route("/add-checkpoint", endpoint.add_checkpoint, methods=["POST"]),
            Route("/{name}/checkpoint", endpoint.checkpoint, methods=["GET"]),
            Route("/healthz", endpoint.health, methods=["GET"]),
            Route("/metrics", endpoint.metrics, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _unanswered, StoreError: _failed},
    )
    app.router.redirect_slashes = False
    return app


class _Endpoint:
    def __init__(self, state: State, cosigner: Cosigner, registry: CollectorRegistry) -> None:
        self._state = state
        self._logs = AcceptedLogs(state)
        self._cosigner = cosigner
        self._registry = registry
        self._answers = Counter(
            "daybook_witness_answers", "Answers to add-checkpoint.", ["status"], registry=registry
        )

    async def add_checkpoint(self, request: Request) -> Response:
        """Answer for `/add-checkpoint`."""
        try:
            response = await self._add_checkpoint(request)
        except StoreError:
            self._answers.labels("500").inc()
            raise
        self._answers.labels(str(response.status_code)).inc()
        return response

    async def _add_checkpoint(self, request: Request) -> Response:
        try:
            body = await _body(request)
        except TimeoutError:
            return PlainTextResponse("the body did not arrive in time\n", _TIMEOUT, _CLOSE)
        except MalformedError as error:
            return PlainTextResponse(f"{error}\n", BAD_REQUEST, _CLOSE)
        try:
            asked = AddCheckpoint.parse(body)
            opened = open_submitted(asked, self._logs.keys(asked.origin))
            line = await self._cosigner.cosign(asked, opened)
        except MalformedError as error:
            return PlainTextResponse(f"{error}\n", BAD_REQUEST, _NO_STORE)
        except CheckpointRefusedError as refusal:
            if refusal.status == CONFLICT:
                # As a header: of a media type starlette makes one with a charset.
                size_type = {"Content-Type": SIZE_TYPE, **_NO_STORE}
                return Response(f"{refusal.latest}\n", CONFLICT, size_type)
            return PlainTextResponse(f"{refusal}\n", refusal.status, _NO_STORE)
        return PlainTextResponse(line, headers=_NO_STORE)

    async def checkpoint(self, request: Request) -> Response:
        """Answer for `/<origin hash>/checkpoint`: the latest that was cosigned."""
        name = request.path_params["name"]
        if not _ORIGIN_HASH.fullmatch(name) or request.scope["raw_path"] != request.scope["path"].encode():
            raise HTTPException(404)
        cosigned = self._state.latest_by_hash(bytes.fromhex(name))
        if cosigned is None:
            raise HTTPException(404)
        return PlainTextResponse(cosigned.note, headers=_NO_STORE)

    async def health(self, _request: Request) -> Response:
        """Answer for `/healthz`: the process is alive."""
        return PlainTextResponse("ok\n", headers=_NO_STORE)

    async def metrics(self, request: Request) -> Response:
        """Answer for `/metrics`, in the exposition format that the client prefers."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"Content-Type": content_type, **_NO_STORE})


async def _body(request: Request) -> bytes:
    """Read a body. Raises MalformedError for one that is too large, before more of it is read; TimeoutError."""
    if int(request.headers.get("content-length", "0")) > MAX_BODY:
        raise MalformedError(f"add-checkpoint: the body has more than {MAX_BODY} bytes")
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > MAX_BODY:
                    raise MalformedError(f"add-checkpoint: the body has more than {MAX_BODY} bytes")
                parts.append(part)
    except ClientDisconnect as error:
        raise MalformedError("add-checkpoint: the body ends early") from error
    return b"".join(parts)


async def _unanswered(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    return PlainTextResponse(f"{error.detail}\n", error.status_code, {**(error.headers or {}), **_NO_STORE})


async def _failed(_request: Request, _error: Exception) -> Response:
    return PlainTextResponse("the witness could not keep the checkpoint, and has cosigned nothing\n", 500)


class _Gauges(Collector):
    """Gauges, read when they are asked for."""

    def __init__(self, state: State, evidence: EvidenceFolder) -> None:
        self._state = state
        self._evidence = evidence

    def describe(self) -> Iterable[Metric]:
        """Return the gauges without samples, so that registering reads nothing."""
        return _gauges()

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        origins, evidence = _gauges()
        origins.add_metric([], self._state.count_cosigned())
        kept = self._evidence.all()
        proofs = sum(1 for each in kept if each.is_proof)
        evidence.add_metric(["proved"], proofs)
        evidence.add_metric(["suspected"], len(kept) - proofs)
        yield from (origins, evidence)


def _gauges() -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
    return (
        GaugeMetricFamily("daybook_witness_origins", "Origins of which a checkpoint was cosigned."),
        GaugeMetricFamily(
            "daybook_witness_evidence", "Files of evidence against logs, of either kind.", labels=["kind"]
        ),
    )

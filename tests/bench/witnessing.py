"""Cosigning, by a real witness in a process of its own: (h) checkpoints a second, many logs growing."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ledger.add_checkpoint import AddCheckpoint
from ledger.ed25519 import verify
from tests.bench.measure import Measure, keep_in_flight, middle
from tests.support.growing_log import GrowingLog
from tests.support.witness_process import make_witness, witnessing

LOGS = 64
STEPS = 50
"""Checkpoints of each log."""

GROWTH = 101
"""Entries that it grows by between two of them: to some thousands, with proofs of up to 14 hashes."""

IN_FLIGHT = 64
ROUNDS = 3
TARGET = 0.5

_LEDGER = GrowingLog("ledger.example/governing")


async def run() -> list[Measure]:
    """Run the measure."""
    rates, floors = [], []
    logs = [GrowingLog(f"ledger.example/department/office-{n}", _LEDGER.signer.secret) for n in range(LOGS)]
    asked = [[log.request(step * GROWTH, (step + 1) * GROWTH) for log in logs] for step in range(STEPS)]
    for _ in range(ROUNDS):
        rates.append(await _cosigned(asked))
        floors.append(1 / (1 / await _echoed(asked) + _signature_seconds(asked[0][0])))
    ratio = middle([rate / floor for rate, floor in zip(rates, floors, strict=True)])
    name = f"cosigning by one witness, {LOGS} logs, {IN_FLIGHT} in flight, each durable"
    target = f">= {TARGET:.2f}"
    return [Measure("h", name, middle(rates), middle(floors), "checkpoints/s", ratio, target, ratio >= TARGET)]


async def _cosigned(asked: list[list[AddCheckpoint]]) -> float:
    """Return checkpoints cosigned a second. A log asks for the next when all have been answered."""
    with tempfile.TemporaryDirectory(prefix="daybook-bench-") as folder:
        made = make_witness(Path(folder) / "w", "witness.example/w")
        made.add_ledger(_LEDGER.vkey)
        with witnessing(made.directory) as running:
            return await _rate(running.url, asked)


async def _rate(url: str, asked: list[list[AddCheckpoint]]) -> float:
    seconds = 0.0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:

        async def post(body: bytes) -> None:
            async with session.post(f"{url}/add-checkpoint", data=body) as response:
                assert response.status == 200, await response.text()
                await response.read()

        for requests in asked:
            seconds += await keep_in_flight([partial(post, one.data()) for one in requests], IN_FLIGHT)
    return sum(map(len, asked)) / seconds


async def _echoed(asked: list[list[AddCheckpoint]]) -> float:
    """Return requests that a server of the same make answers, which does nothing else."""
    async with echo_server() as url:
        return await _rate(url, asked)


@asynccontextmanager
async def echo_server() -> AsyncIterator[str]:
    """Run a server of the witness's make that does nothing but answer; yield its address."""
    process = subprocess.Popen(  # noqa: ASYNC220 - a benchmark waits for nothing else
        [sys.executable, "-m", "tests.bench.witnessing"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        port = await asyncio.to_thread(process.stdout.readline)
        yield f"http://127.0.0.1:{int(port)}"
    finally:
        process.terminate()
        process.wait()


def _signature_seconds(request: AddCheckpoint, count: int = 2_000) -> float:
    """Return the seconds of one Ed25519 verification and one signature of a checkpoint."""
    text = request.note.partition(b"\n\n")[0] + b"\n"
    secret = _LEDGER.signer.secret
    signature = secret.sign(text)
    began = time.perf_counter()
    for _ in range(count):
        verify(secret.public, text, signature)
        secret.sign(text)
    return (time.perf_counter() - began) / count


async def _serve_echo() -> None:
    reply = b"x" * 131  # as long as a cosignature line

    async def echo(request: Request) -> Response:
        await request.body()
        return PlainTextResponse(reply)

    app = Starlette(routes=[Route("/add-checkpoint", echo, methods=["POST"])])
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, server_header=False)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as bound:
        # Whoever connects from now on waits until it serves.
        print(bound.getsockname()[1], flush=True)
        await uvicorn.Server(config).serve(sockets=[bound])


if __name__ == "__main__":
    uvloop.run(_serve_echo())

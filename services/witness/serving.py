"""A witness's server: one process, one event loop, one writer; and its end.

A stop (SIGTERM, SIGINT) is graceful: requests under way are answered. A state that is unknown ends the
process at once: the next start reads it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvicorn

from services.witness.connections import Impatient
from services.witness.cosigning import Cosigner
from services.witness.directory import WitnessDirectory, WitnessDirectoryError
from services.witness.evidence import EvidenceFolder
from services.witness.service import build_app
from services.witness.state import State

MAX_CONNECTIONS: Final = 512
"""HTTP connections at once; one more is answered 503."""

_GRACE: Final = 5
"""Seconds that requests under way are given to end."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen; port 0 takes any free one. With TLS, `certificate` and `key` name PEM files."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None


class _Http(uvicorn.Server):
    """Uvicorn, leaving signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    directory: WitnessDirectory,
    listen: Listen,
    ready: Callable[[str, str], None],
    clock: Callable[[], float] = time.time,
) -> None:
    """Serve a witness until SIGTERM or SIGINT; `ready` is called with its name and HOST:PORT once it answers.

    Raises WitnessDirectoryError where there is no witness, or one that is served already; StoreError where
    its state is damaged, or becomes unknown; OSError where the address cannot be bound or TLS not be used.
    """
    stop = asyncio.Event()
    directory.require_witness()
    _check_tls(listen)
    with directory.locked(), contextlib.closing(State(directory.state, patience=0)) as state:
        signer = directory.signer()
        if state.witness != signer.cosigner:
            raise WitnessDirectoryError(
                f"{directory.state} belongs to the key {state.witness}, and not to the one in {directory.key}"
            )
        state.verify()
        evidence = EvidenceFolder(directory.evidence)
        cosigner = Cosigner(state, signer, evidence, clock)
        with contextlib.closing(state.reader()) as reader, _bound(listen) as bound:
            http = _Http(_config(reader, cosigner, evidence, listen))
            serving = asyncio.create_task(http.serve(sockets=[bound]))
            cosigning = asyncio.create_task(cosigner.run())
            await _started(http, serving)
            _stop_on_signals(stop)
            host, port = bound.getsockname()[:2]
            ready(signer.name, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({stopping, cosigning, serving}, return_when=asyncio.FIRST_COMPLETED)
            http.should_exit = True
            await serving
            cosigner.drain()
            await cosigning


def _config(state: State, cosigner: Cosigner, evidence: EvidenceFolder, listen: Listen) -> uvicorn.Config:
    return uvicorn.Config(
        build_app(state, cosigner, evidence),
        http=Impatient,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ssl_certfile=listen.certificate,
        ssl_keyfile=listen.key,
        timeout_graceful_shutdown=_GRACE,
        limit_concurrency=MAX_CONNECTIONS,
    )


def _check_tls(listen: Listen) -> None:
    """Raise OSError, which names the files, where they cannot be used for TLS: uvicorn would not say which."""
    if listen.certificate is None or listen.key is None:
        return
    for path in (listen.certificate, listen.key):
        path.read_bytes()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(listen.certificate, listen.key)
    except ssl.SSLError as error:
        files = f"{listen.certificate} and {listen.key}"
        raise OSError(
            f"{files} are not a PEM certificate and its private key: {error.reason or error}"
        ) from error


def _stop_on_signals(stop: asyncio.Event) -> None:
    """Ask for a stop at SIGTERM and SIGINT. A second signal ends the process as usual."""
    loop = asyncio.get_running_loop()

    def ask(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number)


async def _started(http: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    """Wait until uvicorn listens: it says so in a flag only. Raises what made it fail."""
    while not http.started:
        if serving.done():
            serving.result()
        await asyncio.sleep(0.005)


@contextlib.contextmanager
def _bound(listen: Listen) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((listen.host, listen.port))
        except OSError as error:
            raise OSError(
                error.errno, f"cannot bind HTTP to {listen.host}:{listen.port}: {error.strerror}"
            ) from error
        bound.listen(512)
        yield bound

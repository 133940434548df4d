"""What every HTTP server of ours is made of: its socket, its settings, and the moment from which it answers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import uvicorn

from services.settings import split_address

# A witness takes nothing from the ledger that it watches, so what both need is the witness's.
from services.witness.connections import Impatient

MAX_HTTP: Final = 256
"""HTTP connections at once; one more is answered 503. An entry bundle may have 16 MiB."""


class HttpSettings(Protocol):
    """Where to serve, and with what certificate."""

    @property
    def http(self) -> str:
        """HOST:PORT."""

    @property
    def tls_certificate(self) -> Path | None:
        """PEM certificate chain; without it there is no TLS."""

    @property
    def tls_key(self) -> Path | None:
        """PEM private key of the certificate."""


class Http(uvicorn.Server):
    """Uvicorn, leaving signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


async def started(http: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    """Wait until uvicorn listens: it says so in a flag only. Raises what made it fail."""
    while not http.started:
        if serving.done():
            serving.result()
        await asyncio.sleep(0.005)


def http_config(app: Any, settings: HttpSettings | None = None, most: int = MAX_HTTP) -> uvicorn.Config:
    """Return how an application is served, with TLS as the settings say; `most` connections at once."""
    return uvicorn.Config(
        app,
        http=Impatient,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        ssl_certfile=settings.tls_certificate if settings else None,
        ssl_keyfile=settings.tls_key if settings else None,
        timeout_graceful_shutdown=2,
        limit_concurrency=most,
    )


@contextlib.contextmanager
def bound(address: str) -> Iterator[socket.socket]:
    """Listen at HOST:PORT while the block runs. Raises OSError where that cannot be."""
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise OSError(error.errno, f"cannot bind HTTP to {address}: {error.strerror}") from error
        listening.listen(512)
        yield listening

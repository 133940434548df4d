"""The receiving of requests: so many at once, and each within a time.

gRPC keeps what has come of a request until the whole of it has, so that whoever begins calls without end and
finishes none would fill the server's memory. Here a request is asked for only once it has a place. Until then
HTTP/2's flow control leaves with the caller all of it but the first window.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio

from ledger.errors import Reason, RejectedError, Violation
from services.places import Places

MAX_RECEIVED: Final = 128
"""Requests received at once, of at most 2 MiB each; others wait for a place."""

RECEIVE_SECONDS: Final = 20.0
"""Seconds that a request may take to come in whole: 2 MiB at 1 Mbit/s."""

MAX_STREAMS: Final = 128
"""Streams of requests open at once: each may hold a request that is never finished."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class TooLateError(Exception):
    """A request came in so late that nothing was done for it; the text says so to the caller."""


class Receiver:
    """Receives the requests of some methods, which share its places. Only for one event loop's thread."""

    def __init__(self, places: int = MAX_RECEIVED, streams: int = MAX_STREAMS) -> None:
        self._places = asyncio.Semaphore(places)
        self.streams = Places(streams, "streams of requests")

    async def one(self, context: Context) -> bytes:
        """Return the bytes of a call's only request.

        Raises TooLateError, and RejectedError INVALID_FIELD where the caller ends his side without one.
        """
        async with self._places:
            try:
                async with asyncio.timeout(RECEIVE_SECONDS):
                    data = await context.read()
            except TimeoutError:
                text = f"the request had not come in whole after {RECEIVE_SECONDS:g} s; nothing was changed"
                raise TooLateError(text) from None
        if data is grpc.aio.EOF:
            text = "the call has no request"
            raise RejectedError(Reason.INVALID_FIELD, text, violations=(Violation(Reason.INVALID_FIELD, text),))
        assert isinstance(data, bytes)  # noqa: S101 - nothing deserialises it
        return data

"""The one place that sends a call again: exponential backoff with full jitter, bounded by the deadline.

Sending the very same submission again is always safe (formats.md, section 5: it has the same submission_id),
so every error after which the outcome is unknown may be answered by asking again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import grpc
import grpc.aio

from services.client.errors import CallError, FaultError, UnavailableError, from_rpc_error

FIRST_BACKOFF: Final = 0.1
"""Seconds of the longest first pause."""

LONGEST_BACKOFF: Final = 10.0
"""Seconds that a pause is drawn from at the most, before what the server asks for is added."""

_STALE_VIEW: Final = "STALE_VIEW"

T = TypeVar("T")


def may_succeed_later(error: CallError) -> bool:
    """Tell whether the very same call is worth sending again while there is time."""
    if error.reason == _STALE_VIEW:
        return True
    if not isinstance(error, UnavailableError):
        return False
    if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # Without a reason it is gRPC's own word for a message that is too large: it stays too large.
        return bool(error.reason)
    # CANCELLED comes from the server, as it stops: a caller who cancels gets asyncio.CancelledError instead.
    return error.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def pause(attempt: int, retry_after: float | None) -> float:
    """Return the seconds to wait after failed attempt `attempt` (from 0).

    Never less than what the server asked for; the jitter keeps clients from coming back all at once.
    """
    longest = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(attempt, 10))
    return (retry_after or 0.0) + random.uniform(0.0, longest)  # noqa: S311 - spreads load, keeps no secret


async def call(attempt: Callable[[float], Awaitable[T]], timeout: float) -> T:  # noqa: ASYNC109 - see below
    """Make a call until it succeeds, is refused, or `timeout` seconds are over.

    `attempt` takes the seconds that are left: gRPC sends them along, and the server answers within them,
    which cancelling from outside would not give. An INTERNAL error is asked about once more.

    Raises CallError: that of the last attempt.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    number = 0
    faults = 0
    while True:
        try:
            return await attempt(deadline - loop.time())
        except grpc.aio.AioRpcError as rpc_error:
            error = from_rpc_error(rpc_error)
            faults += isinstance(error, FaultError)
            again = may_succeed_later(error) or (faults == 1 and error.retry_after is not None)
            wait = pause(number, error.retry_after)
            if not again or loop.time() + wait >= deadline:
                raise error from rpc_error
        await asyncio.sleep(wait)
        number += 1

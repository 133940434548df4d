"""Reading a stream of a server that may fall silent: nobody waits longer for it than they said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

import grpc
import grpc.aio

from services.client.errors import CallError, from_rpc_error

_Answer = TypeVar("_Answer")


async def answers(
    stream: grpc.aio.UnaryStreamCall[Any, _Answer], seconds: float
) -> AsyncGenerator[_Answer, None]:
    """Yield what a stream answers, and cancel it at the end.

    Raises CallError, also where nothing comes for `seconds`.
    """
    try:
        while True:
            async with asyncio.timeout(seconds):
                answer = await stream.read()
            if answer is grpc.aio.EOF:
                return
            yield answer  # type: ignore[misc]  # the end was told apart by identity
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    except TimeoutError:
        raise CallError(grpc.StatusCode.DEADLINE_EXCEEDED, f"nothing came for {seconds:.0f} seconds") from None
    finally:
        stream.cancel()

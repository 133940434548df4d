"""The Faust agent of `daybook.checkpoints`: what comes is handed on, whatever waits together.

The notes are news, and the store has all of them: so it matters to nothing that Faust acknowledges a message
before it was taken in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import faust
import structlog

from ledger.errors import StoreError
from ledger.event_log import CHECKPOINTS
from services.distributed.settings import DistributedSettings

Messages = Sequence[tuple[bytes | None, bytes | None]]

_TOGETHER: Final = 256
"""Messages that are handed on at once."""

_log = structlog.get_logger()


class NoteAgent:
    """Hands the messages of the topic to `take`: key and value. Made before its app is started."""

    def __init__(
        self, app: faust.App, settings: DistributedSettings, take: Callable[[Messages], Awaitable[None]]
    ) -> None:
        self._take = take
        self._waiting: asyncio.Queue[tuple[bytes | None, bytes | None]] = asyncio.Queue(_TOGETHER)
        topic = app.topic(
            settings.topic_prefix + CHECKPOINTS, key_type=bytes, value_type=bytes, value_serializer="raw"
        )
        app.agent(topic, name="notes")(self._listen)

    async def _listen(self, stream: Any) -> None:
        async for event in stream.events():
            await self._waiting.put((event.key, event.value))

    async def run(self) -> None:
        """Hand on what has come, for ever. Raises what `take` raises, but StoreError: news comes again."""
        while True:
            together = [await self._waiting.get()]
            while len(together) < _TOGETHER and not self._waiting.empty():
                together.append(self._waiting.get_nowait())
            try:
                await self._take(together)
            except StoreError as error:
                _log.warning("news of checkpoints was not taken in", why=str(error))

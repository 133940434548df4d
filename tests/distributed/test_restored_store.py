"""How it is told that a store is waited for: in readiness and in the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry

from ledger.errors import SplitViewError
from services.distributed import restored_store
from services.distributed.restored_store import RestoredStore
from services.distributed.settings import DistributedSettings
from services.known_history import AheadError
from tests.support.ledgers import ORIGIN, REGISTER


class _Behind:
    """A store that has nothing; `asked` is called when it is asked how much."""

    def __init__(self) -> None:
        self.asked: Callable[[], object] = bool

    def note(self, register: str, at_most: int) -> None:
        """Return none."""

    def position(self, topic: str, partition: int) -> None:
        """Return none: nothing is done."""

    def heads(self) -> Mapping[str, Any]:
        self.asked()
        return {}


class _Ends:
    async def ends(self, topic: str) -> dict[int, int]:
        return {0: 1}


@asynccontextmanager
async def one_message(_settings: DistributedSettings) -> AsyncIterator[_Ends]:
    """Read a topic of one message."""
    yield _Ends()


async def test_what_readiness_tells_of_a_wait_the_log_has_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """If false, whoever sees that the store is waited for would look in vain in the log for what that means."""
    monkeypatch.setattr(restored_store, "log_reader", one_message)
    store: Any = _Behind()
    settings = DistributedSettings(origin=ORIGIN, kafka="127.0.0.1:1", database="")
    restored = RestoredStore(settings, store, CollectorRegistry())
    told: list[tuple[bool, bool]] = []
    with structlog.testing.capture_logs() as lines:
        # It is asked in a thread, in the middle of what the event loop's thread does.
        store.asked = lambda: told.append((restored.told() is not None, bool(lines)))
        ahead = AheadError(SplitViewError("", b"", b""), REGISTER, 1)
        waiting = asyncio.create_task(restored.catch_up(ahead))
        async with asyncio.timeout(60):
            while len(told) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait({waiting})
    assert told[:2] == [(False, False), (True, True)]

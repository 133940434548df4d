"""Finding: the detections run over a served ledger's registers as they grow, beside everything else.

An entry is looked at once a sealed checkpoint covers it, and where no witness is asked once a signed one does:
before, nobody has stated when it came in. All of it is in one thread, a few entries at a time with a rest
after each, and only reads the ledger. Where it fails that is told, and tried again later and later: nothing
else waits for it, and nothing is refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, TypeVarTuple

import structlog
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ledger.errors import LedgerError, Reason, RejectedError, StoreError
from ledger.ledger import LedgerView
from ledger.witnessing import Policy
from services.auditing.fact_store import Place
from services.auditing.lookout import FoundPage, Lookout
from services.published import Published

LOOK: Final = 1.0
"""Seconds after which it is looked for what is new though nothing was told: a profile's time may have come."""

PAUSE: Final = 0.1
"""Seconds between two looks, however much is going on."""

REST: Final = 3.0
"""Rest after each few entries, as a multiple of the time that these took: commits have the processor first."""

SHOW: Final = 5.0
"""Seconds after which what was found is shown, while there is always more to look at."""

SHOW_REST: Final = 9.0
"""Rest after each showing, as a multiple of the time that it took."""

FIRST_DELAY: Final = 1.0
"""Seconds after a first failure until it is tried again; twice as long after each further one."""

LAST_DELAY: Final = 60.0
"""Seconds after which it is tried again where it keeps failing."""

_Asked = TypeVarTuple("_Asked")
_Result = TypeVar("_Result")

_log = structlog.get_logger()


class Findings(Protocol):
    """What lists findings."""

    async def page(self, register: str, after: Place | None, most: int) -> FoundPage:
        """Return findings of a register; raises RejectedError BACKEND_DOWN where that cannot be now."""
        ...


class Showing(Protocol):
    """What shows elsewhere what a lookout has found, for those who cannot ask it."""

    def show(self, lookout: Lookout, *, all_seen: bool) -> None:
        """Show what has changed, in the lookout's thread. `all_seen`: there is nothing more to look at now.

        Called often, and again after it has failed. Raises StoreError.
        """
        ...


class Finder(Collector):
    """Finds in one ledger. `run` is its task until it is cancelled; then `close`. For the event loop.

    What it finds is told by `page`, and shown by `showing` besides.
    """

    def __init__(
        self,
        ledger: LedgerView,
        published: Published,
        path: Path,
        clock: Callable[[], float] = time.time,
        showing: Showing | None = None,
    ) -> None:
        self._published = published
        self._lookout = Lookout(ledger, path, clock)
        self._showing = showing
        self._shown_at = time.monotonic()
        self._thread = ThreadPoolExecutor(1, "detections")
        self._failures = 0
        self._trouble: str | None = None

    async def run(self) -> None:
        """Look at what is new, again and again."""
        while True:
            changed = self._published.changed()
            try:
                await self._look()
                await self._show(all_seen=True)
            except Exception as error:
                await asyncio.sleep(await self._failed(error))
                continue
            self._failures, self._trouble = 0, None
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await changed.wait()
            await asyncio.sleep(PAUSE)

    async def page(self, register: str, after: Place | None, most: int) -> FoundPage:
        """Return findings of a register. Raises RejectedError BACKEND_DOWN where that cannot be now."""
        try:
            return await self._work(self._lookout.page, register, after, most)
        except StoreError as error:
            _log.error("findings cannot be read", error=str(error))
            raise RejectedError(Reason.BACKEND_DOWN, "the findings cannot be read now; ask again") from error

    async def close(self) -> None:
        """Wait for what is under way: the ledger's store may be closed only after it."""
        try:
            await self._work(self._lookout.close)
        except StoreError as error:
            _log.error("detections not closed", error=str(error))
        finally:
            self._thread.shutdown()

    def told(self) -> dict[str, Any]:
        """Return for /readyz how far it has come: entries not looked at, in whose terms, what is wrong."""
        sizes = self._lookout.sizes
        published = self._published.registers().items()
        behind = sum(max(0, latest.size - sizes.get(register, 0)) for register, latest in published)
        return {"behind": behind, "profile": self._lookout.profile, "trouble": self._trouble}

    def describe(self) -> Iterable[Metric]:
        """Return the gauges without samples, so that registering reads nothing."""
        return _gauges()

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        sizes, failing = _gauges()
        for register, size in sorted(self._lookout.sizes.items()):
            sizes.add_metric([register], size)
        failing.add_metric([], self._trouble is not None)
        yield from (sizes, failing)

    async def _work(self, work: Callable[[*_Asked], _Result], *asked: *_Asked) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *asked)

    async def _look(self) -> None:
        """Look at everything that is there, every register in its turn."""
        while behind := await self._work(self._behind):
            for register, size, policy in behind:
                began = time.monotonic()
                await self._work(self._lookout.take, register, size, policy)
                await asyncio.sleep(REST * (time.monotonic() - began))
                if time.monotonic() - self._shown_at >= SHOW:
                    await self._show(all_seen=False)

    async def _show(self, *, all_seen: bool) -> None:
        """Have it shown what was found."""
        if self._showing is None:
            return
        began = time.monotonic()
        await self._work(partial(self._showing.show, self._lookout, all_seen=all_seen))
        self._shown_at = time.monotonic()
        await asyncio.sleep(SHOW_REST * (self._shown_at - began))

    def _behind(self) -> list[tuple[str, int, Policy | None]]:
        """Return the registers of which there is more to look at, up to which sizes, and under which policy."""
        self._lookout.refresh()
        policy = self._published.policy
        found = []
        for register, latest in self._published.registers().items():
            size = latest.size
            if policy is not None:
                sealed = self._published.sealed(register)
                size = 0 if sealed is None else sealed.size
            if self._lookout.is_behind(register, size, latest.size):
                found.append((register, size, policy))
        # What is sealed under one policy is nothing to judge by another's cosignatures, and is judged once.
        return found if self._published.policy is policy else self._behind()

    async def _failed(self, error: Exception) -> float:
        """Tell what went wrong, let go of the file, and return the seconds until it is tried again."""
        delay = min(LAST_DELAY, FIRST_DELAY * float(2**self._failures))
        self._failures = min(self._failures + 1, 16)
        self._trouble = str(error) if isinstance(error, LedgerError | OSError) else type(error).__name__
        known = isinstance(error, LedgerError | OSError)
        _log.error("detections failed", error=self._trouble, again_in=delay, exc_info=None if known else error)
        with suppress(Exception):
            await self._work(self._lookout.close)
        return delay


def _gauges() -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
    return (
        GaugeMetricFamily(
            "daybook_findings_size", "Entries that the detections have looked at.", labels=["register"]
        ),
        GaugeMetricFamily(
            "daybook_findings_failing", "1 while the detections do not run, and are tried again.", labels=[]
        ),
    )

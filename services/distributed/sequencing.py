"""One partition at work: messages wait in a queue, are appended together and acknowledged; heads are signed.

While one commit is under way, and signed, the next messages gather: a batch is what has come meanwhile. A
signer that is slow, or away, holds nobody up.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from ledger.event_log import Kind, LogMessage
from ledger.ledger import Waiting
from services.distributed.head_signing import Signer
from services.distributed.lanes import Lane
from services.distributed.partition_writer import MAX_MESSAGES, Appendage, PartitionWriter
from services.distributed.signing import SignerAwayError

SIGN_AGAIN: Final = 0.2
"""Seconds after which heads that could not be signed are asked for again."""

_SIGNED: Final = 0.05
"""Seconds that a commit waits for the heads of the one before to be signed.

Notes go out at once then, not behind a commit; and fewer and larger commits cost everybody less.
"""

_MANY: Final = 500
"""Entries of a commit, and no less, after which others are likely to be on their way."""

_GATHER: Final = 0.04
"""Seconds in which those gather, for a larger commit, where not plenty waits already."""

_PLENTY: Final = 4 * 1024 * 1024
"""Bytes of messages for which a commit is not put off; as many messages as one takes are plenty, too."""

_WAIT_AGAIN: Final = 0.05
"""Seconds after which the governing register is looked at again."""

_FETCH_AGAIN: Final = 0.5
"""Seconds after a seek in which its message comes, and those that were fetched before it have passed."""

_FRUITLESS: Final = 4
"""Seeks in vain after which the topic itself is asked what it holds."""

_QUEUED_BYTES: Final = 16 * 1024 * 1024
"""Bytes of messages that wait in one partition's queue before no more are fetched for it."""

_QUEUED: Final = 2 * MAX_MESSAGES
"""Messages of the same."""

_log = structlog.get_logger()


class SequencerMetrics:
    """What is counted of all partitions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.entries = Counter("daybook_sequencer_entries", "Entries appended.", registry=registry)
        self.messages = Counter(
            "daybook_sequencer_messages",
            "Messages done, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        self.repeated = Counter(
            "daybook_sequencer_repeated", "Messages that came again after they were done.", registry=registry
        )
        self.quarantined = Counter(
            "daybook_sequencer_quarantined", "Messages that registration cannot have made.", registry=registry
        )
        self.gaps = Counter(
            "daybook_sequencer_gap_alarms",
            "Times that the group had committed what the database does not hold.",
            registry=registry,
        )
        self.refetches = Counter(
            "daybook_sequencer_refetches", "Times that messages had to be fetched again.", registry=registry
        )
        self.lag = Gauge(
            "daybook_sequencer_lag", "Messages still to be done.", ["partition"], registry=registry
        )
        self.waiting = Gauge(
            "daybook_sequencer_waiting",
            "1 where the next message waits for the governing register.",
            ["partition"],
            registry=registry,
        )
        self.epoch = Gauge(
            "daybook_sequencer_epoch", "The epoch of a partition's writer.", ["partition"], registry=registry
        )
        self.unsigned = Gauge("daybook_sequencer_unsigned", "Registers whose head waits.", registry=registry)

    def count(self, appendage: Appendage) -> None:
        """Count what was done."""
        self.repeated.inc(appendage.repeated)
        self.entries.inc(appendage.entries)
        for each in appendage.dispositions:
            self.messages.labels(each.kind.name.lower()).inc()
            if each.kind is Kind.QUARANTINED:
                self.quarantined.inc()


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message, and what acknowledges it."""

    message: LogMessage
    ack: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Fetching:
    """What a partition may ask of whoever delivers its messages."""

    pause: Callable[[], None]
    resume: Callable[[], None]
    seek: Callable[[int], Awaitable[None]]
    check: Callable[[int], Awaitable[None]]
    """Raises LogError where the topic itself has no message at an offset that it goes beyond."""


class Sequencing:
    """The work of one partition under one epoch: `take` what comes; `run` is its task.

    Only for the event loop's thread; the writer works in the lane's.
    """

    def __init__(
        self, writer: PartitionWriter, lane: Lane, signer: Signer, fetching: Fetching, metrics: SequencerMetrics
    ) -> None:
        self.writer = writer
        self.moved_at = time.monotonic()
        """When the position has moved last."""
        self.waiting: Waiting | None = None
        """What the next message waits for, and all behind it; None where it does not."""
        self.waiting_since = 0.0
        """Since when it does."""
        self._lane = lane
        self._signer = signer
        self._fetching = fetching
        self._metrics = metrics
        self._queue: deque[Delivery] = deque()
        self._bytes = 0
        self._expected = writer.position.next_offset
        self._news = asyncio.Event()
        self._came = asyncio.Event()
        self._unsigned = asyncio.Event()
        # Also where nothing waits: the marks may be beyond the store.
        self._unsigned.set()
        # Set when a call of the signer is over; none is waited for while the last one came to nothing.
        self._asked = asyncio.Event()
        self._stuck = True
        self._paused = False
        self._missed = False
        self._fruitless = 0

    @property
    def done(self) -> int:
        """The offset up to which all is committed."""
        return self.writer.position.next_offset

    def take(self, delivery: Delivery) -> None:
        """Queue a message that comes next; drop any other, which is asked for again where it lies beyond."""
        message = delivery.message
        if message.offset < self._expected:
            if message.offset < self.done:
                delivery.ack()
            return
        if message.offset > self._expected:
            if not self._missed:
                _log.warning("messages were missed", got=message.offset, expected=self._expected)
            self._missed = True
            self._news.set()
            return
        self._missed = False
        self._came.set()
        self._expected += 1
        self._queue.append(delivery)
        self._bytes += message.size
        if not self._paused and (self._bytes >= _QUEUED_BYTES or len(self._queue) >= _QUEUED):
            self._paused = True
            self._fetching.pause()
        self._news.set()

    async def run(self) -> None:
        """Append and sign, until cancelled. Raises FencedError, StoreError, LogError, SplitViewError."""
        both = [asyncio.create_task(self._append_all()), asyncio.create_task(self._sign_all())]
        try:
            ended, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)

    async def _append_all(self) -> None:
        while True:
            if not self._queue and not self._missed:
                self._news.clear()
                await self._news.wait()
            appendage = await self._append() if self._queue else None
            if appendage and appendage.waiting:
                await asyncio.sleep(_WAIT_AGAIN)
            if self._unsigned.is_set() and not self._stuck:
                self._asked.clear()
                try:
                    async with asyncio.timeout(_SIGNED):
                        await self._asked.wait()
                except TimeoutError:
                    self._stuck = True
            plenty = self._bytes >= _PLENTY or len(self._queue) >= MAX_MESSAGES
            if appendage and appendage.entries >= _MANY and not plenty:
                await asyncio.sleep(_GATHER)
            if self._missed and not self._queue:
                await self._fetch_again()

    async def _append(self) -> Appendage:
        """Append what waits in the queue, or as much of it as can be judged yet."""
        batch = [delivery.message for delivery in self._queue]

        def append() -> Appendage:
            appendage = self.writer.append(batch)
            # Here, and not behind the await: a rebalance cancels that, and what was committed still counts.
            self._metrics.count(appendage)
            return appendage

        appendage = await self._lane.run(append)
        if appendage.done:
            self.moved_at = time.monotonic()
        if appendage.done or self.waiting is None:
            self.waiting_since = time.monotonic()
        self.waiting = appendage.waiting
        if self.writer.heads.waits:
            self._unsigned.set()
        for _ in range(appendage.done):
            delivery = self._queue.popleft()
            self._bytes -= delivery.message.size
            delivery.ack()
        if self._paused and self._bytes < _QUEUED_BYTES // 2 and len(self._queue) < _QUEUED // 2:
            await self._resume()
        return appendage

    async def _resume(self) -> None:
        # Faust drops what it had fetched of a partition that is paused, and would go on beyond it.
        self._paused = self._missed = False
        await self._fetching.seek(self._expected)
        self._fetching.resume()

    async def _sign_all(self) -> None:
        away = False
        while True:
            await self._unsigned.wait()
            self._unsigned.clear()
            try:
                signed = await self.writer.heads.sign(self._signer, self._lane.run)
                away = False
            except SignerAwayError as error:
                if not away:
                    _log.warning("the signer is away: heads stay unsigned", why=str(error))
                signed, away = {}, True
            self._stuck = not signed
            self._asked.set()
            if self.writer.heads.waits:
                if not signed:
                    await asyncio.sleep(SIGN_AGAIN)
                self._unsigned.set()

    async def _fetch_again(self) -> None:
        """Fetch from where messages were missed. Raises LogError where the topic itself lacks them."""
        self._metrics.refetches.inc()
        expected = self._expected
        self._came.clear()
        await self._fetching.seek(expected)
        with suppress(TimeoutError):
            async with asyncio.timeout(_FETCH_AGAIN):
                await self._came.wait()
        # What came from beyond meanwhile was fetched before, or else the next seek finds it again.
        if self._expected != expected:
            self._fruitless = 0
            return
        self._fruitless += 1
        if self._fruitless >= _FRUITLESS:
            await self._fetching.check(expected)

    def told(self) -> Mapping[str, Any]:
        """Return, for readiness, how the partition stands."""
        return {
            "next_offset": self.done,
            "epoch": self.writer.position.epoch,
            "unsigned": sorted(self.writer.heads.unsigned),
            "behind": sorted(self.writer.heads.behind),
            "waits_for": self.waiting.governing_size if self.waiting else None,
        }

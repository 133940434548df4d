"""One partition's queue: order, what was missed, what is too much, and when a message is acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import pytest
from prometheus_client import CollectorRegistry

from ledger.event_log import SUBMISSIONS, LogMessage
from services.distributed import sequencing
from services.distributed.lanes import opened_lanes
from services.distributed.log_errors import GapError
from services.distributed.partition_writer import PartitionWriter
from services.distributed.sequencing import Delivery, Fetching, SequencerMetrics, Sequencing
from services.distributed.signing import Marks, Signings, ToSign
from tests.support.ledgers import ORIGIN
from tests.support.postgres_schemas import migrated_schema


class _NoSigner:
    """A signer that knows nothing: the messages here make no entry."""

    async def marks(self, origins: Sequence[str]) -> Marks:
        return Marks("one", {})

    async def sign(self, wanted: Sequence[ToSign]) -> Signings:
        raise AssertionError("nothing is to be signed")


@dataclass(slots=True)
class Partition:
    """A partition at work, and what it has asked for."""

    work: Sequencing
    ended: Callable[[], bool]
    told: list[str] = field(default_factory=list[str])
    acknowledged: list[int] = field(default_factory=list[int])
    gap: bool = False

    def deliver(self, *offsets: int, size: int = 1) -> None:
        """Deliver messages; what they are does not matter here."""
        for offset in offsets:
            message = LogMessage(offset, b"?", b"x" * size)
            self.work.take(Delivery(message, partial(self.acknowledged.append, offset)))

    async def until(self, told: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not told():
            assert time.monotonic() < end, self
            await asyncio.sleep(0.01)


@asynccontextmanager
async def at_work(database: str) -> AsyncIterator[Partition]:
    """Let a partition work; raise what it fails with."""
    async with opened_lanes(migrated_schema(database)) as lanes:
        lane = lanes[0]
        writer = await lane.run(lambda: PartitionWriter.open(lane.store, SUBMISSIONS, 0, 1, ORIGIN))
        found: list[Partition] = []

        async def seek(offset: int) -> None:
            found[0].told.append(f"seek {offset}")

        async def check(offset: int) -> None:
            found[0].told.append(f"check {offset}")
            if found[0].gap:
                raise GapError("a message is missing")

        fetching = Fetching(
            lambda: found[0].told.append("pause"), lambda: found[0].told.append("resume"), seek, check
        )
        work = Sequencing(writer, lane, _NoSigner(), fetching, SequencerMetrics(CollectorRegistry()))
        task = asyncio.create_task(work.run())
        found.append(Partition(work, task.done))
        try:
            yield found[0]
            if task.done():
                task.result()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, GapError):
                await task


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencing, "_FETCH_AGAIN", 0.05)


async def test_messages_are_acknowledged_after_their_commit(fresh_database: str) -> None:
    """A message is acknowledged that is not done, or one that is done is not."""
    async with at_work(fresh_database) as partition:
        partition.deliver(0, 1, 2)
        assert partition.acknowledged == []
        await partition.until(lambda: partition.acknowledged == [0, 1, 2])
        assert partition.work.done == 3
        partition.deliver(1)
        assert partition.acknowledged == [0, 1, 2, 1]
        assert partition.told == []


async def test_what_was_missed_is_fetched_again(fresh_database: str) -> None:
    """Messages are appended over one that was not delivered, or the partition stands still."""
    async with at_work(fresh_database) as partition:
        partition.deliver(0, 1, 3, 4)
        await partition.until(lambda: "seek 2" in partition.told)
        assert partition.work.done == 2
        partition.deliver(5)
        partition.deliver(2, 3, 4, 5)
        await partition.until(lambda: partition.work.done == 6)
        assert partition.acknowledged == [0, 1, 2, 3, 4, 5]


async def test_it_is_fetched_again_until_it_comes(fresh_database: str) -> None:
    """A message that was fetched before a seek keeps away for ever what the seek was for."""
    async with at_work(fresh_database) as partition:
        partition.deliver(7)
        await partition.until(lambda: partition.told.count("seek 0") >= 2)
        partition.deliver(8)
        partition.deliver(0)
        await partition.until(lambda: partition.work.done == 1)
        assert "check 0" not in partition.told


async def test_what_comes_again_is_not_kept_waiting(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages that were fetched again stand still until the time for them is over."""
    monkeypatch.setattr(sequencing, "_FETCH_AGAIN", 3600.0)
    async with at_work(fresh_database) as partition:
        partition.deliver(1)
        await partition.until(lambda: "seek 0" in partition.told)
        partition.deliver(0, 1)
        await partition.until(lambda: partition.work.done == 2)


async def missing(database: str) -> None:
    """Deliver a message behind one that the topic does not have."""
    async with at_work(database) as partition:
        partition.gap = True
        partition.deliver(3)
        await partition.until(partition.ended)
        assert partition.told[-1] == "check 0"


async def test_a_message_that_the_topic_does_not_have_is_an_alarm(fresh_database: str) -> None:
    """A partition with a gap is fetched from for ever, and nobody is told."""
    with pytest.raises(GapError):
        await missing(fresh_database)


async def test_too_many_messages_pause_the_partition_until_they_are_done(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition that waits takes all memory, or one that goes on is never fetched from again."""
    monkeypatch.setattr(sequencing, "_QUEUED_BYTES", 100)
    async with at_work(fresh_database) as partition:
        partition.deliver(0, 1, size=30)
        assert partition.told == []
        partition.deliver(2, 3, 4, size=30)
        assert partition.told == ["pause"]
        await partition.until(lambda: partition.work.done == 5)
        # What was fetched before the pause is dropped by whoever delivers.
        assert partition.told == ["pause", "seek 5", "resume"]

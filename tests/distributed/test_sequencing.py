"""One partition's queue: order, what was missed, what is too much, and when a message is acknowledged."""

from __future__ import annotations

import asyncio
import operator
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from ledger.event_log import SUBMISSIONS, LogMessage
from services.distributed import sequencing
from services.distributed.head_signing import Signer
from services.distributed.lanes import opened_lanes
from services.distributed.log_errors import GapError
from services.distributed.partition_writer import Appendage, PartitionWriter
from services.distributed.sequencing import Delivery, Fetching, SequencerMetrics, Sequencing
from services.distributed.signing import Marks, Signings, ToSign
from services.signing import HighWaterMarks
from tests.support.direct_signer import DirectSigner
from tests.support.ledgers import LOG_KEY, ORIGIN
from tests.support.log_messages import by_partition, story
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
    task: asyncio.Task[None]
    told: list[str] = field(default_factory=list[str])
    acknowledged: list[int] = field(default_factory=list[int])
    gap: bool = False

    def deliver(self, *offsets: int, size: int = 1) -> None:
        """Deliver messages; what they are does not matter here."""
        for offset in offsets:
            message = LogMessage(offset, b"?", b"x" * size)
            self.work.take(Delivery(message, partial(self.acknowledged.append, offset)))

    async def until(self, told: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not told():
            assert time.monotonic() < end, self
            await asyncio.sleep(0.01)


class _Waited:
    """A signer of every head, that is waited for while `free` is not set."""

    def __init__(self, inner: DirectSigner) -> None:
        self._inner = inner
        self.free = asyncio.Event()
        self.free.set()
        self.asked = asyncio.Event()

    async def marks(self, origins: Sequence[str]) -> Marks:
        return await self._inner.marks(origins)

    async def sign(self, wanted: Sequence[ToSign]) -> Signings:
        self.asked.set()
        await self.free.wait()
        found = await self._inner.sign(wanted)
        self._inner.confirm_all()
        return found


@asynccontextmanager
async def at_work(
    database: str, signer: Signer | None = None, metrics: SequencerMetrics | None = None
) -> AsyncIterator[Partition]:
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
        counting = metrics or SequencerMetrics(CollectorRegistry())
        work = Sequencing(writer, lane, signer or _NoSigner(), fetching, counting)
        task = asyncio.create_task(work.run())
        found.append(Partition(work, task))
        try:
            yield found[0]
            if task.done() and not task.cancelled():
                task.result()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, GapError):
                await task


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[_Waited]:
    """The ledger's signer."""
    marks = HighWaterMarks(tmp_path / "signer.marks")
    yield _Waited(DirectSigner(LOG_KEY, marks, ORIGIN))
    marks.close()


@pytest.fixture
def messages(tmp_path: Path) -> list[LogMessage]:
    """The messages of a whole ledger."""
    _, blocks = story(tmp_path)
    return by_partition(blocks, 1)[0]


async def until_signed(partition: Partition, count: int) -> None:
    """Wait until so many messages are done and every head is signed."""
    await partition.until(lambda: partition.work.done == count and not partition.work.writer.heads.waits)


def take(partition: Partition, *messages: LogMessage) -> None:
    for message in messages:
        partition.work.take(Delivery(message, partial(partition.acknowledged.append, message.offset)))


async def test_the_next_commit_waits_for_the_signature_of_the_one_before(
    fresh_database: str, messages: list[LogMessage], signer: _Waited, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Notes wait behind commits, each of which is smaller than it need be."""
    monkeypatch.setattr(sequencing, "_SIGNED", 20.0)
    async with at_work(fresh_database, signer) as partition:
        take(partition, *messages[:-3])
        await until_signed(partition, len(messages) - 3)
        signer.free.clear()
        signer.asked.clear()
        take(partition, messages[-3])
        await signer.asked.wait()
        take(partition, *messages[-2:])
        # Time enough for a commit, were one begun.
        await asyncio.sleep(0.3)
        assert partition.work.done == len(messages) - 2
        signer.free.set()
        await until_signed(partition, len(messages))


async def test_a_signer_that_does_not_answer_holds_nobody_up_for_long(
    fresh_database: str, messages: list[LogMessage], signer: _Waited
) -> None:
    """What is accepted stays out of the ledger because the signer hangs."""
    async with at_work(fresh_database, signer) as partition:
        take(partition, *messages[:-3])
        await until_signed(partition, len(messages) - 3)
        signer.free.clear()
        wanted = [message.offset for message in messages]
        for place in range(len(messages) - 3, len(messages)):
            take(partition, messages[place])
            await partition.until(partial(operator.eq, partition.acknowledged, wanted[: place + 1]))


async def test_after_a_commit_of_many_entries_the_next_gathers(
    fresh_database: str, messages: list[LogMessage], signer: _Waited, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under load, each message costs all services a commit of its own."""
    monkeypatch.setattr(sequencing, "_MANY", 1)
    monkeypatch.setattr(sequencing, "_GATHER", 3600.0)
    gathering, gathered, sleep = asyncio.Event(), asyncio.Event(), asyncio.sleep

    async def gather_as_told(seconds: float) -> None:
        if seconds != sequencing._GATHER:
            await sleep(seconds)
            return
        gathering.set()
        await gathered.wait()

    monkeypatch.setattr(asyncio, "sleep", gather_as_told)
    batches: list[int] = []
    async with at_work(fresh_database, signer) as partition:
        append = partition.work.writer.append

        def counted(batch: Sequence[LogMessage]) -> Appendage:
            batches.append(len(batch))
            return append(batch)

        monkeypatch.setattr(partition.work.writer, "append", counted)
        take(partition, *messages[:-2])
        await until_signed(partition, len(messages) - 2)
        await partition.until(gathering.is_set)
        take(partition, messages[-2])
        # Time enough for a commit, were one begun.
        await asyncio.sleep(0.3)
        take(partition, messages[-1])
        gathered.set()
        await until_signed(partition, len(messages))
    assert batches == [len(messages) - 2, 2]


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


async def test_what_is_committed_while_the_work_is_cancelled_is_counted(
    fresh_database: str, messages: list[LogMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, a rebalance makes the counters say less than the database holds, for ever."""
    registry = CollectorRegistry()
    begun, free = threading.Event(), threading.Event()
    committed: list[Appendage] = []
    async with at_work(fresh_database, metrics=SequencerMetrics(registry)) as partition:
        append = partition.work.writer.append

        def held_up(batch: Sequence[LogMessage]) -> Appendage:
            begun.set()
            assert free.wait(20)
            committed.append(append(batch))
            return committed[-1]

        monkeypatch.setattr(partition.work.writer, "append", held_up)
        take(partition, *messages)
        await partition.until(begun.is_set)
        # As a rebalance does.
        partition.task.cancel()
        await asyncio.wait({partition.task})
        free.set()
    # Its lane has ended, and with it what was under way.
    (appendage,) = committed
    assert appendage.entries > 0
    assert registry.get_sample_value("daybook_sequencer_entries_total") == appendage.entries


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
        await partition.until(partition.task.done)
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

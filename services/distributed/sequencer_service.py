"""The sequencer: a Faust app whose one agent brings the messages of each partition to its writer.

The database is the authority on what is done: Faust reads from there (`faust_positions`). Whatever fails here
ends the process, and a supervisor starts it again: nothing is ever skipped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import faust
import structlog
from faust.types import TP
from prometheus_client import CollectorRegistry

from ledger.errors import FencedError
from ledger.event_log import SUBMISSIONS, LogMessage
from services.distributed.faust_app import for_a_while, stream_app
from services.distributed.faust_positions import read_from
from services.distributed.kafka_clients import tls
from services.distributed.lanes import Lane, opened_lanes
from services.distributed.log_errors import LogError
from services.distributed.log_reader import LogReader, log_reader
from services.distributed.opened_store import check_store
from services.distributed.ops import ops_endpoint
from services.distributed.partition_writer import PartitionWriter, beheaded, truncated
from services.distributed.running import Running, end_by_force, served
from services.distributed.sequencing import Delivery, Fetching, SequencerMetrics, Sequencing
from services.distributed.settings import DistributedSettings
from services.distributed.signing import SignerClient
from services.distributed.topics import check_topics

GROUP: Final = "daybook-sequencer"

_LOOK: Final = 1.0
"""Seconds between two looks at the ends of the partitions."""

_PATIENCE: Final = 10.0
"""Seconds for which a message may wait for the governing register before that is an alarm."""

_LAST_SECONDS: Final = 5.0
"""Seconds in which a process that is stalled may still end in order."""

_STALLED: Final = 3
"""Its exit status: something that is needed could not be reached."""

_log = structlog.get_logger()


class StalledError(ConnectionError):
    """Work waits and nothing moves: a start from the beginning is what helps."""


async def run(settings: DistributedSettings, ready: Callable[[Mapping[str, str]], None]) -> None:
    """Sequence until a stop is asked for.

    Raises LogError or SplitViewError for an integrity failure; TopicsError where the topics are not as they
    must be; StoreError, OSError or StalledError where what is needed cannot be reached, or a new start is due.
    """
    await served(settings.grace_seconds, lambda running: _run(settings, ready, running))


async def _run(
    settings: DistributedSettings, ready: Callable[[Mapping[str, str]], None], running: Running
) -> None:
    registry = CollectorRegistry()
    await check_topics(settings.kafka, settings.partitions, prefix=settings.topic_prefix, tls=tls(settings))
    client = SignerClient.of(settings)
    try:
        async with opened_lanes(settings.conninfo()) as lanes, log_reader(settings) as reader:
            for lane in lanes:
                running.in_the_end(lane.hurry)
            await lanes[0].run(lambda: check_store(lanes[0].store, settings))
            app = stream_app(settings, GROUP)
            sequencer = Sequencer(settings, app, lanes, reader, client, registry, running)
            async with ops_endpoint(settings.ops, registry, sequencer.readiness) as ops:
                # From the beginning: the first assignment may hang as well.
                watching = asyncio.ensure_future(running.part(sequencer.watch)())
                try:
                    await app.start()
                    await sequencer.until_assigned()
                    if not running.stopping:
                        ready({"ops": ops})
                    await running.until_over()
                    if alarms := sequencer.alarms():
                        # An end in order would hide them.
                        raise LogError("; ".join(alarms))
                    await for_a_while(
                        app.consumer.commit(), app.farewell, "the group's offsets are not committed"
                    )
                finally:
                    watching.cancel()
                    with suppress(asyncio.CancelledError):
                        await watching
                    await sequencer.drop()
                    await running.finish("goodbye to Kafka", app.stop())
    finally:
        await client.close()


class Sequencer:
    """The partitions that this process has, and the Faust app that brings their messages."""

    def __init__(
        self,
        settings: DistributedSettings,
        app: faust.App,
        lanes: Sequence[Lane],
        reader: LogReader,
        client: SignerClient,
        registry: CollectorRegistry,
        running: Running,
    ) -> None:
        self._settings = settings
        self._app = app
        self._lanes = lanes
        self._reader = reader
        self._reading = asyncio.Lock()
        self._client = client
        self._metrics = SequencerMetrics(registry)
        self._running = running
        self._topic = settings.topic_prefix + SUBMISSIONS
        self._at_work: dict[int, Sequencing] = {}
        self._reached: dict[int, int] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._assigned: frozenset[int] = frozenset()
        self._assigned_at = time.monotonic()
        self._first_assignment = asyncio.Event()
        self._unassigned_since: float | None = time.monotonic()
        """Since when Kafka shares the partitions out; None where it has, perhaps with none for this process."""
        self._alarms: dict[int, str] = {}
        read_from(app, self._positions, self._compare)
        app.on_partitions_revoked.connect(self._on_revoked)
        # Not on_partitions_assigned: Faust seeks between that and this without waiting for it.
        app.on_rebalance_complete.connect(self._on_assigned)
        channel = app.topic(
            self._topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        )
        app.agent(channel, name="submissions", concurrency=1)(self._read)

    async def until_assigned(self) -> None:
        """Wait for the first assignment, which may be of no partition, or for the end."""
        first = asyncio.ensure_future(self._first_assignment.wait())
        over = asyncio.ensure_future(self._running.stop.asked.wait())
        while not (first.done() or self._running.stopping):
            await asyncio.wait({first, over}, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
        first.cancel()
        over.cancel()

    async def _read(self, stream: Any) -> None:
        """Be the agent: hand each message to its partition, unacknowledged."""
        async for event in stream.noack().events():
            message = event.message
            at_work = self._at_work.get(message.partition)
            if at_work is not None:
                taken = LogMessage(message.offset, message.key or b"", message.value or b"")
                at_work.take(Delivery(taken, event.ack))

    def _positions(self) -> Mapping[TP, int]:
        return {TP(self._topic, partition): at_work.done for partition, at_work in self._at_work.items()}

    def _compare(self, committed: Mapping[TP, int]) -> None:
        """Sound the gap alarm where the group has committed what the database does not hold."""
        for place, position in self._positions().items():
            offset = committed.get(place)
            if offset is not None and offset > position:
                self._metrics.gaps.inc()
                _log.error(
                    "gap alarm: the group has committed beyond the database. Was an older one restored?",
                    partition=place.partition,
                    committed=offset,
                    position=position,
                )

    async def _on_revoked(self, *_: Any, **__: Any) -> None:
        if self._unassigned_since is None:
            self._unassigned_since = time.monotonic()
        await self.drop()

    async def _on_assigned(self, *_: Any, **__: Any) -> None:
        try:
            await self.drop()
            assigned = {place.partition for place in self._app.consumer.assignment()}
            self._assigned, self._assigned_at = frozenset(assigned), time.monotonic()
            self._unassigned_since = None
            ends = await self._reader.ends(self._topic)
            if not assigned <= ends.keys():
                raise OSError(f"Kafka tells of no topic {self._topic} with partitions {sorted(assigned)}")
            opened = await asyncio.gather(*(self._open(partition, ends) for partition in sorted(assigned)))
            for partition, at_work in zip(sorted(assigned), opened, strict=True):
                self._at_work[partition] = at_work
                self._tasks[partition] = asyncio.create_task(self._work(partition, at_work))
            _log.info("partitions assigned", positions={p: each.done for p, each in self._at_work.items()})
            self._first_assignment.set()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._running.fail(error)

    async def _open(self, partition: int, ends: Mapping[int, int]) -> Sequencing:
        lane = self._lanes[partition % len(self._lanes)]
        writer = await lane.run(
            lambda: PartitionWriter.open(lane.store, SUBMISSIONS, partition, len(ends), self._settings.origin)
        )
        done = writer.position.next_offset
        before = await self._message(partition, done - 1) if 0 < done <= ends[partition] else None
        writer.check(ends[partition], before)
        self._metrics.epoch.labels(partition).set(writer.position.epoch)
        return Sequencing(writer, lane, self._client, self._fetching(partition), self._metrics)

    async def _message(self, partition: int, offset: int) -> LogMessage | None:
        try:
            async with self._reading:
                return await self._reader.read_one(self._topic, partition, offset)
        except LogError:
            return None

    def _fetching(self, partition: int) -> Fetching:
        place = TP(self._topic, partition)
        consumer = self._app.consumer

        async def seek(offset: int) -> None:
            await consumer.seek_wait({place: offset})

        async def check(offset: int) -> None:
            async with self._reading:
                await self._reader.read_one(self._topic, partition, offset)

        return Fetching(
            lambda: consumer.pause_partitions({place}),
            lambda: consumer.resume_partitions({place}),
            seek,
            check,
        )

    async def _work(self, partition: int, at_work: Sequencing) -> None:
        try:
            await at_work.run()
        except asyncio.CancelledError:
            raise
        except FencedError as error:
            # Kafka has given the partition to another, and will say so. Until then nothing of it is taken.
            _log.warning("fenced: another writer has the partition", partition=partition, why=str(error))
            if self._at_work.get(partition) is at_work:
                del self._at_work[partition]
            await asyncio.sleep(2 * self._settings.session_seconds)
            self._running.fail(StalledError(f"partition {partition} was taken over, but stayed assigned"))
        except BaseException as error:
            self._running.fail(error)

    def _note_reached(self) -> None:
        """Note how far partitions were seen done: the topic may be made anew while nobody has any of them."""
        for partition, at_work in self._at_work.items():
            self._reached[partition] = max(at_work.done, self._reached.get(partition, 0))

    async def drop(self) -> None:
        """Stop the work on every partition. What is under way in a lane ends there: committed, or fenced."""
        self._note_reached()
        tasks, self._tasks = self._tasks, {}
        self._at_work = {}
        self._assigned = frozenset()
        self._alarms = {}
        for task in tasks.values():
            task.cancel()
        if tasks:
            await asyncio.wait(tasks.values())

    async def watch(self) -> None:
        """Measure the lag, sound alarms at the end of a partition, and end the process where nothing moves.

        Raises StalledError; TruncatedError where the topic ends before what was done, or begins behind it;
        OSError where it is gone.
        """
        while True:
            await asyncio.sleep(_LOOK)
            self._check_assignment()
            assigned = self._assigned
            # Before the ends are asked for: none of these may lie beyond one.
            self._note_reached()
            reached = dict(self._reached)
            ends = await self._reader.ends(self._topic)
            if not ends or assigned - ends.keys():
                raise OSError(f"Kafka has no topic {self._topic} any more, or not all of its partitions")
            for partition, done in reached.items():
                if ends.get(partition, done) < done:
                    raise truncated(f"{SUBMISSIONS}/{partition}", ends[partition], done)
            begins = await self._reader.begins(self._topic)
            now = time.monotonic()
            for partition in assigned & ends.keys():
                end = ends[partition]
                at_work = self._at_work.get(partition)
                lag = end - at_work.done if at_work is not None else None
                if at_work is not None and lag is not None:
                    self._metrics.lag.labels(partition).set(max(lag, 0))
                    self._metrics.waiting.labels(partition).set(at_work.waiting is not None)
                    begin = begins.get(partition, 0)
                    if begin > at_work.done:
                        raise beheaded(f"{SUBMISSIONS}/{partition}", begin, at_work.done)
                    self._sound_alarm(partition, _alarm(at_work, begin, at_the_end=lag <= 0))
                    if lag <= 0 or at_work.waiting is not None:
                        # What waits for the governing register is not helped by a new start.
                        at_work.moved_at = now
                since = at_work.moved_at if at_work is not None else self._assigned_at
                if partition in self._assigned and now - since > self._settings.stall_seconds:
                    raise _stalled(
                        f"partition {partition} has not moved for {now - since:.0f} seconds, with "
                        f"{'an unknown number of' if lag is None else lag} messages waiting"
                    )
            self._metrics.unsigned.set(sum(len(each.writer.heads.unsigned) for each in self._at_work.values()))

    def _check_assignment(self) -> None:
        """Raise StalledError where Kafka has not shared the partitions out for too long."""
        # It waits so long for members that have died.
        longest = self._settings.stall_seconds + self._settings.session_seconds
        since = self._unassigned_since
        if since is not None and time.monotonic() - since > longest:
            raise _stalled(
                f"no partitions were given for {time.monotonic() - since:.0f} seconds: a rebalance does not end"
            )

    def _sound_alarm(self, partition: int, alarm: tuple[str, str] | None) -> None:
        if alarm is None:
            self._alarms.pop(partition, None)
            return
        event, text = alarm
        if self._alarms.get(partition) != text:
            _log.error(event, partition=partition, why=text)
            self._alarms[partition] = text

    def alarms(self) -> list[str]:
        """Return the alarms that stand, in words."""
        return list(self._alarms.values())

    def readiness(self) -> Mapping[str, Any]:
        """Tell how every partition stands."""
        alarms = self.alarms()
        partitions = {str(number): each.told() for number, each in sorted(self._at_work.items())}
        return {
            "ready": self._first_assignment.is_set()
            and self._unassigned_since is None
            and not alarms
            and set(self._at_work) == set(self._assigned),
            "partitions": partitions,
            "alarms": alarms,
        }


def _stalled(why: str) -> StalledError:
    """Return the error that ends the process, and see to it that it does end."""
    _log.error("stalled: the process ends, to be started again", why=why)
    end_by_force(_LAST_SECONDS, _STALLED)
    return StalledError(why)


def _alarm(at_work: Sequencing, begin: int, *, at_the_end: bool) -> tuple[str, str] | None:
    """Return the alarm that a partition gives: in a word, and in full; None where all is well."""
    behind, waiting = at_work.writer.heads.behind, at_work.waiting
    if behind and at_the_end:
        return "the topic ends before what was signed", (
            f"{', '.join(sorted(behind))}: the signer has signed beyond what the topic gives, at sizes "
            f"{', '.join(str(mark.size) for _, mark in sorted(behind.items()))}. Messages are missing from the "
            "topic: restore it. Nothing of these registers is signed"
        )
    if waiting is not None and time.monotonic() - at_work.waiting_since > _PATIENCE:
        place = at_work.writer.position
        return "a message waits for the governing register in vain", (
            f"{place.topic}/{place.partition}: message {place.next_offset} was judged at governing size "
            f"{waiting.governing_size}, which the governing register does not reach. It waits, and all behind "
            "it: registration states no size that was not signed. Who else writes to the topic?"
        )
    if begin:
        place = at_work.writer.position
        return "the topic has lost its beginning", (
            f"{place.topic}/{place.partition} begins at offset {begin}: the messages before it were deleted. "
            "The database has what came of them, and all goes on; but nobody can derive the ledger from the "
            "topic any more. Find out who or what deletes from it, restore it from a copy, and keep backups of "
            "the database meanwhile"
        )
    return None

"""Filling the topics of a distributed ledger from an export: how a ledger moves to Kafka.

The topics are for ever, so nothing is sent before the whole export was checked, and only where what the topics
hold already is a beginning of it: an interrupted import is run again, and goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from ledger.event_log import CHECKPOINTS, EMPTY_CHAIN, SUBMISSIONS, LogMessage, chained
from ledger.export import Block, MessageBlock
from services.distributed.kafka_clients import producer
from services.distributed.log_errors import OtherTopicError
from services.distributed.log_reader import LogReader, log_reader
from services.distributed.partitions import partition_of
from services.distributed.rebuilding import LogEnds, Progress, read_ends
from services.distributed.settings import DistributedSettings

_IN_FLIGHT: Final = 32 * 1024 * 1024
"""Bytes that are on their way to Kafka, at most."""

_NOT_ACKNOWLEDGED: Final = 5_000
"""Messages that are on their way to Kafka, at most."""

_Place = tuple[str, int]
"""A topic, without the prefix, and a partition."""

Blocks = Callable[[], Iterator[Block]]
"""Reads the export from its beginning, each time it is called."""


@dataclass(frozen=True, slots=True)
class Filled:
    """What an import sent, and what was there already."""

    messages: int
    notes: int
    messages_there: int
    notes_there: int


async def fill_topics(settings: DistributedSettings, blocks: Blocks, progress: Progress) -> Filled:
    """Send what the topics lack of an export, which has been checked, and make sure that they have just that.

    `progress` is told of bytes. Raises OtherTopicError, with nothing sent, where the topics hold anything that
    is not a beginning of the export, and where somebody else wrote meanwhile; OSError.
    """
    async with log_reader(settings) as reader:
        ends = await read_ends(reader, settings)
        there = _by_place(ends)
        if any(there.values()):
            await _check_beginning(reader, settings, there, blocks)
        sent = await _send(settings, blocks, there, progress)
        after = _by_place(await read_ends(reader, settings))
        for place, end in after.items():
            if end != sent[place]:
                raise OtherTopicError(
                    f"{_named(settings, place)} has {end} messages, and the export {sent[place]}: somebody "
                    "else wrote to it. It does not hold this ledger's log: create the topics anew"
                )
    return Filled(
        messages=sum(sent[place] - end for place, end in there.items() if place[0] == SUBMISSIONS),
        notes=sum(sent[place] - end for place, end in there.items() if place[0] == CHECKPOINTS),
        messages_there=sum(ends.messages.values()),
        notes_there=sum(ends.notes.values()),
    )


def _by_place(ends: LogEnds) -> dict[_Place, int]:
    return {
        **{(SUBMISSIONS, each): end for each, end in ends.messages.items()},
        **{(CHECKPOINTS, each): end for each, end in ends.notes.items()},
    }


def _named(settings: DistributedSettings, place: _Place) -> str:
    return f"{settings.topic_prefix}{place[0]}/{place[1]}"


def _placed(blocks: Iterator[Block], partitions: int) -> Iterator[tuple[_Place, LogMessage]]:
    """Yield the message that each block becomes, with its place and its offset there."""
    reached: dict[_Place, int] = {}
    places: dict[str, int] = {}
    for block in blocks:
        partition = places.get(block.register)
        if partition is None:
            partition = places[block.register] = partition_of(block.register, partitions)
        is_message = isinstance(block, MessageBlock)
        place = (SUBMISSIONS if is_message else CHECKPOINTS), partition
        offset = reached.get(place, 0)
        reached[place] = offset + 1
        value = block.value if isinstance(block, MessageBlock) else block.note
        yield place, LogMessage(offset, block.register.encode(), value)


async def _check_beginning(
    reader: LogReader, settings: DistributedSettings, there: Mapping[_Place, int], blocks: Blocks
) -> None:
    """Compare what the topics hold with the beginning of each partition of the export, by its chain."""
    expected = await asyncio.to_thread(_chains, blocks, there, settings.partitions)
    for place, end in there.items():
        found = EMPTY_CHAIN
        async for messages in reader.read(settings.topic_prefix + place[0], place[1], 0, end):
            for message in messages:
                found = chained(found, message.hash())
        # A chain over more messages, or fewer, is another chain.
        if found != expected.get(place, EMPTY_CHAIN):
            raise OtherTopicError(
                f"{_named(settings, place)} has {end} messages, which are not the beginning of this export: "
                "nothing was sent. Topics hold one ledger for ever: name empty ones, with another topic_prefix"
            )


def _chains(blocks: Blocks, there: Mapping[_Place, int], partitions: int) -> dict[_Place, bytes]:
    """Return the chain of as many messages of each partition of the export as are there."""
    found: dict[_Place, bytes] = {}
    for place, message in _placed(blocks(), partitions):
        if message.offset < there[place]:
            found[place] = chained(found.get(place, EMPTY_CHAIN), message.hash())
    return found


async def _send(
    settings: DistributedSettings, blocks: Blocks, there: Mapping[_Place, int], progress: Progress
) -> dict[_Place, int]:
    """Send what is not there; return where each partition must end then."""
    reached = dict.fromkeys(there, 0)
    with _translated():
        client = producer(settings)
        try:
            await client.start()
            sending = _Sending(client, progress)
            topic = SUBMISSIONS
            for place, message in _placed(blocks(), settings.partitions):
                if place[0] != topic:
                    # No note before the messages that make its root.
                    await sending.settle()
                    topic = place[0]
                reached[place] += 1
                if message.offset >= there[place]:
                    await sending.send(settings.topic_prefix + place[0], place[1], message)
                else:
                    progress(len(message.value))
            await sending.settle()
        finally:
            await client.stop()
    return reached


class _Sending:
    """Messages on their way, not too many at once: the producer keeps the order of each partition."""

    def __init__(self, client: AIOKafkaProducer, progress: Progress) -> None:
        self._client = client
        self._progress = progress
        self._waiting: deque[tuple[asyncio.Future[object], int]] = deque()
        self._bytes = 0

    async def send(self, topic: str, partition: int, message: LogMessage) -> None:
        """Send one message, after waiting for earlier ones where too much is on its way."""
        while self._bytes > _IN_FLIGHT or len(self._waiting) >= _NOT_ACKNOWLEDGED:
            await self._settle_one()
        future = await self._client.send(topic, message.value, message.key, partition)
        self._waiting.append((future, len(message.value)))
        self._bytes += len(message.value)

    async def settle(self) -> None:
        """Wait until everything is acknowledged."""
        while self._waiting:
            await self._settle_one()

    async def _settle_one(self) -> None:
        future, size = self._waiting.popleft()
        await future
        self._bytes -= size
        self._progress(size)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except KafkaError as error:
        raise ConnectionError(f"Kafka: {error}; run the same import again") from error

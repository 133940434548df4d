"""Keeping up: what a process that only reads shows of the ledger, as checkpoints are signed and sealed.

The notes on `daybook.checkpoints` are news, and whoever may write there may forge them: each is verified, and
held against the store, before it is shown. The store is read again every few seconds besides: it alone is the
authority, so only that makes the view current. Kafka being away, or a relay, makes news late and hides nothing.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final, TypeVar, TypeVarTuple

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry, Counter, Gauge

from ledger.checkpoints import Checkpoint, OpenedCheckpoint, open_checkpoint
from ledger.errors import MalformedError, SplitViewError, StoreError, VerificationError
from ledger.governing import GOVERNING
from ledger.ledger import LedgerView
from ledger.notes import VerifierKey
from ledger.sealing import SealedCheckpoint, SealedReader
from services.distributed.kafka_clients import reader, stopped
from services.distributed.settings import DistributedSettings
from services.distributed.topics import CHECKPOINTS
from services.following import cancel
from services.published import Published, SignedCheckpoint
from services.settings import SettingsError

LOOK_AGAIN: Final = 2.0
"""Seconds between two readings of the store."""

LOOK_FOR_SEALS: Final = 5.0
"""Seconds between two looks in the store for seals that the topic may not have told of."""

_TRY_AGAIN: Final = 1.0
"""Seconds after which Kafka, where it is away, is tried again."""

_POLL: Final = 1_000
"""Milliseconds that one poll of the topic takes at most."""

LATEST: Final = 1 << 40
"""A size that no register reaches."""

_log = structlog.get_logger()

_Asked = TypeVarTuple("_Asked")
_Result = TypeVar("_Result")


class CheckpointFollower:
    """Keeps a view, and what is published of it, current. Only for the event loop's thread.

    `started` reads the store first, and then follows while its block runs.
    """

    def __init__(
        self,
        settings: DistributedSettings,
        view: LedgerView,
        published: Published,
        registry: CollectorRegistry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._topic = settings.topic_prefix + CHECKPOINTS
        self._view = view
        self._published = published
        self._clock = clock
        self._read_at = clock()
        self._seals_at = self._read_at + LOOK_FOR_SEALS
        # One thread, since one at a time follows the view; its own, since no caller must keep it waiting.
        self._thread = ThreadPoolExecutor(1, "following")
        self._key: VerifierKey | None = None
        # The seals that were told from here, and by whose policy: another policy's are told anew.
        self._seals: dict[str, tuple[SealedReader, SealedCheckpoint]] = {}
        self._told: Callable[[str], None] = _nobody
        self._consumed: AIOKafkaConsumer = None
        self._dropped = Counter(
            "daybook_checkpoints_dropped_total",
            "Messages on the topic of checkpoints that are none of this ledger, and were not shown.",
            registry=registry,
        )
        age = Gauge(
            "daybook_view_age_seconds",
            "Seconds since the store was last read for the latest checkpoints.",
            registry=registry,
        )
        age.set_function(lambda: self.age)

    def tell_of_cosignatures(self, told: Callable[[str], None]) -> None:
        """Call `told` with each register of which cosignatures were kept, or may have been."""
        self._told = told

    @property
    def age(self) -> float:
        """Seconds since the view was last known to be current: since a reading of the store began."""
        return self._clock() - self._read_at

    @asynccontextmanager
    async def started(self) -> AsyncIterator[asyncio.Task[None]]:
        """Read the store, and follow while the block runs; yield the task, which ends only by failing.

        Raises StoreError where there is no store, or no opened ledger in it; OSError where Kafka is away.
        """
        consumer = await self._consumer()
        try:
            await self._begin()
        except BaseException:
            await stopped(consumer)
            raise
        self._consumed = consumer
        try:
            async with self._running(self._follow()) as following:
                yield following
        finally:
            await stopped(self._consumed)

    @asynccontextmanager
    async def fed(self) -> AsyncIterator[asyncio.Task[None]]:
        """As `started`, for whoever reads the topic itself, and brings what comes by `take`."""
        await self._begin()
        async with self._running(self._look_again()) as following:
            yield following

    async def _begin(self) -> None:
        try:
            await self._read()
            if self._view.fold.opened is None:
                raise StoreError(f"the ledger {self._view.origin} is not open yet: nothing of it is signed")
        except BaseException:
            self._thread.shutdown()
            raise

    @asynccontextmanager
    async def _running(self, work: Coroutine[None, None, None]) -> AsyncIterator[asyncio.Task[None]]:
        following = asyncio.create_task(work)
        try:
            yield following
        finally:
            await cancel([following])
            self._thread.shutdown()

    async def _apart(self, work: Callable[[*_Asked], _Result], *asked: *_Asked) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *asked)

    async def _follow(self) -> None:
        """Follow both. Raises SplitViewError where the ledger's key has signed another history."""
        both = [asyncio.create_task(self._take_news()), asyncio.create_task(self._look_again())]
        try:
            ended, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            await cancel(both)

    # The store.

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AGAIN)
            try:
                await self._read()
            except StoreError as error:
                _log.warning("the store cannot be read", why=str(error), age=round(self.age, 1))

    async def look(self) -> None:
        """Take in whatever the store has by now, and what was sealed of it. Raises StoreError."""
        self._seals_at = self._clock()
        await self._read()

    async def _read(self) -> None:
        """Take in whatever the store has that is not shown. Raises StoreError."""
        began = self._clock()
        shown = {name: one.size for name, one in self._published.registers().items()}
        found = await self._apart(self._newer, shown)
        self._show(found)
        self._read_at = began
        if began >= self._seals_at:
            self._seals_at = began + LOOK_FOR_SEALS
            await self._look_for_seals(shown, self._published.awaited())

    def _newer(self, shown: dict[str, int]) -> dict[str, SignedCheckpoint]:
        """Follow the governing register, then return the latest checkpoint of each register that has grown."""
        heads = self._view.store.heads()
        grown = [name for name, head in heads.items() if head.size > shown.get(name, -1)]
        found: dict[str, SignedCheckpoint] = {}
        # The others may be known, and may be written to, only by what it says.
        for name in sorted(grown, key=lambda name: name != GOVERNING):
            signed = self._stored(name, shown.get(name, -1))
            if signed is None:
                continue
            if name == GOVERNING:
                self._view.follow(signed.size)
            elif name not in self._view.fold.registers:
                continue  # its opening is not signed yet
            found[name] = signed
        return found

    def _stored(self, register: str, shown: int) -> SignedCheckpoint | None:
        kept = self._view.store.note(register, LATEST)
        if kept is None or kept.size <= shown:
            return None
        text, _, _ = kept.note.partition(b"\n\n")
        return SignedCheckpoint(Checkpoint.parse(text + b"\n"), kept.note)

    def _show(self, found: dict[str, SignedCheckpoint]) -> None:
        latest = self._published.registers()
        newer = {name: one for name, one in found.items() if name not in latest or latest[name].size < one.size}
        if newer:
            self._published.add(newer)
            # They came from the store: nobody here has to keep them.
            self._published.saved()
            self._published.wake()

    # The topic.

    async def _consumer(self) -> AIOKafkaConsumer:
        """Return a reader of every partition, from its present end on.

        Raises OSError where Kafka is away, SettingsError where the topic is not as the settings say.
        """
        consumer: AIOKafkaConsumer | None = None
        try:
            consumer = reader(self._settings)
            await consumer.start()
            await self._check(consumer)
            partitions = [TopicPartition(self._topic, number) for number in range(self._settings.partitions)]
            consumer.assign(partitions)
            for partition, end in (await consumer.end_offsets(partitions)).items():
                consumer.seek(partition, end)
        except (KafkaError, ssl.SSLError) as error:
            if consumer is not None:
                await stopped(consumer)
            raise ConnectionError(f"Kafka at {self._settings.kafka}: {error!r}") from error
        except BaseException:
            if consumer is not None:
                await stopped(consumer)
            raise
        return consumer

    async def _check(self, consumer: AIOKafkaConsumer) -> None:
        """Raise SettingsError unless the topic has as many partitions as the settings say."""
        there = 0
        if self._topic in await consumer.topics():
            first = TopicPartition(self._topic, 0)
            consumer.assign([first])
            await consumer.end_offsets([first])  # from then on its partitions are known
            there = len(consumer.partitions_for_topic(self._topic) or ())
        if there != self._settings.partitions:
            raise SettingsError(
                f"{self._topic} has {there} partitions, the settings say {self._settings.partitions}: are the "
                "topics made, and is this the Kafka of this ledger?"
            )

    async def _take_news(self) -> None:
        """Take each checkpoint as it comes. What is missed while Kafka is away is found in the store."""
        while True:
            try:
                while True:
                    messages = await self._consumed.getmany(timeout_ms=_POLL)
                    await self.take(
                        (message.key, message.value) for several in messages.values() for message in several
                    )
            except (KafkaError, StoreError) as error:
                _log.warning("checkpoints are not followed for a moment", why=repr(error))
            await stopped(self._consumed)
            self._consumed = await self._consumer_again()

    async def _consumer_again(self) -> AIOKafkaConsumer:
        while True:
            await asyncio.sleep(_TRY_AGAIN)
            try:
                return await self._consumer()
            except OSError as error:
                _log.warning("Kafka is away", why=str(error))

    async def take(self, messages: Iterable[tuple[bytes | None, bytes | None]]) -> None:
        """Take in messages of the topic. Raises SplitViewError; StoreError, and then the store has the news."""
        shown = self._published.registers()
        signed: dict[str, SignedCheckpoint] = {}
        cosigned: set[str] = set()
        for key, value in messages:
            try:
                register, opened = self._open(key, value)
            except (MalformedError, VerificationError) as error:
                self._drop(key, str(error))
                continue
            if opened.note.unverified:
                cosigned.add(register)
            before = signed.get(register) or shown.get(register)
            if before is None or before.size < opened.checkpoint.size:
                signed[register] = SignedCheckpoint(opened.checkpoint, opened.note.trimmed())
            elif before.size == opened.checkpoint.size and before.checkpoint != opened.checkpoint:
                raise SplitViewError(
                    f"{opened.checkpoint.origin}: two checkpoints of one size, signed by this ledger's key",
                    before.note,
                    value or b"",
                )
        if signed:
            self._show(await self._apart(self._committed, signed))
        # Also where nobody has asked: a thread that has just found none may not have said so yet.
        await self._look_for_seals(cosigned, cosigned)

    def _open(self, key: bytes | None, value: bytes | None) -> tuple[str, OpenedCheckpoint]:
        """Verify a message. Raises MalformedError or VerificationError."""
        if key is None or value is None:
            raise MalformedError("a message without register or note")
        try:
            register = key.decode("ascii")
        except UnicodeDecodeError as error:
            raise MalformedError("a key that names no register") from error
        origin = self._view.register_origin(register)
        return register, open_checkpoint(value, origin, [self._ledger_key().renamed(origin)])

    def _ledger_key(self) -> VerifierKey:
        if self._key is None:
            opened = self._view.fold.opened
            assert opened is not None  # noqa: S101 - `started` has made sure of it
            self._key = VerifierKey.parse(opened.ledger_key)
        return self._key

    def _drop(self, key: bytes | None, why: str) -> None:
        self._dropped.inc()
        _log.error("not a checkpoint of this ledger", key=repr(key)[:200], why=why)

    def _committed(self, signed: dict[str, SignedCheckpoint]) -> dict[str, SignedCheckpoint]:
        """Return those checkpoints of which the store holds the tree, the governing register's taken in first.

        Their signatures are good, but not even the ledger's own key can have shown what is not committed: where
        an older copy of the store was put back, nothing could be proved of them. Raises StoreError.
        """
        heads = self._view.store.heads()
        if any(name != GOVERNING and name not in self._view.fold.registers for name in signed):
            # It was opened meanwhile, by an entry of another partition.
            governing = self._stored(GOVERNING, -1)
            if governing is not None and signed.setdefault(GOVERNING, governing).size < governing.size:
                signed[GOVERNING] = governing
        found: dict[str, SignedCheckpoint] = {}
        for name in sorted(signed, key=lambda name: name != GOVERNING):
            one = signed[name]
            head = heads.get(name)
            if head is None or head.size < one.size:
                _log.error("a signed checkpoint that the store has not reached", register=name, size=one.size)
                continue
            if name == GOVERNING:
                self._view.follow(one.size)
            elif name not in self._view.fold.registers:
                continue  # the next reading of the store finds it
            root = head.root if head.size == one.size else self._view.reader(name).root(one.size)
            if root != one.checkpoint.root:
                _log.error("a signed checkpoint of another history", register=name, size=one.size)
                ours = Checkpoint(one.checkpoint.origin, one.size, root)
                raise SplitViewError(
                    f"{ours.origin}: what is signed is not what the store holds", one.note, ours.text()
                )
            found[name] = one
        return found

    # Seals.

    async def _look_for_seals(self, registers: Iterable[str], expected: Set[str]) -> None:
        """Show what was sealed of these registers, as far as anybody has asked or it is `expected`.

        Of what is expected whoever waits is told, even if it is known by now: finding it wakes nobody else.
        Raises StoreError.
        """
        registers = list(registers)
        for name in registers:
            self._told(name)
        reader = self._published.sealed_reader
        if reader is None:
            return
        shown, known = self._published.registers(), self._published.known_seals()
        wanted: dict[str, int] = {}
        for name in registers:
            if name not in shown or (name not in known and name not in expected):
                continue
            before = known.get(name)
            if before is not None and name in expected:
                self._seal(name, before, reader)
            if before is None or before.size < shown[name].size:
                wanted[name] = shown[name].size
        found = await self._apart(self._sealed, reader, wanted, known.keys())
        for name, sealed in found.items():
            self._seal(name, sealed, reader)

    def _sealed(
        self, reader: SealedReader, wanted: Mapping[str, int], known: Set[str]
    ) -> dict[str, SealedCheckpoint]:
        """Return the latest seals up to the sizes that are `wanted`, of the registers that have one."""
        found: dict[str, SealedCheckpoint] = {}
        for name, size in wanted.items():
            sealed = reader.last_up_to(name, size)
            if sealed is None:
                continue
            found[name] = sealed
            if name not in known:
                # It is asked for when the seal is shown, and then the event loop need not read the store.
                self._published.sealed(name)
        return found

    def _seal(self, register: str, sealed: SealedCheckpoint, reader: SealedReader) -> None:
        """Show a seal and wake whoever waits for it, once."""
        if self._seals.get(register) != (reader, sealed):
            self._seals[register] = (reader, sealed)
            self._published.seal(register, sealed, reader.policy)


def _nobody(_register: str) -> None:
    """Tell nobody."""

"""The sequencer as it runs: real Kafka, real PostgreSQL, and the signer in a process of its own."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

import psutil
import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import OffsetAndMetadata
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ledger.checkpoints import Checkpoint, open_checkpoint
from ledger.entries import MAX_MESSAGE
from ledger.event_log import SUBMISSIONS
from ledger.export import MessageBlock
from ledger.governing import GOVERNING
from ledger.notes import SignerKey
from ledger.stores.memory import MemoryStore
from ledger.stores.postgres import PostgresStore, migrate
from services.distributed.partitions import partition_of
from services.distributed.settings import DistributedSettings
from services.distributed.signing import SignerAwayError, SignerClient
from services.distributed.topics import create_topics
from services.ledger_files import write_key_pair
from services.local.ports import free_port
from services.local.postgres import create_database, drop_database
from tests.support.brokers import SharedKafka, needs_kafka
from tests.support.ledgers import LOG_KEY, ORIGIN, vkey
from tests.support.log_messages import story
from tests.support.service_process import ServiceProcess, launch, running

PARTITIONS: Final = 6
"""So many that a register may have another partition than `governing`, and some have none."""
PATIENCE: Final = 60.0


def positions_in(store: PostgresStore) -> dict[int, int]:
    """Return how far each partition is done."""
    found = {number: store.position(SUBMISSIONS, number) for number in range(PARTITIONS)}
    return {number: position.next_offset if position else 0 for number, position in found.items()}


def done_in(store: PostgresStore) -> int:
    """Return how many messages are done."""
    return sum(positions_in(store).values())


def has_done(count: int) -> Callable[[PostgresStore], bool]:
    """Return what tells whether at least so many messages are done."""
    return lambda store: done_in(store) >= count


async def until(told: Callable[[], bool]) -> None:
    """Wait until something is true."""
    end = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(told):
        assert time.monotonic() < end, f"not in {PATIENCE} s"
        await asyncio.sleep(0.05)


@dataclass(slots=True)
class World:
    """A topic with the messages of a ledger to be, and what is to be made of them."""

    settings: dict[str, object]
    database: str
    folder: Path
    expected: MemoryStore
    blocks: list[MessageBlock]

    @property
    def topic(self) -> str:
        return f"{self.settings['topic_prefix']}{SUBMISSIONS}"

    @property
    def group(self) -> str:
        return f"{self.settings['topic_prefix']}daybook-sequencer"

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    async def send(self, blocks: Sequence[MessageBlock]) -> None:
        """Send messages as registration does."""
        producer = AIOKafkaProducer(bootstrap_servers=self.settings["kafka"], max_request_size=4 << 20)
        await producer.start()
        try:
            for block in blocks:
                await producer.send_and_wait(
                    self.topic,
                    block.value,
                    key=block.register.encode(),
                    partition=partition_of(block.register, PARTITIONS),
                )
        finally:
            await producer.stop()

    async def commit_for_the_group(self, offset_of: Callable[[int], int]) -> None:
        """Commit an offset of every partition in the sequencer's name, while it does not run."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.settings["kafka"], group_id=self.group, enable_auto_commit=False
        )
        await consumer.start()
        try:
            places = [TopicPartition(self.topic, number) for number in range(PARTITIONS)]
            consumer.assign(places)
            await consumer.commit(
                {place: OffsetAndMetadata(offset_of(place.partition), "") for place in places}
            )
        finally:
            await consumer.stop()

    async def committed(self) -> dict[int, int | None]:
        """Return what the group has committed."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.settings["kafka"], group_id=self.group, enable_auto_commit=False
        )
        await consumer.start()
        try:
            return {
                number: await consumer.committed(TopicPartition(self.topic, number))
                for number in range(PARTITIONS)
            }
        finally:
            await consumer.stop()

    async def until_committed(self, ends: Mapping[int, int]) -> None:
        """Wait until the group has committed all: a process that ends is given little time for it."""
        end = time.monotonic() + PATIENCE
        while {number: offset or 0 for number, offset in (await self.committed()).items()} != ends:
            assert time.monotonic() < end, f"not committed: {ends}"
            await asyncio.sleep(0.05)

    def ends(self) -> dict[int, int]:
        """Return how many messages each partition has, when all are sent."""
        found = dict.fromkeys(range(PARTITIONS), 0)
        for block in self.blocks:
            found[partition_of(block.register, PARTITIONS)] += 1
        return found

    async def lose_before(self, partition: int, offset: int) -> None:
        """Delete the beginning of a partition, as retention does."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings["kafka"])
        await admin.start()
        try:
            place = TopicPartition(self.topic, partition)
            await admin.delete_records({place: RecordsToDelete(before_offset=offset)})
        finally:
            await admin.close()

    def register_in(self, partition: int) -> str:
        """Return the name of a register of a partition."""
        names = (f"dft/office-{number}" for number in itertools.count())
        return next(name for name in names if partition_of(name, PARTITIONS) == partition)

    def positions(self) -> dict[int, int]:
        store = PostgresStore(self.database, read_only=True)
        try:
            return positions_in(store)
        finally:
            store.close()

    @contextmanager
    def another_database(self) -> Iterator[str]:
        """Return an empty database beside this one, as a setting says it."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        create_database(self.database, name)
        try:
            migrate(make_conninfo(self.database, dbname=name))
            yield make_conninfo(str(self.settings["database"]), dbname=name)
        finally:
            drop_database(self.database, name)

    async def until(self, told: Callable[[PostgresStore], bool], what: str) -> None:
        """Wait until something is true of the store."""
        store = PostgresStore(self.database, read_only=True)
        try:
            end = time.monotonic() + PATIENCE
            while not await asyncio.to_thread(told, store):
                assert time.monotonic() < end, f"not in {PATIENCE} s: {what}: {store.heads()}"
                await asyncio.sleep(0.05)
        finally:
            store.close()

    async def until_all(self) -> None:
        """Wait until the store is what the messages make."""
        await self.until(lambda store: store.heads() == self.expected.heads(), "all messages appended")

    async def until_signed(self) -> None:
        """Wait until every head has its note, confirming marks as the cosigner does; verify the notes."""
        client = SignerClient.of(DistributedSettings.model_validate(self.settings))
        store = PostgresStore(self.database, read_only=True)
        try:
            end = time.monotonic() + PATIENCE
            while store.unsigned():
                assert time.monotonic() < end, f"not signed: {store.unsigned()}"
                # On a slow disk a call waits behind those of the sequencer for longer than it may.
                with suppress(SignerAwayError):
                    marks = await client.marks()
                    await client.confirm(
                        [mark.checkpoint for mark in marks.by_origin.values() if not mark.confirmed]
                    )
                await asyncio.sleep(0.05)
            for register, head in store.heads().items():
                note = store.note(register, head.size)
                assert note is not None
                opened = open_checkpoint(note.note, f"{ORIGIN}/{register}", [vkey(register)])
                assert opened.checkpoint == Checkpoint(f"{ORIGIN}/{register}", head.size, head.root)
        finally:
            store.close()
            await client.close()


@pytest.fixture
async def world(any_kafka: SharedKafka, prefix: str, fresh_database: str, tmp_path: Path) -> World:
    """A topic without messages, and an empty database."""
    await create_topics(any_kafka.bootstrap, PARTITIONS, prefix=prefix)
    migrate(fresh_database)
    expected, blocks = story(tmp_path)
    key = tmp_path / "log"
    write_key_pair(key, SignerKey(f"{ORIGIN}/{GOVERNING}", LOG_KEY))
    told = {name: str(value) for name, value in conninfo_to_dict(fresh_database).items()}
    password = tmp_path / "password"
    password.write_text(told.pop("password"))
    settings: dict[str, object] = {
        "database_password_file": password,
        "origin": ORIGIN,
        "kafka": any_kafka.bootstrap,
        "topic_prefix": prefix,
        "partitions": PARTITIONS,
        "database": make_conninfo(**told),
        "log_key": key,
        "signer": f"127.0.0.1:{free_port()}",
        "signer_marks": tmp_path / "signer.marks",
    }
    return World(settings, fresh_database, tmp_path, expected, blocks)


@pytest.fixture
def signer(world: World) -> Iterator[ServiceProcess]:
    """The signer, running."""
    with running("signer", world.settings, world.log("signer")) as process:
        yield process


@contextmanager
def sequencer(world: World, name: str = "sequencer", **settings: object) -> Iterator[ServiceProcess]:
    """Run a sequencer while the block runs."""
    with running("sequencer", {**world.settings, **settings}, world.log(name)) as process:
        yield process


async def test_messages_become_signed_notes_in_the_outbox(world: World, signer: ServiceProcess) -> None:
    """What registration sends is not appended, is appended otherwise than embedded, or is not signed."""
    with sequencer(world) as process:
        await world.send(world.blocks)
        await world.until_all()
        await world.until_signed()
        store = PostgresStore(world.database, read_only=True)
        try:
            sent = {row.key.decode() for row in store.outbox(10_000)}
        finally:
            store.close()
        assert sent == set(world.expected.heads())
        assert process.standing()["ready"]
        await world.until_committed(world.ends())
        assert process.terminate() == 0
    assert world.positions() == world.ends()
    assert await world.committed() == {number: end or None for number, end in world.ends().items()}


@needs_kafka
@pytest.mark.parametrize("wrong", ["ahead", "behind"])
async def test_the_group_s_offset_decides_nothing(world: World, signer: ServiceProcess, wrong: str) -> None:
    """A committed offset beyond the database skips messages, or one before it appends them again."""
    half = len(world.blocks) // 2
    with sequencer(world) as process:
        await world.send(world.blocks[:half])
        await world.until(lambda store: done_in(store) == half, "the first half")
        assert process.terminate() == 0
    await world.send(world.blocks[half:])
    ends, done = world.ends(), world.positions()
    await world.commit_for_the_group(lambda partition: ends[partition] if wrong == "ahead" else 0)
    with sequencer(world) as process:
        await world.until_all()
        await world.until_signed()
        alarms = process.metrics()["daybook_sequencer_gap_alarms_total"]
        await world.until_committed(ends)
        assert process.terminate() == 0
    assert world.positions() == ends
    assert await world.committed() == {number: end or None for number, end in ends.items()} | (
        {number: 0 for number, end in ends.items() if not end}
    )
    short = sum(done[number] < ends[number] for number in ends)
    assert alarms == (short if wrong == "ahead" else 0)
    assert ("gap alarm" in process.said()) == (wrong == "ahead")


async def test_a_killed_sequencer_goes_on_where_it_was(world: World, signer: ServiceProcess) -> None:
    """Messages are lost or appended twice when the process dies between them."""
    for part in range(3):
        with sequencer(world) as process:
            sending = asyncio.create_task(world.send(world.blocks[part * 8 : (part + 1) * 8]))
            await world.until(has_done(part * 8 + 1), "a message")
            process.kill()
            await sending
    with sequencer(world) as process:
        await world.send(world.blocks[24:])
        await world.until_all()
        await world.until_signed()
        assert process.terminate() == 0
    assert world.positions() == world.ends()


@needs_kafka
async def test_two_sequencers_share_the_partitions_and_one_takes_over_from_the_other(
    world: World, signer: ServiceProcess
) -> None:
    """A rebalance loses messages, repeats them, or leaves a partition without its writer."""
    with sequencer(world, "one") as one:
        await world.send(world.blocks[:5])
        with sequencer(world, "two") as two:
            await until(
                lambda: (
                    len(one.standing()["partitions"]) == len(two.standing()["partitions"]) == PARTITIONS // 2
                )
            )
            await world.send(world.blocks[5:15])
            await world.until(lambda store: done_in(store) == 15, "by two")
            one.kill()
            await world.send(world.blocks[15:])
            await world.until_all()
            await world.until_signed()
            # Another rebalance may be under way, of whom Kafka has noticed only now that it is gone.
            await until(lambda: len(two.standing()["partitions"]) == PARTITIONS)
            assert two.terminate() == 0
    assert world.positions() == world.ends()


@needs_kafka
async def test_a_paused_sequencer_is_fenced_and_writes_nothing(world: World, signer: ServiceProcess) -> None:
    """A process that was taken for dead appends when it wakes, beside the one that took over."""
    with sequencer(world, "one") as one:
        await world.send(world.blocks[:5])
        await world.until(lambda store: done_in(store) == 5, "the first")
        one.process.send_signal(signal.SIGSTOP)
        with sequencer(world, "two") as two:
            await until(lambda: len(two.standing()["partitions"]) == PARTITIONS)
            await world.send(world.blocks[5:15])
            await world.until(lambda store: done_in(store) == 15, "by two")
            one.process.send_signal(signal.SIGCONT)
            await world.send(world.blocks[15:])
            await world.until_all()
            await world.until_signed()
            assert two.terminate() == 0
    assert world.positions() == world.ends()


@pytest.mark.parametrize("kind", ["truncated", "another one"])
async def test_another_topic_ends_the_process_with_status_one(
    world: World, signer: ServiceProcess, kind: str
) -> None:
    """A topic that lost its end, or was made anew, is appended to the registers of the old one."""
    with sequencer(world) as process:
        await world.send(world.blocks)
        await world.until_all()
        assert process.terminate() == 0
    prefix = f"other-{world.settings['topic_prefix']}"
    await create_topics(str(world.settings["kafka"]), PARTITIONS, prefix=prefix)
    other = replace(world, settings={**world.settings, "topic_prefix": prefix})
    if kind == "another one":
        await other.send([replace(block, value=b"x") for block in world.blocks])
    before = world.positions()
    status, message = ended(other)
    assert status == 1
    assert kind in message
    assert world.positions() == before


def ended(world: World, service: str = "sequencer", **settings: object) -> tuple[int, str]:
    """Run a service that ends by itself; return its status and what it says."""
    process = launch(service, {**world.settings, **settings}, world.log("ended"))
    try:
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    lines = said[said.index("{\n") :]
    return process.returncode, json.loads(lines)["error"]["message"]


@needs_kafka
@pytest.mark.parametrize("running_already", [True, False])
async def test_a_topic_that_lost_its_beginning_is_an_alarm(
    world: World, signer: ServiceProcess, *, running_already: bool
) -> None:
    """The history is gone, to retention or by hand, and nobody is told; or what comes then stands still."""
    lost = partition_of(world.blocks[-1].register, PARTITIONS)
    # The last message of the partition comes after the loss, and is appended.
    *before, last = [block for block in world.blocks if partition_of(block.register, PARTITIONS) == lost]
    await world.send([block for block in world.blocks if block is not last])
    done = len(world.blocks) - 1
    with sequencer(world) as process:
        await world.until(has_done(done), f"{done} messages are done")
        if running_already:
            await world.lose_before(lost, 1)
            await until(lambda: bool(process.standing()["alarms"]))
        else:
            assert process.terminate() == 0
    if not running_already:
        await world.lose_before(lost, 1)
    with sequencer(world) as process:
        await world.send([last])
        await world.until(has_done(done + 1), "the last message is done")
        await until(lambda: bool(process.standing()["alarms"]))
        standing = process.standing()
        assert not standing["ready"]
        (alarm,) = standing["alarms"]
        assert f"{SUBMISSIONS}/{lost} begins at offset 1: the messages before it were deleted" in alarm
        assert len(before) > 1
        # An alarm that stands is told once more in the end.
        assert process.terminate() == 1


@needs_kafka
async def test_messages_lost_before_they_were_done_end_the_process_with_status_one(
    world: World, signer: ServiceProcess
) -> None:
    """What was acknowledged is deleted from the topic, and the ledger goes on beyond it."""
    lost = partition_of(world.blocks[-1].register, PARTITIONS)
    await world.send(world.blocks)
    count = sum(partition_of(block.register, PARTITIONS) == lost for block in world.blocks)
    await world.lose_before(lost, count - 1)
    status, said = ended(world)
    assert status == 1
    assert f"{SUBMISSIONS}/{lost}" in said


@needs_kafka
@pytest.mark.parametrize("service", ["sequencer", "registration"])
async def test_a_topic_that_could_lose_messages_is_not_worked_with(world: World, service: str) -> None:
    """A service begins on a topic that forgets after a week."""
    admin = AIOKafkaAdminClient(bootstrap_servers=world.settings["kafka"])
    await admin.start()
    try:
        week = {"retention.ms": "604800000"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, world.topic, week)])
    finally:
        await admin.close()
    status, message = ended(world, service)
    assert status == 2
    assert "retention.ms=604800000 and not -1" in message


@needs_kafka
async def test_a_rebalance_that_does_not_end_ends_the_process(world: World, signer: ServiceProcess) -> None:
    """Whoever waits for partitions in vain calls itself ready, and is never started anew."""
    patient, brief = {"session_seconds": 120}, {"session_seconds": 6, "stall_seconds": 10}
    with sequencer(world, "two", **brief) as two, sequencer(world, "one", **patient) as one:
        await until(lambda: 0 < len(two.standing()["partitions"]) < PARTITIONS)
        # Kafka waits for it until its session is over: nobody is given anything before.
        one.process.send_signal(signal.SIGSTOP)
        three = launch("sequencer", {**world.settings, **brief}, world.log("three"))
        try:
            assert await asyncio.to_thread(three.wait, 60) == 3
            assert await asyncio.to_thread(two.process.wait, 60) == 3
        finally:
            three.kill()
            three.communicate()
    for name in ("two", "three"):
        assert "no partitions were given" in world.log(name).read_text(encoding="utf-8")


@needs_kafka
async def test_whoever_has_no_partition_is_ready_and_stays(world: World, signer: ServiceProcess) -> None:
    """One process more than there are partitions is taken for one that Kafka has forgotten."""
    prefix = f"one-{world.settings['topic_prefix']}"
    await create_topics(str(world.settings["kafka"]), 1, prefix=prefix)
    # Time for a slow disk to open the partition in, and less together than is waited below.
    brief = {"session_seconds": 6, "stall_seconds": 10}
    with world.another_database() as database:
        alone = {"topic_prefix": prefix, "partitions": 1, "database": database, **brief}
        with sequencer(world, "one", **alone) as one, sequencer(world, "two", **alone) as two:
            both = [one, two]
            await until(lambda: {len(each.standing()["partitions"]) for each in both} == {0, 1})
            idle = next(each for each in both if not each.standing()["partitions"])
            await until(lambda: bool(idle.standing()["ready"]))
            with pytest.raises(subprocess.TimeoutExpired):
                await asyncio.to_thread(idle.process.wait, 20)
            assert idle.standing()["ready"]


def most_memory(pid: int) -> int:
    """Return the most bytes that a process has held in memory."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


@needs_kafka
async def test_a_batch_of_very_many_messages_is_done_bit_by_bit(world: World, signer: ServiceProcess) -> None:
    """Whoever may write to the topic brings a sequencer down with one small batch of nothing."""
    count = 1_000_000
    producer = AIOKafkaProducer(
        bootstrap_servers=world.settings["kafka"],
        max_batch_size=1 << 30,
        max_request_size=1 << 30,
        compression_type="zstd",
    )
    with sequencer(world) as process:
        await producer.start()
        try:
            batch = producer.create_batch()
            for _ in range(count):
                batch.append(key=None, value=b"", timestamp=None)
            before = psutil.Process(process.process.pid).memory_info().rss
            await (await producer.send_batch(batch, world.topic, partition=0))
        finally:
            await producer.stop()
        await world.until(has_done(3_000), "the first of them")
        assert process.standing()["ready"]
        peak = most_memory(process.process.pid)
        print(f"{before >> 20} MiB before, {peak >> 20} at most")
        assert peak - before < 150 * 1024 * 1024
        process.kill()


@needs_kafka
async def test_a_message_larger_than_any_is_set_aside_and_what_follows_is_done(
    world: World, signer: ServiceProcess
) -> None:
    """A message that was compressed from more than the store can hold ends its partition for good."""
    large = bytes(300_000_000)
    producer = AIOKafkaProducer(
        bootstrap_servers=world.settings["kafka"],
        max_batch_size=1 << 30,
        max_request_size=1 << 30,
        compression_type="zstd",
    )
    await producer.start()
    try:
        last = await producer.send_and_wait(world.topic, large, key=large[:20_000_000], partition=0)
    finally:
        await producer.stop()
    assert last.offset == 0
    for message in (1, 2):
        with sequencer(world, stall_seconds=20) as process:
            await world.send([MessageBlock(world.register_in(0), b"")])
            await world.until(lambda store: positions_in(store)[0] == message + 1, "what follows")  # noqa: B023
            assert process.terminate() == 0
    store = PostgresStore(world.database, read_only=True)
    try:
        kept = next(store.quarantined(SUBMISSIONS, 0))
    finally:
        store.close()
    assert (len(kept.key), len(kept.value)) == (MAX_MESSAGE, MAX_MESSAGE)
    assert sha256(large).hexdigest() in kept.why


@needs_kafka
async def test_a_partition_that_stands_still_ends_the_process(world: World, signer: ServiceProcess) -> None:
    """A process that is stuck is never started anew."""
    await world.send(world.blocks[:1])
    with psycopg.connect(world.database) as holding:
        # Whoever takes a partition over waits for this, and so does every commit.
        holding.execute("LOCK TABLE log_position IN ACCESS EXCLUSIVE MODE")
        process = launch("sequencer", {**world.settings, "stall_seconds": 2}, world.log("stuck"))
        try:
            assert await asyncio.to_thread(process.wait, 60) == 3
        finally:
            process.kill()
            process.communicate()
    assert "has not moved" in world.log("stuck").read_text(encoding="utf-8")


async def test_the_signer_may_be_away(world: World) -> None:
    """An absent signer holds up the appending, or a head stays unsigned when it comes back."""
    with sequencer(world) as process:
        await world.send(world.blocks)
        await world.until_all()
        standing = process.standing()
        unsigned = {name for each in standing["partitions"].values() for name in each["unsigned"]}
        assert unsigned == set(world.expected.heads())
        with running("signer", world.settings, world.log("signer")):
            await world.until_signed()
        assert process.terminate() == 0


async def test_a_signer_that_does_not_answer_holds_nobody_up(world: World, signer: ServiceProcess) -> None:
    """Each commit waits for a signer that is stuck."""
    # Whoever waits for a call of the signer waits for longer than this test.
    endless = {"services.distributed.signing._PATIENCE": 3600.0}
    with running("sequencer", world.settings, world.log("sequencer"), endless) as process:
        await world.send(world.blocks[:3])
        await world.until_signed()
        signer.process.send_signal(signal.SIGSTOP)
        try:
            for block in world.blocks[3:]:
                done = sum(world.positions().values())
                await world.send([block])
                await world.until(has_done(done + 1), "one more")
        finally:
            signer.process.send_signal(signal.SIGCONT)
        await world.until_signed()
        assert process.terminate() == 0


@needs_kafka
async def test_a_mark_beyond_the_topic_is_an_alarm(world: World, signer: ServiceProcess) -> None:
    """A store that is behind what was signed is called ready, or ends as if nothing were wrong."""
    with sequencer(world) as process:
        await world.send(world.blocks)
        await world.until_all()
        await world.until_signed()
        assert process.terminate() == 0
    with world.another_database() as older:
        fewer = {**world.settings, "topic_prefix": f"other-{world.settings['topic_prefix']}", "database": older}
        await create_topics(str(world.settings["kafka"]), PARTITIONS, prefix=str(fewer["topic_prefix"]))
        sent = World(fewer, older, world.folder, world.expected, world.blocks[:-1])
        # Before it starts: while it goes on, every topic ends before what was signed.
        await sent.send(sent.blocks)
        with running("sequencer", fewer, world.log("older")) as process:
            # Others are named, too, until the signer is asked for the last time.
            only = f"{world.blocks[-1].register}: "
            await until(lambda: any(each.startswith(only) for each in process.standing()["alarms"]))
            standing = process.standing()
            assert not standing["ready"]
            (alarm,) = [each for each in standing["alarms"] if each.startswith(only)]
            assert process.terminate() == 1
        (logged,) = [line for line in process.said().splitlines() if alarm in line]
        assert "the topic ends before what was signed" in logged

"""The relay: everything that is committed to the outbox reaches Kafka, in order, whatever happens to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.event_log import CHECKPOINTS
from ledger.store import EMPTY_HEAD, Batch, StoredNote
from ledger.stores.postgres import PostgresStore
from services.distributed.partitions import partition_of
from tests.support.brokers import SharedKafka
from tests.support.outbox import PARTITIONS, Ground, Process, Topic, service

REGISTERS = ("governing", "dft/secretary-of-state", "dhsc/secretary-of-state", "ho/minister", "mod/minister")


@pytest.fixture
async def ground(tmp_path: Path, kafka: SharedKafka, prefix: str, fresh_database: str) -> Ground:
    return await Ground.laid(tmp_path, kafka.bootstrap, prefix, fresh_database)


@pytest.fixture
def store(ground: Ground) -> Iterator[PostgresStore]:
    opened = ground.store()
    opened.commit([Batch(name, None, EMPTY_HEAD) for name in REGISTERS])
    yield opened
    opened.close()


def publish(store: PostgresStore, size: int) -> None:
    """Put a note of every register, of this size, into the outbox."""
    store.publish_notes({name: StoredNote(size, f"{name} {size}".encode()) for name in REGISTERS})


def first_seen(topic: Topic) -> dict[str, list[int]]:
    """Return the sizes of each register in the order in which they came first."""
    seen: dict[str, list[int]] = {name: [] for name in REGISTERS}
    for record in topic.read:
        register, size = record.value.decode().split()
        assert record.key == register.encode()
        assert record.partition == partition_of(register, PARTITIONS)
        if int(size) not in seen[register]:
            seen[register].append(int(size))
    return seen


async def until_sent(store: PostgresStore) -> None:
    async with asyncio.timeout(60):
        while await asyncio.to_thread(store.outbox, 1):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def until_role(process: Process, role: str) -> None:
    async with asyncio.timeout(30):
        while (await process.readiness())[1]["role"] != role:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_what_waits_and_what_comes_goes_out_in_order(ground: Ground, store: PostgresStore) -> None:
    """False if notes of a register came in another order, went elsewhere, or stayed in the outbox."""
    for size in range(1, 300):
        publish(store, size)
    with service(ground, "relay") as relay:
        for size in range(300, 400):
            publish(store, size)
        await until_sent(store)
        async with Topic(ground, CHECKPOINTS) as topic:
            await topic.until(399 * len(REGISTERS))
            await topic.more(500)
        assert len(topic.read) == 399 * len(REGISTERS), "without a crash nothing is sent twice"
        assert first_seen(topic) == {name: list(range(1, 400)) for name in REGISTERS}
        status, told = await relay.readiness()
        assert (status, told["ready"], told["role"]) == (200, True, "active")
        assert relay.terminate() == 0


async def test_a_note_does_not_wait_for_the_next_look(ground: Ground, store: PostgresStore) -> None:
    """False if news waited for the poll: here none comes in time."""
    with service(ground, "relay", constants={"services.distributed.relay_service.POLL": 600.0}):
        async with Topic(ground, CHECKPOINTS) as topic:
            for size in range(1, 21):
                await asyncio.to_thread(publish, store, size)
                await topic.until(size * len(REGISTERS))


async def test_a_killed_relay_repeats_and_loses_nothing(ground: Ground, store: PostgresStore) -> None:
    """False if a SIGKILL between sending and noting it lost a note, or let a register's order change."""
    size = 0
    for _ in range(4):
        with service(ground, "relay") as relay:
            began = time.monotonic()
            while time.monotonic() - began < 0.3:
                size += 1
                await asyncio.to_thread(publish, store, size)
            relay.kill()
    with service(ground, "relay"):
        await until_sent(store)
    async with Topic(ground, CHECKPOINTS) as topic:
        await topic.until(size * len(REGISTERS))
        await topic.more(500)
    assert first_seen(topic) == {name: list(range(1, size + 1)) for name in REGISTERS}


async def test_a_crash_between_sending_and_noting_it_sends_again(ground: Ground, store: PostgresStore) -> None:
    """False if a row were dropped before Kafka had acknowledged it: here the note of that cannot be made."""
    publish(store, 1)
    with ground.refusing("DELETE", "outbox"):
        with service(ground, "relay") as relay:
            assert relay.process.wait(30) == 3
        assert len(store.outbox(100)) == len(REGISTERS)
    with service(ground, "relay"):
        await until_sent(store)
    async with Topic(ground, CHECKPOINTS) as topic:
        await topic.until(2 * len(REGISTERS))
    assert first_seen(topic) == {name: [1] for name in REGISTERS}


async def test_a_standby_takes_over(ground: Ground, store: PostgresStore) -> None:
    """False if two relays sent everything twice, or nobody followed one that was killed."""
    with service(ground, "relay") as first:
        await until_role(first, "active")
        with service(ground, "relay") as second:
            publish(store, 1)
            await until_sent(store)
            status, told = await second.readiness()
            assert (status, told["role"]) == (200, "standby")
            async with Topic(ground, CHECKPOINTS) as topic:
                await topic.until(len(REGISTERS))
                await topic.more(300)
                assert len(topic.read) == len(REGISTERS)
                first.kill()
                publish(store, 2)
                await topic.until(2 * len(REGISTERS))
                await until_role(second, "active")
    assert first_seen(topic) == {name: [1, 2] for name in REGISTERS}


async def test_a_standby_can_be_stopped(ground: Ground, store: PostgresStore) -> None:
    """False if whoever waits for the lock could not be ended in order."""
    with service(ground, "relay") as first:
        await until_role(first, "active")
        with service(ground, "relay") as second:
            assert second.terminate() == 0
        assert first.terminate() == 0


async def test_a_relay_whose_lock_is_lost_ends(ground: Ground, store: PostgresStore) -> None:
    """False if a relay worked on for good beside its follower, after its lock went with a connection."""
    with service(ground, "relay") as relay:
        await until_role(relay, "active")
        ground.end_connections("daybook relay lock")
        assert relay.process.wait(30) == 3

"""The anchorer: sealed checkpoints come into the governing register by way of the event log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from ledger.admission import instant
from ledger.checkpoints import Checkpoint
from ledger.entries import Acceptance, Message, accept, form_ledger_entry, parse_entry
from ledger.event_log import SUBMISSIONS
from ledger.governing import GOVERNING
from ledger.governing_types import CheckpointAnchored
from ledger.hashing import Hash
from ledger.notes import SignerKey, sign_note
from ledger.own_records import checkpoint_anchored
from ledger.records import parse_record
from services.distributed.partitions import partition_of
from tests.support.brokers import SharedKafka
from tests.support.ledgers import DEPARTMENT_KEY, ORIGIN, REGISTER, decision, submission
from tests.support.outbox import PARTITIONS, Ground, Process, Topic, service
from tests.support.postgres_ledger import PostgresLedger
from tests.support.witnesses import Witnesses

PATIENCE = 60.0


@pytest.fixture
def witnesses(tmp_path: Path) -> Iterator[Witnesses]:
    with ExitStack() as stack:
        yield Witnesses(tmp_path, stack)


@pytest.fixture
async def ledger(
    tmp_path: Path, kafka: SharedKafka, prefix: str, fresh_database: str, witnesses: Witnesses
) -> AsyncIterator[PostgresLedger]:
    ground = await Ground.laid(tmp_path, kafka.bootstrap, prefix, fresh_database)
    made = PostgresLedger.made(ground, witnesses.policy)
    yield made
    made.close()


async def register(ledger: PostgresLedger, *numbers: int) -> None:
    """Write what registration writes of one accepted submission."""
    acceptance = Acceptance(instant(time.time()), "anonymous", ledger.held.ledger.fold.signed_size)
    records = [decision(number) for number in numbers]
    await send(ledger, accept(submission(REGISTER, records, [DEPARTMENT_KEY]), acceptance))


async def send(ledger: PostgresLedger, message: Message) -> None:
    """Put a message on the topic of submissions."""
    settings = ledger.ground.settings
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka, acks="all")
    await producer.start()
    try:
        topic = settings.topic_prefix + SUBMISSIONS
        where = partition_of(message.register, PARTITIONS)
        await producer.send_and_wait(topic, message.value(), message.register.encode(), where)
    finally:
        await producer.stop()


def anchors(ledger: PostgresLedger) -> list[int]:
    """Return the sizes at which the register is anchored, in the order of the governing register."""
    found = []
    for entry in ledger.store.entries(GOVERNING, 0, 1 << 40):
        record = parse_record(parse_entry(entry).record)
        if isinstance(record, CheckpointAnchored):
            origin, size, *_ = record.checkpoint.split("\n")
            if origin == f"{ORIGIN}/{REGISTER}":
                found.append(int(size))
    return found


async def until_anchored(ledger: PostgresLedger, *sizes: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while anchors(ledger) != list(sizes):
        assert time.monotonic() < deadline, f"anchored at {anchors(ledger)}, not {sizes}"
        await asyncio.sleep(0.05)


async def test_what_is_sealed_is_anchored_once(ledger: PostgresLedger) -> None:
    """False if a sealed checkpoint were not carried into the governing register, or twice, or not at a stop."""
    ground = ledger.ground
    with ExitStack() as stack:
        for name in ("signer", "relay", "cosigner", "sequencer"):
            stack.enter_context(service(ground, name))
        with service(ground, "anchorer", anchor_seconds=1) as anchorer:
            await until_anchored(ledger, 0)
            await register(ledger, 0, 1, 2)
            await until_anchored(ledger, 0, 3)
            anchorer.kill()
        # What was anchored is not anchored again by the next one; what was not, at the end at the latest.
        with service(ground, "anchorer", anchor_seconds=300) as anchorer:
            await until_active(anchorer)
            await register(ledger, 3, 4)
            await until_cosigned(ledger, 5)
            assert await asyncio.to_thread(anchorer.terminate) == 0
        await until_anchored(ledger, 0, 3, 5)
        async with Topic(ground, SUBMISSIONS) as topic:
            await topic.until(5)
            await topic.more(300)
        written = [record for record in topic.read if record.key == GOVERNING.encode()]
        assert len(written) == 3, "each anchor was written once"
        assert {record.partition for record in written} == {partition_of(GOVERNING, PARTITIONS)}


async def until_cosigned(ledger: PostgresLedger, size: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(list(ledger.store.cosigned(REGISTER, size, size + 1))) < 2:
        assert time.monotonic() < deadline, f"{size} is not sealed: {ledger.store.heads()}"
        await asyncio.sleep(0.05)


async def until_active(anchorer: Process) -> None:
    deadline = time.monotonic() + PATIENCE
    while (await anchorer.readiness())[1]["role"] != "active":
        assert time.monotonic() < deadline, "it stands by"
        await asyncio.sleep(0.05)


async def test_what_nobody_has_told_of_is_anchored_at_a_stop(ledger: PostgresLedger) -> None:
    """False if the last anchors left out what was sealed a moment before, of which no news had come yet."""
    ground = ledger.ground
    # It looks into the store at its start, and then lives on what the relay tells.
    seldom = {"services.distributed.following_checkpoints.LOOK_AGAIN": 600.0}
    with ExitStack() as stack:
        for name in ("signer", "cosigner", "sequencer"):
            stack.enter_context(service(ground, name))
        relay = stack.enter_context(service(ground, "relay"))
        with service(ground, "anchorer", constants=seldom, anchor_seconds=1) as anchorer:
            await until_anchored(ledger, 0)
            await register(ledger, 0, 1, 2)
            await until_anchored(ledger, 0, 3)
            relay.kill()
            await register(ledger, 3, 4)
            await until_cosigned(ledger, 5)
            assert await asyncio.to_thread(anchorer.terminate) == 0
        await until_anchored(ledger, 0, 3, 5)


async def test_two_anchorers_write_once(ledger: PostgresLedger) -> None:
    """False if a standby anchored beside the active one, or did not follow it."""
    ground = ledger.ground
    with ExitStack() as stack:
        for name in ("signer", "relay", "cosigner", "sequencer"):
            stack.enter_context(service(ground, name))
        first = stack.enter_context(service(ground, "anchorer", anchor_seconds=1))
        await until_anchored(ledger, 0)
        second = stack.enter_context(service(ground, "anchorer", anchor_seconds=1))
        assert (await second.readiness())[1]["role"] == "standby"
        first.kill()
        await register(ledger, 0)
        await until_anchored(ledger, 0, 1)
        assert (await second.readiness())[1]["role"] == "active"


async def test_an_anchor_that_the_ledger_has_not_signed_ends_no_anchoring(ledger: PostgresLedger) -> None:
    """False if whoever can write to the topic could end the anchoring of a register for ever, unnoticed."""
    ground = ledger.ground
    origin = f"{ORIGIN}/{REGISTER}"
    forged = sign_note(Checkpoint(origin, 1 << 62, Hash(bytes(32))).text(), [SignerKey(origin, DEPARTMENT_KEY)])
    acceptance = Acceptance(instant(time.time()), "ledger", ledger.held.ledger.fold.signed_size)
    entry = form_ledger_entry(checkpoint_anchored(forged), acceptance.accepted_at, acceptance.governing_size)
    with ExitStack() as stack:
        for name in ("signer", "relay", "cosigner", "sequencer"):
            stack.enter_context(service(ground, name))
        first = stack.enter_context(service(ground, "anchorer", anchor_seconds=1))
        await until_anchored(ledger, 0)
        await send(ledger, Message(GOVERNING, acceptance, (entry,), None))
        await until_anchored(ledger, 0, 1 << 62)
        await register(ledger, 0, 1, 2)
        await until_anchored(ledger, 0, 1 << 62, 3)
        first.kill()
        # One that reads all of it at its start knows no better.
        stack.enter_context(service(ground, "anchorer", anchor_seconds=1))
        await register(ledger, 3, 4)
        await until_anchored(ledger, 0, 1 << 62, 3, 5)

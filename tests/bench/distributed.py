"""The distributed ledger, every service a process of its own, on a local Kafka and PostgreSQL.

(i) batches to SEQUENCED, (j) one record at 50 a second, (k) the rebuild, (l) two sequencers beside one.
All share the cores with the broker, the database and the clients.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from daybook.registration.v1 import registration_service_pb2 as pb
from daybook.registration.v1 import registration_service_pb2_grpc as rpc
from daybook.submission.v1 import submission_pb2

from ledger.entries import Acceptance, accept, open_submission
from ledger.tiles import decode_entries
from services.client.channels import open_channel
from services.client.client import message_of
from services.client.signing import SignedSubmission, sign_submission
from services.distributed.kafka_clients import MAX_MESSAGE
from services.local.kafka import Kafka, kafka
from services.local.postgres import Postgres, postgres
from tests.bench.corpus import records
from tests.bench.floors import hash_both_trees
from tests.bench.measure import Measure, keep_in_flight, middle
from tests.support.distributed_load import REGISTERS
from tests.support.distributed_services import DAYBOOK, WRITING, DistributedLedger, distributed_ledger
from tests.support.ledger_dir import make_ledger
from tests.support.ledgers import DEPARTMENT_KEY, ORIGIN, REGISTER
from tests.support.records import decision_bytes

BATCH = 200
BATCHES = 400
REBUILT = 5_000
"""Submissions of which a store is rebuilt, a million entries: the start of processes decides little then."""
IN_FLIGHT = 48
WARMING = 200
"""Submissions before any is timed: a broker that has just started is still compiled."""
ROUNDS = 5
"""Times that a figure and its floor are measured, in turn: the pace of a machine changes."""
RATE = 50
SECONDS = 10
WAIT = 120.0


@contextmanager
def _backends() -> Iterator[tuple[Path, Kafka, Postgres]]:
    with tempfile.TemporaryDirectory(prefix="daybook-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        broker = stack.enter_context(kafka(folder / "kafka"))
        database = stack.enter_context(postgres(folder / "postgres"))
        yield folder, broker, database


@asynccontextmanager
async def _ledger(folder: Path, broker: Kafka, database: Postgres) -> AsyncIterator[DistributedLedger]:
    """Move a new ledger onto the back ends, with every service that writes."""
    place = folder / uuid4().hex
    ledger = await asyncio.to_thread(make_ledger, place / "ledger", (REGISTER, *REGISTERS))
    with distributed_ledger(place / "services", ledger, broker, database, partitions="8") as it:
        it.start_all(WRITING)
        yield it


async def run(asked: set[str]) -> list[Measure]:
    """Run the measures that are asked for."""
    found: list[Measure] = []
    with _backends() as (folder, broker, database):
        if "i" in asked:
            async with _ledger(folder, broker, database) as it:
                found.append(await _batches(it, broker, database))
        if "j" in asked:
            async with _ledger(folder, broker, database) as it:
                found.append(await _alone(it, broker, database))
        if "k" in asked:
            async with _ledger(folder, broker, database) as it:
                await _rate(it, _of_eight_registers(REBUILT), IN_FLIGHT)
                it.stop_all()
                found.append(await _rebuilt(it, database))
        if "l" in asked:
            found.append(await _two_sequencers(folder, broker, database))
    return found


def _signed(register: str, count: int) -> SignedSubmission:
    bodies = [
        decision_bytes(
            register=register,
            record_id=str(uuid4()),
            reference={"number": number + 1, "series": "MD/2026"},
        )
        for number in range(count)
    ]
    return sign_submission(bodies, f"{ORIGIN}/{register}", [DEPARTMENT_KEY])


def _of_eight_registers(count: int) -> list[SignedSubmission]:
    return [_signed(register, BATCH) for _ in range(count // 8) for register in REGISTERS]


@asynccontextmanager
async def _stub(it: DistributedLedger) -> AsyncIterator[Any]:
    async with open_channel(it["registration"].addresses["grpc"], None) as channel:
        yield rpc.RegistrationServiceStub(channel)


async def _sequenced(stub: Any, signed: SignedSubmission) -> None:
    request = pb.RegisterRequest(submission=message_of(signed), wait_for=submission_pb2.WAIT_FOR_SEQUENCED)
    answer = await stub.Register(request, timeout=WAIT)
    assert answer.acknowledgement.state == submission_pb2.STATE_SEQUENCED, answer.acknowledgement


def _value(signed: SignedSubmission) -> bytes:
    """Return the message that registration makes of a submission."""
    opened = open_submission(signed.body, signed.records, signed.signatures, ORIGIN)
    return accept(opened, Acceptance("2026-07-03T15:20:11.042Z", "anonymous", 3)).value()


async def _rate(it: DistributedLedger, waiting: Sequence[SignedSubmission], in_flight: int) -> float:
    """Return records a second from gRPC to SEQUENCED."""
    async with _stub(it) as stub:
        seconds = await keep_in_flight([partial(_sequenced, stub, one) for one in waiting], in_flight)
    return sum(len(one.records) for one in waiting) / seconds


async def _in_turn(both: Callable[[], Awaitable[tuple[float, float]]]) -> tuple[float, float, float]:
    """Return the medians of what is measured, of its floor, and of their ratio in one round."""
    found = [await both() for _ in range(ROUNDS)]
    values, floors = zip(*found, strict=True)
    return middle(values), middle(floors), middle([value / floor for value, floor in found])


async def _batches(it: DistributedLedger, broker: Kafka, database: Postgres) -> Measure:
    """(i) Beside producing and consuming the same messages, and a COPY and commit of the rows of each."""

    async def both() -> tuple[float, float]:
        waiting = [
            sign_submission(records(BATCH), f"{ORIGIN}/{REGISTER}", [DEPARTMENT_KEY]) for _ in range(BATCHES)
        ]
        rate = await _rate(it, waiting, IN_FLIGHT)
        return rate, await _carried(broker, database, [_value(one) for one in waiting])

    await _rate(it, [_signed(REGISTER, BATCH) for _ in range(WARMING)], IN_FLIGHT)
    rate, floor, ratio = await _in_turn(both)
    name = f"distributed: {BATCH} records a submission to SEQUENCED"
    return Measure("i", name, rate, floor, "records/s", ratio, ">= 0.35", ratio >= 0.35)


@asynccontextmanager
async def _topic(broker: Kafka) -> AsyncIterator[tuple[str, AIOKafkaProducer, AIOKafkaConsumer]]:
    """Make a topic of one partition, with a producer as safe as registration's, and a plain consumer."""
    name = f"bench-{uuid4().hex}"
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        configs = {"max.message.bytes": str(MAX_MESSAGE)}
        await admin.create_topics([NewTopic(name, 1, 1, topic_configs=configs)])
    finally:
        await admin.close()
    producer = AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap,
        enable_idempotence=True,
        acks="all",
        max_request_size=MAX_MESSAGE,
        compression_type="lz4",
    )
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap, max_partition_fetch_bytes=MAX_MESSAGE)
    await producer.start()
    await consumer.start()
    try:
        consumer.assign([place := TopicPartition(name, 0)])
        consumer.seek(place, 0)
        yield name, producer, consumer
    finally:
        await producer.stop()
        await consumer.stop()


async def _carried(broker: Kafka, database: Postgres, values: Sequence[bytes]) -> float:
    """Return records a second that only go through Kafka and into one table."""
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        table = f"bench_{uuid4().hex}"
        connection.execute(f"CREATE TABLE {table} (index bigint PRIMARY KEY, entry bytea NOT NULL)")
        async with _topic(broker) as (topic, producer, consumer):
            began = time.perf_counter()
            sending = asyncio.create_task(
                keep_in_flight([partial(producer.send_and_wait, topic, value) for value in values], IN_FLIGHT)
            )
            done = index = 0
            while done < len(values):
                if sending.done():
                    sending.result()
                for messages in (await consumer.getmany(timeout_ms=500)).values():
                    entries = [entry for message in messages for entry in decode_entries(message.value)]
                    await asyncio.to_thread(_copied, connection, table, index, entries)
                    index += len(entries)
                    done += len(messages)
            seconds = time.perf_counter() - began
            await sending
    return index / seconds


def _copied(connection: psycopg.Connection[Any], table: str, first: int, entries: Sequence[bytes]) -> None:
    """Write rows in one transaction."""
    with connection.transaction(), connection.cursor() as cursor:
        statement = f"COPY {table} (index, entry) FROM STDIN (FORMAT BINARY)"
        with cursor.copy(statement) as copy:
            copy.set_types(["int8", "bytea"])
            for index, entry in enumerate(entries, first):
                copy.write_row((index, entry))


async def _alone(it: DistributedLedger, broker: Kafka, database: Postgres) -> Measure:
    """(j) Latency of single records at a steady pace, beside one message there and back and one commit."""
    tails: list[float] = []

    async def both() -> tuple[float, float]:
        waits = sorted(await _waits(it))
        tails.append(waits[len(waits) * 99 // 100] * 1e3)
        return middle(waits) * 1e3, await _carried_alone(broker, database) * 1e3

    async with _stub(it) as stub:
        for _ in range(3 * WARMING):
            await _sequenced(stub, _signed(REGISTER, 1))
    value, floor, ratio = await _in_turn(both)
    name = f"distributed: a single record to SEQUENCED at {RATE}/s, p50 (p99: {middle(tails):.0f} ms)"
    return Measure("j", name, value, floor, "ms", ratio, "<= 8", ratio <= 8)


async def _waits(it: DistributedLedger) -> list[float]:
    """Return the seconds that each of so many single records took, sent at the pace of `RATE`."""
    waits: list[float] = []
    async with _stub(it) as stub:

        async def timed(signed: SignedSubmission) -> None:
            began = time.perf_counter()
            await _sequenced(stub, signed)
            waits.append(time.perf_counter() - began)

        begin = time.perf_counter()
        async with asyncio.TaskGroup() as calls:
            for number in range(RATE * SECONDS):
                signed = _signed(REGISTER, 1)
                await asyncio.sleep(max(0.0, begin + number / RATE - time.perf_counter()))
                calls.create_task(timed(signed))
    return waits


async def _carried_alone(broker: Kafka, database: Postgres) -> float:
    """Return the median seconds of a message there and back and a durable row, at the pace of the records.

    At its own pace it would be another floor: whoever has waited wakes slower than who is at work.
    """
    found = []
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS bench_row (entry bytea NOT NULL)")
        async with _topic(broker) as (topic, producer, consumer):
            begin = time.perf_counter()
            for number in range(RATE * SECONDS):
                await asyncio.sleep(max(0.0, begin + number / RATE - time.perf_counter()))
                began = time.perf_counter()
                await producer.send_and_wait(topic, bytes(1_200))
                await consumer.getone()
                connection.execute("INSERT INTO bench_row VALUES (%s)", (bytes(1_200),))
                found.append(time.perf_counter() - began)
    return middle(found[RATE:])


async def _rebuilt(it: DistributedLedger, database: Postgres) -> Measure:
    """(k) Rebuilding into an empty store, beside a loop that only consumes and hashes both trees."""

    async def both() -> tuple[float, float]:
        empty = f"bench_{uuid4().hex[:12]}"
        database.create_database(empty)
        settings = {**it.environment, "DAYBOOK_DATABASE": it.settings["DATABASE"].replace(it.name, empty)}
        await asyncio.to_thread(_command, settings, "migrate")
        told = json.loads(await asyncio.to_thread(_command, settings, "rebuild", "--from", "kafka"))
        return told["entries"] / told["seconds"], await _consumed_and_hashed(it)

    rate, floor, ratio = await _in_turn(both)
    name = "distributed: rebuild from Kafka, eight registers"
    return Measure("k", name, rate, floor, "entries/s", ratio, ">= 0.40", ratio >= 0.4)


def _command(settings: dict[str, str], *arguments: str) -> bytes:
    command = [*DAYBOOK, *arguments, "--json"]
    return subprocess.run(command, env=settings, check=True, stdout=subprocess.PIPE).stdout


async def _consumed_and_hashed(it: DistributedLedger) -> float:
    """Return entries a second of reading every message of the topic and hashing both trees of it."""
    topic = it.settings["TOPIC_PREFIX"] + "daybook.submissions"
    consumer = AIOKafkaConsumer(
        bootstrap_servers=it.settings["KAFKA"], max_partition_fetch_bytes=MAX_MESSAGE, fetch_max_bytes=16 << 20
    )
    await consumer.start()
    try:
        places = [TopicPartition(topic, number) for number in range(int(it.settings["PARTITIONS"]))]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        for place in places:
            consumer.seek(place, 0)
        left, count, seconds = sum(ends.values()), 0, 0.0
        while left:
            began = time.perf_counter()
            batches = [
                decode_entries(message.value)
                for messages in (await consumer.getmany(timeout_ms=500)).values()
                for message in messages
            ]
            seconds += time.perf_counter() - began
            signed = [entries for entries in batches if len(entries) > 0]
            seconds += hash_both_trees(signed)
            left -= len(batches)
            count += sum(map(len, signed))
        return count / seconds
    finally:
        await consumer.stop()


async def _two_sequencers(folder: Path, broker: Kafka, database: Postgres) -> Measure:
    """(l) Eight registers, one sequencer and then two."""
    rates = []
    for second in (False, True):
        async with _ledger(folder, broker, database) as it:
            if second:
                await asyncio.to_thread(it.start, "sequencer", "second")
            await _rate(it, _of_eight_registers(WARMING), IN_FLIGHT)
            rates.append(await _rate(it, _of_eight_registers(BATCHES), IN_FLIGHT))
    ratio = rates[1] / rates[0]
    name = f"distributed: two sequencers, eight registers, beside one, on {os.cpu_count()} cores"
    return Measure("l", name, rates[1], rates[0], "records/s", ratio, "stated", met=True)

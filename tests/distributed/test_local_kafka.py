"""The local Kafka is a real one: what it has acknowledged outlives its crash."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from services.distributed.topics import SUBMISSIONS, check_topics, create_topics
from services.local import kafka_jars
from services.local.kafka import Kafka, KafkaMissingError, KafkaNotStartedError, kafka

PARTITION = TopicPartition(SUBMISSIONS, 0)


async def produce(broker: Kafka, values: list[bytes]) -> list[int]:
    """Write messages, each acknowledged, and return their offsets."""
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, enable_idempotence=True, acks="all")
    await producer.start()
    try:
        sent = [await producer.send(SUBMISSIONS, value, partition=0) for value in values]
        return [(await each).offset for each in sent]
    finally:
        await producer.stop()


async def consume(broker: Kafka) -> list[tuple[int, bytes]]:
    """Read the partition from its beginning to its end."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([PARTITION])
        await consumer.seek_to_beginning(PARTITION)
        end = (await consumer.end_offsets([PARTITION]))[PARTITION]
        found: list[tuple[int, bytes]] = []
        while len(found) < end:
            async with asyncio.timeout(30):
                message = await consumer.getone()
            found.append((message.offset, message.value))
        return found
    finally:
        await consumer.stop()


async def setting(broker: Kafka, name: str) -> str:
    """Read one setting of the topic, as the broker applies it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, SUBMISSIONS)])
    finally:
        await admin.close()
    return str(next(value for found, value, *_ in answer.resources[0][-1] if found == name))


async def test_acknowledged_messages_outlive_a_sigkill(fresh_kafka: Kafka) -> None:
    """False if a broker killed at once after its acknowledgement lost or repeated a message, or left a gap."""
    await create_topics(fresh_kafka.bootstrap, 1)
    address, pid = fresh_kafka.bootstrap, fresh_kafka.pid
    before = [b"before %d" % number for number in range(1000)]
    assert await produce(fresh_kafka, before) == list(range(1000))
    fresh_kafka.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    fresh_kafka.start()
    assert fresh_kafka.bootstrap == address
    after = [b"after %d" % number for number in range(1000)]
    assert await produce(fresh_kafka, after) == list(range(1000, 2000))
    assert await consume(fresh_kafka) == list(enumerate(before + after))


async def test_a_producer_lives_through_the_crash_and_repeats_nothing(fresh_kafka: Kafka) -> None:
    """False if an idempotent producer that sent on while the broker was away lost or doubled a message."""
    await create_topics(fresh_kafka.bootstrap, 1)
    values = [b"%d" % number for number in range(500)]
    producing = asyncio.create_task(produce_slowly(fresh_kafka, values))
    await asyncio.sleep(0.5)
    await asyncio.to_thread(fresh_kafka.kill)
    await asyncio.to_thread(fresh_kafka.start)
    assert await producing == list(range(500))
    assert await consume(fresh_kafka) == list(enumerate(values))


async def produce_slowly(broker: Kafka, values: list[bytes]) -> list[int]:
    """Write messages one after another for about a second, with one producer for all."""
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, enable_idempotence=True, acks="all")
    await producer.start()
    try:
        sent = []
        for value in values:
            sent.append(await producer.send(SUBMISSIONS, value, partition=0))
            await asyncio.sleep(0.002)
        return [(await each).offset for each in sent]
    finally:
        await producer.stop()


async def test_its_folder_serves_again_with_everything_in_it(tmp_path: Path, fresh_kafka: Kafka) -> None:
    """False if a stop lost something, or a later process could not take the folder up again."""
    await create_topics(fresh_kafka.bootstrap, 1)
    await produce(fresh_kafka, [b"kept"])
    fresh_kafka.stop()
    with kafka(fresh_kafka.folder, durable=True) as again:
        await check_topics(again.bootstrap, 1)
        assert await consume(again) == [(0, b"kept")]
        assert await setting(again, "flush.messages") == "1"


def test_a_broker_that_cannot_start_says_why(fresh_kafka: Kafka) -> None:
    """False if somebody had to look for the log, or a broker that never came up stayed behind."""
    fresh_kafka.kill()
    (fresh_kafka.folder / "data" / "meta.properties").write_text("version=1\nnode.id=2\n", encoding="utf-8")
    with pytest.raises(KafkaNotStartedError, match=r"(?s)ended with status 1:.*cluster\.id was not found"):
        fresh_kafka.start()
    with pytest.raises(RuntimeError, match="does not run"):
        _ = fresh_kafka.pid


def test_a_stop_ends_a_broker_that_hangs(fresh_kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """False if a broker that does not answer SIGTERM were left running."""
    monkeypatch.setattr("services.local.kafka._DOWN", 0.5)
    pid = fresh_kafka.pid
    os.kill(pid, signal.SIGSTOP)
    fresh_kafka.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(("commands", "missing"), [([], "needs Java"), (["java"], "fetched with Maven")])
def test_what_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: list[str], missing: str
) -> None:
    """False if somebody without Java or Maven were not told what to install."""
    (tmp_path / "bin").mkdir()
    for name in commands:
        command = tmp_path / "bin" / name
        command.write_text("#!/bin/sh\necho 'openjdk version \"17.0.1\"' >&2\n", encoding="utf-8")
        command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("DAYBOOK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(KafkaMissingError, match=f"{missing}.*apt-get install"):
        Kafka(tmp_path / "kafka")
    assert not (tmp_path / "kafka").exists()


def test_java_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """False if an old Java were found out only by a broker that does not start."""
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n", encoding="utf-8")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(KafkaMissingError, match="needs Java 17"):
        kafka_jars.find_java()


def test_jars_that_are_there_need_no_maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """False if every start asked a repository."""
    jars = tmp_path / f"kafka-{kafka_jars.KAFKA_VERSION}"
    jars.mkdir()
    monkeypatch.setenv("DAYBOOK_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    assert kafka_jars.kafka_jars() == jars

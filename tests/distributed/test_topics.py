"""The topics of a distributed ledger: made as they must be, and refused where they are not."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import InvalidReplicationFactorError
from aiokafka.protocol.metadata import MetadataRequest

from services.distributed.topics import (
    CHECKPOINTS,
    MAX_MESSAGE,
    REJECTIONS,
    SUBMISSIONS,
    TOPICS,
    TopicsError,
    check_topics,
    create_topics,
)
from services.local.kafka import Kafka
from tests.support.brokers import SharedKafka, started_kafka


@asynccontextmanager
async def administration(kafka: SharedKafka) -> AsyncIterator[AIOKafkaAdminClient]:
    """What an operator has, to make topics wrong with."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


RIGHT = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "unclean.leader.election.enable": "false",
    "max.message.bytes": "4194304",
}
"""What a topic must be set to (docs/distributed.md)."""


async def make(kafka: SharedKafka, settings: Mapping[str, Mapping[str, str]]) -> None:
    """Make topics of three partitions with settings that somebody else chose."""
    topics = [NewTopic(name, 3, 1, topic_configs=dict(each)) for name, each in settings.items()]
    async with administration(kafka) as admin:
        answer = await admin.create_topics(topics)
        assert [code for _, code, _ in answer.topic_errors] == [0] * len(topics)
        while not set(settings) <= set(await admin.list_topics()):  # noqa: ASYNC110 - a broker tells nobody
            await asyncio.sleep(0.05)


async def test_topics_are_made_once_and_left_alone_after(any_kafka: SharedKafka, prefix: str) -> None:
    """False if they could not be made, or a second call were not harmless, or said that it made some."""
    assert await create_topics(any_kafka.bootstrap, 3, prefix=prefix) == [prefix + name for name in TOPICS]
    assert await create_topics(any_kafka.bootstrap, 3, prefix=prefix) == []
    await check_topics(any_kafka.bootstrap, 3, prefix=prefix)


async def test_only_what_is_missing_is_made(any_kafka: SharedKafka, prefix: str) -> None:
    """False if an interrupted creation could not be finished."""
    await make(any_kafka, {prefix + SUBMISSIONS: RIGHT, prefix + REJECTIONS: RIGHT})
    assert await create_topics(any_kafka.bootstrap, 3, prefix=prefix) == [prefix + CHECKPOINTS]


async def test_every_missing_topic_is_named(any_kafka: SharedKafka, prefix: str) -> None:
    """False if an operator learnt of one topic at a time."""
    with pytest.raises(TopicsError) as raised:
        await check_topics(any_kafka.bootstrap, 3, prefix=prefix)
    assert str(raised.value) == "; ".join(f"{prefix}{name} is missing" for name in TOPICS)


async def test_another_number_of_partitions_is_refused_everywhere(any_kafka: SharedKafka, prefix: str) -> None:
    """False if registers could be looked for in partitions where they are not."""
    await create_topics(any_kafka.bootstrap, 3, prefix=prefix)
    with pytest.raises(TopicsError) as raised:
        await create_topics(any_kafka.bootstrap, 4, prefix=prefix)
    assert str(raised.value) == "; ".join(f"{prefix}{name} has 3 partitions and not 4" for name in TOPICS)
    await check_topics(any_kafka.bootstrap, 3, prefix=prefix)


@pytest.mark.parametrize(
    ("topic", "setting", "value"),
    [
        (SUBMISSIONS, "retention.ms", "604800000"),
        (SUBMISSIONS, "retention.bytes", "1073741824"),
        (SUBMISSIONS, "unclean.leader.election.enable", "true"),
        (SUBMISSIONS, "max.message.bytes", "1048576"),
        (CHECKPOINTS, "cleanup.policy", "compact"),
        (REJECTIONS, "cleanup.policy", "delete,compact"),
    ],
)
async def test_a_topic_that_could_lose_messages_is_refused(
    any_kafka: SharedKafka, prefix: str, topic: str, setting: str, value: str
) -> None:
    """False if services ran on a history that a broker deletes, compacts or cannot take."""
    settings = {prefix + name: RIGHT for name in TOPICS}
    await make(any_kafka, settings | {prefix + topic: RIGHT | {setting: value}})
    for look in (check_topics, create_topics):
        with pytest.raises(TopicsError) as raised:
            await look(any_kafka.bootstrap, 3, prefix=prefix)
        assert str(raised.value).startswith(f"{prefix}{topic} has {setting}={value} and not {RIGHT[setting]}")
        assert ";" not in str(raised.value)


async def test_the_settings_of_the_brokers_do_not_count(kafka: SharedKafka, prefix: str) -> None:
    """False if a topic made with a broker's defaults, which delete after a week, passed."""
    await make(kafka, {prefix + name: {} for name in TOPICS})
    with pytest.raises(TopicsError) as raised:
        await create_topics(kafka.bootstrap, 3, prefix=prefix)
    for name in TOPICS:
        assert f"{prefix}{name} has retention.ms=604800000 and not -1" in str(raised.value)


async def test_the_copies_are_as_asked_for(kafka: SharedKafka, prefix: str) -> None:
    """False if a topic could be made with fewer copies than an operator wants, and nobody said so."""
    with pytest.raises(InvalidReplicationFactorError, match=SUBMISSIONS):
        await create_topics(kafka.bootstrap, 3, 1000, in_sync=2, prefix=prefix)
    with pytest.raises(TopicsError, match="is missing"):
        await check_topics(kafka.bootstrap, 3, prefix=prefix)


async def test_every_setting_is_the_topics_own(kafka: SharedKafka, prefix: str) -> None:
    """False if a setting were left to the brokers' defaults, or the copies in sync were not as asked for."""
    await create_topics(kafka.bootstrap, 3, in_sync=2, prefix=prefix)
    async with administration(kafka) as admin:
        asked = [ConfigResource(ConfigResourceType.TOPIC, prefix + name) for name in TOPICS]
        (answer,) = await admin.describe_configs(asked)
    of_a_topic = 1
    for *_, entries in answer.resources:
        own = {name: value for name, value, _, source, *_ in entries if source == of_a_topic}
        assert own == RIGHT | {"min.insync.replicas": "2"}


class PatientBroker(Kafka):
    """A broker that is not given up for being silent: nobody is killed here, but a machine may stall."""

    def _settings(self) -> str:
        return f"{super()._settings()}broker.session.timeout.ms=30000\n"


class SecondBroker(PatientBroker):
    """A broker that joins another one's cluster."""

    def __init__(self, folder: Path, first: Kafka) -> None:
        super().__init__(folder)
        self._first = first

    def _settings(self) -> str:
        first = properties((self._first.folder / "server.properties").read_text(encoding="utf-8"))
        return "".join(
            f"{name}={value}\n"
            for name, value in {
                **properties(super()._settings()),
                "process.roles": "broker",
                "node.id": "2",
                "controller.quorum.voters": first["controller.quorum.voters"],
                "listeners": f"PLAINTEXT://{self.bootstrap}",
            }.items()
        )

    def _format(self) -> None:
        known = properties((self._first.folder / "data" / "meta.properties").read_text(encoding="utf-8"))
        own = {"version": "1", "cluster.id": known["cluster.id"], "node.id": "2"}
        data = self.folder / "data"
        data.mkdir()
        lines = [f"{name}={value}\n" for name, value in own.items()]
        (data / "meta.properties").write_text("".join(lines), encoding="utf-8")


@pytest.fixture
def first_broker(tmp_path: Path) -> Iterator[Kafka]:
    """The first of two brokers."""
    with started_kafka(tmp_path / "first", kind=PatientBroker) as broker:
        yield broker


@asynccontextmanager
async def second_broker(first: Kafka, folder: Path) -> AsyncIterator[None]:
    """Run a second broker, that the first one's cluster knows of."""
    other = SecondBroker(folder / "second", first)
    other.start()
    try:
        async with asyncio.timeout(60):
            while len(await brokers(first)) < 2:  # noqa: ASYNC110 - a broker tells nobody
                await asyncio.sleep(0.1)
        yield
    finally:
        other.stop()


def properties(text: str) -> dict[str, str]:
    """Return what a file of Java's properties says."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


async def test_where_there_are_copies_two_must_be_in_sync(
    first_broker: Kafka, tmp_path: Path, prefix: str
) -> None:
    """False if an acknowledged message could be on one broker alone, and be lost with it."""
    async with second_broker(first_broker, tmp_path):
        await create_topics(first_broker.bootstrap, 2, 2, in_sync=2, prefix=prefix)
        await check_topics(first_broker.bootstrap, 2, prefix=prefix)
        wrong = "min.insync.replicas=1 and not 2 or more, with 2 copies"
        with pytest.raises(TopicsError, match=re.escape(wrong)):
            await create_topics(first_broker.bootstrap, 2, 2, in_sync=1, prefix=f"other.{prefix}")
        with pytest.raises(TopicsError, match="is missing"):
            await check_topics(first_broker.bootstrap, 2, prefix=f"other.{prefix}")
        async with administration(SharedKafka(first_broker.bootstrap)) as admin:
            settings = RIGHT | {"min.insync.replicas": "1"}
            await admin.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, prefix + CHECKPOINTS, settings)]
            )
        async with asyncio.timeout(60):
            # Either broker may be asked, and one of them hears of it from the other.
            while (fault := await fault_of(first_broker, prefix)) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert fault == f"{prefix}{CHECKPOINTS} has {wrong}"


async def test_created_topics_are_known_to_every_broker(
    first_broker: Kafka, tmp_path: Path, prefix: str
) -> None:
    """False if a service that starts next, and asks another broker, could be told that they are missing."""
    async with second_broker(first_broker, tmp_path):
        for number in range(30):
            created = await create_topics(first_broker.bootstrap, 2, 2, in_sync=2, prefix=f"{number}.{prefix}")
            assert [set(created) - known async for known in known_to_each(first_broker)] == [set(), set()]


async def known_to_each(kafka: Kafka) -> AsyncIterator[set[str]]:
    """Yield the topics that each broker of a cluster knows."""
    client = AIOKafkaClient(bootstrap_servers=kafka.bootstrap)
    try:
        await client.bootstrap()
        for broker in client.cluster.brokers():
            answer = await client.send(broker.nodeId, MetadataRequest())
            yield {each["topic"] for each in answer.to_object()["topics"]}
    finally:
        await client.close()


async def fault_of(kafka: Kafka, prefix: str) -> str | None:
    """Return what is wrong with the topics."""
    try:
        await check_topics(kafka.bootstrap, 2, prefix=prefix)
    except TopicsError as error:
        return str(error)
    return None


async def brokers(kafka: Kafka) -> list[object]:
    """Return the brokers of a cluster."""
    async with administration(SharedKafka(kafka.bootstrap)) as admin:
        found: list[object] = (await admin.describe_cluster())["brokers"]
        return found


async def test_a_message_of_four_mebibytes_goes_through(kafka: SharedKafka, prefix: str) -> None:
    """False if a submission of the greatest size could be accepted and then not be written."""
    await create_topics(kafka.bootstrap, 1, prefix=prefix)
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap, enable_idempotence=True, acks="all", max_request_size=MAX_MESSAGE
    )
    await producer.start()
    try:
        written = await producer.send_and_wait(prefix + SUBMISSIONS, os.urandom(MAX_MESSAGE - 200), key=b"dft")
    finally:
        await producer.stop()
    assert written.offset == 0

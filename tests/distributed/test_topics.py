"""The topics of a distributed ledger: made as they must be, and refused where they are not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidReplicationFactorError

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
from tests.support.brokers import SharedKafka


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
        await create_topics(kafka.bootstrap, 3, 1000, prefix=prefix)
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

"""The producer of submissions: one that has failed is replaced, and what is away is said so."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, OutOfOrderSequenceNumber
from prometheus_client import CollectorRegistry

from services.distributed import submission_log
from services.distributed.kafka_clients import producer
from services.distributed.settings import DistributedSettings
from services.distributed.submission_log import SubmissionLog
from services.distributed.topics import create_topics
from services.settings import SettingsError
from tests.support.brokers import SharedKafka
from tests.support.kafka_ledger import PARTITIONS, settings_of
from tests.support.ledgers import REGISTER

NOWHERE = "postgresql://nobody:secret@127.0.0.1:1/none"


@pytest.fixture
async def settings(kafka: SharedKafka, prefix: str, tmp_path: Path) -> DistributedSettings:
    await create_topics(kafka.bootstrap, PARTITIONS, prefix=prefix)
    return settings_of(tmp_path, kafka.bootstrap, prefix, NOWHERE)


async def test_a_producer_that_failed_is_replaced(
    settings: DistributedSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, one message that the broker gave up would be the last that this process ever sent."""
    made: list[AIOKafkaProducer] = []

    def kept(told: DistributedSettings) -> AIOKafkaProducer:
        made.append(producer(told))
        return made[-1]

    monkeypatch.setattr(submission_log, "producer", kept)
    log = SubmissionLog(settings, CollectorRegistry())
    async with log.started():
        await log.append(REGISTER, b"one")

        async def out_of_order(*_: Any, **__: Any) -> Any:
            # What a broker answers for ever, once an idempotent producer's messages are not in sequence.
            failed = asyncio.get_running_loop().create_future()
            failed.set_exception(OutOfOrderSequenceNumber())
            return failed

        monkeypatch.setattr(made[0], "send", out_of_order)
        with pytest.raises(OSError, match="OutOfOrder"):
            await log.append(REGISTER, b"two")
        await log.append(REGISTER, b"two")
        assert len(made) == 2


async def test_a_topic_of_another_number_of_partitions_is_refused(settings: DistributedSettings) -> None:
    """If false, a register would move to another partition, and be in two."""
    log = SubmissionLog(settings.model_copy(update={"partitions": PARTITIONS + 1}), CollectorRegistry())
    with pytest.raises(SettingsError, match="partitions"):
        async with log.started():
            pass


async def test_a_kafka_that_is_not_there_is_said_so(settings: DistributedSettings) -> None:
    """If false, a supervisor could not tell what to start again."""
    log = SubmissionLog(settings.model_copy(update={"kafka": "127.0.0.1:1"}), CollectorRegistry())
    with pytest.raises(OSError, match=KafkaConnectionError.__name__):
        async with log.started():
            pass

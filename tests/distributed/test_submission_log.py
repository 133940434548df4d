"""The producer of submissions: one that has failed is replaced, and what is away is said so."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError, OutOfOrderSequenceNumber
from prometheus_client import CollectorRegistry

from services.distributed import submission_log
from services.distributed.kafka_clients import producer
from services.distributed.partitions import partition_of
from services.distributed.settings import DistributedSettings
from services.distributed.submission_log import SubmissionLog
from services.distributed.topics import create_topics
from services.settings import SettingsError
from tests.support.brokers import SharedKafka
from tests.support.distributed_load import REGISTERS
from tests.support.kafka_ledger import PARTITIONS, settings_of
from tests.support.ledgers import REGISTER

NOWHERE = "postgresql://nobody:secret@127.0.0.1:1/none"


@pytest.fixture
async def settings(kafka: SharedKafka, prefix: str, tmp_path: Path) -> DistributedSettings:
    await create_topics(kafka.bootstrap, PARTITIONS, prefix=prefix)
    return settings_of(tmp_path, kafka.bootstrap, prefix, NOWHERE)


@pytest.fixture
async def made(settings: DistributedSettings, monkeypatch: pytest.MonkeyPatch) -> AIOKafkaProducer:
    """The producer that a log will have."""
    made = producer(settings)
    monkeypatch.setattr(submission_log, "producer", lambda _: made)
    return made


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


async def test_only_one_submission_waits_for_room_in_a_partition(
    made: AIOKafkaProducer, settings: DistributedSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, what each costs grows with how many wait; or one partition holds the others up."""
    log = SubmissionLog(settings, CollectorRegistry())
    under_way: list[int] = []
    room = asyncio.Event()
    send = made.send

    async def counted(*told: Any, partition: int, **named: Any) -> Any:
        under_way.append(partition)
        await room.wait()
        return await send(*told, partition=partition, **named)

    monkeypatch.setattr(made, "send", counted)
    other = next(
        name for name in REGISTERS if partition_of(name, PARTITIONS) != partition_of(REGISTER, PARTITIONS)
    )
    async with log.started():
        sent = [asyncio.create_task(log.append(REGISTER, b"%d" % number)) for number in range(5)]
        sent.append(asyncio.create_task(log.append(other, b"other")))
        await asyncio.sleep(0.1)
        assert sorted(under_way) == sorted(partition_of(name, PARTITIONS) for name in (REGISTER, other))
        room.set()
        await asyncio.gather(*sent)
        assert len(under_way) == len(sent)


async def test_who_waits_for_room_is_told_at_once_that_there_is_none(
    made: AIOKafkaProducer, settings: DistributedSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, each would wait as long for a broker that stands still as the one before."""
    log = SubmissionLog(settings, CollectorRegistry())
    calls: list[int] = []
    over = asyncio.Event()

    async def stalled(*_: Any, partition: int, **__: Any) -> Any:
        calls.append(partition)
        await over.wait()
        raise KafkaTimeoutError

    monkeypatch.setattr(made, "send", stalled)
    async with log.started():
        sent = [asyncio.create_task(log.append(REGISTER, b"%d" % number)) for number in range(3)]
        await asyncio.sleep(0.1)
        over.set()
        assert [type(each) for each in await asyncio.gather(*sent, return_exceptions=True)] == [
            ConnectionError
        ] * 3
        assert len(calls) == 1


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

"""All that was ever told on `daybook.checkpoints`, as anybody reads it who suspects the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition

from ledger.checkpoints import Checkpoint, open_checkpoint
from ledger.event_log import CHECKPOINTS
from ledger.hashing import Hash
from services.ledger_files import public_path, read_public_key
from tests.support.distributed_services import DistributedLedger
from tests.support.ledgers import ORIGIN


@dataclass(frozen=True, slots=True)
class Told:
    """What the ledger's key has signed: by register, every size with its root. `read` counts the messages."""

    roots: Mapping[str, Mapping[int, Hash]]
    read: int

    def largest(self, register: str) -> int:
        """Return the largest size that was told of a register, -1 where none was."""
        return max(self.roots.get(register, {}), default=-1)

    def since(self, before: Told) -> dict[str, list[int]]:
        """Return the sizes that were not told before, by register."""
        return {
            register: sorted(of_register.keys() - before.roots.get(register, {}).keys())
            for register, of_register in self.roots.items()
        }


async def all_told(it: DistributedLedger) -> Told:
    """Read the whole topic, and verify every note. Fails where two of one size have different roots."""
    key = read_public_key(public_path(it.ledger.directory.log_key))
    topic = it.settings["TOPIC_PREFIX"] + CHECKPOINTS
    partitions = [TopicPartition(topic, number) for number in range(int(it.settings["PARTITIONS"]))]
    consumer = AIOKafkaConsumer(bootstrap_servers=it.broker.bootstrap, group_id=None, enable_auto_commit=False)
    roots: dict[str, dict[int, Hash]] = {}
    read = 0
    await consumer.start()
    try:
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        async with asyncio.timeout(60):
            while any([await consumer.position(place) < end for place, end in ends.items()]):
                for messages in (await consumer.getmany(timeout_ms=500)).values():
                    for message in messages:
                        register = (message.key or b"").decode()
                        origin = f"{ORIGIN}/{register}"
                        told = open_checkpoint(message.value or b"", origin, [key.renamed(origin)]).checkpoint
                        _take(roots.setdefault(register, {}), told)
                        read += 1
    finally:
        await consumer.stop()
    return Told(roots, read)


def _take(roots: dict[int, Hash], told: Checkpoint) -> None:
    held = roots.setdefault(told.size, told.root)
    assert held == told.root, f"{told.origin}: two roots of size {told.size} were signed"

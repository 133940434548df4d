"""The sequencer killed, paused, doubled, under load: nothing acknowledged is lost, nothing twice, no fork."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.brokers import SharedKafka, SharedPostgres
from tests.support.distributed_load import REGISTERS, DistributedLoad
from tests.support.distributed_services import WRITING, DistributedLedger, distributed_ledger
from tests.support.ledger_dir import make_ledger

pytestmark = [pytest.mark.hammer, pytest.mark.timeout(1_800)]

ROUNDS = int(os.environ.get("DAYBOOK_ROUNDS", "3"))
"""Kills under load."""

SEED = int(os.environ.get("DAYBOOK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
"""Printed, so that a failure can be repeated as far as the scheduling of processes allows."""


@pytest.fixture
def it(tmp_path: Path, kafka: SharedKafka, postgres: SharedPostgres) -> Iterator[DistributedLedger]:
    """A distributed ledger of eight registers, with every service that writes."""
    ledger = make_ledger(tmp_path / "ledger", registers=REGISTERS)
    with distributed_ledger(tmp_path / "services", ledger, kafka, postgres) as made:
        made.start_all(WRITING)
        yield made


@pytest.fixture
def load(it: DistributedLedger) -> DistributedLoad:
    """Departments that write to it."""
    print(f"DAYBOOK_SEED={SEED} DAYBOOK_ROUNDS={ROUNDS}")
    return DistributedLoad(it.ledger, random.Random(SEED))


async def finished(it: DistributedLedger, load: DistributedLoad) -> None:
    """Let what is unanswered be answered, and compare all that was acknowledged with all that is there."""
    await load.finish(it["registration"].addresses["grpc"])
    copy = await asyncio.to_thread(it.settled)
    held = load.compare(copy)
    print(f"{load.acknowledged} acknowledged, {sum(len(one.entries) for one in held.values())} entries")


async def test_nothing_acknowledged_is_lost_or_doubled_however_often_the_sequencer_is_killed(
    it: DistributedLedger, load: DistributedLoad
) -> None:
    """False if a crash between append, signature and acknowledgement lost or doubled a submission."""
    async with load.on(it["registration"].addresses["grpc"]):
        for _ in range(ROUNDS):
            await load.until(30)
            await asyncio.sleep(load.draw.uniform(0.0, 1.0))
            it["sequencer"].kill()
            await asyncio.to_thread(it.start, "sequencer")
        await load.until(30)
    await finished(it, load)


async def test_a_sequencer_that_was_paused_past_its_session_appends_nothing_when_it_wakes(
    it: DistributedLedger, load: DistributedLoad
) -> None:
    """False if a zombie's late commit appended what its successor had appended, or anything else."""
    async with load.on(it["registration"].addresses["grpc"]):
        await load.until(30)
        zombie = it.services.pop("sequencer")
        zombie.pause()
        try:
            await asyncio.to_thread(it.start, "sequencer", "successor")
            await load.until(60)
        finally:
            zombie.resume()
        await load.until(30)
        it.services["zombie"] = zombie
    await finished(it, load)


async def test_sequencers_that_join_and_leave_share_the_partitions_and_nothing_else(
    it: DistributedLedger, load: DistributedLoad
) -> None:
    """False if two sequencers ever wrote one register, or one that leaves took messages with it."""
    await asyncio.to_thread(it.start, "sequencer", "second")
    async with load.on(it["registration"].addresses["grpc"]):
        await load.until(60)
        assert it["second"].terminate() == 0
        await load.until(60)
        await asyncio.to_thread(it.start, "sequencer", "third")
        await load.until(60)
        it["third"].kill()
        await load.until(60)
    await finished(it, load)

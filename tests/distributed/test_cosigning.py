"""The cosigner: what is signed is sealed by real witnesses, and nothing grows that they have not confirmed."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ledger.checkpoints import Checkpoint
from ledger.event_log import CHECKPOINTS
from ledger.notes import split_note
from ledger.witnessing import Policy
from services.distributed.signing import SignerAwayError
from tests.support.brokers import SharedKafka
from tests.support.ledgers import ORIGIN, REGISTER
from tests.support.outbox import Ground, Process, Topic, service
from tests.support.postgres_ledger import PostgresLedger, longer_copy, witness_knows
from tests.support.witnesses import NAMES, Witnesses

PATIENCE = 60.0


@pytest.fixture
def witnesses(tmp_path: Path) -> Iterator[Witnesses]:
    with ExitStack() as stack:
        yield Witnesses(tmp_path, stack)


@pytest.fixture
async def ground(tmp_path: Path, kafka: SharedKafka, prefix: str, fresh_database: str) -> Ground:
    return await Ground.laid(tmp_path, kafka.bootstrap, prefix, fresh_database)


@pytest.fixture
async def ledger(ground: Ground, witnesses: Witnesses) -> AsyncIterator[PostgresLedger]:
    made = PostgresLedger.made(ground, witnesses.policy)
    yield made
    made.close()


async def until(condition: Callable[[], Awaitable[bool]], what: str, every: float = 0.05) -> None:
    deadline = time.monotonic() + PATIENCE
    while not await condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        await asyncio.sleep(every)


async def until_told(process: Process, told: Callable[[dict[str, Any]], bool], what: str) -> None:
    async def so() -> bool:
        return told((await process.readiness())[1])

    await until(so, what)


async def until_sealed(topic: Topic, policy: Policy, register: str, size: int) -> Checkpoint:
    """Read the topic until there is a note of this size that meets the policy's quorum."""
    seen = 0
    deadline = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < deadline, f"{register} at {size} was not sealed"
        await topic.more()
        for record in topic.read[seen:]:
            if record.key != register.encode():
                continue
            opened = policy.open(record.value, f"{ORIGIN}/{register}")
            names = {each.witness for each in policy.cosignatures(opened)}
            if opened.checkpoint.size >= size and policy.quorum.is_met_by(names):
                return opened.checkpoint
        seen = len(topic.read)


async def confirmed(ledger: PostgresLedger, register: str = REGISTER) -> bool:
    client = ledger.client
    try:
        origin = f"{ORIGIN}/{register}"
        mark = (await client.marks([origin])).by_origin.get(origin)
        return mark is not None and mark.confirmed
    except SignerAwayError:
        return False
    finally:
        await client.close()


async def test_what_is_signed_is_sealed_on_the_topic(ledger: PostgresLedger, witnesses: Witnesses) -> None:
    """False if a signed checkpoint were not taken to the witnesses, or its cosignatures not to the topic."""
    ground = ledger.ground
    with service(ground, "signer"), service(ground, "relay"), service(ground, "cosigner") as cosigner:
        async with Topic(ground, CHECKPOINTS) as topic:
            await until_sealed(topic, witnesses.policy, REGISTER, 0)
            await until(lambda: confirmed(ledger), "the signer lets the register grow")
            size = await ledger.grow(range(3))
            sealed = await until_sealed(topic, witnesses.policy, REGISTER, size)
            assert sealed.root == ledger.store.heads()[REGISTER].root
        kept = list(ledger.store.cosigned(REGISTER, size, size + 1))
        assert {each.last.name for each in kept} == {made.key.name for made in witnesses.made.values()}

        def sealed_everything(told: dict[str, Any]) -> bool:
            return bool(told["sealing"]["quorum_met"]) and not told["sealing"].get("unconfirmed")

        await until_told(cosigner, sealed_everything, "readiness says that all is sealed")
        assert cosigner.terminate() == 0


async def test_news_of_the_topic_is_what_wakes_it(ledger: PostgresLedger) -> None:
    """False if a checkpoint waited for the next look into the store: that is every two seconds."""
    ground = ledger.ground
    with service(ground, "signer"), service(ground, "relay"), service(ground, "cosigner"):
        await until(lambda: confirmed(ledger), "the signer lets the register grow")
        await seal(ledger, await ledger.grow([0]))
        took = []
        for number in range(1, 10):
            size = await ledger.grow([number])
            began = time.monotonic()
            await seal(ledger, size)
            took.append(time.monotonic() - began)
        print(f"p50 {statistics.median(took) * 1000:.0f} ms")
        # By looks alone it would be a second on average.
        assert statistics.median(took) < 0.6


async def seal(ledger: PostgresLedger, size: int) -> None:
    """Wait until both witnesses' cosignatures of a size are kept."""

    async def kept() -> bool:
        return len(await asyncio.to_thread(lambda: list(ledger.store.cosigned(REGISTER, size, size + 1)))) == 2

    await until(kept, f"{size} is sealed", every=0.005)


async def test_a_restarted_signer_is_confirmed_anew(ledger: PostgresLedger, witnesses: Witnesses) -> None:
    """False if confirmations outlived the signer that was told, or witnesses were not asked again."""
    ground = ledger.ground
    with service(ground, "relay"), service(ground, "cosigner"):
        with service(ground, "signer") as signer:
            await until(lambda: confirmed(ledger), "the first signer is told")
            await ledger.grow(range(3))
            signer.kill()
        witnesses.kill("two")
        ledger.add(range(3, 5))
        with service(ground, "signer"):
            # One of two is no quorum: the cosigner must not tell this signer what was told the one before.
            for _ in range(40):
                await ledger.sign()
                await asyncio.sleep(0.05)
            assert ledger.store.unsigned() == [(REGISTER, 5)]
            assert not await confirmed(ledger)
            witnesses.start("two")
            await ledger.until_signed()
            async with Topic(ground, CHECKPOINTS) as topic:
                await until_sealed(topic, witnesses.policy, REGISTER, 5)


async def test_a_witness_that_knows_more_than_anybody_here_ends_it(
    ledger: PostgresLedger, witnesses: Witnesses, tmp_path: Path
) -> None:
    """False if the cosigner went on beside a longer history that neither signer nor store knows."""
    ledger.store.publish_notes({})
    copy = longer_copy(witnesses.policy, [range(7)], tmp_path / "copy.marks")
    witness_knows(witnesses.running["one"], copy)
    ground = ledger.ground
    with service(ground, "signer"), service(ground, "cosigner") as cosigner:
        assert await asyncio.to_thread(cosigner.process.wait, 60) == 1
        said = cosigner.log.read_text()
        assert "holds 7 entries, where this ledger has 0" in said
        theirs = copy.published.latest(REGISTER).note
        assert split_note(theirs)[0].decode() in said.replace("\\n", "\n"), "the evidence has both notes"
        assert not await confirmed(ledger)


async def test_a_store_that_is_behind_the_signer_catches_up_first(
    ledger: PostgresLedger, witnesses: Witnesses, tmp_path: Path
) -> None:
    """False if a restored store made the cosigner stop for what the signer itself has signed before."""
    marks = ledger.ground.folder / "signer.marks"
    marks.unlink()
    copy = longer_copy(witnesses.policy, [range(3), range(3, 5)], marks)
    copy.signer.close()
    for name in NAMES:
        witness_knows(witnesses.running[name], copy)
    ground = ledger.ground
    with service(ground, "signer"), service(ground, "relay"), service(ground, "cosigner") as cosigner:

        def waits(told: dict[str, Any]) -> bool:
            troubles = [each["trouble"] or "" for each in told.get("sealing", {}).get("witnesses", [])]
            return bool(troubles) and all("newer checkpoint of ours" in each for each in troubles)

        await until_told(cosigner, waits, "the witnesses are ahead, and that is expected")
        assert not await confirmed(ledger)
        ledger.add(range(3))
        ledger.add(range(3, 5))
        await ledger.until_signed()
        await until(lambda: confirmed(ledger), "the caught-up register is confirmed")
        assert await ledger.grow(range(5, 6)) == 6
        assert cosigner.process.poll() is None


async def test_what_the_store_holds_and_nobody_here_remembers_signing_is_taken_from_the_witness(
    ledger: PostgresLedger, witnesses: Witnesses, tmp_path: Path
) -> None:
    """False if a witness were accused, or nothing ever signed again, since notes and marks are older copies."""
    copy = longer_copy(witnesses.policy, [range(3)], tmp_path / "copy.marks")
    witness_knows(witnesses.running["one"], copy)
    ledger.add(range(3))
    ground = ledger.ground
    with service(ground, "signer"), service(ground, "cosigner") as cosigner:
        await until(lambda: confirmed(ledger), "the signer remembers, and is confirmed")
        kept = {each.last.name for each in ledger.store.cosigned(REGISTER, 3, 4)}
        assert kept == {made.key.name for made in witnesses.made.values()}
        assert await ledger.grow(range(3, 5)) == 5
        assert cosigner.process.poll() is None


async def test_without_witnesses_everything_may_grow(ground: Ground) -> None:
    """False if a ledger whose policy asks nobody waited for a confirmation that never comes."""
    ledger = PostgresLedger.made(ground, None)
    try:
        with service(ledger.ground, "signer"), service(ledger.ground, "cosigner") as cosigner:
            assert await ledger.grow(range(3)) == 3
            status, told = await cosigner.readiness()
            assert (status, told["sealing"]) == (200, "none configured")
    finally:
        ledger.close()

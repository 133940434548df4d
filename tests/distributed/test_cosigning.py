"""The cosigner: what is signed is sealed by real witnesses, and nothing grows that they have not confirmed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from ledger.checkpoints import Checkpoint
from ledger.entries import parse_entry
from ledger.event_log import CHECKPOINTS, SUBMISSIONS
from ledger.governing import GOVERNING
from ledger.governing_types import RestoreDeclared
from ledger.notes import split_note
from ledger.records import parse_record
from ledger.tiles import encode_bundle
from ledger.witnessing import Policy
from services.distributed.partitions import partition_of
from services.distributed.signing import SignerAwayError
from tests.support.brokers import SharedKafka
from tests.support.ledgers import ORIGIN, REGISTER, LedgerUnderTest
from tests.support.outbox import PARTITIONS, Ground, Process, Topic, service
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
    """False if a checkpoint waited for the next look into the store: here none comes in time."""
    ground, seldom = ledger.ground, {"services.distributed.following_checkpoints.LOOK_AGAIN": 600.0}
    with (
        service(ground, "signer"),
        service(ground, "relay"),
        service(ground, "cosigner", constants=seldom),
    ):
        await until(lambda: confirmed(ledger), "the signer lets the register grow")
        for number in range(10):
            await seal(ledger, await ledger.grow([number]))


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
        # The signer is told before the cosignatures are kept.
        await seal(ledger, 3)
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


def messages_of(copy: LedgerUnderTest, register: str = REGISTER) -> list[bytes]:
    """Return what registration has written of a register of a copy, one message a submission."""
    found: list[list[bytes]] = []
    for entry in copy.ledger.store.entries(register, 0, 1 << 40):
        membership = parse_entry(entry).membership
        assert membership is not None
        if membership.position == 0:
            found.append([])
        found[-1].append(entry)
    return [encode_bundle(entries) for entries in found]


async def send(ground: Ground, topic: str, values: Iterable[bytes], register: str = REGISTER) -> None:
    """Put messages of one register on a topic, as whoever wrote them did before the restore."""
    producer = AIOKafkaProducer(bootstrap_servers=ground.settings.kafka, acks="all")
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(
                ground.settings.topic_prefix + topic,
                value,
                register.encode(),
                partition_of(register, PARTITIONS),
            )
    finally:
        await producer.stop()


def declared(ledger: PostgresLedger) -> list[tuple[str, int, int, str]]:
    """Return what restores the governing register declares: register, sizes, source."""
    found: list[tuple[str, int, int, str]] = []
    for entry in ledger.store.entries(GOVERNING, 0, 1 << 40):
        record = parse_record(parse_entry(entry).record)
        if isinstance(record, RestoreDeclared):
            found.append((record.restored, record.stored_size, record.recovered_size, record.source))
    return found


async def until_declared(ledger: PostgresLedger, *wanted: tuple[str, int, int, str]) -> None:
    async def so() -> bool:
        return await asyncio.to_thread(declared, ledger) == list(wanted)

    await until(so, f"declared: {wanted}")


def is_behind(told: dict[str, Any]) -> bool:
    return not told["ready"] and bool(told.get("behind"))


async def test_a_store_that_has_not_done_the_topic_is_waited_for(
    ledger: PostgresLedger, witnesses: Witnesses, tmp_path: Path
) -> None:
    """False if an older copy of store and marks needed a start by hand, or anything was confirmed before."""
    copy = longer_copy(witnesses.policy, [range(3), range(3, 7)], tmp_path / "copy.marks")
    for name in NAMES:
        witness_knows(witnesses.running[name], copy)
    ground = ledger.ground
    await send(ground, SUBMISSIONS, messages_of(copy))
    with service(ground, "signer"), service(ground, "relay"), service(ground, "cosigner") as cosigner:
        await until_told(cosigner, is_behind, "readiness says that the store is behind")
        _, told = await cosigner.readiness()
        assert told["behind"]["partitions"] == {
            str(partition_of(REGISTER, PARTITIONS)): {"done": 0, "until": 2}
        }
        assert REGISTER in told["behind"]["why"]
        assert "the store is behind" in cosigner.log.read_text()
        assert not await confirmed(ledger)
        with service(ground, "sequencer"):
            await until(lambda: confirmed(ledger), "the caught-up register is confirmed")
            assert ledger.store.heads()[REGISTER] == copy.ledger.heads()[REGISTER]
            await until_declared(ledger, (REGISTER, 0, 7, "event_log"))
            async with Topic(ground, CHECKPOINTS) as topic:
                await until_sealed(topic, witnesses.policy, REGISTER, 7)
                await until_sealed(topic, witnesses.policy, GOVERNING, ledger.store.heads()[GOVERNING].size)
            await until_told(cosigner, lambda told: told["ready"] and "behind" not in told, "it is ready")
        assert cosigner.process.poll() is None


async def test_a_store_that_catches_up_to_another_history_ends_it(
    ledger: PostgresLedger, witnesses: Witnesses, tmp_path: Path
) -> None:
    """False if waiting for a store became trust in whatever it catches up to."""
    copy = longer_copy(witnesses.policy, [range(3)], tmp_path / "copy.marks")
    other = longer_copy(witnesses.policy, [range(10, 15)], tmp_path / "other.marks")
    for name in NAMES:
        witness_knows(witnesses.running[name], copy)
    ground = ledger.ground
    await send(ground, SUBMISSIONS, messages_of(other))
    with service(ground, "signer"), service(ground, "relay"), service(ground, "cosigner") as cosigner:
        await until_told(cosigner, is_behind, "readiness says that the store is behind")
        with service(ground, "sequencer"):
            assert await asyncio.to_thread(cosigner.process.wait, PATIENCE) == 1
            assert ledger.store.heads()[REGISTER] == other.ledger.heads()[REGISTER]
        said = cosigner.log.read_text()
        theirs = copy.published.latest(REGISTER).note
        assert "holds 3 entries, where this ledger has 0" in said
        assert split_note(theirs)[0].decode() in said.replace("\\n", "\n"), "the evidence has both notes"
        assert not await confirmed(ledger)
        assert declared(ledger) == []


@pytest.fixture
async def older(ground: Ground, tmp_path: Path) -> AsyncIterator[PostgresLedger]:
    """A store with 3 entries and their note, as of a backup; the topics have 9, and notes of 7 and 9."""
    ledger = PostgresLedger.made(ground, None)
    ground = ledger.ground
    copy = longer_copy(None, [range(3), range(3, 7), range(7, 9)], tmp_path / "copy.marks")
    messages = messages_of(copy)
    notes = [each.note for each in copy.ledger.store.notes(REGISTER, 3, 8)]
    notes.append(copy.published.latest(REGISTER).note)
    assert (len(messages), len(notes)) == (3, 3)
    with service(ground, "signer"), service(ground, "cosigner"), service(ground, "sequencer"):
        await send(ground, SUBMISSIONS, messages[:1])
        await until(lambda: signed(ledger, 3), "the older copy is made")
    await send(ground, SUBMISSIONS, messages[1:])
    forged = longer_copy(None, [range(20, 60)], tmp_path / "forged.marks").published.latest(REGISTER).note
    broken = forged[:-4] + (b"AAA\n" if not forged.endswith(b"AAA\n") else b"BBB\n")
    await send(ground, CHECKPOINTS, [*notes, broken])
    yield ledger
    ledger.close()


def noted(ledger: PostgresLedger) -> list[int]:
    """Return the sizes of which the store has notes, but 0."""
    return [each.size for each in ledger.store.notes(REGISTER, 1, 100)]


async def test_what_was_published_since_an_older_copy_is_put_back_and_declared(older: PostgresLedger) -> None:
    """False if notes of an older copy came back only by hand, or no reader were told of the restore."""
    ground = older.ground
    with service(ground, "signer"), service(ground, "cosigner") as cosigner:
        await until_told(cosigner, is_behind, "readiness says that the store is behind")
        assert cosigner.terminate() == 0, "it stops while it waits"
    with service(ground, "signer"), service(ground, "cosigner") as cosigner:
        await until_told(cosigner, is_behind, "readiness says that the store is behind")
        assert not await confirmed(older)
        assert noted(older) == [3]
        with service(ground, "sequencer"):
            await until_declared(older, (REGISTER, 3, 9, "event_log"))
            await until(lambda: signed(older, 9), "the notes are back")
            await until_told(cosigner, lambda told: told["ready"] and "behind" not in told, "it is ready")
            await until(lambda: confirmed(older), "it may grow again")
        assert noted(older) == [3, 7, 9]
    # Nothing is missing any more: whoever starts now has nothing to wait for, and nothing to declare.
    with service(ground, "signer"), service(ground, "sequencer"), service(ground, "cosigner") as cosigner:
        await until_told(cosigner, lambda told: bool(told["ready"]), "it is ready")
        assert "behind" not in cosigner.log.read_text()
        assert declared(older) == [(REGISTER, 3, 9, "event_log")]


async def test_a_restore_that_was_declared_before_the_notes_were_back_is_declared_once(
    older: PostgresLedger,
) -> None:
    """False if a crash between the two left the notes lost, or made two restores of one."""
    ground = older.ground
    with service(ground, "signer"), service(ground, "sequencer"):
        with ground.refusing("INSERT", "note"), service(ground, "cosigner") as cosigner:
            assert await asyncio.to_thread(cosigner.process.wait, PATIENCE) == 3
            assert declared(older) == [(REGISTER, 3, 9, "event_log")]
            assert noted(older) == [3]
        with service(ground, "cosigner"):
            await until(lambda: signed(older, 9), "the notes are back")
            await until(lambda: confirmed(older), "it may grow again")
            assert noted(older) == [3, 7, 9]
            assert declared(older) == [(REGISTER, 3, 9, "event_log")]


async def test_a_signed_note_that_the_topic_does_not_make_ends_it(older: PostgresLedger) -> None:
    """False if the cosigner went on beside a checkpoint of its own log that the messages do not reach."""
    ground = older.ground
    more = longer_copy(None, [range(3), range(3, 7), range(7, 9), range(9, 12)], ground.folder / "more.marks")
    theirs = more.published.latest(REGISTER).note
    await send(ground, CHECKPOINTS, [theirs])
    with service(ground, "signer"), service(ground, "sequencer"), service(ground, "cosigner") as cosigner:
        assert await asyncio.to_thread(cosigner.process.wait, PATIENCE) == 1
        assert older.store.heads()[REGISTER].size == 9
        assert await confirmed(older) is False
        assert declared(older) == []
        assert cosigner.process.stdout is not None
        told = json.loads(cosigner.process.stdout.read())
    assert told["error"]["reason"] == "SPLIT_VIEW"
    assert told["error"]["second"].encode() == theirs, "the evidence has both notes"
    ours = older.store.note(REGISTER, 3)
    assert ours is not None
    assert told["error"]["first"].encode() == ours.note


async def signed(ledger: PostgresLedger, size: int) -> bool:
    """Tell whether the store has a note of a size."""
    note = await asyncio.to_thread(ledger.store.note, REGISTER, size)
    return note is not None and note.size == size

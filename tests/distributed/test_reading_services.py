"""The services that only read: what auditors are shown over gRPC, and verifiers over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from daybook.audit.v1 import audit_service_pb2 as audit
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ledger.checkpoints import open_checkpoint
from ledger.errors import SplitViewError, StoreError
from ledger.hashing import Hash
from ledger.proofs import verify_consistency, verify_inclusion
from ledger.stores.postgres import PostgresStore, migrate
from ledger.tiles import decode_entries
from services.client.errors import from_rpc_error
from services.distributed import audit_service, following_checkpoints
from services.distributed.topics import create_topics
from services.local.postgres import Postgres, create_database
from services.settings import SettingsError
from services.stopping import Stop
from tests.support.brokers import SharedKafka
from tests.support.kafka_ledger import (
    PARTITIONS,
    WITNESS,
    KafkaLedger,
    Replica,
    kafka_ledger,
    settings_of,
    until,
)
from tests.support.ledgers import DEPARTMENT, LOG_KEY, ORIGIN, REGISTER, vkey

CODE = grpc.StatusCode


@pytest.fixture
async def ledger(
    kafka: SharedKafka, prefix: str, fresh_database: str, tmp_path: Path
) -> AsyncIterator[KafkaLedger]:
    async with kafka_ledger(kafka.bootstrap, prefix, fresh_database, tmp_path) as held:
        yield held


@pytest.fixture
async def auditor(ledger: KafkaLedger) -> AsyncIterator[Replica]:
    async with ledger.audit() as held:
        yield held


async def checkpoint(auditor: Replica, register: str = REGISTER) -> audit.GetCheckpointResponse:
    """Ask for the latest signed checkpoint."""
    wanted = audit.GetCheckpointRequest(register=register, kind=audit.CHECKPOINT_KIND_SIGNED)
    response: audit.GetCheckpointResponse = await auditor.caller.audit.GetCheckpoint(wanted)
    return response


async def grown(ledger: KafkaLedger, *numbers: int) -> None:
    """Add decisions, and tell of the new checkpoint."""
    await asyncio.to_thread(ledger.made.add, numbers)
    await ledger.publish(REGISTER)


async def until_size(auditor: Replica, size: int) -> audit.GetCheckpointResponse:
    """Wait until an auditor is shown a size."""
    async with asyncio.timeout(30):
        while (shown := await checkpoint(auditor)).size < size:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return shown


async def test_an_auditor_is_shown_what_grows_and_has_it_proved(ledger: KafkaLedger, auditor: Replica) -> None:
    """If false, an auditor of the distributed ledger could prove less than one of the embedded (P10)."""
    await grown(ledger, 0, 1, 2)
    first = await until_size(auditor, 3)
    await grown(ledger, 3, 4)
    second = await until_size(auditor, 5)
    before = open_checkpoint(first.checkpoint, f"{ORIGIN}/{REGISTER}", [vkey(REGISTER)]).checkpoint
    after = open_checkpoint(second.checkpoint, f"{ORIGIN}/{REGISTER}", [vkey(REGISTER)]).checkpoint
    step = await auditor.caller.audit.GetConsistencyProof(
        audit.GetConsistencyProofRequest(register=REGISTER, first_size=3, second_size=5)
    )
    verify_consistency(3, 5, before.root, after.root, [Hash(each) for each in step.hashes])
    proved = await auditor.caller.audit.GetInclusionProof(
        audit.GetInclusionProofRequest(register=REGISTER, index=1)
    )
    verify_inclusion(1, 5, Hash(proved.leaf_hash), [Hash(each) for each in proved.hashes], after.root)
    ranged = await auditor.caller.audit.GetRangeProof(
        audit.GetRangeProofRequest(register=REGISTER, first=1, count=3)
    )
    assert ranged.range_proof.size == 5
    read = auditor.caller.audit.ReadEntries(audit.ReadEntriesRequest(register=REGISTER))
    entries = [entry async for page in read for entry in page.entries]
    assert entries == ledger.store.entries(REGISTER, 0, 5)


async def test_registers_are_listed_as_soon_as_they_are_opened(ledger: KafkaLedger, auditor: Replica) -> None:
    """If false, an auditor would miss a register."""
    assert set(await auditor.caller.sizes()) == {"governing", REGISTER}
    name = f"{DEPARTMENT}/minister"
    await ledger.govern("register.opened/1", name=name, title="The minister")
    async with asyncio.timeout(30):
        while name not in await auditor.caller.sizes():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await checkpoint(auditor, name)).size == 0


async def test_a_register_whose_news_comes_before_that_of_its_opening_is_shown(
    ledger: KafkaLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, partitions would have to be read in one order, which they have not."""
    monkeypatch.setattr(following_checkpoints, "LOOK_AGAIN", 60.0)  # so that all comes by the topic
    async with ledger.audit() as auditor:
        name = f"{DEPARTMENT}/minister"
        await asyncio.to_thread(ledger.made.open_register, name)
        await ledger.publish("governing", name, tell=False)
        head = ledger.store.heads()[name]
        await ledger.tell(name, ledger.note(name, head.size, head.root))
        async with asyncio.timeout(30):
            while name not in await auditor.caller.sizes():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_who_watches_is_told_of_each_checkpoint(ledger: KafkaLedger, auditor: Replica) -> None:
    """If false, a monitor would have to ask again and again."""
    wanted = audit.WatchCheckpointsRequest(register=REGISTER, kind=audit.CHECKPOINT_KIND_SIGNED)
    watching = auditor.caller.audit.WatchCheckpoints(wanted)
    await grown(ledger, 0)
    assert (await watching.read()).size == 1
    await grown(ledger, 1)
    told = await watching.read()
    assert (told.previous_size, told.size, len(told.consistency)) == (1, 2, 1)
    watching.cancel()


async def test_a_cosignature_is_shown_and_bounds_the_time(ledger: KafkaLedger, auditor: Replica) -> None:
    """If false, what the cosigner keeps would be hidden from auditors (formats.md, section 15)."""
    await ledger.ask_a_witness()
    await grown(ledger, 0)
    await until_size(auditor, 1)
    bounds = audit.GetTimeBoundsRequest(register=REGISTER, index=0)
    assert not (await auditor.caller.audit.GetTimeBounds(bounds)).HasField("not_after")
    await ledger.cosign(REGISTER)
    wanted = audit.GetCheckpointRequest(register=REGISTER, kind=audit.CHECKPOINT_KIND_SEALED)
    async with asyncio.timeout(30):
        while not (await auditor.caller.audit.GetTimeBounds(bounds)).HasField("not_after"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    sealed = await auditor.caller.audit.GetCheckpoint(wanted)
    assert sealed.sealed
    assert WITNESS.name.encode() in sealed.checkpoint


async def test_what_is_signed_and_not_committed_is_not_shown_and_hides_nothing(
    ledger: KafkaLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, where an older database was put back every proof would fail."""
    monkeypatch.setattr(following_checkpoints, "LOOK_AGAIN", 60.0)  # so that all comes by the topic
    async with ledger.audit() as auditor:
        await grown(ledger, 0)
        await until_size(auditor, 1)
        await ledger.tell(REGISTER, ledger.note(REGISTER, 7, Hash(hashlib.sha256(b"x").digest()), LOG_KEY))
        await grown(ledger, 1)
        assert (await until_size(auditor, 2)).size == 2


async def test_two_histories_of_one_size_end_the_service(ledger: KafkaLedger) -> None:
    """If false, a ledger that has signed two histories would be served on (promise P3)."""
    async with ledger.audit() as auditor:
        await grown(ledger, 0)
        await until_size(auditor, 1)
        await ledger.tell(REGISTER, ledger.note(REGISTER, 1, Hash(bytes(32)), LOG_KEY))
        await until(auditor.serving.done, "the end of the service")
        with pytest.raises(SplitViewError):
            auditor.serving.result()


async def test_tiles_are_served_as_files(ledger: KafkaLedger) -> None:
    """If false, no tlog client could read the distributed ledger (promise P6)."""
    await asyncio.to_thread(ledger.made.add, range(300))
    await ledger.publish(REGISTER)
    async with ledger.tiles() as tiles:
        note = (await tiles.get(f"/logs/{REGISTER}/checkpoint", "http")).content
        assert open_checkpoint(note, f"{ORIGIN}/{REGISTER}", [vkey(REGISTER)]).checkpoint.size == 300
        tile = await tiles.get(f"/logs/{REGISTER}/tile/0/000", "http")
        (stored,) = ledger.store.tiles(REGISTER, [(0, 0)])
        assert tile.content == stored
        bundle = await tiles.get(f"/logs/{REGISTER}/tile/entries/001.p/44", "http")
        assert decode_entries(bundle.content) == ledger.store.entries(REGISTER, 256, 300)
        assert (await tiles.get(f"/logs/{REGISTER}/tile/entries/001.p/45", "http")).status_code == 404
        told = (await tiles.get("/registers.json", "http")).json()
        assert [one["name"] for one in told["registers"]] == [REGISTER, "governing"]
        assert (await tiles.get("/healthz", "http")).text == "ok\n"
        ready = await tiles.get("/readyz", "http")
        assert (ready.status_code, ready.json()["witnesses"]) == (200, "none configured")


async def test_the_checkpoint_that_is_served_is_the_sealed_one(ledger: KafkaLedger) -> None:
    """If false, verifiers would get checkpoints that their policy does not take."""
    await ledger.ask_a_witness()
    async with ledger.tiles() as tiles:
        await grown(ledger, 0)
        path = f"/logs/{REGISTER}/checkpoint"
        assert (await tiles.get(path, "http")).status_code == 404
        await ledger.cosign(REGISTER)
        async with asyncio.timeout(30):
            while (await tiles.get(path, "http")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        told = (await tiles.get("/readyz", "http")).json()["witnesses"]
        assert told["unsealed"] == ["governing"]
        assert "cosigner" in told["asked_by"]


async def test_a_reader_says_when_its_view_is_old(
    kafka: SharedKafka, prefix: str, fresh_postgres: Postgres, tmp_path: Path
) -> None:
    """If false, whoever routes auditors would send them to what is behind."""
    create_database(fresh_postgres.superuser_dsn, "ledger")
    async with (
        kafka_ledger(kafka.bootstrap, prefix, fresh_postgres.dsn("ledger"), tmp_path) as ledger,
        ledger.tiles(view_seconds=3.0) as tiles,
    ):
        async with asyncio.timeout(60):
            # On a slow machine its view may be old as soon as it runs.
            while (await tiles.get("/readyz", "http")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        fresh_postgres.kill()
        async with asyncio.timeout(30):
            while (await tiles.get("/readyz", "http")).status_code == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        told = (await tiles.get("/readyz")).json()
        assert not told["ready"]
        assert "store was last read" in told["reason"]
        assert (await tiles.get("/healthz")).text == "ok\n"
        fresh_postgres.start()
        async with asyncio.timeout(60):
            while (await tiles.get("/readyz", "http")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def test_a_stop_is_told_and_ends_watchers(ledger: KafkaLedger) -> None:
    """If false, a deployment would cut auditors off, or wait for them for ever."""
    async with ledger.audit() as auditor:
        async with grpc.aio.insecure_channel(auditor.addresses["grpc"]) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            told = await health.Check(health_pb2.HealthCheckRequest())
            assert told.status == health_pb2.HealthCheckResponse.SERVING
        wanted = audit.WatchCheckpointsRequest(register=REGISTER, kind=audit.CHECKPOINT_KIND_SIGNED)
        watching = auditor.caller.audit.WatchCheckpoints(wanted)
        await grown(ledger, 0)
        assert (await watching.read()).size == 1
        auditor.stop.asked.set()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await watching.read()
        assert from_rpc_error(ended.value).reason == "DRAINING"
        await until(auditor.serving.done, "the end of the service")


async def test_a_ledger_that_is_not_open_is_not_served(
    kafka: SharedKafka, prefix: str, fresh_database: str, tmp_path: Path
) -> None:
    """If false, an empty database would be shown as an empty ledger."""
    await create_topics(kafka.bootstrap, PARTITIONS, prefix=prefix)
    await asyncio.to_thread(migrate, fresh_database)
    settings = settings_of(tmp_path, kafka.bootstrap, prefix, fresh_database)
    PostgresStore(fresh_database).close()
    with pytest.raises(StoreError, match="not open yet"):
        await audit_service.serve(settings, lambda _: None, Stop())


async def test_a_topic_of_another_number_of_partitions_is_not_followed(ledger: KafkaLedger) -> None:
    """If false, the checkpoints of some registers would never be seen."""
    settings = ledger.settings.model_copy(update={"partitions": PARTITIONS + 1})
    with pytest.raises(SettingsError, match="partitions"):
        await audit_service.serve(settings, lambda _: None, Stop())

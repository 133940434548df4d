"""A ledger on a real Kafka and a real PostgreSQL, with a sequencer of a few lines that a test can hold.

    async with kafka_ledger(kafka, prefix, fresh_database, tmp_path) as ledger:
        async with ledger.registration() as replica:
            await replica.register(submission)

The real sequencer, signer and relay have tests of their own: here it is known when each step is done.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx
from aiokafka import TopicPartition
from daybook.registration.v1 import registration_service_pb2 as pb
from daybook.submission.v1.submission_pb2 import Acknowledgement, WaitFor
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ledger.admission import instant
from ledger.checkpoints import Checkpoint, sign_checkpoint
from ledger.ed25519 import SecretKey
from ledger.entries import Acceptance, accept, open_message, open_submission
from ledger.governing import GOVERNING
from ledger.ledger import Outcome
from ledger.notes import SignerKey, cosignature_line
from ledger.store import NewCosignatures, StoredNote
from ledger.stores.postgres import PostgresStore, migrate
from ledger.witnessing import Policy
from services.client.client import message_of
from services.client.signing import SignedSubmission as Signed
from services.client.signing import sign_submission
from services.distributed import audit_service, registration_service, tiles_service
from services.distributed.kafka_clients import producer, reader
from services.distributed.partitions import partition_of
from services.distributed.settings import DistributedSettings, distributed_settings
from services.distributed.topics import CHECKPOINTS, SUBMISSIONS, create_topics
from services.stopping import Stop
from tests.support.calling import GOVERNANCE_CALLS, Caller, calling
from tests.support.ledgers import (
    ACKNOWLEDGEMENT_KEY,
    DEPARTMENT_KEY,
    EPOCH,
    GOVERNANCE_KEY,
    LOG_KEY,
    ORIGIN,
    REGISTER,
    LedgerUnderTest,
    decision,
    governing_record,
    open_ledger,
    vkey,
)
from tests.support.server import ROOT

PARTITIONS: Final = 3
ACKNOWLEDGEMENTS: Final = SignerKey(f"{ORIGIN}/acknowledgements", ACKNOWLEDGEMENT_KEY)
WITNESS: Final = SignerKey("witness.example/w", SecretKey(b"\x31" * 32))
WITNESSED: Final = Policy.parse(f"log {vkey(GOVERNING)}\nwitness one {WITNESS.cosigner}\nquorum one\n".encode())
PATIENCE: Final = 30.0
"""Seconds after which a test gives up waiting."""

_numbers: Final = count(1_000)
"""Below, a ledger under test numbers its own."""

Serve = Callable[[DistributedSettings, Callable[[Mapping[str, str]], None], Stop], Any]


def signed(*numbers: int, register: str = REGISTER, key: SecretKey = DEPARTMENT_KEY, **members: Any) -> Signed:
    """Return decisions of these numbers as one signed submission."""
    records = [decision(number, register, **members) for number in numbers]
    return sign_submission(records, f"{ORIGIN}/{register}", [key])


def governing(
    record_type: str, *also: SecretKey, by: Sequence[SecretKey] = (GOVERNANCE_KEY,), **members: Any
) -> Signed:
    """Return a governing record with a record_id of its own, signed by `by` and `also`."""
    record = governing_record(next(_numbers), record_type, **members)
    return sign_submission([record], f"{ORIGIN}/{GOVERNING}", [*by, *also])


async def until(condition: Callable[[], Any], what: str = "a condition") -> None:
    """Wait until something is so."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {PATIENCE} s: {what}") from None


@dataclass(slots=True)
class Replica:
    """One running service. `serving` is its task."""

    addresses: Mapping[str, str]
    stop: Stop
    serving: asyncio.Task[None]
    caller: Caller

    async def register(
        self,
        submission: Signed,
        wait_for: WaitFor.ValueType = WaitFor.WAIT_FOR_ACCEPTED,
        seconds: float = PATIENCE,
    ) -> Acknowledgement:
        """Register a submission with a wait and a deadline."""
        request = pb.RegisterRequest(submission=message_of(submission), wait_for=wait_for)
        response: pb.RegisterResponse = await self.caller.registration.Register(request, timeout=seconds)
        return response.acknowledgement

    async def find(self, submission: Signed) -> Acknowledgement:
        """Ask for a submission by its id."""
        request = pb.GetSubmissionRequest(register=submission.register, submission_id=submission.submission_id)
        response: pb.GetSubmissionResponse = await self.caller.registration.GetSubmission(request)
        return response.acknowledgement

    async def metric(self, name: str) -> float:
        """Return the value of a metric without labels."""
        lines = (await self.get("/metrics")).text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    async def get(self, path: str, of: str = "ops") -> httpx.Response:
        """Make one HTTP request to an address of the service."""
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            return await client.get(f"http://{self.addresses[of]}{path}")


@dataclass(slots=True)
class KafkaLedger:
    """The ledger: `made` appends to the store, and signs. `take` lets the sequencer go on."""

    settings: DistributedSettings
    store: PostgresStore
    made: LedgerUnderTest
    _producer: Any
    _consumer: Any
    outcomes: list[Outcome] = field(default_factory=list)
    going: asyncio.Event = field(default_factory=asyncio.Event)

    def topic(self, name: str) -> str:
        """Return a topic's name here."""
        return self.settings.topic_prefix + name

    async def sequence(self) -> None:
        """Take every message as it comes, while `going` is set."""
        while True:
            batches = await self._consumer.getmany(timeout_ms=200)
            for messages in batches.values():
                for message in messages:
                    await self.going.wait()
                    await self.append(message.key, message.value)

    async def append(self, key: bytes, value: bytes) -> None:
        """Append one message, sign the heads and tell everybody."""
        register = key.decode()
        turn = self.made.ledger.turn()
        self.outcomes.append(turn.replay(open_message(register, value, ORIGIN)))
        growths = await asyncio.to_thread(turn.finish({}).commit)
        await self.publish(*growths)

    async def publish(self, *registers: str, tell: bool = True) -> None:
        """Sign the heads of registers; keep the notes, and `tell` of them on the topic."""
        heads = self.store.heads()
        notes = {name: self.note(name, heads[name].size, heads[name].root) for name in registers}
        await asyncio.to_thread(
            self.store.publish_notes, {name: StoredNote(heads[name].size, notes[name]) for name in notes}
        )
        if tell:
            for name, note in notes.items():
                await self.tell(name, note)

    async def tell(self, register: str, note: bytes) -> None:
        """Send a message to the topic of checkpoints."""
        await self._producer.send_and_wait(self.topic(CHECKPOINTS), note, key=register.encode())

    def note(self, register: str, size: int, root: Any, key: SecretKey = LOG_KEY) -> bytes:
        """Return a signed checkpoint note."""
        origin = f"{ORIGIN}/{register}"
        return sign_checkpoint(Checkpoint(origin, size, root), SignerKey(origin, key))

    async def govern(self, record_type: str, *also: SecretKey, **members: Any) -> None:
        """Append a governing record behind Kafka's back, and tell of it."""
        before = self.store.heads()
        await asyncio.to_thread(self.made.govern, record_type, *also, **members)
        after = self.store.heads()
        await self.publish(*(name for name in after if before.get(name) != after[name]))

    async def send(self, submission: Signed) -> None:
        """Send a submission as a replica does that judges nothing."""
        opened = open_submission(submission.body, submission.records, submission.signatures, ORIGIN)
        size = self.made.ledger.fold.signed_size
        message = accept(opened, Acceptance(instant(EPOCH), "anonymous", size))
        await self._producer.send_and_wait(
            self.topic(SUBMISSIONS),
            message.value(),
            key=message.register.encode(),
            partition=partition_of(message.register, self.settings.partitions),
        )

    async def ask_a_witness(self) -> None:
        """Publish a policy that asks for one witness."""
        await self.govern(
            "policy.published/1",
            kind="witness",
            name="default",
            effective_from="2026-01-01T00:00Z",
            text=WITNESSED.text().decode(),
        )

    async def cosign(self, register: str, *, tell: bool = True) -> None:
        """Keep the witness's cosignature of a register's latest note, and `tell` of it on the topic."""
        head = self.store.heads()[register]
        note = self.note(register, head.size, head.root)
        text, _, _ = note.partition(b"\n\n")
        line = cosignature_line(text + b"\n", WITNESS, int(time.time()))
        new = NewCosignatures(register, StoredNote(head.size, note), [line])
        await asyncio.to_thread(self.store.keep_cosignatures, [new])
        if tell:
            await self.tell(register, note + line.line)

    async def until_heads(self, register: str, size: int) -> None:
        """Wait until a register has a signed size."""

        def reached() -> bool:
            found = self.store.note(register, size)
            return found is not None and found.size == size

        await until(reached, f"{register} at {size}")

    async def until_messages(self, count: int) -> None:
        """Wait until the topic of submissions has so many messages."""
        async with asyncio.timeout(PATIENCE):
            while len(await self.messages()) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def environment(self) -> dict[str, str]:
        """Return the settings as the environment gives them to a process."""
        told = {name: getattr(self.settings, name) for name in type(self.settings).model_fields}
        packages = os.pathsep.join([str(ROOT), str(ROOT / "protos" / "gen")])
        return {
            "PYTHONPATH": packages,
            **{f"DAYBOOK_{name.upper()}": str(value) for name, value in told.items() if value is not None},
        }

    async def messages(self) -> list[tuple[bytes, bytes]]:
        """Return every message of the topic of submissions."""
        consumer = reader(self.settings)
        await consumer.start()
        try:
            partitions = [
                TopicPartition(self.topic(SUBMISSIONS), number) for number in range(self.settings.partitions)
            ]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            found: list[tuple[bytes, bytes]] = []
            for partition in partitions:
                consumer.seek(partition, 0)
            while len(found) < sum(ends.values()):
                for several in (await consumer.getmany(timeout_ms=200)).values():
                    found += [(message.key, message.value) for message in several]
            return found
        finally:
            await consumer.stop()

    @asynccontextmanager
    async def running(self, serve: Serve, **settings: Any) -> AsyncIterator[Replica]:
        """Run a service in this process while the block runs, and stop it as SIGTERM does."""
        stop = Stop()
        ready: asyncio.Future[Mapping[str, str]] = asyncio.get_running_loop().create_future()
        told = self.settings.model_copy(update=settings)
        serving = asyncio.create_task(serve(told, ready.set_result, stop))
        either: set[asyncio.Future[Any]] = {serving, ready}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        addresses = ready.result()
        async with calling(addresses.get("grpc", "127.0.0.1:1")) as caller:
            replica = Replica(addresses, stop, serving, caller)
            try:
                yield replica
            finally:
                failed = serving.done()
                stop.asked.set()
                await asyncio.wait({serving})
        if not failed:
            serving.result()

    def registration(self, **settings: Any) -> Any:
        """Run a replica of registration."""
        return self.running(registration_service.serve, **settings)

    def audit(self, **settings: Any) -> Any:
        """Run an audit service."""
        return self.running(audit_service.serve, **settings)

    def tiles(self, **settings: Any) -> Any:
        """Run a tiles service."""
        return self.running(tiles_service.serve, **settings)


def settings_of(root: Path, bootstrap: str, prefix: str, database: str, **more: Any) -> DistributedSettings:
    """Return settings for a ledger of the test keys, whose secrets are in files below `root`."""
    parts = {name: str(value) for name, value in conninfo_to_dict(database).items()}
    password, key = root / "password", root / "acknowledgements"
    password.write_text(parts.pop("password"), encoding="utf-8")
    key.write_text(SignerKey(f"{ORIGIN}/acknowledgements", ACKNOWLEDGEMENT_KEY).text(), encoding="utf-8")
    return distributed_settings(
        origin=ORIGIN,
        kafka=bootstrap,
        topic_prefix=prefix,
        partitions=PARTITIONS,
        database=make_conninfo(**parts),
        database_password_file=password,
        acknowledgement_key=key,
        grpc="127.0.0.1:0",
        http="127.0.0.1:0",
        grace_seconds=5.0,
        **more,
    )


@asynccontextmanager
async def kafka_ledger(
    bootstrap: str, prefix: str, database: str, root: Path, **more: Any
) -> AsyncIterator[KafkaLedger]:
    """Open a ledger with `REGISTER`, which `DEPARTMENT_KEY` may write to; its sequencer goes."""
    await create_topics(bootstrap, PARTITIONS, prefix=prefix)
    await asyncio.to_thread(migrate, database)
    settings = settings_of(root, bootstrap, prefix, database, **more)
    store = PostgresStore(database)
    sending, taking = producer(settings), reader(settings)
    try:
        made = await asyncio.to_thread(open_ledger, store, root / "marks")
        await sending.start()
        await taking.start()
        partitions = [TopicPartition(prefix + SUBMISSIONS, number) for number in range(PARTITIONS)]
        taking.assign(partitions)
        for partition in partitions:
            taking.seek(partition, 0)
        ledger = KafkaLedger(settings, store, made, sending, taking)
        await ledger.publish(*store.heads(), tell=False)
        ledger.going.set()
        sequencing = asyncio.create_task(ledger.sequence())
        try:
            yield ledger
        finally:
            failed = sequencing.done()
            sequencing.cancel()
            await asyncio.wait({sequencing})
        if failed:
            sequencing.result()
    finally:
        await taking.stop()
        await sending.stop()
        store.close()


__all__ = ["GOVERNANCE_CALLS", "GOVERNING", "KafkaLedger", "Replica", "kafka_ledger", "signed", "until"]

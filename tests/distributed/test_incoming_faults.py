"""What comes in twice, late, forged, or while the way in is killed: each is once an entry, or provably none."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from daybook.registration.v1 import registration_service_pb2 as pb
from daybook.submission.v1 import submission_pb2
from daybook.submission.v1.submission_pb2 import (
    WAIT_FOR_ACCEPTED,
    WAIT_FOR_SEALED,
    WAIT_FOR_SEQUENCED,
)

from ledger import base64, canonical
from ledger.ed25519 import SecretKey
from ledger.entries import MAX_MESSAGE, form_ledger_entry, open_message, parse_entry
from ledger.event_log import SUBMISSIONS
from ledger.governing import GOVERNING
from ledger.governing_types import SubmissionRejected
from ledger.own_records import record_digest, submission_rejected
from ledger.receipts import verify_receipt
from ledger.records import parse_record
from ledger.stores.postgres import COPIED_KEY, COPIED_VALUE
from ledger.tiles import decode_entries, encode_bundle
from ledger.witnessing import Policy
from services.client.answers import Answer, Promised, Registered, Rejected
from services.client.client import Client, connect
from services.client.client import message_of as client_message
from services.client.errors import CallError, from_rpc_error
from services.client.signing import SignedSubmission, sign_submission
from services.ledger_files import LedgerDirectory
from services.local.kafka import Kafka
from tests.support.brokers import SharedKafka, SharedPostgres
from tests.support.calling import GOVERNANCE_CALLS, Caller, calling
from tests.support.distributed_load import REGISTERS, DistributedLoad
from tests.support.distributed_services import WRITING, DistributedLedger, Running, distributed_ledger
from tests.support.journal import Journal, compare
from tests.support.ledger_dir import LedgerOnDisk, authorising, make_ledger, revoking
from tests.support.ledgers import DEPARTMENT_KEY, ORIGIN, decision
from tests.support.raw_topic import RawTopic, Sent, message_of, raw_topic
from tests.support.records import correction, following, period_return, withdrawal
from tests.support.sealed_ledger import sealed_ledger
from tests.support.supervision import supervised
from tests.support.witnessed import deciding

pytestmark = [pytest.mark.hammer, pytest.mark.timeout(600)]

SEED = int(os.environ.get("DAYBOOK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
"""Printed, so that a failure can be repeated as far as the scheduling of processes allows."""

TWICE = int(os.environ.get("DAYBOOK_TWICE", "300"))
"""Submissions that two replicas are given at once."""

AT_ONCE: Final = 24
"""Submissions that are under way together."""

SECONDS: Final = 60.0
CODE: Final = grpc.StatusCode


@pytest.fixture
def draw() -> random.Random:
    print(f"DAYBOOK_SEED={SEED}")
    return random.Random(SEED)


@pytest.fixture
def many(tmp_path: Path) -> LedgerOnDisk:
    """An embedded ledger of eight registers, to be moved."""
    return make_ledger(tmp_path / "ledger", registers=REGISTERS)


@pytest.fixture
def it(
    tmp_path: Path, many: LedgerOnDisk, kafka: SharedKafka, postgres: SharedPostgres
) -> Iterator[DistributedLedger]:
    """A distributed ledger of eight registers, every service that writes, and a second registration."""
    with distributed_ledger(tmp_path / "services", many, kafka, postgres) as made:
        made.start_all(WRITING)
        made.start("registration", "second")
        yield made


def address(running: Running) -> str:
    return running.addresses["grpc"]


def without_witnesses(policy: Policy) -> Policy:
    """Return the policy of who is content with the log's own signature."""
    return Policy.parse(f"log {policy.logs[0].key}\nquorum none\n".encode())


@dataclass(slots=True)
class Departments:
    """Clients of every replica and register, opened as they are needed; what they were told is in `journal`."""

    policy: Policy
    stack: AsyncExitStack
    journal: Journal = field(default_factory=Journal)
    _clients: dict[tuple[str, str], asyncio.Task[Client]] = field(default_factory=dict)

    async def receipt(self, replica: Running, register: str, index: int) -> bytes:
        """Fetch a receipt, which is verified."""
        client = await self.client(replica, register)
        receipt, _ = await client.receipt(index)
        return receipt

    async def ask(
        self, replica: Running, submission: SignedSubmission, wait_for: submission_pb2.WaitFor.ValueType
    ) -> Answer:
        """Submit by a replica; the answer is verified."""
        self.journal.send(submission)
        client = await self.client(replica, submission.register)
        answer = await client.submit(submission, wait_for=wait_for, timeout=SECONDS)
        match answer:
            case Registered():
                self.journal.answered(answer)
            case Rejected():
                self.journal.was_rejected(answer)
            case Promised():
                pass
        return answer

    async def client(self, replica: Running, register: str) -> Client:
        """Return the client of a replica and a register."""
        key = address(replica), register
        if key not in self._clients:
            self._clients[key] = asyncio.ensure_future(self._connected(*key))
        return await self._clients[key]

    async def _connected(self, at: str, register: str) -> Client:
        client = connect(at, policy=self.policy, register=register, key=DEPARTMENT_KEY)
        return await self.stack.enter_async_context(client)


@asynccontextmanager
async def departments(policy: Policy) -> AsyncIterator[Departments]:
    async with AsyncExitStack() as stack:
        yield Departments(policy, stack)


def compared(it: DistributedLedger, *told: Departments) -> None:
    """Stop everything, compare all with all, and with what was answered."""
    copy = it.settled()
    sent = {key: each for held in told for key, each in held.journal.sent.items()}
    entries = 0
    for each in told:
        ledger = replace(it.ledger, directory=LedgerDirectory(copy), policy=each.policy)
        held = compare(replace(each.journal, sent=sent), ledger)
        entries = sum(len(one.entries) for one in held.values())
    print(f"{entries} entries")


# Twice.


@pytest.fixture
def sealed(tmp_path: Path, kafka: SharedKafka, postgres: SharedPostgres) -> Iterator[DistributedLedger]:
    """The same, with two witnesses."""
    with (
        sealed_ledger(tmp_path / "sealed", REGISTERS) as made,
        distributed_ledger(tmp_path / "services", made.ledger, kafka, postgres) as it,
    ):
        it.start_all(WRITING)
        it.start("registration", "second")
        yield it


async def test_what_two_replicas_are_given_at_once_stands_once(
    sealed: DistributedLedger, draw: random.Random
) -> None:
    """False if a department that asks two replicas registered twice, or was told two different things (P2)."""
    submissions = [deciding(draw.randint(1, 3), draw.choice(REGISTERS)) for _ in range(TWICE)]
    witnessed = sealed.ledger.policy
    async with (
        departments(witnessed) as sealing,
        departments(without_witnesses(witnessed)) as content,
        raw_topic(sealed) as topic,
    ):
        told = await _twice(sealed, submissions, sealing, content, draw)
        first = await _first_messages(topic)
        for submission in submissions:
            again = await content.ask(sealed["second"], submission, WAIT_FOR_SEQUENCED)
            assert isinstance(again, Registered)
            assert again.known
            answers = [each for each in told[submission.submission_id] if isinstance(each, Registered)]
            assert {each.first_index for each in answers} <= {again.first_index}
            assert {each.acceptance for each in (again, *answers)} == {first[submission.submission_id]}
        messages = await topic.count()
    await asyncio.to_thread(compared, sealed, sealing, content)
    print(f"{len(submissions)} submissions, {messages} messages")


async def _twice(
    it: DistributedLedger,
    submissions: Sequence[SignedSubmission],
    sealing: Departments,
    content: Departments,
    draw: random.Random,
) -> dict[str, list[Answer]]:
    """Give each submission to both replicas at once, each waiting for some state; return the answers."""
    told: dict[str, list[Answer]] = {}
    free = asyncio.Semaphore(AT_ONCE)
    states = Counter[str]()

    async def ask(replica: Running, submission: SignedSubmission, wait_for: Any) -> Answer:
        who = sealing if wait_for == WAIT_FOR_SEALED else content
        answer = await who.ask(replica, submission, wait_for)
        match answer:
            case Registered():
                states["sealed" if answer.witnesses else "sequenced"] += 1
            case Promised():
                assert wait_for == WAIT_FOR_ACCEPTED
                states["accepted"] += 1
        if wait_for == WAIT_FOR_SEALED:
            assert isinstance(answer, Registered)
            assert answer.sealed
        return answer

    async def both(submission: SignedSubmission) -> None:
        async with free:
            waits = [draw.choice((WAIT_FOR_ACCEPTED, WAIT_FOR_SEQUENCED, WAIT_FOR_SEALED)) for _ in range(2)]
            asked = zip((it["registration"], it["second"]), waits, strict=True)
            answers = await asyncio.gather(*(ask(replica, submission, wait) for replica, wait in asked))
            told[submission.submission_id] = answers
            # Whoever's message was first is told of a new submission.
            assert not all(isinstance(each, Registered) and each.known for each in answers)

    await asyncio.gather(*map(both, submissions))
    print(dict(states))
    return told


async def _first_messages(topic: RawTopic) -> dict[str, Any]:
    """Return, by submission_id, the acceptance that the first message of each submission states."""
    found: dict[str, Any] = {}
    for sent in await topic.messages():
        assert sent.key is not None
        assert sent.value is not None
        message = open_message(sent.key.decode(), sent.value, ORIGIN)
        if message.submission is not None:
            found.setdefault(message.submission.submission_id, message.acceptance)
    return found


# Lost races.


def signed(*records: bytes, register: str = REGISTERS[0]) -> SignedSubmission:
    return sign_submission(records, f"{ORIGIN}/{register}", [DEPARTMENT_KEY])


def rejection_of(answer: Rejected, policy: Policy) -> SubmissionRejected:
    """Return what the entry says that a receipt proves."""
    verified = verify_receipt(answer.receipt, policy)
    assert verified.index == answer.index
    assert not verified.signers
    record = parse_record(verified.record)
    assert isinstance(record, SubmissionRejected)
    assert record.submission_id == answer.submission.submission_id
    assert record.count == len(answer.submission.records)
    assert record.reason == answer.reason
    return record


async def found(caller: Caller, submission: SignedSubmission) -> submission_pb2.Acknowledgement:
    """Ask for a submission by its id."""
    request = pb.GetSubmissionRequest(register=submission.register, submission_id=submission.submission_id)
    response: pb.GetSubmissionResponse = await caller.registration.GetSubmission(request, timeout=SECONDS)
    return response.acknowledgement


async def test_of_two_that_race_one_wins_and_the_other_is_provably_rejected(
    it: DistributedLedger, draw: random.Random
) -> None:
    """False if an acknowledged submission that lost its race vanished, won as well, or had a wrong reason."""
    replicas = it["registration"], it["second"]
    async with departments(it.ledger.policy) as held, raw_topic(it) as topic:
        firsts = [decision(number, draw.choice(REGISTERS)) for number in range(40)]
        for each in firsts:
            answer = await held.ask(replicas[0], signed(each, register=_register(each)), WAIT_FOR_SEQUENCED)
            assert isinstance(answer, Registered)
        races = [_corrections(each) for each in firsts]
        races += [_same_record(1_000 + 3 * number, draw.choice(REGISTERS)) for number in range(40)]
        before = await topic.count()
        it["sequencer"].pause()
        try:
            asked = [
                asyncio.create_task(held.ask(replica, submission, WAIT_FOR_SEQUENCED))
                for pair in races
                for replica, submission in zip(draw.sample(replicas, 2), pair.submissions, strict=True)
            ]
            await topic.until_count(before + len(asked))
        finally:
            it["sequencer"].resume()
        answers = await asyncio.gather(*asked)
        for pair, one, other in zip(races, answers[::2], answers[1::2], strict=True):
            won, lost = (one, other) if isinstance(one, Registered) else (other, one)
            assert isinstance(won, Registered)
            assert isinstance(lost, Rejected)
            assert lost.reason == pair.reason
            said = rejection_of(lost, it.ledger.policy)
            position = len(lost.submission.records) - 1
            header = canonical.parse(lost.submission.records[position])
            assert said.rejected is not None
            assert said.existing is not None
            assert (said.rejected.position, said.rejected.record_id, said.rejected.version) == (
                position,
                header["record_id"],
                header["version"],
            )
            met = len(won.submission.records) - 1
            assert said.existing.index == won.first_index + met
            assert said.existing.sha256 == record_digest(won.submission.records[met])
        async with calling(address(it["second"])) as caller:
            for answer in answers:
                again = await found(caller, answer.submission)
                if isinstance(answer, Rejected):
                    assert again.state == submission_pb2.STATE_REJECTED
                    assert again.rejection.index == answer.index
                else:
                    assert again.state == submission_pb2.STATE_SEQUENCED
    rejected = Counter(each.reason for each in answers if isinstance(each, Rejected))
    await asyncio.to_thread(compared, it, held)
    print(dict(rejected))


@dataclass(frozen=True, slots=True)
class Race:
    """Two submissions of which one can win, by the record at the end of each."""

    submissions: tuple[SignedSubmission, SignedSubmission]
    reason: str


def _register(record: bytes) -> str:
    return str(canonical.parse(record)["register"])


def _corrections(first: bytes) -> Race:
    """Return two different version 2 of a record."""
    both = [canonical.format(correction(first, reason=reason)) for reason in ("A digit.", "A name.")]
    one, other = (signed(each, register=_register(first)) for each in both)
    return Race((one, other), "RECORD_CONFLICT")


def _same_record(number: int, register: str) -> Race:
    """Return two submissions that both have the same new record behind one of their own."""
    mine, yours, shared = (decision(number + each, register) for each in range(3))
    return Race(
        (signed(mine, shared, register=register), signed(yours, shared, register=register)),
        "RECORD_ALREADY_REGISTERED",
    )


async def test_what_comes_before_what_it_follows_is_rejected_and_may_come_again(it: DistributedLedger) -> None:
    """False if a version overtook the one before it, or could never be registered after it had lost (P1)."""
    register = REGISTERS[1]
    first = decision(0, register)
    second, third, gone = (canonical.format(each) for each in _versions(first))
    unknown = canonical.format(correction(decision(1, register)))
    async with (
        departments(it.ledger.policy) as held,
        raw_topic(it) as topic,
        calling(address(it["registration"])) as caller,
    ):
        begun = await held.ask(it["registration"], signed(first, register=register), WAIT_FOR_SEQUENCED)
        assert isinstance(begun, Registered)
        view = begun.acceptance.governing_size
        # As from a replica whose reading of the store is behind, or ahead: the log has one order.
        early = [signed(third, register=register), signed(unknown, register=register)]
        for submission in early:
            held.journal.send(submission)
            await topic.send_message(message_of(submission, view))
        await asyncio.to_thread(it.until, lambda store: store.heads()[register].size >= 3, "two rejections")
        for submission, reason, existing in zip(
            early, ("VERSION_CONFLICT", "PREVIOUS_UNKNOWN"), (begun.first_index, None), strict=True
        ):
            told = await until_found(caller, submission)
            assert (told.state, told.rejection.reason) == (submission_pb2.STATE_REJECTED, reason)
            receipt = await held.receipt(it["registration"], register, told.rejection.index)
            lost = Rejected(submission, told.note, told.rejection.index, told.rejection.reason, receipt)
            held.journal.was_rejected(lost)
            said = rejection_of(lost, it.ledger.policy)
            assert (said.existing.index if said.existing else None) == existing
            assert (told.rejection.existing_sha256.hex() or None) == (said.existing and said.existing.sha256)
        for record in (second, third):
            answer = await held.ask(it["second"], signed(record, register=register), WAIT_FOR_SEQUENCED)
            assert isinstance(answer, Registered)
        # Once it stands, its rejection is history: both replicas answer for the entries.
        for name in ("registration", "second"):
            answer = await held.ask(it[name], early[0], WAIT_FOR_SEQUENCED)
            assert isinstance(answer, Registered)
            assert answer.known
        # The rest of section 9: a wrong `previous`, another type, a withdrawal.
        return_of_it = period_return(
            record_id=canonical.parse(third)["record_id"], register=register, reason="Late.", **following(third)
        )
        late = {
            "PREVIOUS_MISMATCH": canonical.format({**correction(third), "previous": _other_previous(third)}),
            "TYPE_CONFLICT": canonical.format(return_of_it),
            "RECORD_WITHDRAWN": canonical.format(correction(third, **following(gone))),
        }
        for reason, record in late.items():
            if reason == "RECORD_WITHDRAWN":
                answer = await held.ask(it["second"], signed(gone, register=register), WAIT_FOR_SEQUENCED)
                assert isinstance(answer, Registered)
            submission = signed(record, register=register)
            held.journal.send(submission)
            await topic.send_message(message_of(submission, view))
            told = await until_found(caller, submission)
            assert told.rejection.reason == reason
    await asyncio.to_thread(compared, it, held)


def _versions(first: bytes) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return versions 2 and 3 of a decision, and 4, which withdraws it."""
    second = correction(first)
    third = correction(canonical.format(second), reason="A name.")
    return second, third, withdrawal(canonical.format(third))


def _other_previous(record: bytes) -> dict[str, Any]:
    return {"version": canonical.parse(record)["version"], "sha256": "0" * 64}


async def until_found(caller: Caller, submission: SignedSubmission) -> submission_pb2.Acknowledgement:
    """Ask for a submission until something has come of it."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                return await found(caller, submission)
            except grpc.aio.AioRpcError as caught:
                if from_rpc_error(caught).reason != "SUBMISSION_UNKNOWN":
                    raise
                await asyncio.sleep(0.05)


async def test_a_replica_with_an_older_view_loses_to_the_newer_one(it: DistributedLedger) -> None:
    """False if governing_size could decrease over a register's entries, or the loser were never told."""
    register = REGISTERS[2]
    async with departments(it.ledger.policy) as held:
        for number in range(12):
            lost = await _stale(it, held, register, number)
            if lost is not None:
                break
        assert lost is not None, "no replica was ever behind the other"
        assert lost.reason == "STALE_VIEW"
        said = rejection_of(lost, it.ledger.policy)
        assert (said.rejected, said.existing) == (None, None)
        again = await held.ask(it["second"], lost.submission, WAIT_FOR_SEQUENCED)
        assert isinstance(again, Registered)
    await asyncio.to_thread(compared, it, held)


async def _stale(it: DistributedLedger, held: Departments, register: str, number: int) -> Rejected | None:
    """Let both replicas accept right after the governing register has grown; return what lost, if one did.

    Without the relay each hears of it only by its own look at the store.
    """
    it["relay"].pause()
    try:
        async with calling(address(it["registration"])) as caller:
            key = SecretKey(bytes([0x80 + number]) * 32)
            request = GOVERNANCE_CALLS["AuthoriseKey"](submission=client_message(authorising(key)))
            governing = asyncio.ensure_future(caller.governance.AuthoriseKey(request, timeout=SECONDS))
            asked: list[asyncio.Task[Answer]] = []
            while not governing.done():
                for name in ("registration", "second"):
                    submission = deciding(1, register)
                    asked.append(asyncio.create_task(held.ask(it[name], submission, WAIT_FOR_SEQUENCED)))
                await asyncio.sleep(0.1)
            for name in ("registration", "second"):
                submission = deciding(1, register)
                asked.append(asyncio.create_task(held.ask(it[name], submission, WAIT_FOR_SEQUENCED)))
    finally:
        it["relay"].resume()
    answers = await asyncio.gather(*asked)
    await governing
    return next((each for each in answers if isinstance(each, Rejected)), None)


# What registration cannot have made.

REVOKED_KEY: Final = SecretKey(b"\x61" * 32)
STRANGER: Final = SecretKey(b"\x62" * 32)

Forgery = tuple[str, int, bytes | None, bytes | None]
"""What is wrong with a message; its partition, key and value."""


def forgeries(topic: RawTopic, register: str, view: int, revoked: int) -> list[Forgery]:
    """Return one message of each kind that registration cannot have made.

    `view` is a governing size at which the register may be written to, `revoked` one at which `REVOKED_KEY` may
    not.
    """
    here = topic.partition_of(register)
    there = (here + 1) % topic.partitions
    name = register.encode()

    def made(*records: bytes, key: SecretKey = DEPARTMENT_KEY, at: int = view, **more: str) -> bytes:
        submission = sign_submission(records, f"{ORIGIN}/{register}", [key])
        return message_of(submission, at, **more).value()

    one, two, three = (_new(register) for _ in range(3))
    good = made(one, two, three)
    entries = decode_entries(good)
    later = decode_entries(made(one, two, three, accepted_at="2026-11-01T12:00:01.000Z"))
    path = parse_entry(entries[1]).membership
    assert path is not None
    shown = base64.encode(path.path).encode()
    other_path = base64.encode(bytes(64)).encode()
    signature = base64.encode(path.signatures[0].signature).encode()
    other_signature = base64.encode(STRANGER.sign(b"anything")).encode()
    foreign = sign_submission([one], f"other.ledger/{register}", [DEPARTMENT_KEY])
    rejection = submission_rejected(
        register=register,
        register_origin=f"{ORIGIN}/{register}",
        submission_id=sha256(one).hexdigest(),
        count=1,
        reason="RECORD_CONFLICT",
        index=1 << 40,
        rejected=None,
        existing=None,
    )

    def own(record: bytes) -> bytes:
        return encode_bundle([form_ledger_entry(record, "2026-11-01T12:00:00.000Z", view)])

    return [
        ("random bytes", here, name, random.Random(1).randbytes(300)),
        ("nothing", here, name, b""),
        ("tombstone", here, name, None),
        ("no key", here, None, made(_new(register))),
        ("empty key", here, b"", made(_new(register))),
        ("key that is no register", here, b"no register", made(_new(register))),
        ("key with NUL", here, b"a\0b/c", b"x"),
        ("key that is no text", here, b"\xff\xfe\x00", b"\xff"),
        ("key of another partition", there, name, made(_new(register))),
        ("no such register", topic.partition_of("nobody/nothing"), b"nobody/nothing", good),
        ("another register's message", here, name, _elsewhere(register, view)),
        ("wrong signature", here, name, good.replace(signature, other_signature)),
        ("path changed", here, name, good.replace(shown, other_path)),
        ("records re-ordered", here, name, encode_bundle([entries[1], entries[0], entries[2]])),
        ("a record is missing", here, name, encode_bundle(entries[:2])),
        ("a record twice", here, name, encode_bundle([*entries, entries[2]])),
        ("two acceptances", here, name, encode_bundle([entries[0], later[1], entries[2]])),
        ("two messages in one", here, name, made(one) + made(two)),
        ("cut off", here, name, good[:-1]),
        ("one byte more", here, name, good + b"\0"),
        ("foreign origin", here, name, message_of(foreign, view).value()),
        ("rejection forged", here, name, own(rejection)),
        ("decision without a signature", here, name, own(_new(register))),
        ("record that is none", here, name, made(b"{}")),
        ("record with a NUL", here, name, made(b'{"record_id":"\\u0000","type":"\\u0000","version":1}')),
        ("version too large", here, name, made(_too_new(register))),
        ("revoked key", here, name, made(_new(register), key=REVOKED_KEY, at=revoked)),
        ("key that nobody knows", here, name, made(_new(register), key=STRANGER)),
        ("view from before the register", here, name, made(_new(register), at=1)),
        ("long key", here, random.Random(2).randbytes(5_000), b"x"),
        ("larger than any message", here, name, bytes(8 * 1024 * 1024)),
        ("key larger than any message", here, b"k" * (8 * 1024 * 1024), b"x"),
    ]


def _new(register: str) -> bytes:
    return decision(next(_numbers), register)


def _too_new(register: str) -> bytes:
    return _new(register).replace(b'"version":1', b'"version":1%d' % (1 << 60))


_numbers: Final = count(1 << 40)


def _elsewhere(register: str, view: int) -> bytes:
    other = next(each for each in REGISTERS if each != register)
    return message_of(signed(_new(other), register=other), view).value()


async def test_what_registration_cannot_have_made_is_set_aside_and_nothing_else(
    it: DistributedLedger, draw: random.Random
) -> None:
    """False if a forged message made an entry, stopped its partition, or went by without an alarm."""
    load = DistributedLoad(it.ledger, draw)
    sent: list[Sent] = []
    async with raw_topic(it) as topic, calling(address(it["registration"])) as caller:
        authorised = await caller.govern("AuthoriseKey", authorising(REVOKED_KEY))
        revoked = await caller.govern("RevokeKey", revoking(REVOKED_KEY))
        view, without = authorised.first_index, revoked.first_index + 1
        # The first of a partition.
        governing = topic.partition_of(GOVERNING)
        for partition in range(topic.partitions):
            if partition != governing:
                first = await topic.send(partition, b"\xff", b"first")
                assert first.offset == 0
                sent.append(first)
        wrong = [each for register in REGISTERS for each in forgeries(topic, register, view, without)]
        draw.shuffle(wrong)
        for largest in ("larger than any message", "key larger than any message"):
            again = [each for each in wrong if each[0] == largest][1:]
            wrong = [each for each in wrong if each not in again]
        async with load.on(address(it["registration"]), address(it["second"])):
            for number, (_, partition, key, value) in enumerate(wrong):
                sent.append(await topic.send(partition, key, value))
                if number % 20 == 0:
                    await load.until(2)
            await load.until(20)
        await load.finish(address(it["registration"]))
        # The last of each.
        name = REGISTERS[0].encode()
        sent += [await topic.send(partition, name, b"last") for partition in range(topic.partitions)]
        copies = await topic.until_rejections(len(sent))
        assert Counter((each.key or b"", each.value or b"") for each in copies) == Counter(
            ((each.key or b"")[:COPIED_KEY], (each.value or b"")[:COPIED_VALUE]) for each in sent
        )
        # A copy may go out before what was committed with it is counted, in another thread.
        await asyncio.to_thread(it.until, lambda _: counted(it) >= len(sent), "all quarantined are counted")
        assert counted(it) == len(sent)
        assert it["sequencer"].said().count("a message is quarantined") == len(sent)
        kept = await asyncio.to_thread(quarantined, it)
        assert kept == {
            (each.partition, each.offset): ((each.key or b"")[:MAX_MESSAGE], (each.value or b"")[:MAX_MESSAGE])
            for each in sent
        }
    copy = await asyncio.to_thread(it.settled)
    told = await asyncio.to_thread(it.daybook, "rebuild", "--from", "kafka", "--check")
    assert told["quarantined"] == len(sent)
    held = load.compare(copy)
    entries = sum(len(one.entries) for one in held.values())
    print(f"{len(sent)} quarantined, {load.acknowledged} acknowledged, {entries} entries")


def counted(it: DistributedLedger) -> float:
    """Return how many messages the sequencer says it has set aside."""
    return it["sequencer"].metrics()["daybook_sequencer_quarantined_total"]


def quarantined(it: DistributedLedger) -> dict[tuple[int, int], tuple[bytes, bytes]]:
    """Return every message that the store has set aside, by partition and offset."""
    store = it.store()
    try:
        return {
            (partition, each.offset): (each.key, each.value)
            for partition in range(int(it.settings["PARTITIONS"]))
            for each in store.quarantined(SUBMISSIONS, partition)
        }
    finally:
        store.close()


async def test_what_was_judged_in_a_future_that_does_not_come_holds_up_its_partition_alone(
    it: DistributedLedger, draw: random.Random
) -> None:
    """False if it were appended, skipped, or waited for in silence, or held up the other partitions."""
    await asyncio.to_thread(it["sequencer"].terminate)
    await asyncio.to_thread(it.start, "sequencer", "sequencer", stall_seconds="8")
    load = DistributedLoad(it.ledger, draw)
    async with raw_topic(it) as topic:
        stuck = topic.partition_of(REGISTERS[0])
        others = [each for each in REGISTERS if topic.partition_of(each) != stuck]
        assert others
        submission = signed(_new(REGISTERS[0]))
        waiting = await topic.send_message(message_of(submission, 1 << 50))
        behind = await topic.send(stuck, b"\xff", b"behind")
        process = it["sequencer"].process
        async with load.on(address(it["registration"]), registers=others):
            async with asyncio.timeout(SECONDS):
                while (told := it["sequencer"].standing())["ready"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            (alarm,) = told["alarms"]
            assert str(1 << 50) in alarm
            stands = told["partitions"][str(stuck)]
            assert (stands["next_offset"], stands["waits_for"]) == (waiting.offset, 1 << 50)
            assert "waits for the governing register" in it["sequencer"].said()
            assert it["sequencer"].metrics()[f'daybook_sequencer_waiting{{partition="{stuck}"}}'] == 1
            # For longer than a partition may stand still.
            began = time.monotonic()
            while time.monotonic() - began < 12:
                await load.until(20)
        assert process.poll() is None
        assert not await asyncio.to_thread(quarantined, it)
        # It is so for whoever takes the partition over, too.
        it["sequencer"].kill()
        await asyncio.to_thread(it.start, "sequencer")
        await load.finish(address(it["registration"]))
        async with asyncio.timeout(SECONDS):
            while it["sequencer"].standing()["ready"]:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        assert it["sequencer"].terminate() == 1
    load.compare(await asyncio.to_thread(it.settled))
    told = await asyncio.to_thread(it.daybook, "rebuild", "--from", "kafka", "--check")
    assert (told["behind"], told["quarantined"]) == (2, 0)
    assert behind.offset == waiting.offset + 1
    print(f"{load.acknowledged} acknowledged")


# The way in, killed, stopped, and full.

KILLS: Final = int(os.environ.get("DAYBOOK_ROUNDS", "3"))
"""Times that a replica of registration is killed under load."""


async def test_a_replica_that_is_killed_before_it_answers_loses_and_doubles_nothing(
    it: DistributedLedger, draw: random.Random
) -> None:
    """False if what was in Kafka, and not yet acknowledged, was lost or registered again (P1, P2)."""
    load = DistributedLoad(it.ledger, draw)
    async with raw_topic(it) as topic, departments(it.ledger.policy) as held:
        replicas = address(it["registration"]), address(it["second"])
        async with load.on(*replicas, registers=REGISTERS[::2], largest=5):
            for number in range(KILLS):
                await load.until(20)
                killed, other = (
                    draw.sample(("registration", "second"), 2) if number else ("second", "registration")
                )
                submissions = [deciding(draw.randint(1, 3), each) for each in REGISTERS]
                for name in (killed, other):
                    await asyncio.gather(*(held.client(it[name], each) for each in REGISTERS))
                since = await topic.ends()
                it["sequencer"].pause()
                try:
                    asked = [
                        asyncio.create_task(held.ask(it[killed], each, WAIT_FOR_SEQUENCED))
                        for each in submissions
                    ]
                    await until_sent(topic, submissions, 1, since)
                    it[killed].kill()
                    # Nobody was answered. Each asks the other replica, and this one when it is there again.
                    asked += [
                        asyncio.create_task(held.ask(it[other], each, WAIT_FOR_SEQUENCED))
                        for each in submissions
                    ]
                    await until_sent(topic, submissions, 2, since)
                finally:
                    it["sequencer"].resume()
                await asyncio.to_thread(it.start, "registration", killed)
                answers = await asyncio.gather(*asked)
                for one, again in zip(answers[: len(submissions)], answers[len(submissions) :], strict=True):
                    assert isinstance(one, Registered)
                    assert isinstance(again, Registered)
                    assert (one.first_index, one.entries) == (again.first_index, again.entries)
            await load.until(20)
        await load.finish(address(it["registration"]))
        copies = await sent_times(topic)
        load.journal.sent.update(held.journal.sent)
        load.journal.answers += held.journal.answers
    compared_load = load.compare(await asyncio.to_thread(it.settled))
    runs = sum(len(one.runs) for one in compared_load.values())
    assert runs == len(copies)
    assert copies.total() >= runs + KILLS * len(REGISTERS)
    print(f"{KILLS} kills, {load.acknowledged} acknowledged, {runs} runs of {copies.total()} messages")


async def sent_times(topic: RawTopic, since: Mapping[int, int] | None = None) -> Counter[str]:
    """Return how many messages there are of each submission, by its submission_id."""
    times = Counter[str]()
    for sent in await topic.messages(since=since):
        message = open_message((sent.key or b"").decode(), sent.value or b"", ORIGIN)
        if message.submission is not None:
            times[message.submission.submission_id] += 1
    return times


async def until_sent(
    topic: RawTopic, submissions: Sequence[SignedSubmission], times: int, since: Mapping[int, int]
) -> None:
    """Wait until so many messages of each of these submissions are in Kafka, since some offsets."""
    async with asyncio.timeout(SECONDS):
        while True:
            sent = await sent_times(topic, since)
            if all(sent[each.submission_id] >= times for each in submissions):
                return


async def test_a_replica_that_is_stopped_answers_with_what_was_reached(
    it: DistributedLedger, draw: random.Random
) -> None:
    """False if a stop cut calls off, lost what it had acknowledged, or looked like a failure."""
    load = DistributedLoad(it.ledger, draw)
    async with departments(it.ledger.policy) as held, raw_topic(it) as topic:
        for each in REGISTERS:  # connected before anything stands still
            await held.client(it["second"], each)
        it["sequencer"].pause()
        try:
            before = await topic.count()
            waits = (WAIT_FOR_SEQUENCED, WAIT_FOR_SEALED)
            asked = [
                asyncio.create_task(
                    held.ask(it["second"], deciding(1, draw.choice(REGISTERS)), draw.choice(waits))
                )
                for _ in range(40)
            ]
            await topic.until_count(before + len(asked))
            stopping = it.services.pop("second")
            assert await asyncio.to_thread(stopping.terminate) == 0
        finally:
            it["sequencer"].resume()
        promised = await asyncio.gather(*asked)
        assert all(isinstance(each, Promised) for each in promised)
        for answer in promised:
            again = await held.ask(it["registration"], answer.submission, WAIT_FOR_SEQUENCED)
            assert isinstance(again, Registered)
        # And under load, of which nothing stands still.
        await asyncio.to_thread(it.start, "registration", "second")
        async with load.on(address(it["registration"]), address(it["second"])):
            for _ in range(2):
                await load.until(20)
                assert await asyncio.to_thread(it["second"].terminate) == 0
                await load.until(5)
                await asyncio.to_thread(it.start, "registration", "second")
            await load.until(20)
        await load.finish(address(it["second"]))
        load.journal.sent.update(held.journal.sent)
        load.journal.answers += held.journal.answers
    load.compare(await asyncio.to_thread(it.settled))
    print(f"{len(promised)} promised, {load.acknowledged} acknowledged")


async def test_what_is_too_much_for_a_broker_that_stands_still_is_refused_and_later_taken(
    tmp_path: Path, fresh_kafka: Kafka, postgres: SharedPostgres, many: LedgerOnDisk, draw: random.Random
) -> None:
    """False if registration swelled while Kafka stands still, or had to be started again when it goes on."""
    with distributed_ledger(tmp_path / "services", many, fresh_kafka, postgres) as it:
        await asyncio.to_thread(it.start_all, [each for each in WRITING if each != "registration"])
        await asyncio.to_thread(it.start, "registration", in_flight_bytes="4000")
        load = DistributedLoad(it.ledger, draw)
        async with calling(address(it["registration"])) as caller, supervised(it) as ended:
            async with load.on(address(it["registration"]), largest=3):
                await load.until(20)
                os.kill(fresh_kafka.pid, signal.SIGSTOP)
                try:
                    told = await _refusals(caller, load.sign(REGISTERS[0], 2), 8.0)
                finally:
                    os.kill(fresh_kafka.pid, signal.SIGCONT)
                # And BACKEND_DOWN for what was on its way, unless the broker goes on before that is told.
                assert "OVERLOADED" in told
                assert set(told) <= {"OVERLOADED", "BACKEND_DOWN"}
                for reason, errors in told.items():
                    assert all(each.retry_after for each in errors), reason
                    code = CODE.RESOURCE_EXHAUSTED if reason == "OVERLOADED" else CODE.UNAVAILABLE
                    assert {each.code for each in errors} == {code}
                assert it["registration"].metrics()["daybook_in_flight_bytes"] < 16_000
                await load.until(40)
            await load.finish(address(it["registration"]))
            # The others may end, and are started again.
            assert "registration" not in [name for name, _ in ended]
        load.compare(await asyncio.to_thread(it.settled))
        print({reason: len(errors) for reason, errors in told.items()}, f"ended: {ended}")


async def _refusals(caller: Caller, submission: SignedSubmission, seconds: float) -> dict[str, list[CallError]]:
    """Ask again and again for so long; return what was refused, by reason. Nothing else may be answered."""
    told: dict[str, list[CallError]] = {}
    began = time.monotonic()
    request = pb.RegisterRequest(submission=client_message(submission), wait_for=WAIT_FOR_ACCEPTED)
    while time.monotonic() - began < seconds:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.registration.Register(request, timeout=SECONDS)
        error = from_rpc_error(caught.value)
        told.setdefault(error.reason, []).append(error)
        await asyncio.sleep(0.1)
    return told

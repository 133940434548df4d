"""Registration over a real Kafka and a real PostgreSQL: what is answered, when, and what is then where."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
import pytest
from daybook.registration.v1 import registration_service_pb2 as pb
from daybook.submission.v1.submission_pb2 import (
    STATE_ACCEPTED,
    STATE_REJECTED,
    STATE_SEALED,
    STATE_SEQUENCED,
    WAIT_FOR_ACCEPTED,
    WAIT_FOR_SEALED,
    WAIT_FOR_SEQUENCED,
    Acknowledgement,
)

from ledger import base64
from ledger.acknowledgements import open_acknowledgement
from ledger.ed25519 import SecretKey
from ledger.entries import Acceptance, Signature, open_message, parse_entry
from ledger.ledger import Appended, Known
from services.client.answers import Promised, Registered
from services.client.answers import Rejected as ProvedRejection
from services.client.client import connect, message_of
from services.client.errors import CallError, from_rpc_error
from services.client.signing import SignedSubmission, sign_submission
from services.distributed import following_checkpoints
from services.distributed.outcomes import Outcomes, Sent
from services.local.kafka import Kafka
from services.local.postgres import Postgres, create_database
from tests.support.brokers import SharedKafka
from tests.support.calling import calling
from tests.support.kafka_ledger import (
    ACKNOWLEDGEMENTS,
    WITNESS,
    KafkaLedger,
    Replica,
    governing,
    kafka_ledger,
    signed,
    until,
)
from tests.support.ledger_dir import make_ledger
from tests.support.ledgers import (
    DEPARTMENT,
    DEPARTMENT_KEY,
    ORIGIN,
    POLICY,
    REGISTER,
    decision,
)
from tests.support.served import served

NEW_KEY: Final = SecretKey(b"\x21" * 32)
CODE: Final = grpc.StatusCode

_Answer = TypeVar("_Answer")


@pytest.fixture
async def ledger(
    kafka: SharedKafka, prefix: str, fresh_database: str, tmp_path: Path
) -> AsyncIterator[KafkaLedger]:
    async with kafka_ledger(kafka.bootstrap, prefix, fresh_database, tmp_path) as held:
        yield held


@pytest.fixture
async def replica(ledger: KafkaLedger) -> AsyncIterator[Replica]:
    async with ledger.registration() as held:
        yield held


async def refused(call: Any) -> CallError:
    """Return what a call was refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def answered(call: Callable[[], Awaitable[_Answer]], *refusals: str) -> _Answer:
    """Call again while it is refused for these reasons; return what it is answered with."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as caught:
                if from_rpc_error(caught).reason not in refusals:
                    raise
                await asyncio.sleep(0.02)


async def in_time(call: Callable[[float], Awaitable[_Answer]]) -> _Answer:
    """Call with a short deadline, and with longer ones while a slow machine lets them pass unanswered."""
    for seconds in (1.0, 4.0):
        try:
            return await call(seconds)
        except grpc.aio.AioRpcError as caught:
            if caught.code() is not CODE.DEADLINE_EXCEEDED:
                raise
    return await call(16.0)


async def until_outcomes(ledger: KafkaLedger, count: int) -> None:
    """Wait until so many messages are done: the first of two alike answers for both."""
    await until(lambda: len(ledger.outcomes) >= count, f"{count} outcomes")
    assert len(ledger.outcomes) == count


async def until_ready(replica: Replica) -> None:
    """Wait until it calls itself ready: on a slow machine its view may be old as soon as it runs."""
    async with asyncio.timeout(60):
        while (await replica.get("/readyz")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def envelope_of(answer: Acknowledgement) -> tuple[str, str, int]:
    """Return what an answer says of the entries' envelope."""
    return answer.envelope.accepted_at, answer.envelope.submitter, answer.envelope.governing_size


def stored_envelope(ledger: KafkaLedger, index: int) -> tuple[str, str, int]:
    """Return the envelope of an entry, as the store has it."""
    (data,) = ledger.store.entries(REGISTER, index, index + 1)
    acceptance = parse_entry(data).acceptance
    return acceptance.accepted_at, acceptance.submitter, acceptance.governing_size


# The states


async def test_what_is_acknowledged_is_in_kafka(ledger: KafkaLedger, replica: Replica) -> None:
    """If false, an acknowledgement would be a promise that nobody keeps (promise P1)."""
    ledger.going.clear()
    answer = await replica.register(signed(0, 1))
    assert answer.state == STATE_ACCEPTED
    assert not answer.checkpoint
    assert not answer.already_registered
    assert answer.no_witness
    ((key, value),) = await ledger.messages()
    assert key == REGISTER.encode()
    message = open_message(REGISTER, value, ORIGIN)
    acceptance = message.acceptance
    assert envelope_of(answer) == (acceptance.accepted_at, "anonymous", 3)
    assert acceptance.governing_size == 3
    acknowledged = open_acknowledgement(answer.note, ACKNOWLEDGEMENTS.verifier)
    assert acknowledged.submission_id == answer.submission_id
    assert (acknowledged.count, acknowledged.accepted_at) == (2, acceptance.accepted_at)


async def test_a_wait_for_sequenced_is_answered_with_the_entries_proved(
    ledger: KafkaLedger, replica: Replica
) -> None:
    """If false, SEQUENCED would say less than the embedded server says."""
    first = await replica.register(signed(0), WAIT_FOR_SEQUENCED)
    answer = await replica.register(signed(1, 2), WAIT_FOR_SEQUENCED)
    assert (first.first_index, answer.state, answer.first_index) == (0, STATE_SEQUENCED, 1)
    assert (answer.range_proof.count, answer.range_proof.size) == (2, 3)
    assert envelope_of(answer) == stored_envelope(ledger, 1)
    assert not answer.already_registered


async def test_a_submission_of_the_largest_size_goes_through(ledger: KafkaLedger, replica: Replica) -> None:
    """If false, Kafka's limits would be ours (formats.md, section 18)."""
    plain = sum(len(decision(number)) for number in range(1_000))
    fill = "x" * ((1_048_576 - plain) // 1_000 - len(',"description":""'))
    submission = signed(*range(1_000), description=fill)
    assert 1_040_000 < sum(map(len, submission.records)) <= 1_048_576
    answer = await replica.register(submission, WAIT_FOR_SEQUENCED)
    assert (answer.state, answer.range_proof.count) == (STATE_SEQUENCED, 1_000)


async def test_a_deadline_that_runs_out_leaves_the_promise(ledger: KafkaLedger, replica: Replica) -> None:
    """If false, a department would not know that its records are safe, though they are."""
    ledger.going.clear()
    answer = await in_time(lambda seconds: replica.register(signed(0), WAIT_FOR_SEALED, seconds))
    assert answer.state == STATE_ACCEPTED
    assert answer.note
    ledger.going.set()
    again = await replica.register(signed(0), WAIT_FOR_SEQUENCED)
    assert (again.state, again.first_index) == (STATE_SEQUENCED, 0)
    await until_outcomes(ledger, len(await ledger.messages()))


async def test_a_lost_race_is_answered_with_the_entry_that_says_so(
    ledger: KafkaLedger, replica: Replica
) -> None:
    """If false, an acknowledged submission could vanish (promise P1)."""
    ledger.going.clear()
    won, lost = signed(5), signed(4, 5, title="Another")
    await replica.register(won)
    waiting = asyncio.create_task(replica.register(lost, WAIT_FOR_SEQUENCED))
    await ledger.until_messages(2)
    ledger.going.set()
    answer = await waiting
    assert answer.state == STATE_REJECTED
    rejection = answer.rejection
    assert (rejection.reason, rejection.index, rejection.position) == ("RECORD_CONFLICT", 1, 1)
    (existing,) = ledger.store.entries(REGISTER, 0, 1)
    assert rejection.existing_index == 0
    assert rejection.existing_sha256 == sha256(existing.partition(b"\n")[2]).digest()
    assert envelope_of(answer) == stored_envelope(ledger, 1)
    assert open_acknowledgement(answer.note, ACKNOWLEDGEMENTS.verifier).count == 2
    assert (await replica.find(lost)).rejection == rejection
    assert (await replica.find(won)).first_index == 0


async def test_a_rejection_of_before_is_not_the_answer_of_now(ledger: KafkaLedger, replica: Replica) -> None:
    """If false, a submission that was rejected once could never be answered as registered."""
    follows = signed(
        7,
        type="decision.corrected/1",
        version=2,
        previous={"version": 1, "sha256": sha256(decision(7)).hexdigest()},
        correction="correction",
        reason="A digit was wrong.",
    )
    await ledger.send(follows)  # as from a replica that had seen what this sequencer has not
    await ledger.until_heads(REGISTER, 1)
    rejected = await answered(lambda: replica.find(follows), "SUBMISSION_UNKNOWN")
    assert rejected.rejection.reason == "PREVIOUS_UNKNOWN"
    await replica.register(signed(7), WAIT_FOR_SEQUENCED)
    ledger.going.clear()
    waiting = asyncio.create_task(replica.register(follows, WAIT_FOR_SEQUENCED))
    await ledger.until_messages(3)
    await asyncio.to_thread(ledger.made.add, [20])
    await ledger.publish(REGISTER)
    await asyncio.sleep(0.3)
    assert not waiting.done()
    ledger.going.set()
    answer = await waiting
    assert (answer.state, answer.first_index) == (STATE_SEQUENCED, 3)
    assert (await replica.find(follows)).first_index == 3


async def test_a_submission_that_nobody_sent_is_unknown(replica: Replica) -> None:
    """If false, GetSubmission would promise what was never accepted."""
    error = await refused(replica.find(signed(0)))
    assert (error.code, error.reason) == (CODE.NOT_FOUND, "SUBMISSION_UNKNOWN")


async def test_a_wait_for_a_seal_is_answered_by_the_cosignature(
    ledger: KafkaLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, departments would wait for seals that were given long ago."""
    monkeypatch.setattr(following_checkpoints, "LOOK_FOR_SEALS", 60.0)  # so that it comes by the topic
    await ledger.ask_a_witness()
    async with ledger.registration() as replica:
        for number in (0, 1):  # the second time, the replica has looked before
            waiting = asyncio.create_task(replica.register(signed(number), WAIT_FOR_SEALED))
            await ledger.until_heads(REGISTER, number + 1)
            await ledger.cosign(REGISTER)
            answer = await waiting
            assert answer.state == STATE_SEALED
        assert WITNESS.name.encode() in answer.checkpoint
        assert not answer.no_witness
        await replica.register(signed(2), WAIT_FOR_SEQUENCED)
        unsealed = await in_time(lambda seconds: replica.register(signed(2), WAIT_FOR_SEALED, seconds))
        assert unsealed.state == STATE_SEQUENCED


async def test_a_seal_of_which_the_topic_does_not_tell_is_found(ledger: KafkaLedger, replica: Replica) -> None:
    """If false, a relay that is away would hide every seal."""
    await ledger.ask_a_witness()
    waiting = asyncio.create_task(replica.register(signed(0), WAIT_FOR_SEALED))
    await ledger.until_heads(REGISTER, 1)
    await ledger.cosign(REGISTER, tell=False)
    assert (await waiting).state == STATE_SEALED


# The client


async def test_the_departments_client_proves_every_answer(ledger: KafkaLedger, replica: Replica) -> None:
    """If false, a department could not move to the distributed ledger with the client that it has."""
    async with connect(
        replica.addresses["grpc"], policy=POLICY, register=REGISTER, key=DEPARTMENT_KEY
    ) as client:
        answer = await client.submit(client.sign([decision(0), decision(1)]))
        assert isinstance(answer, Registered)
        assert answer.first_index == 0
        assert answer.key is not None
        assert len(answer.receipts()) == 2
        ledger.going.clear()
        promised = await client.submit(client.sign([decision(2)]), wait_for=WAIT_FOR_ACCEPTED)
        assert isinstance(promised, Promised)
        lost = client.sign([decision(2, title="Another")])
        rejecting = asyncio.create_task(client.submit(lost))
        await ledger.until_messages(3)
        ledger.going.set()
        rejection = await rejecting
        assert isinstance(rejection, ProvedRejection)
        assert (rejection.index, rejection.reason) == (3, "RECORD_CONFLICT")
        again = await client.submit(client.sign([decision(2)]))
        assert isinstance(again, Registered)
        assert (again.first_index, again.known) == (2, True)


async def test_the_same_records_signed_by_another_key_are_the_same_submission(
    ledger: KafkaLedger, replica: Replica
) -> None:
    """If false, a department that changes its key could not ask again for what it has sent."""
    await ledger.govern("key.authorised/1", NEW_KEY, **_key(NEW_KEY))
    await until(lambda: ledger.made.ledger.fold.size == 4)
    await replica.register(signed(0), WAIT_FOR_SEQUENCED)
    async with connect(replica.addresses["grpc"], policy=POLICY, register=REGISTER, key=NEW_KEY) as client:
        answer = await client.submit(client.sign([decision(0)]))
    assert isinstance(answer, Registered)
    assert answer.known
    assert answer.submission.signatures[0].key == DEPARTMENT_KEY.public


def _key(key: SecretKey) -> dict[str, Any]:
    return {"department": DEPARTMENT, "key": base64.encode(key.public), "label": "EDRMS"}


async def test_a_stream_is_answered_by_tag(ledger: KafkaLedger, replica: Replica) -> None:
    """If false, whoever pipelines could not use the distributed ledger."""

    async def requests() -> AsyncIterator[pb.RegisterStreamRequest]:
        for number in range(20):
            request = pb.RegisterRequest(submission=message_of(signed(number)), wait_for=WAIT_FOR_SEQUENCED)
            yield pb.RegisterStreamRequest(tag=number, request=request)

    answers = {
        one.tag: one.acknowledgement.first_index
        async for one in replica.caller.registration.RegisterStream(requests(), timeout=30)
    }
    assert sorted(answers) == list(range(20))
    assert sorted(answers.values()) == list(range(20))


# Twice


async def test_two_replicas_that_are_given_the_same_at_once_answer_the_same(
    ledger: KafkaLedger, replica: Replica
) -> None:
    """If false, a department that asks two replicas would register twice (promise P2)."""
    async with ledger.registration() as other:
        ledger.going.clear()
        submission = signed(0, 1)
        both = []
        for one in (replica, other):
            both.append(asyncio.create_task(one.register(submission, WAIT_FOR_SEQUENCED)))
            # In the same millisecond both would make the same entries, and neither would be known to the other.
            await ledger.until_messages(len(both))
        ledger.going.set()
        answers = [await one for one in both]
    await until_outcomes(ledger, 2)
    assert [type(one) for one in ledger.outcomes] == [Appended, Known]
    assert {one.first_index for one in answers} == {0}
    assert {envelope_of(one) for one in answers} == {stored_envelope(ledger, 0)}
    assert sorted(one.already_registered for one in answers) == [False, True]
    assert ledger.store.heads()[REGISTER].size == 2


async def test_what_is_under_way_in_a_replica_is_not_sent_twice(ledger: KafkaLedger, replica: Replica) -> None:
    """If false, an impatient client would fill the log with copies."""
    submission = signed(0)
    answers = await asyncio.gather(*(replica.register(submission, WAIT_FOR_SEQUENCED) for _ in range(8)))
    assert {one.first_index for one in answers} == {0}
    assert len(await ledger.messages()) < 8
    again = await replica.register(submission, WAIT_FOR_ACCEPTED)
    assert (again.state, again.already_registered, again.first_index) == (STATE_SEQUENCED, True, 0)


KILLED: Final = """
import asyncio, os, signal, sys
from services.distributed import registration_service
from services.distributed.settings import distributed_settings
from services.distributed.submission_log import SubmissionLog

append = SubmissionLog.append

async def killed(self, register, value):
    await append(self, register, value)
    os.kill(os.getpid(), signal.SIGKILL)

SubmissionLog.append = killed
asyncio.run(registration_service.run(distributed_settings(), lambda told: print(told["grpc"], flush=True)))
"""


async def test_what_was_sent_before_a_kill_is_known_when_it_is_asked_for_again(
    ledger: KafkaLedger, replica: Replica
) -> None:
    """If false, a crash between Kafka's word and the answer would register twice, or not at all (P1, P2)."""
    ledger.going.clear()
    submission = signed(0, 1)
    dying = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, env={**os.environ, **ledger.environment()}, stdout=asyncio.subprocess.PIPE
    )
    assert dying.stdout is not None
    address = (await dying.stdout.readline()).decode().strip()
    async with calling(address) as caller:
        request = pb.RegisterRequest(submission=message_of(submission), wait_for=WAIT_FOR_ACCEPTED)
        error = await refused(caller.registration.Register(request, timeout=30))
    assert error.code is CODE.UNAVAILABLE
    assert await dying.wait() == -signal.SIGKILL
    assert len(await ledger.messages()) == 1
    waiting = asyncio.create_task(replica.register(submission, WAIT_FOR_SEQUENCED))
    await ledger.until_messages(2)
    ledger.going.set()
    answer = await waiting
    await until_outcomes(ledger, 2)
    assert [type(one) for one in ledger.outcomes] == [Appended, Known]
    assert (answer.first_index, answer.already_registered) == (0, True)
    assert envelope_of(answer) == stored_envelope(ledger, 0)
    acknowledged = open_acknowledgement(answer.note, ACKNOWLEDGEMENTS.verifier)
    assert acknowledged.accepted_at != answer.envelope.accepted_at  # this replica's own, and later


# Refusals


async def test_what_is_refused_is_refused_as_the_embedded_server_refuses_it(
    ledger: KafkaLedger, replica: Replica, tmp_path: Path
) -> None:
    """If false, a department would have to know which of the two modes it speaks to (promise P9)."""
    await replica.register(signed(0), WAIT_FOR_SEQUENCED)
    before = {name: head.size for name, head in ledger.store.heads().items()}
    made = await asyncio.to_thread(make_ledger, tmp_path / "embedded")
    async with served(made.root) as embedded:
        await embedded.register(signed(0))
        for name, submission in refusals().items():
            there = await refused(embedded.register(submission))
            here = await refused(replica.register(submission))
            assert _said(here) == _said(there), name
        for call, submission in governing_refusals():
            there = await refused(embedded.govern(call, submission))
            here = await refused(replica.caller.govern(call, submission))
            assert _said(here) == _said(there), call
    assert {name: head.size for name, head in ledger.store.heads().items()} == before
    assert len(await ledger.messages()) == 1


def _said(error: CallError) -> tuple[Any, ...]:
    details = {name: value for name, value in error.metadata.items() if name != "request_id"}
    return error.code, error.reason, details, error.violations, error.message


def refusals() -> dict[str, SignedSubmission]:
    """Return submissions that are refused, one for each step of formats.md, sections 8 and 9."""
    flipped = signed(1)
    signature = Signature(DEPARTMENT_KEY.public, bytes(64))
    return {
        "too large": signed(1, description="x" * 61_440),
        "not canonical": sign_submission([b"{"], f"{ORIGIN}/{REGISTER}", [DEPARTMENT_KEY]),
        "another origin": sign_submission([decision(1)], f"other.test/{REGISTER}", [DEPARTMENT_KEY]),
        "signature": flipped.signed_by([signature]),
        "unknown register": signed(1, register=f"{DEPARTMENT}/nobody"),
        "unknown key": signed(1, key=NEW_KEY),
        "unknown key and wrong content": signed(1, key=NEW_KEY, channel="pigeon"),
        "wrong field": signed(1, channel="pigeon"),
        "secret": signed(1, classification={"sensitive": False, "tier": "SECRET"}),
        "future": signed(1, decided_at="2099-01-01"),
        "twice": signed(1, 1),
        "registered": signed(0, 1),
        "conflict": signed(0, title="Another"),
        "previous": signed(
            1,
            version=2,
            type="decision.corrected/1",
            previous={"version": 1, "sha256": "0" * 64},
            correction="correction",
            reason="None.",
        ),
    }


def governing_refusals() -> list[tuple[str, SignedSubmission]]:
    """Return governance that is refused."""
    return [
        ("OpenRegister", governing("register.opened/1", name=REGISTER, title="Again")),
        ("OpenRegister", governing("register.opened/1", by=(NEW_KEY,), name=f"{DEPARTMENT}/x", title="X")),
        ("AuthoriseKey", governing("key.authorised/1", **_key(NEW_KEY))),
        ("AuthoriseKey", governing("key.authorised/1", DEPARTMENT_KEY, **_key(DEPARTMENT_KEY))),
    ]


# Governance


async def test_governance_goes_the_same_way_and_counts_at_once(ledger: KafkaLedger, replica: Replica) -> None:
    """If false, who decides could not tell when a decision is in force."""
    register = f"{DEPARTMENT}/minister"
    opened = await replica.caller.govern(
        "OpenRegister", governing("register.opened/1", name=register, title="The minister")
    )
    assert (opened.state, opened.first_index) == (STATE_SEQUENCED, 3)
    authorised = await replica.caller.govern(
        "AuthoriseKey", governing("key.authorised/1", NEW_KEY, **_key(NEW_KEY))
    )
    assert authorised.first_index == 4
    answer = await replica.register(signed(0, register=register, key=NEW_KEY), WAIT_FOR_SEQUENCED)
    assert (answer.first_index, answer.envelope.governing_size) == (0, 5)


async def test_a_new_key_counts_before_the_next_look(
    ledger: KafkaLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, a key that was revoked could write on for as long as nobody looks."""
    monkeypatch.setattr(following_checkpoints, "LOOK_AGAIN", 600.0)
    submission = signed(0, key=NEW_KEY)
    async with ledger.registration(view_seconds=3_600.0) as replica:
        assert (await refused(replica.register(submission))).reason == "KEY_UNKNOWN"
        await ledger.govern("key.authorised/1", NEW_KEY, **_key(NEW_KEY))
        await answered(lambda: replica.register(submission), "KEY_UNKNOWN")


async def test_news_of_which_the_topic_does_not_tell_is_found_in_the_store(
    ledger: KafkaLedger, replica: Replica
) -> None:
    """If false, a relay that is away would leave revoked keys writing."""
    await asyncio.to_thread(ledger.made.govern, "key.revoked/1", **_revoked(DEPARTMENT_KEY))
    await ledger.publish("governing", tell=False)
    error = await refused(_until_refused(replica))
    assert error.reason == "KEY_REVOKED"


async def _until_refused(replica: Replica) -> None:
    for number in range(1_000):
        await replica.register(signed(number))
        await asyncio.sleep(0.02)


def _revoked(key: SecretKey) -> dict[str, Any]:
    return {"department": DEPARTMENT, "key": base64.encode(key.public), "reason": "rotated"}


# What is away


async def test_a_broker_that_hangs_makes_it_overloaded_and_loses_nothing(
    fresh_kafka: Kafka, fresh_database: str, tmp_path: Path
) -> None:
    """If false, a slow broker would fill the memory, or what it holds would be forgotten."""
    async with (
        kafka_ledger(fresh_kafka.bootstrap, "", fresh_database, tmp_path) as ledger,
        ledger.registration(in_flight_bytes=2_000) as replica,
    ):
        await replica.register(signed(0), WAIT_FOR_SEQUENCED)
        os.kill(fresh_kafka.pid, signal.SIGSTOP)
        try:
            hanging = asyncio.create_task(refused(replica.register(signed(1, 2))))
            async with asyncio.timeout(10):
                while await replica.metric("daybook_in_flight_bytes") < 1_000:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            full = await refused(replica.register(signed(3, 4)))
            assert (full.code, full.reason) == (CODE.RESOURCE_EXHAUSTED, "OVERLOADED")
            assert full.retry_after is not None
            away = await hanging
            assert (away.code, away.reason) == (CODE.UNAVAILABLE, "BACKEND_DOWN")
        finally:
            os.kill(fresh_kafka.pid, signal.SIGCONT)
        again = partial(replica.register, signed(1, 2), WAIT_FOR_SEQUENCED)
        # The broker was silent for so long that it may have to be let in again.
        answer = await answered(again, "OVERLOADED", "BACKEND_DOWN")
        assert (answer.state, answer.first_index) == (STATE_SEQUENCED, 1)
        last = partial(replica.register, signed(3, 4), WAIT_FOR_SEQUENCED)
        await answered(last, "OVERLOADED", "BACKEND_DOWN")
    assert ledger.made.ledger.heads()[REGISTER].size == 5


async def test_a_broker_that_is_gone_is_said_so_and_taken_up_again(
    fresh_kafka: Kafka, fresh_database: str, tmp_path: Path
) -> None:
    """If false, a broker's restart would be an outage until somebody restarts registration."""
    async with (
        kafka_ledger(fresh_kafka.bootstrap, "", fresh_database, tmp_path) as ledger,
        ledger.registration() as replica,
    ):
        await replica.register(signed(0), WAIT_FOR_SEQUENCED)
        fresh_kafka.kill()
        away = await refused(replica.register(signed(1)))
        assert (away.code, away.reason) == (CODE.UNAVAILABLE, "BACKEND_DOWN")
        assert away.retry_after is not None
        found = await replica.find(signed(0))
        assert found.first_index == 0
        await asyncio.to_thread(fresh_kafka.start)
        for number in (1, 2):
            again = partial(replica.register, signed(number), WAIT_FOR_SEQUENCED)
            assert (await answered(again, "BACKEND_DOWN")).first_index == number
    assert ledger.made.ledger.heads()[REGISTER].size == 3


async def test_nothing_is_accepted_on_an_old_view(
    kafka: SharedKafka, prefix: str, fresh_postgres: Postgres, tmp_path: Path
) -> None:
    """If false, a key that was revoked long ago could still write (formats.md, section 7)."""
    create_database(fresh_postgres.superuser_dsn, "ledger")
    async with kafka_ledger(kafka.bootstrap, prefix, fresh_postgres.dsn("ledger"), tmp_path) as ledger:
        ledger.going.clear()
        async with ledger.registration(view_seconds=3.0) as replica:
            await until_ready(replica)
            fresh_postgres.kill()
            reasons: list[str] = []
            async with asyncio.timeout(30):
                while not reasons or reasons[-1] != "GOVERNING_VIEW_OLD":
                    error = await refused(replica.register(signed(0)))
                    assert error.code is CODE.UNAVAILABLE
                    reasons.append(error.reason)
            assert set(reasons) <= {"BACKEND_DOWN", "GOVERNING_VIEW_OLD"}
            told = await replica.get("/readyz")
            assert (told.status_code, told.json()["ready"]) == (503, False)
            assert not await ledger.messages()
            fresh_postgres.start()
            await until_ready(replica)
            again = partial(replica.register, signed(0))
            assert (await answered(again, "GOVERNING_VIEW_OLD", "BACKEND_DOWN")).state == STATE_ACCEPTED


async def test_a_stop_answers_who_waits_with_the_state_reached(ledger: KafkaLedger) -> None:
    """If false, every restart would cut calls off whose records are safe."""
    async with ledger.registration() as replica:
        ledger.going.clear()
        waiting = asyncio.create_task(replica.register(signed(0), WAIT_FOR_SEALED))
        await ledger.until_messages(1)
        replica.stop.asked.set()
        assert (await waiting).state == STATE_ACCEPTED
        await asyncio.wait({replica.serving}, timeout=10)
        assert replica.serving.done()


async def test_whoever_comes_to_wait_after_that_is_not_kept(ledger: KafkaLedger) -> None:
    """If false, what Kafka acknowledges late in a stop would be cut off instead of answered."""
    held = ledger.made
    outcomes = Outcomes(held.ledger, ledger.store, held.published, lambda *_: b"")
    outcomes.give_up()
    sent = Sent(REGISTER, "0" * 64, Acceptance("", "anonymous", 3), b"", None, -1, -1)
    async with asyncio.timeout(10):
        assert await outcomes.of(sent) is None
    await outcomes.close()


# What is forged


async def test_what_the_log_has_not_signed_is_not_shown(ledger: KafkaLedger, replica: Replica) -> None:
    """If false, whoever may write to a topic could show a ledger that is none."""
    await replica.register(signed(0), WAIT_FOR_SEQUENCED)
    head = ledger.store.heads()[REGISTER]
    root = sha256(b"forged").digest()
    other = ledger.note("governing", 3, ledger.store.heads()["governing"].root)
    await ledger.tell(REGISTER, ledger.note(REGISTER, head.size + 1, root, key=NEW_KEY))
    await ledger.tell(REGISTER, other)
    await ledger.tell(REGISTER, b"nonsense")
    await ledger.tell(REGISTER, ledger.note(REGISTER, head.size + 5, root))  # signed, and never committed
    await replica.register(signed(1), WAIT_FOR_SEQUENCED)
    async with asyncio.timeout(30):
        while await replica.metric("daybook_checkpoints_dropped_total") < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await replica.metric("daybook_checkpoints_dropped_total") == 3
    receipt = await replica.caller.registration.GetReceipt(pb.GetReceiptRequest(register=REGISTER, index=0))
    assert b"forged" not in receipt.receipt
    found = await replica.find(signed(1))
    assert found.range_proof.size == 2

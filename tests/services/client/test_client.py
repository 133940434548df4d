"""The client against servers: one that serves the vectors' ledger, and the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from daybook.registration.v1 import registration_service_pb2 as pb
from daybook.registration.v1 import registration_service_pb2_grpc as rpc
from daybook.submission.v1 import submission_pb2

from ledger.acknowledgements import Acknowledgement, sign_acknowledgement
from ledger.checkpoints import Checkpoint, sign_checkpoint
from ledger.errors import MalformedError, VerificationError
from ledger.hashing import leaf_hash
from ledger.receipt_file import Receipt
from ledger.receipts import verify_receipt
from ledger.tlog_proofs import TlogProof
from ledger.witnessing import Policy
from services.client.answers import Registered, Rejected
from services.client.client import Client, LedgerIdentity, connect, fetch_receipt, identify
from services.client.errors import RefusedError
from services.client.signing import SignedSubmission, sign_submission
from services.ledger_files import read_secret_key
from tests.support import story
from tests.support.records import DEPARTMENT, REGISTER, decision_bytes, record_id
from tests.support.server import MadeLedger, Server, daybook, make_ledger, serving
from tests.support.vectors import load


class VectorServer(rpc.RegistrationServiceServicer):
    """Answers with receipts of the vectors, by register and index, and with one acknowledgement."""

    def __init__(
        self, receipts: dict[tuple[str, int], bytes], acknowledgement: submission_pb2.Acknowledgement
    ) -> None:
        self.receipts = receipts
        self.acknowledgement = acknowledgement

    async def GetReceipt(self, request: pb.GetReceiptRequest, context: Any) -> pb.GetReceiptResponse:  # noqa: N802
        return pb.GetReceiptResponse(receipt=self.receipts[request.register, request.index])

    async def Register(self, request: pb.RegisterRequest, context: Any) -> pb.RegisterResponse:  # noqa: N802
        return pb.RegisterResponse(acknowledgement=self.acknowledgement)

    async def PrepareRecords(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    async def GetSubmission(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    def RegisterStream(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError


@asynccontextmanager
async def stub_of(server: VectorServer) -> AsyncIterator[rpc.RegistrationServiceAsyncStub]:
    running = grpc.aio.server()
    rpc.add_RegistrationServiceServicer_to_server(server, running)
    port = running.add_insecure_port("127.0.0.1:0")
    await running.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield rpc.RegistrationServiceStub(channel)
    finally:
        await running.stop(None)


def refused_submission() -> SignedSubmission:
    """Return the submission of the vectors that lost a race."""
    rejected = load("append-rules.json")
    wanted = "82d01c4a64c838c27b4e6a2c7841cf6df0cf41feb60f3bd14f980d508adf9d70"
    assert wanted in str(rejected)
    (found,) = [each for each in load("submissions.json")["submissions"] if each["submission_id"] == wanted]
    records = [record.encode() for record in found["records"]]
    return sign_submission(records, story.ORIGIN, [story.secret("department")])


def acknowledger_note(submission: SignedSubmission) -> bytes:
    stated = Acknowledgement(story.ORIGIN, submission.submission_id, 1, "2026-07-03T15:20:11.042Z")
    return sign_acknowledgement(
        stated, story.signer("acknowledgements", f"{story.LEDGER_ORIGIN}/acknowledgements")
    )


@asynccontextmanager
async def client_that_is_told(receipt: bytes) -> AsyncIterator[tuple[Client, SignedSubmission]]:
    submission = refused_submission()
    answer = submission_pb2.Acknowledgement(
        submission_id=submission.submission_id,
        state=submission_pb2.STATE_REJECTED,
        note=acknowledger_note(submission),
        rejection=submission_pb2.Rejection(reason="RECORD_CONFLICT", index=5),
    )
    opening = verify_receipt(story.receipt("governing"), story.policy())
    key = story.signer("acknowledgements", f"{story.LEDGER_ORIGIN}/acknowledgements").verifier
    identity = LedgerIdentity(story.LEDGER_ORIGIN, key, opening)
    async with stub_of(VectorServer({(story.REGISTER, 5): receipt}, answer)) as stub:
        yield (
            Client(stub, story.policy(), identity, story.REGISTER, story.secret("department")),
            submission,
        )


async def test_a_rejection_is_believed_when_the_register_shows_it() -> None:
    """False if a lost race came back without the proof that the ledger kept its promise."""
    async with client_that_is_told(story.receipt("rejection")) as (client, submission):
        answer = await client.submit(submission)
    assert isinstance(answer, Rejected)
    assert (answer.index, answer.reason) == (5, "RECORD_CONFLICT")
    assert verify_receipt(answer.receipt, story.policy()).index == 5


async def test_a_rejection_that_the_register_does_not_show_is_refused() -> None:
    """False if a server could drop an acknowledged submission by saying that it lost a race."""
    async with client_that_is_told(story.receipt("minimal")) as (client, submission):
        with pytest.raises(VerificationError):
            await client.submit(submission)


async def test_the_rejection_of_another_submission_is_refused() -> None:
    """False if one provable rejection served a server to drop any submission that it likes."""
    async with client_that_is_told(story.receipt("rejection")) as (client, _):
        other = client.sign([decision_bytes()])
        server_says = submission_pb2.Acknowledgement(
            state=submission_pb2.STATE_REJECTED,
            note=acknowledger_note(other),
            rejection=submission_pb2.Rejection(index=5),
        )
        client_server = VectorServer({(story.REGISTER, 5): story.receipt("rejection")}, server_says)
        async with stub_of(client_server) as stub:
            asking = Client(stub, story.policy(), client.identity, story.REGISTER, story.secret("department"))
            with pytest.raises(VerificationError, match="does not reject"):
                await asking.submit(other)


def governing_receipt(record_type: str) -> bytes:
    """Return a receipt of the vectors' governing entry of this type, alone in a tree of size 1."""
    entries = [entry.encode() for entry in load("registers.json")["governing"]["entries"]]
    entry = next(entry for entry in entries if f'"type":"{record_type}"'.encode() in entry)
    note = sign_checkpoint(
        Checkpoint(story.GOVERNING_ORIGIN, 1, leaf_hash(entry)),
        story.signer("ledger", story.GOVERNING_ORIGIN),
    )
    return Receipt(entry, TlogProof(0, (), note)).data()


async def test_the_acknowledgement_key_comes_from_the_proved_first_entry() -> None:
    """False if the key that makes promises came from anywhere but the governing register."""
    receipts = {("governing", 0): governing_receipt("ledger.opened/1")}
    async with stub_of(VectorServer(receipts, submission_pb2.Acknowledgement())) as stub:
        identity = await identify(stub, story.unwitnessed())
    expected = story.signer("acknowledgements", f"{story.LEDGER_ORIGIN}/acknowledgements").verifier
    assert identity.acknowledgement_key == expected


@pytest.mark.parametrize("record_type", ["register.opened/1", "key.authorised/1"])
async def test_a_first_entry_that_opens_no_ledger_is_refused(record_type: str) -> None:
    """False if another entry than ledger.opened/1 could name the key."""
    receipts = {("governing", 0): governing_receipt(record_type)}
    async with stub_of(VectorServer(receipts, submission_pb2.Acknowledgement())) as stub:
        with pytest.raises(VerificationError, match="does not open"):
            await identify(stub, story.unwitnessed())


async def test_a_receipt_of_another_entry_than_asked_for_is_refused() -> None:
    """False if a server could answer with an older entry, duly proved."""
    receipts = {(story.REGISTER, 3): story.receipt("minimal")}
    async with stub_of(VectorServer(receipts, submission_pb2.Acknowledgement())) as stub:
        with pytest.raises(VerificationError, match="asked for"):
            await fetch_receipt(stub, story.policy(), story.LEDGER_ORIGIN, story.REGISTER, 3, 10)


async def test_a_policy_that_names_no_ledger_or_two_is_refused_before_anything_is_sent() -> None:
    """False if the client chose between ledgers by itself."""
    lines = (story.POLICY_FILE.decode().splitlines()[0], "quorum none")
    two = lines[0].replace(
        str(story.signer("ledger", story.GOVERNING_ORIGIN).verifier),
        str(story.signer("governance one", "other.example/governing").verifier),
    )
    for text in (f"{lines[1]}\n", f"{lines[0]}\n{two}\n{lines[1]}\n"):
        with pytest.raises(MalformedError):
            async with connect(
                "127.0.0.1:1",
                policy=Policy.parse(text.encode()),
                register=REGISTER,
                key=story.secret("department"),
            ):
                pass


# The real server


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> MadeLedger:
    return make_ledger(tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def server(ledger: MadeLedger) -> Iterator[Server]:
    with serving(ledger.directory) as running:
        yield running


def records(first: int, count: int) -> list[bytes]:
    return [decision_bytes(record_id=record_id(number)) for number in range(first, first + count)]


@asynccontextmanager
async def connected(ledger: MadeLedger, server: Server, key: Path | None = None) -> AsyncIterator[Client]:
    async with connect(
        server.grpc,
        policy=Policy.parse(ledger.policy.read_bytes()),
        register=REGISTER,
        key=read_secret_key(key or ledger.key).secret,
    ) as client:
        yield client


@pytest.mark.journey
async def test_submitting_again_gives_the_same_answer(ledger: MadeLedger, server: Server) -> None:
    """False if a retry, after an answer was lost, could end in anything but the first outcome."""
    async with connected(ledger, server) as client:
        submission = client.sign(records(0, 3))
        first, again = await client.submit(submission), await client.submit(submission)
    assert isinstance(first, Registered)
    assert isinstance(again, Registered)
    assert (first.known, again.known) == (False, True)
    assert (first.entries, first.first_index) == (again.entries, again.first_index)


@pytest.mark.journey
async def test_receipts_show_that_the_key_was_authorised(ledger: MadeLedger, server: Server) -> None:
    """False if a department's own receipts proved less than those that the ledger gives out."""
    async with connected(ledger, server) as client:
        answer = await client.submit(client.sign(records(10, 2)))
        fetched, _ = await client.receipt(submission_pb2.RecordVersion(record_id=record_id(11), version=1))
    assert isinstance(answer, Registered)
    verified = verify_receipt(answer.receipt(1), Policy.parse(ledger.policy.read_bytes()))
    assert verified.authorised is not None
    assert Receipt.parse(fetched).entry == Receipt.parse(answer.receipt(1)).entry


@pytest.mark.journey
async def test_the_same_records_signed_by_a_newer_key_are_the_submission_that_came_first(
    ledger: MadeLedger, server: Server, tmp_path: Path
) -> None:
    """False if a department that changed its key could not take up an interrupted run."""
    newer = tmp_path / "newer"
    daybook("keygen", newer, "--name", "newer")
    daybook(
        *("govern", ledger.directory, "authorise-key", DEPARTMENT, "--label", "newer"),
        *("--public-key", f"{newer}.pub", "--proof", newer, "--server", server.grpc),
    )
    async with connected(ledger, server) as client:
        first = await client.submit(client.sign(records(20, 3)))
    async with connected(ledger, server, newer) as client:
        again = await client.submit(client.sign(records(20, 3)))
    assert isinstance(first, Registered)
    assert isinstance(again, Registered)
    assert again.known
    assert again.entries == first.entries
    verify_receipt(again.receipt(2), Policy.parse(ledger.policy.read_bytes()))


@pytest.mark.journey
async def test_of_many_each_ends_in_an_answer_or_its_own_refusal(ledger: MadeLedger, server: Server) -> None:
    """False if one refused submission took others with it, or one of them ended without a word."""
    async with connected(ledger, server) as client:
        good = [client.sign(records(first, 2)) for first in range(100, 200, 2)]
        bad = client.sign([decision_bytes(record_id=record_id(300), title=None)])
        ended = [each async for each in client.submit_many([*good[:25], bad, *good[25:]])]
    assert len(ended) == 51
    outcomes = {each.submission.submission_id: each.outcome for each in ended}
    assert isinstance(outcomes.pop(bad.submission_id), RefusedError)
    assert all(isinstance(outcome, Registered) for outcome in outcomes.values())


@pytest.mark.journey
async def test_a_restart_of_the_ledger_is_waited_for(tmp_path: Path) -> None:
    """False if a department had to notice, and to repeat, what a restart interrupted."""
    ledger = make_ledger(tmp_path)
    with serving(ledger.directory) as server:
        async with connected(ledger, server) as client:
            await client.submit(client.sign(records(0, 1)))
            assert await asyncio.to_thread(server.stop) == 0
            waiting = asyncio.create_task(client.submit(client.sign(records(1, 1))))
            with serving(ledger.directory, "--grpc", server.grpc):
                assert isinstance(await waiting, Registered)

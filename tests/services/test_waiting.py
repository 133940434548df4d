"""Register's waits for a seal, and what receipts then show of witnesses and anchors: over a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from daybook.registration.v1 import registration_service_pb2 as pb
from daybook.submission.v1.submission_pb2 import Acknowledgement, State, WaitFor

from ledger.governing import GOVERNING
from ledger.ledger import Appended
from ledger.own_records import checkpoint_anchored
from ledger.receipt_file import Receipt
from ledger.receipts import FindingKind, VerifiedReceipt, verify_receipt
from ledger.witnessing import Policy, judge
from services.client.answers import AnswerVerifier, Promised, Registered
from services.client.client import connect, message_of
from services.client.signing import SignedSubmission
from services.reached import Answer, Waiter
from services.reached import State as Wanted
from services.submissions import Durable
from tests.support.calling import SECONDS
from tests.support.command import run, run_json
from tests.support.ledger_dir import LedgerOnDisk, opening
from tests.support.ledgers import DEPARTMENT, DEPARTMENT_KEY, ORIGIN, REGISTER
from tests.support.scripted_witness import Behaviour, ScriptedWitness, hangs, honestly, replies, waits_for
from tests.support.served import Served, served
from tests.support.witnessed import deciding, policy_text, publishing

MAIN = f"{ORIGIN}/{REGISTER}"
SEALED = (WaitFor.WAIT_FOR_UNSPECIFIED, WaitFor.WAIT_FOR_SEALED)
SOONER = (WaitFor.WAIT_FOR_ACCEPTED, WaitFor.WAIT_FOR_SEQUENCED)
HANGING = 60.0
"""Seconds after which a stop is said to hang: it takes some 5, and more on a busy machine."""


@asynccontextmanager
async def serving(
    ledger: LedgerOnDisk, witnesses: Sequence[ScriptedWitness], *lines: str, anchor_seconds: float = 600.0
) -> AsyncIterator[Served]:
    """Serve a ledger that asks these witnesses, once it is all sealed."""
    async with served(ledger.root, anchor_seconds=anchor_seconds) as it:
        await publish(it, ledger, witnesses, *lines)
        await it.until_all_sealed()
        yield it


async def publish(it: Served, ledger: LedgerOnDisk, witnesses: Sequence[ScriptedWitness], *lines: str) -> None:
    """Publish a policy over gRPC."""
    text = policy_text(ledger, [each.witness for each in witnesses], *lines)
    await it.govern("PublishPolicy", publishing(text))


def policy_of(it: Served) -> Policy:
    """Return the policy in force; here it is the verifier's own as well."""
    policy = it.published.policy
    assert policy is not None
    return policy


def proved(
    it: Served, ledger: LedgerOnDisk, submission: SignedSubmission, answer: Acknowledgement
) -> Registered | Promised:
    """Verify an answer as the client does."""
    return AnswerVerifier(policy_of(it), MAIN, ledger.acknowledgement_key).verify(submission, answer)


async def verified(it: Served, index: int, register: str = REGISTER) -> tuple[VerifiedReceipt, State.ValueType]:
    """Return what the receipt of an entry proves, and the state that the server says."""
    response = await it.receipt(index, register)
    return verify_receipt(response.receipt, policy_of(it)), response.state


# How long a call waits


@pytest.mark.parametrize("wait_for", SEALED)
async def test_a_wait_for_the_seal_ends_with_the_seal(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness, wait_for: WaitFor.ValueType
) -> None:
    """If false, a department would be told SEALED before it is, or wait though it is."""
    async with serving(ledger, [one, two]) as it:
        first = deciding(3)
        await it.register(first, wait_for)
        submission = deciding(2)
        answer = await it.register(submission, wait_for)
        assert (answer.state, answer.no_witness) == (State.STATE_SEALED, False)
        assert judge(answer.checkpoint, policy_of(it), MAIN).sealed
        registered = proved(it, ledger, submission, answer)
        assert isinstance(registered, Registered)
        assert (registered.sealed, set(registered.witnesses)) == (True, {"one", "two"})
        # The client's own receipts are bounded on both sides.
        for data in registered.receipts():
            bounds = verify_receipt(data, policy_of(it)).bounds
            assert bounds.not_before is not None
            assert bounds.not_after is not None
            assert bounds.not_before <= bounds.not_after
        again = await it.register(submission, wait_for)
        assert (again.state, again.already_registered) == (State.STATE_SEALED, True)
        assert isinstance(proved(it, ledger, submission, again), Registered)


@pytest.mark.parametrize("wait_for", SOONER)
async def test_who_does_not_wait_for_the_seal_is_answered_at_once(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness, wait_for: WaitFor.ValueType
) -> None:
    """If false, a department could not do without the wait."""
    async with serving(ledger, [one, two]) as it:
        two.always(hangs)
        submission = deciding()
        answer = await it.register(submission, wait_for)
        assert (answer.state, answer.no_witness) == (State.STATE_SEQUENCED, False)
        assert answer.not_before == b""
        assert isinstance(proved(it, ledger, submission, answer), Promised)


@pytest.mark.parametrize("behaviour", [hangs, replies(500), replies(403)], ids=["hangs", "500", "403"])
@pytest.mark.parametrize("seconds", [0.05, 0.6, 1.5])
async def test_when_time_runs_out_the_state_reached_is_the_answer(
    ledger: LedgerOnDisk,
    one: ScriptedWitness,
    two: ScriptedWitness,
    behaviour: Behaviour,
    seconds: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If false, a witness that is away would turn every registration into an error."""
    told: list[float | None] = []
    reached = Waiter.reached

    async def soon(waiter: Waiter, durable: Durable, wait_for: Wanted, left: float | None) -> Answer:
        # Only the wait is short: the answer has all the time that it needs to travel on a busy machine.
        told.append(left)
        return await reached(waiter, durable, wait_for, seconds)

    async with serving(ledger, [one, two]) as it:
        two.always(behaviour)
        submission = deciding()
        with monkeypatch.context() as patched:
            patched.setattr(Waiter, "reached", soon)
            answer = await it.register(submission, WaitFor.WAIT_FOR_SEALED)
        (left,) = told
        assert left is not None, "the call's own deadline bounds the wait"
        assert left < SECONDS + 1  # gRPC rounds it
        assert (answer.state, answer.no_witness) == (State.STATE_SEQUENCED, False)
        # Durable all the same: it is sealed when the witness is back, and the same answer then says so.
        two.always(honestly)
        await two.stop()
        await two.start(two.port)
        again = await it.register(submission)
        assert (again.state, again.already_registered) == (State.STATE_SEALED, True)


@pytest.mark.parametrize("wait_for", [*SEALED, *SOONER])
async def test_without_witnesses_nobody_waits(ledger: LedgerOnDisk, wait_for: WaitFor.ValueType) -> None:
    """If false, a ledger without witnesses would be slow, or claim a seal (formats.md, section 19)."""
    async with served(ledger.root) as it:
        answer = await it.register(deciding(), wait_for)
        assert (answer.state, answer.no_witness) == (State.STATE_SEQUENCED, True)
        assert answer.not_before == b""


async def test_a_stream_without_a_deadline_waits_for_the_seal(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a stream would be answered too soon, or never."""
    answer = asyncio.Event()
    async with serving(ledger, [one, two]) as it:
        two.will(waits_for(answer))
        stream = it.caller.registration.RegisterStream()
        request = pb.RegisterRequest(submission=message_of(deciding()))
        await stream.write(pb.RegisterStreamRequest(tag=1, request=request))
        reading = asyncio.create_task(stream.read())
        await two.until_asked(len(two.asked) + 1)
        assert not reading.done()
        answer.set()
        assert (await reading).acknowledgement.state == State.STATE_SEALED


async def test_a_caller_that_goes_away_takes_nobody_with_it(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a cancelled call would leave the others waiting for ever, or be left waiting itself."""
    answer = asyncio.Event()
    async with serving(ledger, [one, two]) as it:
        two.will(waits_for(answer))
        calls = [asyncio.create_task(it.register(deciding())) for _ in range(3)]
        await two.until_asked(len(two.asked) + 1)
        calls[0].cancel()
        await asyncio.wait({calls[0]})
        answer.set()
        assert [(await call).state for call in calls[1:]] == [State.STATE_SEALED] * 2


async def test_a_stream_answers_each_as_it_is_sealed(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, one unsealed submission would hold up a stream, or be answered as sealed."""
    async with serving(ledger, [one, two]) as it:
        stream = it.caller.registration.RegisterStream()
        waits = [WaitFor.WAIT_FOR_SEALED, WaitFor.WAIT_FOR_SEQUENCED, WaitFor.WAIT_FOR_UNSPECIFIED]
        for tag, wait_for in enumerate(waits):
            request = pb.RegisterRequest(submission=message_of(deciding()), wait_for=wait_for)
            await stream.write(pb.RegisterStreamRequest(tag=tag, request=request))
        answers = {}
        for _ in waits:
            response = await stream.read()
            answers[response.tag] = response.acknowledgement.state
        assert answers[0] == answers[2] == State.STATE_SEALED
        assert answers[1] in (State.STATE_SEQUENCED, State.STATE_SEALED)
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF


async def test_a_server_that_stops_answers_all_who_wait_with_what_was_reached(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a stop would hang on a witness, or leave departments without the answer that they have."""
    async with serving(ledger, [one, two]) as it:
        two.always(hangs)
        submissions = [deciding() for _ in range(3)]
        calls = [asyncio.create_task(it.register(each)) for each in submissions]
        stream = it.caller.registration.RegisterStream()
        request = pb.RegisterRequest(submission=message_of(deciding()))
        await stream.write(pb.RegisterStreamRequest(tag=7, request=request))
        await it.until(lambda: it.published.latest(REGISTER).size == 4)
        began = time.monotonic()
        it.stop.asked.set()
        for call in calls:
            assert (await call).state == State.STATE_SEQUENCED
        response = await stream.read()
        assert (response.tag, response.acknowledgement.state) == (7, State.STATE_SEQUENCED)
        await asyncio.wait({it.serving})
        assert time.monotonic() - began < HANGING


async def test_a_server_whose_heads_are_not_confirmed_stops_in_time(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a ledger whose witnesses hang could be ended by force only."""
    async with serving(ledger, [one, two]) as it:
        await it.register(deciding())
    one.always(hangs)
    two.always(hangs)
    async with served(ledger.root) as it:
        await one.until_asked(len(one.asked) + 1)
        began = time.monotonic()
        it.stop.asked.set()
        await asyncio.wait({it.serving})
        assert time.monotonic() - began < HANGING


# The client


async def test_the_client_waits_and_keeps_receipts_with_both_bounds_and_the_key(
    ledger: LedgerOnDisk, tmp_path: Path, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a department's own receipts would show less than the ledger can."""
    async with serving(ledger, [one, two]) as it:
        policy = policy_of(it)
        async with connect(it.addresses.grpc, policy=policy, register=REGISTER, key=DEPARTMENT_KEY) as client:
            answer = await client.submit(client.sign(deciding(2).records))
            assert isinstance(answer, Registered)
            assert answer.sealed
            two.always(hangs)
            pending = client.sign(deciding(1).records)
            promised = await client.submit(pending, wait_for=WaitFor.WAIT_FOR_SEQUENCED)
            # The department's own policy asks for the seal: until then it holds a promise, and no proof.
            assert isinstance(promised, Promised)
            two.always(honestly)
            await two.stop()
            await two.start(two.port)
            later = await client.submit(pending)
            assert isinstance(later, Registered)
    policy_file = tmp_path / "policy"
    policy_file.write_bytes(policy.text())
    for number, data in enumerate((*answer.receipts(), *later.receipts())):
        receipt = Receipt.parse(data)
        assert receipt.not_before is not None
        assert receipt.key is not None
        path = tmp_path / f"{number}.receipt"
        path.write_bytes(data)
        told = run_json("verify", path, "--policy", policy_file)
        assert (told["witnessed"], sorted(told["witnesses"])) == (True, ["one", "two"])
        assert told["not_before"] <= told["not_after"]
        text = run("verify", path, "--policy", policy_file).output
        assert f"in the witnessed history by {told['not_after']}" in text
        assert f"and not before {told['not_before']}" in text


# Receipts


async def test_a_receipt_carries_the_anchor_once_there_is_one(
    ledger: LedgerOnDisk, tmp_path: Path, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a register could be dropped from the ledger and its receipts not show that it was in it."""
    async with serving(ledger, [one, two], anchor_seconds=0.3) as it:
        submission = deciding(3)
        await it.register(submission)
        await it.until_anchored(3)
        receipt, state = await verified(it, 1)
        assert state == State.STATE_ANCHORED
        assert receipt.anchored is not None
        assert receipt.anchored.size == 3
        assert receipt.bounds.not_before is not None
        assert receipt.findings == ()
        again = await it.register(submission)
        assert again.state == State.STATE_ANCHORED
        found = await it.caller.registration.GetSubmission(
            pb.GetSubmissionRequest(register=REGISTER, submission_id=submission.submission_id)
        )
        assert found.acknowledgement.state == State.STATE_ANCHORED
        data = (await it.receipt(1)).receipt
        governing, state = await verified(it, 0, GOVERNING)
        assert governing.anchored is None
        assert state == State.STATE_SEALED
        policy = policy_of(it)
    (tmp_path / "policy").write_bytes(policy.text())
    (tmp_path / "receipt").write_bytes(data)
    text = run("verify", tmp_path / "receipt", "--policy", tmp_path / "policy").output
    assert "of the governing register carries a checkpoint of 3 entries that covers it" in text


async def test_a_receipt_at_a_larger_or_smaller_size_than_its_anchor_is_tied_to_it(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, an anchor of another size would prove nothing, or spoil the receipt."""
    async with serving(ledger, [one, two]) as it:
        await it.until_anchored(0)  # as every new register is
        for _ in range(6):
            await it.register(deciding())
        # One anchor for all of them, however long they took.
        sealed = await it.until_sealed(6)
        outcome = await it.opened.sequencer.write(GOVERNING, checkpoint_anchored(sealed.note))
        assert isinstance(outcome, Appended)
        await it.until_anchored(6)
        sizes = set()
        for index in range(6):
            receipt, _ = await verified(it, index)
            assert receipt.anchored is not None
            # Proved at the first sealed size that covers it, and so bounded best.
            assert receipt.size == index + 1
            assert receipt.bounds.not_before is not None
            sizes.add(receipt.anchored.size - receipt.size)
        assert max(sizes) > 0


async def test_what_was_registered_before_there_were_witnesses_is_bounded_from_above(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, earlier entries could not be shown to be old, or would be given a time that nobody has seen."""
    async with served(ledger.root, anchor_seconds=0.3) as it:
        await it.register(deciding(2))
        await publish(it, ledger, [one, two])
        await it.until_all_sealed()
        await it.register(deciding(1))
        await it.until_anchored(3)
        for index, has_earliest in ((0, False), (1, False), (2, True)):
            receipt, state = await verified(it, index)
            assert state == State.STATE_ANCHORED
            assert receipt.bounds.not_after is not None
            assert (receipt.bounds.not_before is not None) == has_earliest
            assert receipt.authorised is not None


async def test_where_the_first_size_was_never_sealed_receipts_are_without_the_earliest_time(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a register that was opened while a witness was away could not be proved at all."""
    office = f"{DEPARTMENT}/permanent-secretary"
    async with serving(ledger, [one, two]) as it:
        await two.stop()
        answer = await it.register(opening(office), WaitFor.WAIT_FOR_SEQUENCED)
        assert answer.state == State.STATE_SEQUENCED
        await it.register(deciding(2, office), WaitFor.WAIT_FOR_SEQUENCED)
        await two.start(two.port)
        await it.until_all_sealed()
        receipt, state = await verified(it, 0, office)
        assert state == State.STATE_SEALED
        assert receipt.bounds.not_before is None
        assert receipt.bounds.not_after is not None
        await it.register(deciding(1, office))
        receipt, _ = await verified(it, 2, office)
        assert receipt.bounds.not_before is not None


async def test_after_a_change_of_witnesses_receipts_satisfy_the_new_policy(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, old entries would have receipts, and anchors, that no verifier of today accepts."""
    async with serving(ledger, [one], anchor_seconds=0.3) as it:
        await it.register(deciding(2))
        await it.until_anchored(2)
        before, state = await verified(it, 0)
        assert state == State.STATE_ANCHORED
        assert set(before.witnesses) == {"one"}
        await publish(it, ledger, [two])
        await it.until_all_sealed()
        # Though nothing has changed in the register, it is anchored anew by the word of the new witness.
        async with asyncio.timeout(30):
            while True:
                after, state = await verified(it, 0)
                assert set(after.witnesses) == {"two"}
                if state == State.STATE_ANCHORED:
                    break
        assert after.anchored is not None
        assert after.anchored.size == 2
        await it.register(deciding(1))
        await it.until_anchored(3)
        last, _ = await verified(it, 2)
        assert last.anchored is not None


async def test_an_unsealed_receipt_says_so(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, an unwitnessed entry would pass for a witnessed one."""
    async with serving(ledger, [one, two]) as it:
        two.always(hangs)
        await it.register(deciding(), WaitFor.WAIT_FOR_SEQUENCED)
        response = await it.receipt(0)
        assert response.state == State.STATE_SEQUENCED
        receipt = Receipt.parse(response.receipt)
        assert receipt.not_before is None
        assert receipt.anchor is None
        # Under a policy that asks nobody it verifies, and says that it is not witnessed.
        assert not verify_receipt(response.receipt, ledger.policy).sealed


@pytest.mark.parametrize(
    ("ahead", "kind"), [(-900, FindingKind.IMPOSSIBLE), (250, FindingKind.CLAIMED_EARLIER), (0, None)]
)
async def test_a_clock_of_the_ledgers_that_is_wrong_is_reported(
    ledger: LedgerOnDisk,
    tmp_path: Path,
    one: ScriptedWitness,
    two: ScriptedWitness,
    ahead: int,
    kind: FindingKind | None,
) -> None:
    """If false, an operator could date entries as he likes: nobody would compare (formats.md, section 15).

    The witnesses agree with one another, and are `ahead` seconds before the ledger.
    """
    for witness in (one, two):
        witness.clock = lambda: time.time() + ahead
    async with serving(ledger, [one, two]) as it:
        await it.register(deciding())
        receipt, _ = await verified(it, 0)
        assert [each.kind for each in receipt.findings] == ([] if kind is None else [kind])
        said = (await it.bounds(0)).findings
        assert [each.description for each in receipt.findings] == list(said)
        data, policy = (await it.receipt(0)).receipt, policy_of(it)
    (tmp_path / "policy").write_bytes(policy.text())
    (tmp_path / "receipt").write_bytes(data)
    told = run_json("verify", tmp_path / "receipt", "--policy", tmp_path / "policy")
    assert [each["kind"] for each in told["findings"]] == ([] if kind is None else [kind.value])

"""GetTimeBounds, GetCheckpoint and WatchCheckpoints under witnesses: over a real server, verified by hand.

What is proved is verified with the pure functions of the ledger alone, from the verifier's own policy.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from daybook.audit.v1 import audit_service_pb2 as pb
from daybook.submission.v1.submission_pb2 import RecordVersion, WaitFor
from google.protobuf.timestamp_pb2 import Timestamp

from ledger.checkpoints import Checkpoint
from ledger.governing import GOVERNING
from ledger.hashing import Hash, leaf_hash
from ledger.notes import cosignature_time
from ledger.proofs import verify_consistency, verify_inclusion
from ledger.rules import read_header
from ledger.sealing import SealedReader
from ledger.witnessing import Cosignature, Policy, Quorum, judge
from services.client.errors import from_rpc_error
from tests.support.calling import assert_refused
from tests.support.ledger_dir import LedgerOnDisk
from tests.support.ledgers import ORIGIN, REGISTER
from tests.support.scripted_witness import ScriptedWitness, honestly, replies
from tests.support.served import Served, served
from tests.support.witnessed import deciding, policy_text, publishing

CODE = grpc.StatusCode
MAIN = f"{ORIGIN}/{REGISTER}"
BEGAN = 1_700_000_000
TWO_OF_THREE = ("group most 2 one two three", "quorum most")


@asynccontextmanager
async def serving(
    ledger: LedgerOnDisk, witnesses: Iterable[ScriptedWitness], *lines: str, **settings: float
) -> AsyncIterator[Served]:
    """Serve a ledger that asks these witnesses, once it is all sealed."""
    async with served(ledger.root, **settings) as it:
        await it.govern(
            "PublishPolicy", publishing(policy_text(ledger, [w.witness for w in witnesses], *lines))
        )
        await it.until_all_sealed()
        yield it


def policy_of(it: Served) -> Policy:
    policy = it.published.policy
    assert policy is not None
    return policy


def opened(it: Served, note: bytes, register: str = REGISTER) -> tuple[Checkpoint, tuple[Cosignature, ...]]:
    """Return what a note states, the log's and every witness's signature verified."""
    policy = policy_of(it)
    found = policy.open(note, f"{ORIGIN}/{register}")
    return found.checkpoint, policy.cosignatures(found)


def naive(cosignatures: Collection[Cosignature], quorum: Quorum, index: int) -> tuple[int | None, int | None]:
    """Return not-before and not-after word for word as formats.md, section 15, defines them."""
    times = {each.time for each in cosignatures}
    after = [
        time
        for time in times
        if quorum.is_met_by({c.witness for c in cosignatures if c.time <= time and c.size > index})
    ]
    before = [
        time
        for time in times
        if quorum.is_met_by({c.witness for c in cosignatures if c.time >= time and c.size <= index})
    ]
    return max(before, default=None), min(after, default=None)


def kept(it: Served, register: str = REGISTER) -> list[Cosignature]:
    """Return every cosignature that the store keeps."""
    reader = SealedReader(it.opened.ledger.store, policy_of(it))
    return [
        cosignature
        for one in it.opened.ledger.store.cosigned(register, 0, 1 << 40)
        for line in (one.first, one.last)
        for cosignature in reader.cosignatures(one.size, [line])
    ]


def verified(it: Served, answer: pb.GetTimeBoundsResponse) -> tuple[int | None, int | None]:
    """Verify an answer by hand, and return the bounds that its notes prove."""
    register, index = answer.register, answer.index
    checkpoint, _ = opened(it, answer.checkpoint, register)
    assert checkpoint.size == answer.size > index
    leaf = leaf_hash(it.opened.ledger.reader(register).entry(index))
    assert answer.leaf_hash == leaf
    verify_inclusion(index, checkpoint.size, leaf, [Hash(each) for each in answer.inclusion], checkpoint.root)
    cosignatures: list[Cosignature] = []
    for proved in (*answer.before, *answer.after):
        earlier, lines = opened(it, proved.note, register)
        hashes = [Hash(each) for each in proved.consistency]
        if earlier.size:
            verify_consistency(earlier.size, checkpoint.size, earlier.root, checkpoint.root, hashes)
        else:
            assert not hashes
        cosignatures += lines
    assert all(opened(it, each.note, register)[0].size <= index for each in answer.before)
    assert all(opened(it, each.note, register)[0].size > index for each in answer.after)
    return naive(cosignatures, policy_of(it).quorum, index)


def stated(answer: pb.GetTimeBoundsResponse) -> tuple[int | None, int | None]:
    """Return the bounds that the server states."""
    return (
        answer.not_before if answer.HasField("not_before") else None,
        answer.not_after if answer.HasField("not_after") else None,
    )


# Bounds


@pytest.mark.parametrize("seed", range(4))
async def test_bounds_are_those_of_the_definition_and_the_notes_prove_them(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness, three: ScriptedWitness, seed: int
) -> None:
    """If false, the ledger would state a time that no witness has vouched for, or could not prove it.

    Witnesses fail and come back; their clocks differ, go back, and come forward again.
    """
    draw = random.Random(seed)
    witnesses = (one, two, three)
    clocks = {witness.name: BEGAN for witness in witnesses}
    for witness in witnesses:
        witness.clock = lambda name=witness.name: clocks[name]  # type: ignore[misc]
    async with serving(ledger, witnesses, *TWO_OF_THREE) as it:
        await it.register(deciding())
        for size in range(2, 12):
            up = {name for name in clocks if draw.random() < 0.8}
            for witness in witnesses:
                clocks[witness.name] = BEGAN + size * 10 + draw.randint(-25, 25)
                witness.always(honestly if witness.name in up else replies(500))
            enough = len(up) >= 2
            wait_for = WaitFor.WAIT_FOR_SEALED if enough else WaitFor.WAIT_FOR_SEQUENCED
            await it.register(deciding(), wait_for)
            if draw.random() < 0.5:
                # Asked for while it grows, and at the end: what is held in memory is what is kept.
                answer = await it.bounds(draw.randrange(size))
                assert stated(answer) == verified(it, answer)
        for witness in witnesses:
            witness.always(honestly)
        await it.until(lambda: all(witness.size_of(MAIN) == 11 for witness in witnesses))
        await it.until(lambda: len({each.witness for each in kept(it) if each.size == 11}) == 3)
        for index in range(11):
            answer = await it.bounds(index)
            assert stated(answer) == verified(it, answer) == naive(kept(it), policy_of(it).quorum, index)
            assert answer.comparable


async def test_a_single_witness_that_knows_more_is_proved_as_well(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a bound could rest on a note of a size that the answer proves nothing of.

    One witness has cosigned a size that is not sealed, and says that it was earlier than the size before.
    """
    clocks = {"one": BEGAN + 100, "two": BEGAN + 100}
    one.clock, two.clock = (lambda: clocks["one"]), (lambda: clocks["two"])
    async with serving(ledger, [one, two]) as it:
        await it.register(deciding())
        clocks["one"] = BEGAN + 90
        two.always(replies(500))
        await it.register(deciding(), WaitFor.WAIT_FOR_SEQUENCED)
        await it.until(lambda: any(each.size == 2 for each in kept(it)))
        answer = await it.bounds(0)
        assert stated(answer) == verified(it, answer) == (BEGAN + 100, BEGAN + 100)
        assert {opened(it, each.note)[0].size for each in answer.after} == {1, 2}
        assert answer.size == 2


async def test_the_bounds_of_an_idle_register_widen_by_refreshes_for_what_comes_next(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, that nothing was added between two times could not be proved."""
    now = BEGAN
    one.clock = two.clock = lambda: now
    async with serving(ledger, [one, two], witness_refresh_seconds=0.1) as it:
        await it.register(deciding())
        assert (await it.bounds(0)).not_after == BEGAN
        now = BEGAN + 5_000
        await it.until(
            lambda: all(
                cosignature_time(each.last.signature) == now
                for each in it.opened.ledger.store.cosigned(REGISTER, 1, 2)
            )
        )
        await it.register(deciding())
        answer = await it.bounds(1)
        assert stated(answer) == verified(it, answer)
        assert answer.not_before == BEGAN + 5_000
        answer = await it.bounds(0)
        assert stated(answer) == verified(it, answer)
        assert answer.not_after == BEGAN


async def test_bounds_of_every_register_by_index_or_record(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, governing decisions would have no time, or one would have to know the index."""
    async with serving(ledger, [one, two]) as it:
        submission = deciding(2)
        await it.register(submission)
        for index in range(4):
            answer = await it.bounds(index, GOVERNING)
            assert stated(answer) == verified(it, answer)
            # Everything but the policy itself came before there were witnesses; the policy with them.
            assert answer.HasField("not_after")
            assert not answer.HasField("not_before")
        header = read_header(submission.records[1])
        by_record = await it.caller.audit.GetTimeBounds(
            pb.GetTimeBoundsRequest(
                register=REGISTER, record=RecordVersion(record_id=header.record_id, version=header.version)
            )
        )
        assert by_record == await it.bounds(1)
        for wanted, code, reason in (
            (pb.GetTimeBoundsRequest(register=REGISTER, index=2), CODE.OUT_OF_RANGE, "SIZE_NOT_REACHED"),
            (pb.GetTimeBoundsRequest(register="a/b", index=0), CODE.NOT_FOUND, "REGISTER_UNKNOWN"),
            (pb.GetTimeBoundsRequest(register=REGISTER), CODE.INVALID_ARGUMENT, "INVALID_FIELD"),
        ):
            await refused(it.caller.audit.GetTimeBounds(wanted), code, reason)


async def test_an_entry_that_no_quorum_knows_has_no_latest_time(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, one witness's word would pass for a quorum's."""
    async with serving(ledger, [one, two]) as it:
        two.always(replies(500))
        await it.register(deciding(), WaitFor.WAIT_FOR_SEQUENCED)
        await it.until(lambda: any(each.size == 1 for each in kept(it)))
        answer = await it.bounds(0)
        assert not answer.HasField("not_after")
        assert answer.HasField("not_before")
        assert stated(answer) == verified(it, answer)
        assert not answer.no_witness


async def test_two_quorums_that_may_share_no_clock_are_said_not_to_be_comparable(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, times of two clocks would be compared as if they were one (formats.md, section 15)."""
    async with serving(ledger, [one, two], "group some any one two", "quorum some") as it:
        await it.register(deciding())
        assert not (await it.bounds(0)).comparable


async def test_without_witnesses_no_time_is_stated(ledger: LedgerOnDisk) -> None:
    """If false, the ledger's own word would pass for a witness's."""
    async with served(ledger.root) as it:
        await it.register(deciding())
        answer = await it.bounds(0)
        assert answer.no_witness
        assert stated(answer) == (None, None)
        assert not answer.before
        assert not answer.after
        assert not answer.findings


async def test_after_a_change_of_witnesses_only_the_new_ones_bound(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a time could rest on a witness that governance has dismissed."""
    one.clock = lambda: BEGAN
    two.clock = lambda: BEGAN + 777
    async with serving(ledger, [one]) as it:
        await it.register(deciding())
        assert (await it.bounds(0)).not_after == BEGAN
        await it.govern("PublishPolicy", publishing(policy_text(ledger, [two.witness])))
        await it.until_all_sealed()
        answer = await it.bounds(0)
        assert stated(answer) == verified(it, answer) == (None, BEGAN + 777)


# Checkpoints as at a size, and as at a time


def checkpoint_of(it: Served, answer: pb.GetCheckpointResponse, known: Checkpoint | None = None) -> Checkpoint:
    """Verify an answer by hand, with what is known; return its checkpoint."""
    judged = judge(answer.checkpoint, policy_of(it), MAIN)
    assert judged.sealed
    assert answer.sealed
    assert not answer.no_witness
    checkpoint = judged.checkpoint
    assert checkpoint.size == answer.size
    hashes = [Hash(each) for each in answer.consistency]
    if known is None or not known.size or not checkpoint.size:
        assert not hashes
    else:
        smaller, larger = sorted((known, checkpoint), key=lambda each: each.size)
        verify_consistency(smaller.size, larger.size, smaller.root, larger.root, hashes)
    return checkpoint


def as_at(**wanted: object) -> pb.GetCheckpointRequest:
    """Return a request for a sealed checkpoint of the main register."""
    request = pb.GetCheckpointRequest(register=REGISTER, kind=pb.CHECKPOINT_KIND_SEALED)
    for name, value in wanted.items():
        if isinstance(value, Timestamp):
            request.time.CopyFrom(value)
        else:
            setattr(request, name, value)
    return request


async def test_a_sealed_checkpoint_is_given_as_at_a_size_and_proved_to_what_one_holds(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, an auditor could not hold today's answers against what was shown then."""
    async with serving(ledger, [one, two]) as it:
        for size in (1, 3, 4):
            await it.register(deciding(size - it.published.latest(REGISTER).size))
        two.always(replies(500))
        await it.register(deciding(3), WaitFor.WAIT_FOR_SEQUENCED)  # 7: signed, and not sealed
        ask = it.caller.audit.GetCheckpoint
        held = {size: checkpoint_of(it, await ask(as_at(size=size))) for size in (1, 3, 4)}
        assert [each.size for each in held.values()] == [1, 3, 4]
        assert checkpoint_of(it, await ask(as_at())).size == 4
        unspecified = await ask(pb.GetCheckpointRequest(register=REGISTER))
        assert checkpoint_of(it, unspecified).size == 4
        for size, found in ((2, 1), (5, 4), (6, 4), (7, 4)):
            assert checkpoint_of(it, await ask(as_at(size=size))).size == found
        for known in held.values():
            for size in (1, 3, 4):
                answer = await ask(as_at(size=size, known_size=known.size))
                assert answer.known_size == known.size
                checkpoint_of(it, answer, known)
        signed = await ask(pb.GetCheckpointRequest(register=REGISTER, kind=pb.CHECKPOINT_KIND_SIGNED))
        assert (signed.size, signed.sealed) == (7, False)
        opened(it, signed.checkpoint)
        for wanted in (as_at(size=8), as_at(known_size=8)):
            await refused(ask(wanted), CODE.OUT_OF_RANGE, "SIZE_NOT_REACHED")


async def test_a_sealed_checkpoint_is_given_as_at_a_time_by_the_witnesses_word(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, the ledger's own clock would say what was known when."""
    now = BEGAN
    one.clock, two.clock = (lambda: now), (lambda: now + 3)
    async with serving(ledger, [one, two]) as it:
        for size in range(1, 6):
            now = BEGAN + size * 10
            await it.register(deciding())
        ask = it.caller.audit.GetCheckpoint
        for size in range(1, 6):
            # From when the second of the two had cosigned, and by that very line.
            moment = BEGAN + size * 10 + 3
            answer = await ask(as_at(time=Timestamp(seconds=moment)))
            assert checkpoint_of(it, answer).size == size
            assert {each.time for each in opened(it, answer.checkpoint)[1]} == {moment - 3, moment}
            answer = await ask(as_at(time=Timestamp(seconds=moment - 1, nanos=999_999_999)))
            assert checkpoint_of(it, answer).size == size - 1
        assert checkpoint_of(it, await ask(as_at(time=Timestamp(seconds=BEGAN * 2)))).size == 5
        for seconds in (0, BEGAN - 1):
            wanted = as_at(time=Timestamp(seconds=seconds))
            await refused(ask(wanted), CODE.NOT_FOUND, "RECORD_UNKNOWN")


async def test_without_witnesses_there_is_no_sealed_checkpoint_and_it_is_said(ledger: LedgerOnDisk) -> None:
    """If false, a signed checkpoint would pass for a sealed one."""
    async with served(ledger.root) as it:
        await it.register(deciding())
        ask = it.caller.audit.GetCheckpoint
        for wanted in (as_at(), as_at(size=1), as_at(time=Timestamp(seconds=BEGAN))):
            answer = await ask(wanted)
            assert (answer.no_witness, answer.sealed, answer.size, answer.checkpoint) == (True, False, 0, b"")
        unspecified = await ask(pb.GetCheckpointRequest(register=REGISTER))
        assert (unspecified.no_witness, unspecified.sealed, unspecified.size) == (True, False, 1)
        watching = it.caller.audit.WatchCheckpoints(
            pb.WatchCheckpointsRequest(register=REGISTER, kind=pb.CHECKPOINT_KIND_SEALED)
        )
        await refused(watching.read(), CODE.UNIMPLEMENTED, "NOT_YET_AVAILABLE")


# Watching


async def test_sealed_checkpoints_are_watched_and_a_watch_is_resumed(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a monitor would see what is not sealed, or miss the proof over what it has missed."""
    async with serving(ledger, [one, two]) as it:
        await it.register(deciding(2))

        def watch(after: int) -> grpc.aio.UnaryStreamCall[object, pb.WatchCheckpointsResponse]:
            wanted = pb.WatchCheckpointsRequest(register=REGISTER, after_size=after)
            return it.caller.audit.WatchCheckpoints(wanted)  # type: ignore[no-any-return]

        watching = watch(0)
        first = await watching.read()
        seen, _ = sealed_after(it, first, None)
        assert seen.size == 2
        two.always(replies(500))
        await it.register(deciding(3), WaitFor.WAIT_FOR_SEQUENCED)
        reading = asyncio.ensure_future(watching.read())
        await it.until(lambda: any(each.size == 5 for each in kept(it)))
        assert not reading.done()
        two.always(honestly)
        then, previous = sealed_after(it, await reading, seen)
        assert (previous, then.size) == (2, 5)
        watching.cancel()
        await it.register(deciding(4))
        await it.register(deciding(1))
        # What was missed in between is proved in one step.
        resumed = watch(5)
        latest, previous = sealed_after(it, await resumed.read(), then)
        assert (previous, latest.size) == (5, 10)
        it.stop.asked.set()
        await refused(resumed.read(), CODE.UNAVAILABLE, "DRAINING")


def sealed_after(it: Served, response: object, known: Checkpoint | None) -> tuple[Checkpoint, int]:
    """Verify a message of a watch, and that it follows what was known."""
    assert isinstance(response, pb.WatchCheckpointsResponse)
    assert response.sealed
    judged = judge(response.checkpoint, policy_of(it), MAIN)
    assert judged.sealed
    checkpoint = judged.checkpoint
    assert checkpoint.size == response.size
    hashes = [Hash(each) for each in response.consistency]
    if known is None:
        assert not hashes
    else:
        assert response.previous_size == known.size
        verify_consistency(known.size, checkpoint.size, known.root, checkpoint.root, hashes)
    return checkpoint, response.previous_size


async def refused(call: object, code: grpc.StatusCode, reason: str) -> None:
    """Check that a call is refused just so."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    assert_refused(from_rpc_error(caught.value), code, reason)

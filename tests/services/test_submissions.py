"""The sequencer: group commit, who is answered when, and how it ends."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ledger.acknowledgements import Acknowledgement, open_acknowledgement
from ledger.admission import Candidate, admit
from ledger.checkpoints import Checkpoint
from ledger.ed25519 import SecretKey
from ledger.errors import Reason, RejectedError, SplitViewError, StorageFullError, StoreError
from ledger.hashing import leaf_hash
from ledger.ledger import Ledger
from ledger.notes import SignerKey
from ledger.proofs import verify_range
from ledger.store import Batch, Store
from ledger.stores.memory import MemoryStore
from services import submissions
from services.published import Published
from services.signing import CheckpointSigner
from services.submissions import Accepted, Sequencer
from tests.support.ledgers import (
    ACKNOWLEDGEMENT_KEY,
    DEPARTMENT_KEY,
    EPOCH,
    LOG_KEY,
    ORIGIN,
    REGISTER,
    decision,
    open_ledger,
    submission,
)

ACKNOWLEDGER = SignerKey(f"{ORIGIN}/acknowledgements", ACKNOWLEDGEMENT_KEY)
STRANGER = SecretKey(b"\x09" * 32)


class GatedStore(MemoryStore):
    """Counts commits; a commit waits at the gate, and fails with `error` while there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.error: Exception | None = None
        self.commits: list[int] = []

    def commit(self, batches: Sequence[Batch]) -> None:
        self.entered.set()
        self.gate.wait()
        if self.error is not None:
            raise self.error
        super().commit(batches)
        self.commits.append(sum(len(batch.entries) for batch in batches))


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = EPOCH + 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> GatedStore:
    """A ledger with one register, empty."""
    made = GatedStore()
    open_ledger(made, tmp_path / "marks").signer.close()
    made.commits.clear()
    made.entered.clear()
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Running:
    """A sequencer and its task."""

    def __init__(self, store: Store, marks: Path, clock: Callable[[], float]) -> None:
        self.signer = CheckpointSigner.open(LOG_KEY, marks)
        self.published = Published(store)
        self.ledger = Ledger.open(store, ORIGIN)
        self.sequencer = Sequencer(self.ledger, self.published, self.signer, ACKNOWLEDGER, clock)
        self.sequencer.sign_heads()
        self.task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        self.task = asyncio.create_task(self.sequencer.run())
        return self.task

    def send(self, candidate: Candidate, submitter: str = "anonymous") -> asyncio.Task[Accepted]:
        return asyncio.create_task(self.sequencer.accept(candidate, submitter))


@asynccontextmanager
async def running(store: Store, marks: Path, clock: Callable[[], float]) -> AsyncIterator[Running]:
    """Run a sequencer, and end it with the block."""
    made = Running(store, marks, clock)
    task = made.start()
    try:
        yield made
    finally:
        made.sequencer.drain()
        await asyncio.wait([task])
        made.signer.close()


@pytest.fixture
async def served(store: GatedStore, tmp_path: Path, clock: Clock) -> AsyncIterator[Running]:
    """A running sequencer over `store`."""
    async with running(store, tmp_path / "marks", clock) as made:
        yield made
        store.gate.set()


def of(*numbers: int, key: SecretKey = DEPARTMENT_KEY) -> Candidate:
    return admit(submission(REGISTER, [decision(number) for number in numbers], [key]))


async def until(event: threading.Event) -> None:
    await asyncio.to_thread(event.wait)


async def reason_of(answer: asyncio.Task[Accepted]) -> Reason:
    with pytest.raises(RejectedError) as caught:
        await answer
    return caught.value.reason


async def test_an_answer_is_signed_proved_and_acknowledged(served: Running, clock: Clock) -> None:
    """False if a department were answered with anything that it could not check."""
    await served.send(of(0))
    clock.now += 5.25
    accepted = await served.send(of(1, 2, 3), "uri:spiffe://department.example/edrms")
    assert (accepted.run.first, accepted.run.count, accepted.known) == (1, 3, False)
    assert accepted.acceptance.accepted_at == "2026-05-28T20:28:25.250Z"
    assert accepted.acceptance.submitter == "uri:spiffe://department.example/edrms"
    assert accepted.checkpoint == served.published.latest(REGISTER)
    entries = list(served.ledger.reader(REGISTER).entries(1, 4))
    checkpoint = accepted.checkpoint.checkpoint
    verify_range(1, 4, checkpoint.size, list(map(leaf_hash, entries)), accepted.range_proof, checkpoint.root)
    origin = f"{ORIGIN}/{REGISTER}"
    expected = Acknowledgement(origin, accepted.submission_id, 3, accepted.acceptance.accepted_at)
    assert open_acknowledgement(accepted.note, ACKNOWLEDGER.verifier) == expected


async def test_whatever_waits_is_one_commit(served: Running, store: GatedStore) -> None:
    """False if each of many submissions cost a sync of the disk of its own."""
    store.gate.clear()
    first = served.send(of(0))
    await until(store.entered)
    others = [served.send(of(number)) for number in range(1, 50)]
    await asyncio.sleep(0)
    store.gate.set()
    answers = await asyncio.gather(first, *others)
    assert store.commits == [1, 49]
    assert [answer.run.first for answer in answers] == list(range(50))
    assert len({answer.checkpoint.size for answer in answers[1:]}) == 1
    # The notes of the first turn were kept by the second, whose own still wait.
    assert {name: [note.size for note in notes] for name, notes in served.published.unsaved().items()} == {
        REGISTER: [50]
    }


async def test_a_turn_is_bounded(served: Running, store: GatedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """False if a turn could grow without bound, and with it memory and everybody's wait."""
    monkeypatch.setattr(submissions, "MAX_TURN", 4)
    store.gate.clear()
    first = served.send(of(100))
    await until(store.entered)
    others = [served.send(of(number)) for number in range(10)]
    await asyncio.sleep(0)
    store.gate.set()
    await asyncio.gather(first, *others)
    assert store.commits == [1, 4, 4, 2]
    monkeypatch.setattr(submissions, "MAX_TURN_BYTES", 1_000)
    store.gate.clear()
    store.entered.clear()
    first = served.send(of(200))
    await until(store.entered)
    others = [served.send(of(number)) for number in range(300, 304)]
    await asyncio.sleep(0)
    store.gate.set()
    await asyncio.gather(first, *others)
    assert store.commits[4:] == [1, 2, 2]


async def test_too_much_waiting_is_refused_at_once(
    served: Running, store: GatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if a slow disk made the server swell instead of saying OVERLOADED."""
    size = sum(map(len, of(0).submission.records))
    monkeypatch.setattr(submissions, "MAX_WAITING_BYTES", 3 * size + 10)
    store.gate.clear()
    first = served.send(of(0))
    await until(store.entered)
    waiting = [served.send(of(number)) for number in (1, 2, 3)]
    await asyncio.sleep(0)
    assert await reason_of(served.send(of(4))) is Reason.OVERLOADED
    store.gate.set()
    await asyncio.gather(first, *waiting)
    assert (await served.send(of(4))).run.first == 4


async def test_the_same_submission_twice_is_answered_twice_and_stands_once(
    served: Running, store: GatedStore
) -> None:
    """False if a retry were appended again, or told another place (P2)."""
    together = await asyncio.gather(served.send(of(0, 1)), served.send(of(0, 1)), served.send(of(0, 1)))
    later = await served.send(of(0, 1))
    first = together[0]
    assert not first.known
    for again in (*together[1:], later):
        assert again.known
        assert (again.run, again.acceptance, again.note) == (first.run, first.acceptance, first.note)
    assert store.heads()[REGISTER].size == 2


async def test_a_refusal_answers_the_one_who_is_refused(served: Running, store: GatedStore) -> None:
    """False if one bad submission failed the others of its turn."""
    bad, good, conflicting = served.send(of(0, key=STRANGER)), served.send(of(1)), served.send(of(1, 2))
    assert await reason_of(bad) is Reason.KEY_UNKNOWN
    assert (await good).run.first == 0
    assert await reason_of(conflicting) is Reason.RECORD_ALREADY_REGISTERED
    assert store.heads()[REGISTER].size == 1


async def test_time_as_stated_does_not_go_back(served: Running, clock: Clock) -> None:
    """False if a clock that was set back made a later entry claim to be an earlier one."""
    first = await served.send(of(0))
    clock.now -= 3_600
    second = await served.send(of(1))
    assert second.acceptance.accepted_at == first.acceptance.accepted_at


async def test_a_caller_who_goes_away_takes_nothing_back(served: Running, store: GatedStore) -> None:
    """False if a submission that may be committed were dropped, or the sequencer fell over it."""
    store.gate.clear()
    under_way = served.send(of(0))
    await until(store.entered)
    waiting = served.send(of(1))
    await asyncio.sleep(0)
    for gone in (under_way, waiting):
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
    store.gate.set()
    assert (await served.send(of(2))).run.first == 2
    assert (await served.send(of(1))).known


async def test_a_recall_waits_until_what_it_recalls_is_signed(served: Running, store: GatedStore) -> None:
    """False if somebody who asks between commit and signature met an error, or an unsigned answer."""
    candidate = of(0)
    accepted = await served.send(candidate)
    turn = served.ledger.turn()
    another = of(1)
    turn.look_up([another])
    run = turn.accept(another, "2026-07-01T00:00:00.000Z", "anonymous").run
    turn.commit({})  # committed, and not signed
    submission_id = another.submission.submission_id
    recalled = asyncio.create_task(served.sequencer.recall(REGISTER, submission_id, run))
    await asyncio.sleep(0)
    assert not recalled.done()
    served.sequencer.sign_heads()
    served.published.wake()
    again = await recalled
    assert again.checkpoint.size == 2
    earlier = await served.sequencer.recall(REGISTER, candidate.submission.submission_id, accepted.run)
    assert (earlier.known, earlier.note, earlier.checkpoint.size) == (True, accepted.note, 2)


async def test_draining_answers_all_that_was_accepted_and_keeps_the_notes(
    store: GatedStore, tmp_path: Path, clock: Clock
) -> None:
    """False if a server that stops dropped what it had taken, or its last notes."""
    async with running(store, tmp_path / "marks", clock) as served:
        store.gate.clear()
        first = served.send(of(0))
        await until(store.entered)
        waiting = [served.send(of(number)) for number in (1, 2)]
        await asyncio.sleep(0)
        served.sequencer.drain()
        assert await reason_of(served.send(of(3))) is Reason.DRAINING
        store.gate.set()
        assert served.task is not None
        await served.task
        assert [answer.run.first for answer in await asyncio.gather(first, *waiting)] == [0, 1, 2]
        note = store.note(REGISTER, 3)
        assert note is not None
        assert note.note == served.published.latest(REGISTER).note
        assert await reason_of(served.send(of(4))) is Reason.DRAINING


async def test_draining_an_idle_sequencer_ends_it(store: GatedStore, tmp_path: Path, clock: Clock) -> None:
    """False if a server to which nobody writes could not stop."""
    async with running(store, tmp_path / "marks", clock) as served:
        await asyncio.sleep(0)
        served.sequencer.drain()
        assert served.task is not None
        await asyncio.wait_for(served.task, 10)


async def test_a_store_that_fails_ends_the_sequencer_and_tells_everybody(
    store: GatedStore, tmp_path: Path, clock: Clock
) -> None:
    """False if somebody waited for ever, or was told more than is known, after the store failed."""
    async with running(store, tmp_path / "marks", clock) as served:
        assert served.task is not None
        store.error = StoreError("the disk is gone")
        store.gate.clear()
        first = served.send(of(0))
        await until(store.entered)
        waiting = [served.send(of(number)) for number in (1, 2)]
        await asyncio.sleep(0)
        shown = served.published.latest(REGISTER)
        store.gate.set()
        for answer in (first, *waiting):
            assert await reason_of(answer) is Reason.BACKEND_DOWN
        with pytest.raises(StoreError, match="the disk is gone"):
            await served.task
        assert await reason_of(served.send(of(3))) is Reason.BACKEND_DOWN
        assert served.published.latest(REGISTER) == shown


async def test_a_recall_does_not_wait_for_a_sequencer_that_is_gone(
    store: GatedStore, tmp_path: Path, clock: Clock
) -> None:
    """False if somebody waited for a signature that nobody will make."""
    async with running(store, tmp_path / "marks", clock) as served:
        assert served.task is not None
        candidate = of(0)
        run = (await served.send(candidate)).run
        beyond = type(run)(5, 1)
        recalled = asyncio.create_task(
            served.sequencer.recall(REGISTER, candidate.submission.submission_id, beyond)
        )
        await asyncio.sleep(0)
        store.error = StoreError("the disk is gone")
        assert await reason_of(served.send(of(1))) is Reason.BACKEND_DOWN
        assert await reason_of(recalled) is Reason.BACKEND_DOWN
        with pytest.raises(StoreError):
            await served.task


async def test_a_sequencer_whose_task_is_cancelled_tells_everybody(
    store: GatedStore, tmp_path: Path, clock: Clock
) -> None:
    """False if a submission that comes after the end waited for ever."""
    async with running(store, tmp_path / "marks", clock) as served:
        assert served.task is not None
        await served.send(of(0))
        served.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await served.task
        assert await reason_of(served.send(of(1))) is Reason.BACKEND_DOWN


@pytest.mark.parametrize("passes", range(6))
async def test_a_cancelled_sequencer_ends_whatever_has_just_arrived(
    store: GatedStore, tmp_path: Path, clock: Clock, passes: int
) -> None:
    """False if it went on signing, beside another history that a witness knows, for what arrived just then."""
    async with running(store, tmp_path / "marks", clock) as served:
        assert served.task is not None
        await served.send(of(0))
        for _ in range(20):
            await asyncio.sleep(0)  # then it is idle
        sent = served.send(of(1))
        for _ in range(passes):
            await asyncio.sleep(0)
        served.task.cancel()
        ended, _ = await asyncio.wait([served.task], timeout=10)
        assert ended
        assert await reason_of(sent) is Reason.BACKEND_DOWN
        assert await reason_of(served.send(of(2))) is Reason.BACKEND_DOWN


async def test_a_full_disk_refuses_until_there_is_room(served: Running, store: GatedStore) -> None:
    """False if a full disk ended the server, hid what is there, or kept refusing once there was room."""
    first = await served.send(of(0))
    store.error = StorageFullError("no room")
    for _ in range(2):
        reasons = await asyncio.gather(*(reason_of(served.send(of(number))) for number in (1, 2)))
        assert set(reasons) == {Reason.STORAGE_FULL}
    recalled = await served.sequencer.recall(REGISTER, first.submission_id, first.run)
    assert recalled.note == first.note
    store.error = None
    assert (await served.send(of(1))).run.first == 1
    assert store.heads()[REGISTER].size == 2
    note = store.note(REGISTER, 1)
    assert note is not None
    assert note.size == 1  # what waited to be kept was not forgotten


async def test_a_full_disk_does_not_make_a_stop_fail(store: GatedStore, tmp_path: Path, clock: Clock) -> None:
    """False if a clean stop looked like a crash: the last notes can be signed again."""
    async with running(store, tmp_path / "marks", clock) as served:
        await served.send(of(0))
        store.error = StorageFullError("no room")
        served.sequencer.drain()
        assert served.task is not None
        await served.task
    store.error = None
    async with running(store, tmp_path / "marks", clock) as again:
        assert again.published.latest(REGISTER) == served.published.latest(REGISTER)


async def test_a_signer_that_refuses_ends_the_sequencer(
    store: GatedStore, tmp_path: Path, clock: Clock
) -> None:
    """False if a ledger went on after its signer had seen another history (P3)."""
    async with running(store, tmp_path / "marks", clock) as served:
        assert served.task is not None
        served.signer.sign([Checkpoint(f"{ORIGIN}/{REGISTER}", 1, leaf_hash(b"another history"))])
        assert await reason_of(served.send(of(0))) is Reason.BACKEND_DOWN
        with pytest.raises(SplitViewError):
            await served.task
        assert served.published.latest(REGISTER).size == 0
    with pytest.raises(SplitViewError):
        Running(store, tmp_path / "marks", clock)


async def test_no_commit_waits_behind_what_callers_make_the_shared_threads_do(served: Running) -> None:
    """False if a few calls that take long could stop all registration (P9)."""
    done = threading.Event()
    busy = [asyncio.create_task(asyncio.to_thread(done.wait)) for _ in range(64)]
    try:
        accepted = await asyncio.wait_for(served.send(of(0)), 10)
        assert accepted.run.count == 1
    finally:
        done.set()
        await asyncio.gather(*busy)


async def test_a_cancelled_sequencer_ends_after_the_commit_that_is_under_way(
    store: GatedStore, tmp_path: Path, clock: Clock
) -> None:
    """False if the store could be closed while it is written to."""
    made = Running(store, tmp_path / "marks", clock)
    task = made.start()
    store.gate.clear()
    store.entered.clear()
    sent = made.send(of(0))
    await asyncio.to_thread(store.entered.wait)
    threading.Timer(0.2, store.gate.set).start()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert store.commits == [1]
    assert await reason_of(sent) is Reason.BACKEND_DOWN
    made.signer.close()


async def test_a_clock_that_was_put_back_between_two_runs_sets_no_time_back(
    store: GatedStore, tmp_path: Path, clock: Clock
) -> None:
    """False if entries in order had times out of order, by which checkpoints as at a time are found."""
    store.gate.set()
    async with running(store, tmp_path / "marks", clock) as first:
        before = await first.send(of(0))
    clock.now -= 30 * 86_400
    async with running(store, tmp_path / "marks", clock) as second:
        after = await second.send(of(1))
    assert after.acceptance.accepted_at == before.acceptance.accepted_at

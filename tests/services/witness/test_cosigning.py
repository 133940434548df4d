"""When a witness says that it has seen something: its clock, what it keeps before it answers, and failures."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ledger.add_checkpoint import AddCheckpoint, CheckpointRefusedError, open_submitted
from ledger.errors import StoreError
from ledger.notes import cosignature_time, split_note
from services.witness.cosigning import MAX_STEP_BACK, Cosigner
from services.witness.directory import WitnessDirectory
from services.witness.evidence import EvidenceFolder
from services.witness.state import State
from tests.support.growing_log import GrowingLog
from tests.support.witness_process import MadeWitness, ask, latest, make_witness, witnessing

LOG = GrowingLog("log.example/a")
NOW = 1_790_000_000


class Clock:
    """Shows the time that it is set to, POSIX seconds."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def made(tmp_path: Path) -> MadeWitness:
    """Return a witness that accepts LOG."""
    made = make_witness(tmp_path / "w", "witness.example/w")
    made.add_ledger(LOG.vkey)
    return made


@asynccontextmanager
async def cosigning(made: MadeWitness, clock: Callable[[], float]) -> AsyncIterator[Cosigner]:
    """Cosign in this process, by another clock than the computer's."""
    directory = WitnessDirectory(made.directory)
    state = State(directory.state)
    cosigner = Cosigner(state, directory.signer(), EvidenceFolder(directory.evidence), clock)
    working = asyncio.create_task(cosigner.run())
    try:
        yield cosigner
    finally:
        cosigner.drain()
        await working
        state.close()


async def time_of(cosigner: Cosigner, request: AddCheckpoint) -> int:
    """Ask for a cosignature; return its time."""
    line = await cosigner.cosign(request, open_submitted(request, [LOG.signer.verifier]))
    ((_, (found,)),) = [split_note(request.note.partition(b"\n\n")[0] + b"\n\n" + line)]
    return cosignature_time(found.signature)


async def test_a_clock_a_little_behind_repeats_the_last_time(made: MadeWitness) -> None:
    """If false, a witness would say that it saw a larger tree before it saw the smaller one."""
    clock = Clock(NOW)
    async with cosigning(made, clock) as cosigner:
        assert await time_of(cosigner, LOG.request(0, 3)) == NOW
        for back in (1, MAX_STEP_BACK):
            clock.now = NOW - back
            assert await time_of(cosigner, LOG.request(3, 3)) == NOW
        assert await time_of(cosigner, LOG.request(3, 5)) == NOW
        clock.now = NOW + 0.9
        assert await time_of(cosigner, LOG.request(5, 6)) == NOW
        clock.now = NOW + 1
        assert await time_of(cosigner, LOG.request(6, 7)) == NOW + 1


async def test_a_clock_far_behind_gets_no_cosignature_and_changes_nothing(made: MadeWitness) -> None:
    """If false, a witness with a wrong clock would say what nobody can rely on."""
    clock = Clock(NOW)
    async with cosigning(made, clock) as cosigner:
        await time_of(cosigner, LOG.request(0, 3))
        clock.now = NOW - MAX_STEP_BACK - 1
        for request in (LOG.request(3, 3), LOG.request(3, 5)):
            with pytest.raises(CheckpointRefusedError, match="clock is 301 s behind") as refused:
                await time_of(cosigner, request)
            assert refused.value.status == 503
        clock.now = NOW
        assert await time_of(cosigner, LOG.request(3, 5)) == NOW


async def test_what_is_wrong_with_a_request_is_told_before_what_is_wrong_with_the_clock(
    made: MadeWitness,
) -> None:
    """If false, a log would try again what can never succeed."""
    clock = Clock(NOW)
    async with cosigning(made, clock) as cosigner:
        await time_of(cosigner, LOG.request(0, 3))
        clock.now = 1
        for request, status in ((LOG.request(0, 5), 409), (LOG.forked(2).request(3, 5), 422)):
            with pytest.raises(CheckpointRefusedError) as refused:
                await time_of(cosigner, request)
            assert refused.value.status == status


@pytest.mark.parametrize("now", [0.0, 0.9, -1.0])
async def test_no_cosignature_is_made_before_1970(made: MadeWitness, now: float) -> None:
    """If false, a cosignature would have the time zero, which says nothing and which verifiers refuse."""
    async with cosigning(made, Clock(now)) as cosigner:
        with pytest.raises(CheckpointRefusedError) as refused:
            await time_of(cosigner, LOG.request(0, 3))
        assert refused.value.status == 503


async def test_the_last_time_outlives_the_process(made: MadeWitness) -> None:
    """If false, a restart would be enough to say something earlier."""
    async with cosigning(made, Clock(NOW)) as cosigner:
        await time_of(cosigner, LOG.request(0, 3))
    async with cosigning(made, Clock(NOW - 10)) as cosigner:
        assert await time_of(cosigner, LOG.request(3, 4)) == NOW
    async with cosigning(made, Clock(NOW - 1000)) as cosigner:
        with pytest.raises(CheckpointRefusedError):
            await time_of(cosigner, LOG.request(4, 5))


async def test_each_log_has_its_own_last_time(made: MadeWitness) -> None:
    """If false, one log that was cosigned at a wrong time would shut out all the others."""
    other = GrowingLog("log.example/b")
    clock = Clock(NOW)
    async with cosigning(made, clock) as cosigner:
        await time_of(cosigner, LOG.request(0, 3))
        clock.now = NOW - 5000
        request = other.request(0, 3)
        assert await cosigner.cosign(request, open_submitted(request, [other.signer.verifier]))


def test_the_served_witness_refuses_while_its_clock_is_far_behind(made: MadeWitness) -> None:
    """If false, the rule for clocks would not be that of the real server."""
    with witnessing(made.directory) as running:
        assert ask(running.http, LOG.request(0, 3)).status == 200
    # To the witness it is the same whether its clock goes back, or its last cosignature lies ahead of it.
    ahead = sqlite3.connect(WitnessDirectory(made.directory).state, isolation_level=None)
    ahead.execute("UPDATE cosigned SET time = time + 100000")
    ahead.close()
    with witnessing(made.directory) as running:
        answer = ask(running.http, LOG.request(3, 5))
        assert answer.status == 503
        assert b"clock" in answer.body
        assert "the clock is wrong" in running.errors()


async def test_requests_of_one_batch_are_decided_one_after_the_other(made: MadeWitness) -> None:
    """If false, two requests that are committed together would both be judged against the same state."""
    fork = LOG.forked(2)
    requests = [LOG.request(0, 3), fork.request(0, 3), LOG.request(3, 5), fork.request(3, 5), LOG.request(5, 5)]
    async with cosigning(made, Clock(NOW)) as cosigner:
        outcomes = await asyncio.gather(
            *(time_of(cosigner, request) for request in requests), return_exceptions=True
        )
    statuses = [each.status if isinstance(each, CheckpointRefusedError) else each for each in outcomes]
    assert statuses == [NOW, 409, NOW, 409, NOW]
    # The two of another history are evidence by themselves: the same sizes, other roots.
    kept = EvidenceFolder(WitnessDirectory(made.directory).evidence).all()
    assert [each.members["kind"] for each in kept] == ["proved", "proved"]


async def test_what_cannot_be_kept_is_not_cosigned_and_ends_the_witness(made: MadeWitness) -> None:
    """If false, a cosignature could leave that the witness has no memory of."""
    directory = WitnessDirectory(made.directory)
    state = State(directory.state)
    cosigner = Cosigner(state, directory.signer(), EvidenceFolder(directory.evidence), Clock(NOW))
    working = asyncio.create_task(cosigner.run())
    broken = sqlite3.connect(directory.state, isolation_level=None)
    broken.execute("CREATE TRIGGER broken BEFORE INSERT ON cosigned BEGIN SELECT raise(ABORT, 'no'); END")
    asked = [asyncio.create_task(time_of(cosigner, LOG.request(0, size))) for size in (3, 4)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(each, StoreError) for each in outcomes)
    with pytest.raises(StoreError):
        await working
    with pytest.raises(StoreError):
        await time_of(cosigner, LOG.request(0, 3))
    assert state.latest(LOG.origin) is None
    broken.close()
    state.close()


def test_a_served_witness_whose_state_fails_ends_with_status_3(made: MadeWitness) -> None:
    """If false, a witness would go on that no longer knows what it has said."""
    with witnessing(made.directory) as running:
        broken = sqlite3.connect(WitnessDirectory(made.directory).state, isolation_level=None)
        broken.execute("CREATE TRIGGER broken BEFORE INSERT ON cosigned BEGIN SELECT raise(ABORT, 'no'); END")
        answer = ask(running.http, LOG.request(0, 3))
        assert answer.status == 500
        assert b"cosigned nothing" in answer.body
        assert running.process.wait(60) == 3
        broken.execute("DROP TRIGGER broken")
        broken.close()
    with witnessing(made.directory) as running:
        assert latest(running.http, LOG.origin).status == 404
        assert ask(running.http, LOG.request(0, 3)).status == 200

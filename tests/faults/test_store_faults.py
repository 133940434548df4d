"""A fault at every call to the store, both ways: nothing is lost, nothing is twice, fsck finds nothing.

What is driven is the real sequencer. After a fault its process is gone: all that is left are the store's
file and the signer's marks. Then it is opened again, and everything is sent again.
"""

import asyncio
import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from ledger.admission import admit
from ledger.entries import Submission
from ledger.errors import Reason, RejectedError, StoreError
from ledger.fsck import Problem, check, check_span, stand_on
from ledger.governing import GOVERNING
from ledger.ledger import Ledger
from ledger.notes import SignerKey
from ledger.store import Store
from ledger.stores.memory import MemoryStore
from ledger.stores.sqlite import SqliteStore
from services.published import Published
from services.signing import CheckpointSigner, HighWaterMarks
from services.submissions import Accepted, Sequencer
from tests.support.faulty_store import AppliedUnreported, Fault, FaultyStore, Full, Lost
from tests.support.ledger_story import SECOND, SECOND_KEY
from tests.support.ledgers import (
    ACKNOWLEDGEMENT_KEY,
    DEPARTMENT_KEY,
    EPOCH,
    GOVERNANCE_KEY,
    LOG_KEY,
    ORIGIN,
    REGISTER,
    decision,
    governing_record,
    open_ledger,
    submission,
    vkey,
)
from tests.support.unsynced import unsynced

Answers = dict[str, Accepted]


@dataclass(slots=True)
class World:
    """What outlives a process: the store, and the signer's marks."""

    marks: Path
    store: Store
    reopen: Callable[[Store], Store]


@pytest.fixture(params=["memory", "sqlite"])
def new_world(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], World]:
    """Make worlds with a ledger of one register of 60 entries and one that is about to be opened."""
    # It is the process that dies here, not the computer.
    unsynced(monkeypatch)
    numbers = itertools.count()
    if request.param == "memory":

        def in_memory() -> World:
            marks = tmp_path / f"marks{next(numbers)}"
            store = MemoryStore()
            begin(store, marks)
            return World(marks, store, lambda store: store)

        return in_memory
    template = tmp_path / "template"
    first = SqliteStore(template)
    begin(first, tmp_path / "template.marks")
    first.close()

    def in_a_file() -> World:
        number = next(numbers)
        marks = Path(shutil.copy(tmp_path / "template.marks", tmp_path / f"marks{number}"))
        path = Path(shutil.copy(template, tmp_path / f"store{number}"))

        def reopen(store: Store) -> Store:
            store.close()
            return SqliteStore(path)

        return World(marks, SqliteStore(path), reopen)

    return in_a_file


def begin(store: Store, marks: Path) -> None:
    """Open a ledger, and leave its last notes unkept."""
    held = open_ledger(store, marks)
    held.authorise(SECOND_KEY)
    held.add(range(60))
    held.signer.close()


def rounds() -> list[list[Submission]]:
    """Return what is sent, in rounds: across a stretch, two registers at once, the same twice."""
    opening = open_ledger_request()
    three = submission(REGISTER, [decision(number) for number in (100, 101, 102)], [DEPARTMENT_KEY])
    ten = submission(REGISTER, [decision(number) for number in range(200, 210)], [DEPARTMENT_KEY])
    one = submission(SECOND, [decision(1, SECOND)], [SECOND_KEY])
    return [[three, opening, three], [one, ten], [ten]]


def open_ledger_request() -> Submission:
    """Return the request to open the second register, signed as governance signs."""
    record = governing_record(500, "register.opened/1", name=SECOND, title="The Permanent Secretary")
    return submission(GOVERNING, [record], [GOVERNANCE_KEY])


def serve(store: Store, marks: Path, answers: Answers) -> None:
    """Open the ledger, sign its heads, register everything, stop; `answers` has what was acknowledged."""
    signer = CheckpointSigner.open(LOG_KEY, marks)
    try:
        published = Published(store)
        acknowledger = SignerKey(f"{ORIGIN}/acknowledgements", ACKNOWLEDGEMENT_KEY)
        sequencer = Sequencer(Ledger.open(store, ORIGIN), published, signer, acknowledger, lambda: EPOCH + 100)
        sequencer.sign_heads()
        asyncio.run(register_all(sequencer, answers))
    finally:
        signer.close()


async def register_all(sequencer: Sequencer, answers: Answers) -> None:
    """Send every round, each when the one before is answered. Raises what ends the sequencer."""
    running = asyncio.create_task(sequencer.run())
    for together in rounds():
        sent = [sequencer.accept(admit(one), "anonymous") for one in together]
        for one, answer in zip(together, await asyncio.gather(*sent, return_exceptions=True), strict=True):
            if isinstance(answer, Accepted):
                answers[one.submission_id] = answer
            else:
                assert isinstance(answer, RejectedError)
                assert answer.reason in {Reason.BACKEND_DOWN, Reason.STORAGE_FULL, Reason.REGISTER_UNKNOWN}
    sequencer.drain()
    await running


def problems(store: Store, marks: Path) -> tuple[Problem, ...]:
    """Return what fsck finds, with the signer's marks to compare."""
    kept = HighWaterMarks(marks)
    origins = [f"{ORIGIN}/{name}" for name in store.heads()]
    checkpoints = {origin: mark for origin in origins if (mark := kept.latest(origin))}
    kept.close()
    ground = stand_on(store, ORIGIN, vkey(GOVERNING))
    return check(
        ground, lambda spans: [check_span(ground, span) for span in spans], checkpoints, lambda _: None
    ).problems


def check_everything(store: Store, marks: Path, before: Answers, after: Answers) -> None:
    """Check that everything stands once, where it was acknowledged, and that the store is sound."""
    assert {one.submission_id for together in rounds() for one in together} == after.keys()
    sizes = {name: head.size for name, head in store.heads().items()}
    assert sizes == {GOVERNING: 5, REGISTER: 73, SECOND: 1}
    for submission_id, answer in before.items():
        again = after[submission_id]
        assert (answer.run, answer.acceptance, answer.note) == (again.run, again.acceptance, again.note)
        assert again.known
    assert problems(store, marks) == ()


def faults(kind: type[Fault]) -> Iterator[Fault]:
    """Yield the fault at call 1, 2, 3 and so on."""
    return (kind(call) for call in itertools.count(1))


@pytest.mark.parametrize("kind", [Lost, AppliedUnreported], ids=["lost", "applied-unreported"])
def test_nothing_is_lost_or_twice_after_a_fault_at_any_store_call(
    kind: type[Fault], new_world: Callable[[], World]
) -> None:
    """False if a fault at some call, in opening, appending, signing or keeping notes, left a trace."""
    for tried, fault in enumerate(faults(kind)):
        world = new_world()
        faulty = FaultyStore(world.store, fault)
        before: Answers = {}
        with suppress(StoreError):
            serve(faulty, world.marks, before)
        store = world.reopen(world.store)
        assert problems(store, world.marks) == (), fault
        after: Answers = {}
        serve(store, world.marks, after)
        check_everything(store, world.marks, before, after)
        store.close()
        if not faulty.fired:
            assert tried > 20, "opening, five commits and their reads"
            return


def test_a_full_disk_refuses_and_the_next_try_succeeds(new_world: Callable[[], World]) -> None:
    """False if running out of room at some commit ended the process, or left a trace of what was refused."""
    for tried, fault in enumerate(faults(Full)):
        world = new_world()
        faulty = FaultyStore(world.store, fault)
        before: Answers = {}
        serve(faulty, world.marks, before)  # it goes on
        store = world.reopen(world.store)
        assert problems(store, world.marks) == ()
        after: Answers = {}
        serve(store, world.marks, after)
        check_everything(store, world.marks, before, after)
        store.close()
        if not faulty.fired:
            assert tried == 3, "two rounds that grow, and the notes at the end"
            return

"""A rejection whose record_id a department has taken: it can be known beforehand, so it may be."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledger.entries import Acceptance, Message, Submission, accept
from ledger.errors import Reason
from ledger.export import export, read_export
from ledger.ledger import Appended, Known, Ledger, Rejected, Turn
from ledger.own_records import rejection_id
from ledger.rebuild import rebuild
from ledger.store import Run, Store
from ledger.stores.memory import MemoryStore
from ledger.stores.sqlite import SqliteStore
from tests.ledger.test_fsck import check_store
from tests.support.ledgers import DEPARTMENT_KEY, ORIGIN, REGISTER, decision, open_ledger, record_id, submission

FIRST = submission(REGISTER, [decision(5)], [DEPARTMENT_KEY])
SECOND = submission(REGISTER, [decision(5, title="Another")], [DEPARTMENT_KEY])
TAKEN = rejection_id(f"{ORIGIN}/{REGISTER}", SECOND.submission_id, 2)
EARLY = submission(REGISTER, [decision(6, record_id=TAKEN)], [DEPARTMENT_KEY])
LATE = submission(REGISTER, [decision(7, record_id=TAKEN)], [DEPARTMENT_KEY])


@pytest.fixture(params=[MemoryStore, SqliteStore])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Make empty stores of one kind."""
    made: list[SqliteStore] = []

    def make() -> Store:
        if request.param is MemoryStore:
            return MemoryStore()
        made.append(SqliteStore(tmp_path / f"store-{len(made)}"))
        return made[-1]

    yield make
    for store in made:
        store.close()


def replay(turn: Turn, ledger: Ledger, one: Submission) -> object:
    return turn.replay(message_of(ledger, one))


def message_of(ledger: Ledger, one: Submission) -> Message:
    return accept(one, Acceptance("2026-07-01T12:00:00.000Z", "anonymous", ledger.fold.signed_size))


@pytest.mark.parametrize("together", [True, False])
def test_a_rejection_stands_whose_record_id_was_taken(
    new_store: Callable[[], Store], tmp_path: Path, *, together: bool
) -> None:
    """If false, one department could stop every register of a partition, for ever (P9)."""
    store = new_store()
    ledger = open_ledger(store, tmp_path / "marks").ledger
    turn = ledger.turn()
    outcomes = []
    for one in (EARLY, FIRST, SECOND, LATE):
        outcomes.append(replay(turn, ledger, one))
        if not together:
            turn.commit({})
            turn = ledger.turn()
    if together:
        turn.commit({})
    early, first, second, late = outcomes
    assert isinstance(early, Appended)
    assert isinstance(first, Appended)
    assert isinstance(second, Rejected)
    assert (second.index, second.refusal.reason) == (2, Reason.RECORD_CONFLICT)
    # The record_id stays the department's.
    assert isinstance(late, Rejected)
    assert late.refusal.earlier is not None
    assert late.refusal.earlier.index == 0
    assert store.heads()[REGISTER].size == 4
    assert check_store(store).problems == ()
    imported = new_store()
    rebuilt = rebuild(imported, read_export(io.BytesIO(b"".join(export(store, ORIGIN)))))
    assert rebuilt.quarantined == ()
    assert imported.heads() == store.heads()
    assert check_store(imported).problems == ()
    again = rebuilt.ledger.turn()
    assert replay(again, rebuilt.ledger, EARLY) == Known(Run(0, 1))


def test_a_record_id_that_a_rejection_has_is_refused(new_store: Callable[[], Store], tmp_path: Path) -> None:
    """If false, a department could register a version 1 of what the ledger wrote."""
    ledger = open_ledger(new_store(), tmp_path / "marks").ledger
    turn = ledger.turn()
    for one in (FIRST, submission(REGISTER, [decision(0, record_id=record_id(9))], [DEPARTMENT_KEY]), SECOND):
        replay(turn, ledger, one)
    turn.commit({})
    late = replay(ledger.turn(), ledger, LATE)
    assert isinstance(late, Rejected)
    assert late.refusal.earlier is not None
    assert late.refusal.earlier.index == 2

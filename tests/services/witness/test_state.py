"""The witness's memory: compare-and-swap, what a reader sees, and what is refused at the start."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ledger.checkpoints import Checkpoint
from ledger.errors import ConflictError, StoreError
from ledger.hashing import Hash
from ledger.notes import SignerKey, cosignature_line, format_note
from services.witness.directory import WitnessDirectory
from services.witness.state import Accepted, Cosigned, State
from tests.support.command import run, run_json
from tests.support.growing_log import GrowingLog, key
from tests.support.witness_process import (
    WitnessNotServingError,
    ask,
    latest,
    make_witness,
    witnessing,
)

WITNESS = SignerKey("witness.example/w", key("witness"))
LOG = GrowingLog("log.example/a")


def cosigned(size: int, time: int = 1, log: GrowingLog = LOG) -> Cosigned:
    checkpoint = log.checkpoint(size)
    line = cosignature_line(checkpoint.text(), WITNESS, time)
    return Cosigned(checkpoint, time, format_note(checkpoint.text(), [line]))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "witness.sqlite3"


@pytest.fixture
def state(path: Path) -> State:
    return State.create(path, WITNESS.cosigner)


def put(state: State, expected: Cosigned | None, after: Cosigned) -> None:
    with state.transaction():
        state.replace(expected, after)


def test_what_was_committed_is_there_when_the_file_is_opened_again(state: State, path: Path) -> None:
    """If false, a restart would forget what was cosigned."""
    put(state, None, cosigned(3))
    put(state, cosigned(3), cosigned(5, 2))
    state.close()
    again = State(path)
    assert again.latest(LOG.origin) == cosigned(5, 2)
    assert again.witness == WITNESS.cosigner
    assert again.count_cosigned() == 1
    again.verify()


@pytest.mark.parametrize(
    "expected",
    [None, cosigned(3), cosigned(6), cosigned(5, 3), cosigned(5, 2, LOG.forked(4))],
    ids=["nothing", "an earlier size", "a later size", "another time", "another root"],
)
def test_only_what_is_there_can_be_replaced(state: State, expected: Cosigned | None) -> None:
    """If false, a request that was decided against an old state would roll the witness back."""
    put(state, None, cosigned(3))
    put(state, cosigned(3), cosigned(5, 2))
    with pytest.raises(ConflictError):
        put(state, expected, cosigned(9, 4))
    assert state.latest(LOG.origin) == cosigned(5, 2)


def test_a_transaction_that_fails_leaves_nothing(state: State) -> None:
    """If false, a batch that could not be kept would be kept in part."""
    with pytest.raises(ConflictError), state.transaction():
        _twice(state)
    assert state.latest(LOG.origin) is None
    put(state, None, cosigned(3))


def _twice(state: State) -> None:
    state.replace(None, cosigned(3))
    state.replace(None, cosigned(3))


def test_a_reader_sees_nothing_that_is_not_durable(state: State) -> None:
    """If false, the monitoring endpoint would show a checkpoint that a crash takes back."""
    reader = state.reader()
    with state.transaction():
        state.replace(None, cosigned(3))
        assert reader.latest(LOG.origin) is None
    assert reader.latest(LOG.origin) == cosigned(3)
    with pytest.raises(StoreError):
        put(reader, cosigned(3), cosigned(5))


def test_commits_are_durable_before_they_return(state: State, path: Path) -> None:
    """If false, a power cut would take back what was cosigned."""
    connection = state._connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_disabling_forgets_no_checkpoint_and_adding_again_finds_it(state: State) -> None:
    """If false, a log that is removed and added again would get a second history cosigned."""
    put(state, None, cosigned(3))
    with state.transaction():
        state.accept(Accepted("log", LOG.origin, LOG.vkey, "somebody"))
    assert state.vkeys("log", LOG.origin) == [LOG.vkey]
    with state.transaction():
        assert state.disable(LOG.vkey) == 1
        assert state.disable(LOG.vkey) == 0
    assert state.vkeys("log", LOG.origin) == []
    assert state.all_accepted() == [Accepted("log", LOG.origin, LOG.vkey, "somebody", enabled=False)]
    assert state.latest(LOG.origin) == cosigned(3)
    with state.transaction():
        state.accept(Accepted("log", LOG.origin, LOG.vkey))
    assert state.all_accepted() == [Accepted("log", LOG.origin, LOG.vkey, "somebody")]


def test_a_state_is_never_made_where_one_is_missing(tmp_path: Path) -> None:
    """If false, whoever deletes the file gets everything cosigned a second time."""
    made = make_witness(tmp_path / "w", "witness.example/w")
    WitnessDirectory(made.directory).state.unlink()
    with pytest.raises(WitnessNotServingError, match="is missing") as refused, witnessing(made.directory):
        pass
    assert refused.value.status == 3
    assert not WitnessDirectory(made.directory).state.exists()
    run("witness", "list", made.directory, status=3)
    with pytest.raises(StoreError):
        State.create(_existing(tmp_path / "there"), WITNESS.cosigner)


def _existing(path: Path) -> Path:
    path.touch()
    return path


def test_another_file_is_not_taken_for_a_state(path: Path) -> None:
    """If false, a ledger's store in the wrong place would be written into."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE cosigned (x)")
    other.close()
    with pytest.raises(StoreError, match="not the state of a witness"):
        State(path)
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError):
        State(path)


def test_the_state_of_one_key_is_not_served_under_another(tmp_path: Path) -> None:
    """If false, a witness could sign for a memory that is not its own."""
    made, other = (make_witness(tmp_path / name, f"{name}.example/w") for name in ("a", "b"))
    for name in ("key", "key.pub"):
        (made.directory / name).write_bytes((other.directory / name).read_bytes())
    with (
        pytest.raises(WitnessNotServingError, match="belongs to the key") as refused,
        witnessing(made.directory),
    ):
        pass
    assert refused.value.status == 2


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE cosigned SET size = size - 1",
        "UPDATE cosigned SET root = zeroblob(32)",
        "UPDATE cosigned SET root = zeroblob(31)",
        "UPDATE cosigned SET note = substr(note, 1, length(note) - 1)",
        "UPDATE cosigned SET note = zeroblob(9)",
        "UPDATE cosigned SET origin = 'log.example/other'",
    ],
)
def test_a_state_that_differs_from_what_was_signed_is_not_served(tmp_path: Path, damage: str) -> None:
    """If false, a damaged disk would make the witness cosign what does not follow."""
    made = make_witness(tmp_path / "w", "witness.example/w")
    made.add_ledger(LOG.vkey)
    with witnessing(made.directory) as running:
        assert ask(running.http, LOG.request(0, 5)).status == 200
    damaged = sqlite3.connect(WitnessDirectory(made.directory).state, isolation_level=None)
    damaged.execute(damage)
    damaged.close()
    with pytest.raises(WitnessNotServingError) as refused, witnessing(made.directory):
        pass
    assert refused.value.status == 3
    assert "log.example" in refused.value.errors
    assert run_json("witness", "list", made.directory, status=3)["error"]["reason"] == "STORE_FAILED"


def test_a_restart_goes_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    """If false, a restart would open the way for a second history."""
    made = make_witness(tmp_path / "w", "witness.example/w")
    made.add_ledger(LOG.vkey)
    with witnessing(made.directory) as running:
        assert ask(running.http, LOG.request(0, 5)).status == 200
        held = latest(running.http, LOG.origin)
        assert running.terminate() == 0
    with witnessing(made.directory) as running:
        assert latest(running.http, LOG.origin) == held
        assert ask(running.http, LOG.forked(2).request(0, 7)).status == 409
        assert ask(running.http, LOG.forked(2).request(5, 7)).status == 422
        assert ask(running.http, LOG.request(5, 7)).status == 200


def test_a_checkpoint_of_the_largest_size_fits(state: State) -> None:
    """If false, the numbers of C2SP would not fit the table."""
    checkpoint = Checkpoint("log.example/a", 2**63 - 1, Hash(bytes(32)))
    line = cosignature_line(checkpoint.text(), WITNESS, 2**63 - 1)
    largest = Cosigned(checkpoint, 2**63 - 1, format_note(checkpoint.text(), [line]))
    put(state, None, largest)
    assert state.latest("log.example/a") == largest
    state.verify()

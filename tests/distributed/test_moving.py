"""A ledger that moves: embedded to Kafka, from there into PostgreSQL, and out again as the same file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from ledger.event_log import CHECKPOINTS, SUBMISSIONS
from ledger.export import export, export_blocks
from ledger.stores.memory import MemoryStore
from tests.support.brokers import SharedKafka
from tests.support.command import run, run_json
from tests.support.distributed_ledger import Distributed, empty_ledger, read_all, roots, stated
from tests.support.ledger_story import tell
from tests.support.ledgers import ORIGIN


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> MemoryStore:
    """An embedded ledger in which everything has happened once."""
    store = MemoryStore()
    tell(store, tmp_path_factory.mktemp("told") / "marks")
    return store


@pytest.fixture
def exported(told: MemoryStore, tmp_path: Path) -> Path:
    """Its export."""
    path = tmp_path / "ledger.export"
    path.write_bytes(b"".join(export(told, ORIGIN)))
    return path


@pytest.fixture
def distributed(
    monkeypatch: pytest.MonkeyPatch, kafka: SharedKafka, prefix: str, fresh_database: str, tmp_path: Path
) -> Distributed:
    """Empty topics and an empty database."""
    return empty_ledger(monkeypatch, kafka, prefix, fresh_database, tmp_path)


def test_a_ledger_that_moves_keeps_every_entry_and_root(
    told: MemoryStore, exported: Path, distributed: Distributed
) -> None:
    """False if an entry, a root or a note differed in the database from what the embedded ledger had."""
    sent = run_json("import", exported, "--kafka")
    rebuilt = run_json("rebuild", "--from", "kafka")
    assert sent["messages"] == rebuilt["messages"]
    assert rebuilt["quarantined"] == rebuilt["unverified"] == []
    with closing(distributed.store()) as store:
        assert store.heads() == told.heads()
        for register, head in told.heads().items():
            assert store.entries(register, 0, head.size) == told.entries(register, 0, head.size)
        assert roots(store) == roots(told)
        assert stated(store) == stated(told)
        again = b"".join(export(store, ORIGIN))
        assert again == exported.read_bytes()


def test_an_interrupted_import_goes_on(exported: Path, distributed: Distributed) -> None:
    """False if what was sent before were sent again, or another ledger's log were gone on with."""
    first = run_json("import", exported, "--kafka")
    again = run_json("import", exported, "--kafka")
    assert (again["messages"], again["notes"]) == (0, 0)
    assert again["messages_there"] == first["messages"]
    assert "nothing was sent" not in run("import", exported, "--kafka").output


def test_the_export_of_a_distributed_ledger_is_that_of_the_embedded_one(
    exported: Path, distributed: Distributed, tmp_path: Path
) -> None:
    """False if a ledger could not go back, byte for byte, from the database or from the topics."""
    run("import", exported, "--kafka")
    run("rebuild", "--from", "kafka")
    told = run_json("export", "--from-database", tmp_path / "database.export")
    assert told["origin"] == distributed.settings.origin
    assert (tmp_path / "database.export").read_bytes() == exported.read_bytes()
    run("export", "--kafka", tmp_path / "kafka.export")
    assert (tmp_path / "kafka.export").read_bytes() == exported.read_bytes()
    run("import", tmp_path / "copy", tmp_path / "database.export")
    run("export", tmp_path / "copy", tmp_path / "embedded.export")
    assert (tmp_path / "embedded.export").read_bytes() == exported.read_bytes()
    assert "Everything holds" in run("fsck", tmp_path / "copy", "--processes", "1").output


def test_the_database_alone_makes_every_root_again(
    exported: Path, distributed: Distributed, tmp_path: Path
) -> None:
    """False if a ledger whose topics are lost could not be checked and copied from its own entries."""
    run("import", exported, "--kafka")
    run("rebuild", "--from", "kafka")
    assert run_json("rebuild", "--from", "store")["rebuilt"] is False
    run("rebuild", "--from", "store", "--into", tmp_path / "copy")
    run("export", tmp_path / "copy", tmp_path / "copy.export")
    assert (tmp_path / "copy.export").read_bytes() == exported.read_bytes()
    assert distributed.settings.origin in run("rebuild", "--from", "store", "--into", tmp_path / "other").output


def test_an_import_that_was_cut_short_sends_the_rest(
    exported: Path, distributed: Distributed, told: MemoryStore
) -> None:
    """False if a message that had been sent were sent again, or one that had not were left out."""
    blocks = list(export_blocks(told, told.heads()))
    distributed.send_blocks(blocks[:15])
    again = run_json("import", exported, "--kafka")
    assert (again["messages_there"], again["notes_there"]) == (15, 0)
    assert run_json("rebuild", "--from", "kafka")["quarantined"] == []
    with closing(distributed.store()) as store:
        assert b"".join(export(store, ORIGIN)) == exported.read_bytes()


def test_topics_that_hold_anything_else_are_refused_and_left_alone(
    exported: Path, distributed: Distributed, told: MemoryStore
) -> None:
    """False if two histories could be mixed in topics in which nothing is ever deleted."""
    last = list(export_blocks(told, told.heads()))[-1]
    distributed.send_blocks([last])
    before = [read_all(distributed, topic, each) for topic in (SUBMISSIONS, CHECKPOINTS) for each in range(3)]
    said = run_json("import", exported, "--kafka", status=1)["error"]["message"]
    assert "not the beginning of this export: nothing was sent" in said
    after = [read_all(distributed, topic, each) for topic in (SUBMISSIONS, CHECKPOINTS) for each in range(3)]
    assert after == before


def test_topics_with_more_than_the_export_are_refused(
    exported: Path, distributed: Distributed, told: MemoryStore
) -> None:
    """False if an older export passed for what the topics hold."""
    blocks = list(export_blocks(told, told.heads()))
    distributed.send_blocks([*blocks, blocks[-1]])
    assert "nothing was sent" in run("import", exported, "--kafka", status=1).output


def test_an_export_that_was_altered_sends_nothing(exported: Path, distributed: Distributed) -> None:
    """False if topics could be filled for ever with what the ledger has not signed."""
    data = exported.read_bytes()
    exported.write_bytes(data.replace(b"Decision 70", b"Decision 71", 1))
    run("import", exported, "--kafka", status=1)
    assert not any(
        read_all(distributed, topic, each) for topic in (SUBMISSIONS, CHECKPOINTS) for each in range(3)
    )
    exported.write_bytes(data)
    assert run_json("import", exported, "--kafka")["messages_there"] == 0


def test_bad_usage_is_told(exported: Path, distributed: Distributed, tmp_path: Path) -> None:
    """False if a slip of the hand did something else than was meant."""
    assert "no DIR" in run("import", tmp_path / "dir", exported, "--kafka", status=2).output
    assert "more than once" in run("import", "-", "--kafka", status=2).output
    assert "FILE is missing" in run("import", exported, status=2).output
    assert "no DIR" in run("export", tmp_path / "dir", exported, "--from-database", status=2).output
    assert "DIR is missing" in run("export", status=2).output
    assert "no DIR" in run("fsck", tmp_path, "--database", status=2).output
    assert "--into" in run("rebuild", "--from", "kafka", "--into", tmp_path / "x", status=2).output
    assert "there already" in run("rebuild", "--from", "store", "--into", tmp_path, status=2).output
    assert distributed.settings.origin == ORIGIN

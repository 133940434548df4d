"""Distributed commands with settings that do not belong together: told, and not half done in silence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.brokers import SharedKafka, SharedPostgres
from tests.support.command import run
from tests.support.distributed_ledger import environment, set_environment
from tests.support.distributed_services import DistributedLedger, distributed_ledger
from tests.support.ledger_dir import make_ledger


@pytest.mark.parametrize(
    ("settings", "said"),
    [("dbname=nowhere", 'database "nowhere" does not exist'), ("port=1", "Connection refused")],
)
def test_topics_do_not_pass_where_the_database_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch,
    any_kafka: SharedKafka,
    prefix: str,
    fresh_database: str,
    tmp_path: Path,
    settings: str,
    said: str,
) -> None:
    """False if a wrong database left its number of partitions open, and a script went on."""
    made = environment(any_kafka, prefix, fresh_database, tmp_path)
    # The last of two goes.
    set_environment(monkeypatch, {**made, "DAYBOOK_DATABASE": f"{made['DAYBOOK_DATABASE']} {settings}"})
    output = run("topics", status=3).output
    assert f"Created {prefix}daybook.submissions, " in output
    assert "the database could not be asked" in output
    assert said in output
    assert "Created" not in run("topics", "--check", status=3).output


@pytest.fixture(scope="module")
def it(
    tmp_path_factory: pytest.TempPathFactory, kafka: SharedKafka, postgres: SharedPostgres
) -> Iterator[DistributedLedger]:
    """A distributed ledger without services."""
    folder = tmp_path_factory.mktemp("mistakes")
    with distributed_ledger(folder / "services", make_ledger(folder / "ledger"), kafka, postgres) as made:
        yield made


@pytest.mark.parametrize("command", [("fsck", "--database"), ("export", "--from-database", "unwritten")])
def test_the_database_of_another_ledger_is_not_taken_for_this_one(
    it: DistributedLedger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """False if an operator of two ledgers checked, or exported, the other one without a word."""
    monkeypatch.chdir(tmp_path)
    set_environment(monkeypatch, {f"DAYBOOK_{name}": value for name, value in it.settings.items()})
    monkeypatch.setenv("DAYBOOK_ORIGIN", "other.example")
    said = run(*command, status=2).output
    assert f"the database holds {it.settings['ORIGIN']}, and the settings are of other.example" in said
    assert not (tmp_path / "unwritten").exists()


def test_a_service_whose_topics_are_others_says_so(it: DistributedLedger) -> None:
    """False if it ended with a traceback, or with the status of what is worth to try again."""
    for service in ("relay", "cosigner", "anchorer", "projector"):
        process = it.launch(service, partitions="3")
        assert process.wait(120) == 2
        assert "has 4 partitions and not 3" in (it.root / f"{service}.log").read_text()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize(
    "service", ["relay", "cosigner", "anchorer", "projector", "sequencer", "registration", "tiles"]
)
def test_a_service_does_not_work_on_the_database_of_another_ledger(it: DistributedLedger, service: str) -> None:
    """False if a service moved one ledger's news to another's topics, or was started again for ever."""
    process = it.launch(service, origin="other.example")
    assert process.wait(120) == 2
    said = (it.root / f"{service}.log").read_text()
    assert f"the database holds {it.settings['ORIGIN']}, and the settings are of other.example" in said
    assert process.stdout is not None
    process.stdout.close()

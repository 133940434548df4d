"""`daybook topics`: what it creates, checks, and fixes in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from ledger.event_log import SUBMISSIONS
from ledger.stores.postgres import PostgresStore, migrate
from services.distributed.topics import TOPICS, check_topics
from tests.support.brokers import SharedKafka
from tests.support.command import run, run_json
from tests.support.distributed_ledger import PARTITIONS, environment, set_environment


@pytest.fixture(autouse=True)
def variables(
    monkeypatch: pytest.MonkeyPatch, any_kafka: SharedKafka, prefix: str, fresh_database: str, tmp_path: Path
) -> Mapping[str, str]:
    """The settings of a Kafka without topics and a database without tables."""
    made = environment(any_kafka, prefix, fresh_database, tmp_path)
    set_environment(monkeypatch, made)
    return made


def test_topics_are_created_once_and_fixed_in_a_database_that_was_migrated(
    any_kafka: SharedKafka, prefix: str, fresh_database: str
) -> None:
    """False if a second call changed anything, or services could start with another number of partitions."""
    migrate(fresh_database)
    told = run_json("topics")
    assert told["created"] == told["topics"] == [prefix + name for name in TOPICS]
    asyncio.run(check_topics(any_kafka.bootstrap, PARTITIONS, prefix=prefix))
    with closing(PostgresStore(fresh_database)) as store:
        assert store.partitions(SUBMISSIONS) == PARTITIONS
    assert run_json("topics")["created"] == []
    assert run_json("topics", "--check")["created"] == []


def test_without_a_database_the_topics_are_created_all_the_same() -> None:
    """False if the order of topics and migration mattered to who prepares both."""
    assert "run daybook migrate" in run("topics").output


def test_what_is_missing_is_named_and_not_created_by_a_check(prefix: str) -> None:
    """False if a check changed anything, or passed where services cannot start."""
    said = run("topics", "--check", status=1).output
    assert all(f"{prefix}{name} is missing" in said for name in TOPICS)
    assert run_json("topics")["created"] == [prefix + name for name in TOPICS]


def test_another_number_of_partitions_is_refused(monkeypatch: pytest.MonkeyPatch, fresh_database: str) -> None:
    """False if registers could be looked for in other partitions than theirs."""
    migrate(fresh_database)
    run("topics")
    monkeypatch.setenv("DAYBOOK_PARTITIONS", "4")
    for arguments in ([], ["--check"]):
        said = run_json("topics", *arguments, status=1)["error"]
        assert said["reason"] == "PARTITIONS_DIFFER"


def test_a_kafka_that_is_away_ends_with_status_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """False if a supervisor could not tell that it is worth to try again."""
    monkeypatch.setenv("DAYBOOK_KAFKA", "127.0.0.1:1")
    assert "Kafka" in run("topics", status=3).output

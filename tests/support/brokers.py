"""A real Apache Kafka and a real PostgreSQL for tests: given by the environment, or else started here.

Without them the tests are skipped; where CI is set, they fail. Tests that ask Kafka for nothing special run on
Tansu instead.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import psycopg
import pytest

from services.local import kafka as local_kafka
from services.local import postgres as local_postgres
from services.local.kafka_jars import find_java, kafka_jars
from services.local.tansu import TansuMissingError, tansu
from services.local.tls import ServerTls

GIVEN_KAFKA: Final = "DAYBOOK_TEST_KAFKA"
"""The variable that gives HOST:PORT of a Kafka for the tests."""

GIVEN_POSTGRES: Final = "DAYBOOK_TEST_POSTGRES"
"""The variable that gives a superuser's connection URI of a PostgreSQL for the tests."""


needs_kafka: Final = pytest.mark.usefixtures("kafka")
"""Marks a test that a Tansu cannot serve, where its other fixtures are content with `any_kafka`."""


@dataclass(frozen=True, slots=True)
class SharedKafka:
    """A Kafka that every test of a run shares: nobody stops it, and every test has a `prefix` of its own."""

    bootstrap: str


@dataclass(frozen=True, slots=True)
class SharedPostgres:
    """A PostgreSQL that every test of a run shares: nobody stops it, and each has a database of its own."""

    superuser_dsn: str

    def dsn(self, database: str) -> str:
        """Return the superuser's connection to a database."""
        return psycopg.conninfo.make_conninfo(self.superuser_dsn, dbname=database)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedKafka]:
    """The shared Kafka."""
    given = os.environ.get(GIVEN_KAFKA)
    if given:
        yield SharedKafka(given)
        return
    with started_kafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield SharedKafka(broker.bootstrap)


@pytest.fixture(scope="session")
def any_kafka(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedKafka]:
    """The shared Kafka; where there is none, a Tansu that every test of the run shares.

    For tests without idempotent producers, transactions, ends of partitions, or brokers that come back. One
    that takes it through another fixture and does need these is marked `needs_kafka`, and is then skipped.
    """
    try:
        if not os.environ.get(GIVEN_KAFKA):
            find_java()
            kafka_jars()
    except local_kafka.KafkaMissingError as missing:
        try:
            with tansu(tmp_path_factory.mktemp("tansu")) as broker:
                yield SharedKafka(broker.bootstrap)
        except TansuMissingError as missing_too:
            _go_without(f"{_instead(missing)}. This test runs on Tansu as well: {missing_too}")
    else:
        yield request.getfixturevalue("kafka")


@pytest.fixture
def fresh_kafka(tmp_path: Path) -> Iterator[local_kafka.Kafka]:
    """A Kafka for one test, without topics, to be killed as it likes. It takes some seconds to start."""
    with started_kafka(tmp_path / "kafka") as broker:
        yield broker


@pytest.fixture
def prefix() -> str:
    """What the names of a test's topics and groups begin with, on the shared Kafka."""
    return f"test-{uuid.uuid4().hex[:12]}."


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedPostgres]:
    """The shared PostgreSQL."""
    given = os.environ.get(GIVEN_POSTGRES)
    if given:
        yield SharedPostgres(given)
        return
    with started_postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield SharedPostgres(server.superuser_dsn)


@pytest.fixture
def fresh_postgres(tmp_path: Path) -> Iterator[local_postgres.Postgres]:
    """A PostgreSQL for one test, to be stopped and killed as it likes."""
    with started_postgres(tmp_path / "postgres") as server:
        yield server


@pytest.fixture
def fresh_database(postgres: SharedPostgres) -> Iterator[str]:
    """The superuser's connection URI to a new empty database, which is dropped at the end."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    local_postgres.create_database(postgres.superuser_dsn, name)
    yield postgres.dsn(name)
    local_postgres.drop_database(postgres.superuser_dsn, name)


@contextmanager
def started_kafka(
    folder: Path, tls: ServerTls | None = None, kind: type[local_kafka.Kafka] = local_kafka.Kafka
) -> Iterator[local_kafka.Kafka]:
    """Run a Kafka; skip the test where it cannot be had."""
    try:
        broker = kind(folder, tls=tls)
    except local_kafka.KafkaMissingError as missing:
        _go_without(_instead(missing))
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@contextmanager
def started_postgres(folder: Path, tls: ServerTls | None = None) -> Iterator[local_postgres.Postgres]:
    """Run a PostgreSQL; skip the test where it cannot be had."""
    try:
        with local_postgres.postgres(folder, tls=tls) as server:
            yield server
    except local_postgres.PostgresMissingError as missing:
        _go_without(str(missing))


def _instead(missing: local_kafka.KafkaMissingError) -> str:
    return f"{missing}; or give HOST:PORT of one in {GIVEN_KAFKA}"


def _go_without(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)

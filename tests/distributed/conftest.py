"""The Kafka and the PostgreSQL that these tests run against."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.brokers import (
    any_kafka,
    fresh_database,
    fresh_kafka,
    fresh_postgres,
    kafka,
    postgres,
    prefix,
)

__all__ = ["any_kafka", "fresh_database", "fresh_kafka", "fresh_postgres", "kafka", "postgres", "prefix"]

# A server that is started as another user is forked, and gRPC's threads do not bear that: where a test's
# clients are under way, the child dies before it is a server.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")


@pytest.fixture(scope="session", autouse=True)
def _only_settings() -> Iterator[None]:
    """Take what steers these tests, which have read it by now, out of the environment that services get."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DAYBOOK_ROUNDS", "DAYBOOK_SEED", "DAYBOOK_TWICE"):
            patch.delenv(name, raising=False)
        yield

"""A database that holds nothing yet, and a store in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from ledger.stores.postgres import PostgresStore, migrate


@pytest.fixture
def database(fresh_database: str) -> str:
    """A database that was migrated."""
    migrate(fresh_database)
    return fresh_database


@pytest.fixture
def store(database: str) -> Iterator[PostgresStore]:
    """An empty store."""
    with closing(PostgresStore(database)) as made:
        yield made

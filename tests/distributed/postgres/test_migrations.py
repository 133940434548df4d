"""The schema: made once, by one at a time, wholly or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from ledger.errors import StoreError
from ledger.stores.postgres import PostgresStore, migrate
from ledger.stores.postgres import schema as postgres_schema
from tests.support.log_steps import contents, fill


def test_migrating_again_changes_nothing(fresh_database: str) -> None:
    """False if a second run failed, or made anything anew."""
    with pytest.raises(StoreError, match="daybook migrate"):
        PostgresStore(fresh_database)
    assert migrate(fresh_database) == ["0001_ledger.sql"]
    with closing(PostgresStore(fresh_database)) as store:
        fill(store)
        before = contents(fresh_database)
        assert migrate(fresh_database) == []
        assert contents(fresh_database) == before


def test_two_that_migrate_at_once_take_turns(fresh_database: str) -> None:
    """False if two services that are deployed together could both make the tables."""
    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(lambda _: migrate(fresh_database), range(4)))
    assert sorted(applied) == [[], [], [], ["0001_ledger.sql"]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE schema_migration SET sha256 = 'x'", "made by another 0001_ledger.sql"),
        ("UPDATE schema_migration SET version = 2", "made by another"),
        (
            "INSERT INTO schema_migration (version, name, sha256) VALUES (1000000, '1000000_later.sql', 'x')",
            "1000000_later.sql: it belongs to a later version",
        ),
    ],
)
def test_a_database_of_another_program_is_refused(change: str, said: str, database: str) -> None:
    """False if a store were opened, or migrated, that other files have made."""
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(change)
    before = contents(database)
    with pytest.raises(StoreError, match=said):
        PostgresStore(database)
    with pytest.raises(StoreError, match=said):
        migrate(database)
    assert contents(database) == before


def test_a_migration_that_fails_leaves_nothing(
    fresh_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if a database could be left half made; or a file that comes later were not applied, and only it."""
    real = postgres_schema._files()
    broken = postgres_schema._File(2, "0002_broken.sql", "CREATE TABLE more (x integer); SELECT 1 / 0;")
    good = postgres_schema._File(2, "0002_good.sql", "CREATE TABLE more (x integer);")
    with monkeypatch.context() as patched:
        patched.setattr(postgres_schema, "_files", lambda: [*real, broken])
        with pytest.raises(StoreError, match="division by zero"):
            migrate(fresh_database)
        assert contents(fresh_database) == {}
        migrate_only(real, fresh_database, patched)
        patched.setattr(postgres_schema, "_files", lambda: [*real, good])
        with pytest.raises(StoreError, match=r"lacks 0002_good\.sql: run daybook migrate"):
            PostgresStore(fresh_database)
        assert migrate(fresh_database) == ["0002_good.sql"]
    with pytest.raises(StoreError, match="later version"):
        PostgresStore(fresh_database)


def migrate_only(files: Sequence[postgres_schema._File], database: str, patched: pytest.MonkeyPatch) -> None:
    """Migrate as a program with these files does."""
    patched.setattr(postgres_schema, "_files", lambda: list(files))
    migrate(database)

"""Who may change what: privileges, triggers, and the damage that is found where they were off."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest
from psycopg import sql

from ledger.errors import StoreError
from ledger.store import NewCosignatures
from ledger.stores.postgres import APPLICATION_ROLE, READER_ROLE, PostgresStore
from tests.support.batches import batch, note_of
from tests.support.log_steps import REGISTER, contents, fill, line_of

NEVER_CHANGED = (
    "entry",
    "tile",
    "note",
    "submission",
    "record",
    "rejection",
    "disposition",
    "quarantine",
    "log_topic",
)


def statements(table: str) -> list[str]:
    """Return what must not be done to a table whose rows never change."""
    return [
        f"UPDATE {table} SET {column_of(table)} = DEFAULT",
        f"DELETE FROM {table}",
        f"TRUNCATE {table} CASCADE",
    ]


def column_of(table: str) -> str:
    """Return some column of a table."""
    return {"disposition": "kind", "quarantine": "why", "log_topic": "partitions"}.get(table, "register")


@pytest.mark.parametrize("table", NEVER_CHANGED)
def test_not_even_the_owner_changes_what_was_written(table: str, database: str, store: PostgresStore) -> None:
    """False if a slip of the owner, who has every privilege, could alter the ledger: the triggers."""
    fill(store)
    before = contents(database)
    with psycopg.connect(database, autocommit=True) as owner:
        for statement in statements(table):
            for setting in ("origin", "replica"):
                owner.execute(f"SET session_replication_role = {setting}")
                with pytest.raises(psycopg.errors.RaiseException, match="never changed"):
                    owner.execute(statement)
    assert contents(database) == before


@pytest.mark.parametrize("role", [APPLICATION_ROLE, READER_ROLE])
@pytest.mark.parametrize("table", NEVER_CHANGED)
def test_no_role_has_the_privilege_to_change_what_was_written(
    table: str, role: str, database: str, store: PostgresStore
) -> None:
    """False if only the triggers held a program back: here they are off."""
    fill(store)
    before = contents(database)
    with psycopg.connect(database, autocommit=True) as owner:
        for name in (*NEVER_CHANGED, "register", "log_position", "cosignature"):
            owner.execute(f"ALTER TABLE {name} DISABLE TRIGGER USER")
        owner.execute(f"SET ROLE {role}")
        for statement in statements(table):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                owner.execute(statement)
    assert contents(database) == before


GROWING = (
    "UPDATE register SET size = size - 1",
    "UPDATE register SET root = sha256('other')",
    "UPDATE register SET name = name || 'x'",
    "DELETE FROM register",
    "TRUNCATE register CASCADE",
    "UPDATE log_position SET epoch = epoch - 1",
    "UPDATE log_position SET next_offset = next_offset - 1",
    "UPDATE log_position SET partition = partition + 1",
    "DELETE FROM log_position",
    "DELETE FROM cosignature",
    "TRUNCATE cosignature",
    "UPDATE cosignature SET first = last",
    "UPDATE cosignature SET last = first",
    "UPDATE cosignature SET size = size + 1",
    "UPDATE cosignature SET name = name || 'x'",
    "UPDATE cosignature SET key_id = key_id + 1",
)


@pytest.mark.parametrize("statement", GROWING)
def test_heads_and_positions_only_grow(statement: str, database: str, store: PostgresStore) -> None:
    """False if a head, a position or what a witness has signed could be set back, by anybody."""
    fill(store)
    store.keep_cosignatures([NewCosignatures(REGISTER, note_of(3), [line_of("one", 2)])])
    before = contents(database)
    with psycopg.connect(database, autocommit=True) as owner:
        for setting in ("origin", "replica"):
            owner.execute(f"SET session_replication_role = {setting}")
            with pytest.raises(psycopg.errors.RaiseException, match="never changed"):
                owner.execute(statement)
    assert contents(database) == before


def as_role(database: str, role: str) -> str:
    """Return a connection string to the database in a role."""
    return psycopg.conninfo.make_conninfo(database, options=f"-c role={role}")


def test_the_application_role_may_do_all_that_a_store_does(database: str) -> None:
    """False if a service that runs as it should could not work."""
    with closing(PostgresStore(as_role(database, APPLICATION_ROLE))) as store:
        fill(store)
        rows = store.outbox(9)
        assert len(rows) == 3
        store.sent([row.id for row in rows])
        assert store.damage() == []
        assert store.wait_for_outbox(0)
    with (
        psycopg.connect(as_role(database, APPLICATION_ROLE)) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("CREATE TABLE mine (x integer)")


def test_the_reading_role_reads_and_nothing_else(database: str, store: PostgresStore) -> None:
    """False if whoever only looks could write, or could not look."""
    fill(store)
    tables = set(contents(database))
    with psycopg.connect(as_role(database, READER_ROLE), autocommit=True) as connection:
        for table in tables:
            connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(sql.SQL("INSERT INTO {} DEFAULT VALUES").format(sql.Identifier(table)))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
    with closing(PostgresStore(as_role(database, READER_ROLE), read_only=True)) as reader:
        assert reader.entries(REGISTER, 0, 9) == store.entries(REGISTER, 0, 9)
    with closing(PostgresStore(as_role(database, READER_ROLE))) as reader, pytest.raises(StoreError):
        reader.commit([batch(REGISTER, 3, 4)])


# Damage.


def test_rows_that_nothing_reads_are_damage(database: str, store: PostgresStore) -> None:
    """False if rows could stand in the database that belong to nothing."""
    fill(store)
    assert store.damage() == []
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(
            "INSERT INTO record (register, record_id, version, entry) VALUES (7, '', 1, 1), (9, '', 1, 1)"
        )
        owner.execute("INSERT INTO entry (register, index, entry) VALUES (1, 3, 'x')")
        owner.execute("INSERT INTO note (register, size, note) VALUES (1, 4, 'x')")
    assert store.damage() == [
        "table record has rows of register number 7, which is none",
        "table record has rows of register number 9, which is none",
        f"{REGISTER}: table entry has rows beyond the end of the register",
        f"{REGISTER}: table note has rows beyond the end of the register",
    ]


@pytest.mark.parametrize("change", ["DISABLE TRIGGER never_changed", "ENABLE TRIGGER never_changed"])
def test_a_guard_that_is_off_is_damage(change: str, database: str, store: PostgresStore) -> None:
    """False if somebody could switch the triggers off and leave them so unseen."""
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(f"ALTER TABLE note {change}")
    assert store.damage() == ["1 of the triggers that refuse changes are off or missing"]

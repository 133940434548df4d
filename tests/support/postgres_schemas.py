"""Many empty stores in one PostgreSQL database: a schema each, which costs less than a database each."""

from __future__ import annotations

from uuid import uuid4

import psycopg
from psycopg import sql

from ledger.stores.postgres import migrate


def migrated_schema(database: str) -> str:
    """Make a schema with the tables of an empty store; return the connection string that leads there."""
    name = f"store_{uuid4().hex[:12]}"
    with psycopg.connect(database) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    inside = psycopg.conninfo.make_conninfo(database, options=f"-c search_path={name}")
    migrate(inside, application_role=None)
    return inside

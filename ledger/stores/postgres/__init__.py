"""A ledger's registers in PostgreSQL."""

from ledger.stores.postgres.commits import COPIED_KEY, COPIED_VALUE
from ledger.stores.postgres.connections import SILENCE
from ledger.stores.postgres.schema import (
    APPLICATION_ROLE,
    READER_ROLE,
    NotMigratedError,
    in_one_line,
    migrate,
    parse_conninfo,
)
from ledger.stores.postgres.store import PostgresStore

__all__ = [
    "APPLICATION_ROLE",
    "COPIED_KEY",
    "COPIED_VALUE",
    "READER_ROLE",
    "SILENCE",
    "NotMigratedError",
    "PostgresStore",
    "in_one_line",
    "migrate",
    "parse_conninfo",
]

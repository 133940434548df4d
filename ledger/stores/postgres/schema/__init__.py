"""The PostgreSQL schema: numbered SQL files, applied in order, each once, and who may do what with the tables.

Who migrates owns the tables. The programs of the ledger belong to a role that can add and never take away;
whoever only looks belongs to `daybook_reader`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from ledger.errors import StoreError

APPLICATION_ROLE: Final = "daybook_app"
READER_ROLE: Final = "daybook_reader"

_LOCK: Final = 0x64627931  # "dby1": two that migrate one database at once take turns
_OLDEST_SERVER: Final = 150_000

_APPENDED: Final = (
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
_REPLACED: Final = ("register", "log_position", "cosignature")
_PASSING: Final = ("outbox",)
_READ: Final = ("schema_migration",)

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS schema_migration (
    version integer PRIMARY KEY,
    name text NOT NULL,
    sha256 bytea NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
_APPLIED: Final = "SELECT version, name, sha256 FROM schema_migration ORDER BY version"


class NotMigratedError(StoreError):
    """The database has no tables of a ledger yet, or those of an earlier version."""


@dataclass(frozen=True, slots=True)
class _File:
    version: int
    name: str
    text: str

    @property
    def hash(self) -> bytes:
        return sha256(self.text.encode()).digest()


def _files() -> list[_File]:
    folder = files(__name__)
    names = sorted(each.name for each in folder.iterdir() if each.name.endswith(".sql"))
    return [
        _File(int(name.partition("_")[0]), name, folder.joinpath(name).read_text(encoding="utf-8"))
        for name in names
    ]


def in_one_line(error: psycopg.Error) -> str:
    """Return what PostgreSQL says, which may stand on several lines, with tabs."""
    return " ".join(str(error).split())


def parse_conninfo(conninfo: str) -> dict[str, str]:
    """Return what a connection URI, or a string of key=value pairs, says. Raises ValueError.

    The message does not repeat the string: there may be a password in it.
    """
    try:
        return {key: str(value) for key, value in conninfo_to_dict(conninfo).items()}
    except psycopg.ProgrammingError:
        raise ValueError("neither a connection URI nor key=value pairs of PostgreSQL") from None


def migrate(conninfo: str, *, application_role: str | None = APPLICATION_ROLE) -> list[str]:
    """Bring a database to this program's schema, all or nothing; return the names of the files applied.

    Grants the application role, and `daybook_reader`, what each needs, and makes them, without login, where
    they are not there; None grants nothing to anybody. To migrate again changes nothing.

    Raises StoreError where the database cannot be reached, belongs to a later program, or was made by other
    files than these.
    """
    try:
        with psycopg.connect(conninfo) as connection:
            if connection.info.server_version < _OLDEST_SERVER:
                raise StoreError("PostgreSQL 15 or later is needed")
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            connection.execute(_TABLE)
            pending = _pending(connection.execute(_APPLIED).fetchall())
            for file in pending:
                connection.execute(file.text)
                connection.execute(
                    "INSERT INTO schema_migration (version, name, sha256) VALUES (%s, %s, %s)",
                    (file.version, file.name, file.hash),
                )
            if application_role is not None:
                _grant(connection, application_role)
            return [file.name for file in pending]
    except psycopg.Error as error:
        raise StoreError(f"PostgreSQL: {in_one_line(error)}") from error


def check_migrated(connection: psycopg.Connection[Any]) -> None:
    """Raise StoreError unless the database has this program's schema; NotMigratedError where it is older."""
    try:
        applied = connection.execute(_APPLIED).fetchall()
    except psycopg.errors.UndefinedTable:
        applied = []
    pending = _pending(applied)
    if pending:
        raise NotMigratedError(f"the database lacks {pending[0].name}: run daybook migrate")


def _pending(applied: Sequence[tuple[int, str, bytes]]) -> list[_File]:
    """Return the files that were not applied. Raises StoreError where what was applied is not these files."""
    known = _files()
    if len(applied) > len(known):
        raise StoreError(f"the database has {applied[-1][1]}: it belongs to a later version of Daybook")
    for file, (version, name, hash_) in zip(known, applied, strict=False):
        if (file.version, file.hash) != (version, hash_):
            raise StoreError(f"the database was made by another {name} than this program's {file.name}")
    return known[len(applied) :]


def _grant(connection: psycopg.Connection[Any], application_role: str) -> None:
    for role in (application_role, READER_ROLE):
        _make_role(connection, role)
    schema = sql.Identifier(connection.execute("SELECT current_schema()").fetchall()[0][0])
    everybody = sql.SQL(", ").join(map(sql.Identifier, (application_role, READER_ROLE)))
    connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, everybody))
    every_table = (*_APPENDED, *_REPLACED, *_PASSING, *_READ)
    connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(_names(every_table), everybody))
    for privileges, tables in (
        ("INSERT", (*_APPENDED, *_REPLACED, *_PASSING)),
        ("UPDATE", (*_REPLACED, *_PASSING)),
        ("DELETE", _PASSING),
    ):
        connection.execute(
            sql.SQL("GRANT {} ON {} TO {}").format(
                sql.SQL(privileges), _names(tables), sql.Identifier(application_role)
            )
        )


def _names(tables: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, tables))


def _make_role(connection: psycopg.Connection[Any], role: str) -> None:
    if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone():
        return
    # Roles are the whole server's: the owner of another database on it may be making the same one.
    connection.execute(
        sql.SQL(
            "DO $$ BEGIN CREATE ROLE {} NOLOGIN; "
            "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        ).format(sql.Identifier(role))
    )

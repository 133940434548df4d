"""`daybook migrate`: create or update the PostgreSQL schema of a distributed ledger."""

from __future__ import annotations

from typing import Annotated

import typer

from ledger.stores.postgres import APPLICATION_ROLE, READER_ROLE, migrate, parse_conninfo
from services.cli.reporting import JsonOption, UsageError, expected_failures, report
from services.distributed.projection import migrate_projection
from services.distributed.settings import distributed_settings


def run(
    database: Annotated[
        str,
        typer.Option(
            metavar="DSN",
            show_default=False,
            help="The database, as a connection URI or as key=value pairs; its user will own the tables. "
            "By default that of the settings, which have its password in a file.",
        ),
    ] = "",
    application_role: Annotated[
        str,
        typer.Option(
            metavar="ROLE",
            help="The role that the ledger's services belong to. Empty: no role is made, nothing is granted.",
        ),
    ] = APPLICATION_ROLE,
    as_json: JsonOption = False,
) -> None:
    """Create or update the PostgreSQL schema of a distributed ledger.

    All or nothing, and again as often as you like. The user needs to own the database, and to be allowed to
    make the two roles where they are not there: the application role, which can add and never take away,
    and daybook_reader, which only reads. Neither can log in: grant both to the user of the services, who is
    best not the owner of the tables. Exit status 2 for bad usage, 3 where the database cannot be reached, or
    is not of this version. Example:

        daybook migrate --database postgresql://owner@db.internal/daybook
    """
    with expected_failures(as_json=as_json):
        database = database or distributed_settings().owner_conninfo()
        try:
            parse_conninfo(database)
        except ValueError as error:
            raise UsageError(f"--database: {error}") from None
        applied = migrate(database, application_role=application_role or None)
        migrate_projection(
            database, writer=application_role or None, reader=READER_ROLE if application_role else None
        )
        lines = [f"Applied {name}." for name in applied] or ["The schema is up to date: nothing to apply."]
        if application_role:
            lines.append(f"{application_role} may add, {READER_ROLE} may read: grant them to your users.")
        report({"applied": applied, "application_role": application_role or None}, lines, as_json=as_json)

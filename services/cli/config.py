"""`daybook config`: the settings of the distributed services, without any secret."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli import plain_typer
from services.cli.reporting import JsonOption, expected_failures, report
from services.cli.run import Service
from services.distributed.settings import distributed_settings, signer_settings, sources

app = plain_typer(
    "See the settings of the distributed services.\n\nExample:  DAYBOOK_CONFIG=daybook.toml daybook config show"
)


@app.callback()
def config() -> None:
    """See the settings of the distributed services."""


@app.command("show")
def show(
    service: Annotated[
        Service | None,
        typer.Option("--for", help="Of one service: the signer does without Kafka and a database."),
    ] = None,
    redacted: Annotated[
        bool, typer.Option("--redacted", help="Say so: secrets are never shown, with or without it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show every setting, and where it comes from: the environment, the file, or the default.

    Settings are DAYBOOK_ and their name in capitals, in the environment; or their name, in the TOML file that
    DAYBOOK_CONFIG names. The environment goes first. A secret is the path of a file, which is not read here.
    Exit status 2 where a setting is missing or cannot be used, or a name is none; each is named. Examples:

        DAYBOOK_CONFIG=daybook.toml daybook config show --redacted

        DAYBOOK_CONFIG=signer.toml daybook config show --for signer
    """
    del redacted
    with expected_failures(as_json=as_json):
        settings = signer_settings() if service is Service.SIGNER else distributed_settings()
        told = settings.told()
        come = sources()
        width = max(map(len, told))
        lines = [
            f"{name:{width}}  {'-' if value in (None, '') else value}  ({come[name]})"
            for name, value in told.items()
        ]
        value = {name: {"from": come[name], "value": each} for name, each in told.items()}
        report(value, lines, as_json=as_json)

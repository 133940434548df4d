"""`daybook run`: one service of the distributed mode."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from enum import StrEnum
from typing import Annotated, Any, Final

import typer
import uvloop

from services.cli.brokers import reaching_kafka
from services.cli.logs import configure_logs
from services.cli.reporting import JsonOption, UsageError, expected_failures
from services.collecting import collect_seldom
from services.descriptors import allow_descriptors
from services.distributed.settings import distributed_settings, signer_settings


class Service(StrEnum):
    """The services, in the order of a record's way."""

    REGISTRATION = "registration"
    SEQUENCER = "sequencer"
    SIGNER = "signer"
    RELAY = "relay"
    COSIGNER = "cosigner"
    ANCHORER = "anchorer"
    PROJECTOR = "projector"
    AUDIT = "audit"
    TILES = "tiles"


_MODULES: Final[Mapping[Service, str]] = {
    each: f"services.distributed.{each.value}_service" for each in Service
}
"""Each has `async def run(settings, ready)`: it serves until SIGTERM or SIGINT, and calls `ready` once."""


def run(
    service: Annotated[Service, typer.Argument(help="Which service.")],
    grpc: Annotated[str | None, typer.Option(help="HOST:PORT for gRPC; port 0 takes any.")] = None,
    http: Annotated[str | None, typer.Option(help="HOST:PORT for HTTP; port 0 takes any.")] = None,
    ops: Annotated[str | None, typer.Option(help="HOST:PORT for /healthz, /readyz and /metrics.")] = None,
    from_zero: Annotated[
        bool,
        typer.Option("--from-zero", help="Of the projector: forget what is counted and found, and begin anew."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run one service of the distributed mode, until SIGTERM or Ctrl-C.

    Settings come from the environment (DAYBOOK_…) and from the file that DAYBOOK_CONFIG names: see them with
    daybook config show. Prints one line when it works. Exit status 1 where it has found an integrity failure,
    and will not go on; 2 for settings that cannot be used; 3 where it could not reach what it needs, and should
    be started again. Example:

        DAYBOOK_CONFIG=daybook.toml daybook run sequencer
    """
    with expected_failures(as_json=as_json):
        if from_zero and service is not Service.PROJECTOR:
            raise UsageError("--from-zero is for the projector: nothing else can be counted anew")
        make = signer_settings if service is Service.SIGNER else distributed_settings
        settings = make(grpc=grpc, http=http, ops=ops)
        configure_logs()
        allow_descriptors()
        module = importlib.import_module(_MODULES[service])

        def ready(addresses: Mapping[str, str]) -> None:
            collect_seldom()
            told: dict[str, Any] = {"service": service.value, "origin": settings.origin, **addresses}
            if as_json:
                typer.echo(json.dumps({"ready": True, **told}))
            else:
                typer.echo("daybook ready " + " ".join(f"{name}={value}" for name, value in told.items()))
            sys.stdout.flush()

        more = {"from_zero": True} if from_zero else {}
        with nullcontext() if service is Service.SIGNER else reaching_kafka(settings):
            uvloop.run(module.run(settings, ready, **more))

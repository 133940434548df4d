"""`daybook serve`: the embedded server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from ledger.witnessing import Policy
from services.cli.logs import configure_logs
from services.cli.reporting import JsonOption, expected_failures
from services.compose import Embedded, embedded
from services.descriptors import allow_descriptors
from services.ledger_files import LedgerDirectory
from services.serving import Addresses, Stop, serve
from services.settings import ServeSettings, serve_settings

NO_WITNESS = (
    "no witnesses: receipts will say 'not witnessed', and nobody outside would notice if this directory "
    "were replaced by an older copy of itself"
)


def run(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The ledger's directory.")],
    grpc: Annotated[
        str | None, typer.Option(help="HOST:PORT for gRPC; port 0 takes any. Default: 127.0.0.1:7070.")
    ] = None,
    http: Annotated[
        str | None, typer.Option(help="HOST:PORT for HTTP; port 0 takes any. Default: 127.0.0.1:7071.")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM certificate chain, for both.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM private key of the certificate.")] = None,
    client_ca: Annotated[
        Path | None, typer.Option(help="PEM issuers of client certificates; gRPC then demands one.")
    ] = None,
    trust_store: Annotated[
        bool,
        typer.Option(
            "--trust-store", help="Sign what the store holds though signer.marks is lost. Rarely right."
        ),
    ] = False,
    detections: Annotated[
        bool | None,
        typer.Option(
            "--detections/--no-detections",
            help="Look for what deserves a look, for `daybook findings`. Default: yes.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a ledger: gRPC for departments and auditors, HTTP for verifiers and monitors.

    Prints one line when both answer. Stops gracefully at SIGTERM and Ctrl-C: what was accepted is answered.
    Without TLS only loopback addresses are bound. Example:

        daybook serve ./ledger --grpc 127.0.0.1:7070 --http 127.0.0.1:7071
    """
    with expected_failures(as_json=as_json):
        settings = serve_settings(
            grpc=grpc,
            http=http,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            client_ca=client_ca,
            detections=detections,
        )
        configure_logs()
        allow_descriptors()
        with embedded(LedgerDirectory(directory), trust_store=trust_store) as opened:
            uvloop.run(_serve(opened, settings, as_json))


async def _serve(opened: Embedded, settings: ServeSettings, as_json: bool) -> None:
    stop = Stop()
    stop.on_signals()

    def ready(addresses: Addresses) -> None:
        origin = opened.ledger.origin
        if as_json:
            line = json.dumps({"ready": True, "origin": origin, "grpc": addresses.grpc, "http": addresses.http})
        else:
            line = f"daybook ready origin={origin} grpc={addresses.grpc} http={addresses.http}"
        policy = opened.published.policy
        typer.echo(f"daybook: {NO_WITNESS if policy is None else _witnesses(policy)}", err=True)
        typer.echo(line)
        sys.stdout.flush()

    await serve(opened, settings, ready, stop)


def _witnesses(policy: Policy) -> str:
    names = ", ".join(witness.name for witness in policy.witnesses)
    return (
        f"witnesses {names}; sealed when {policy.quorum.root} holds. A register grows once they have confirmed "
        "that they know no longer and no other history of it"
    )

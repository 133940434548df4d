"""The command line, `daybook`: one module for each command, loaded only when that command runs.

A command's module has `run`, a function that typer turns into its options and arguments, or `app`, a
`typer.Typer` of its own where it has commands below it. So `daybook verify` loads nothing of a server.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import keyword
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

import typer

COMMANDS: Final[Mapping[str, str]] = {
    "init": "Make a new ledger: keys, store and governing register.",
    "serve": "Serve a ledger over gRPC and HTTP from its directory.",
    "keygen": "Make an Ed25519 key pair.",
    "govern": "Open registers, authorise and revoke keys: governance.",
    "policy": "Print the witness policy file that verifiers hold, or say what one means.",
    "profile": "Show and check policy profiles: the limits by which records are looked at.",
    "register": "Sign records, register them, verify the answers, keep the receipts.",
    "receipt": "Fetch one receipt anew, with all that the ledger can prove by now.",
    "verify": "Verify a receipt or an evidence pack, offline.",
    "evidence": "Pack records with all that proves them, for a tribunal.",
    "query": "List all entries that answer a question, with proof that there are no others.",
    "findings": "List what a ledger's own detections noticed: its operator's word.",
    "witness": "Run a witness: an independent service that cosigns the checkpoints of ledgers.",
    "audit": "Audit a ledger: what was added, altered or removed since your last visit.",
    "monitor": "Follow a ledger from outside: read everything, compare, keep evidence.",
    "drill": "Try whether lies about a ledger would be caught, on copies of it.",
    "sealing": "Say whether checkpoints are sealed by witnesses, and by whom.",
    "fsck": "Derive everything in a ledger's directory again, and compare.",
    "export": "Write the event log of a ledger into one file.",
    "import": "Catch up after a restore from an export, or make a copy to read.",
    "run": "Run one service of the distributed mode.",
    "topics": "Create or check the Kafka topics of a distributed ledger.",
    "migrate": "Create or update the PostgreSQL schema of a distributed ledger.",
    "rebuild": "Derive a distributed ledger's store again from its event log.",
    "config": "Show the settings of the distributed services, without secrets.",
}
"""Every command with its one line of help, in the order in which a reader meets them."""

SOFTWARE_FAULT: Final = 70
"""Exit status of a fault in Daybook itself (EX_SOFTWARE): never to be taken for an integrity failure."""

_INTERRUPTED: Final = 130

_USAGE: Final[Any] = typer.BadParameter.__mro__[1]
"""What typer raises for every mistake in the arguments; it exports only this one's subclass."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `daybook` with these arguments, by default the process's own. Ends in SystemExit.

    Status: 0 fine; 1 an integrity failure was found; 2 bad input or usage; 3 could not reach or read.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # What gRPC logs by itself, each command says better.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        if given and given[0] in available():
            _run(command(given[0]), given[1:], f"daybook {given[0]}")
        else:
            _run(root(), given, "daybook")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except Exception:
        traceback.print_exc()
        sys.exit(SOFTWARE_FAULT)


def _run(app: typer.Typer, given: Sequence[str], name: str) -> NoReturn:
    if "--json" not in given:
        app(args=given, prog_name=name)
        sys.exit(0)
    try:
        sys.exit(app(args=given, prog_name=name, standalone_mode=False))
    except _USAGE as error:
        # Said in JSON too: what reads it must never find an empty stdout.
        text = error.format_message() or f"Something is missing: see {name} --help"
        print(json.dumps({"error": {"message": text, "reason": "BAD_USAGE"}}, ensure_ascii=False, indent=2))
        sys.exit(2)


def available() -> tuple[str, ...]:
    """Return the names of the commands whose modules are there."""
    return tuple(name for name in COMMANDS if importlib.util.find_spec(_module(name)) is not None)


def _module(name: str) -> str:
    """Return the module of a command; that of a word which Python keeps for itself ends with an underscore."""
    return f"{__name__}.{name}_" if keyword.iskeyword(name) else f"{__name__}.{name}"


def command(name: str) -> typer.Typer:
    """Load one command and return its typer application."""
    module = importlib.import_module(_module(name))
    if hasattr(module, "app"):
        app: typer.Typer = module.app
        return app
    app = plain_typer()
    app.command(name)(module.run)
    return app


def plain_typer(help_text: str | None = None) -> typer.Typer:
    """Return a typer application in the style of all commands."""
    return typer.Typer(
        help=help_text,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )


def root() -> typer.Typer:
    """Return what `daybook` alone shows: the list of commands, without loading any."""
    app = plain_typer(
        "A tamper-evident ledger for the decisions of ministers.\n\n"
        "Each command explains itself and shows an example: daybook verify --help"
    )

    @app.callback()
    def daybook() -> None:
        """Only here so that typer shows the list."""

    for name in available():
        app.command(name, help=COMMANDS[name])(_never_run)
    return app


def _never_run() -> None:
    raise AssertionError("main runs the command itself")

"""`daybook policy`: the file that a verifier holds, made from a ledger, or told in plain English."""

from __future__ import annotations

import json
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Final
from urllib.error import URLError
from urllib.parse import urlsplit

import typer

from ledger.errors import MalformedError
from ledger.notes import VerifierKey
from ledger.values import is_register
from ledger.witnessing import Log, Policy, Quorum
from services.cli.policy_files import read_policy
from services.cli.reporting import JsonOption, UnreachableError, UsageError, expected_failures, report
from services.ledger_files import LedgerDirectory, public_path, read_public_key

SHOW: Final = "show"
"""The word that makes the command tell instead of make."""

_GOVERNING: Final = "/governing"
_MAX_REGISTERS: Final = 16 * 1024 * 1024
_TIMEOUT: Final = 10.0


def run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIR|URL|show",
            help="The ledger's directory, or its HTTP address; or the word show.",
        ),
    ],
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="After show: the policy file.")] = None,
    register: Annotated[
        str | None,
        typer.Option(help="Name this register's own key, for other C2SP tools, instead of the ledger's."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the witness policy file that verifiers of a ledger hold; or say what such a file means.

    The file holds the ledger's public key, and the witnesses that must have seen a checkpoint. A key that
    comes over the network is the operator's word until you have compared its fingerprint with the operator
    over another channel.

    Examples:  daybook policy ./ledger > policy

    daybook policy http://127.0.0.1:7071 > policy

    daybook policy show policy
    """
    with expected_failures(as_json=as_json):
        if source == SHOW:
            _show(file, as_json=as_json)
            return
        if file is not None:
            raise UsageError(f"{file} is one argument too many (did you mean: daybook policy show {file})")
        over_network = urlsplit(source).scheme in ("http", "https")
        governing = _fetched(source) if over_network else _kept(Path(source))
        policy = _policy(governing, register)
        if over_network:
            typer.echo(
                "WARNING: this key came from the ledger's own server. Before you trust it, compare its "
                "fingerprint with the operator over another channel:\n"
                f"  {policy.fingerprint}",
                err=True,
            )
        value = {"policy": policy.text().decode(), "fingerprint": policy.fingerprint}
        report(value, policy.text().decode().splitlines(), as_json=as_json)


def _show(file: Path | None, *, as_json: bool) -> None:
    if file is None:
        raise UsageError("Name the file: daybook policy show FILE (a directory named show is ./show)")
    policy = read_policy(file)
    value = {
        "fingerprint": policy.fingerprint,
        "ledgers": list(policy.ledger_origins),
        "logs": [str(log.key) for log in policy.logs],
        "witnesses": [{"name": each.name, "key": str(each.key)} for each in policy.witnesses],
        "quorum": policy.quorum.root,
        "bounds_comparable": policy.quorum.comparable,
        "description": policy.description(),
    }
    report(value, policy.description().splitlines(), as_json=as_json)


def _policy(governing: VerifierKey, register: str | None) -> Policy:
    if not governing.name.endswith(_GOVERNING):
        raise UsageError(f"the key {governing.name} is not that of a governing register", "KEY_MALFORMED")
    key = governing
    if register is not None:
        if not is_register(register):
            raise UsageError(f"--register {register!r} is not department/office", "REGISTER_MALFORMED")
        key = governing.renamed(f"{governing.name.removesuffix(_GOVERNING)}/{register}")
    return Policy((Log(key),), (), Quorum((), (), None))


def _kept(directory: Path) -> VerifierKey:
    try:
        return read_public_key(public_path(LedgerDirectory(directory).log_key))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnreachableError(
            f"{directory} is no ledger's directory (no keys/log.pub): name one, or a server's HTTP address as "
            "http://HOST:PORT; a policy file is told with: daybook policy show FILE",
            "UNREADABLE",
        ) from error


def _fetched(url: str) -> VerifierKey:
    """Fetch the governing vkey that a server states."""
    address = f"{url.rstrip('/')}/registers.json"
    try:
        # The scheme is http or https: the caller has looked.
        with urllib.request.urlopen(address, timeout=_TIMEOUT) as response:  # noqa: S310
            body = response.read(_MAX_REGISTERS)
    except HTTPException as error:
        raise UnreachableError(f"{address} is not answered in HTTP: is it the gRPC address?") from error
    except (URLError, TimeoutError, ConnectionError) as error:
        raise UnreachableError(f"{address} cannot be read: {getattr(error, 'reason', error)}") from error
    try:
        stated = json.loads(body)
        vkeys = [each["vkey"] for each in stated["registers"] if each["name"] == "governing"]
        return VerifierKey.parse(vkeys[0])
    except (ValueError, KeyError, TypeError, IndexError, MalformedError) as error:
        raise UnreachableError(f"{address} does not name the ledger's key: {error!r}", "UNREADABLE") from error

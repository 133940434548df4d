"""`daybook policy`: the file that a verifier holds, made from a ledger, or told in plain English."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.error import URLError
from urllib.parse import urlsplit

import typer

from ledger.errors import MalformedError
from ledger.ledger import Ledger
from ledger.notes import COSIGNATURE_V1, VerifierKey
from ledger.stores.sqlite import SqliteStore
from ledger.values import is_register
from ledger.witnessing import Group, Log, Policy, Quorum, Witness
from services.cli.policy_files import read_policy
from services.cli.reporting import JsonOption, UnreachableError, UsageError, expected_failures, report
from services.ledger_files import LedgerDirectory, public_path, read_public_key
from services.witness_policy import PolicyInForce

SHOW: Final = "show"
"""The word that makes the command tell instead of make."""

_GOVERNING: Final = "/governing"
_GROUP: Final = "quorum-of-witnesses"
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
    witness: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.pub=URL",
            help="Ask this witness: its key, and the address that checkpoints are sent to. Repeat for several.",
        ),
    ] = None,
    log_list: Annotated[
        bool,
        typer.Option(
            "--log-list",
            help="Print instead the list of every register's own key, for witnesses that know logs one by one.",
        ),
    ] = False,
    quorum: Annotated[
        str | None,
        typer.Option(help="How many of the witnesses make a quorum: all, any, or a number. Default: all."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the witness policy file that verifiers of a ledger hold; or say what such a file means.

    The file holds the ledger's public key, and the witnesses that must have seen a checkpoint: those that the
    ledger's governance has published, if any. A policy that comes over the network is the operator's word
    until you have compared its fingerprint with the operator, and the witnesses, over another channel.

    With --witness it is a new policy, for `daybook govern DIR publish-policy`. With --log-list it is a list
    in the format of the witness network.

    Examples:  daybook policy ./ledger > policy

    daybook policy http://127.0.0.1:7071 > policy

    daybook policy show policy

    daybook policy ./ledger --witness ico.pub=https://witness.ico.example --witness
    tna.pub=https://witness.tna.example --quorum all > witnesses
    """
    with expected_failures(as_json=as_json):
        if source == SHOW:
            _show(file, as_json=as_json)
            return
        if file is not None:
            raise UsageError(f"{file} is one argument too many (did you mean: daybook policy show {file})")
        if quorum is not None and not witness:
            raise UsageError("--quorum is of the witnesses that --witness names: name them")
        over_network = urlsplit(source).scheme in ("http", "https")
        if log_list:
            found = _fetched_vkeys(source) if over_network else _kept_vkeys(Path(source))
            vkeys = [str(each) for each in found]
            report({"log_list": vkeys}, ["logs/v0", *(f"vkey {each}" for each in vkeys)], as_json=as_json)
            return
        policy = _fetched(source) if over_network else _kept(Path(source))
        if witness:
            policy = _asking(policy, witness, quorum or "all")
        if register is not None:
            policy = _of_register(policy, register)
        if over_network:
            typer.echo(
                "WARNING: this policy came from the ledger's own server. Before you trust it, compare its "
                "fingerprint with the operator and the witnesses over another channel:\n"
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


def _alone(governing: VerifierKey) -> Policy:
    """Return the policy of a ledger without witnesses."""
    if not governing.name.endswith(_GOVERNING):
        raise UsageError(f"the key {governing.name} is not that of a governing register", "KEY_MALFORMED")
    return Policy((Log(governing),), (), Quorum((), (), None))


def _of_register(policy: Policy, register: str) -> Policy:
    if not is_register(register):
        raise UsageError(f"--register {register!r} is not department/office", "REGISTER_MALFORMED")
    (log,) = policy.logs
    key = log.key.renamed(f"{log.key.name.removesuffix(_GOVERNING)}/{register}")
    return Policy((Log(key),), policy.witnesses, policy.quorum)


def _asking(policy: Policy, witnesses: Sequence[str], quorum: str) -> Policy:
    """Return the same ledger's policy with these witnesses, each ``FILE.pub=URL``, and this quorum."""
    asked = []
    for each in witnesses:
        path, _, url = each.partition("=")
        if urlsplit(url).scheme not in ("http", "https") or any(map(str.isspace, url)):
            raise UsageError(
                f"--witness {each!r} is not FILE.pub=URL with an http or https address", "URL_MALFORMED"
            )
        key = read_public_key(Path(path))
        if key.type != COSIGNATURE_V1:
            raise UsageError(
                f"{path} holds no witness's key: `daybook witness keygen` makes one", "KEY_MALFORMED"
            )
        asked.append(Witness(key.name, key, url))
    names = tuple(each.name for each in asked)
    threshold = {"all": str(len(names)), "any": "1"}.get(quorum, quorum)
    if not threshold.isascii() or not threshold.isdigit():
        raise UsageError(f"--quorum {quorum!r} is not all, any or a number", "QUORUM_MALFORMED")
    if len(set(names)) != len(names):
        raise UsageError("A witness is named twice with --witness", "POLICY_MALFORMED")
    if int(threshold) > len(names) or not int(threshold):
        raise UsageError(f"--quorum {quorum} of {len(names)} witnesses can never be met", "QUORUM_MALFORMED")
    try:
        group = Group(_GROUP, int(threshold), names)
        return Policy(policy.logs, tuple(asked), Quorum(names, (group,), _GROUP))
    except MalformedError as error:
        raise UsageError(f"These witnesses make no policy: {error}", "POLICY_MALFORMED") from error


@contextmanager
def _ledger(root: Path) -> Iterator[tuple[VerifierKey, Ledger | None]]:
    """Yield a ledger's governing vkey, and the ledger; None where it is not open yet."""
    directory = LedgerDirectory(root)
    try:
        key = read_public_key(public_path(directory.log_key))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnreachableError(
            f"{root} is no ledger's directory (no keys/log.pub): name one, or a server's HTTP address as "
            "http://HOST:PORT; a policy file is told with: daybook policy show FILE",
            "UNREADABLE",
        ) from error
    if not directory.store.exists():
        yield key, None
        return
    store = SqliteStore(directory.store)
    try:
        yield key, Ledger.open(store, key.name.removesuffix(_GOVERNING))
    finally:
        store.close()


def _kept(root: Path) -> Policy:
    with _ledger(root) as (key, ledger):
        published = PolicyInForce(ledger, time.time)() if ledger is not None else None
        return published or _alone(key)


def _kept_vkeys(root: Path) -> Iterator[VerifierKey]:
    with _ledger(root) as (key, ledger):
        yield key
        for name in sorted(ledger.fold.registers if ledger is not None else ()):
            yield key.renamed(f"{key.name.removesuffix(_GOVERNING)}/{name}")


def _fetched_vkeys(url: str) -> Iterator[VerifierKey]:
    stated = _registers(url)
    try:
        for each in stated["registers"]:
            yield VerifierKey.parse(each["vkey"])
    except (KeyError, TypeError, AttributeError, MalformedError) as error:
        raise UnreachableError(f"{url} does not list its registers' keys: {error!r}", "UNREADABLE") from error


def _fetched(url: str) -> Policy:
    """Fetch the policy that a server states: its governing vkey, and the witness policy in force."""
    stated = _registers(url)
    try:
        vkeys = [each["vkey"] for each in stated["registers"] if each["name"] == "governing"]
        alone = _alone(VerifierKey.parse(vkeys[0]))
        text = stated.get("witness_policy")
        if text is None:
            return alone
        policy = Policy.parse(text.encode())
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, MalformedError) as error:
        raise UnreachableError(f"{url} does not name the ledger's key: {error!r}", "UNREADABLE") from error
    return Policy(alone.logs, policy.witnesses, policy.quorum)


def _registers(url: str) -> Any:
    address = f"{url.rstrip('/')}/registers.json"
    try:
        # The scheme is http or https: the caller has looked.
        with urllib.request.urlopen(address, timeout=_TIMEOUT) as response:  # noqa: S310
            return json.loads(response.read(_MAX_REGISTERS))
    except HTTPException as error:
        raise UnreachableError(f"{address} is not answered in HTTP: is it the gRPC address?") from error
    except (URLError, TimeoutError, ConnectionError) as error:
        raise UnreachableError(f"{address} cannot be read: {getattr(error, 'reason', error)}") from error
    except ValueError as error:
        raise UnreachableError(f"{address} does not name the ledger's key: {error!r}", "UNREADABLE") from error

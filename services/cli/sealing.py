"""`daybook sealing`: whether a ledger's checkpoints are sealed, and by whom."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import typer

from ledger.ledger import Ledger
from ledger.notes import cosignature_time
from ledger.sealing import SealedReader
from ledger.stores.sqlite import SqliteStore
from ledger.witnessing import Witness
from services.cli.reporting import (
    CommandError,
    JsonOption,
    Status,
    UnreachableError,
    UsageError,
    expected_failures,
    report,
)
from services.declared_witnesses import DeclaredWitnesses
from services.ledger_files import LedgerDirectory, public_path, read_public_key
from services.sealing_state import MOST_NAMED, NONE_CONFIGURED
from services.witness_policy import PolicyInForce

_GOVERNING: Final = "/governing"
_TIMEOUT: Final = 10.0
_LONGEST: Final = 1024 * 1024


def run(
    source: Annotated[
        str, typer.Argument(metavar="DIR|URL", help="The ledger's directory, or its server's HTTP address.")
    ],
    declare_restored: Annotated[
        str | None,
        typer.Option(
            metavar="WITNESS",
            help="Declare, in DIR, that this witness was restored from an older copy of itself, and that you "
            "have looked into what it cosigned meanwhile.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether every register's latest checkpoint is sealed by the quorum of witnesses, and by whom.

    A witness that holds less than it has cosigned has lost its state, and may have cosigned a second history:
    the ledger refuses it until you declare it restored. With URL also what is wrong with each witness, which
    only the running server knows. Exit status 0: sealed, or no witness is asked. 3: not sealed now, or a
    register may not grow.

    Examples:  daybook sealing http://127.0.0.1:7071

    daybook sealing ./ledger --declare-restored ico
    """
    with expected_failures(as_json=as_json):
        over_network = urlsplit(source).scheme in ("http", "https")
        if declare_restored is not None:
            if over_network:
                raise UsageError("A witness is declared restored where the ledger's directory is: give DIR")
            _declare(Path(source), declare_restored, as_json=as_json)
            return
        told = _asked(source) if over_network else _read(Path(source))
        report({"witnesses": told}, _told(told), as_json=as_json)
        if isinstance(told, Mapping) and (not told.get("quorum_met") or told.get("unconfirmed")):
            raise typer.Exit(Status.UNREACHABLE)


def _declare(root: Path, name: str, *, as_json: bool) -> None:
    directory = LedgerDirectory(root)
    directory.require_ledger()
    with closing(SqliteStore(directory.store)) as store:
        ledger = _open(directory, store)
        policy = PolicyInForce(ledger, time.time)()
        witness = next((each for each in policy.witnesses if each.name == name), None) if policy else None
        if witness is None:
            names = ", ".join(each.name for each in policy.witnesses) if policy else "none"
            raise UsageError(f"This ledger asks no witness {name!r}; it asks: {names}", "WITNESS_UNKNOWN")
        # What it has cosigned until now is forgiven, though its clock be ahead of this one.
        now = max(int(time.time()), _latest(store, ledger, witness) or 0)
    DeclaredWitnesses(directory.declared_witnesses).declare(str(witness.key), now)
    report(
        {"witness": name, "key": str(witness.key), "declared_at": now},
        [f"Witness {name} is declared restored: what it cosigned before is not held against it any more."],
        as_json=as_json,
    )


def _open(directory: LedgerDirectory, store: SqliteStore) -> Ledger:
    key = read_public_key(public_path(directory.log_key))
    return Ledger.open(store, key.name.removesuffix(_GOVERNING))


def _read(root: Path) -> dict[str, Any] | str:
    """Return what the store tells, in the form of /readyz."""
    directory = LedgerDirectory(root)
    directory.require_ledger()
    store = SqliteStore(directory.store)
    try:
        ledger = _open(directory, store)
        policy = PolicyInForce(ledger, time.time)()
        if policy is None:
            return NONE_CONFIGURED
        reader = SealedReader(store, policy)
        waiting = []
        for register, head in ledger.heads().items():
            sealed = reader.last_up_to(register, head.size)
            if sealed is None or sealed.size < head.size:
                waiting.append(register)
        return {
            "quorum": policy.quorum.root,
            "quorum_met": not waiting,
            "unsealed_registers": len(waiting),
            "unsealed": sorted(waiting)[:MOST_NAMED],
            "witnesses": [
                {
                    "name": each.name,
                    "key": str(each.key),
                    "cosigned_at": _latest(store, ledger, each),
                }
                for each in policy.witnesses
            ],
        }
    finally:
        store.close()


def _latest(store: SqliteStore, ledger: Ledger, witness: Witness) -> int | None:
    """Return the time, POSIX seconds, of a witness's latest cosignature of a largest size."""
    by = (witness.key.name, witness.key.key_id)
    found = (store.last_cosigned(register, by, head.size) for register, head in ledger.heads().items())
    return max((cosignature_time(one.last.signature) for one in found if one is not None), default=None)


def _asked(url: str) -> dict[str, Any] | str:
    address = f"{url.rstrip('/')}/readyz"
    try:
        # The scheme is http or https: the caller has looked.
        with urllib.request.urlopen(address, timeout=_TIMEOUT) as response:  # noqa: S310
            body = response.read(_LONGEST)
    except HTTPError as error:
        body = error.read(_LONGEST)  # 503 while it is not ready, with the same members
    except (HTTPException, URLError, TimeoutError, ConnectionError) as error:
        raise UnreachableError(f"{address} cannot be read: {getattr(error, 'reason', error)}") from error
    try:
        told = json.loads(body)["witnesses"]
    except (ValueError, KeyError, TypeError) as error:
        raise UnreachableError(f"{address} does not tell of witnesses: {error!r}", "UNREADABLE") from error
    if not isinstance(told, dict | str):
        raise CommandError(Status.UNREACHABLE, "UNREADABLE", f"{address} does not tell of witnesses")
    return told


def _told(told: Mapping[str, Any] | str) -> Iterator[str]:
    if isinstance(told, str):
        yield "No witness is asked: nothing is sealed, and no time is proved."
        return
    if told.get("quorum_met") and told.get("unconfirmed"):
        yield f"Sealed, but may not grow: no quorum of {told.get('quorum')} has confirmed the stored heads yet."
    elif told.get("quorum_met"):
        yield f"Sealed: {told.get('quorum')} holds for the latest checkpoint of every register."
    else:
        names = ", ".join(map(str, told.get("unsealed", ())))
        yield f"NOT sealed: {told.get('quorum')} does not hold for {told.get('unsealed_registers')}: {names}"
    for each in told.get("witnesses", ()):
        cosigned = each.get("cosigned_at")
        when = (
            "has not cosigned in this run of the server"
            if not isinstance(cosigned, int)
            else f"cosigned last at {datetime.fromtimestamp(cosigned, UTC):%Y-%m-%dT%H:%M:%SZ}"
        )
        trouble = f"; {each['trouble']}" if each.get("trouble") else ""
        yield f"  {each.get('name')} {when}{trouble}"
    for register in told.get("unconfirmed", ()):
        yield f"  {register} may not grow: no quorum has confirmed that its stored head is the latest"

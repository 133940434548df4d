"""`daybook init`: a new ledger."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ledger.entries import Signature
from ledger.errors import MalformedError, SignatureError
from ledger.notes import SignerKey
from ledger.values import is_ledger_origin
from services.cli.policy_files import read_policy
from services.cli.reporting import JsonOption, UsageError, expected_failures, report
from services.compose import new_key, open_ledger, prepare_ledger
from services.governing_requests import Request, read_signature
from services.ledger_files import LedgerDirectory, public_path, read_public_key, read_secret_key, write_key_pair
from services.predecessors import Predecessor, predecessor_in, predecessor_of

OPERATOR_DECIDES = (
    "the governance key was made here, so whoever operates this ledger also decides who may write to it; "
    "for others to decide, give their public keys with --governance and --threshold"
)


def run(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="New directory; must not exist or be empty.")
    ],
    origin: Annotated[str, typer.Option(help="The ledger's name for ever, such as ledger.example.gov.uk")] = "",
    operator: Annotated[str, typer.Option(help="Who operates it, in words.")] = "",
    governance: Annotated[
        list[Path] | None, typer.Option(metavar="FILE.pub", help="Public governance key; repeat for several.")
    ] = None,
    threshold: Annotated[
        int | None,
        typer.Option(min=1, help="How many of them must sign each change; needed where there are several."),
    ] = None,
    signature: Annotated[
        list[Path] | None,
        typer.Option(help="Signature over DIR/opening.request by a governance key held elsewhere."),
    ] = None,
    succeeds: Annotated[
        Path | None,
        typer.Option(metavar="OLD", help="The closed ledger that it succeeds: its directory, or saved notes."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The closed ledger's policy file, for saved notes.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new ledger: its keys, its store, its governing register with entry 0.

    Entry 0 must be signed by every governance key. A key whose secret file lies beside its FILE.pub signs at
    once; for keys held elsewhere a request is written to DIR/opening.request, to be signed there with
    `daybook govern sign`, and init is run again with --signature FILE for each.

    A ledger that was restored and cannot catch up is closed for ever; its successor has a new origin and names
    it: entry 0 carries its last checkpoint notes. Examples:

        daybook init ./ledger --origin ledger.example.gov.uk

        daybook init ./ledger --origin ledger.example.gov.uk --governance ico.pub --governance tna.pub
        --threshold 2

        daybook init ./new --origin ledger-2.example.gov.uk --succeeds ./ledger
    """
    with expected_failures(as_json=as_json):
        if signature:
            if succeeds:
                raise UsageError("--succeeds stands in the request already: it goes without --signature")
            _finish(directory, signature, as_json=as_json)
        else:
            old = _predecessor(succeeds, policy) if succeeds else None
            _begin(directory, origin, operator or origin, governance or [], threshold, old, as_json=as_json)


def _predecessor(old: Path, policy: Path | None) -> Predecessor:
    if old.is_dir():
        if policy is not None:
            raise UsageError(f"--policy is for saved notes: {old} has its own key")
        return predecessor_in(old)
    if policy is None:
        raise UsageError(
            f"{old} holds notes: name the policy file that verifiers of that ledger hold with --policy"
        )
    return predecessor_of(old.read_bytes(), read_policy(policy))


def _begin(
    root: Path,
    origin: str,
    operator: str,
    governance: list[Path],
    threshold: int | None,
    old: Predecessor | None,
    *,
    as_json: bool,
) -> None:
    if not is_ledger_origin(origin):
        raise UsageError("--origin must be 1 to 80 of a-z, 0-9, '.' and '-', such as ledger.example.gov.uk")
    if old is not None and old.origin == origin:
        raise UsageError(f"{origin} is closed for ever: its successor needs another origin")
    if root.exists() and any(root.iterdir()):
        if LedgerDirectory(root).waits():
            raise UsageError(LedgerDirectory(root).not_open_yet())
        raise UsageError(f"{root} is not empty: a ledger is never made over something else")
    publics = [read_public_key(path).public for path in governance]
    if len(set(publics)) != len(publics) or len(publics) > 8:
        raise UsageError("1 to 8 governance keys, none twice")
    if threshold is None:
        if len(publics) > 1:
            # One of many is rarely meant, and a ledger that was opened so stays so until they change it.
            raise UsageError(f"Say with --threshold how many of the {len(publics)} governance keys must sign")
        threshold = 1
    if threshold > max(1, len(publics)):
        raise UsageError(f"--threshold {threshold} of {max(1, len(publics))} governance keys can never be met")
    existed = root.exists()
    try:
        own = None if governance else new_key(f"{origin}/governance")
        keys = [own.secret.public] if own else publics
        opening = prepare_ledger(root, origin, operator, keys, threshold, old)
        request = Request(f"{origin}/governing", opening)
        secrets = [own] if own else _secrets_of(governance)
        if own is not None:
            write_key_pair(LedgerDirectory(root).governance_key, own)
        if len(secrets) == max(1, len(governance)):
            open_ledger(root, request, [request.sign(key.secret) for key in secrets])
        else:
            LedgerDirectory(root).opening_request.write_bytes(request.data())
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        if existed:
            root.mkdir()
        raise
    if LedgerDirectory(root).opening_request.exists():
        _say_pending(root, request, old, as_json=as_json)
    else:
        _say_open(root, request, old, own_governance=own is not None, as_json=as_json)


def _secrets_of(governance: list[Path]) -> list[SignerKey]:
    """Return the governance keys whose secret file lies beside its FILE.pub."""
    beside = [path.with_suffix("") for path in governance if path.suffix == ".pub"]
    return [read_secret_key(path) for path in beside if path.exists()]


def _finish(root: Path, signatures: list[Path], *, as_json: bool) -> None:
    pending = LedgerDirectory(root).opening_request
    if not pending.exists():
        raise UsageError(f"{root} waits for no signature: run init without --signature")
    request = Request.parse(pending.read_bytes())
    open_ledger(root, request, [_signature(path, request) for path in signatures])
    pending.unlink()
    _say_open(root, request, None, own_governance=False, as_json=as_json)


def _signature(path: Path, request: Request) -> Signature:
    data = path.read_bytes()
    try:
        return read_signature(data, request)
    except (MalformedError, SignatureError) as error:
        raise UsageError(f"{path}: {error}", "SIGNATURE_INVALID") from error


def _say_pending(root: Path, request: Request, old: Predecessor | None, *, as_json: bool) -> None:
    path = LedgerDirectory(root).opening_request
    report(
        {"open": False, "request": str(path), "submission_id": request.submission_id, **_succeeded(old)},
        [
            *_succession(old),
            f"Not open yet: {path} waits for the signature of every governance key.",
            f"Its submission_id is {request.submission_id}: compare it before signing. Each holder runs",
            f"  daybook govern sign {path.name} --key KEYFILE --out KEYFILE.signature",
            f"and then, here: daybook init {root} --signature FILE --signature FILE …",
        ],
        as_json=as_json,
    )


def _say_open(
    root: Path, request: Request, old: Predecessor | None, *, own_governance: bool, as_json: bool
) -> None:
    origin = request.register_origin.removesuffix("/governing")
    vkey = read_public_key(public_path(LedgerDirectory(root).log_key))
    if own_governance:
        typer.echo(f"daybook: {OPERATOR_DECIDES}", err=True)
    report(
        {
            "open": True,
            "origin": origin,
            "ledger_key": str(vkey),
            "operator_governs": own_governance,
            **_succeeded(old),
        },
        [
            f"Ledger {origin} is open in {root}.",
            *_succession(old),
            f"Its key, which verifiers hold: {vkey}",
            f"Next: daybook govern {root} open-register DEPARTMENT/OFFICE --title …; daybook serve {root}",
        ],
        as_json=as_json,
    )


def _succeeded(old: Predecessor | None) -> dict[str, Any]:
    if old is None:
        return {}
    carried, left_out = (
        [{"register": one.register, "size": one.size} for one in notes] for notes in (old.notes, old.left_out)
    )
    stated = {"origin": old.origin, "notes": carried, "left_out": left_out, "unsigned": list(old.unsigned)}
    return {"succeeds": stated}


def _succession(old: Predecessor | None) -> Iterator[str]:
    if old is None:
        return
    notes = ", ".join(f"{one.register} at size {one.size}" for one in old.notes)
    yield f"Entry 0 names {old.origin}, which it succeeds, and carries its last notes: {notes}."
    if old.left_out:
        left = ", ".join(f"{one.register} at size {one.size}" for one in old.left_out)
        yield f"Left out, since a record holds no more: {left}. The last governing note covers their anchors."
    for register in old.unsigned:
        yield f"{old.origin} kept no checkpoint note of {register}."

"""`daybook witness`: the witness that an independent institution runs."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ledger import base64
from ledger.add_checkpoint import Contradiction
from ledger.checkpoints import Checkpoint
from ledger.ed25519 import SecretKey
from ledger.errors import LedgerError
from ledger.notes import VerifierKey, split_note
from services.cli import plain_typer
from services.cli.policy_files import read_policy
from services.cli.reporting import JsonOption, Status, UsageError, expected_failures, report
from services.witness.accepting import (
    LEDGER,
    accepted_by_list,
    accepted_by_policy,
    accepted_key,
    check_not_own,
)
from services.witness.directory import WitnessDirectory
from services.witness.evidence import EvidenceFolder, Kept
from services.witness.state import Accepted, Cosigned, State

DEFAULT_LISTEN: Final = "127.0.0.1:7081"

app = plain_typer(
    "Run a witness: an independent service that cosigns the checkpoints of the ledgers it is told of.\n\n"
    "A witness signs only what continues all it has signed before, so that no ledger can show two pasts.\n\n"
    "Example:  daybook witness keygen ./witness --name witness.example/w"
)

_Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The witness's directory.")]


@app.command()
def keygen(
    directory: _Directory,
    name: Annotated[
        str,
        typer.Option(help="Name in cosignatures: like a URL without https://, of a domain that you control."),
    ],
    as_json: JsonOption = False,
) -> None:
    """Make a witness: its directory with the secret key, its empty memory, and DIR/key.pub.

    Give the line in DIR/key.pub to the ledger's operator and to whoever verifies receipts. Nothing here is
    ever replaced, and no copy of DIR may be served later: see docs/witnessing.md.

    Example:  daybook witness keygen ./witness --name witness.example/w
    """
    with expected_failures(as_json=as_json):
        place = WitnessDirectory(directory)
        signer = place.write_key(SecretKey(secrets.token_bytes(32)), name)
        State.create(place.state, signer.cosigner).close()
        report(
            {
                "name": signer.name,
                "secret_file": str(place.key),
                "public_file": str(place.public_key),
                "vkey": str(signer.cosigner),
                "key": base64.encode(signer.secret.public),
            },
            [
                f"Secret key: {place.key} (keep it; readable by you only)",
                f"Public key: {place.public_key}",
                str(signer.cosigner),
            ],
            as_json=as_json,
        )


@app.command("add-ledger")
def add_ledger(
    directory: _Directory,
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Witness policy file: accept the ledgers it names.")
    ] = None,
    vkey: Annotated[
        str | None,
        typer.Option(metavar="VKEY", help="A ledger's governing vkey: accept all its registers."),
    ] = None,
    log_list: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Log list (logs/v0): accept each log in it, and no other register."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Accept a ledger, or single logs. Works while the witness is served, and holds from the next request.

    Compare the key with the ledger's operator over another channel first: whose key it is, is all that the
    witness takes on trust. To rotate a key, add the new one and later disable the old one.

    Example:  daybook witness add-ledger ./witness --policy policy
    """
    with expected_failures(as_json=as_json):
        if sum(each is not None for each in (policy, vkey, log_list)) != 1:
            raise UsageError("Give exactly one of --policy FILE, --vkey VKEY and --log-list FILE")
        added = _named(policy, vkey, log_list)
        with _opened(directory) as state:
            own = state.witness
            for each in added:
                check_not_own(each, own)
            with state.transaction():
                for each in added:
                    state.accept(each)
        report(
            {"accepted": [_accepted_json(each) for each in added]},
            [f"Accepted: {_described(each)}" for each in added],
            as_json=as_json,
        )


@app.command("disable-ledger")
def disable_ledger(
    directory: _Directory,
    vkey: Annotated[str, typer.Option(metavar="VKEY", help="The key, as `list` shows it.")],
    as_json: JsonOption = False,
) -> None:
    """Cosign nothing more that this key signs. What was cosigned is not forgotten: that never happens.

    Works while the witness is served, and holds from the next request. `add-ledger` accepts the key again.

    Example:  daybook witness disable-ledger ./witness --vkey "ledger.example/governing+…"
    """
    with expected_failures(as_json=as_json):
        key = str(VerifierKey.parse(vkey))
        with _opened(directory) as state, state.transaction():
            disabled = state.disable(key)
        if not disabled:
            raise UsageError("No ledger is accepted by this key; see: daybook witness list", "KEY_UNKNOWN")
        report({"disabled": key}, [f"Disabled: {key}"], as_json=as_json)


@app.command("list")
def list_(directory: _Directory, as_json: JsonOption = False) -> None:
    """Show the ledgers accepted, the latest checkpoint cosigned for each register, and evidence.

    Exit status 1 where there is proof that a ledger has signed two histories; its files are named. A
    suspicion, which anybody can raise by sending a wrong proof, is shown and does not change the status.

    Example:  daybook witness list ./witness
    """
    with expected_failures(as_json=as_json):
        with _opened(directory) as state:
            state.verify()
            key, accepted, cosigned = state.witness, state.all_accepted(), state.all_cosigned()
        evidence = EvidenceFolder(WitnessDirectory(directory).evidence).all()
        value = {
            "name": key.name,
            "vkey": str(key),
            "accepted": [_accepted_json(each) for each in accepted],
            "origins": [_cosigned_json(each) for each in cosigned],
            "evidence": [{"file": str(each.path), "proof": each.is_proof, **each.members} for each in evidence],
        }
        report(value, _listed(key, accepted, cosigned, evidence), as_json=as_json)
        if any(each.is_proof for each in evidence):
            raise typer.Exit(Status.INTEGRITY_FAILURE)


@app.command()
def serve(
    directory: _Directory,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0 takes any free one.")
    ] = DEFAULT_LISTEN,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM certificate chain.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM private key of the certificate.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve the witness over HTTP (C2SP tlog-witness): POST /add-checkpoint, GET /<origin hash>/checkpoint.

    Prints one line when it answers. Stops gracefully at SIGTERM and Ctrl-C. Without TLS only loopback
    addresses are bound.

    Example:  daybook witness serve ./witness --listen 127.0.0.1:7081
    """
    with expected_failures(as_json=as_json):
        # Loaded here: no other command of a witness needs a server.
        import uvloop

        from services.cli.logs import configure_logs
        from services.witness.serving import Listen
        from services.witness.serving import serve as serve_witness

        host, port = _address(listen, tls_certificate, tls_key)
        configure_logs()

        def ready(name: str, http: str) -> None:
            if as_json:
                typer.echo(json.dumps({"ready": True, "name": name, "http": http}))
            else:
                typer.echo(f"daybook witness ready name={name} http={http}")
            sys.stdout.flush()

        where = Listen(host, port, tls_certificate, tls_key)
        uvloop.run(serve_witness(WitnessDirectory(directory), where, ready))


def _address(listen: str, certificate: Path | None, key: Path | None) -> tuple[str, int]:
    from services.settings import is_loopback, split_address

    try:
        host, port = split_address(listen)
    except ValueError as error:
        raise UsageError(f"--listen: {error}") from error
    if (certificate is None) != (key is None):
        raise UsageError("--tls-certificate and --tls-key go together")
    if certificate is None and not is_loopback(host):
        raise UsageError(
            f"--listen: without TLS only a loopback address may be bound, not {host!r}; give --tls-certificate "
            "and --tls-key, or use 127.0.0.1 behind a server that speaks HTTPS"
        )
    return host, port


@contextmanager
def _opened(directory: Path) -> Iterator[State]:
    place = WitnessDirectory(directory)
    place.require_witness()
    with closing(State(place.state)) as state:
        yield state


def _named(policy: Path | None, vkey: str | None, log_list: Path | None) -> Sequence[Accepted]:
    if policy is not None:
        return accepted_by_policy(read_policy(policy))
    if log_list is not None:
        return accepted_by_list(log_list.read_bytes())
    return (accepted_key(VerifierKey.parse(vkey or "")),)


def _accepted_json(each: Accepted) -> dict[str, Any]:
    value: dict[str, Any] = {
        "rule": each.rule,
        "origin": each.origin,
        "vkey": each.vkey,
        "enabled": each.enabled,
    }
    return value if each.contact is None else {**value, "contact": each.contact}


def _cosigned_json(each: Cosigned) -> dict[str, Any]:
    return {
        "origin": each.checkpoint.origin,
        "size": each.checkpoint.size,
        "root": base64.encode(each.checkpoint.root),
        "time": each.time,
        "note": each.note.decode(),
    }


def _listed(
    key: VerifierKey, accepted: Sequence[Accepted], cosigned: Sequence[Cosigned], evidence: Sequence[Kept]
) -> Iterator[str]:
    yield f"Witness {key.name}"
    yield f"  key {key}"
    yield f"Accepted: {len(accepted) or 'nothing yet; see daybook witness add-ledger --help'}"
    for each in accepted:
        yield f"  {_described(each)}"
    yield f"Cosigned: {len(cosigned)} origins"
    for one in cosigned:
        checkpoint = one.checkpoint
        yield f"  {_shown(checkpoint.origin)}"
        yield f"    size {checkpoint.size}, root {base64.encode(checkpoint.root)}, at {_instant(one.time)}"
    yield f"Evidence: {len(evidence) or 'none'}"
    for kept in evidence:
        yield f"  {kept.path}"
        yield from (f"    {line}" for line in _told(kept))


def _described(each: Accepted) -> str:
    what = f"every register of ledger {each.origin}" if each.rule == LEDGER else f"log {_shown(each.origin)}"
    contact = f" ({_shown(each.contact)})" if each.contact else ""
    return f"{what}, key {_shown(each.vkey)}{contact}{'' if each.enabled else ', DISABLED'}"


def _told(kept: Kept) -> Iterator[str]:
    """Say what a file of evidence shows. Much of it is the accused's own text."""
    try:
        ours, theirs = (_checkpoint(kept.members[side]) for side in ("ours", "theirs"))
        found_at, proved = str(kept.members["found_at"]), kept.members["kind"] == Contradiction.PROVED
    except (KeyError, AttributeError, LedgerError):
        yield "The file is damaged: it may be proof, and cannot be read."
        return
    log = _shown(ours.origin)
    if proved:
        yield f"PROOF that {log} has signed two histories, found at {found_at}:"
    else:
        yield f"Suspicion: {log} signed the second of these; no valid proof joined them; at {_shown(found_at)}:"
    yield f"size {ours.size}, root {base64.encode(ours.root)}: cosigned"
    yield f"size {theirs.size}, root {base64.encode(theirs.root)}: refused"


def _checkpoint(note: str) -> Checkpoint:
    text, _ = split_note(note.encode())
    return Checkpoint.parse(text)


def _instant(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _shown(text: str) -> str:
    """Return text of others so that a terminal only prints it."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)

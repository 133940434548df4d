"""`daybook keygen`: an Ed25519 key pair in two small files."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from typing import Annotated

import typer

from ledger import base64
from ledger.ed25519 import SecretKey
from ledger.notes import SignerKey
from services.cli.reporting import JsonOption, UsageError, expected_failures, report
from services.ledger_files import public_path, write_key_pair


def run(
    file: Annotated[Path, typer.Argument(help="Where the secret key goes; FILE.pub gets the public key.")],
    name: Annotated[
        str | None,
        typer.Option(help="Name that stands in the key files. Default: the file's name @ this computer's."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make an Ed25519 key pair: FILE (secret, readable by you only) and FILE.pub (one vkey line).

    Keep FILE: whoever has it can sign as you. Give FILE.pub to whoever governs the ledger, who authorises it.

    Example:  daybook keygen keys/department --name department-of-health
    """
    with expected_failures(as_json=as_json):
        chosen = name or f"{file.name}@{socket.gethostname()}"
        signer = SignerKey(chosen, SecretKey(secrets.token_bytes(32)))
        for path in (file, public_path(file)):
            if path.exists():
                raise UsageError(
                    f"{path} exists and is not overwritten: choose another name for the new key", "FILE_EXISTS"
                )
        file.parent.mkdir(parents=True, exist_ok=True)
        write_key_pair(file, signer)
        public = public_path(file)
        report(
            {
                "secret_file": str(file),
                "public_file": str(public),
                "vkey": str(signer.verifier),
                "key": base64.encode(signer.secret.public),
            },
            [
                f"Secret key: {file} (keep it; readable by you only)",
                f"Public key: {public}",
                str(signer.verifier),
            ],
            as_json=as_json,
        )

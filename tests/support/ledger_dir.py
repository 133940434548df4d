"""A ledger's directory on disk, as `daybook init` and `daybook govern` leave it, made in one go.

Everything goes through `services.compose`, as the commands do. Log and acknowledgement keys are random, as
ever; the governance and department keys are those of `tests.support.ledgers`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from ledger import base64
from ledger.ed25519 import SecretKey
from ledger.entries import ANONYMOUS
from ledger.governing import GOVERNING
from ledger.notes import VerifierKey
from ledger.witnessing import Policy
from services.client.signing import SignedSubmission, sign_submission
from services.compose import Embedded, embedded, open_ledger, prepare_ledger
from services.governing_requests import Request
from services.ledger_files import LedgerDirectory, public_path, read_public_key
from services.registrar import Registrar
from tests.support.ledgers import (
    DEPARTMENT,
    DEPARTMENT_KEY,
    GOVERNANCE_KEY,
    ORIGIN,
    REGISTER,
    governing_record,
)

_numbers: Final = count()


@dataclass(frozen=True, slots=True)
class LedgerOnDisk:
    """A ledger's directory and what a verifier of it holds."""

    directory: LedgerDirectory
    policy: Policy
    acknowledgement_key: VerifierKey

    @property
    def root(self) -> Path:
        """The directory."""
        return self.directory.root


def governing(
    record_type: str, *also: SecretKey, by: Sequence[SecretKey] = (GOVERNANCE_KEY,), **members: Any
) -> SignedSubmission:
    """Return a governing record with a record_id of its own, signed by `by` and `also`."""
    record = governing_record(next(_numbers), record_type, **members)
    return sign_submission([record], f"{ORIGIN}/{GOVERNING}", [*by, *also])


def opening(name: str, title: str = "The Secretary of State") -> SignedSubmission:
    """Return the request to open a register."""
    return governing("register.opened/1", name=name, title=title)


def authorising(key: SecretKey, department: str = DEPARTMENT) -> SignedSubmission:
    """Return the request to authorise a key."""
    text = base64.encode(key.public)
    return governing("key.authorised/1", key, department=department, key=text, label="EDRMS")


def revoking(key: SecretKey, department: str = DEPARTMENT) -> SignedSubmission:
    """Return the request to revoke a key."""
    return governing("key.revoked/1", department=department, key=base64.encode(key.public), reason="lost")


async def register_all(opened: Embedded, submissions: Iterable[SignedSubmission]) -> None:
    """Register submissions, in order, in a ledger whose sequencer runs or will run."""
    registrar = Registrar(opened.ledger, opened.sequencer)
    for one in submissions:
        await registrar.register(one.body, one.records, one.signatures, ANONYMOUS)


def make_ledger(
    root: Path,
    registers: Iterable[str] = (REGISTER,),
    keys: Mapping[str, Sequence[SecretKey]] | None = None,
    governance: Sequence[SecretKey] = (GOVERNANCE_KEY,),
    threshold: int = 1,
) -> LedgerOnDisk:
    """Make a ledger at `root` with open registers and with keys of departments, by department."""
    record = prepare_ledger(root, ORIGIN, "The test operator", [key.public for key in governance], threshold)
    request = Request(f"{ORIGIN}/{GOVERNING}", record)
    open_ledger(root, request, [request.sign(key) for key in governance])
    directory = LedgerDirectory(root)
    held = {DEPARTMENT: (DEPARTMENT_KEY,)} if keys is None else keys
    requests = [
        *(governing("register.opened/1", by=governance, name=name, title="An office") for name in registers),
        *(
            governing(
                "key.authorised/1",
                key,
                by=governance,
                department=department,
                key=base64.encode(key.public),
                label="EDRMS",
            )
            for department, department_keys in held.items()
            for key in department_keys
        ),
    ]
    with embedded(directory) as opened:
        asyncio.run(_register_and_drain(opened, requests))
    log = read_public_key(public_path(directory.log_key))
    return LedgerOnDisk(
        directory,
        Policy.parse(f"log {log}\nquorum none\n".encode()),
        read_public_key(public_path(directory.acknowledgement_key)),
    )


async def _register_and_drain(opened: Embedded, submissions: Iterable[SignedSubmission]) -> None:
    running = asyncio.create_task(opened.sequencer.run())
    try:
        await register_all(opened, submissions)
    finally:
        opened.sequencer.drain()
        await running

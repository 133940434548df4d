"""Puts the embedded mode together: the only place that chooses what stands behind each seam."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from ledger import base64, canonical
from ledger.ed25519 import SecretKey
from ledger.entries import ANONYMOUS, Signature
from ledger.governing import GOVERNING
from ledger.ledger import Ledger
from ledger.notes import SignerKey
from ledger.stores.sqlite import SqliteStore
from ledger.witnessing import Policy
from services.cosigning import unsealed
from services.declared_witnesses import DeclaredWitnesses
from services.governing_requests import Request
from services.ledger_files import (
    DirectoryError,
    LedgerDirectory,
    WriterLock,
    read_secret_key,
    require_keys,
    write_key_pair,
)
from services.predecessors import Predecessor
from services.published import Published
from services.registrar import Registrar
from services.restoring import PendingRestore, forget_pending, pending_restore
from services.settings import witness_settings
from services.signing import CheckpointSigner
from services.submissions import Accepted, Sequencer
from services.witness_policy import PolicyInForce
from services.witnessing import (
    SETTLE_SECONDS,
    Silent,
    cosigning,
    require_quorum,
    until_all_sealed,
    until_confirmed,
    until_handed_over,
)

_GOVERNING: Final = "/governing"


@dataclass(frozen=True, slots=True)
class Embedded:
    """One ledger, open for writing in this process."""

    directory: LedgerDirectory
    ledger: Ledger
    published: Published
    sequencer: Sequencer
    policies: PolicyInForce
    declared: DeclaredWitnesses
    pending: PendingRestore

    async def declare_restores(self) -> None:
        """Write into the governing register what an import has recovered, once witnesses have confirmed it."""
        if not self.pending.restored:
            return
        await self.sequencer.until_confirmed(self.pending.restored)
        for record in self.pending.records(self.ledger.origin):
            await self.sequencer.write(GOVERNING, record)
        forget_pending(self.directory)


@contextmanager
def embedded(directory: LedgerDirectory, *, trust_store: bool = False) -> Iterator[Embedded]:
    """Open a ledger's directory as its one writer, with its right edges verified and its heads signed.

    `trust_store` signs what the store holds although the signer has no mark for it.

    Raises DirectoryError where there is no ledger, another process has it, or its marks are gone; StoreError
    where the store does not agree with itself; SplitViewError where the signer has signed what the store
    does not hold.
    """
    directory.require_ledger()
    with WriterLock(directory):
        require_keys(directory)
        pending = pending_restore(directory)
        log = read_secret_key(directory.log_key)
        acknowledger = read_secret_key(directory.acknowledgement_key)
        store = SqliteStore(directory.store)
        try:
            ledger = Ledger.open(store, log.name.removesuffix(_GOVERNING))
            opened = ledger.fold.opened
            if opened is not None and opened.ledger_key != str(log.verifier):
                raise DirectoryError(f"{directory.log_key} is not the key that this ledger was opened with")
            signer = CheckpointSigner.open(log.secret, directory.marks)
            try:
                if not trust_store:
                    _refuse_forgetting(directory, ledger, signer)
                policies = PolicyInForce(ledger, time.time)
                published = Published(store, policies)
                sequencer = Sequencer(ledger, published, signer, acknowledger, time.time)
                sequencer.sign_heads()
                declared = DeclaredWitnesses(directory.declared_witnesses)
                yield Embedded(directory, ledger, published, sequencer, policies, declared, pending)
            finally:
                signer.close()
        finally:
            store.close()


def _refuse_forgetting(directory: LedgerDirectory, ledger: Ledger, signer: CheckpointSigner) -> None:
    """Refuse a store with entries of which the signer knows nothing: it would sign an older copy as well."""
    for register, head in ledger.heads().items():
        origin = ledger.register_origin(register)
        if head.size and not signer.has_signed_for(origin):
            raise DirectoryError(
                f"{directory.marks} knows nothing of {origin}, though the store holds {head.size} entries of "
                "it: without marks an older copy of the store would be signed over. Put the file back; or, "
                "if this is surely the latest store, start once with: daybook serve --trust-store"
            )


@dataclass(frozen=True, slots=True)
class RegisteredHere:
    """What one submission came to in a ledger that nobody serves.

    `unsealed` are the registers whose latest checkpoint no quorum of witnesses has cosigned in time; None where
    no witness is asked.
    """

    accepted: Accepted
    unsealed: tuple[str, ...] | None


async def register_once(
    opened: Embedded, body: bytes, records: Sequence[bytes], signatures: Sequence[Signature]
) -> RegisteredHere:
    """Register one submission in a ledger that nobody serves, and leave it drained.

    Where the ledger has witnesses they are asked first whether this is its latest state, and afterwards to
    seal the new one. Raises WitnessesAwayError, SplitViewError, and as registration does.
    """
    ledger, published, sequencer = opened.ledger, opened.published, opened.sequencer
    settings = witness_settings()
    async with cosigning(
        ledger, published, sequencer, settings, Silent(), time.time, opened.declared, opened.policies.history
    ) as cosigner:
        following = asyncio.create_task(cosigner.run())
        running = asyncio.create_task(sequencer.run())
        try:
            await until_confirmed(sequencer, published, following)
            await opened.declare_restores()
            accepted = await Registrar(ledger, sequencer).register(body, records, signatures, ANONYMOUS)
            assert isinstance(accepted, Accepted)  # noqa: S101 - this sequencer sequences what it accepts
            await until_all_sealed(published, SETTLE_SECONDS)
            await until_handed_over(cosigner, SETTLE_SECONDS)
            waiting = None if published.policy is None else tuple(sorted(unsealed(published)))
            return RegisteredHere(accepted, waiting)
        finally:
            sequencer.drain()
            await running
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following


def register_locally(
    root: Path, body: bytes, records: Sequence[bytes], signatures: Sequence[Signature]
) -> RegisteredHere:
    """Open a directory, register one submission, close it. Raises as `embedded` and registration do."""
    with embedded(LedgerDirectory(root)) as open_ledger:
        return asyncio.run(register_once(open_ledger, body, records, signatures))


def require_answers(policy: Policy, note: bytes) -> None:
    """Ask the witnesses of a policy that is to be published whether they answer, about a governing note.

    A policy whose quorum does not answer would seal nothing. Raises WitnessesAwayError.
    """
    asyncio.run(require_quorum(policy, note, witness_settings(), int(time.time())))


def governing_note(root: Path) -> bytes:
    """Return the latest note of the governing register that a directory keeps. Raises DirectoryError."""
    directory = LedgerDirectory(root)
    directory.require_ledger()
    store = SqliteStore(directory.store)
    try:
        note = store.note(GOVERNING, store.heads()[GOVERNING].size)
    finally:
        store.close()
    if note is None:
        raise DirectoryError(f"{root} keeps no checkpoint yet: serve it once")
    return note.note


def new_key(name: str) -> SignerKey:
    """Draw a key from the system's random source."""
    return SignerKey(name, SecretKey(secrets.token_bytes(32)))


def prepare_ledger(
    root: Path,
    origin: str,
    operator: str,
    governance: Sequence[bytes],
    threshold: int,
    predecessor: Predecessor | None = None,
) -> bytes:
    """Make a ledger's directory with its own keys, and return the record that will open it.

    `governance` has the public governance keys; `predecessor` is the ledger that this one succeeds, if any.
    The directory must not exist, or be empty. Nothing but keys is in it until `open_ledger`.
    """
    directory = LedgerDirectory(root)
    directory.log_key.parent.mkdir(parents=True, mode=0o700)
    log, acknowledger = new_key(f"{origin}/governing"), new_key(f"{origin}/acknowledgements")
    write_key_pair(directory.log_key, log)
    write_key_pair(directory.acknowledgement_key, acknowledger)
    return canonical.format(
        {
            "acknowledgement_key": str(acknowledger.verifier),
            "governance": {"keys": sorted(map(base64.encode, governance)), "threshold": threshold},
            "ledger_key": str(log.verifier),
            "operator": operator,
            "origin": origin,
            **({"predecessor": predecessor.member()} if predecessor else {}),
            "record_id": str(uuid4()),
            "register": "governing",
            "type": "ledger.opened/1",
            "version": 1,
        }
    )


def open_ledger(root: Path, opening: Request, signatures: Sequence[Signature]) -> Accepted:
    """Write entry 0, signed. Raises RejectedError GOVERNANCE_REFUSED while a listed key has not signed."""
    directory = LedgerDirectory(root)
    fresh = not directory.store.exists()
    try:
        SqliteStore(directory.store).close()
        return register_locally(root, opening.body, [opening.record], signatures).accepted
    except BaseException:
        if fresh:
            for path in root.glob("daybook.sqlite3*"):
                path.unlink()
            directory.marks.unlink(missing_ok=True)
        raise

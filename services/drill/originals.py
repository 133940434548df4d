"""A ledger's directory, copied whole and never touched: what every lie begins with."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ledger.checkpoints import Checkpoint, sign_checkpoint
from ledger.entries import messages_of
from ledger.governing import GOVERNING
from ledger.hashing import Hash
from ledger.ledger import Ledger
from ledger.notes import SignerKey
from ledger.reader import RegisterReader
from ledger.sealing import SealedReader
from ledger.stores.sqlite import SqliteStore
from ledger.witnessing import Log, Policy, Quorum
from services.ledger_files import DirectoryError, LedgerDirectory, read_secret_key, require_keys
from services.witness_policy import PolicyInForce


@dataclass(frozen=True, slots=True)
class Original:
    """A copy of a ledger, open for reading, with the keys that its operator holds.

    `notes` has, of each register, the checkpoint that it serves, sealed where the ledger has witnesses; sizes
    beyond it do not exist here. `log` signs checkpoints; `governance` decides who may write, None where that
    key is elsewhere. `sealed` finds what witnesses have cosigned, None where the ledger has none.
    """

    directory: LedgerDirectory
    ledger: Ledger
    log: SignerKey
    governance: SignerKey | None
    sealed: SealedReader | None
    notes: dict[str, bytes]

    def size(self, register: str) -> int:
        """Return how many entries of a register are served."""
        return int(self.notes[register].split(b"\n", 2)[1])

    def messages(self, register: str) -> Iterator[list[bytes]]:
        """Yield the entries of each message of a register, in order."""
        yield from messages_of(self.reader(register).entries(0, self.size(register)))

    def reader(self, register: str) -> RegisterReader:
        """Return a reader of a register."""
        return self.ledger.reader(register)

    def best_note(self, register: str, size: int, root: Hash) -> bytes:
        """Return the best checkpoint that an operator has of a state: sealed, where that state was real."""
        if size <= self.size(register) and root == self.reader(register).root(size):
            if size == self.size(register):
                return self.notes[register]
            found = self.sealed.last_up_to(register, size) if self.sealed else None
            if found is not None and found.size == size:
                return found.note
        return self.sign(register, size, root)

    def sign(self, register: str, size: int, root: Hash) -> bytes:
        """Sign a checkpoint of a register, whatever it states."""
        origin = self.ledger.register_origin(register)
        return sign_checkpoint(Checkpoint(origin, size, root), SignerKey(origin, self.log.secret))


def copy_directory(source: Path, target: Path) -> LedgerDirectory:
    """Copy a ledger's directory that nobody writes to; nothing in it is changed.

    Raises DirectoryError where there is no ledger, its keys are elsewhere or it is being served; OSError.
    """
    directory = LedgerDirectory(source)
    directory.require_ledger()
    require_keys(directory)
    with _unwritten(directory):
        shutil.copytree(source, target)
    return LedgerDirectory(target)


@contextmanager
def _unwritten(directory: LedgerDirectory) -> Iterator[None]:
    """Hold the writer's lock without writing to it, where there is one."""
    if not directory.lock.exists():
        yield
        return
    descriptor = os.open(directory.lock, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DirectoryError(f"{directory.root} is in use: stop what serves it first") from None
        yield
    finally:
        os.close(descriptor)


def ledger_policy(ledger: Ledger, log: SignerKey) -> Policy:
    """Return the policy that a ledger states of itself: its key, and the witnesses that it has published."""
    alone = Policy((Log(log.verifier),), (), Quorum((), (), None))
    return PolicyInForce(ledger, time.time)() or alone


@contextmanager
def open_original(directory: LedgerDirectory) -> Iterator[Original]:
    """Open a copy. Raises StoreError, DirectoryError."""
    log = read_secret_key(directory.log_key)
    governance = read_secret_key(directory.governance_key) if directory.governance_key.exists() else None
    store = SqliteStore(directory.store)
    try:
        ledger = Ledger.open(store, log.name.removesuffix(f"/{GOVERNING}"))
        policy = PolicyInForce(ledger, time.time)()
        sealed = SealedReader(store, policy) if policy is not None else None
        original = Original(directory, ledger, log, governance, sealed, {})
        for register, head in ledger.heads().items():
            original.notes[register] = original.sign(register, head.size, head.root)
            found = sealed.last_up_to(register, head.size) if sealed else None
            if found is not None:
                original.notes[register] = found.note
        yield original
    finally:
        store.close()

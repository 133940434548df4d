"""A witness's directory: its key, its state, its evidence, and the lock that makes its one server one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger.ed25519 import SecretKey
from ledger.errors import LedgerError, MalformedError
from ledger.notes import SignerKey

MAX_NAME: Final = 255
"""Bytes of the longest name of a witness: what the other kind of cosignature has room for."""

_PRIVATE: Final = 0o600


class WitnessDirectoryError(LedgerError):
    """The directory cannot be used as asked; the message says what to do."""


@dataclass(frozen=True, slots=True)
class WitnessDirectory:
    """Paths below one directory. Nothing is opened or made by naming them."""

    root: Path

    @property
    def key(self) -> Path:
        """The secret key, mode 0600."""
        return self.root / "key"

    @property
    def public_key(self) -> Path:
        """The vkey line (type 0x04) that ledgers and verifiers put into their policies."""
        return self.root / "key.pub"

    @property
    def state(self) -> Path:
        """The SQLite file of what was cosigned, and of the ledgers that are accepted."""
        return self.root / "witness.sqlite3"

    @property
    def evidence(self) -> Path:
        """The folder of evidence against ledgers."""
        return self.root / "evidence"

    @property
    def lock(self) -> Path:
        """The file that the one server holds locked."""
        return self.root / "lock"

    def require_witness(self) -> None:
        """Raise WitnessDirectoryError where there is no witness."""
        if not self.key.exists():
            raise WitnessDirectoryError(
                f"{self.root} holds no witness; make one with: daybook witness keygen {self.root} --name NAME"
            )

    def signer(self) -> SignerKey:
        """Read the secret key. Raises WitnessDirectoryError where there is none, or OSError."""
        self.require_witness()
        try:
            return SignerKey.parse(self.key.read_text(encoding="utf-8").strip())
        except (MalformedError, UnicodeDecodeError) as error:
            raise WitnessDirectoryError(f"{self.key} holds no secret key: {error}") from error

    def write_key(self, secret: SecretKey, name: str) -> SignerKey:
        """Make the directory's key files, and return the key.

        Raises WitnessDirectoryError where a key is there already or the name cannot be one.
        """
        try:
            signer = SignerKey(name, secret)
            vkey = str(signer.cosigner)
        except MalformedError as error:
            raise WitnessDirectoryError(f"a witness cannot be named {name!r}: {error}") from error
        if len(name.encode()) > MAX_NAME:
            raise WitnessDirectoryError(f"the name of a witness has at most {MAX_NAME} bytes")
        for path in (self.key, self.public_key, self.state):
            if path.exists():
                raise WitnessDirectoryError(
                    f"{path} exists: a witness's key and state are never replaced. Choose another directory"
                )
        self.root.mkdir(parents=True, exist_ok=True)
        _write_new(self.key, f"{signer.text()}\n", _PRIVATE)
        _write_new(self.public_key, f"{vkey}\n", 0o644)
        make_durable(self.root)
        return signer

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one server of the directory; the system drops the lock when the process dies.

        Raises WitnessDirectoryError while another process holds it.
        """
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
                raise WitnessDirectoryError(
                    f"{self.root} is served by process {holder}: a witness has one server"
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)


def make_durable(folder: Path) -> None:
    """Make a folder's list of files durable against a power cut. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_new(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())

"""A ledger's directory: what lies where, who may read it, and the lock that makes its one writer one."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ledger.errors import LedgerError, MalformedError
from ledger.notes import SignerKey, VerifierKey

PRIVATE: Final = 0o600


class DirectoryError(LedgerError):
    """The directory cannot be used as asked; the message says what to do."""


@dataclass(frozen=True, slots=True)
class LedgerDirectory:
    """Paths below one directory. Nothing is opened or made by naming them."""

    root: Path

    @property
    def store(self) -> Path:
        """The SQLite store."""
        return self.root / "daybook.sqlite3"

    @property
    def marks(self) -> Path:
        """The signer's high-water marks."""
        return self.root / "signer.marks"

    @property
    def lock(self) -> Path:
        """The file that the one writer holds locked."""
        return self.root / "lock"

    @property
    def log_key(self) -> Path:
        """The secret log key; its .pub is the governing register's vkey."""
        return self.root / "keys" / "log"

    @property
    def acknowledgement_key(self) -> Path:
        """The secret key that signs acknowledgements."""
        return self.root / "keys" / "acknowledgements"

    @property
    def governance_key(self) -> Path:
        """The secret governance key, where `init` made one itself."""
        return self.root / "keys" / "governance"

    @property
    def opening_request(self) -> Path:
        """The request to open the ledger, while governance keys elsewhere have still to sign it."""
        return self.root / "opening.request"

    @property
    def detections(self) -> Path:
        """What the detections remember; it can be deleted, and is made again."""
        return self.root / "detections.sqlite3"

    @property
    def pending_restore(self) -> Path:
        """What an import has recovered, until it is declared in the governing register."""
        return self.root / "restore.pending"

    @property
    def scratch(self) -> Path:
        """The store that an import rebuilds to check an export, while it runs."""
        return self.root / "import.sqlite3"

    @property
    def is_copy(self) -> bool:
        """Whether the secret log key is not here: what is here is for reading and checking."""
        return not self.log_key.exists()

    @property
    def declared_witnesses(self) -> Path:
        """The witnesses that the operator has declared restored."""
        return self.root / "restored-witnesses.json"

    def waits(self) -> bool:
        """Tell whether `init` has prepared the ledger, and signatures are missing to open it."""
        return self.opening_request.exists() and not self.store.exists()

    def not_open_yet(self) -> str:
        """Return what to do for a ledger that waits."""
        return (
            f"{self.root} is not open yet: every governance key signs {self.opening_request} with "
            f"`daybook govern sign`, then: daybook init {self.root} --signature FILE --signature FILE …"
        )

    def require_ledger(self) -> None:
        """Raise DirectoryError where there is no ledger, or none yet."""
        if self.waits():
            raise DirectoryError(self.not_open_yet())
        if not self.store.exists():
            raise DirectoryError(f"{self.root} holds no ledger; make one with: daybook init")


def require_keys(directory: LedgerDirectory) -> None:
    """Raise DirectoryError for a copy, as an import leaves it, of a ledger whose keys are elsewhere."""
    if directory.is_copy:
        raise DirectoryError(
            f"{directory.root} is a copy for reading, without {directory.log_key}: only whoever has the "
            "ledger's keys can serve it"
        )


def write_durably(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 so that after any crash it is there whole, or as it was. Raises OSError."""
    new = path.with_name(f"{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    move_durably(new, path)


def move_durably(old: Path, new: Path) -> None:
    """Rename a file within its folder, and make that durable. Raises OSError."""
    old.replace(new)
    folder = os.open(new.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def public_path(secret: Path) -> Path:
    """Return FILE.pub for a key's FILE."""
    return Path(f"{secret}.pub")


def write_key_pair(secret: Path, key: SignerKey) -> None:
    """Write a key pair: the secret with mode 0600, its vkey line beside it. Raises FileExistsError."""
    descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{key.text()}\n")
        file.flush()
        os.fsync(file.fileno())
    with public_path(secret).open("x", encoding="utf-8") as file:
        file.write(f"{key.verifier}\n")


def read_secret_key(path: Path) -> SignerKey:
    """Read a secret key file. Raises OSError, or DirectoryError where it holds no key."""
    try:
        return SignerKey.parse(path.read_text(encoding="utf-8").strip())
    except (MalformedError, UnicodeDecodeError) as error:
        raise DirectoryError(f"{path} holds no secret key: {error}") from error


def read_public_key(path: Path) -> VerifierKey:
    """Read a vkey file. Raises OSError, or DirectoryError where it holds no vkey."""
    try:
        text = path.read_text(encoding="utf-8").strip()
        if text.startswith("PRIVATE+KEY+"):
            raise DirectoryError(f"{path} is a secret key: give its public half, {public_path(path)}")
        return VerifierKey.parse(text)
    except (MalformedError, UnicodeDecodeError) as error:
        raise DirectoryError(f"{path} holds no public key: {error}") from error


class WriterLock:
    """Held by the one process that may write a directory. The system drops it when the process dies."""

    def __init__(self, directory: LedgerDirectory) -> None:
        self._directory = directory
        self._file = -1

    def __enter__(self) -> Self:
        """Take the lock. Raises DirectoryError when another process holds it."""
        self._file = os.open(self._directory.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._file, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._file)
            raise DirectoryError(
                f"{self._directory.root} is in use by process {holder}: a ledger has one writer. "
                "Stop it first, or ask it with --server"
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop the lock."""
        os.close(self._file)

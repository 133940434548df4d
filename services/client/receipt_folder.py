"""A department's collection of receipts: one file for each record version, a folder for each register.

A file is there whole or not at all, and is durable once `keep` returns (formats.md, section 13).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger.receipt_file import file_name

_SECRET_FREE: Final = 0o644


@dataclass(frozen=True, slots=True)
class ReceiptFolder:
    """The receipts of one register, in `root`/<department>/<office>."""

    root: Path
    register: str

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.root.joinpath(*self.register.split("/"))

    def path(self, record_id: str, version: int) -> Path:
        """Return where the receipt of a record version is kept. Raises MalformedError for no uuid."""
        return self.folder / file_name(record_id, version)

    def read(self, record_id: str, version: int) -> bytes | None:
        """Return the receipt of a record version, None where there is none. Raises OSError."""
        try:
            return self.path(record_id, version).read_bytes()
        except FileNotFoundError:
            return None

    def keep(self, receipts: Iterable[tuple[str, int, bytes]]) -> None:
        """Write receipts, each (record_id, version, file bytes): durable on return, or OSError."""
        self._write((self.path(record_id, version), data) for record_id, version, data in receipts)

    def keep_acknowledgement(self, submission_id: str, note: bytes) -> Path:
        """Write the acknowledgement note of a submission that has no receipts yet; return its path."""
        path = self.folder / f"{submission_id}.acknowledgement"
        self._write([(path, note)])
        return path

    def _write(self, files: Iterable[tuple[Path, bytes]]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        written = [(path, _write_aside(path, data)) for path, data in files]
        for path, aside in written:
            aside.replace(path)
        # The names are durable only when their folder is.
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_aside(path: Path, data: bytes) -> Path:
    """Write a file beside `path`, durable, under a name that no reader of receipts looks for."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _SECRET_FREE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return aside

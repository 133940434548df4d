"""Writing a bag (BagIt 1.0, RFC 8493): a folder, or one ZIP file, whose manifests vouch for every byte.

A file is written as it comes and only its digests are kept. The bag is made beside its name and gets it at the
end: under that name there is a whole bag or nothing. The same files in the same order make the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

DECLARATION: Final = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
"""The bytes of `bagit.txt`."""

ALGORITHMS: Final = ("sha256", "sha512")
"""The digests of which a bag has manifests, by the names that BagIt and hashlib share."""

PAYLOAD: Final = "data/"
"""What the path of every payload file begins with; all others are tag files."""

INFO: Final = "bag-info.txt"

SIGNATURE: Final = "signature.note"
"""The one tag file that no manifest lists: it signs them."""

PACKED_BY: Final = "Packed-By-Key"
"""The line of bag-info with the packer's vkey, where the pack is signed."""

ZIP_MADE_BY: Final = 3 << 8 | 20
"""Who made an entry of a ZIP file: Unix, by version 2.0 of the format."""

ZIP_ATTRIBUTES: Final = 0o100644 << 16
"""What an entry of a ZIP file is: an ordinary file that all may read."""

_ZIP_DATE: Final = (1980, 1, 1, 0, 0, 0)


class ExistsError(Exception):
    """Something is there already under the name of the pack; the message names it."""


class Target(Protocol):
    """Where the files of a bag go."""

    def write(self, path: str, data: bytes) -> None:
        """Write one file. `path` is relative, with slashes."""


class Bag:
    """A bag that is being written: payload first, then `finish`."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._digests: dict[str, dict[str, str]] = {}
        self._bytes = 0

    def add(self, path: str, data: bytes) -> str:
        """Write a payload file, `path` below ``data/``, or a tag file; return its SHA-256 in hex."""
        if path in self._digests:
            raise ValueError(f"{path} is in the bag already")
        self._target.write(path, data)
        self._digests[path] = {name: hashlib.new(name, data).hexdigest() for name in ALGORITHMS}
        if path.startswith(PAYLOAD):
            self._bytes += len(data)
        return self._digests[path]["sha256"]

    def sha256(self, path: str) -> str:
        """Return the digest of a file that was written."""
        return self._digests[path]["sha256"]

    @property
    def files(self) -> int:
        """How many files were written, without the tag manifests."""
        return len(self._digests)

    def finish(self, info: Mapping[str, str]) -> dict[str, bytes]:
        """Write declaration, bag-info and all manifests; return the tag manifests by path.

        `info` are the lines of bag-info, one line each; Payload-Oxum comes of itself.
        """
        payload = [path for path in self._digests if path.startswith(PAYLOAD)]
        self.add("bagit.txt", DECLARATION)
        self.add(INFO, info_lines({**info, "Payload-Oxum": f"{self._bytes}.{len(payload)}"}))
        for name in ALGORITHMS:
            self.add(f"manifest-{name}.txt", self._manifest(name, payload))
        tags = [path for path in self._digests if not path.startswith(PAYLOAD)]
        made = {f"tagmanifest-{name}.txt": self._manifest(name, tags) for name in ALGORITHMS}
        for path, data in made.items():
            self._target.write(path, data)
        return made

    def _manifest(self, algorithm: str, paths: Iterable[str]) -> bytes:
        return "".join(f"{self._digests[path][algorithm]}  {path}\n" for path in sorted(paths)).encode()


def info_lines(info: Mapping[str, str]) -> bytes:
    """Return bag-info: a label, a colon, a space, and a value of one line. Raises ValueError for another."""
    if any(not value or not value.isprintable() for value in info.values()):
        raise ValueError("bag-info: a value is empty, or not one line")
    return "".join(f"{label}: {value}\n" for label, value in info.items()).encode()


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: set[Path] = set()

    def write(self, path: str, data: bytes) -> None:
        where = self._root / path
        if where.parent not in self._folders:
            where.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(where.parent)
        where.write_bytes(data)

    def sync(self) -> None:
        for folder, _, files in os.walk(self._root):
            for name in files:
                _sync(Path(folder) / name)
            _sync(Path(folder))


class ZipTarget:
    """Writes into a ZIP file, below the folder `base`, so that the same files make the same bytes."""

    def __init__(self, file: zipfile.ZipFile, base: str) -> None:
        self._file = file
        self._base = base

    def write(self, path: str, data: bytes) -> None:
        """Write one file."""
        # Stored as they are: what a compressor makes of them differs from one version to the next.
        entry = zipfile.ZipInfo(f"{self._base}/{path}", _ZIP_DATE)
        entry.create_system, entry.create_version = ZIP_MADE_BY >> 8, ZIP_MADE_BY & 0xFF
        entry.external_attr = ZIP_ATTRIBUTES
        self._file.writestr(entry, data, zipfile.ZIP_STORED)


@contextmanager
def writing(out: Path, base: str) -> Iterator[Target]:
    """Make a bag at `out`: a ZIP file where the name ends in ``.zip``, else a folder.

    `base` names the folder inside the ZIP. At the end of the block everything is durable and has its name;
    after an exception nothing is left. Raises ExistsError where something is there already; OSError.
    """
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise ExistsError(f"{out} is there already: a pack is never overwritten")
    making = _making_zip(out, base) if out.suffix == ".zip" else _making_folder(out)
    with making as target:
        yield target


@contextmanager
def _making_folder(out: Path) -> Iterator[Target]:
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.absolute().parent))
    try:
        aside.chmod(0o755)
        folder = _Folder(aside)
        yield folder
        folder.sync()
        try:
            aside.rename(out)
        except OSError as error:
            if not out.exists():
                raise
            raise ExistsError(f"{out} is there already: a pack is never overwritten") from error
        _sync(out.absolute().parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


@contextmanager
def _making_zip(out: Path, base: str) -> Iterator[Target]:
    if out.exists():
        raise ExistsError(f"{out} is a folder")
    descriptor, name = tempfile.mkstemp(prefix=f".{out.name}.", suffix=".part", dir=out.absolute().parent)
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            aside.chmod(0o644)
            with zipfile.ZipFile(file, "w", allowZip64=False) as archive:
                yield ZipTarget(archive, base)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, out)  # unlike a rename, never over another file
        except FileExistsError as error:
            raise ExistsError(f"{out} is there already: a pack is never overwritten") from error
        _sync(out.absolute().parent)
    finally:
        aside.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

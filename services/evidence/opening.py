"""Opening a pack that a stranger made: a folder or a ZIP file, of which nothing is believed.

Names must be plain relative paths, files plain files; nothing is unpacked onto the disk, and nothing grows
beyond what it says. What is wrong with a file is told with its name.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from ledger.errors import VerificationError
from services.evidence.zip_reading import MAX_FILE, MAX_FILES, ZipPack

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


class PackError(VerificationError):
    """The pack, or a file of it, is not as a pack must be. `file` is its path in the bag, or empty."""

    def __init__(self, file: str, description: str) -> None:
        super().__init__(description)
        self.file = file
        self.description = description


class Pack(Protocol):
    """A pack as files by name."""

    @property
    def names(self) -> tuple[str, ...]:
        """The paths of all files, relative to the bag, with slashes, sorted."""

    @property
    def faults(self) -> tuple[PackError, ...]:
        """What is wrong with the container itself."""

    def read(self, name: str) -> bytes:
        """Return the bytes of a file. Raises PackError, OSError."""


class _FolderPack:
    def __init__(self, root: Path) -> None:
        self._root = root
        found: list[str] = []
        faults: list[PackError] = []
        for path in _walk(root):
            name = path.relative_to(root).as_posix()
            if len(found) >= MAX_FILES:
                faults.append(PackError("", f"more than {MAX_FILES} files"))
                break
            if not stat.S_ISREG(path.lstat().st_mode):
                faults.append(PackError(name, "not an ordinary file"))
            elif not is_plain(name):
                faults.append(PackError(name, "a name that no pack has"))
            else:
                found.append(name)
        self.names = tuple(sorted(found))
        self.faults = tuple(faults)
        self._there = frozenset(found)

    def read(self, name: str) -> bytes:
        if name not in self._there:
            raise PackError(name, "missing")
        # Where somebody puts a link in its place meanwhile, it is not followed.
        descriptor = os.open(self._root / name, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise PackError(name, f"more than {MAX_FILE} bytes")
        return data


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        for name in list(folders):
            if (Path(folder) / name).is_symlink():
                yield Path(folder) / name
        yield from (Path(folder) / name for name in files)


def is_plain(name: str) -> bool:
    """Tell whether `name` is a relative path of plain names: no dots in front, nothing strange."""
    return len(name) <= 400 and all(_NAME.fullmatch(part) for part in name.split("/"))


@contextmanager
def open_pack(path: Path) -> Iterator[Pack]:
    """Open a pack: a folder, or a ZIP file. Raises PackError where it is none that can be read; OSError."""
    if path.is_dir():
        yield _FolderPack(path)
        return
    with path.open("rb") as file:
        try:
            archive = ZipPack(file)
        except ValueError as error:
            raise PackError("", f"the ZIP file: {error}") from error
        yield _ZipFiles(archive)


class _ZipFiles:
    """The files of a ZIP file, below its one folder where it has one."""

    def __init__(self, archive: ZipPack) -> None:
        self._archive = archive
        base = _base(archive.members)
        faults = [PackError(name.removeprefix(base), text) for name, text in archive.faults]
        found: dict[str, str] = {}
        for member in archive.members:
            name = member.removeprefix(base)
            if member == base:
                continue
            if member.endswith("/"):
                if not member.startswith(base) or not is_plain(name[:-1]) or member[:-1] in archive.members:
                    faults.append(PackError(member, "the name of a folder that no pack has"))
                continue
            if not member.startswith(base) or not is_plain(name):
                faults.append(PackError(member, "a name that no pack has"))
            else:
                found[name] = member
        self._members: Mapping[str, str] = found
        self.names = tuple(sorted(found))
        self.faults = tuple(faults)

    def read(self, name: str) -> bytes:
        member = self._members.get(name)
        if member is None:
            raise PackError(name, "missing")
        try:
            return self._archive.read(member)
        except ValueError as error:
            raise PackError(name, str(error)) from error


def _base(members: Mapping[str, object]) -> str:
    """Return the folder that holds the bag, with its slash: that of the most files; empty for none."""
    counts: dict[str, int] = {}
    for name in members:
        first, slash, _ = name.partition("/")
        base = f"{first}/" if slash and first != "data" else ""
        counts[base] = counts.get(base, 0) + 1
    return max(counts, key=lambda base: counts[base], default="")

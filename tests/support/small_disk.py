"""A disk that is full when a test wants it to be: a real one where the test may mount it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A file system of 4 MiB, mounted at `folder`, of which a ballast file takes half."""

    folder: Path

    def make_room(self) -> None:
        """Take the ballast away."""
        (self.folder / "ballast").unlink()


@contextmanager
def mounted(folder: Path) -> Iterator[SmallDisk | None]:
    """Mount a small tmpfs at an empty folder; None where this process may not mount."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        yield None
        return
    try:
        (folder / "ballast").write_bytes(bytes(2 << 20))
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)

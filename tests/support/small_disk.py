"""A disk of a few MiB that can really be filled: a tmpfs of its own.

Mounted by root, else in a user namespace of its own; where the machine allows neither, the test is skipped
and says so.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_FILLER = "filler"


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A mounted disk: at `path` for processes started by `within`, at `seen` from here."""

    path: Path
    seen: Path
    within: tuple[str, ...]

    def fill(self) -> None:
        """Take every byte that is free."""
        with (self.seen / _FILLER).open("ab", buffering=0) as filler, contextlib.suppress(OSError):
            for size in (1 << 16, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while filler.write(bytes(size)):
                        pass

    def free(self) -> None:
        """Give back what `fill` took."""
        (self.seen / _FILLER).unlink()


@contextmanager
def small_disk(at: Path, mebibytes: int) -> Iterator[SmallDisk]:
    """Mount a tmpfs of this size at `at`, a directory that does not exist, and unmount it at the end."""
    at.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(at)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        try:
            yield SmallDisk(at, at, ())
        finally:
            subprocess.run(["umount", "--lazy", str(at)], check=True)
        return
    script = '"$@" && echo mounted && exec cat'
    with subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", *mount],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != "mounted\n":
            pytest.skip(f"no small disk: needs root or user namespaces ({holder.stderr.read().strip()})")
        namespace = ("nsenter", "--preserve-credentials", "--user", "--mount", "--target", str(holder.pid))
        yield SmallDisk(at, Path(f"/proc/{holder.pid}/root{at}"), namespace)
        holder.stdin.close()

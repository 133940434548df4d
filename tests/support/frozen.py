"""A server that stands still: it is there, its connections stay open, and it says nothing any more."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Hold a process and all that it has started still while the block runs (SIGSTOP, SIGCONT)."""
    # The parent first: from then on no child is new.
    os.kill(pid, signal.SIGSTOP)
    family = _family(pid)
    try:
        for each in family:
            _send(each, signal.SIGSTOP)
        yield
    finally:
        for each in reversed(family):
            _send(each, signal.SIGCONT)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _family(pid: int) -> list[int]:
    """Return a process and its descendants, parents first."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                # PID (NAME) STATE PARENT …, and the name may hold anything.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found

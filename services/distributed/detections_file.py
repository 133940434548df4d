"""The file of the projector's detections: of one process at a time, where it was told, or a temporary one."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import structlog

from services.auditing.lookout import forget
from services.ledger_files import PRIVATE

_TRY_AGAIN: Final = 0.5
"""Seconds after which a file that another process has is asked for again."""

_NAME: Final = "detections.sqlite3"

_log = structlog.get_logger()


@asynccontextmanager
async def detections_file(given: Path | None, *, anew: bool) -> AsyncIterator[Path]:
    """Yield the path of the file, and hold it alone while the block runs; a temporary one where none is given.

    Waits while another process has it, as a projector that has lost its connection may for a moment. With
    `anew` the file is deleted first. Raises OSError where the lock beside it cannot be made.
    """
    if given is None:
        # Its name is not told to anybody: nobody else has it.
        with TemporaryDirectory(prefix="daybook-detections-") as folder:
            yield Path(folder) / _NAME
        return
    lock = os.open(given.with_name(f"{given.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        await _taken(lock, given)
        if anew:
            forget(given)
        yield given
    finally:
        os.close(lock)


async def _taken(lock: int, path: Path) -> None:
    told = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                _log.warning("another process has the file of detections", path=str(path))
            told = True
            await asyncio.sleep(_TRY_AGAIN)
        else:
            return

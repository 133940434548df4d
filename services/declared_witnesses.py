"""Which witnesses the operator has declared restored: from then on, what they lost is not held against them.

A witness that holds less than it has cosigned was restored from an older copy, and may cosign a second history
in between. The ledger refuses its cosignatures until somebody has looked into that, and says so here.
"""

from __future__ import annotations

import json
from pathlib import Path

from ledger.errors import StoreError
from services.ledger_files import write_durably


class DeclaredWitnesses:
    """A small JSON file, read anew at every question: POSIX seconds of each declaration, by vkey.

    What the witness cosigned at or before that time, by its own clock, is not held against it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, vkey: str) -> int | None:
        """Return when a witness was last declared restored; None for never. Raises StoreError."""
        return self._read().get(vkey)

    def declare(self, vkey: str, now: int) -> None:
        """Declare a witness restored at `now`, POSIX seconds; durable on return.

        Raises StoreError or OSError.
        """
        held = {**self._read(), vkey: now}
        write_durably(self._path, f"{json.dumps(held, indent=2, sort_keys=True)}\n".encode())

    def _read(self) -> dict[str, int]:
        try:
            held = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise StoreError(f"{self._path} is damaged: {error}") from error
        if not isinstance(held, dict) or not all(isinstance(time, int) for time in held.values()):
            raise StoreError(f"{self._path} is damaged: not times by vkey")
        return held

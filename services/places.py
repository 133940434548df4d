"""So many at once: what a caller may hold for as long as he likes is counted, and refused beyond that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ledger.errors import Reason, RejectedError


class Places:
    """So many calls of one kind at once; `what` names them in the refusal. Only for one event loop's thread."""

    def __init__(self, most: int, what: str) -> None:
        self._free = most
        self._what = what

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take a place while the block runs. Raises RejectedError OVERLOADED where none is free."""
        if not self._free:
            raise RejectedError(Reason.OVERLOADED, f"too many {self._what} at once; ask again")
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

"""What the ledger has signed and shows: the latest checkpoint of every register, and those before it.

Nothing is shown before it is committed and signed. Readers in any thread; one writer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ledger.checkpoints import Checkpoint
from ledger.errors import Reason, RejectedError
from ledger.store import Store, StoredNote


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint and its note, verbatim."""

    checkpoint: Checkpoint
    note: bytes

    @property
    def size(self) -> int:
        """The size that it states."""
        return self.checkpoint.size


class Published:
    """The signed checkpoints of one ledger.

    The notes of the last commit wait here until the next one makes them durable beside its entries: being
    pure functions of committed heads, they can be made again after a crash.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._latest: dict[str, SignedCheckpoint] = {}
        self._unsaved: dict[str, list[StoredNote]] = {}
        self._changed = asyncio.Event()

    def add(self, signed: Mapping[str, SignedCheckpoint]) -> None:
        """Show newly signed checkpoints."""
        for register, one in signed.items():
            self._latest[register] = one
            self._unsaved.setdefault(register, []).append(StoredNote(one.size, one.note))

    def wake(self) -> None:
        """Wake whoever watches. Called in the event loop's thread, after `add`."""
        self._changed.set()
        self._changed = asyncio.Event()

    def changed(self) -> asyncio.Event:
        """Return an event that the next `wake` sets. Take it before looking, and nothing is missed."""
        return self._changed

    def unsaved(self) -> dict[str, Sequence[StoredNote]]:
        """Return the notes that no commit has kept yet."""
        return {register: tuple(notes) for register, notes in self._unsaved.items()}

    def saved(self) -> None:
        """Forget that notes were unsaved: a commit has kept all of them."""
        self._unsaved.clear()

    def registers(self) -> Mapping[str, SignedCheckpoint]:
        """Return the latest checkpoint of every register."""
        return dict(self._latest)

    def latest(self, register: str) -> SignedCheckpoint:
        """Return the latest checkpoint of a register. Raises RejectedError REGISTER_UNKNOWN."""
        try:
            return self._latest[register]
        except KeyError:
            raise RejectedError(
                Reason.REGISTER_UNKNOWN,
                f"this ledger has no register {register!r}",
                detail={"register": register},
            ) from None

    def at_most(self, register: str, size: int) -> SignedCheckpoint:
        """Return the largest checkpoint of a register that was ever signed with a size up to `size`.

        Raises RejectedError REGISTER_UNKNOWN, or RECORD_UNKNOWN where the first one is larger.
        """
        latest = self.latest(register)
        if latest.size <= size:
            return latest
        # Those that wait first: a commit in between moves them to the store, never back.
        waiting = [note for note in self._unsaved.get(register, ()) if note.size <= size]
        found = self._store.note(register, size)
        candidates = [*waiting, *([found] if found else [])]
        if not candidates:
            raise RejectedError(
                Reason.RECORD_UNKNOWN,
                f"{register} has no checkpoint of {size} entries or fewer",
                detail={"register": register, "size": str(size)},
            )
        best = max(candidates, key=lambda note: note.size)
        text, _, _ = best.note.partition(b"\n\n")
        return SignedCheckpoint(Checkpoint.parse(text + b"\n"), best.note)

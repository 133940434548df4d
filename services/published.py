"""What the ledger shows: the latest checkpoint of every register, signed and sealed, and those before it.

Nothing is shown before it is committed and signed, or sealed before the cosignatures are kept. Readers in
any thread; one writer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from ledger.checkpoints import Checkpoint
from ledger.errors import Reason, RejectedError
from ledger.sealing import SealedCheckpoint, SealedReader
from ledger.store import Store, StoredNote
from ledger.witnessing import Policy


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint and its note, verbatim."""

    checkpoint: Checkpoint
    note: bytes

    @property
    def size(self) -> int:
        """The size that it states."""
        return self.checkpoint.size


@dataclass(frozen=True, slots=True)
class _Sealing:
    """The latest sealed checkpoints under one policy, as far as they were asked for."""

    policy: Policy
    reader: SealedReader
    latest: dict[str, SealedCheckpoint | None]


def nobody() -> Policy | None:
    """Return the policy of a ledger that asks no witness."""
    return None


class Published:
    """The checkpoints of one ledger.

    The notes of the last commit wait here until the next one makes them durable beside its entries: being
    pure functions of committed heads, they can be made again after a crash. `in_force` tells the witness
    policy under which checkpoints are sealed at this moment, None where no witness is asked.
    """

    def __init__(self, store: Store, in_force: Callable[[], Policy | None] = nobody) -> None:
        self._store = store
        self._in_force = in_force
        self._latest: dict[str, SignedCheckpoint] = {}
        self._unsaved: dict[str, list[StoredNote]] = {}
        self._changed = asyncio.Event()
        self._news: dict[str, asyncio.Event] = {}
        self._stirred: dict[str, list[asyncio.Event]] = {}
        self._told: set[str] = set()
        self._sealing: _Sealing | None = None
        self._one_sealing = Lock()
        self._waits = True

    def add(self, signed: Mapping[str, SignedCheckpoint]) -> None:
        """Show newly signed checkpoints."""
        for register, one in signed.items():
            self._latest[register] = one
            self._unsaved.setdefault(register, []).append(StoredNote(one.size, one.note))
            self._told.add(register)

    def wake(self) -> None:
        """Wake whoever watches. Called in the event loop's thread, after `add`."""
        self._changed.set()
        self._changed = asyncio.Event()
        told, self._told = self._told, set()
        for register in told:
            self._wake(register)

    def _wake(self, register: str) -> None:
        if (news := self._news.pop(register, None)) is not None:
            news.set()
        for event in self._stirred.get(register, ()):
            event.set()

    def changed(self) -> asyncio.Event:
        """Return an event that the next `wake` sets. Take it before looking, and nothing is missed."""
        return self._changed

    def news_of(self, register: str) -> asyncio.Event:
        """Return an event that is set when this register's next checkpoint is signed or sealed."""
        return self._news.setdefault(register, asyncio.Event())

    @contextmanager
    def stirring(self, register: str, event: asyncio.Event) -> Iterator[None]:
        """Set `event` at each piece of news of a register while the block runs."""
        self._stirred.setdefault(register, []).append(event)
        try:
            yield
        finally:
            self._stirred[register].remove(event)

    def awaited(self) -> set[str]:
        """Return the registers of which somebody waits for news. Called in the event loop's thread."""
        return {*self._news, *(register for register, events in self._stirred.items() if events)}

    @property
    def policy(self) -> Policy | None:
        """The witness policy in force; None where no witness is asked, and nothing is ever sealed."""
        return self._in_force()

    @property
    def sealed_reader(self) -> SealedReader | None:
        """What finds older sealed checkpoints, under the policy in force; None without witnesses."""
        sealing = self._sealing_now()
        return sealing.reader if sealing else None

    def _sealing_now(self) -> _Sealing | None:
        policy = self._in_force()
        if policy is None:
            return None
        with self._one_sealing:
            sealing = self._sealing
            if sealing is None or sealing.policy is not policy:
                # What was sealed for other witnesses need not be sealed for these.
                sealing = self._sealing = _Sealing(policy, SealedReader(self._store, policy), {})
        return sealing

    def sealed(self, register: str) -> SealedCheckpoint | None:
        """Return a register's latest sealed checkpoint; None where there is none, or no witness is asked.

        Raises RejectedError REGISTER_UNKNOWN.
        """
        self.latest(register)
        sealing = self._sealing_now()
        return None if sealing is None else self._sealed(register, sealing)

    def _sealed(self, register: str, sealing: _Sealing) -> SealedCheckpoint | None:
        if register not in sealing.latest:
            found = sealing.reader.last_up_to(register, self.latest(register).size)
            # Meanwhile a newer one may have been sealed, in the event loop's thread: that one stays.
            sealing.latest.setdefault(register, found)
        return sealing.latest[register]

    def known_seals(self) -> Mapping[str, SealedCheckpoint | None]:
        """Return the latest sealed checkpoints as far as they were asked for under the policy in force."""
        sealing = self._sealing_now()
        return dict(sealing.latest) if sealing else {}

    def seal(self, register: str, sealed: SealedCheckpoint, policy: Policy) -> None:
        """Show a newly sealed, or freshly cosigned, checkpoint. Called in the event loop's thread.

        Its cosignatures are kept already, and meet the quorum of `policy`.
        """
        sealing = self._sealing_now()
        if sealing is None or sealing.policy is not policy:
            return  # another policy has come into force meanwhile, and asks again
        before = self._sealed(register, sealing)
        if before is None or before.size <= sealed.size:
            sealing.latest[register] = sealed
            self._wake(register)
            self._changed.set()
            self._changed = asyncio.Event()

    async def until_sealed(self, register: str, size: int) -> SealedCheckpoint | None:
        """Wait for a sealed checkpoint of at least `size` entries.

        None at once where no witness is asked, or after `give_up_waiting`.
        """
        while self.policy is not None and self._waits:
            news = self.news_of(register)
            sealed = self.sealed(register)
            if sealed is not None and sealed.size >= size:
                return sealed
            await news.wait()
        return None

    def give_up_waiting(self) -> None:
        """End every wait for a seal. Called in the event loop's thread."""
        self._waits = False
        for register in list(self._news):
            self._wake(register)

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

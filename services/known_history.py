"""What a witness knows of one register's history, held against what the store has.

A longer history, or another one, ends the process with both notes (formats.md, section 11). A shorter one is a
witness that is behind; or one that was put back to an older copy of itself, and is not believed until somebody
has looked into that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from ledger.checkpoints import Checkpoint, open_checkpoint
from ledger.errors import MalformedError, SignatureError, SplitViewError
from ledger.ledger import LedgerView
from ledger.notes import cosignature_time
from ledger.witnessing import Policy, Witness
from services.asking import held_checkpoint
from services.published import Published, SignedCheckpoint


class AheadError(SplitViewError):
    """A witness holds more than this ledger has: the store is behind, or the history is another one."""

    def __init__(self, split: SplitViewError, register: str, size: int) -> None:
        super().__init__(str(split), split.first, split.second)
        self.register = register
        self.size = size


@dataclass(frozen=True, slots=True)
class LostState:
    """The witness holds less than it has cosigned: it was restored from an older copy of itself."""

    size: int
    cosigned: int


class KnownHistory:
    """Judges what the witnesses of one policy say of one register.

    `declared` tells the time, POSIX seconds, at which the operator has declared that a witness of this vkey was
    restored, None where he has not; `signed_size` how many entries of a register are under a checkpoint that
    the ledger's own signer remembers: more than are published here while the store catches up.
    """

    def __init__(
        self,
        ledger: LedgerView,
        published: Published,
        session: aiohttp.ClientSession,
        declared: Callable[[str], int | None],
        register: str,
        policy: Policy,
        signed_size: Callable[[str], Awaitable[int]],
    ) -> None:
        self._signed_size = signed_size
        self._ledger = ledger
        self._published = published
        self._session = session
        self._declared = declared
        self._register = register
        self._policy = policy
        self._origin = ledger.register_origin(register)

    async def judge(self, witness: Witness, size: int) -> LostState | None:
        """Judge the size that a witness says it holds. Raises AheadError where the register is smaller.

        None where there is nothing odd about it: also for a larger one that is our own history.
        """
        latest = self._published.latest(self._register)
        if size > latest.size and not await self._is_ours(witness, size):
            split = await self.split_view(witness, f"holds {size} entries, where this ledger has {latest.size}")
            raise AheadError(split, self._register, size)
        cosigned = self._cosigned_by(witness, size)
        return None if cosigned is None else LostState(size, cosigned)

    async def _is_ours(self, witness: Witness, size: int) -> bool:
        """Tell whether a size beyond the latest note is of our own history, as far as is known.

        So it is where our signer has signed as much, which the store is to reach and to be compared with; or
        where the store holds what the witness shows, signed by our key: notes and marks are of an older copy.
        """
        if size <= await self._signed_size(self._register):
            return True
        note = await held_checkpoint(self._session, witness, self._origin)
        if note is None:
            return False
        try:
            opened = open_checkpoint(note, self._origin, self._policy.log_keys(self._origin))
        except (MalformedError, SignatureError):
            return False
        if opened.checkpoint.size < size or not self._has(opened.checkpoint):
            return False
        self._show(SignedCheckpoint(opened.checkpoint, opened.note.trimmed()))
        return True

    def _show(self, signed: SignedCheckpoint) -> None:
        """Show what the ledger has signed and only the witness remembers: they are asked for that next."""
        if self._published.latest(self._register).size < signed.size:
            self._published.add({self._register: signed})
            # Its note is kept with the cosignatures that it gets.
            self._published.saved()
            self._published.wake()

    def _has(self, checkpoint: Checkpoint) -> bool:
        """Tell whether the store has reached a checkpoint, with the same root."""
        if checkpoint.size > self._ledger.store.heads()[self._register].size:
            return False
        return self._ledger.reader(self._register).root(checkpoint.size) == checkpoint.root

    def _cosigned_by(self, witness: Witness, size: int) -> int | None:
        """Return the largest size beyond `size` that the witness is known to have cosigned.

        Not what it cosigned before the operator declared it restored.
        """
        by = (witness.key.name, witness.key.key_id)
        # The largest is also what it cosigned last: it is only ever asked for the latest size.
        latest = self._published.latest(self._register).size
        last = self._ledger.store.last_cosigned(self._register, by, latest)
        if last is None or last.size <= size:
            return None
        declared = self._declared(str(witness.key)) or 0
        return last.size if cosignature_time(last.last.signature) > declared else None

    async def investigate(self, witness: Witness) -> None:
        """Find out what a witness knows that says it knows another history. Raises SplitViewError.

        Once a quorum has confirmed the stored head, the ledger stops for evidence, a note that its own key has
        signed: until there is any, the witness merely does not cosign.
        """
        note = await held_checkpoint(self._session, witness, self._origin)
        if note is not None and self._contradicts(note):
            raise await self.split_view(witness, "holds a checkpoint of another history")

    def _contradicts(self, note: bytes) -> bool:
        """Tell whether a note is signed by this ledger's key, and of another history than the stored one."""
        try:
            checkpoint = self._policy.open(note, self._origin).checkpoint
        except (MalformedError, SignatureError):
            return False
        return not self._has(checkpoint)

    async def split_view(self, witness: Witness, what: str) -> SplitViewError:
        """Return the error that says `what` a witness knows, with both notes, if it shows one."""
        ours = self._published.latest(self._register).note
        theirs = await held_checkpoint(self._session, witness, self._origin)
        if theirs is None or not self._contradicts(theirs):
            theirs = f"(witness {witness.name} shows no note of {self._origin} that proves it)\n".encode()
        return SplitViewError(
            f"{self._origin}: witness {witness.name} {what}. Nothing more is signed: was an older copy "
            "restored, or is another ledger running with this key? An older copy catches up with daybook "
            "import, or from its event log",
            ours,
            theirs,
        )

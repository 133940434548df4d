"""What a witness knows of one register's history, held against what the store has.

A longer history, or another one, ends the process with both notes (formats.md, section 11). A shorter one is a
witness that is behind; or one that was put back to an older copy of itself, and is not believed until somebody
has looked into that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from ledger.errors import MalformedError, SignatureError, SplitViewError
from ledger.ledger import LedgerView
from ledger.notes import cosignature_time
from ledger.witnessing import Policy, Witness
from services.asking import held_checkpoint
from services.published import Published


@dataclass(frozen=True, slots=True)
class LostState:
    """The witness holds less than it has cosigned: it was restored from an older copy of itself."""

    size: int
    cosigned: int


class KnownHistory:
    """Judges what the witnesses of one policy say of one register.

    `declared` tells the time, POSIX seconds, at which the operator has declared that a witness of this vkey was
    restored, None where he has not.
    """

    def __init__(
        self,
        ledger: LedgerView,
        published: Published,
        session: aiohttp.ClientSession,
        declared: Callable[[str], int | None],
        register: str,
        policy: Policy,
    ) -> None:
        self._ledger = ledger
        self._published = published
        self._session = session
        self._declared = declared
        self._register = register
        self._policy = policy
        self._origin = ledger.register_origin(register)

    async def judge(self, witness: Witness, size: int) -> LostState | None:
        """Judge the size that a witness says it holds. Raises SplitViewError where the register is smaller.

        None where there is nothing odd about it.
        """
        latest = self._published.latest(self._register)
        if size > latest.size:
            raise await self.split_view(witness, f"holds {size} entries, where this ledger has {latest.size}")
        cosigned = self._cosigned_by(witness, size)
        return None if cosigned is None else LostState(size, cosigned)

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
        if checkpoint.size > self._published.latest(self._register).size:
            return True
        return self._ledger.reader(self._register).root(checkpoint.size) != checkpoint.root

    async def split_view(self, witness: Witness, what: str) -> SplitViewError:
        """Return the error that says `what` a witness knows, with both notes, if it shows one."""
        ours = self._published.latest(self._register).note
        theirs = await held_checkpoint(self._session, witness, self._origin)
        if theirs is None or not self._contradicts(theirs):
            theirs = f"(witness {witness.name} shows no note of {self._origin} that proves it)\n".encode()
        return SplitViewError(
            f"{self._origin}: witness {witness.name} {what}. Nothing more is signed: was an older copy "
            "restored, or is another ledger running with this key? An older copy catches up with daybook "
            "import",
            ours,
            theirs,
        )

"""How far a submission has come, and the wait for more: from an accepted submission to its answer.

The wait is bounded by the caller's deadline, and pending is an answer: when time runs out, the state that was
reached is returned (formats.md, section 19).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from ledger.hashing import Hash
from ledger.ledger import LedgerView
from ledger.receipt_file import NotBefore
from ledger.sealing import SealedCheckpoint
from services.published import Published
from services.receipts import ReceiptBuilder
from services.submissions import Accepted, Durable, LostRace, Pending

LONGEST_WAIT: Final = 30.0
"""Seconds of the longest wait for a seal of a call without a deadline."""

_MARGIN: Final = 0.1
"""Share of the time left that is kept for the answer to travel; at least 100 ms, and at most 1 s."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A submission under a checkpoint: signed, or `sealed`; `anchored` where its receipts are.

    `note` covers the run, `range_proof` is at its `size`; `not_before` is the latest sealed note that does not
    cover it. `no_witness` tells that nothing can be sealed.
    """

    accepted: Accepted
    size: int
    note: bytes
    range_proof: tuple[Hash, ...]
    sealed: bool
    anchored: bool
    no_witness: bool
    not_before: NotBefore | None = None


Answer: TypeAlias = Reached | Pending | LostRace
"""What a submission has come to when it is answered."""


class State(IntEnum):
    """What a caller may wait for (formats.md, section 19)."""

    ACCEPTED = 1
    SEQUENCED = 2
    SEALED = 3


class Waiter:
    """Waits for what callers wait for, and says what was reached. Only for the event loop's thread.

    With `apart` nothing is read from the store in the event loop: where the store is another process.
    """

    def __init__(
        self, ledger: LedgerView, published: Published, receipts: ReceiptBuilder, *, apart: bool = False
    ) -> None:
        self._ledger = ledger
        self._published = published
        self._receipts = receipts
        self._apart = apart

    async def reached(self, durable: Durable, wait_for: State, left: float | None) -> Answer:
        """Wait until a submission has reached a state, for at most most of `left` seconds.

        None is for no deadline. A submission that is sequenced already is answered as such, also where less was
        asked for.
        """
        seconds = LONGEST_WAIT if left is None else left - min(1.0, max(0.1, left * _MARGIN))
        outcome = durable
        if wait_for is not State.ACCEPTED and seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    if isinstance(outcome, Pending):
                        outcome = await outcome.sequenced() or outcome
                    if wait_for is State.SEALED:
                        await self._sealed(outcome)
            except TimeoutError:
                pass  # pending is an answer
        if not isinstance(outcome, Accepted):
            return outcome
        return await asyncio.to_thread(self.now, outcome) if self._apart else self.now(outcome)

    async def _sealed(self, outcome: Durable) -> None:
        if self._published.policy is None or isinstance(outcome, Pending):
            return
        if self._apart:
            # What is asked for once is known from then on.
            await asyncio.to_thread(self._published.sealed, outcome.register)
        end = outcome.run.first + outcome.run.count if isinstance(outcome, Accepted) else outcome.index + 1
        await self._published.until_sealed(outcome.register, end)

    def now(self, accepted: Accepted) -> Reached:
        """Return what a submission has reached at this moment."""
        no_witness = self._published.policy is None
        register, run, signed = accepted.register, accepted.run, accepted.checkpoint
        sealed = self._covering(accepted)
        if sealed is None:
            return Reached(accepted, signed.size, signed.note, accepted.range_proof, False, False, no_witness)
        proof = accepted.range_proof
        if sealed.size != signed.size:
            reader = self._ledger.reader(register)
            proof = reader.range_proof(run.first, run.first + run.count, sealed.size)
        return Reached(
            accepted,
            sealed.size,
            sealed.note,
            proof,
            sealed=True,
            anchored=accepted.known and self._receipts.is_anchored(register, run.first),
            no_witness=no_witness,
            not_before=self._receipts.not_before(register, run.first, sealed.size),
        )

    def _covering(self, accepted: Accepted) -> SealedCheckpoint | None:
        """Return the first sealed checkpoint that covers a submission, as far as that is cheap to know."""
        register = accepted.register
        latest = self._published.sealed(register)
        end = accepted.run.first + accepted.run.count
        if latest is None or latest.size < end:
            return None
        reader = self._published.sealed_reader
        return reader.first_covering(register, end - 1) if reader and accepted.known else latest

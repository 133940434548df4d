"""What the signer lets grow: told of what a quorum of witnesses has confirmed, and asked what it remembers.

The signer forgets every confirmation when it ends. Its instance says that it is another one by now: then the
witnesses are to be asked anew, since its marks may be those of an older copy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import structlog

from ledger.governing import GOVERNING
from ledger.ledger import LedgerView
from services.distributed.signing import SignerAwayError, SignerClient
from services.published import Published, SignedCheckpoint

LOOK: Final = 1.0
"""Seconds between two looks whether the signer is still the same."""

MOST: Final = 256
"""Checkpoints of one call."""

UNKNOWN: Final = 1 << 62
"""More entries than any register has: as many as a signer that does not answer may have signed."""

_log = structlog.get_logger()


class Confirming:
    """Lets registers grow, as the cosigner wants it (`following.Growing`). Only for the event loop's thread."""

    def __init__(self, signer: SignerClient, ledger: LedgerView, published: Published) -> None:
        self._signer = signer
        self._ledger = ledger
        self._published = published
        self._confirmed: set[str] = set()
        self._told: dict[str, SignedCheckpoint] = {}
        self._stirred = asyncio.Event()
        self.instance: str | None = None
        """The signer that answered last; None before the first."""
        self.away: str | None = None
        """Why the signer did not answer the last time; None where it did."""
        self.restarted = asyncio.Event()
        """Set when the signer is another one than before; whoever asks the witnesses clears it."""

    def confirm(self, registers: Iterable[str]) -> None:
        """Tell the signer that a quorum knows nothing beyond the latest checkpoints of these registers."""
        if self.restarted.is_set():
            return  # the witnesses were asked for the signer before
        for register in registers:
            if register not in self._confirmed:
                self._told[register] = self._published.latest(register)
                self._stirred.set()

    def withdraw(self) -> None:
        """Tell the signer nothing of what it has not been told yet: the witnesses are asked anew."""
        self._told.clear()

    def is_confirmed(self, register: str) -> bool:
        """Tell whether the signer signs larger checkpoints of a register, as far as it has said."""
        return register in self._confirmed

    async def signed_size(self, register: str) -> int:
        """Return the size that the signer remembers for a register.

        More than any where it does not answer: then nobody is accused of knowing too much.
        """
        origin = self._ledger.register_origin(register)
        try:
            mark = (await self._signer.marks([origin])).by_origin.get(origin)
        except SignerAwayError:
            return UNKNOWN
        return 0 if mark is None else mark.checkpoint.size

    async def first_look(self) -> None:
        """Take in what the signer has confirmed already, as soon as it answers."""
        while True:
            with suppress(SignerAwayError):
                await self._look()
                return
            await asyncio.sleep(LOOK)

    async def run(self) -> None:
        """Tell the signer what is to be told until it takes it, and look whether it is the same, for ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._stirred.wait()
            self._stirred.clear()
            try:
                await self._look()
                await self._tell()
            except SignerAwayError as error:
                if self.away is None:
                    _log.warning("the signer is away", why=str(error))
                self.away = str(error)

    async def _look(self) -> None:
        """Ask who the signer is; where it is another one, what it has confirmed."""
        # One origin will do to learn the instance.
        marks = await self._signer.marks([self._ledger.register_origin(GOVERNING)])
        self.away = None
        if marks.instance == self.instance:
            return
        marks = await self._signer.marks()
        before, self.instance = self.instance, marks.instance
        self._told.clear()
        prefix = self._ledger.register_origin("")
        self._confirmed = {
            origin.removeprefix(prefix) for origin, mark in marks.by_origin.items() if mark.confirmed
        }
        if before is not None:
            _log.info("the signer was started anew", unconfirmed=len(marks.by_origin) - len(self._confirmed))
            self.restarted.set()

    async def _tell(self) -> None:
        """Tell what a quorum has confirmed.

        What the signer does not take stays: its mark is another one, and may be that of an older copy. So it is
        shown what it has signed.
        """
        waiting = list(self._told.items())
        for first in range(0, len(waiting), MOST):
            some = waiting[first : first + MOST]
            origins = set(await self._signer.confirm([signed.checkpoint for _, signed in some]))
            taken = {register for register, signed in some if signed.checkpoint.origin in origins}
            self._confirmed |= taken
            for register in taken:
                self._told.pop(register, None)
            if len(taken) < len(some):
                await self._signer.remember([signed.note for register, signed in some if register not in taken])

"""Anchoring: sealed checkpoints of registers are carried into the governing register (formats.md, section 11).

So one number, the governing root, commits to every register. A register is anchored when it has changed, but
no more often than at the interval; one that was never anchored, at once. The governing register never is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final, Protocol

import structlog

from ledger.anchors import Anchors
from ledger.errors import RejectedError
from ledger.governing import GOVERNING
from ledger.ledger import Appended, Known, Outcome
from ledger.own_records import checkpoint_anchored
from services.published import Published

_LOOK: Final = 0.5
"""Seconds between two looks for registers that were never anchored."""

_log = structlog.get_logger()


class Writer(Protocol):
    """What appends records of the ledger's own: the sequencer."""

    async def write(self, register: str, record: bytes) -> Outcome:
        """Append a record, unless it is there; raises RejectedError where that cannot be now."""
        ...


class Anchorer:
    """Anchors the registers of one ledger, at most every `seconds`. `run` is its task, till it is cancelled."""

    def __init__(self, anchors: Anchors, published: Published, writer: Writer, seconds: float) -> None:
        self._anchors = anchors
        self._published = published
        self._writer = writer
        self._seconds = seconds

    async def run(self) -> None:
        """Anchor what has changed, again and again. Raises StoreError where the writer has failed."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._seconds
        while True:
            await asyncio.sleep(min(_LOOK, self._seconds))
            if loop.time() >= due:
                await self.anchor()
                due = loop.time() + self._seconds
            elif never := [each for each in self._changed() if self._anchors.latest(each) is None]:
                await self._write(never)

    async def anchor(self) -> None:
        """Anchor every register whose latest sealed checkpoint is not anchored, together."""
        await self._write(list(self._changed()))

    def _changed(self) -> Iterator[str]:
        if self._published.policy is None:
            return
        for register in self._published.registers():
            if register == GOVERNING:
                continue
            sealed, anchored = self._published.sealed(register), self._anchors.latest(register)
            if sealed is not None and (anchored is None or anchored.size < sealed.size):
                yield register

    async def _write(self, registers: list[str]) -> None:
        """Write one anchor for each. What cannot be written now is written at the next time."""
        notes = [(each, sealed.note) for each in registers if (sealed := self._published.sealed(each))]
        outcomes = await asyncio.gather(
            *(self._writer.write(GOVERNING, checkpoint_anchored(note)) for _, note in notes),
            return_exceptions=True,
        )
        for (register, _), outcome in zip(notes, outcomes, strict=True):
            if isinstance(outcome, RejectedError):
                _log.info("not anchored now", register=register, why=outcome.reason.value)
            elif isinstance(outcome, BaseException):
                raise outcome
            elif not isinstance(outcome, Appended | Known):
                _log.error("not anchored", register=register, outcome=str(outcome))

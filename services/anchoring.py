"""Anchoring: sealed checkpoints of registers are carried into the governing register (formats.md, section 11).

So one number, the governing root, commits to every register. A register is anchored when it has changed, but
no more often than at the interval; a new one at once, from its first sealed checkpoint on; and each anew when
the witnesses are others than those by whose word it was anchored. The governing register never is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

import structlog

from ledger.anchors import Anchored, satisfies
from ledger.errors import RejectedError
from ledger.governing import GOVERNING
from ledger.ledger import Appended, Known, LedgerView, Outcome
from ledger.own_records import checkpoint_anchored
from ledger.sealing import SealedCheckpoint
from ledger.witnessing import Policy
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

    def __init__(self, ledger: LedgerView, published: Published, writer: Writer, seconds: float) -> None:
        self._ledger = ledger
        self._published = published
        self._writer = writer
        self._seconds = seconds
        self._good: dict[str, tuple[Anchored, Policy]] = {}

    async def run(self) -> None:
        """Anchor what has changed, again and again. Raises StoreError where the writer has failed."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._seconds
        while True:
            await asyncio.sleep(min(_LOOK, self._seconds))
            if loop.time() < due:
                await self._write(self._begun())
            else:
                await self.anchor()
                due = loop.time() + self._seconds

    async def anchor(self) -> None:
        """Anchor every register whose latest sealed checkpoint is not anchored, together."""
        await self._write(self._begun())
        await self._write(await asyncio.to_thread(self._changed))

    def _begun(self) -> dict[str, SealedCheckpoint]:
        """Return the first sealed checkpoint of every register that was never anchored: mostly of size 0."""
        reader = self._published.sealed_reader
        if reader is None:
            return {}
        names = [each for each in self._sealed() if self._ledger.anchors.latest(each) is None]
        found = ((each, reader.first_covering(each, -1)) for each in names)
        return {each: first for each, first in found if first is not None}

    def _changed(self) -> dict[str, SealedCheckpoint]:
        """Return the latest sealed checkpoint of every register where it is not anchored."""
        policy = self._published.policy
        if policy is None:
            return {}
        sealed = self._sealed()
        return {each: sealed[each] for each in sealed if not self._is_anchored(each, sealed[each].size, policy)}

    def _sealed(self) -> dict[str, SealedCheckpoint]:
        """Return the latest sealed checkpoint of every register that is to be anchored."""
        found = ((each, self._published.sealed(each)) for each in self._published.registers())
        return {each: sealed for each, sealed in found if sealed is not None and each != GOVERNING}

    def _is_anchored(self, register: str, size: int, policy: Policy) -> bool:
        """Tell whether a size is anchored, by a note that satisfies the policy in force."""
        latest = self._ledger.anchors.latest(register)
        if latest is None or latest.size < size:
            return False
        if latest.size > size:
            return True  # for other witnesses, and further than these have come
        if self._good.get(register) != (latest, policy):
            entry = self._ledger.reader(GOVERNING).entry(latest.index)
            if not satisfies(entry, policy, self._ledger.register_origin(register)):
                return False
            self._good[register] = (latest, policy)
        return True

    async def _write(self, checkpoints: Mapping[str, SealedCheckpoint]) -> None:
        """Write one anchor for each. What cannot be written now is written at the next time."""
        outcomes = await asyncio.gather(
            *(self._writer.write(GOVERNING, checkpoint_anchored(one.note)) for one in checkpoints.values()),
            return_exceptions=True,
        )
        for register, outcome in zip(checkpoints, outcomes, strict=True):
            if isinstance(outcome, RejectedError):
                _log.info("not anchored now", register=register, why=outcome.reason.value)
            elif isinstance(outcome, BaseException):
                raise outcome
            elif not isinstance(outcome, Appended | Known):
                _log.error("not anchored", register=register, outcome=str(outcome))

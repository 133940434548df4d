"""Findings between the projector, whose detections find them, and the services that list them: by one table."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from ledger.errors import Reason, RejectedError, StoreError
from services.auditing.fact_store import BEGINNING, Place
from services.auditing.lookout import FoundPage, Lookout
from services.distributed.finding_table import FindingReader, FindingTable, looked

PATIENCE: Final = 5.0
"""Seconds that a caller waits for the table, at most."""

_log = structlog.get_logger()


class ShownFindings:
    """Puts what a lookout has found into the table: of each register that has changed, all that stands now.

    While there is more to look at, only registers that come further than the table are put there: where all is
    looked at anew, what was found before stays until as much was looked at again.
    """

    def __init__(self, table: FindingTable) -> None:
        self._table = table
        self._waits = True

    def show(self, lookout: Lookout, *, all_seen: bool) -> None:
        """Show what has changed. Raises StoreError, and then it is all shown at the next call."""
        if not (lookout.settle() or self._waits):
            return
        self._waits = True
        there = self._table.read()
        sizes = {register: size for register, size in lookout.sizes.items() if size}
        for register, size in sizes.items():
            before = there.get(register)
            if not all_seen and before is not None and before.size >= size:
                continue
            after = looked(size, lookout.found(register))
            if before != after:
                self._table.replace(register, after, lookout.found(register))
        if all_seen:
            # As in a copy of the ledger that had more, or under witnesses who had sealed more.
            self._table.remove(there.keys() - sizes.keys())
            self._waits = False


class ListedFindings:
    """Lists what the table has: `services.finding.Findings` of a service that finds nothing itself.

    For the event loop. Calls take turns.
    """

    def __init__(self, conninfo: str) -> None:
        self._reader = FindingReader(conninfo)
        self._turn = asyncio.Lock()

    async def page(self, register: str, after: Place | None, most: int) -> FoundPage:
        """Return findings of a register. Raises RejectedError BACKEND_DOWN where that cannot be now."""
        try:
            async with asyncio.timeout(PATIENCE), self._turn:
                page = await self._asked(register, after or BEGINNING, most)
        except (StoreError, TimeoutError) as error:
            why = str(error) or f"PostgreSQL has not answered for {PATIENCE:.0f} s"
            _log.error("findings cannot be read", error=why)
            raise RejectedError(Reason.BACKEND_DOWN, "the findings cannot be read now; ask again") from error
        if page is None:
            raise RejectedError(
                Reason.BACKEND_DOWN, "the detections have not looked at anything yet; ask again"
            )
        return page

    async def _asked(self, register: str, after: Place, most: int) -> FoundPage | None:
        try:
            return await self._reader.page(register, after, most)
        except BaseException:
            # An answer to what nobody waits for any more must not be taken for the next one.
            await self._reader.close()
            raise

    async def aclose(self) -> None:
        """Close the connection."""
        await self._reader.close()

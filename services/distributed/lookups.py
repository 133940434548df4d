"""What the store knows of submissions before they are accepted: one question for all that wait together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ledger.admission import Candidate
from ledger.event_log import LogStore
from ledger.register import registered
from ledger.rules import Registered, record_keys
from ledger.store import Run


@dataclass(frozen=True, slots=True)
class Held:
    """What a store holds that concerns one submission.

    `run` is where it stands, `rejected` the index of its latest rejection, -1 for none; `registered` has the
    versions of the records that it names.
    """

    run: Run | None = None
    rejected: int = -1
    registered: Registered | None = None


@dataclass(frozen=True, eq=False, slots=True)
class _Asked:
    candidate: Candidate
    answer: asyncio.Future[Held]


class Lookups:
    """Asks a store, in a thread of its own, for all who have come since it was last asked."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._waiting: list[_Asked] = []
        self._asking: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "lookups")

    async def held(self, candidate: Candidate) -> Held:
        """Return what the store holds. The register must be there. Raises StoreError."""
        asked = _Asked(candidate, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        try:
            return await asked.answer
        finally:
            # A store that hangs must not keep what nobody waits for any more.
            if asked in self._waiting:
                self._waiting.remove(asked)

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            together, self._waiting = self._waiting, []
            by_register: dict[str, list[_Asked]] = {}
            for asked in together:
                by_register.setdefault(asked.candidate.submission.register, []).append(asked)
            for register, several in by_register.items():
                candidates = [asked.candidate for asked in several]
                try:
                    found = await loop.run_in_executor(self._thread, self._look, register, candidates)
                except Exception as error:
                    for asked in several:
                        if not asked.answer.done():
                            asked.answer.set_exception(error)
                else:
                    for asked, held in zip(several, found, strict=True):
                        if not asked.answer.done():
                            asked.answer.set_result(held)

    def _look(self, register: str, candidates: Sequence[Candidate]) -> list[Held]:
        keys = [bytes.fromhex(candidate.submission.submission_id) for candidate in candidates]
        headers = [header for candidate in candidates for header in candidate.headers]
        there = self._store.look_up(register, keys, record_keys(headers))
        known = registered(self._store, register, headers, there.latest)
        return [Held(there.runs.get(key), there.rejections.get(key, -1), known) for key in keys]

    def close(self) -> None:
        """End the thread, after its last question."""
        self._thread.shutdown()

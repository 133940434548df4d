"""What is looked up before a submission is accepted, while somebody else commits."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from ledger.admission import admit
from ledger.errors import StoreError
from ledger.event_log import LogStore
from ledger.store import RecordAt, Run
from services.distributed.lookups import Lookups
from tests.support.ledgers import DEPARTMENT_KEY, REGISTER, decision, submission

CANDIDATE = admit(submission(REGISTER, [decision(0)], [DEPARTMENT_KEY]))


class Committing:
    """A store in which the candidate is committed right after the first question. It counts the questions."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def _there(self, of: int) -> bool:
        self.asked.append(of)
        return len(self.asked) > 1

    def submissions(self, _register: str, ids: list[bytes]) -> dict[bytes, Run]:
        return {key: Run(0, 1) for key in ids} if self._there(len(ids)) else {}

    def rejection(self, _register: str, ids: list[bytes]) -> dict[bytes, int]:
        self._there(len(ids))
        return {}

    def latest_versions(self, _register: str, ids: list[bytes]) -> list[RecordAt]:
        return [RecordAt(ids[0], 1, 0)] if self._there(len(ids)) else []

    def entries_at(self, *_: Any) -> dict[int, bytes]:
        return {0: b"{}\n" + decision(0)}


class Away:
    """A store that does not answer."""

    def latest_versions(self, *_: Any) -> list[RecordAt]:
        raise StoreError("away")


async def test_a_submission_is_not_held_against_itself() -> None:
    """If false, what is sent twice at once could be refused as registered already, by itself."""
    lookups = Lookups(cast("LogStore", Committing()))
    held = await lookups.held(CANDIDATE)
    lookups.close()
    assert held.run == Run(0, 1)


async def test_all_who_wait_are_looked_up_together() -> None:
    """If false, every submission would cost questions of its own."""
    store = Committing()
    lookups = Lookups(cast("LogStore", store))
    await asyncio.gather(*(lookups.held(CANDIDATE) for _ in range(50)))
    lookups.close()
    assert len(store.asked) == 3


async def test_a_store_that_is_away_is_told_to_all() -> None:
    """If false, callers would wait for ever."""
    lookups = Lookups(cast("LogStore", Away()))
    answers = await asyncio.gather(*(lookups.held(CANDIDATE) for _ in range(3)), return_exceptions=True)
    lookups.close()
    assert [type(answer) for answer in answers] == [StoreError] * 3

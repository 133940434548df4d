"""What is looked up before a submission is accepted, while somebody else commits."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from ledger.admission import admit
from ledger.errors import StoreError
from ledger.event_log import LogStore
from ledger.store import LookedUp
from services.distributed.lookups import Lookups
from tests.support.ledgers import DEPARTMENT_KEY, REGISTER, decision, submission

CANDIDATE = admit(submission(REGISTER, [decision(0)], [DEPARTMENT_KEY]))


class Counting:
    """A store that holds nothing. It counts the questions."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def look_up(self, _register: str, ids: list[bytes], _record_ids: list[bytes]) -> LookedUp:
        self.asked.append(len(ids))
        return LookedUp([], {}, {})


class Away:
    """A store that does not answer."""

    def look_up(self, *_: Any) -> LookedUp:
        raise StoreError("away")


async def test_all_who_wait_are_looked_up_together() -> None:
    """If false, every submission would cost questions of its own."""
    store = Counting()
    lookups = Lookups(cast("LogStore", store))
    await asyncio.gather(*(lookups.held(CANDIDATE) for _ in range(50)))
    lookups.close()
    assert store.asked == [50]


async def test_a_store_that_is_away_is_told_to_all() -> None:
    """If false, callers would wait for ever."""
    lookups = Lookups(cast("LogStore", Away()))
    answers = await asyncio.gather(*(lookups.held(CANDIDATE) for _ in range(3)), return_exceptions=True)
    lookups.close()
    assert [type(answer) for answer in answers] == [StoreError] * 3

"""Seals as a reading process takes them in: news, threads that look at the same time, and other witnesses."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from prometheus_client import CollectorRegistry

from ledger.governing import GOVERNING
from ledger.ledger import LedgerView
from ledger.notes import SignerKey, cosignature_line, format_note, split_note
from ledger.store import Cosigned, NewCosignatures, StoredNote
from ledger.stores.memory import MemoryStore
from services.distributed import following_checkpoints
from services.distributed.following_checkpoints import CheckpointFollower
from services.distributed.settings import DistributedSettings
from services.published import Published
from services.witness_policy import PolicyInForce
from tests.support.growing_log import key
from tests.support.ledgers import DEPARTMENT, ORIGIN, POLICY, REGISTER, LedgerUnderTest, open_ledger

ONE: Final = SignerKey("one.example/w", key("one"))
TWO: Final = SignerKey("two.example/w", key("two"))
OTHER: Final = f"{DEPARTMENT}/minister"
PATIENCE: Final = 5.0
"""Seconds in which what is not told at once would not be told either, where nobody looks again."""

Message = tuple[bytes, bytes]


class WatchedStore(MemoryStore):
    """A store that tells who has looked for cosignatures of which register, and calls `found` in between."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[tuple[str, threading.Thread]] = []
        self.found: Callable[[], None] | None = None

    def last_cosigned(self, register: str, by: tuple[str, int], at_most: int) -> Cosigned | None:
        self.looks.append((register, threading.current_thread()))
        found = super().last_cosigned(register, by, at_most)
        if (call := self.found) is not None:
            self.found = None
            call()
        return found


class Replica:
    """A process that reads a ledger which grows elsewhere: `held`, whose first witness is `ONE`."""

    def __init__(self, path: Path) -> None:
        self.store = WatchedStore()
        self.held: LedgerUnderTest = open_ledger(self.store, path / "marks")
        self.ask(ONE)
        self.held.open_register(OTHER)
        self.held.add([0])
        self._save()
        self.view = LedgerView(self.store, ORIGIN)
        self.view.follow(self.store.heads()[GOVERNING].size)
        self.published = Published(self.store, PolicyInForce(self.view, time.time))
        settings = DistributedSettings(origin=ORIGIN, kafka="nowhere:1", database="host=127.0.0.1")
        self.follower = CheckpointFollower(settings, self.view, self.published, CollectorRegistry())

    def _save(self) -> None:
        self.held.ledger.turn().commit(self.held.published.unsaved())
        self.held.published.saved()

    def ask(self, witness: SignerKey) -> Message:
        """Publish a policy that asks this witness; return the news of it."""
        text = f"log {POLICY.logs[0].key}\nwitness w {witness.cosigner} http://w.example\nquorum w\n"
        self.held.govern(
            "policy.published/1", kind="witness", name="any", effective_from="2026-01-01T00:00Z", text=text
        )
        self._save()
        return GOVERNING.encode(), self.held.published.latest(GOVERNING).note

    def cosign(self, witness: SignerKey, register: str = REGISTER) -> Message:
        """Keep a witness's cosignature of a register's latest checkpoint; return the news of it."""
        latest = self.held.published.latest(register)
        text, signed = split_note(latest.note)
        line = cosignature_line(text, witness, 1_790_000_000)
        self.store.keep_cosignatures([NewCosignatures(register, StoredNote(latest.size, latest.note), [line])])
        return register.encode(), format_note(text, [*signed, line])

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[tuple[asyncio.Task[object], asyncio.Event]]:
        """Wait for the seal, as a submission does, and as a stream of checkpoints."""
        stirred = asyncio.Event()
        waiter: asyncio.Task[object] = asyncio.create_task(self.published.until_sealed(REGISTER, 1))
        await asyncio.sleep(0)
        try:
            with self.published.stirring(REGISTER, stirred):
                yield waiter, stirred
        finally:
            waiter.cancel()


@pytest.fixture
def replica(tmp_path: Path) -> Replica:
    return Replica(tmp_path)


@pytest.fixture
def only_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all come by news, and nothing by looking again."""
    monkeypatch.setattr(following_checkpoints, "LOOK_AGAIN", 600.0)


@pytest.fixture
def only_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the store looked through again and again."""
    monkeypatch.setattr(following_checkpoints, "LOOK_AGAIN", 0.01)
    monkeypatch.setattr(following_checkpoints, "LOOK_FOR_SEALS", 0.01)


async def told(waiter: asyncio.Task[object], stirred: asyncio.Event) -> None:
    """Return when both who wait are told. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE):
        await stirred.wait()
        assert await waiter is not None


@pytest.mark.usefixtures("only_news")
async def test_a_seal_whose_news_comes_while_a_thread_finds_none_is_shown(replica: Replica) -> None:
    """If false, whoever registers would be told of the seal seconds late, by the next look at the store."""
    async with replica.follower.fed():
        read, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            read.set()
            go_on.wait()

        replica.store.found = hold
        first = asyncio.create_task(asyncio.to_thread(replica.published.sealed, REGISTER))
        await asyncio.to_thread(read.wait)
        try:
            await replica.follower.take([replica.cosign(ONE)])
        finally:
            go_on.set()
        await first
        async with replica.waiting() as (waiter, _):
            async with asyncio.timeout(PATIENCE):
                assert await waiter is not None


@pytest.mark.usefixtures("only_news")
async def test_news_of_a_seal_that_nobody_has_asked_for_does_not_hold_up_the_event_loop(
    replica: Replica,
) -> None:
    """If false, every caller would wait for the store whenever a register is first sealed."""
    async with replica.follower.fed():
        await replica.follower.take([replica.cosign(ONE)])
        assert replica.published.known_seals()[REGISTER] is not None
        assert threading.main_thread() not in {thread for _, thread in replica.store.looks}


@pytest.mark.usefixtures("only_news")
@pytest.mark.parametrize("found_first", [False, True], ids=["by-news", "found-by-another-caller"])
async def test_news_of_a_seal_by_a_new_policy_is_told_to_who_has_waited_since_before(
    replica: Replica, found_first: bool
) -> None:
    """If false, a change of witnesses would leave waiting for ever who waits for a seal."""
    async with replica.follower.fed(), replica.waiting() as (waiter, stirred):
        await replica.follower.take([replica.ask(TWO)])
        news = replica.cosign(TWO)
        if found_first:
            assert replica.published.sealed(REGISTER) is not None
        await replica.follower.take([news])
        await told(waiter, stirred)


@pytest.mark.usefixtures("only_looks")
@pytest.mark.parametrize("found_first", [False, True], ids=["by-the-look", "found-by-another-caller"])
async def test_a_seal_by_a_new_policy_of_which_no_news_comes_is_told_all_the_same(
    replica: Replica, found_first: bool
) -> None:
    """If false, who waits for a seal would not be told of one that Kafka has lost."""
    async with replica.follower.fed(), replica.waiting() as (waiter, stirred):
        await replica.follower.take([replica.ask(TWO)])
        replica.cosign(TWO)
        if found_first:
            assert replica.published.sealed(REGISTER) is not None
        await told(waiter, stirred)


@pytest.mark.usefixtures("only_news")
async def test_a_seal_is_told_once(replica: Replica) -> None:
    """If false, every look at the store would wake whoever waits for the next seal."""
    async with replica.follower.fed(), replica.waiting() as (waiter, stirred):
        news = replica.cosign(ONE)
        await replica.follower.take([news])
        await told(waiter, stirred)
        stirred.clear()
        await replica.follower.take([news])
        assert not stirred.is_set()


@pytest.mark.usefixtures("only_looks")
async def test_seals_that_nobody_waits_for_are_not_looked_for(replica: Replica) -> None:
    """If false, each look would read the store for every one of thousands of registers."""
    async with replica.follower.fed(), replica.waiting() as (waiter, stirred):
        replica.cosign(ONE, OTHER)
        replica.cosign(ONE)
        await told(waiter, stirred)
        assert {register for register, _ in replica.store.looks} == {REGISTER}

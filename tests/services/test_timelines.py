"""Timelines that are read while nobody waits for them any more, while there is news, and at the end.

A store here reads a timeline no further than its gate, so that a test says when what happens.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from daybook.audit.v1 import audit_service_pb2 as pb

from ledger.errors import StoreError
from ledger.governing import GOVERNING
from ledger.store import Cosigned
from ledger.stores.memory import MemoryStore
from ledger.timeline import Bounds
from services.published import Published
from services.time_bounds import Timelines
from tests.support.audit_server import seal, witnessed
from tests.support.ledger_dir import LedgerOnDisk
from tests.support.ledgers import REGISTER, LedgerUnderTest, open_ledger
from tests.support.monitored import BEGAN, WITNESSED
from tests.support.scripted_witness import ScriptedWitness
from tests.support.served import served
from tests.support.witnessed import PATIENCE, deciding, policy_text, publishing


class GatedStore(MemoryStore):
    """Tells whose cosignatures are all read. Whoever reads them waits at the gate, then fails with `error`."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.read: list[str] = []
        self.at_work = 0
        self.error: Exception | None = None

    def cosigned(self, register: str, begin: int, end: int) -> Iterator[Cosigned]:
        if (begin, end) != (0, 1 << 40):
            yield from super().cosigned(register, begin, end)
            return
        self.read.append(register)
        self.at_work += 1
        found = list(super().cosigned(register, begin, end))
        self.gate.wait(PATIENCE)
        self.at_work -= 1
        if self.error is not None:
            raise self.error
        yield from found


@pytest.fixture
def store() -> Iterator[GatedStore]:
    made = GatedStore()
    yield made
    made.gate.set()


@pytest.fixture
def held(store: GatedStore, tmp_path: Path) -> LedgerUnderTest:
    """A ledger with one entry, which two witnesses have cosigned at `BEGAN`."""
    made = witnessed(open_ledger(store, tmp_path / "marks"))
    made.add([0])
    seal(made, BEGAN)
    made.ledger.turn().commit(made.published.unsaved())
    return made


@pytest.fixture
async def timelines(held: LedgerUnderTest, store: GatedStore) -> AsyncIterator[Timelines]:
    made = Timelines(held.published)
    yield made
    store.gate.set()
    await made.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.002)


async def bounds(timelines: Timelines, index: int = 0, register: str = REGISTER) -> Bounds:
    async with asyncio.timeout(PATIENCE):
        found = await timelines.of(register)
    assert found is not None
    return found[0].bounds(index)


async def given_up(timelines: Timelines, register: str = REGISTER) -> None:
    """Ask as a client does whose deadline comes while the timeline is being read."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0.02):
            await timelines.of(register)


def keep_second(held: LedgerUnderTest, timelines: Timelines) -> None:
    """Have a second entry cosigned, ten seconds after the first, and tell of it as the cosigner does."""
    held.add([1])
    size = seal(held, BEGAN + 10)
    for one in MemoryStore.cosigned(held.ledger.store, REGISTER, size, size + 1):  # type: ignore[arg-type]
        timelines.kept(REGISTER, size, [one.first])


async def test_a_timeline_is_read_once_whoever_gives_up(store: GatedStore, timelines: Timelines) -> None:
    """If false, a reader with short deadlines could put every thread at work, again and again for nothing."""
    for _ in range(12):
        await given_up(timelines)
    await until(lambda: store.at_work > 0)
    assert (store.at_work, store.read) == (1, [REGISTER])
    store.gate.set()
    assert await bounds(timelines) == Bounds(None, BEGAN, True)
    assert await bounds(timelines, 1) == Bounds(BEGAN, None, True)
    assert store.read == [REGISTER]


async def test_timelines_of_many_registers_take_no_thread_from_others(
    store: GatedStore, held: LedgerUnderTest, timelines: Timelines
) -> None:
    """If false, a reader who asks about one register after the other could stall all that goes by threads."""
    names = [f"department-{number}/minister" for number in range(40)]
    for name in names:
        held.open_register(name)
    for name in names:
        asking = asyncio.create_task(timelines.of(name))
        await asyncio.sleep(0)
        asking.cancel()
    await until(lambda: store.at_work > 0)
    async with asyncio.timeout(PATIENCE / 2):
        await asyncio.to_thread(lambda: None)
    assert (store.at_work, store.read) == (1, names[:1])
    store.gate.set()
    assert await bounds(timelines) == Bounds(None, BEGAN, True)
    assert store.read == [*names, REGISTER]


async def test_news_that_come_while_it_is_read_are_taken_in(
    store: GatedStore, held: LedgerUnderTest, timelines: Timelines
) -> None:
    """If false, what was kept while a timeline was read would be missing in it for ever."""
    await given_up(timelines)
    await until(lambda: store.at_work == 1)
    keep_second(held, timelines)
    store.gate.set()
    assert await bounds(timelines, 1) == Bounds(BEGAN, BEGAN + 10, True)
    assert store.read == [REGISTER]


async def test_whoever_asks_after_another_process_has_kept_more_is_told_of_it(
    store: GatedStore, held: LedgerUnderTest, timelines: Timelines
) -> None:
    """If false, an answer could be older than what was kept before the question."""
    before = asyncio.create_task(bounds(timelines, 1))
    await until(lambda: store.at_work == 1)
    held.add([1])
    seal(held, BEGAN + 10)
    timelines.forget(REGISTER)
    after = [asyncio.create_task(bounds(timelines, 1)) for _ in range(3)]
    await given_up(timelines)
    assert store.read == [REGISTER], "one at a time is read of a register"
    store.gate.set()
    assert await before == Bounds(BEGAN, None, True)
    assert await asyncio.gather(*after) == [Bounds(BEGAN, BEGAN + 10, True)] * 3
    assert store.read == [REGISTER] * 2


async def test_what_was_read_under_another_policy_is_not_kept(store: GatedStore, held: LedgerUnderTest) -> None:
    """If false, bounds could rest on witnesses whom governance has dismissed meanwhile."""
    policy = WITNESSED
    published = Published(store, lambda: policy)
    published.add(held.published.registers())
    timelines = Timelines(published)
    await given_up(timelines)
    await until(lambda: store.at_work == 1)
    policy = type(WITNESSED).parse(WITNESSED.text().replace(b"group two-of-three 2", b"group two-of-three 3"))
    asking = asyncio.create_task(bounds(timelines))
    await asyncio.sleep(0)
    store.gate.set()
    # Two have cosigned.
    assert await asking == Bounds(None, None, True)
    assert await bounds(timelines) == Bounds(None, None, True)
    await timelines.aclose()


async def test_a_failure_is_told_to_all_who_wait_and_the_next_one_reads_anew(
    store: GatedStore, timelines: Timelines
) -> None:
    """If false, a store that was away once would be away for ever, or its failure in the log as a bug."""
    logged: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    store.error = StoreError("away")
    await given_up(timelines)
    waiting = [asyncio.create_task(timelines.of(REGISTER)) for _ in range(2)]
    await asyncio.sleep(0)
    store.gate.set()
    for each in waiting:
        with pytest.raises(StoreError, match="away"):
            await each
    # And one whose callers have all given up.
    store.gate.clear()
    await given_up(timelines)
    await until(lambda: store.at_work == 1)
    store.gate.set()
    await until(lambda: store.at_work == 0)
    store.error = None
    while True:
        with suppress(StoreError):
            assert await bounds(timelines) == Bounds(None, BEGAN, True)
            break
    assert store.read == [REGISTER] * 3
    waiting.clear()
    gc.collect()
    await asyncio.sleep(0)
    assert logged == []


async def test_the_end_waits_for_what_is_read_and_begins_nothing_more(
    store: GatedStore, timelines: Timelines
) -> None:
    """If false, a store could be closed under a thread that reads it."""
    await given_up(timelines)
    await until(lambda: store.at_work == 1)
    queued = asyncio.create_task(timelines.of(GOVERNING))
    await asyncio.sleep(0)
    closing = asyncio.create_task(timelines.aclose())
    await asyncio.wait({closing}, timeout=0.1)
    assert not closing.done()
    store.gate.set()
    async with asyncio.timeout(PATIENCE):
        await closing
    assert (store.at_work, store.read) == (0, [REGISTER])
    for asked in (queued, timelines.of(REGISTER)):
        with pytest.raises(StoreError, match="closed"):
            await asked


async def test_a_server_stops_after_what_it_reads_for_nobody(
    ledger: LedgerOnDisk, one: ScriptedWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, a stopping server would close its file under a thread that reads it."""
    entered, gate, read = threading.Event(), threading.Event(), threading.Event()
    async with served(ledger.root, detections=False) as it:
        await it.govern("PublishPolicy", publishing(policy_text(ledger, [one.witness])))
        await it.until_all_sealed()
        await it.register(deciding())
        whole = it.opened.ledger.store.cosigned

        def gated(register: str, begin: int, end: int) -> Iterator[Cosigned]:
            entered.set()
            gate.wait(PATIENCE)
            yield from whole(register, begin, end)
            read.set()

        monkeypatch.setattr(it.opened.ledger.store, "cosigned", gated)
        call = it.caller.audit.GetTimeBounds(pb.GetTimeBoundsRequest(register=REGISTER, index=0))
        await it.until(entered.is_set)
        call.cancel()
        it.stop.asked.set()
        # Any other end comes before this.
        asyncio.get_running_loop().call_later(2.0, gate.set)
        await asyncio.wait({it.serving}, timeout=PATIENCE)
        assert it.serving.done()
        assert read.is_set()

"""Anchors: when a register's sealed checkpoint is carried into the governing register, and when not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from daybook.submission.v1.submission_pb2 import WaitFor

import services.serving
from ledger.anchors import Anchored, anchored_by, satisfies
from ledger.checkpoints import Checkpoint
from ledger.entries import parse_entry
from ledger.governing import GOVERNING
from ledger.governing_types import CheckpointAnchored
from ledger.hashing import Hash
from ledger.ledger import Appended, Ledger
from ledger.notes import SignerKey, sign_note, split_note
from ledger.own_records import checkpoint_anchored
from ledger.records import parse_record
from ledger.sealing import SealedReader
from ledger.stores.sqlite import SqliteStore
from ledger.witnessing import Policy, judge
from tests.support.ledger_dir import LedgerOnDisk, opening
from tests.support.ledgers import DEPARTMENT, DEPARTMENT_KEY, ORIGIN, REGISTER
from tests.support.scripted_witness import Exchange, ScriptedWitness, honestly, replies
from tests.support.served import Served, served
from tests.support.server_process import assert_fsck_finds_nothing
from tests.support.witnessed import deciding, policy_text, publishing

MAIN = f"{ORIGIN}/{REGISTER}"
OFFICE = f"{DEPARTMENT}/permanent-secretary"
LONG = 600.0
"""Seconds between two anchors where none is to come by itself."""


@asynccontextmanager
async def serving(
    ledger: LedgerOnDisk, witnesses: Sequence[ScriptedWitness], anchor_seconds: float
) -> AsyncIterator[Served]:
    """Serve a ledger that asks these witnesses, once it is all sealed."""
    async with served(ledger.root, anchor_seconds=anchor_seconds) as it:
        text = policy_text(ledger, [each.witness for each in witnesses])
        await it.govern("PublishPolicy", publishing(text))
        await it.until_all_sealed()
        yield it


def anchors(it: Served) -> list[Anchored]:
    """Return every anchor in the governing register, in order."""
    reader = it.opened.ledger.reader(GOVERNING)
    entries = range(it.opened.ledger.heads()[GOVERNING].size)
    opened = it.opened.ledger.fold.opened
    found = (anchored_by(index, parse_entry(reader.entry(index)), opened) for index in entries)
    return [each for each in found if each is not None]


async def test_a_register_is_anchored_when_it_has_changed_and_the_governing_register_never(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a register could be dropped whole, or the ledger would grow by itself for ever."""
    async with serving(ledger, [one, two], 0.2) as it:
        await it.until_anchored(0)
        await it.register(deciding(3))
        await it.until_anchored(3)
        assert [(each.register, each.size) for each in anchors(it)] == [(REGISTER, 0), (REGISTER, 3)]
        await it.until_all_sealed()
        size = it.published.latest(GOVERNING).size
        await asyncio.sleep(0.7)  # several times the interval
        assert it.published.latest(GOVERNING).size == size


async def test_what_is_anchored_is_the_sealed_note_verbatim(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, an anchor would prove no time, or carry lines of strangers."""
    async with serving(ledger, [one, two], 0.2) as it:
        await it.register(deciding(3))
        await it.until_anchored(3)
        entry = parse_entry(it.opened.ledger.reader(GOVERNING).entry(anchors(it)[-1].index))
        assert entry.membership is None
        record = parse_record(entry.record)
        assert isinstance(record, CheckpointAnchored)
        policy = it.published.policy
        assert policy is not None
        judged = judge(record.checkpoint.encode(), policy, MAIN)
        assert judged.sealed
        assert {line.name for line in split_note(record.checkpoint.encode())[1]} == {
            MAIN,
            one.key.name,
            two.key.name,
        }
    assert_fsck_finds_nothing(ledger.root)


async def test_a_new_register_is_anchored_at_once(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a register could be opened, used and dropped between two anchors (formats.md, section 11)."""
    async with serving(ledger, [one, two], LONG) as it:
        await it.until_anchored(0)
        await it.govern("OpenRegister", opening(OFFICE))
        await it.register(deciding(2, OFFICE))
        # From its beginning on, however soon it grows.
        await it.until_anchored(0, OFFICE)
        assert it.opened.ledger.anchors.latest(OFFICE) == Anchored(OFFICE, 0, anchors(it)[-1].index)


async def test_a_register_that_changes_all_the_time_is_anchored_at_the_interval(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, each checkpoint would become a governing entry."""
    interval = 1.0  # longer than between two looks for new registers
    async with serving(ledger, [one, two], interval) as it:
        await it.until_anchored(0)
        began = asyncio.get_running_loop().time()
        while (found := len(anchors(it))) < 4:
            await it.register(deciding())
        seconds = asyncio.get_running_loop().time() - began
        # One was there when this began, and the next may have been due at once.
        assert found <= 2 + seconds / interval


async def test_only_what_is_sealed_is_anchored(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, the governing register would commit to a history that nobody has seen."""
    async with serving(ledger, [one, two], 0.2) as it:
        await it.until_anchored(0)

        async def not_the_register(exchange: Exchange) -> None:
            await (replies(500) if exchange.checkpoint.origin == MAIN else honestly)(exchange)

        two.always(not_the_register)
        await it.register(deciding(3), WaitFor.WAIT_FOR_SEQUENCED)
        await it.govern("OpenRegister", opening(OFFICE))
        await it.until_anchored(0, OFFICE)
        assert {(each.register, each.size) for each in anchors(it)} == {(REGISTER, 0), (OFFICE, 0)}
        two.always(honestly)
        await it.until_anchored(3)


async def test_after_a_change_of_witnesses_every_register_is_anchored_once_more(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a register that is closed would never have an anchor that the verifiers of today accept."""
    async with serving(ledger, [one], 0.2) as it:
        await it.register(deciding(3))
        await it.until_anchored(3)
        two.always(replies(500))
        text = policy_text(ledger, [one.witness, two.witness])
        await it.register(publishing(text), WaitFor.WAIT_FOR_SEQUENCED)
        await asyncio.sleep(0.5)
        # Not before the new ones have sealed it.
        before = anchors(it)
        assert [(each.register, each.size) for each in before] == [(REGISTER, 0), (REGISTER, 3)]
        two.always(honestly)
        await it.until(lambda: len(anchors(it)) > len(before))
        policy = it.published.policy
        assert policy is not None
        await asyncio.sleep(0.7)  # several times the interval
        assert [(each.register, each.size) for each in anchors(it)[2:]] == [(REGISTER, 3)]
        assert it.opened.ledger.anchors.latest(REGISTER) == anchors(it)[-1]
        entry = it.opened.ledger.reader(GOVERNING).entry(anchors(it)[-1].index)
        assert satisfies(entry, policy, MAIN)
    assert_fsck_finds_nothing(ledger.root)


async def test_an_anchor_that_the_ledger_has_not_signed_is_passed_over(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, one forged entry would end the anchoring of a register for ever, and nobody were told."""
    async with serving(ledger, [one, two], 0.2) as it:
        await it.until_anchored(0)
        forged = sign_note(Checkpoint(MAIN, 1 << 62, Hash(bytes(32))).text(), [SignerKey(MAIN, DEPARTMENT_KEY)])
        outcome = await it.opened.sequencer.write(GOVERNING, checkpoint_anchored(forged))
        assert isinstance(outcome, Appended)
        await it.register(deciding(3))
        await it.until(lambda: (REGISTER, 3) in [(each.register, each.size) for each in anchors(it)])
        await it.until_anchored(3)
        assert it.opened.ledger.anchors.latest(REGISTER) == anchors(it)[-1]
        await it.register(deciding(2))
        await it.until(lambda: (REGISTER, 5) in [(each.register, each.size) for each in anchors(it)])
    store = SqliteStore(ledger.directory.store)
    try:
        latest = Ledger.open(store, ORIGIN).anchors.latest(REGISTER)
        assert latest is not None
        assert latest.size == 5, "after a start too"
    finally:
        store.close()


async def test_without_witnesses_nothing_is_anchored(ledger: LedgerOnDisk) -> None:
    """If false, anchors would look as if somebody had vouched for them."""
    async with served(ledger.root, anchor_seconds=0.1) as it:
        await it.register(deciding(3))
        await asyncio.sleep(0.4)
        assert anchors(it) == []


async def test_a_stop_leaves_every_register_sealed_and_anchored(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, what was registered last before a stop would be without an anchor until the next start."""
    # As long as a busy machine may need: the stop does not wait once all is sealed.
    monkeypatch.setattr(services.serving, "SETTLE_SECONDS", 60.0)
    async with serving(ledger, [one, two], LONG) as it:
        await it.until_anchored(0)
        await it.register(deciding(3))
        await it.govern("OpenRegister", opening(OFFICE))
        await it.register(deciding(2, OFFICE))
        policy = it.published.policy
        assert policy is not None
    assert_anchored(ledger, policy, {REGISTER: 3, OFFICE: 2})
    assert_fsck_finds_nothing(ledger.root)
    # And a start and a stop without anything new add nothing.
    before = _sizes(ledger)
    async with served(ledger.root, anchor_seconds=0.1, witness_refresh_seconds=0.1) as it:
        await it.until_all_sealed()
        await asyncio.sleep(0.5)
    assert _sizes(ledger) == before


def assert_anchored(ledger: LedgerOnDisk, policy: Policy, sizes: dict[str, int]) -> None:
    """Check in the files that every register is sealed, and anchored at these sizes."""
    store = SqliteStore(ledger.directory.store)
    try:
        opened = Ledger.open(store, ORIGIN)
        reader = SealedReader(store, policy)
        for register, head in opened.heads().items():
            sealed = reader.last_up_to(register, head.size)
            assert sealed is not None
            assert sealed.size == head.size
        latest = {register: opened.anchors.latest(register) for register in sizes}
        assert {register: each.size for register, each in latest.items() if each is not None} == sizes
    finally:
        store.close()


def _sizes(ledger: LedgerOnDisk) -> dict[str, int]:
    store = SqliteStore(ledger.directory.store)
    try:
        return {register: head.size for register, head in store.heads().items()}
    finally:
        store.close()

"""A change of witnesses opens no way around them: copies from before it are refused, and the ledger goes on."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from ledger.governing import GOVERNING
from services.compose import Embedded, embedded
from services.witness_policy import PolicyInForce
from services.witnessing import until_handed_over
from tests.services.test_confirming import sealed_at, signed, stops
from tests.support.ledger_dir import LedgerOnDisk
from tests.support.ledgers import ORIGIN, REGISTER
from tests.support.scripted_witness import ScriptedWitness, hangs, honestly, waits_for
from tests.support.witnessed import PATIENCE, copied, policy_text, witnessed

BEFORE_ALL = 1_000_000_000.0
"""A clock that has lost its time, POSIX seconds."""


def _asked_first(opened: Embedded) -> str | None:
    policy = opened.published.policy
    return policy.witnesses[0].name if policy else None


async def test_whom_a_new_policy_does_not_ask_any_more_is_told_of_it(
    ledger: LedgerOnDisk, tmp_path: Path, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a copy from before the change would be confirmed by the witnesses that it knows, and grow."""
    await sealed_at(ledger, 3, [one])
    backup = copied(ledger, tmp_path / "backup")
    async with witnessed(ledger.root) as it:
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        await it.publish(policy_text(ledger, [two.witness]))
        await it.add(2)
        await it.until_sealed(5)
        assert await until_handed_over(it.cosigner, PATIENCE)
    error = await stops(backup)
    assert f"{ORIGIN}/{GOVERNING}" in str(error)


async def test_the_handover_is_waited_for_from_the_moment_that_a_policy_is_published(
    ledger: LedgerOnDisk, tmp_path: Path, one: ScriptedWitness
) -> None:
    """If false, a command that publishes `quorum none` would end before its witnesses know of it."""
    await sealed_at(ledger, 3, [one])
    backup = copied(ledger, tmp_path / "backup")
    answer = asyncio.Event()
    async with witnessed(ledger.root) as it:
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        assert await until_handed_over(it.cosigner, PATIENCE)
        one.always(waits_for(answer))
        await it.publish(policy_text(ledger, [], "quorum none"))
        assert not await until_handed_over(it.cosigner, 0.1)
        answer.set()
        assert await until_handed_over(it.cosigner, PATIENCE)
    await stops(backup)


async def test_a_handover_that_was_cut_off_is_made_up_for(
    ledger: LedgerOnDisk, tmp_path: Path, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a stop just after the change would leave the old witnesses without it for ever."""
    await sealed_at(ledger, 3, [one])
    backup = copied(ledger, tmp_path / "backup")
    async with witnessed(ledger.root) as it:
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        one.always(hangs)
        await it.publish(policy_text(ledger, [two.witness]))
        await it.until_all_sealed()
        assert not it.cosigner.handed_over.is_set()
    one.always(honestly)
    async with witnessed(ledger.root) as it:
        assert await until_handed_over(it.cosigner, PATIENCE)
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        await it.add()
        await it.until_sealed(4)
    await stops(backup)


async def test_witnesses_who_have_never_seen_the_ledger_do_not_confirm_it(
    ledger: LedgerOnDisk, tmp_path: Path, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a policy whose time came after a copy was made would let that copy grow."""
    await sealed_at(ledger, 3, [one])
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 4))
    async with witnessed(ledger.root) as it:
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        await it.publish(policy_text(ledger, [two.witness]), since)
        await it.until_all_sealed()
    backup = copied(ledger, tmp_path / "backup")
    async with witnessed(ledger.root) as it:
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        await it.add(2)
        await it.until_sealed(5)
    before = signed(backup)
    with embedded(backup.directory) as opened:
        async with asyncio.timeout(30):
            while _asked_first(opened) != two.witness.name:  # noqa: ASYNC110 - a time that comes by itself
                await asyncio.sleep(0.05)
    await stops(backup)
    assert signed(backup) == before


async def test_a_new_policy_whose_witnesses_do_not_answer_can_be_corrected(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, one wrong address in a policy would leave the ledger unwritable after its next start."""
    await sealed_at(ledger, 3, [one])
    two.always(hangs)
    async with witnessed(ledger.root, witness_seconds=0.2) as it:
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        await it.publish(policy_text(ledger, [two.witness]))
        assert await until_handed_over(it.cosigner, PATIENCE)
    async with witnessed(ledger.root, witness_seconds=0.2) as it:
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        assert it.sealed_size() is None
        await it.publish(policy_text(ledger, [one.witness]))
        await it.add()
        await it.until_sealed(4)


async def test_a_clock_that_was_put_back_does_not_end_a_policy(
    ledger: LedgerOnDisk, tmp_path: Path, one: ScriptedWitness
) -> None:
    """If false, a machine without its time would take every register as confirmed, and ask nobody."""
    await sealed_at(ledger, 3, [one])
    async with witnessed(ledger.root) as it:
        in_force = PolicyInForce(it.opened.ledger, lambda: BEFORE_ALL)
        policy = in_force()
    assert policy is not None
    assert [each.name for each in policy.witnesses] == [one.witness.name]


async def test_a_witness_is_asked_where_it_was_before_if_its_new_address_is_wrong(
    ledger: LedgerOnDisk, one: ScriptedWitness
) -> None:
    """If false, one mistyped address of a witness that is known would leave the ledger unwritable."""
    await sealed_at(ledger, 3, [one])
    moved = replace(one.witness, url="http://127.0.0.1:9")
    async with witnessed(ledger.root) as it:
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        await it.publish(policy_text(ledger, [moved]))
        await it.add()
        await it.until_sealed(4)
    async with witnessed(ledger.root) as it:
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        await it.add()
        await it.until_sealed(5)

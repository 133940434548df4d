"""No second history: what witnesses must say before a register grows, and what makes the ledger stop.

Scripted witnesses with real keys; the real sequencer, cosigner, store and signer's marks (formats.md, 11).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from ledger.checkpoints import Checkpoint, sign_checkpoint
from ledger.errors import Reason, RejectedError, SplitViewError, StoreError
from ledger.governing import GOVERNING
from ledger.hashing import Hash
from ledger.notes import SignerKey
from ledger.store import Head
from ledger.stores.sqlite import SqliteStore
from services.client.signing import SignedSubmission
from services.ledger_files import read_secret_key
from services.signing import HighWaterMarks
from tests.support.ledger_dir import LedgerOnDisk, opening
from tests.support.ledgers import DEPARTMENT, ORIGIN, REGISTER
from tests.support.scripted_witness import (
    Behaviour,
    Exchange,
    ScriptedWitness,
    hangs,
    holds,
    honestly,
    replies,
    waits_for,
)
from tests.support.witnessed import Witnessed, copied, deciding, policy_text, witnessed

MAIN = f"{ORIGIN}/{REGISTER}"
OFFICE = f"{DEPARTMENT}/permanent-secretary"
TWO_OF_THREE = ("group most 2 one two three", "quorum most")


async def sealed_at(
    ledger: LedgerOnDisk, size: int, witnesses: list[ScriptedWitness], *lines: str
) -> SignedSubmission:
    """Leave the main register at a size, sealed by all of these witnesses, and nobody serving it."""
    submission = deciding(size)
    async with witnessed(ledger.root) as it:
        await it.publish(policy_text(ledger, [each.witness for each in witnesses], *lines))
        await it.send(submission)
        await it.until_all_sealed()
        await it.until(lambda: all(each.size_of(MAIN) == size for each in witnesses))
    return submission


@dataclass(frozen=True, slots=True)
class Signed:
    """What a ledger holds, and the largest that its signer has signed, by register."""

    heads: dict[str, Head]
    marks: dict[str, Checkpoint | None]


def signed(ledger: LedgerOnDisk) -> Signed:
    """Read both from the files of a ledger that nobody serves."""
    store = SqliteStore(ledger.directory.store)
    marks = HighWaterMarks(ledger.directory.marks)
    try:
        heads = dict(store.heads())
        return Signed(heads, {name: marks.latest(f"{ORIGIN}/{name}") for name in heads})
    finally:
        marks.close()
        store.close()


async def refuses_to_grow(it: Witnessed, register: str = REGISTER) -> None:
    """Check that a register takes nothing now, and says that one should ask again."""
    with pytest.raises(RejectedError, match="has not confirmed yet") as refused:
        await (it.add() if register == REGISTER else it.send(opening(OFFICE)))
    assert refused.value.reason is Reason.BACKEND_DOWN


# Before anything grows


@pytest.mark.parametrize(
    "silent",
    [hangs, replies(500), replies(403), replies(404), replies(429), replies(200, b"nothing\n")],
    ids=["hangs", "500", "403", "404", "429", "no cosignature"],
)
async def test_nothing_grows_before_a_quorum_has_confirmed_and_then_it_does_by_itself(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness, silent: Behaviour
) -> None:
    """If false, an older copy of a ledger would sign a second history while its witnesses are away."""
    known = await sealed_at(ledger, 4, [one, two])
    before = signed(ledger)
    two.always(silent)
    async with witnessed(ledger.root, witness_seconds=0.3) as it:
        await it.until(lambda: "granted" in it.observed.answers.get("one", ()))
        await it.until(lambda: two.witness.name in it.observed.answers)
        await refuses_to_grow(it)
        await refuses_to_grow(it, GOVERNING)
        # What is there is shown and answered for all the same, and is as sealed as it was.
        assert it.sealed_size() == 4
        again = await it.send(known)
        assert (again.known, again.run.count) == (True, 4)
        two.always(honestly)
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        await it.add()
        await it.until_sealed(5)
    after = signed(ledger)
    assert before.heads[REGISTER].size == 4
    assert after.heads[REGISTER].size == 5


async def test_a_quorum_is_enough_and_nothing_less(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness, three: ScriptedWitness
) -> None:
    """If false, one witness could let an older copy grow, or one that is away could stop a good one."""
    await sealed_at(ledger, 4, [one, two, three], *TWO_OF_THREE)
    answer = asyncio.Event()
    two.always(hangs)
    three.always(waits_for(answer))
    async with witnessed(ledger.root) as it:
        await it.until(lambda: it.observed.answers.get("one", []).count("granted") >= 2)
        await refuses_to_grow(it)
        answer.set()
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        await it.add()
        await it.until_sealed(5)


async def test_a_witness_that_is_behind_confirms(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a witness that was away would keep the ledger from growing (formats.md, section 11)."""
    await sealed_at(ledger, 4, [one, two], "group some any one two", "quorum some")
    await two.stop()
    async with witnessed(ledger.root) as it:
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        await it.add(3)
        await it.until_sealed(7)
    await two.start(two.port)
    one.always(hangs)
    async with witnessed(ledger.root) as it:
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        await it.until(lambda: two.size_of(MAIN) == 7)
        assert two.sizes(MAIN)[-2:] == [(7, 7), (4, 7)]


async def test_while_no_witness_is_asked_a_ledger_grows_and_goes_on_when_some_are(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a ledger without witnesses could not be used, or a policy that comes would stop it."""
    one.always(hangs)
    async with witnessed(ledger.root) as it:
        await it.add()
        await it.publish(policy_text(ledger, [one.witness, two.witness]))
        await it.add()
        one.always(honestly)
        await one.stop()
        await one.start(one.port)
        await it.until_all_sealed()


async def test_a_register_that_is_opened_meanwhile_grows_at_once(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a new register would wait for a confirmation of nothing; its beginning is sealed as well."""
    await sealed_at(ledger, 1, [one, two])
    async with witnessed(ledger.root) as it:
        await it.until(lambda: it.opened.sequencer.is_confirmed(GOVERNING))
        await it.send(opening(OFFICE))
        await it.until_sealed(0, OFFICE)
        await it.add(2, OFFICE)
        await it.until_sealed(2, OFFICE)
        assert one.sizes(f"{ORIGIN}/{OFFICE}") == [(0, 0), (0, 2)]


# What stops the ledger


async def stops(
    ledger: LedgerOnDisk, *, then: Callable[[Witnessed], Awaitable[object]] | None = None
) -> SplitViewError:
    """Return why the cosigner stops: at the start, where nothing is to be signed, or after `then`."""
    before = signed(ledger)
    async with witnessed(ledger.root) as it:
        if then is not None:
            await then(it)
        error = await it.failure()
    assert isinstance(error, SplitViewError), error
    if then is None:
        assert signed(ledger) == before
    return error


async def test_a_witness_that_holds_more_stops_the_ledger_with_both_notes(
    ledger: LedgerOnDisk, tmp_path: Path, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, an older copy that was restored would sign a second history (promise P3)."""
    await sealed_at(ledger, 4, [one, two])
    backup = copied(ledger, tmp_path / "backup")
    async with witnessed(ledger.root) as it:
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        await it.add(3)
        await it.until_sealed(7)
    error = await stops(backup)
    assert f"{MAIN}: witness" in str(error)
    assert "holds 7 entries, where this ledger has 4" in str(error)
    assert b"\n4\n" in error.first
    assert error.second in (one.notes[MAIN], two.notes[MAIN])
    assert one.size_of(MAIN) == two.size_of(MAIN) == 7


async def test_one_witness_of_two_is_enough_to_stop_an_older_copy(
    ledger: LedgerOnDisk, tmp_path: Path, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, whoever restores an older copy had only to make one witness unreachable."""
    await sealed_at(ledger, 4, [one, two])
    backup = copied(ledger, tmp_path / "backup")
    async with witnessed(ledger.root) as it:
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        await it.add(3)
        await it.until_sealed(7)
    await one.stop()
    error = await stops(backup)
    assert "witness two holds 7 entries" in str(error)
    assert error.second == two.notes[MAIN]


@pytest.mark.parametrize(
    "dispute", [replies(422, b"roots differ\n"), replies(409, b"roots differ\n")], ids=["422", "409"]
)
async def test_a_word_of_another_root_at_the_start_stops_the_ledger(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness, dispute: Behaviour
) -> None:
    """If false, a copy that differs at the same size would go on (formats.md, section 11)."""
    await sealed_at(ledger, 4, [one, two])

    async def disputed(exchange: Exchange) -> None:
        await (dispute if exchange.checkpoint.origin == MAIN else honestly)(exchange)

    two.always(disputed)
    two.shown[MAIN] = b"whatever\n"
    error = await stops(ledger)
    assert "witness two knows another history" in str(error)
    assert b"shows no note" in error.second


async def test_a_dispute_while_catching_up_stops_the_ledger_whoever_else_has_confirmed(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a witness of another and shorter history would help to confirm this one."""
    await sealed_at(ledger, 4, [one, two], "quorum one")
    shorter = Checkpoint(MAIN, 2, Hash(b"\x01" * 32))
    two.latest[MAIN] = shorter
    # So that nothing seems to be lost: it never cosigned more than that.
    store = SqliteStore(ledger.directory.store)
    store._writer.execute("DELETE FROM cosignature WHERE name = ?", (two.key.name,))
    store.close()

    async def slowly(exchange: Exchange) -> None:
        if exchange.checkpoint.origin == MAIN:
            await one.until_asked(before + 2)
            await asyncio.sleep(0.05)
        await honestly(exchange)

    before = len(one.asked)
    two.always(slowly)
    error = await stops(ledger)
    assert f"{MAIN}: witness two knows another history (422" in str(error)


async def test_a_larger_size_while_running_stops_the_ledger(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, the ledger would go on beside another one that signs with its key (witness.md, section 2.1)."""
    await sealed_at(ledger, 4, [one, two])

    async def meanwhile(it: Witnessed) -> None:
        await it.until_all_sealed()
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        two.will(holds(6))
        await it.add()

    error = await stops(ledger, then=meanwhile)
    assert "witness two holds 6 entries, where this ledger has 5" in str(error)
    # It cannot show them: its word is told as what it is.
    assert b"shows no note" in error.second
    assert b"\n5\n" in error.first


def ours(ledger: LedgerOnDisk, size: int, root: bytes) -> bytes:
    """Return a note that the ledger's own key has signed, of another history."""
    secret = read_secret_key(ledger.directory.log_key).secret
    return sign_checkpoint(Checkpoint(MAIN, size, Hash(root)), SignerKey(MAIN, secret))


@pytest.mark.parametrize(
    ("size", "root"),
    [(2, b"\x01" * 32), (5, b"\x02" * 32), (900, b"\x03" * 32)],
    ids=["smaller", "same", "larger"],
)
async def test_a_dispute_with_evidence_stops_the_running_ledger(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness, size: int, root: bytes
) -> None:
    """If false, the proof that this ledger's key has signed two histories would be passed over."""
    await sealed_at(ledger, 4, [one, two])
    note = ours(ledger, size, root)

    async def meanwhile(it: Witnessed) -> None:
        await it.until_all_sealed()
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        two.shown[MAIN] = note
        two.will(replies(422, b"roots differ\n"))
        await it.add()

    error = await stops(ledger, then=meanwhile)
    assert "witness two holds a checkpoint of another history" in str(error)
    assert error.second == note


async def test_a_dispute_without_evidence_leaves_the_running_ledger_unsealed(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, one witness could stop any ledger by a word; or its word would be passed over in silence."""
    await sealed_at(ledger, 4, [one, two])
    stranger = SignerKey(MAIN, two.key.secret)
    async with witnessed(ledger.root) as it:
        await it.until_all_sealed()
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        honest = two.notes[MAIN]
        for number, shown in enumerate(
            (
                None,
                honest,  # a shorter checkpoint of this very history
                b"no note\n",
                sign_checkpoint(Checkpoint(MAIN, 900, Hash(bytes(32))), stranger),
                ours(ledger, 900, bytes(32)).replace(MAIN.encode(), f"{MAIN}s".encode()),
            )
        ):
            two.shown[MAIN] = shown
            two.will(replies(422, b"roots differ\n"))
            await it.add()
            await it.until(
                lambda: (
                    it.cosigner.standing(two.witness).troubles.get(REGISTER) == "refuses (422): roots differ"
                )
            )
            await it.until_sealed(5 + number)
        assert not it.following.done()


async def test_a_new_register_that_a_witness_knows_already_stops_the_ledger(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a register could be begun a second time, under an older copy of the governing register."""
    await sealed_at(ledger, 4, [one, two])
    two.latest[f"{ORIGIN}/{OFFICE}"] = Checkpoint(f"{ORIGIN}/{OFFICE}", 3, Hash(b"\x01" * 32))

    async def meanwhile(it: Witnessed) -> None:
        await it.until(lambda: it.opened.sequencer.is_confirmed(GOVERNING))
        await it.send(opening(OFFICE))

    error = await stops(ledger, then=meanwhile)
    assert f"{ORIGIN}/{OFFICE}: witness two holds 3 entries, where this ledger has 0" in str(error)


async def test_two_ledgers_of_one_key_never_have_one_size_cosigned_twice(
    ledger: LedgerOnDisk, tmp_path: Path, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a directory that was copied, and both copies served, would become two witnessed histories."""
    await sealed_at(ledger, 4, [one, two])
    other = copied(ledger, tmp_path / "other")
    async with witnessed(ledger.root) as it, witnessed(other.root) as fork:
        for each in (it, fork):
            await each.until(lambda each=each: each.opened.sequencer.is_confirmed(REGISTER))  # type: ignore[misc]
        ended = asyncio.ensure_future(
            asyncio.wait({it.following, fork.following}, return_when=asyncio.FIRST_COMPLETED)
        )
        while not ended.done():
            for each in (it, fork):
                await each.add()
            await asyncio.sleep(0)
        failed = [each.following.exception() for each in (it, fork) if each.following.done()]
        assert all(isinstance(error, SplitViewError) for error in failed)
        # Whichever goes on is alone.
        for each in (it, fork):
            if not each.following.done():
                with suppress(SplitViewError):
                    await each.until_all_sealed()
    assert_nothing_is_cosigned_twice(ledger, other)


def assert_nothing_is_cosigned_twice(*ledgers: LedgerOnDisk) -> None:
    """Compare every cosignature that any of the ledgers keeps: of one origin and size, one root."""
    seen: dict[tuple[str, int, tuple[str, int]], bytes] = {}
    for ledger in ledgers:
        store = SqliteStore(ledger.directory.store)
        try:
            for register, head in store.heads().items():
                for kept in store.cosigned(register, 0, head.size + 1):
                    note = store.note(register, kept.size)
                    assert note is not None
                    text = note.note.partition(b"\n\n")[0]
                    assert seen.setdefault((register, kept.size, kept.first.by), text) == text
        finally:
            store.close()
    assert seen


# Witnesses that have lost their state


def restored(witness: ScriptedWitness, size: int, note: bytes) -> None:
    """Put a witness back to where it was when it had cosigned `size` entries of the main register."""
    text = note.partition(b"\n\n")[0] + b"\n"
    witness.latest[MAIN] = Checkpoint.parse(text)
    assert witness.latest[MAIN].size == size
    witness.notes[MAIN] = note


def trouble(it: Witnessed, witness: ScriptedWitness) -> str:
    return it.cosigner.standing(witness.witness).troubles.get(REGISTER, "")


async def test_a_witness_that_was_restored_from_a_backup_is_refused_until_declared(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a witness that has forgotten could cosign a second history, and help to confirm it."""
    await sealed_at(ledger, 4, [one, two])
    earlier = two.notes[MAIN]
    async with witnessed(ledger.root) as it:
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        await it.add(3)
        await it.until_sealed(7)
        # While the ledger runs.
        restored(two, 4, earlier)
        await it.add()
        await it.until(lambda: "has lost its state: holds 4 entries, and had cosigned 7" in trouble(it, two))
        assert it.sealed_size() == 7
        assert "loststate" in it.observed.answers["two"]
    for _ in range(2):
        # After every start, and it confirms nothing.
        async with witnessed(ledger.root) as it:
            await it.until(lambda: "has lost its state: holds 4 entries" in trouble(it, two))
            await it.until(lambda: "granted" in it.observed.answers.get("one", ()))
            await refuses_to_grow(it)
            assert two.size_of(MAIN) == 4
            two_key = str(two.key.cosigner)
            assert it.opened.declared(two_key) is None
    async with witnessed(ledger.root) as it:
        await it.until(lambda: "has lost its state" in trouble(it, two))
        it.opened.declared.declare(two_key, int(time.time()))
        await it.until_sealed(8)
        assert trouble(it, two) == ""
        assert two.sizes(MAIN)[-1] == (4, 8)
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        # A second loss is one that was not declared.
        two.clock = lambda: time.time() + 100
        await it.add()
        await it.until_sealed(9)
        restored(two, 4, earlier)
        await it.add()
        await it.until(lambda: "holds 4 entries, and had cosigned 9" in trouble(it, two))


async def test_a_witness_that_begins_anew_has_lost_its_state_too(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, an emptied witness would be taken for a new one, under its old key."""
    await sealed_at(ledger, 4, [one, two])
    two.latest.clear()
    async with witnessed(ledger.root) as it:
        await it.until(lambda: "holds 0 entries, and had cosigned 4" in trouble(it, two))
        await refuses_to_grow(it)


async def test_a_word_that_has_been_overtaken_is_no_loss(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, two requests that cross on the way would raise an alarm, and put the witness off."""
    await sealed_at(ledger, 4, [one, two])
    async with witnessed(ledger.root) as it:
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        two.will(holds(3))
        await it.add()
        await it.until_sealed(5)
        assert "loststate" not in it.observed.answers["two"]
        assert two.sizes(MAIN)[-2:] == [(4, 5), (4, 5)]


async def test_a_damaged_list_of_declarations_stops_the_ledger(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, whoever spoils the file would have every loss forgiven, or none without a word."""
    await sealed_at(ledger, 4, [one, two])
    two.latest.clear()
    for text in ("{", "[]", '{"key": "yesterday"}'):
        ledger.directory.declared_witnesses.write_text(text, encoding="utf-8")
        async with witnessed(ledger.root) as it:
            error = await it.failure()
            assert isinstance(error, StoreError)
            assert "restored-witnesses.json is damaged" in str(error)

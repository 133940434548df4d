"""Cosigning: rounds with real keys over real sockets, and all that goes wrong with witnesses."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from ledger.governing import GOVERNING
from ledger.notes import cosignature_line, cosignature_time, open_note
from ledger.sealing import SealedReader
from ledger.witnessing import judge
from services.following import NOT_ASKED, TRIES
from tests.support.ledger_dir import LedgerOnDisk, opening
from tests.support.ledgers import DEPARTMENT, ORIGIN, REGISTER
from tests.support.scripted_witness import (
    Behaviour,
    Exchange,
    ScriptedWitness,
    cosigns,
    hangs,
    holds,
    honestly,
    replies,
    resets,
    waits_for,
)
from tests.support.small_disk import small_disk
from tests.support.witnessed import Witnessed, copied, policy_text, witnessed

MAIN = f"{ORIGIN}/{REGISTER}"
ANY = ("group some any one two", "quorum some")
TWO_OF_THREE = ("group most 2 one two three", "quorum most")


@pytest.fixture
def three_witnesses(
    one: ScriptedWitness, two: ScriptedWitness, three: ScriptedWitness
) -> Sequence[ScriptedWitness]:
    """All three."""
    return [one, two, three]


async def asking(
    it: Witnessed, ledger: LedgerOnDisk, witnesses: Sequence[ScriptedWitness], *lines: str
) -> None:
    """Publish a policy, and wait until what is there is sealed under it."""
    await it.publish(policy_text(ledger, [each.witness for each in witnesses], *lines))
    await it.until_all_sealed()


def cosigned_by(it: Witnessed, note: bytes) -> dict[str, int]:
    """Return who has sealed a note, by the policy in force, and when."""
    return {each.witness: each.time for each in judge(note, it.policy, MAIN).cosignatures}


# Rounds


async def test_witnesses_are_asked_at_once_and_the_quorum_seals(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, each witness would wait for the others, or a checkpoint be sealed by too few."""
    answer = asyncio.Event()
    async with witnessed(ledger.root) as it:
        await asking(it, ledger, [one, two])
        one.always(waits_for(answer))
        two.always(waits_for(answer))
        before = len(one.asked), len(two.asked)
        await it.add(3)
        # Neither answers before both are asked.
        await one.until_asked(before[0] + 1)
        await two.until_asked(before[1] + 1)
        assert it.sealed_size() == 0
        answer.set()
        sealed = await it.until_sealed(3)
        assert cosigned_by(it, sealed.note).keys() == {"one", "two"}


@pytest.mark.parametrize(
    ("lines", "enough", "too_few"),
    [
        (("quorum two",), ["two"], ["one three"]),
        (("group q any one two three", "quorum q"), ["one", "three"], [""]),
        (("group q all one two three", "quorum q"), ["one two three"], ["one two", "two three"]),
        (TWO_OF_THREE, ["one two", "two three", "one three"], ["one", "three"]),
        (
            ("group either any one two", "group q all either three", "quorum q"),
            ["one three", "two three"],
            ["one two", "three"],
        ),
    ],
    ids=["a witness", "any", "all", "two of three", "nested"],
)
async def test_a_checkpoint_is_sealed_exactly_when_the_quorum_holds(
    ledger: LedgerOnDisk,
    three_witnesses: Sequence[ScriptedWitness],
    lines: tuple[str, ...],
    enough: list[str],
    too_few: list[str],
) -> None:
    """If false, the ledger would call sealed what its own policy does not, or wait for more than it asks."""
    async with witnessed(ledger.root) as it:
        await asking(it, ledger, three_witnesses, *lines)
        size = 0
        for names, is_enough in [*((each, True) for each in enough), *((each, False) for each in too_few)]:
            for witness in three_witnesses:
                witness.always(honestly if witness.name in names.split() else replies(500))
            before = {witness.name: len(witness.asked) for witness in three_witnesses}
            await it.add()
            size += 1
            if is_enough:
                sealed = await it.until_sealed(size)
                assert cosigned_by(it, sealed.note).keys() <= set(names.split())
                continue
            for witness in three_witnesses:
                await witness.until_asked(before[witness.name] + 1)
            await it.until(
                lambda names=names: all(  # type: ignore[misc]
                    witness.name in names.split() or _trouble(it, witness) == "answered 500: as scripted"
                    for witness in three_witnesses
                )
            )
            assert it.sealed_size() == size - 1
            for witness in three_witnesses:
                witness.always(honestly)
            await it.until_sealed(size)


def _trouble(it: Witnessed, witness: ScriptedWitness) -> str | None:
    """Return what is said to be wrong with a witness in the main register."""
    return it.cosigner.standing(witness.witness).troubles.get(REGISTER)


async def test_a_slow_witness_holds_up_nobody_and_its_late_word_is_kept(
    ledger: LedgerOnDisk, three_witnesses: Sequence[ScriptedWitness], three: ScriptedWitness
) -> None:
    """If false, the slowest witness would set the pace, or a cosignature that cannot be made again be lost."""
    answer = asyncio.Event()
    async with witnessed(ledger.root) as it:
        await asking(it, ledger, three_witnesses, *TWO_OF_THREE)
        await it.until(lambda: three.size_of(MAIN) == 0 and MAIN in three.latest)
        three.always(waits_for(answer))
        for size in (1, 2, 3):
            await it.add()
            sealed = await it.until_sealed(size)
            assert cosigned_by(it, sealed.note).keys() == {"one", "two"}
        # It was asked once, and is not pressed while it thinks.
        assert three.sizes(MAIN)[-1] == (0, 1)
        answer.set()
        await it.until(lambda: three.size_of(MAIN) == 3)
        store = it.opened.ledger.store
        key = three.key.name, three.key.cosigner.key_id
        await it.until(lambda: store.last_cosigned(REGISTER, key, 3) is not None)
        late = store.next_cosigned(REGISTER, key, 1)
        assert late is not None
        assert late.size == 1


async def test_the_next_round_takes_the_latest_and_leaves_out_what_was_overtaken(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a busy register would be sealed ever further behind."""
    answer = asyncio.Event()
    async with witnessed(ledger.root) as it:
        await asking(it, ledger, [one, two])
        one.will(waits_for(answer))
        for _ in range(5):
            await it.add()
        answer.set()
        await it.until_sealed(5)
        assert one.sizes(MAIN)[-2:] == [(0, 1), (1, 5)]
        assert two.sizes(MAIN)[-2:] == [(0, 1), (1, 5)]


async def test_many_registers_are_sealed_at_once(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a register could wait for another's witnesses, or one of many be forgotten."""
    names = [f"{DEPARTMENT}/office-{number}" for number in range(40)]
    async with witnessed(ledger.root) as it:
        await asking(it, ledger, [one, two])
        for each in await asyncio.gather(*(it.send(opening(name)) for name in names)):
            assert not each.known
        await it.until_all_sealed()
        assert {it.sealed_size(name) for name in names} == {0}
        await asyncio.gather(*(it.add(2, name) for name in names))
        await it.until_all_sealed()
        assert {it.sealed_size(name) for name in names} == {2}
        assert len(it.observed.seals) >= 80
        assert all(0 <= seconds < 60 for seconds in it.observed.seals)


# Witnesses that do not cosign


REFUSALS: dict[str, tuple[Behaviour, str]] = {
    "400": (replies(400, b"no\n"), "refuses (400): no"),
    "403": (replies(403, b"who?\n"), "refuses (403): who?"),
    "404": (replies(404, b"who?\n"), "refuses (404): who?"),
    "409 without a size": (replies(409, b"other root\n"), "refuses (409): other root"),
    "422": (replies(422, b"other root\n"), "refuses (422): other root"),
    "429": (replies(429, b"later\n"), "answered 429: later"),
    "500": (replies(500, b"oops\n"), "answered 500: oops"),
    "503": (replies(503, b"later\n"), "answered 503: later"),
    "302": (replies(302, b"", Location="http://127.0.0.1:1/"), "answered 302: (no text)"),
    "a reset": (resets, ""),
    "a hang": (hangs, "did not answer in time"),
    "no cosignature": (replies(200, b""), "answered 200 without a good cosignature"),
    "a huge body": (replies(200, b"x" * 100_000), "answered with more than 16384 bytes"),
    "a clock ahead": (
        cosigns(lambda it: it.witness.cosignature(it.checkpoint.text(), int(time.time()) + 1_000)),
        "its clock is",
    ),
}


@pytest.mark.parametrize(("behaviour", "why"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_without_the_quorum_nothing_is_sealed_until_the_witness_cosigns_again(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness, behaviour: Behaviour, why: str
) -> None:
    """If false, a misbehaving witness would stop the ledger, or be done without in silence."""
    # Where nobody hangs, none runs out of time; and where one does, the other has as long as a stall lasts.
    async with witnessed(ledger.root, witness_seconds=6.0 if behaviour is hangs else 20.0) as it:
        await asking(it, ledger, [one, two])
        assert {each.trouble for each in it.cosigner.standings()} == {None}
        two.always(behaviour)
        await it.add()
        await it.until(lambda: _trouble(it, two) is not None)
        assert (_trouble(it, two) or "").startswith(why)
        assert _trouble(it, one) is None
        assert it.sealed_size() == 0
        # What the other one said is kept all the same: with more it may make a bound.
        await it.until(lambda: (REGISTER, 1, ("one.example/w",)) in it.observed.kept_lines)
        standings = {each.name: each for each in it.cosigner.standings()}
        assert (standings["two"].trouble or "").startswith(f"{REGISTER}: {why}")
        assert standings["one"].trouble is None
        two.always(honestly)
        sealed = await it.until_sealed(1)
        assert cosigned_by(it, sealed.note).keys() == {"one", "two"}
        assert {each.trouble for each in it.cosigner.standings()} == {None}
        # The one that had cosigned was not bothered again.
        assert one.sizes(MAIN).count((0, 1)) == 1


async def test_a_witness_that_was_down_seals_when_it_is_back(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a restart of a witness would leave the ledger unsealed until its own."""
    async with witnessed(ledger.root) as it:
        await asking(it, ledger, [one, two])
        await two.stop()
        for size in (1, 2):
            await it.add()
            await it.until(lambda: _trouble(it, two) is not None)
            assert it.sealed_size() == 0, size
        await two.start(two.port)
        sealed = await it.until_sealed(2)
        assert cosigned_by(it, sealed.note).keys() == {"one", "two"}


async def test_a_failing_witness_is_asked_less_and_less_often(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a witness in trouble would be asked as fast as it fails."""
    async with witnessed(ledger.root) as it:
        await asking(it, ledger, [one, two], *ANY)
        asked: list[float] = []

        async def note(exchange: Exchange) -> None:
            asked.append(time.monotonic())
            await exchange.reply(500)

        await it.until(lambda: MAIN in two.latest)
        two.always(note)
        await it.add()
        await it.until(lambda: len(asked) == 4)
        pauses = [later - earlier for earlier, later in pairwise(asked)]
        assert [pause > least for pause, least in zip(pauses, (0.24, 0.49, 0.99), strict=True)] == [True] * 3


async def test_a_witness_that_asks_for_time_is_given_it(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a busy witness would be pressed all the more."""
    async with witnessed(ledger.root) as it:
        await asking(it, ledger, [one, two])
        two.will(replies(429, b"busy\n", Retry_After="1"))
        began = time.monotonic()
        await it.add()
        await it.until_sealed(1)
        assert time.monotonic() - began > 0.99
        assert two.sizes(MAIN)[-2:] == [(0, 1), (0, 1)]


async def test_a_witness_without_an_address_is_never_asked_and_said_to_have_none(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, an incomplete policy would look like a witness that is down."""
    named = policy_text(ledger, [one.witness, two.witness]).replace(f" {two.url}", "")
    async with witnessed(ledger.root) as it:
        await it.publish(named)
        await it.until(lambda: _trouble(it, two) == "the witness policy names no URL for it")
        assert it.sealed_size() is None
        assert two.connections == 0


@pytest.mark.parametrize(
    ("policy", "behaviour"),
    [
        (ANY, honestly),
        (ANY, replies(500)),
        (ANY, hangs),
        ((), replies(403)),
        ((), replies(409, b"7\n")),
        ((), resets),
        ((), hangs),
    ],
    ids=["all is well", "one fails", "one hangs", "no quorum", "a dispute", "resets", "hangs"],
)
async def test_an_idle_ledger_does_nothing(
    ledger: LedgerOnDisk,
    one: ScriptedWitness,
    two: ScriptedWitness,
    policy: tuple[str, ...],
    behaviour: Behaviour,
) -> None:
    """If false, some state of a witness would keep a core busy, or the witness."""
    async with witnessed(ledger.root) as it:
        await asking(it, ledger, [one, two], *policy)
        two.always(behaviour)
        await it.add()
        await two.until_asked(len(two.asked) + (not policy))
        await asyncio.sleep(0.2)  # what is to settle has settled
        began, asked = time.process_time(), len(one.asked) + len(two.asked)
        await asyncio.sleep(0.5)
        assert time.process_time() - began < 0.25
        assert len(one.asked) + len(two.asked) - asked <= 4


# Witnesses that are behind


async def test_a_fresh_witness_is_caught_up(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a witness could be added to a new ledger only."""
    async with witnessed(ledger.root) as it:
        await it.add(5)
        await asking(it, ledger, [one, two])
        assert it.sealed_size() == 5
        # It is asked as if it knew what is stored, says that it knows nothing, and gets all.
        assert one.sizes(MAIN) == [(5, 5), (0, 5)]


@pytest.mark.parametrize(("held", "size"), [(1, 2), (1, 9), (4, 8), (6, 13), (255, 258)])
async def test_a_witness_that_is_behind_is_caught_up_with_a_proof(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness, held: int, size: int
) -> None:
    """If false, a witness that was away for a while would be lost for ever. It checks the proof."""
    async with witnessed(ledger.root) as it:
        await asking(it, ledger, [one, two], *ANY)
        await it.add(held)
        await it.until(lambda: two.size_of(MAIN) == held)
        await two.stop()
        await it.add(size - held)
        await it.until_sealed(size)
    await two.start(two.port)
    asked = len(two.sizes(MAIN))
    async with witnessed(ledger.root) as it:
        await it.until(lambda: two.size_of(MAIN) == size)
        assert two.sizes(MAIN)[asked:] == [(size, size), (held, size)]


async def test_a_ledger_that_runs_on_remembers_what_a_witness_holds(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, each checkpoint would take two requests."""
    async with witnessed(ledger.root) as it:
        await asking(it, ledger, [one, two])
        for size in range(1, 5):
            await it.add()
            await it.until_sealed(size)
        assert one.sizes(MAIN)[-4:] == [(0, 1), (1, 2), (2, 3), (3, 4)]


async def test_a_witness_that_cosigned_and_could_not_say_so_is_understood(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, an answer that was lost on the way would look like a second history."""

    async def lost(exchange: Exchange) -> None:
        exchange.witness.keep(exchange.request.note)
        exchange.reset()

    async with witnessed(ledger.root) as it:
        await asking(it, ledger, [one, two])
        two.will(lost)
        await it.add(2)
        await it.until_sealed(2)
        assert two.sizes(MAIN)[-3:] == [(0, 2), (0, 2), (2, 2)]


async def test_a_witness_that_names_another_size_each_time_is_left_for_a_while(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a confused witness would be asked for ever, as fast as it answers."""
    async with witnessed(ledger.root) as it:
        await it.add(9)
        await asking(it, ledger, [one, two])
        before = len(two.sizes(MAIN))
        # Sizes that it may hold: of what it has cosigned nothing is lost.
        two.will(*(holds(size) for _ in range(TRIES // 2) for size in (10, 9)))
        await it.add(1)
        await it.until(lambda: _trouble(it, two) is not None)
        assert _trouble(it, two) == f"named another size to go on from {TRIES} times"
        assert len(two.sizes(MAIN)) - before == TRIES
        await it.until_sealed(10)
        two.will(holds(10))
        await it.add(1)
        await it.until(lambda: _trouble(it, two) == "answered 409 with the size 10 that was sent")
        await it.until_sealed(11)


# What is kept


async def test_what_is_kept_verifies_and_is_of_the_policys_witnesses_only(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness, three: ScriptedWitness
) -> None:
    """If false, a witness could plant lines of others: they would count, or spoil the note for verifiers."""

    def plants(exchange: Exchange) -> bytes:
        text = exchange.checkpoint.text()
        others = [cosignature_line(text, each.key, int(time.time())).line for each in (two, three)]
        return b"".join([*others, exchange.witness.keep(exchange.request.note)])

    async with witnessed(ledger.root) as it:
        await asking(it, ledger, [one, two])
        one.always(cosigns(plants))
        two.always(replies(500))
        await it.add()
        await it.until(lambda: (REGISTER, 1, ("one.example/w",)) in it.observed.kept_lines)
        await it.until(lambda: _trouble(it, two) is not None)
        assert it.sealed_size() == 0
        two.always(honestly)
        await it.until_sealed(1)
        store = it.opened.ledger.store
        keys = {(each.key.name, each.key.cosigner.key_id): each.key.cosigner for each in (one, two)}
        for register, latest in it.published.registers().items():
            for kept in store.cosigned(register, 0, latest.size + 1):
                note = store.note(register, kept.size)
                assert note is not None
                for line in (kept.first, kept.last):
                    open_note(note.note + line.line, [keys[line.by]])
        assert {line.first.name for line in store.cosigned(REGISTER, 1, 2)} == {
            "one.example/w",
            "two.example/w",
        }


async def test_nothing_is_shown_as_sealed_before_it_is_durable(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a crash could take back a seal that a department has been told of."""
    answer = asyncio.Event()
    async with witnessed(ledger.root) as it:
        await asking(it, ledger, [one, two])
        # Its five seconds may pass before this test has looked.
        it.opened.ledger.store._writer.execute("PRAGMA busy_timeout = 60000")  # type: ignore[attr-defined]
        one.will(waits_for(answer))
        two.will(waits_for(answer))
        await it.add()
        with closing(sqlite3.connect(ledger.directory.store, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # nobody else can write
            answer.set()
            await it.until(lambda: one.size_of(MAIN) == two.size_of(MAIN) == 1)
            await it.until(
                lambda: it.observed.answers["one"][-1] == it.observed.answers["two"][-1] == "granted"
            )
            await asyncio.sleep(0.05)
            assert it.sealed_size() == 0
            reader = SealedReader(it.opened.ledger.store, it.policy)
            assert reader.first_covering(REGISTER, 0) is None
            other.execute("ROLLBACK")
        await it.until_sealed(1)


async def test_the_time_of_an_idle_checkpoint_is_refreshed_and_the_first_is_kept(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, that nothing was added for a week could not be proved, or how early an entry was known."""
    now = int(time.time())
    for witness in (one, two):
        witness.clock = lambda: now
    async with witnessed(ledger.root, refresh=0.1) as it:
        await asking(it, ledger, [one, two])
        await it.add(3)
        first = await it.until_sealed(3)
        assert cosigned_by(it, first.note) == {"one": now, "two": now}
        seals = len(it.observed.seals)
        began, now = now, now + 100
        await it.until(lambda: cosigned_by(it, _sealed(it)) == {"one": began + 100, "two": began + 100})
        assert one.sizes(MAIN)[-1] == (3, 3)
        now = began + 50  # a clock that goes back
        await it.until(lambda: len(one.sizes(MAIN)) == len(two.sizes(MAIN)) > 8)
        store = it.opened.ledger.store
        for kept in store.cosigned(REGISTER, 3, 4):
            assert cosignature_time(kept.first.signature) == began
            assert cosignature_time(kept.last.signature) == began + 100
        # The latest by time is what is shown; and a refresh is no seal of anything new.
        assert cosigned_by(it, _sealed(it)) == {"one": began + 100, "two": began + 100}
        assert len(it.observed.seals) == seals


def _sealed(it: Witnessed) -> bytes:
    sealed = it.published.sealed(REGISTER)
    assert sealed is not None
    return sealed.note


async def test_a_refresh_that_fails_leaves_the_seal(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a sealed checkpoint would turn unsealed when a witness goes away."""
    async with witnessed(ledger.root, refresh=0.1) as it:
        await asking(it, ledger, [one, two])
        await it.add(3)
        await it.until_sealed(3)
        two.always(replies(500))
        await it.until(lambda: _trouble(it, two) is not None)
        assert it.sealed_size() == 3
        two.always(honestly)
        await it.until(lambda: _trouble(it, two) is None)


async def test_with_no_room_for_cosignatures_nothing_is_sealed_and_nobody_pressed(
    made: LedgerOnDisk, tmp_path: Path, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a full disk would have witnesses asked as fast as they answer, or lose what they said."""
    answer = asyncio.Event()
    with small_disk(tmp_path / "disk", 16) as disk:
        if disk.within:
            pytest.skip("needs a disk that this process sees")
        ledger = copied(made, disk.seen / "ledger")
        async with witnessed(ledger.root) as it:
            await asking(it, ledger, [one, two])
            one.will(waits_for(answer))
            two.will(waits_for(answer))
            await it.add()
            disk.fill()
            answer.set()
            await it.until(lambda: one.size_of(MAIN) == two.size_of(MAIN) == 1)
            asked = len(one.asked), len(two.asked)
            await asyncio.sleep(0.5)
            assert it.sealed_size() == 0
            assert (len(one.asked), len(two.asked)) == asked
            disk.free()
            await it.until_sealed(1)
            # What they had said was kept: nobody was asked again.
            assert (len(one.asked), len(two.asked)) == asked


# For people


async def test_before_the_first_answer_a_witness_is_said_not_to_have_been_asked(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a ledger that has just started would claim that its witnesses cosign."""
    answer = asyncio.Event()
    for witness in (one, two):
        witness.always(waits_for(answer))
    async with witnessed(ledger.root) as it:
        assert it.cosigner.standings() == []
        await it.publish(policy_text(ledger, [one.witness, two.witness]))
        assert [each.trouble for each in it.cosigner.standings()] == [NOT_ASKED, NOT_ASKED]
        answer.set()
        await it.until_all_sealed()
        assert [each.trouble for each in it.cosigner.standings()] == [None, None]


async def test_trouble_in_one_register_is_not_hidden_by_success_in_another(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a register could stay unsealed while all witnesses are said to cosign."""

    async def not_the_main(exchange: Exchange) -> None:
        await (replies(404, b"who?\n") if exchange.checkpoint.origin == MAIN else honestly)(exchange)

    async with witnessed(ledger.root) as it:
        two.always(not_the_main)
        await it.publish(policy_text(ledger, [one.witness, two.witness]))
        await it.until_sealed(4, GOVERNING)
        await it.until(lambda: _trouble(it, two) is not None)
        await it.send(opening(f"{DEPARTMENT}/office"))
        await it.until_sealed(5, GOVERNING)
        (standing,) = [each for each in it.cosigner.standings() if each.name == "two"]
        assert standing.trouble == f"{REGISTER}: refuses (404): who?"
        assert standing.cosigned_at is not None

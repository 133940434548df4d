"""Witnessed ledgers: what must be sealed and anchored is asked for, by clocks that no operator sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.errors import VerificationError
from ledger.governing import GOVERNING
from ledger.split_views import SplitView, verify_split_view
from services.monitoring.findings import Finding, Kind
from services.monitoring.rounds import ANCHOR_WITHIN
from tests.support.ledger_story import SECOND
from tests.support.ledgers import REGISTER
from tests.support.monitored import BEGAN, WITNESSED, WITNESSES, Monitored, monitored, seal, sign

CHECKPOINT = f"/logs/{REGISTER}/checkpoint"


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Monitored]:
    """A ledger with a register of 10 entries, sealed after 10 seconds, and anchored after 20."""
    with monitored(tmp_path, WITNESSED) as it:
        it.held.fill(10)
        it.publish(at=10)
        it.anchor()
        it.publish(at=20)
        yield it


async def findings(it: Monitored, at: int) -> list[Finding]:
    made = await it.round(at)
    assert made.troubles == []
    return made.findings


async def kinds(it: Monitored, at: int) -> list[tuple[Kind, str]]:
    return [(each.kind, each.register) for each in await findings(it, at)]


async def test_what_is_sealed_and_anchored_in_time_is_fine_however_late_one_looks(it: Monitored) -> None:
    """False if an honest ledger were accused of what it did in time."""
    assert await kinds(it, 30) == []
    it.refresh(REGISTER, 5_000)
    it.refresh(GOVERNING, 5_000)
    made = await it.round(5_000)
    assert made.findings == []
    assert made.anchors == 0  # it was compared in the first round
    it.held.fill(12)
    it.publish(at=6_000)
    assert await kinds(it, 6_000) == []
    it.anchor()
    it.publish(at=6_000 + ANCHOR_WITHIN)
    made = await it.round(6_000 + ANCHOR_WITHIN)
    assert (made.findings, made.anchors) == ([], 1)


async def test_a_register_that_is_not_anchored_is_found_by_the_witnesses_clocks(it: Monitored) -> None:
    """False if the governing root could stop committing to a register, and somebody new would not see it."""
    it.held.fill(11)
    it.publish(at=100)
    it.refresh(GOVERNING, 100 + ANCHOR_WITHIN)
    assert await kinds(it, 100 + ANCHOR_WITHIN) == []
    it.refresh(GOVERNING, 101 + ANCHOR_WITHIN)
    (finding,) = await findings(it, 101 + ANCHOR_WITHIN)
    assert (finding.kind, finding.register) == (Kind.UNANCHORED, REGISTER)
    assert (
        f"of size 11 has had no anchor for {ANCHOR_WITHIN + 1} s; the last anchor is of size 10" in finding.what
    )
    assert finding.notes == (it.notes[REGISTER], it.notes[GOVERNING])


async def test_refreshing_a_checkpoint_does_not_make_it_younger(it: Monitored) -> None:
    """False if fresh cosignatures of a checkpoint hid for how long it has had no anchor."""
    it.held.fill(11)
    it.publish(at=100)
    assert await kinds(it, 101) == []
    it.refresh(REGISTER, 1_100)
    it.refresh(GOVERNING, 1_100)
    # By one's own clock 700 seconds have passed.
    assert await kinds(it, 801) == [(Kind.UNANCHORED, REGISTER)]


async def test_growing_on_does_not_make_what_is_not_anchored_younger(it: Monitored) -> None:
    """False if a register that grows every minute could go without an anchor for ever."""
    for minute in range(1, 16):
        it.held.fill(10 + minute)
        it.publish(at=60 * minute)
        assert await kinds(it, 60 * minute) == [], minute
    it.held.fill(30)
    it.publish(at=61 + ANCHOR_WITHIN)
    assert await kinds(it, 61 + ANCHOR_WITHIN) == [(Kind.UNANCHORED, REGISTER)]


async def test_an_operator_who_stops_the_governing_registers_clock_is_found_by_ones_own(it: Monitored) -> None:
    """False if no cosignature of the governing register, so no time, meant that nothing is ever overdue."""
    it.held.fill(11)
    it.publish(at=100)
    assert await kinds(it, 110) == []
    assert await kinds(it, 110 + ANCHOR_WITHIN) == []
    assert await kinds(it, 111 + ANCHOR_WITHIN) == [(Kind.UNANCHORED, REGISTER)]


async def test_a_register_is_anchored_from_the_beginning(it: Monitored) -> None:
    """False if an empty register, whose beginning nothing fixes, could be given one later."""
    it.held.open_register(SECOND)
    it.publish(at=100)
    assert await kinds(it, 110) == []
    it.refresh(GOVERNING, 200 + ANCHOR_WITHIN)
    (finding,) = await findings(it, 200 + ANCHOR_WITHIN)
    assert (finding.kind, finding.register) == (Kind.UNANCHORED, SECOND)
    assert "never anchored" in finding.what
    it.anchor(SECOND)
    it.publish(at=210 + ANCHOR_WITHIN)
    assert await kinds(it, 210 + ANCHOR_WITHIN) == []


async def test_under_quorum_none_nothing_is_overdue_and_anchors_are_compared_all_the_same(
    tmp_path: Path,
) -> None:
    """False if a ledger without witnesses were asked for what it cannot have, or its anchors passed over."""
    with monitored(tmp_path) as it:
        it.held.fill(10)
        it.publish()
        assert await kinds(it, 0) == []
        assert await kinds(it, 1 << 20) == []
        it.anchor()
        it.anchor(note=sign(REGISTER, [*it.entries(REGISTER)[:9], b"another"]))
        it.publish()
        (finding,) = await findings(it, 0)
        assert finding.kind is Kind.FORK


# Anchors


async def test_an_anchor_of_another_history_is_proved_to_be_one(it: Monitored) -> None:
    """False if the governing root could commit to one history while another one is shown."""
    note = seal(sign(REGISTER, [*it.entries(REGISTER)[:7], b"another"]), 25)
    it.anchor(note=note)
    it.publish(at=30)
    (finding,) = await findings(it, 30)
    assert (finding.kind, finding.register) == (Kind.FORK, REGISTER)
    assert isinstance(finding.proof, SplitView)
    assert verify_split_view(finding.proof, WITNESSED).size == 8
    assert note in finding.notes
    assert await kinds(it, 40) == [(Kind.FORK, REGISTER)]


async def test_an_anchor_of_more_than_is_served_is_a_rollback(it: Monitored) -> None:
    """False if what was anchored could be withheld."""
    old = it.site.files[CHECKPOINT]
    it.held.fill(20)
    it.publish(at=30)
    it.anchor()
    it.publish(at=40)
    it.site.files[CHECKPOINT] = old
    (finding,) = await findings(it, 50)
    assert (finding.kind, finding.register) == (Kind.ROLLBACK, REGISTER)
    assert "anchors 20 entries, of which 10 are served" in finding.what
    it.refresh(REGISTER, 60)
    assert await kinds(it, 60) == []


@pytest.mark.parametrize(
    ("register", "why"),
    [
        (GOVERNING, "no register of this ledger"),
        (SECOND, "not open then"),
        ("another", "no register of this ledger"),
    ],
)
async def test_an_anchor_of_what_is_no_register_of_the_ledger_is_found(
    it: Monitored, register: str, why: str
) -> None:
    """False if the governing register could carry whatever it liked as an anchor."""
    index = it.anchor(note=sign(register, [b"x"]))
    it.publish(at=30)
    (finding,) = await findings(it, 30)
    assert (finding.kind, finding.register) == (Kind.ANCHOR, GOVERNING)
    assert f"entry {index} " in finding.what
    assert why in finding.what


async def test_an_anchor_from_before_its_register_was_opened_is_found(it: Monitored) -> None:
    """False if the ledger could commit to a register before anybody had decided to have it."""
    index = it.anchor(note=sign(SECOND, []))
    it.held.open_register(SECOND)
    it.publish(at=30)
    (finding,) = await findings(it, 30)
    assert finding.kind is Kind.ANCHOR
    assert f"entry {index} " in finding.what
    assert "not open then" in finding.what


async def test_an_anchor_that_is_not_signed_by_the_ledger_is_found(it: Monitored) -> None:
    """False if a note with a changed size passed as an anchor."""
    it.anchor(note=it.notes[REGISTER].replace(b"\n10\n", b"\n11\n"))
    it.publish(at=30)
    (finding,) = await findings(it, 30)
    assert finding.kind is Kind.ANCHOR
    assert "signature" in finding.what


async def test_an_anchor_that_my_witnesses_have_not_sealed_is_reported_and_binds(it: Monitored) -> None:
    """False if anchors from before I trusted these witnesses were an integrity failure, or told me nothing."""
    it.held.fill(11)
    it.publish(at=30)
    it.anchor(note=it.held.published.latest(REGISTER).note)
    it.publish(at=40)
    made = await it.round(50 + ANCHOR_WITHIN)
    assert made.findings == []
    assert "1 of the anchors compared do not meet your policy's quorum." in made.remarks


async def test_the_anchors_of_a_register_that_cannot_be_read_are_compared_later(it: Monitored) -> None:
    """False if trouble with one register hid what its anchors say, for ever or at once."""
    del it.site.files[CHECKPOINT]
    made = await it.round(30)
    assert [each.register for each in made.troubles] == [REGISTER]
    assert made.anchors == 0
    it.refresh(REGISTER, 40)
    made = await it.round(40)
    assert (made.findings, made.anchors) == ([], 1)


# Quorum and clocks


@pytest.mark.parametrize("witnesses", [(), ("one",)], ids=["nobody", "one"])
async def test_a_checkpoint_that_the_quorum_has_not_seen_is_found(
    it: Monitored, witnesses: tuple[str, ...]
) -> None:
    """False if a history that only its own ledger vouches for passed for a witnessed one."""
    signed = it.held.published.latest(REGISTER).note
    it.site.files[CHECKPOINT] = seal(signed, 30, witnesses) if witnesses else signed
    (finding,) = await findings(it, 30)
    assert (finding.kind, finding.register) == (Kind.UNSEALED, REGISTER)
    assert ("cosigned by one," if witnesses else "nobody") in finding.what
    with it.opened() as state:
        assert state.seen.latest(REGISTER) is None


async def test_a_checkpoint_without_a_quorum_that_contradicts_is_proof_all_the_same(it: Monitored) -> None:
    """False if a ledger could take back what it has signed because no witness had seen it."""
    assert await kinds(it, 30) == []
    it.site.files[CHECKPOINT] = sign(REGISTER, [*it.entries(REGISTER)[:-1], b"another"])
    (finding,) = await findings(it, 30)
    assert finding.kind is Kind.FORK
    assert isinstance(finding.proof, SplitView)
    assert verify_split_view(finding.proof, WITNESSED).size == 10


async def test_a_time_that_has_not_come_is_refused(it: Monitored) -> None:
    """False if a witness whose clock is wrong could prove any time."""
    it.refresh(REGISTER, 1_000)
    assert await kinds(it, 700) == []
    it.refresh(REGISTER, 1_001)
    (finding,) = await findings(it, 700)
    assert finding.kind is Kind.UNSEALED
    assert "in the future" in finding.what


async def test_a_wrong_line_of_a_known_witness_spoils_the_note(it: Monitored) -> None:
    """False if a signature that does not verify passed because others do."""
    note = it.site.files[CHECKPOINT]
    line = seal(sign(REGISTER, [b"x"]), 10, ["three"]).splitlines(keepends=True)[-1]
    it.site.files[CHECKPOINT] = note + line
    (finding,) = await findings(it, 30)
    assert finding.kind is Kind.SIGNATURE
    assert WITNESSES["three"].name in finding.what


async def test_lines_of_strangers_are_not_kept(it: Monitored) -> None:
    """False if a ledger could plant a line that makes a proof fail for another reader."""
    planted = seal(sign(REGISTER, [b"x"]), 10, ["three"]).splitlines(keepends=True)[-1]
    planted = planted.replace(b"three.example", b"thief.example")
    assert await kinds(it, 30) == []
    other = seal(sign(REGISTER, [*it.entries(REGISTER)[:-1], b"another"]), 20)
    it.site.files[CHECKPOINT] = other + planted
    (finding,) = await findings(it, 30)
    assert finding.kind is Kind.FORK
    assert not any(b"thief" in note for note in finding.notes)
    it.refresh(REGISTER, 40)
    it.site.files[CHECKPOINT] += planted
    assert await kinds(it, 40) == []
    with it.opened() as state:
        seen = state.seen.latest(REGISTER)
        assert seen is not None
        assert seen.at == BEGAN + 30
        assert (seen.first, seen.last) == (
            it.notes[REGISTER].replace(seen.last, seen.first),
            it.notes[REGISTER],
        )


def test_the_policy_of_these_tests_asks_for_two() -> None:
    """False if what is called sealed here had any other quorum."""
    opened = WITNESSED.open(seal(sign(REGISTER, [b"x"]), 0), f"ledger.test/{REGISTER}")
    assert WITNESSED.is_sealed(opened)
    with pytest.raises(VerificationError):
        WITNESSED.open(seal(sign(REGISTER, [b"x"]), 0), f"other.test/{REGISTER}")

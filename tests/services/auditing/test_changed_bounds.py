"""A state that goes on under another policy, or with cosignatures that came late: no old times are left."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ledger.admission import instant
from ledger.checkpoints import Checkpoint
from ledger.ed25519 import SecretKey
from ledger.entries import Acceptance, accept
from ledger.errors import StoreError
from ledger.governing import GOVERNING
from ledger.notes import SignerKey, format_note, split_note
from ledger.timeline import Bounds
from ledger.witnessing import Policy, cosign
from services.auditing import claimed_times
from services.auditing.audit_state import open_audit_state
from services.auditing.detecting import Detector
from services.auditing.examining import Examiner
from services.auditing.facts import Fact
from services.auditing.profiles import shipped
from services.auditing.results import AuditResult
from services.monitoring.rounds import Limits
from tests.services.auditing.test_audit_findings import START, append, one
from tests.support.audited import codes, found, verdict, visit
from tests.support.ledgers import DEPARTMENT_KEY, EPOCH, POLICY, REGISTER, decision, submission
from tests.support.monitored import BEGAN, WITNESSED, Monitored, monitored, seal, sign

DAY = 86_400
STRICT = shipped("daybook-strict")
NOW = START + 60 * DAY + 40

_NEW = {
    name: SignerKey(f"new-{name}.example/w", SecretKey(bytes([90 + at]) * 32))
    for at, name in enumerate(("one", "two", "three"))
}

OTHERS = Policy.parse(
    POLICY.text().removesuffix(b"quorum none\n")
    + b"".join(b"witness %b %b\n" % (name.encode(), str(key.cosigner).encode()) for name, key in _NEW.items())
    + b"group two-of-three 2 one two three\nquorum two-of-three\n"
)
"""A policy with other witnesses, under the same names."""


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Monitored]:
    """A register of three entries, and a fourth that claims a time of two months before it came in."""
    with monitored(tmp_path, WITNESSED) as it:
        it.limits = Limits(anchor_within=10**9, patience=0)
        it.held.fill(3)
        it.publish(at=START + 10)
        it.refresh(REGISTER, START + 60 * DAY)
        it.anchor()
        it.publish(at=START + 60 * DAY + 5)
        append(it, REGISTER, one(50), at=5, view=3, sealed=60 * DAY + 30)
        yield it


def bounds(it: Monitored, index: int) -> Bounds:
    with it.opened() as monitored_state, open_audit_state(monitored_state, it.policy) as state:
        return state.bounds(REGISTER, index)


def said(result: AuditResult) -> set[tuple[str, str]]:
    """Return what was found, with the times that it says."""
    return {(each.code, each.what) for each in result.all_findings()}


@pytest.mark.parametrize(("first", "then"), [(POLICY, WITNESSED), (WITNESSED, POLICY), (WITNESSED, OTHERS)])
async def test_under_another_policy_a_state_finds_what_a_new_one_finds(
    it: Monitored, tmp_path: Path, first: Policy, then: Policy
) -> None:
    """False if a report stated, under a policy, what rests on times of witnesses that it does not name."""
    it.policy = first
    await visit(it, at=NOW, profile=STRICT)
    it.policy = then
    if then is OTHERS:
        for register in (GOVERNING, REGISTER):
            path = f"/logs/{register}/checkpoint"
            text, lines = split_note(it.site.files[path])
            signed = [cosign(Checkpoint.parse(text), _NEW[name], BEGAN + NOW) for name in ("one", "two")]
            it.site.files[path] = format_note(text, [*lines, *signed])
    result = await visit(it, at=NOW + 10, profile=STRICT)
    it.state.rename(tmp_path / "before")
    fresh = await visit(it, at=NOW + 10, profile=STRICT)
    # Of when an auditor himself saw the register a new state knows nothing.
    assert said(result) == said(fresh)
    assert ("claimed-earlier" in codes(result)) == ("DET-01" in codes(result)) == (then is WITNESSED)


async def test_under_no_witnesses_there_are_no_bounds_left(it: Monitored) -> None:
    """False if an auditor who asks no witness were told what is provably late."""
    await visit(it, at=NOW, profile=STRICT)
    assert bounds(it, 3).not_before == EPOCH + 60 * DAY
    it.policy = POLICY
    assert bounds(it, 3) == Bounds(None, None, comparable=False)


async def test_a_witness_of_the_same_name_with_another_key_has_said_nothing(it: Monitored) -> None:
    """False if a policy's witnesses were given the times of others whom it does not name."""
    await visit(it, at=NOW)
    it.policy = OTHERS
    assert bounds(it, 0) == Bounds(None, None, comparable=True)


async def test_going_back_to_a_policy_finds_again_what_it_found(it: Monitored) -> None:
    """False if a visit under another policy, by mistake, cost what was known."""
    before = await visit(it, at=NOW, profile=STRICT)
    it.policy = POLICY
    await visit(it, at=NOW, profile=STRICT)
    it.policy = WITNESSED
    assert said(await visit(it, at=NOW, profile=STRICT)) == said(before)


async def test_what_was_found_by_the_auditors_own_visits_does_not_depend_on_the_policy(tmp_path: Path) -> None:
    """False if what he saw himself were lost with the witnesses."""
    with monitored(tmp_path, WITNESSED) as it:
        it.limits = Limits(anchor_within=10**9, patience=0)
        it.held.fill(3)
        it.publish(at=START + 10)
        it.refresh(REGISTER, START + 5_000)
        await visit(it, at=START + 5_001)
        append(it, REGISTER, one(50), at=100, view=3, sealed=6_000)
        assert codes(await visit(it, at=START + 6_001)) == {"claimed-earlier"}
        it.policy = POLICY
        assert found(await visit(it, at=START + 6_002), "claimed-before-visit").spans == ((3, 3),)


async def test_a_notebook_of_an_earlier_version_goes_on(it: Monitored) -> None:
    """False if whoever has kept a state had to begin anew, or were told what its old times say."""
    before = await visit(it, at=NOW, profile=STRICT)
    with closing(sqlite3.connect(it.state / "audit.sqlite3")) as notebook:
        for table in ("about", "visited", "claimed", "supported"):
            notebook.execute(f"DROP TABLE {table}")
        notebook.execute("ALTER TABLE reported DROP COLUMN last")
        notebook.execute("UPDATE earliest SET witness = substr(witness, 1, instr(witness, '.') - 1)")
        notebook.execute("PRAGMA user_version = 1")
        notebook.commit()
    result = await visit(it, at=NOW + 1, profile=STRICT)
    assert said(result) == said(before)
    assert verdict(result).before == 4


async def test_a_notebook_of_a_later_version_is_refused(it: Monitored) -> None:
    """False if an old program spoilt what a newer one has kept."""
    await visit(it, at=NOW)
    with closing(sqlite3.connect(it.state / "audit.sqlite3")) as notebook:
        notebook.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer version"):
        await visit(it, at=NOW)


# The same policy, and cosignatures that came late


@pytest.fixture
def late(tmp_path: Path) -> Iterator[Monitored]:
    """A register whose fourth entry is dated right, and late; that it was not there before is not known yet."""
    with monitored(tmp_path, WITNESSED) as it:
        it.limits = Limits(anchor_within=10**9, patience=0)
        it.held.fill(3)
        it.publish(at=START + 10)
        entries = it.entries(REGISTER)
        signed = submission(REGISTER, [decision(50)], [DEPARTMENT_KEY])
        entries += accept(signed, Acceptance(instant(EPOCH + 60 * DAY + 8), "anonymous", 3)).entries
        it.refresh(REGISTER, START + 60 * DAY)
        it.site.put(REGISTER, entries, seal(sign(REGISTER, entries), START + 60 * DAY + 30))
        it.site.files[f"/logs/{GOVERNING}/checkpoint"] = seal(
            it.held.published.latest(GOVERNING).note, START + 60 * DAY + 30
        )
        yield it


def serve_anchor(it: Monitored) -> None:
    """Anchor the register as it was without the fourth entry, when that was about to come in."""
    it.anchor()
    signed = it.held.published.latest(GOVERNING).note
    it.site.put(GOVERNING, it.entries(GOVERNING), seal(signed, START + 60 * DAY + 60))


async def test_an_anchor_that_comes_later_is_taken_into_account(late: Monitored) -> None:
    """False if the report said of an entry what the audit that it reports had never found."""
    assert "DET-01" not in codes(await visit(late, at=NOW, profile=STRICT))
    serve_anchor(late)
    result = await visit(late, at=NOW + 60, profile=STRICT)
    assert found(result, "DET-01").spans == ((3, 3),)
    assert bounds(late, 3).not_before == EPOCH + 60 * DAY


async def test_a_checkpoint_that_was_kept_is_taken_into_account(late: Monitored, tmp_path: Path) -> None:
    """False if an auditor's own note improved the bounds, and nothing that was said by them."""
    await visit(late, at=NOW, profile=STRICT)
    kept = tmp_path / "kept.note"
    kept.write_bytes(late.notes[REGISTER])
    result = await visit(late, at=NOW + 60, kept=[kept], profile=STRICT)
    assert found(result, "DET-01").spans == ((3, 3),)


async def test_what_an_entry_claims_is_held_against_the_window_of_now(late: Monitored, tmp_path: Path) -> None:
    """False if back-dating went unseen because it was looked for before it could be shown, or told twice."""
    append(late, REGISTER, one(51), at=5, view=3, sealed=60 * DAY + 30)
    assert "claimed-earlier" not in codes(await visit(late, at=NOW))
    kept = tmp_path / "kept.note"
    kept.write_bytes(late.notes[REGISTER])
    early = found(await visit(late, at=NOW + 60, kept=[kept]), "claimed-earlier")
    assert (early.register, early.spans, early.is_new) == (REGISTER, ((3, 3),), True)
    again = found(await visit(late, at=NOW + 70, kept=[kept]), "claimed-earlier")
    assert (again.count, again.is_new) == (1, False)


async def test_a_death_before_it_is_looked_at_again_loses_nothing(
    late: Monitored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if bounds were kept, and that entries are to be looked at under them forgotten."""
    await visit(late, at=NOW, profile=STRICT)
    serve_anchor(late)

    def dying(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Examiner, "examine", dying)
    with pytest.raises(KeyboardInterrupt):
        await visit(late, at=NOW + 60, profile=STRICT)
    monkeypatch.undo()
    assert found(await visit(late, at=NOW + 70, profile=STRICT), "DET-01").spans == ((3, 3),)


async def test_entries_whose_bounds_have_not_changed_are_not_looked_at_again(
    it: Monitored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if every visit cost as much as the first."""
    await visit(it, at=NOW, profile=STRICT)
    detected: list[int] = []
    looked: list[int] = []
    observe, look = Detector.observe, claimed_times.Claims.look

    def observing(detector: Detector, facts: Iterable[Fact]) -> None:
        facts = list(facts)
        detected.extend(fact.index for fact in facts)
        observe(detector, facts)

    def looking(claims: claimed_times.Claims, fact: Fact, parsed: Any) -> None:
        if fact.register == REGISTER:
            looked.append(fact.index)
        look(claims, fact, parsed)

    monkeypatch.setattr(Detector, "observe", observing)
    monkeypatch.setattr(claimed_times.Claims, "look", looking)
    # A witness more, and the same ones later: of what was there before nobody knows more.
    entries = it.site.files[f"/logs/{REGISTER}/checkpoint"]
    it.site.files[f"/logs/{REGISTER}/checkpoint"] = _cosigned(entries, NOW + 600, ("one", "two", "three"))
    await visit(it, at=NOW + 601, profile=STRICT)
    assert (detected, looked) == ([], [])


def _cosigned(note: bytes, at: int, witnesses: Iterable[str]) -> bytes:
    text, (first, *_) = split_note(note)
    return seal(format_note(text, [first]), at, witnesses)

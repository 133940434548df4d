"""What an audit finds besides integrity failures: keys, closures, views, times, relations, promises.

Each attack is the operator's: he has the log key. The witnesses' times are those that a test says.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger import base64
from ledger.acknowledgements import Acknowledgement, sign_acknowledgement
from ledger.admission import instant
from ledger.ed25519 import SecretKey
from ledger.entries import Acceptance, Submission, accept, form_ledger_entry
from ledger.governing import GOVERNING
from ledger.notes import SignerKey
from ledger.own_records import record_digest, submission_rejected
from ledger.witnessing import Policy
from services.auditing.found import Severity
from services.auditing.results import Promises
from services.monitoring.findings import check
from services.monitoring.rounds import Limits
from tests.support.audited import codes, found, verdict, visit
from tests.support.ledger_story import SECOND
from tests.support.ledgers import (
    ACKNOWLEDGEMENT_KEY,
    DEPARTMENT,
    DEPARTMENT_KEY,
    EPOCH,
    GOVERNANCE_KEY,
    ORIGIN,
    REGISTER,
    decision,
    governing_record,
    record_id,
    submission,
)
from tests.support.monitored import BEGAN, WITNESSED, Monitored, monitored, seal, sign

START = EPOCH - BEGAN
"""The ledger's clock begins here, in seconds after `BEGAN`: witnesses that agree with it sign from here on."""

SECOND_KEY = SecretKey(b"\x05" * 32)


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Monitored]:
    with monitored(tmp_path, WITNESSED) as it:
        it.limits = Limits(anchor_within=10_000, patience=0)
        it.held.fill(3)
        it.publish(at=START + 10)
        yield it


def revoke(it: Monitored, key: SecretKey = DEPARTMENT_KEY, **members: str) -> int:
    """Revoke a key, at the ledger's word; return the index of the entry."""
    return it.held.govern(
        "key.revoked/1",
        department=DEPARTMENT,
        key=base64.encode(key.public),
        **({"reason": "lost"} | members),
    )


def append(it: Monitored, register: str, signed: Submission, at: int, view: int, sealed: int) -> None:
    """Serve a register with one more submission, whoever would have refused it, sealed at a time."""
    entries = [
        *it.entries(register),
        *accept(signed, Acceptance(instant(EPOCH + at), "anonymous", view)).entries,
    ]
    note = seal(sign(register, entries), START + sealed)
    it.site.put(register, entries, note)


def one(number: int, key: SecretKey = DEPARTMENT_KEY, **members: Any) -> Submission:
    return submission(REGISTER, [decision(number, **members)], [key])


# Keys


async def test_an_honest_ledger_raises_nothing(it: Monitored) -> None:
    """False if the ordinary were called odd."""
    it.anchor()
    it.publish(at=START + 20)
    result = await visit(it, at=START + 21)
    assert codes(result) == set()
    assert verdict(result).anchored == 3


async def test_entries_accepted_long_after_their_key_was_revoked_are_critical(it: Monitored) -> None:
    """False if a lost key could go on signing through an acceptor that looks the other way."""
    it.refresh(GOVERNING, START + 50)
    await visit(it, at=START + 51)
    index = revoke(it)
    it.publish(at=START + 100)
    it.refresh(REGISTER, START + 200)
    await visit(it, at=START + 201)
    append(it, REGISTER, one(50), at=210, view=3, sealed=220)
    result = await visit(it, at=START + 221)
    stale = found(result, "stale-view")
    assert stale.severity is Severity.CRITICAL
    assert stale.spans == ((3, 3),)
    assert stale.inputs["revoked_by_governing_entry"] == str(index)
    assert "not before" in stale.inputs["revocation"]
    assert not result.failed
    # The three before are shown to be from before.
    assert found(result, "before-revocation").count == 3
    evidence = Path(stale.evidence).read_bytes()  # noqa: ASYNC240
    assert "with this entry at 3" in check(evidence, WITNESSED).proved


async def test_an_entry_within_the_grace_is_concurrent_and_both_windows_are_told(it: Monitored) -> None:
    """False if what nobody can tell apart were called late, or in time."""
    it.refresh(GOVERNING, START + 50)
    await visit(it, at=START + 51)
    revoke(it)
    it.publish(at=START + 100)
    append(it, REGISTER, one(50), at=100, view=3, sealed=130)
    result = await visit(it, at=START + 131)
    concurrent = found(result, "concurrent-revocation")
    assert concurrent.spans == ((3, 3),)
    assert "not after" in concurrent.inputs["first_entry"]
    assert "stale-view" not in codes(result)


async def test_a_revocation_that_comes_later_judges_what_was_read_before(it: Monitored) -> None:
    """False if only what is new were held against a revocation."""
    it.refresh(GOVERNING, START + 50)
    assert codes(await visit(it, at=START + 51)) == set()
    revoke(it, reason="compromised", suspected_from="2026-01-01")
    it.publish(at=START + 100)
    result = await visit(it, at=START + 101)
    suspected = found(result, "suspected-key")
    assert (suspected.severity, suspected.count) == (Severity.HIGH, 3)
    assert found(result, "before-revocation").count == 3


async def test_what_was_witnessed_before_a_compromise_is_not_marked(it: Monitored) -> None:
    """False if every record of a department fell with one lost key."""
    revoke(it, reason="compromised", suspected_from="2030-01-01")
    it.publish(at=START + 100)
    assert "suspected-key" not in codes(await visit(it, at=START + 101))


async def test_an_entry_that_had_the_revocation_in_view_is_an_integrity_failure(it: Monitored) -> None:
    """False if the rules of registration did not bind the ledger."""
    revoke(it)
    it.publish(at=START + 100)
    append(it, REGISTER, one(50), at=110, view=4, sealed=120)
    result = await visit(it, at=START + 121)
    assert found(result, "forged").is_proof
    assert result.failed


async def test_times_of_quorums_that_share_no_witness_are_not_compared(tmp_path: Path) -> None:
    """False if one witness's clock were held against another's, of whom neither knows the other."""
    any_of_them = Policy.parse(WITNESSED.text().replace(b"two-of-three 2", b"two-of-three 1"))
    with monitored(tmp_path, any_of_them) as it:
        it.limits = Limits(anchor_within=10_000, patience=0)
        it.held.fill(3)
        it.publish(at=START + 10)
        it.refresh(GOVERNING, START + 50)
        await visit(it, at=START + 51)
        revoke(it)
        it.publish(at=START + 100)
        append(it, REGISTER, one(50), at=210, view=3, sealed=900)
        result = await visit(it, at=START + 901)
    assert found(result, "concurrent-revocation").count == 4
    assert not result.comparable
    assert any("share no witness" in each for each in result.cannot_claim)


async def test_a_second_key_of_a_department_must_be_signed_for_by_the_first(it: Monitored) -> None:
    """False if governance could slip in a key of its own unnoticed."""
    it.held.authorise(SECOND_KEY)
    it.publish(at=START + 100)
    result = await visit(it, at=START + 101)
    unendorsed = found(result, "key-unendorsed")
    assert (unendorsed.register, unendorsed.spans) == (GOVERNING, ((3, 3),))
    assert base64.encode(SECOND_KEY.public) in unendorsed.what


async def test_a_second_key_that_the_first_has_signed_for_is_none(it: Monitored) -> None:
    """False if an ordinary change of keys were called odd."""
    it.held.govern(
        "key.authorised/1",
        SECOND_KEY,
        DEPARTMENT_KEY,
        department=DEPARTMENT,
        key=base64.encode(SECOND_KEY.public),
        label="EDRMS",
    )
    it.publish(at=START + 100)
    assert codes(await visit(it, at=START + 101)) == set()


@pytest.mark.parametrize(
    ("key", "code"), [(DEPARTMENT_KEY, "key-bound-twice"), (GOVERNANCE_KEY, "ledgers-own-key")]
)
async def test_a_key_that_cannot_be_bound_anew_is_a_finding(it: Monitored, key: SecretKey, code: str) -> None:
    """False if a key could seem to change hands."""
    record = governing_record(
        70,
        "key.authorised/1",
        department="another-department",
        key=base64.encode(key.public),
        label="EDRMS",
    )
    signers = [GOVERNANCE_KEY] if key is GOVERNANCE_KEY else [GOVERNANCE_KEY, key]
    append(it, GOVERNING, submission(GOVERNING, [record], signers), at=50, view=3, sealed=60)
    result = await visit(it, at=START + 61)
    assert found(result, code).register == GOVERNING
    assert not result.failed


# Closures and views


async def test_entries_beyond_the_stated_size_of_a_closed_register_are_found(it: Monitored) -> None:
    """False if an office that was closed could still grow by what was in view before."""
    it.held.govern("register.closed/1", name=REGISTER, size=2, reason="The office was abolished.")
    it.publish(at=START + 100)
    result = await visit(it, at=START + 101)
    beyond = found(result, "beyond-closure")
    assert (beyond.spans, beyond.count) == (((2, 2),), 1)
    assert verdict(result).is_closed


async def test_a_view_that_was_sealed_later_than_the_entry_is_found(it: Monitored) -> None:
    """False if entries could be accepted by rules that were kept from view."""
    it.refresh(GOVERNING, START + 40)
    await visit(it, at=START + 41)
    # The entry is known at 30; at 40 three governing entries were sealed; it names four.
    hidden = it.held.govern_submission("register.opened/1", name=SECOND, title="Another")
    governing = [
        *it.entries(GOVERNING),
        *accept(hidden, Acceptance(instant(EPOCH + 20), "anonymous", 3)).entries,
    ]
    note = seal(sign(GOVERNING, governing), START + 50)
    append(it, REGISTER, one(50), at=20, view=4, sealed=30)
    it.site.put(GOVERNING, governing, note)
    it.site.put(SECOND, [], seal(sign(SECOND, []), START + 50))
    it.site.list([GOVERNING, REGISTER, SECOND])
    result = await visit(it, at=START + 51)
    assert found(result, "view-not-sealed").spans == ((3, 3),)


# Time


async def test_an_entry_that_witnesses_knew_before_it_was_accepted_is_impossible(it: Monitored) -> None:
    """False if a clock that was set forward passed."""
    append(it, REGISTER, one(50), at=1_000, view=3, sealed=600)
    result = await visit(it, at=START + 601)
    impossible = found(result, "impossible-time")
    assert impossible.spans == ((3, 3),)
    assert instant(EPOCH + 600).partition(".")[0] in impossible.what


@pytest.mark.parametrize(("at", "is_impossible"), [(900, False), (901, True)])
async def test_clocks_may_differ_by_300_seconds(it: Monitored, at: int, is_impossible: bool) -> None:
    """False if the tolerance of section 15 were another one."""
    append(it, REGISTER, one(50), at=at, view=3, sealed=600)
    assert ("impossible-time" in codes(await visit(it, at=START + 601))) is is_impossible


async def test_a_back_dated_acceptance_is_found_by_the_witnesses(it: Monitored) -> None:
    """False if `accepted_at` could be set back to before a checkpoint without the entry."""
    it.refresh(REGISTER, START + 500)
    await visit(it, at=START + 501)
    append(it, REGISTER, one(50), at=100, view=3, sealed=600)
    result = await visit(it, at=START + 601)
    early = found(result, "claimed-earlier")
    assert early.spans == ((3, 3),)
    assert not result.failed


async def test_an_entry_that_has_waited_for_its_place_is_no_back_dating(it: Monitored) -> None:
    """False if every entry that came in while another was sealed asked for attention."""
    it.refresh(REGISTER, START + 500)
    await visit(it, at=START + 501)
    append(it, REGISTER, one(50), at=495, view=3, sealed=600)
    waited = found(await visit(it, at=START + 601), "claimed-just-earlier")
    assert (waited.severity, waited.spans) == (Severity.INFO, ((3, 3),))


async def test_times_come_from_anchors_too(it: Monitored) -> None:
    """False if an auditor who comes once a year could bound nothing in between."""
    it.refresh(REGISTER, START + 500)
    it.anchor()
    append(it, REGISTER, one(50), at=100, view=3, sealed=600)
    served = it.site.files[f"/logs/{REGISTER}/checkpoint"]
    it.publish(at=START + 610)
    it.site.files[f"/logs/{REGISTER}/checkpoint"] = served
    append(it, REGISTER, one(50), at=100, view=3, sealed=600)
    # A first visit: that the register had no such entry at 500 it learns from the governing register.
    assert found(await visit(it, at=START + 611), "claimed-earlier").spans == ((3, 3),)


async def test_what_was_not_there_at_the_last_visit_cannot_have_been_accepted_before_it(
    tmp_path: Path,
) -> None:
    """False if an auditor without witnesses could be shown a new record as an old one."""
    with monitored(tmp_path) as it:
        it.held.fill(3)
        it.publish()
        await visit(it, at=START + 1_000)
        it.held.turns = 2_000
        it.held.add([3])
        it.publish()
        assert codes(await visit(it, at=START + 2_001)) == set()
        it.held.turns = 500
        it.held.add([4])
        it.publish()
        result = await visit(it, at=START + 3_000)
    assert found(result, "claimed-before-visit").spans == ((4, 4),)
    assert not result.failed


# Records


async def test_a_relation_to_nothing_is_found_until_its_target_comes(it: Monitored) -> None:
    """False if records could rest on others that nobody has registered."""
    there = {"type": "supersedes", "target": {"record_id": record_id(0), "version": 1}}
    missing = {"type": "supersedes", "target": {"record_id": record_id(70), "version": 1}}
    it.held.turn([one(50, relations=[there]), one(51, relations=[there, missing])])
    it.publish(at=START + 20)
    result = await visit(it, at=START + 21)
    assert found(result, "relation-to-nothing").spans == ((4, 4),)
    it.held.turns = 25
    it.held.add([70])
    it.publish(at=START + 30)
    assert codes(await visit(it, at=START + 31)) == set()


# Promises


def acknowledge(folder: Path, signed: Submission, at: int, key: SecretKey = ACKNOWLEDGEMENT_KEY) -> Path:
    """Write the acknowledgement of a submission, as the ledger signs it."""
    promise = Acknowledgement(
        f"{ORIGIN}/{signed.register}", signed.submission_id, len(signed.records), instant(EPOCH + at)
    )
    folder.mkdir(exist_ok=True)
    path = folder / f"{signed.submission_id}.acknowledgement"
    path.write_bytes(sign_acknowledgement(promise, SignerKey(f"{ORIGIN}/acknowledgements", key)))
    return path


async def test_an_acknowledgement_without_entries_under_a_later_checkpoint_is_broken(
    it: Monitored, tmp_path: Path
) -> None:
    """False if the ledger could promise and then drop what it had promised."""
    folder = tmp_path / "receipts"
    acknowledge(folder, submission(REGISTER, [decision(number) for number in range(3)], [DEPARTMENT_KEY]), 2)
    dropped = one(50)
    acknowledge(folder, dropped, at=5)
    # Three seconds of clocks are no proof.
    result = await visit(it, at=START + 11, acknowledgements=folder)
    assert result.promises is not None
    assert (result.promises.files, result.promises.kept, result.promises.open) == (2, 1, 1)
    # Nor is the same checkpoint, cosigned again.
    it.refresh(REGISTER, START + 1_000)
    result = await visit(it, at=START + 1_001, acknowledgements=folder)
    assert result.promises is not None
    assert (result.promises.open, codes(result)) == (1, set())
    append(it, REGISTER, one(51), at=1_010, view=3, sealed=1_020)
    result = await visit(it, at=START + 1_021, acknowledgements=folder)
    assert result.promises is not None
    assert (result.promises.kept, result.promises.broken) == (1, 1)
    broken = found(result, "broken-promise")
    assert dropped.submission_id in broken.what
    assert "entry 3 was accepted at" in broken.what
    assert broken.severity is Severity.CRITICAL
    assert result.failed
    assert verdict(result).verdict.startswith("Do not rely on this register: a submission that was acknowl")


def reject(it: Monitored, lost: Submission, existing: bytes) -> None:
    """Have the ledger write that a submission was rejected for entry 1, which it says is `existing`."""
    size = len(it.entries(REGISTER))
    record = submission_rejected(
        register=REGISTER,
        register_origin=f"{ORIGIN}/{REGISTER}",
        submission_id=lost.submission_id,
        count=1,
        reason="RECORD_CONFLICT",
        index=size,
        rejected=(0, record_id(1), 1),
        existing=(1, record_digest(existing)),
    )
    entries = [*it.entries(REGISTER), form_ledger_entry(record, instant(EPOCH + 12), 3)]
    it.site.put(REGISTER, entries, seal(sign(REGISTER, entries), START + 1_000))


async def test_a_rejection_keeps_a_promise(it: Monitored, tmp_path: Path) -> None:
    """False if a race that was lost, and proved, were called a broken promise."""
    lost = one(1, title="Another")
    acknowledge(tmp_path / "receipts", lost, at=5)
    reject(it, lost, decision(1))
    result = await visit(it, at=START + 1_001, acknowledgements=tmp_path / "receipts")
    assert result.promises == Promises(files=1, rejected=1)
    assert codes(result) == set()
    assert verdict(result).counts.rejections == 1


async def test_a_rejection_for_a_record_that_is_not_there_is_found(it: Monitored, tmp_path: Path) -> None:
    """False if a ledger could drop what it had promised by making up a conflict."""
    lost = one(1, title="Another")
    acknowledge(tmp_path / "receipts", lost, at=5)
    reject(it, lost, b"another record")
    result = await visit(it, at=START + 1_001, acknowledgements=tmp_path / "receipts")
    assert found(result, "unfounded-rejection").spans == ((3, 3),)
    assert result.promises == Promises(files=1, broken=1)
    assert result.failed


async def test_an_acknowledgement_that_another_key_has_signed_proves_nothing(
    it: Monitored, tmp_path: Path
) -> None:
    """False if a department could accuse a ledger with a note of its own making."""
    acknowledge(tmp_path / "receipts", one(50), at=5, key=SecretKey(b"\x77" * 32))
    it.refresh(REGISTER, START + 1_000)
    result = await visit(it, at=START + 1_001, acknowledgements=tmp_path / "receipts")
    assert codes(result) == {"acknowledgement-unusable"}
    assert not result.failed


async def test_an_acknowledgement_supports_the_early_time_that_its_entries_claim(
    it: Monitored, tmp_path: Path
) -> None:
    """False if a ledger that was away after it had promised were called back-dating."""
    it.refresh(REGISTER, START + 500)
    await visit(it, at=START + 501)
    signed = one(50)
    append(it, REGISTER, signed, at=100, view=3, sealed=600)
    acknowledge(tmp_path / "receipts", signed, at=100)
    result = await visit(it, at=START + 601, acknowledgements=tmp_path / "receipts")
    assert codes(result) == {"claimed-earlier-acknowledged"}


async def test_promises_of_a_register_that_could_be_read_in_part_are_not_judged(
    it: Monitored, tmp_path: Path
) -> None:
    """False if what stands behind a forged entry were called broken because nobody could read on."""
    acknowledge(tmp_path / "receipts", one(50), at=5)
    append(it, REGISTER, one(51, key=SecretKey(b"\x77" * 32)), at=900, view=3, sealed=1_000)
    result = await visit(it, at=START + 1_001, acknowledgements=tmp_path / "receipts")
    assert codes(result) == {"forged"}
    assert result.promises == Promises(files=1, unread=1)


async def test_anchors_of_registers_that_were_not_asked_for_wait(it: Monitored) -> None:
    """False if a register that nobody read were called rolled back, by an anchor of what was not read."""
    it.held.open_register(SECOND)
    it.publish(at=START + 20)
    it.anchor()
    it.publish(at=START + 30)
    assert codes(await visit(it, at=START + 31, registers=[SECOND])) == set()
    result = await visit(it, at=START + 32)
    assert codes(result) == set()
    assert verdict(result).anchored == 3


async def test_promises_of_a_register_that_was_not_read_are_not_judged(it: Monitored, tmp_path: Path) -> None:
    """False if an office that was not asked for were accused of what nobody looked up."""
    it.held.open_register(SECOND)
    it.publish(at=START + 20)
    acknowledge(tmp_path / "receipts", one(50), at=5)
    it.refresh(REGISTER, START + 1_000)
    result = await visit(it, at=START + 1_001, registers=[SECOND], acknowledgements=tmp_path / "receipts")
    assert result.promises is not None
    assert result.promises.unread == 1

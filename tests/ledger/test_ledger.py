"""Turns: the order of checks, what one turn may hold, and that a refusal leaves no trace."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledger import base64, canonical
from ledger.admission import Candidate, admit
from ledger.ed25519 import SecretKey
from ledger.entries import Acceptance, Message, Submission, accept, form_ledger_entry, parse_entry
from ledger.errors import ConflictError, Reason, RejectedError, StoreError
from ledger.governing import GOVERNING
from ledger.hashing import leaf_hash
from ledger.ledger import Appended, Known, Ledger, Quarantined, Rejected, Turn, Waiting
from ledger.notes import VerifierKey
from ledger.own_records import checkpoint_anchored, submission_rejected
from ledger.proofs import verify_range
from ledger.store import Run, StoredNote
from ledger.stores.memory import MemoryStore
from tests.support import records
from tests.support.ledger_story import ACCESS, SECOND, SECOND_KEY, tell
from tests.support.ledgers import (
    DEPARTMENT,
    DEPARTMENT_KEY,
    GOVERNANCE_KEY,
    ORIGIN,
    REGISTER,
    LedgerUnderTest,
    decision,
    governing_record,
    open_ledger,
    record_id,
    submission,
)

NOW = "2026-07-01T12:00:00.000Z"
STRANGER = SecretKey(b"\x09" * 32)


@pytest.fixture
def held(tmp_path: Path) -> LedgerUnderTest:
    """A ledger with one register, empty, and a key that may write to it."""
    return open_ledger(MemoryStore(), tmp_path / "marks")


def of(*data: bytes, register: str = REGISTER, key: SecretKey = DEPARTMENT_KEY) -> Candidate:
    """Return records as an admitted submission."""
    return admit(submission(register, data, [key]))


def governing(record_type: str, *also: SecretKey, number: int = 900, **members: Any) -> Candidate:
    """Return an admitted governance submission."""
    record = governing_record(number, record_type, **members)
    return admit(submission(GOVERNING, [record], [GOVERNANCE_KEY, *also]))


def opening(name: str, number: int = 900) -> Candidate:
    return governing("register.opened/1", number=number, name=name, title="An office")


def authorising(key: SecretKey, department: str = DEPARTMENT, number: int = 901) -> Candidate:
    text = base64.encode(key.public)
    return governing("key.authorised/1", key, number=number, department=department, key=text, label="EDRMS")


def turn_with(ledger: Ledger, *candidates: Candidate) -> Turn:
    turn = ledger.turn()
    turn.look_up(candidates)
    return turn


def accept_one(ledger: Ledger, candidate: Candidate, accepted_at: str = NOW) -> Appended | Known:
    """Accept a submission in a turn of its own, and commit it."""
    turn = turn_with(ledger, candidate)
    outcome = turn.accept(candidate, accepted_at, "anonymous")
    turn.commit({})
    return outcome


def refused(ledger: Ledger, candidate: Candidate, accepted_at: str = NOW) -> Reason:
    """Return why a submission was refused, having checked that the refusal left no trace."""
    before = dict(ledger.heads()), ledger.fold
    turn = turn_with(ledger, candidate)
    with pytest.raises(RejectedError) as caught:
        turn.accept(candidate, accepted_at, "anonymous")
    assert turn.commit({}) == {}
    assert (ledger.heads(), ledger.fold) == before
    reopened = Ledger.open(ledger.store, ORIGIN)
    assert (reopened.heads(), reopened.fold) == before
    return caught.value.reason


# Refusals.


def test_every_refusal_of_a_turn_leaves_no_trace(held: LedgerUnderTest) -> None:
    """False if a refused submission moved a head, the fold, or what the next one meets."""
    ledger = held.ledger
    held.add([0])
    held.authorise(SECOND_KEY, "department-for-others")
    conflicting = decision(0, title="Other")
    cases: list[tuple[Candidate, Reason]] = [
        (of(decision(1, SECOND), register=SECOND), Reason.REGISTER_UNKNOWN),
        (of(decision(1), key=STRANGER), Reason.KEY_UNKNOWN),
        (of(decision(1), key=GOVERNANCE_KEY), Reason.KEY_UNKNOWN),
        (of(decision(1), key=SECOND_KEY), Reason.KEY_OF_OTHER_DEPARTMENT),
        (of(decision(1), decision(0)), Reason.RECORD_ALREADY_REGISTERED),
        (of(decision(1), conflicting), Reason.RECORD_CONFLICT),
        (of(canonical.format(records.correction(decision(7)))), Reason.PREVIOUS_UNKNOWN),
        (of(canonical.format(records.correction(conflicting))), Reason.PREVIOUS_MISMATCH),
        (of(decision(1, decided_at="2026-07-01T12:06Z")), Reason.DECIDED_IN_FUTURE),
        (opening(REGISTER), Reason.REGISTER_ALREADY_OPEN),
        (authorising(DEPARTMENT_KEY), Reason.KEY_ALREADY_BOUND),
        (opening_by(STRANGER), Reason.GOVERNANCE_REFUSED),
    ]
    for candidate, reason in cases:
        assert refused(ledger, candidate) is reason
    assert isinstance(accept_one(ledger, of(decision(1))), Appended)


def opening_by(key: SecretKey) -> Candidate:
    record = governing_record(900, "register.opened/1", name=SECOND, title="An office")
    return admit(submission(GOVERNING, [record], [key]))


def test_a_governing_submission_has_one_record(held: LedgerUnderTest) -> None:
    """False if two governing records could come under one signature."""
    two = [governing_record(n, "register.opened/1", name=f"a/b{n}", title="An office") for n in (900, 901)]
    candidate = admit(submission(GOVERNING, two, [GOVERNANCE_KEY]))
    assert refused(held.ledger, candidate) is Reason.TOO_MANY_RECORDS


def test_the_opening_of_another_ledger_is_refused(tmp_path: Path) -> None:
    """False if entry 0 could name another origin: the store could then never be opened again."""
    told = tell(MemoryStore(), tmp_path / "marks")
    (first,) = told.ledger.store.entries(GOVERNING, 0, 1)
    record = canonical.parse(parse_entry(first).record)
    keys = {
        f"{name}_key": str(VerifierKey.parse(record[f"{name}_key"]).renamed(f"a.b/{place}"))
        for name, place in (("ledger", GOVERNING), ("acknowledgement", "acknowledgements"))
    }
    wrong = canonical.format({**record, **keys, "origin": "a.b"})
    empty = Ledger.open(MemoryStore(), ORIGIN)
    assert refused(empty, admit(submission(GOVERNING, [wrong], [GOVERNANCE_KEY]))) is Reason.INVALID_FIELD
    right = admit(submission(GOVERNING, [canonical.format(record)], [GOVERNANCE_KEY]))
    assert isinstance(accept_one(empty, right), Appended)
    again = canonical.format({**record, "record_id": record_id(77)})
    assert refused(empty, admit(submission(GOVERNING, [again], [GOVERNANCE_KEY]))) is Reason.GOVERNANCE_REFUSED


def test_a_refusal_amid_others_takes_none_of_them_along(held: LedgerUnderTest) -> None:
    """False if the refused one among many changed where the others stand."""
    good, bad, also_good = of(decision(0)), of(decision(1), key=STRANGER), of(decision(2), decision(3))
    turn = turn_with(held.ledger, good, bad, also_good)
    first = turn.accept(good, NOW, "anonymous")
    with pytest.raises(RejectedError):
        turn.accept(bad, NOW, "anonymous")
    second = turn.accept(also_good, NOW, "anonymous")
    turn.commit({})
    assert [(one.run.first, one.run.count) for one in (first, second)] == [(0, 1), (1, 2)]
    found = list(held.ledger.reader(REGISTER).entries(0, 3))
    assert [parse_entry(entry).record for entry in found] == [decision(0), decision(2), decision(3)]


# The order of checks.


def test_a_known_submission_is_known_whatever_became_of_key_and_register(held: LedgerUnderTest) -> None:
    """False if a department that asks again were told that its key is revoked, not where its entries stand."""
    candidate = of(decision(0), decision(1))
    first = accept_one(held.ledger, candidate)
    text = base64.encode(DEPARTMENT_KEY.public)
    held.govern("key.revoked/1", department=DEPARTMENT, key=text, reason="rotated")
    held.govern("register.closed/1", name=REGISTER, size=2, reason="Abolished.")
    assert accept_one(held.ledger, candidate) == Known(first.run)
    assert held.ledger.run_of(candidate.submission) == first.run
    # The same records signed again by another key are the same submission.
    assert accept_one(held.ledger, of(decision(0), decision(1), key=STRANGER)) == Known(first.run)
    # Long before: it was accepted when it was, and decided_at is not judged again.
    assert accept_one(held.ledger, candidate, "2000-01-01T00:00:00.000Z") == Known(first.run)
    assert held.ledger.heads()[REGISTER].size == 2


def test_register_then_key_then_time_then_versions(held: LedgerUnderTest) -> None:
    """False if what is wrong with a record were told to somebody who may not write at all."""
    held.add([0])
    early = "2000-01-01T00:00:00.000Z"
    worst = decision(0, title="Other")
    assert refused(held.ledger, of(decision(0, SECOND), register=SECOND, key=STRANGER), early) is (
        Reason.REGISTER_UNKNOWN
    )
    assert refused(held.ledger, of(worst, key=STRANGER), early) is Reason.KEY_UNKNOWN
    assert refused(held.ledger, of(worst), early) is Reason.DECIDED_IN_FUTURE
    assert refused(held.ledger, of(worst)) is Reason.RECORD_CONFLICT


def test_an_unknown_register_has_no_reader(held: LedgerUnderTest) -> None:
    """False if reading what is not there failed as an internal error."""
    with pytest.raises(RejectedError) as caught:
        held.ledger.reader(SECOND)
    assert (caught.value.reason, caught.value.detail) == (Reason.REGISTER_UNKNOWN, {"register": SECOND})
    assert held.ledger.run_of(of(decision(0, SECOND), register=SECOND).submission) is None


# What one turn may hold.


def test_the_same_submission_twice_in_one_turn_stands_once(held: LedgerUnderTest) -> None:
    """False if a retry that meets its first try in the same turn were appended again (P2)."""
    candidate = of(decision(0), decision(1))
    turn = turn_with(held.ledger, candidate, candidate)
    first = turn.accept(candidate, NOW, "anonymous")
    second = turn.accept(candidate, NOW, "uri:another")
    assert isinstance(first, Appended)
    assert second == Known(first.run)
    growths = turn.commit({})
    assert growths[REGISTER].head.size == 2


def test_versions_build_on_each_other_within_a_turn(held: LedgerUnderTest) -> None:
    """False if a correction could not follow its record in one turn, or a conflict in one turn went unseen."""
    first = decision(0)
    corrected = canonical.format(records.correction(first))
    candidates = [of(first), of(corrected), of(corrected, decision(1)), of(decision(0, title="Other"))]
    turn = turn_with(held.ledger, *candidates)
    turn.accept(candidates[0], NOW, "anonymous")
    turn.accept(candidates[1], NOW, "anonymous")
    for candidate, reason in (
        (candidates[2], Reason.RECORD_ALREADY_REGISTERED),
        (candidates[3], Reason.RECORD_CONFLICT),
    ):
        with pytest.raises(RejectedError) as caught:
            turn.accept(candidate, NOW, "anonymous")
        assert caught.value.reason is reason
    turn.commit({})
    assert held.ledger.heads()[REGISTER].size == 2


def test_a_register_may_be_opened_and_written_to_in_one_turn(held: LedgerUnderTest) -> None:
    """False if governance were not in force for what follows it in its turn, or for what goes before."""
    write = of(decision(0, SECOND), register=SECOND, key=SECOND_KEY)
    open_it, authorise = opening(SECOND), authorising(SECOND_KEY)
    turn = turn_with(held.ledger, write, open_it, authorise)
    with pytest.raises(RejectedError) as caught:
        turn.accept(write, NOW, "anonymous")
    assert caught.value.reason is Reason.REGISTER_UNKNOWN
    turn.accept(open_it, NOW, "anonymous")
    with pytest.raises(RejectedError) as caught:
        turn.accept(write, NOW, "anonymous")
    assert caught.value.reason is Reason.KEY_UNKNOWN
    turn.accept(authorise, NOW, "anonymous")
    outcome = turn.accept(write, NOW, "anonymous")
    assert isinstance(outcome, Appended)
    assert outcome.message.acceptance.governing_size == held.ledger.fold.size + 2 == 5
    turn.commit({})
    assert held.ledger.heads()[SECOND].size == 1
    assert held.ledger.fold == Ledger.open(held.ledger.store, ORIGIN).fold


def test_a_key_revoked_earlier_in_the_turn_writes_no_more(held: LedgerUnderTest) -> None:
    """False if a submission slipped in after the revocation that was committed with it."""
    text = base64.encode(DEPARTMENT_KEY.public)
    revoke = governing("key.revoked/1", department=DEPARTMENT, key=text, reason="compromised")
    before, after = of(decision(0)), of(decision(1))
    turn = turn_with(held.ledger, before, revoke, after)
    turn.accept(before, NOW, "anonymous")
    turn.accept(revoke, NOW, "anonymous")
    with pytest.raises(RejectedError) as caught:
        turn.accept(after, NOW, "anonymous")
    assert caught.value.reason is Reason.KEY_REVOKED
    turn.commit({})
    assert held.ledger.heads()[REGISTER].size == 1


def test_a_turn_that_is_dropped_changes_nothing(held: LedgerUnderTest) -> None:
    """False if a turn showed or kept anything before its commit."""
    before = held.ledger.heads(), held.ledger.fold
    candidates = [opening(SECOND), of(decision(0))]
    turn = turn_with(held.ledger, *candidates)
    for candidate in candidates:
        turn.accept(candidate, NOW, "anonymous")
    assert (held.ledger.heads(), held.ledger.fold) == before
    assert held.ledger.store.heads() == before[0]


def test_a_turn_that_lost_its_head_changes_nothing(held: LedgerUnderTest) -> None:
    """False if a zombie that went on with old heads could append (P3)."""
    zombie = Ledger.open(held.ledger.store, ORIGIN)
    held.add([0])
    turn = turn_with(zombie, of(decision(1)))
    turn.accept(of(decision(1)), NOW, "anonymous")
    with pytest.raises(ConflictError):
        turn.commit({})
    assert zombie.heads()[REGISTER].size == 0
    assert held.ledger.store.heads()[REGISTER].size == 1


def test_an_opened_register_is_committed_empty(held: LedgerUnderTest) -> None:
    """False if a register had no head to sign from the moment it is open."""
    turn = turn_with(held.ledger, opening(SECOND))
    turn.accept(opening(SECOND), NOW, "anonymous")
    assert set(turn.commit({})) == {GOVERNING, SECOND}
    assert held.ledger.heads()[SECOND].size == 0
    assert Ledger.open(held.ledger.store, ORIGIN).heads()[SECOND].size == 0


def test_the_range_proof_of_a_growth_verifies(held: LedgerUnderTest) -> None:
    """False if the proof that a department is answered with did not lead to the root that is signed."""
    for count in (3, 1, 260, 5):
        first = held.ledger.heads()[REGISTER].size
        data = [decision(number) for number in range(first, first + count)]
        candidate = of(*data)
        turn = turn_with(held.ledger, candidate)
        outcome = turn.accept(candidate, NOW, "anonymous")
        growth = turn.commit({})[REGISTER]
        end = outcome.run.first + count
        leaves = [leaf_hash(entry) for entry in held.ledger.reader(REGISTER).entries(first, end)]
        proof = growth.range_proof(outcome.run)
        verify_range(first, end, growth.head.size, leaves, proof, growth.head.root)
        assert proof == held.ledger.reader(REGISTER).range_proof(first, end, growth.head.size)


def test_notes_may_be_kept_without_anything_else(held: LedgerUnderTest) -> None:
    """False if keeping a note moved a head, or wanted one to be signed again."""
    before = held.ledger.heads()
    note = StoredNote(3, held.published.latest(GOVERNING).note)
    assert held.ledger.store.note(GOVERNING, 3) != note
    assert held.ledger.turn().commit({GOVERNING: [note]}) == {}
    assert held.ledger.heads() == before
    assert held.ledger.store.note(GOVERNING, 3) == note


# Replay.


def message_of(candidate: Candidate, governing_size: int) -> Message:
    return accept(candidate.submission, Acceptance(NOW, "anonymous", governing_size))


def test_replay_judges_at_the_stated_size_and_waits_for_one_that_is_not_reached(held: LedgerUnderTest) -> None:
    """False if a replay depended on how much of the governing register was there already."""
    candidate = of(decision(0))
    size = held.ledger.fold.signed_size
    turn = held.ledger.turn()
    assert turn.replay(message_of(candidate, size + 1)) == Waiting(size + 1)
    assert isinstance(turn.replay(message_of(candidate, size - 1)), Quarantined)
    assert isinstance(turn.replay(message_of(candidate, size)), Appended)
    assert isinstance(turn.replay(message_of(candidate, size)), Known)


def test_a_lost_race_makes_one_rejection_that_does_not_block_the_submission(held: LedgerUnderTest) -> None:
    """False if an acknowledged submission that lost had no entry, or could never be sent again (P1)."""
    corrected = of(canonical.format(records.correction(decision(0))))
    size = held.ledger.fold.signed_size
    turn = held.ledger.turn()
    lost = turn.replay(message_of(corrected, size))
    assert isinstance(lost, Rejected)
    assert (lost.index, lost.refusal.reason) == (0, Reason.PREVIOUS_UNKNOWN)
    assert isinstance(turn.replay(message_of(of(decision(0)), size)), Appended)
    won = turn.replay(message_of(corrected, size))
    assert isinstance(won, Appended)
    assert won.run.first == 2
    turn.commit({})
    entry = parse_entry(held.ledger.reader(REGISTER).entry(0))
    assert (entry.membership, entry.acceptance) == (None, Acceptance(NOW, "ledger", size))
    assert canonical.parse(entry.record)["submission_id"] == corrected.submission.submission_id


def test_what_the_ledger_wrote_is_appended_once(held: LedgerUnderTest) -> None:
    """False if an anchor that comes again were a second entry."""
    record = checkpoint_anchored(held.published.latest(REGISTER).note)
    turn = held.ledger.turn()
    first = turn.append_ledger_written(GOVERNING, record, NOW)
    assert isinstance(first, Appended)
    assert turn.append_ledger_written(GOVERNING, record, NOW) == Known(first.run)
    turn.commit({})
    assert held.ledger.turn().append_ledger_written(GOVERNING, record, NOW) == Known(first.run)
    assert held.ledger.fold.size == 4
    assert held.ledger.fold.signed_size == 3


def rejection(register: str, digit: str = "0", index: int = 0) -> bytes:
    return submission_rejected(
        register=register, register_origin=f"{ORIGIN}/{register}", submission_id=digit * 64, count=1,
        reason="STALE_VIEW", index=index, rejected=None, existing=None,
    )  # fmt: skip


def own(register: str, record: bytes, governing_size: int) -> Message:
    entry = form_ledger_entry(record, NOW, governing_size)
    return Message(register, Acceptance(NOW, "ledger", governing_size), (entry,), None)


def test_what_the_ledger_may_not_have_written_is_quarantined(held: LedgerUnderTest) -> None:
    """False if an entry could come without a signature: of another type, or where no register is open."""
    anchor = checkpoint_anchored(held.published.latest(REGISTER).note)
    size = held.ledger.fold.size
    held.govern("register.closed/1", name=REGISTER, size=0, reason="Abolished.")
    turn = held.ledger.turn()
    for message in (
        own(REGISTER, decision(0), size),
        own(REGISTER, anchor, size),
        own(GOVERNING, governing_record(900, "register.opened/1", name=SECOND, title="An office"), size),
        own(REGISTER, b"{}", size),
        own(SECOND, rejection(SECOND), size),
        own("nowhere", rejection(REGISTER), size),
        own(REGISTER, rejection(REGISTER), size + 1),
        own(REGISTER, rejection(REGISTER), 1),
        own(REGISTER, decision(0, record_id="{00000000-0000-4000-8000-000000000001}"), size),
    ):
        outcome = turn.replay(message)
        assert isinstance(outcome, Quarantined), message
    assert turn.replay(own(REGISTER, rejection(REGISTER), size + 2)) == Waiting(size + 2)
    assert isinstance(turn.replay(own(REGISTER, rejection(REGISTER), size)), Appended)


def test_a_rejection_from_outside_stands_only_where_it_says_that_it_stands(held: LedgerUnderTest) -> None:
    """False if anybody who writes to the event log could reject submissions by a record of another place."""
    size = held.ledger.fold.size
    first = rejection(REGISTER)
    turn = held.ledger.turn()
    for record in (rejection(SECOND), rejection(REGISTER, index=1), first.replace(b'"count":1', b'"count":0')):
        assert isinstance(turn.replay(own(REGISTER, record, size)), Quarantined)
    assert turn.replay(own(REGISTER, first, size)) == Appended(own(REGISTER, first, size), Run(0, 1))
    assert turn.replay(own(REGISTER, first, size)) == Known(Run(0, 1))
    assert isinstance(turn.replay(own(REGISTER, rejection(REGISTER, "1"), size)), Quarantined)
    assert isinstance(turn.replay(own(REGISTER, rejection(REGISTER, "1", index=1), size)), Appended)


def test_a_governing_message_that_registration_cannot_have_made_is_quarantined(held: LedgerUnderTest) -> None:
    """False if a governing submission of two records, or of a department's type, made an entry."""
    two = [governing_record(n, "register.opened/1", name=f"a/b{n}", title="An office") for n in (900, 901)]
    for data in (two, [decision(0)], [decision(0, GOVERNING)], [b'{"a":1}']):
        message = accept(submission(GOVERNING, data, [GOVERNANCE_KEY]), Acceptance(NOW, "anonymous", 3))
        assert isinstance(held.ledger.turn().replay(message), Quarantined)


def test_a_smaller_view_than_the_entry_before_is_stale(held: LedgerUnderTest) -> None:
    """False if governing_size could decrease over a register's entries, or a rejection moved it."""
    held.add([0])
    held.govern("register.opened/1", name=SECOND, title="An office")
    turn = held.ledger.turn()
    assert isinstance(turn.replay(message_of(of(decision(1)), 3)), Appended)
    assert isinstance(turn.replay(message_of(of(decision(2)), 4)), Appended)
    stale = turn.replay(message_of(of(decision(3)), 3))
    assert isinstance(stale, Rejected)
    assert stale.refusal.reason is Reason.STALE_VIEW
    turn.commit({})
    # After reopening as well: the rejection at the end states 3, the last submission 4.
    reopened = Ledger.open(held.ledger.store, ORIGIN)
    again = reopened.turn().replay(message_of(of(decision(4)), 3))
    assert isinstance(again, Rejected)
    assert isinstance(reopened.turn().replay(message_of(of(decision(4)), 4)), Appended)


# Opening.


def test_a_ledger_reopens_as_it_was(tmp_path: Path) -> None:
    """False if heads, fold or the right edge were read back otherwise than they were written."""
    held = tell(MemoryStore(), tmp_path / "marks")
    reopened = Ledger.open(held.ledger.store, ORIGIN)
    assert reopened.heads() == held.ledger.heads()
    assert reopened.fold == held.ledger.fold
    candidate = of(decision(500))
    for ledger in (held.ledger, reopened):
        turn = turn_with(ledger, candidate)
        turn.accept(candidate, NOW, "anonymous")
    held.add([501])
    with pytest.raises(ConflictError):
        turn.commit({})
    assert ACCESS in reopened.heads()


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 513])
def test_appending_goes_on_after_reopening_at_every_border(size: int, tmp_path: Path) -> None:
    """False if the right edge read from the store led to other tiles or roots than the one in memory."""
    store, twin = MemoryStore(), MemoryStore()
    held, other = open_ledger(store, tmp_path / "marks"), open_ledger(twin, tmp_path / "other")
    for one in (held, other):
        one.fill(size)
    reopened = Ledger.open(store, ORIGIN)
    for ledger in (reopened, other.ledger):
        accept_one(ledger, of(*(decision(number) for number in range(600, 603))))
    assert store.heads() == twin.heads()
    assert list(store.all_tiles(REGISTER)) == list(twin.all_tiles(REGISTER))


def test_a_store_of_another_origin_is_refused(held: LedgerUnderTest) -> None:
    """False if one ledger's store could be served under another's name."""
    with pytest.raises(StoreError, match=r"ledger\.test"):
        Ledger.open(held.ledger.store, "another.example")


def damaged_tile(store: MemoryStore) -> None:
    data = bytearray(store._registers[REGISTER].tiles[0, 1])
    data[40] ^= 1
    store._registers[REGISTER].tiles[0, 1] = bytes(data)


def short_tile(store: MemoryStore) -> None:
    store._registers[REGISTER].tiles[0, 1] = store._registers[REGISTER].tiles[0, 1][:-1]


def missing_tile(store: MemoryStore) -> None:
    del store._registers[REGISTER].tiles[1, 0]


def damaged_entry(store: MemoryStore) -> None:
    store._registers[REGISTER].entries[-1] += b" "


def damaged_envelope(store: MemoryStore) -> None:
    store._registers[REGISTER].entries[-1] = b"{}\n"


def one_entry_more(store: MemoryStore) -> None:
    store._registers[REGISTER].entries.append(store._registers[REGISTER].entries[0])


def one_entry_less(store: MemoryStore) -> None:
    store._registers[REGISTER].entries.pop()


def other_root(store: MemoryStore) -> None:
    store._registers[REGISTER].head = replace(store._registers[REGISTER].head, root=leaf_hash(b""))


def damaged_governing(store: MemoryStore) -> None:
    first = store._registers[GOVERNING].entries[1]
    store._registers[GOVERNING].entries[1] = first.replace(b'"title"', b'"tilte"')


@pytest.mark.parametrize(
    "damage",
    [
        damaged_tile, short_tile, missing_tile, damaged_entry, damaged_envelope, one_entry_more, one_entry_less,
        other_root, damaged_governing,
    ],
)  # fmt: skip
def test_a_store_that_does_not_agree_with_itself_is_not_opened(
    damage: Callable[[MemoryStore], None], held: LedgerUnderTest
) -> None:
    """False if the ledger went on from a damaged right edge, and signed it."""
    held.fill(300)
    store = held.ledger.store
    assert isinstance(store, MemoryStore)
    damage(store)
    with pytest.raises(StoreError):
        Ledger.open(store, ORIGIN)


def test_a_submission_is_not_taken_for_another_of_the_same_records(held: LedgerUnderTest) -> None:
    """False if the order or company of records did not make another submission."""
    one: Submission = of(decision(0), decision(1)).submission
    other = of(decision(1), decision(0)).submission
    assert one.submission_id != other.submission_id
    accept_one(held.ledger, of(decision(0), decision(1)))
    assert refused(held.ledger, of(decision(1), decision(0))) is Reason.RECORD_ALREADY_REGISTERED


class CountingStore(MemoryStore):
    """A store that counts the entries that were read, by one or many."""

    read = 0

    def entries(self, register: str, begin: int, end: int) -> list[bytes]:
        self.read += end - begin
        return super().entries(register, begin, end)

    def entries_at(self, register: str, indices: Sequence[int]) -> dict[int, bytes]:
        self.read += len(indices)
        return super().entries_at(register, indices)


def test_a_record_of_many_versions_costs_what_others_cost(tmp_path: Path) -> None:
    """If false, whoever registers many versions of one record makes all others wait, ever longer (P9)."""
    store = CountingStore()
    held = open_ledger(store, tmp_path / "marks")
    versions = [decision(0)]
    while len(versions) < 90:
        versions.append(canonical.format(records.correction(versions[-1])))
    of_versions = [
        submission(REGISTER, versions[begin : begin + 30], [DEPARTMENT_KEY]) for begin in (0, 30, 60)
    ]
    costs = []
    for one in of_versions:
        store.read = 0
        held.turn([one])
        costs.append(store.read)
    assert costs[1] == costs[2] <= 2
    with pytest.raises(RejectedError) as refused_again:
        held.turn([submission(REGISTER, [*versions[3:5], versions[89]], [DEPARTMENT_KEY])])
    assert refused_again.value.detail["registered"] == "0:3,1:4,2:89"

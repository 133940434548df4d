"""The fold of the governing register, and who may do what under it (formats.md, section 7)."""

from typing import Any

import pytest

from ledger import base64, governing
from ledger.ed25519 import SecretKey
from ledger.entries import parse_entry
from ledger.errors import Reason, RejectedError
from ledger.governing import Fold, fold, judge_authority, judge_governance, judge_novelty, judge_register
from ledger.notes import ED25519, VerifierKey
from ledger.records import Record, parse_record
from tests.support.ledgers import governing_record
from tests.support.vectors import load

ENTRIES = [parse_entry(entry.encode()) for entry in load("registers.json")["governing"]["entries"]]
FOLDS: list[dict[str, Any]] = load("governing-fold.json")

ORIGIN = "ledger.test"
REGISTER = "department-for-testing/secretary-of-state"
LOG, ACKNOWLEDGER, *GOVERNORS = (SecretKey(bytes([number]) * 32) for number in range(1, 7))
DEPARTMENT_KEY, OTHER_KEY, NEW_KEY = (SecretKey(bytes([number]) * 32) for number in range(11, 14))


def stated(state: Fold) -> dict[str, Any]:
    """Return a fold in the words of the vectors."""
    current = state.governance_at(state.size)
    return {
        "size": state.size,
        "governance": sorted(map(base64.encode, current.keys)) if current else None,
        "threshold": current.threshold if current else 0,
        "registers": {
            name: {"opened": held.opened} | ({} if held.closed is None else {"closed": held.closed})
            for name, held in state.registers.items()
        },
        "keys": {
            base64.encode(key): {"department": held.department, "authorised": held.authorised}
            | ({} if held.revoked is None else {"revoked": held.revoked})
            for key, held in state.keys.items()
        },
    }


def in_order(state: dict[str, Any]) -> dict[str, Any]:
    return state | {"governance": state["governance"] and sorted(state["governance"])}


@pytest.mark.parametrize("expected", FOLDS, ids=lambda expected: f"size {expected['size']}")
def test_the_fold_is_that_of_the_other_implementation(expected: dict[str, Any]) -> None:
    """False if at some size another key, register or threshold held here than there."""
    assert stated(fold(ENTRIES[: expected["size"]])) == in_order(expected)


def test_folding_on_is_folding_anew() -> None:
    """False if a fold depended on where it was begun."""
    whole = fold(ENTRIES)
    for size in range(len(ENTRIES) + 1):
        assert fold(ENTRIES[size:], fold(ENTRIES[:size])) == whole


def test_anchors_do_not_move_the_size_that_acceptance_states() -> None:
    """False if an entry that nobody signed became the view that keys are judged against."""
    state = Fold()
    signed_size = 0
    for index, entry in enumerate(ENTRIES):
        state = state.extended(entry)
        signed_size = signed_size if entry.membership is None else index + 1
        assert (state.size, state.signed_size) == (index + 1, signed_size)
    assert any(entry.membership is None for entry in ENTRIES)


# A small ledger, in records.


def record(record_type: str, **members: Any) -> Record:
    return parse_record(governing_record(0, record_type, **members))


def opened(*keys: SecretKey, threshold: int = 1) -> Record:
    return record(
        "ledger.opened/1",
        acknowledgement_key=str(VerifierKey(f"{ORIGIN}/acknowledgements", ED25519, ACKNOWLEDGER.public)),
        governance={"keys": texts(*keys), "threshold": threshold},
        ledger_key=str(VerifierKey(f"{ORIGIN}/governing", ED25519, LOG.public)),
        operator="The test operator",
        origin=ORIGIN,
    )


def texts(*keys: SecretKey) -> list[str]:
    return sorted(base64.encode(key.public) for key in keys)


def authorised(key: SecretKey, department: str = "department-for-testing") -> Record:
    text = base64.encode(key.public)
    return record("key.authorised/1", department=department, key=text, label="EDRMS")


def revoked(key: SecretKey, department: str = "department-for-testing") -> Record:
    text = base64.encode(key.public)
    return record("key.revoked/1", department=department, key=text, reason="rotated")


def register_opened(name: str = REGISTER) -> Record:
    return record("register.opened/1", name=name, title="The Secretary of State")


def register_closed(name: str = REGISTER, **members: Any) -> Record:
    return record("register.closed/1", name=name, size=5, reason="Abolished.", **members)


def state_of(*records: Record) -> Fold:
    state = Fold()
    for one in records:
        state = state.extended_by(one)
    return state


STATE = state_of(
    opened(*GOVERNORS[:3], threshold=2),  # 0
    register_opened(),  # 1
    authorised(DEPARTMENT_KEY),  # 2
    authorised(OTHER_KEY, "department-for-others"),  # 3
    revoked(DEPARTMENT_KEY),  # 4
    register_closed(successor="department-for-testing/permanent-secretary"),  # 5
    register_opened("access"),  # 6
)

AUTHORITY = [
    (REGISTER, DEPARTMENT_KEY, 1, Reason.REGISTER_UNKNOWN),
    (REGISTER, DEPARTMENT_KEY, 2, Reason.KEY_UNKNOWN),
    (REGISTER, DEPARTMENT_KEY, 3, None),
    (REGISTER, DEPARTMENT_KEY, 4, None),
    (REGISTER, DEPARTMENT_KEY, 5, Reason.KEY_REVOKED),
    (REGISTER, DEPARTMENT_KEY, 6, Reason.REGISTER_CLOSED),
    (REGISTER, OTHER_KEY, 3, Reason.KEY_UNKNOWN),
    (REGISTER, OTHER_KEY, 4, Reason.KEY_OF_OTHER_DEPARTMENT),
    (REGISTER, NEW_KEY, 5, Reason.KEY_UNKNOWN),
    (REGISTER, GOVERNORS[0], 5, Reason.KEY_UNKNOWN),
    ("department-for-testing/another", DEPARTMENT_KEY, 5, Reason.REGISTER_UNKNOWN),
    ("access", OTHER_KEY, 6, Reason.REGISTER_UNKNOWN),
    ("access", OTHER_KEY, 7, Reason.KEY_OF_OTHER_DEPARTMENT),
]


@pytest.mark.parametrize(("register", "key", "size", "reason"), AUTHORITY)
def test_a_key_may_write_to_its_departments_open_registers_only(
    register: str, key: SecretKey, size: int, reason: Reason | None
) -> None:
    """False if a key could write too early, too late, or to a register of another department (P8)."""
    if reason is None:
        judge_authority(STATE, size, register, key.public)
        return
    with pytest.raises(RejectedError) as caught:
        judge_authority(STATE, size, register, key.public)
    assert caught.value.reason is reason
    if reason in {Reason.REGISTER_CLOSED, Reason.REGISTER_UNKNOWN}:
        assert caught.value.detail["register"] == register
    else:
        assert caught.value.detail["key"] == base64.encode(key.public)


def test_a_closed_register_names_its_successor() -> None:
    """False if a department were not told where to go on."""
    with pytest.raises(RejectedError) as caught:
        judge_register(STATE, 6, REGISTER)
    assert caught.value.detail["successor"] == "department-for-testing/permanent-secretary"
    assert judge_register(STATE, 5, REGISTER).final_size == 5


def signers(*keys: SecretKey) -> frozenset[bytes]:
    return frozenset(key.public for key in keys)


def is_refused(state: Fold, one: Record, *keys: SecretKey) -> bool:
    try:
        judge_governance(state, one, signers(*keys))
    except RejectedError as error:
        return error.reason is Reason.GOVERNANCE_REFUSED
    return False


def test_the_first_entry_opens_the_ledger_and_every_key_it_lists_has_signed() -> None:
    """False if a ledger could begin otherwise, or with a governance key whose holder knows nothing of it."""
    first = opened(*GOVERNORS[:3], threshold=2)
    assert not is_refused(Fold(), first, *GOVERNORS[:3])
    assert is_refused(Fold(), first, *GOVERNORS[:2])
    assert is_refused(Fold(), first)
    assert is_refused(Fold(), register_opened(), *GOVERNORS)
    assert is_refused(Fold(), authorised(NEW_KEY), NEW_KEY)


def test_a_ledger_is_opened_once() -> None:
    """False if an opened ledger could be given another origin or operator."""
    assert is_refused(STATE, opened(*GOVERNORS[:3], threshold=2), *GOVERNORS)


def test_the_threshold_counts_distinct_current_governance_keys() -> None:
    """False if fewer keys than the threshold, or keys of somebody else, could govern."""
    assert not is_refused(STATE, register_opened(), GOVERNORS[0], GOVERNORS[2])
    assert not is_refused(STATE, register_opened(), *GOVERNORS)
    assert is_refused(STATE, register_opened(), GOVERNORS[0])
    assert is_refused(STATE, register_opened(), GOVERNORS[0], GOVERNORS[3], DEPARTMENT_KEY, LOG)
    assert is_refused(STATE, register_opened())


def test_a_new_key_proves_that_somebody_holds_it() -> None:
    """False if a key could be authorised without its own signature."""
    assert not is_refused(STATE, authorised(NEW_KEY), *GOVERNORS[:2], NEW_KEY)
    assert is_refused(STATE, authorised(NEW_KEY), *GOVERNORS[:3])
    assert is_refused(STATE, authorised(NEW_KEY), GOVERNORS[0], NEW_KEY)


def test_governance_changes_hands_with_the_signatures_of_both() -> None:
    """False if new governance keys took over unasked, or the old ones governed on."""
    changed = record(
        "governance.changed/1",
        governance={"keys": texts(GOVERNORS[2], GOVERNORS[3]), "threshold": 2},
        reason="A new archive.",
    )
    assert not is_refused(STATE, changed, *GOVERNORS)
    assert is_refused(STATE, changed, *GOVERNORS[:3])
    assert is_refused(STATE, changed, *GOVERNORS[2:])
    # One that stays need not sign for it: the threshold of now may be met without it.
    assert not is_refused(STATE, changed, GOVERNORS[0], GOVERNORS[1], GOVERNORS[3])
    after = STATE.extended_by(changed)
    assert not is_refused(after, register_opened("a/b"), *GOVERNORS[2:])
    assert is_refused(after, register_opened("a/b"), *GOVERNORS[:3])
    # As at an earlier size, the earlier keys.
    before = after.governance_at(STATE.size)
    assert before is not None
    assert before.keys == signers(*GOVERNORS[:3])
    assert after.governance_at(0) is None


def test_the_first_authorisation_binds_a_key_for_ever() -> None:
    """False if a key could be moved to another department, or be given back after its revocation."""
    again = STATE.extended_by(authorised(DEPARTMENT_KEY, "department-for-others"))
    assert again.keys == STATE.keys
    assert again.signed_size == STATE.size + 1
    twice = STATE.extended_by(revoked(DEPARTMENT_KEY))
    assert twice.keys == STATE.keys
    never = STATE.extended_by(revoked(NEW_KEY))
    assert never.keys == STATE.keys


@pytest.mark.parametrize("own", [LOG, ACKNOWLEDGER, GOVERNORS[0]], ids=["log", "acknowledger", "governor"])
def test_a_key_of_the_ledger_itself_is_bound_to_no_department(own: SecretKey) -> None:
    """False if the operator's or a governor's key could sign as a department."""
    assert STATE.is_own_key(own.public)
    assert STATE.extended_by(authorised(own)).keys == STATE.keys
    assert not STATE.is_own_key(NEW_KEY.public)
    assert not Fold().is_own_key(own.public)


def test_a_register_is_opened_and_closed_once() -> None:
    """False if opening or closing a register again moved when it was open."""
    again = state_of(
        opened(GOVERNORS[0]), register_opened(), register_opened(), register_closed(), register_closed()
    )
    assert again.registers[REGISTER].opened == 1
    assert again.registers[REGISTER].closed == 3
    assert STATE.extended_by(register_opened()).registers == STATE.registers
    assert STATE.extended_by(register_closed("department-for-testing/nobody")).registers == STATE.registers


def test_what_is_there_already_is_refused_with_its_index() -> None:
    """False if registration let a key or register in a second time."""
    with pytest.raises(RejectedError) as caught:
        judge_novelty(STATE, authorised(DEPARTMENT_KEY))
    assert caught.value.reason is Reason.KEY_ALREADY_BOUND
    assert caught.value.detail["index"] == "2"
    with pytest.raises(RejectedError) as caught:
        judge_novelty(STATE, register_opened())
    assert caught.value.reason is Reason.REGISTER_ALREADY_OPEN
    assert caught.value.detail == {"register": REGISTER, "index": "1"}
    judge_novelty(STATE, authorised(NEW_KEY))
    judge_novelty(STATE, authorised(GOVERNORS[0]))  # a finding, not a refusal
    judge_novelty(STATE, register_opened("department-for-testing/new"))
    judge_novelty(STATE, revoked(DEPARTMENT_KEY))


def test_what_was_published_is_kept_in_order() -> None:
    """False if a policy were lost, or held under another name."""
    first = record(
        "policy.published/1", effective_from="2026-01-01T00:00Z", kind="calendar", name="bank holidays",
        calendar={"days": ["2026-12-25"]},
    )  # fmt: skip
    after = STATE.extended_by(first)
    assert after.published == (
        governing.Published(STATE.size, "calendar", "bank holidays", "2026-01-01T00:00Z"),
    )

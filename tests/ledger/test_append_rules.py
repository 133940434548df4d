"""The append rules of entry/1, against the vectors made by another implementation."""

import base64
from typing import Any

import pytest

from ledger.entries import Message, open_message
from ledger.errors import LedgerError, Reason, TakenError
from ledger.event_log import Kind
from ledger.ledger import Appended, Known, Ledger, Outcome, Quarantined, Rejected
from ledger.own_records import submission_rejected
from ledger.stores.memory import MemoryStore
from tests.support import append_scenarios as scenarios
from tests.support import ledgers
from tests.support.ledgers import DEPARTMENT_KEY, decision, submission
from tests.support.vectors import load

ORIGIN = "ledger.daybook.example"
RULES: dict[str, Any] = load("append-rules.json")


def replay(ledger: Ledger, case: dict[str, Any], *, new: bool = False) -> Outcome:
    """Open one message as a stranger to it would, and replay it in a turn of its own.

    With `new` it is taken to be new, and replayed once more where it is not.
    """
    value = base64.b64decode(case["message_base64"])
    try:
        message = open_message(case["register"], value, ORIGIN)
    except LedgerError as error:
        return Quarantined(f"signature or shape: {error}")
    turn = ledger.turn()
    if new:
        try:
            (outcome,) = turn.replay_all([message], new=True)
            turn.commit({})
        except TakenError:
            return replay(ledger, case)
        return outcome
    outcome = turn.replay(message)
    turn.commit({})
    return outcome


def ledger_after_the_story() -> Ledger:
    """Return a ledger in which the whole story was replayed."""
    ledger = Ledger.open(MemoryStore(), ORIGIN)
    for case in RULES["story"]:
        replay(ledger, case)
    return ledger


def check(ledger: Ledger, case: dict[str, Any], outcome: Outcome) -> None:
    """Compare an outcome, and the head after it, with the vector."""
    match outcome:
        case Appended(message, run):
            assert case["outcome"] == "appended"
            assert (run.first, run.count) == (case["first_index"], case["count"])
            if isinstance(message, Message) and message.submission is not None:
                assert message.submission.submission_id == case["submission_id"]
        case Known(run):
            assert case["outcome"] == "duplicate"
            assert run.first == case["first_index"]
        case Rejected(refusal, index):
            assert case["outcome"] == "rejected"
            assert (refusal.reason, index) == (case["reason"], case["index"])
            if "rejection_entry" in case:
                entry = ledger.reader(case["register"]).entry(index)
                assert entry.decode() == case["rejection_entry"]
        case Quarantined(why):
            assert case["outcome"] == "quarantined"
            assert why.startswith(case["why"])
        case _:
            pytest.fail(f"unexpected outcome {outcome}")
    head = ledger.heads()[case["register"]]
    assert (head.size, head.root.hex()) == (case["size_after"], case["root_after"])


@pytest.mark.parametrize("new", [False, True])
def test_the_story_appends_the_same_entries_and_roots_as_the_other_implementation(new: bool) -> None:
    """False if any message of the story had another outcome, index or root here."""
    ledger = Ledger.open(MemoryStore(), ORIGIN)
    for case in RULES["story"]:
        check(ledger, case, replay(ledger, case, new=new))


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("case", RULES["after_the_story"], ids=lambda case: case["name"])
def test_a_message_after_the_story_has_the_same_outcome(case: dict[str, Any], new: bool) -> None:
    """False if a further message were judged otherwise, or its rejection had other bytes."""
    ledger = ledger_after_the_story()
    check(ledger, case, replay(ledger, case, new=new))


def test_a_new_submission_is_appended_without_a_question_to_the_store() -> None:
    """False if what is taken to be new were looked up all the same."""
    store = MemoryStore()
    ledger = Ledger.open(store, ORIGIN)
    appended = next(
        case for case in RULES["story"][::-1] if case["outcome"] == "appended" and case["count"] > 1
    )
    for case in RULES["story"][: RULES["story"].index(appended)]:
        replay(ledger, case)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, "look_up", None)
        check(ledger, appended, replay(ledger, appended, new=True))


def test_nothing_waits_for_what_was_only_taken_to_be_new() -> None:
    """False if a rejection waited for a view that its own submission, not being new, makes irrelevant."""
    register, log = scenarios.LEDGER_WRITTEN, scenarios.event_log()
    now = sum(each.says is Kind.APPENDED for each in log.opening)
    lost = submission(register, [decision(0, register, title="Another")], [DEPARTMENT_KEY])
    rejection = submission_rejected(
        register=register,
        register_origin=f"{ledgers.ORIGIN}/{register}",
        submission_id=lost.submission_id,
        count=1,
        reason=Reason.RECORD_CONFLICT,
        index=1,
        rejected=None,
        existing=None,
    )
    first = submission(register, [decision(0, register)], [DEPARTMENT_KEY])
    before = [*log.opening[1:], scenarios.message(first, Kind.APPENDED, now)]
    both = (
        scenarios.message(lost, Reason.RECORD_CONFLICT, now),
        scenarios.written(register, rejection, Kind.KNOWN, 1_000_000),
    )
    ledger = Ledger.open(MemoryStore(), ledgers.ORIGIN)
    for each in before:
        turn = ledger.turn()
        assert isinstance(turn.replay(opened(each)), Appended)
        turn.commit({})
    with pytest.raises(TakenError):
        list(ledger.turn().replay_all([opened(each) for each in both], new=True))
    rejected, known = ledger.turn().replay_all([opened(each) for each in both])
    assert isinstance(rejected, Rejected)
    assert isinstance(known, Known)


def opened(sent: scenarios.Sent) -> Message:
    """Open a message as it is sent."""
    assert sent.key is not None
    assert sent.value is not None
    return open_message(sent.key.decode(), sent.value, ledgers.ORIGIN)

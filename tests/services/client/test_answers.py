from __future__ import annotations

from dataclasses import replace

import pytest
from daybook.submission.v1 import submission_pb2
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import base64
from ledger.errors import ProofError, SignatureError, VerificationError
from ledger.receipt_file import KeyEvidence, Receipt
from ledger.receipts import verify_receipt
from services.client.answers import Promised, Registered
from services.client.signing import SignedSubmission, sign_submission
from tests.support import story
from tests.support.answering import ACCEPTANCE, ORIGIN, AnsweringLedger, key
from tests.support.records import decision_bytes, record_id


def submission(count: int = 3) -> SignedSubmission:
    records = [decision_bytes(record_id=record_id(number)) for number in range(count)]
    return sign_submission(records, ORIGIN, [key("department")])


def registered(ledger: AnsweringLedger, signed: SignedSubmission, after: int = 3) -> Registered:
    answer = ledger.verifier().verify(signed, ledger.answer(signed, after))
    assert isinstance(answer, Registered)
    return answer


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (5, 0), (5, 3), (8, 24)])
def test_every_receipt_derived_from_an_answer_verifies_by_itself(count: int, before: int, after: int) -> None:
    """False if a receipt that the client keeps were worth less than the answer it came from."""
    ledger, signed = AnsweringLedger(before), submission(count)
    answer = registered(ledger, signed, after)
    assert answer.first_index == before
    assert answer.acceptance == ACCEPTANCE
    for position, receipt in enumerate(answer.receipts()):
        assert receipt == answer.receipt(position)
        verified = verify_receipt(receipt, ledger.policy())
        assert verified.record == signed.records[position]
        assert verified.index == before + position
        assert verified.signers == (key("department").public,)


def test_receipts_are_byte_for_byte_those_of_the_receipt_format() -> None:
    """False if the fast way of joining a receipt wrote other bytes than ledger.receipt_file, keys included."""
    answer = registered(AnsweringLedger(), submission())
    evidence = Receipt.parse(story.receipt("anchored-at-a-smaller-size")).key
    assert isinstance(evidence, KeyEvidence)
    for one in (answer, answer.with_key(evidence)):
        for receipt in one.receipts():
            parsed = Receipt.parse(receipt)
            assert parsed.data() == receipt
            assert parsed.key == one.key


def test_a_position_that_is_not_there_has_no_receipt() -> None:
    """False if a negative position quietly named a record from the end."""
    answer = registered(AnsweringLedger(), submission())
    for position in (-1, 3):
        with pytest.raises(IndexError):
            answer.receipt(position)


def test_one_record_of_the_submission_changed_is_refused() -> None:
    """False if the ledger could register other bytes than were signed, and still be believed."""
    ledger, signed = AnsweringLedger(), submission()
    answer = ledger.answer(signed)
    changed = replace(signed, records=(*signed.records[:2], decision_bytes(title="Another decision")))
    with pytest.raises(ProofError):
        ledger.verifier().verify(changed, answer)


def test_an_answer_about_another_submission_is_refused() -> None:
    """False if an acknowledgement of something else passed for one of this submission."""
    ledger, signed, other = AnsweringLedger(), submission(3), submission(2)
    answer = ledger.answer(signed)
    with pytest.raises(VerificationError, match="acknowledged submission"):
        ledger.verifier().verify(other, answer)


def test_the_log_key_cannot_sign_acknowledgements() -> None:
    """False if a note by any other key than the one in ledger.opened/1 were a promise."""
    ledger, signed = AnsweringLedger(), submission()
    ledger.acknowledger = replace(ledger.acknowledger, secret=ledger.log.secret)
    answer = ledger.answer(signed)
    with pytest.raises(VerificationError):
        AnsweringLedger().verifier().verify(signed, answer)


def test_a_checkpoint_by_a_stranger_is_refused() -> None:
    """False if the server chose the key under which it is believed."""
    ledger, signed = AnsweringLedger(), submission()
    honest = ledger.verifier()
    ledger.log = replace(ledger.log, secret=key("stranger"))
    with pytest.raises(SignatureError):
        honest.verify(signed, ledger.answer(signed))


def test_without_the_quorum_an_answer_is_a_promise_and_with_it_a_proof() -> None:
    """False if a checkpoint that no witness has seen satisfied a policy that asks for one."""
    ledger, signed = AnsweringLedger(), submission()
    verifier = ledger.verifier(ledger.witnessed_policy())
    answer = ledger.answer(signed)
    assert isinstance(verifier.verify(signed, answer), Promised)
    answer.checkpoint = ledger.cosigned(answer.checkpoint)
    sealed = verifier.verify(signed, answer)
    assert isinstance(sealed, Registered)
    assert sealed.sealed
    assert verify_receipt(sealed.receipt(0), ledger.witnessed_policy()).sealed


def test_an_answer_without_a_checkpoint_is_a_promise() -> None:
    """False if ACCEPTED were taken for registered."""
    ledger, signed = AnsweringLedger(), submission()
    note = ledger.acknowledgement(signed)
    answer = submission_pb2.Acknowledgement(
        submission_id=signed.submission_id, state=submission_pb2.STATE_ACCEPTED, note=note
    )
    promised = ledger.verifier().verify(signed, answer)
    assert isinstance(promised, Promised)
    assert promised.note == note


def test_an_envelope_that_would_break_out_of_its_string_is_refused() -> None:
    """False if the server could put members of its own into the client's entries."""
    ledger, signed = AnsweringLedger(), submission(1)
    answer = ledger.answer(signed)
    answer.envelope.submitter = 'anonymous","type":"x'
    with pytest.raises(VerificationError, match="envelope"):
        ledger.verifier().verify(signed, answer)


@pytest.mark.parametrize("name", ["accepted_at", "submitter"])
def test_an_envelope_that_ends_early_cannot_bring_other_bytes_as_the_record(name: str) -> None:
    """False if a ledger could register what nobody signed, and the client took it for its own record."""
    signed = submission(1)
    (signature,) = signed.signatures
    after = f'"governing_size":{ACCEPTANCE.governing_size},"submission":{{"count":1,"position":0,"signatures":'
    after += (
        f'[{{"key":"{base64.encode(signature.key)}","signature":"{base64.encode(signature.signature)}"}}]}}'
    )
    if name == "submitter":
        acceptance = replace(ACCEPTANCE, submitter=f'{ACCEPTANCE.submitter}","type":"entry/1"}}\nforged')
    else:
        early = f'{ACCEPTANCE.accepted_at}",{after},"submitter":"anonymous","type":"entry/1"}}\nforged'
        acceptance = replace(ACCEPTANCE, accepted_at=early)
    ledger = AnsweringLedger(acceptance=acceptance)
    with pytest.raises(VerificationError, match="does not stay in its members"):
        ledger.verifier().verify(signed, ledger.answer(signed))


LEDGER = AnsweringLedger()
SIGNED = submission()
ANSWER = LEDGER.answer(SIGNED).SerializeToString()


@settings(max_examples=400)
@given(st.integers(0, len(ANSWER) * 8 - 1))
def test_an_answer_with_any_flipped_bit_proves_the_same_or_nothing(bit: int) -> None:
    """False if damage on the way, or an attacker, could change what the client believes."""
    data = bytearray(ANSWER)
    data[bit // 8] ^= 1 << bit % 8
    try:
        answer = submission_pb2.Acknowledgement.FromString(bytes(data))
    except DecodeError:
        return
    try:
        result = LEDGER.verifier().verify(SIGNED, answer)
    except VerificationError:
        return
    if isinstance(result, Promised):
        assert not answer.checkpoint
        return
    honest = LEDGER.verifier().verify(SIGNED, submission_pb2.Acknowledgement.FromString(ANSWER))
    assert isinstance(honest, Registered)
    assert (result.entries, result.checkpoint) == (honest.entries, honest.checkpoint)

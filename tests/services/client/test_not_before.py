"""The earlier checkpoint in an answer: believed only where it is proved, and then in every receipt."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from daybook.submission.v1 import submission_pb2

from ledger import tree
from ledger.checkpoints import Checkpoint, sign_checkpoint
from ledger.errors import ProofError, SignatureError, VerificationError
from ledger.notes import SignerKey
from ledger.proofs import compute, plan_consistency, plan_range
from ledger.receipt_file import Receipt
from ledger.receipts import verify_receipt
from services.client.answers import Registered
from services.client.signing import SignedSubmission, sign_submission
from tests.support.answering import ORIGIN, AnsweringLedger, key
from tests.support.records import decision_bytes, record_id

FIRST = 5
"""The index of the first record."""


def submission() -> SignedSubmission:
    return sign_submission(
        [decision_bytes(record_id=record_id(each)) for each in range(3)], ORIGIN, [key("department")]
    )


def answered(ledger: AnsweringLedger, signed: SignedSubmission, size: int) -> submission_pb2.Acknowledgement:
    """Return a sealed answer that shows an earlier checkpoint, of `size` entries, sealed and proved."""
    answer = ledger.answer(signed)
    answer.checkpoint = ledger.cosigned(answer.checkpoint)
    extension = tree.extend(tree.EMPTY, ledger.leaves)
    answer.not_before = ledger.cosigned(ledger.checkpoint(size, extension.frontier(size).root()))
    if 0 < size < len(ledger.leaves):
        plan = plan_consistency(size, len(ledger.leaves))
        answer.not_before_consistency.extend(compute(plan, lambda node: extension.node(*node)))
    return answer


def verified(
    ledger: AnsweringLedger, signed: SignedSubmission, answer: submission_pb2.Acknowledgement
) -> Registered:
    registered = ledger.verifier(ledger.witnessed_policy()).verify(signed, answer)
    assert isinstance(registered, Registered)
    return registered


@pytest.mark.parametrize("size", [0, 1, 4, FIRST])
def test_an_earlier_checkpoint_bounds_every_receipt_from_below(size: int) -> None:
    """False if a department's own receipts said less of the time than the ledger has shown it."""
    ledger, signed = AnsweringLedger(FIRST), submission()
    registered = verified(ledger, signed, answered(ledger, signed, size))
    assert registered.not_before is not None
    for position, data in enumerate(registered.receipts()):
        receipt = Receipt.parse(data)
        assert receipt.not_before == registered.not_before
        assert receipt.data() == data == registered.receipt(position)
        bounds = verify_receipt(data, ledger.witnessed_policy()).bounds
        assert None not in (bounds.not_before, bounds.not_after)


def test_without_one_no_earliest_time_is_claimed() -> None:
    """False if a receipt claimed a bound that nobody has shown."""
    ledger, signed = AnsweringLedger(FIRST), submission()
    answer = answered(ledger, signed, 4)
    answer.ClearField("not_before")
    registered = verified(ledger, signed, answer)
    assert registered.not_before is None
    assert Receipt.parse(registered.receipt(0)).not_before is None


def test_one_that_is_not_sealed_for_us_is_left_out() -> None:
    """False if the ledger's own signature passed for a witness's word on the time."""
    ledger, signed = AnsweringLedger(FIRST), submission()
    answer = answered(ledger, signed, 4)
    answer.not_before = answer.not_before.rpartition("— witness".encode())[0]
    registered = verified(ledger, signed, answer)
    assert registered.not_before is None
    assert verify_receipt(registered.receipt(0), ledger.witnessed_policy()).bounds.not_before is None


@pytest.mark.parametrize("size", [FIRST + 1, FIRST + 3, FIRST + 6])
def test_one_that_covers_the_records_is_refused(size: int) -> None:
    """False if a checkpoint that has the entry in it bounded it from below."""
    ledger, signed = AnsweringLedger(FIRST), submission()
    with pytest.raises(VerificationError, match="covers the records"):
        verified(ledger, signed, answered(ledger, signed, size))


def test_a_proof_that_does_not_hold_is_refused() -> None:
    """False if a checkpoint of another history bounded the entry."""
    ledger, signed = AnsweringLedger(FIRST), submission()
    good = answered(ledger, signed, 4)
    changes: tuple[Callable[[submission_pb2.Acknowledgement], object], ...] = (
        lambda answer: answer.not_before_consistency.pop(),
        lambda answer: answer.not_before_consistency.append(bytes(32)),
        lambda answer: answer.not_before_consistency.__setitem__(0, bytes(32)),
        lambda answer: answer.not_before_consistency.__setitem__(0, b"short"),
        lambda answer: answer.ClearField("not_before_consistency"),
    )
    for change in changes:
        answer = submission_pb2.Acknowledgement.FromString(good.SerializeToString())
        change(answer)
        with pytest.raises((ProofError, VerificationError)):
            verified(ledger, signed, answer)
    answer = answered(ledger, signed, 0)
    answer.not_before_consistency.append(bytes(32))
    with pytest.raises(ProofError, match="nothing to prove from size 0"):
        verified(ledger, signed, answer)


def test_one_of_another_log_or_key_is_refused() -> None:
    """False if a note of another register, or by a stranger, bounded the entry."""
    ledger, signed = AnsweringLedger(FIRST), submission()
    answer = answered(ledger, signed, 4)
    root = tree.extend(tree.EMPTY, ledger.leaves).frontier(4).root()
    other = f"{ORIGIN}s"
    for origin, signer in (
        (other, SignerKey(other, ledger.log.secret)),
        (ORIGIN, SignerKey(ORIGIN, key("stranger"))),
    ):
        answer.not_before = sign_checkpoint(Checkpoint(origin, 4, root), signer)
        with pytest.raises((SignatureError, VerificationError)):
            verified(ledger, signed, answer)
    answer.not_before = b"no note"
    with pytest.raises(VerificationError):
        verified(ledger, signed, answer)


def test_what_is_remembered_of_a_checkpoint_is_judged_anew_for_each_answer() -> None:
    """False if a bound that holds for one answer were taken to hold for another, whose records it covers."""
    ledger, signed, later = AnsweringLedger(FIRST), submission(), submission()
    verifier = ledger.verifier(ledger.witnessed_policy())
    first = answered(ledger, signed, FIRST)
    size = len(ledger.leaves)
    second = answered(ledger, later, size)
    assert isinstance(verifier.verify(later, second), Registered)
    # The first submission again, proved in the later tree, with what bounds the second one.
    extension = tree.extend(tree.EMPTY, ledger.leaves)
    plan = plan_range(FIRST, FIRST + 3, len(ledger.leaves))
    first.range_proof.hashes[:] = compute(plan, lambda node: extension.node(*node))
    first.checkpoint, first.not_before = second.checkpoint, second.not_before
    first.not_before_consistency[:] = second.not_before_consistency
    with pytest.raises(VerificationError, match="covers the records"):
        verifier.verify(signed, first)

from __future__ import annotations

import pytest

from ledger import ed25519
from ledger.entries import open_submission, pae
from ledger.errors import MalformedError
from services.client.signing import sign_submission
from tests.support.answering import ORIGIN, key
from tests.support.records import LEDGER_ORIGIN, decision_bytes, record_id

RECORDS = [decision_bytes(record_id=record_id(number)) for number in range(7)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_ledger_accepts_what_the_client_signed(count: int) -> None:
    """False if the client's tree, body or signature were another than the ledger's own code expects."""
    signed = sign_submission(RECORDS[:count], ORIGIN, [key("department")])
    opened = open_submission(signed.body, signed.records, signed.signatures, LEDGER_ORIGIN)
    assert opened.submission_id == signed.submission_id
    assert opened.paths == signed.paths


def test_signing_again_with_another_key_is_the_same_submission() -> None:
    """False if submission_id covered key or signature: a repeated run would register twice."""
    first = sign_submission(RECORDS, ORIGIN, [key("department")])
    second = sign_submission(RECORDS, ORIGIN, [key("another")])
    assert first.submission_id == second.submission_id
    assert first.signatures != second.signatures


def test_several_keys_sign_in_the_order_of_their_base64() -> None:
    """False if governance signatures were sent in an order that entries do not have."""
    signed = sign_submission(RECORDS[:1], f"{LEDGER_ORIGIN}/governing", [key(str(n)) for n in range(5)])
    opened = open_submission(signed.body, signed.records, signed.signatures, LEDGER_ORIGIN)
    assert opened.signatures == signed.signatures
    for signature in signed.signatures:
        ed25519.verify(signature.key, pae(signed.body), signature.signature)


def test_no_record_is_no_submission() -> None:
    """False if an empty submission could be signed."""
    with pytest.raises(MalformedError):
        sign_submission([], ORIGIN, [key("department")])

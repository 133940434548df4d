"""Governance over a real server: who may change who may write, what is refused, and that it changed nothing.

The ledger has three governance keys, of which two must sign.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import grpc
import pytest
from daybook.registration.v1 import registration_service_pb2 as pb
from daybook.submission.v1.submission_pb2 import STATE_SEQUENCED, Acknowledgement

from ledger import base64
from ledger.ed25519 import SecretKey
from ledger.entries import MAX_RECORDS, Signature
from ledger.governing import GOVERNING
from ledger.receipts import verify_receipt
from services.client.client import message_of
from services.client.signing import SignedSubmission, sign_submission
from services.ledger_files import read_secret_key
from tests.support import ledger_dir, records
from tests.support.calling import GOVERNANCE_CALLS, Caller, calling
from tests.support.ledger_dir import LedgerOnDisk, make_ledger
from tests.support.ledgers import DEPARTMENT, DEPARTMENT_KEY, ORIGIN, REGISTER, governing_record
from tests.support.server_process import Server, assert_fsck_finds_nothing, running

CODE = grpc.StatusCode

GOVERNANCE: Final = tuple(SecretKey(bytes([number]) * 32) for number in (0x21, 0x22, 0x23))
QUORUM: Final = GOVERNANCE[:2]


def fresh_key() -> SecretKey:
    """Return a key that no ledger has seen."""
    return SecretKey(hashlib.sha256(uuid4().bytes).digest())


def fresh_name() -> str:
    """Return the name of a register that was never opened."""
    return f"{DEPARTMENT}/{uuid4()}"


def request(
    record_type: str, *also: SecretKey, by: Sequence[SecretKey] = QUORUM, **members: Any
) -> SignedSubmission:
    """Return a governing record, by default signed by enough governance keys."""
    return ledger_dir.governing(record_type, *also, by=by, **members)


def opening(name: str, by: Sequence[SecretKey] = QUORUM) -> SignedSubmission:
    """Return the request to open a register."""
    return request("register.opened/1", by=by, name=name, title="An office")


def authorising(key: SecretKey, *also: SecretKey, by: Sequence[SecretKey] = QUORUM) -> SignedSubmission:
    """Return the request to authorise a key for the department, signed by `also` too."""
    text = base64.encode(key.public)
    return request("key.authorised/1", *also, by=by, department=DEPARTMENT, key=text, label="EDRMS")


def revoking(key: SecretKey) -> SignedSubmission:
    """Return the request to revoke a key of the department."""
    text = base64.encode(key.public)
    return request("key.revoked/1", department=DEPARTMENT, key=text, reason="rotated")


def written(register: str, key: SecretKey = DEPARTMENT_KEY) -> SignedSubmission:
    """Return a decision for a register, signed as a department signs it."""
    data = records.decision_bytes(register=register, record_id=str(uuid4()))
    return sign_submission([data], f"{ORIGIN}/{register}", [key])


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> LedgerOnDisk:
    """Return a ledger that two of three govern."""
    root = tmp_path_factory.mktemp("governance") / "ledger"
    return make_ledger(root, governance=GOVERNANCE, threshold=2)


@pytest.fixture(scope="module")
def server(ledger: LedgerOnDisk) -> Iterator[Server]:
    """Serve it while the module runs; afterwards it is still a sound ledger, and opens again."""
    log = ledger.root.parent / "serve.log"
    with running(ledger.root, log) as server:
        yield server
        assert server.terminate() == 0
    assert_fsck_finds_nothing(ledger.root)
    with running(ledger.root, log) as server:
        assert server.origin == ORIGIN


@pytest.fixture
def ledger_of_its_own(tmp_path: Path) -> Iterator[Server]:
    """Serve a ledger for one test only."""
    made = make_ledger(tmp_path / "ledger", governance=GOVERNANCE, threshold=2)
    with running(made.root, tmp_path / "serve.log") as server:
        yield server


@pytest.fixture
async def caller(server: Server) -> AsyncIterator[Caller]:
    """Return a channel to it."""
    async with calling(server.grpc) as caller:
        yield caller


# What is accepted, and its effect


async def test_a_register_that_was_opened_can_be_written_at_once(caller: Caller) -> None:
    """If false, governance would take effect at another moment than its entry says."""
    name = fresh_name()
    opened = await caller.govern("OpenRegister", opening(name))
    assert (await caller.sizes())[name] == 0
    answer = await caller.register(written(name))
    assert (answer.first_index, answer.envelope.governing_size) == (0, opened.first_index + 1)


async def test_every_change_is_an_entry_that_a_receipt_proves(caller: Caller, ledger: LedgerOnDisk) -> None:
    """If false, who may write where would rest on the operator's word (promise P8)."""
    submission = opening(fresh_name())
    before = (await caller.sizes())[GOVERNING]
    answer = await caller.govern("OpenRegister", submission)
    assert (answer.state, answer.first_index) == (STATE_SEQUENCED, before)
    wanted = pb.GetReceiptRequest(register=GOVERNING, index=before)
    response = await caller.registration.GetReceipt(wanted)
    verified = verify_receipt(response.receipt, ledger.policy)
    assert (verified.record,) == submission.records
    assert set(verified.signers) == {key.public for key in QUORUM}


async def test_a_key_writes_from_its_authorisation_to_its_revocation(caller: Caller) -> None:
    """If false, a key would work before its authorisation or after its revocation."""
    key = fresh_key()
    early = written(REGISTER, key)
    await caller.refused(caller.register(early), CODE.PERMISSION_DENIED, "KEY_UNKNOWN")
    await caller.govern("AuthoriseKey", authorising(key, key))
    assert (await caller.register(early)).state == STATE_SEQUENCED
    await caller.govern("RevokeKey", revoking(key))
    await caller.refused(
        caller.register(written(REGISTER, key)),
        CODE.PERMISSION_DENIED,
        "KEY_REVOKED",
        key=base64.encode(key.public),
    )
    assert (await caller.register(early)).already_registered


async def test_a_register_that_was_closed_takes_nothing_and_stays_readable(caller: Caller) -> None:
    """If false, a closed register would grow, or its history would go with the office."""
    name = fresh_name()
    await caller.govern("OpenRegister", opening(name))
    submission = written(name)
    await caller.register(submission)
    closing = request("register.closed/1", name=name, size=1, reason="Abolished", successor=REGISTER)
    await caller.govern("CloseRegister", closing)
    await caller.refused(
        caller.register(written(name)),
        CODE.FAILED_PRECONDITION,
        "REGISTER_CLOSED",
        register=name,
        successor=REGISTER,
    )
    assert (await caller.register(submission)).already_registered
    receipt = await caller.registration.GetReceipt(pb.GetReceiptRequest(register=name, index=0))
    assert receipt.state == STATE_SEQUENCED


async def test_a_policy_is_published(caller: Caller) -> None:
    """If false, the ledger's quorum could not change by an entry."""
    text = "log example.test/governing+fb5ba72a+AfvgVcx8/HDqBNxnGmtbEhrIkRWb7MQJuTRCMUHoJg4m\nquorum none\n"
    members: dict[str, Any] = {
        "kind": "witness",
        "name": "None yet",
        "effective_from": "2026-08-01T00:00Z",
        "text": text,
    }
    answer = await caller.govern("PublishPolicy", request("policy.published/1", **members))
    assert answer.state == STATE_SEQUENCED


async def test_the_same_request_again_gets_the_same_answer(caller: Caller) -> None:
    """If false, a retry would change governance twice."""
    key = fresh_key()
    submission = authorising(key, key)
    first = await caller.govern("AuthoriseKey", submission)
    before = await caller.sizes()
    again = await caller.govern("AuthoriseKey", submission)
    assert (again.already_registered, again.note, again.first_index) == (True, first.note, first.first_index)
    assert await caller.sizes() == before


async def test_more_signatures_than_are_needed_are_kept(caller: Caller) -> None:
    """If false, who has approved a change would not all be in its entry."""
    key = fresh_key()
    answer = await caller.govern("AuthoriseKey", authorising(key, key, DEPARTMENT_KEY, by=GOVERNANCE))
    wanted = pb.GetReceiptRequest(register=GOVERNING, index=answer.first_index)
    receipt = (await caller.registration.GetReceipt(wanted)).receipt
    assert receipt.count(b'"signature":') == 5


# Too few, or the wrong ones


async def test_fewer_signatures_than_the_threshold_are_refused(caller: Caller) -> None:
    """If false, one holder alone could decide who may write (promise P8)."""
    for by, valid in ((GOVERNANCE[:1], "1"), ((fresh_key(),), "0"), ((GOVERNANCE[2], fresh_key()), "1")):
        await caller.refused(
            caller.govern("OpenRegister", opening(fresh_name(), by)),
            CODE.PERMISSION_DENIED,
            "GOVERNANCE_REFUSED",
            threshold="2",
            valid=valid,
        )


async def test_the_ledgers_own_keys_and_a_departments_key_decide_nothing(
    caller: Caller, ledger: LedgerOnDisk
) -> None:
    """If false, the operator or a department could change who may write."""
    log = read_secret_key(ledger.directory.log_key).secret
    await caller.refused(
        caller.govern("OpenRegister", opening(fresh_name(), (log, DEPARTMENT_KEY))),
        CODE.PERMISSION_DENIED,
        "GOVERNANCE_REFUSED",
        valid="0",
    )


async def test_a_key_that_has_not_signed_for_itself_is_not_authorised(caller: Caller) -> None:
    """If false, a key could be bound to a department that does not hold it."""
    key = fresh_key()
    await caller.refused(
        caller.govern("AuthoriseKey", authorising(key)),
        CODE.PERMISSION_DENIED,
        "GOVERNANCE_REFUSED",
        missing=base64.encode(key.public),
    )


async def test_new_governance_keys_must_have_signed_themselves(caller: Caller) -> None:
    """If false, governance could pass to keys that nobody holds, for ever."""
    new = fresh_key()
    change = handing_over((*GOVERNANCE, new))
    await caller.refused(
        caller.register(change),
        CODE.PERMISSION_DENIED,
        "GOVERNANCE_REFUSED",
        missing=base64.encode(new.public),
    )


def handing_over(to: Sequence[SecretKey], *also: SecretKey) -> SignedSubmission:
    """Return the request to let these keys govern, two of them at a time."""
    keys = sorted(base64.encode(key.public) for key in to)
    members: dict[str, Any] = {"governance": {"keys": keys, "threshold": 2}, "reason": "A new holder"}
    return request("governance.changed/1", *also, **members)


async def test_those_to_whom_governance_passed_decide_and_those_from_whom_it_passed_do_not(
    ledger_of_its_own: Server,
) -> None:
    """If false, a governance key could never be retired."""
    new = fresh_key()
    async with calling(ledger_of_its_own.grpc) as caller:
        # The second stays: it need not sign for itself, but it is one of the two who must sign.
        await caller.register(handing_over((GOVERNANCE[1], new), new))
        await caller.refused(
            caller.govern("OpenRegister", opening(fresh_name())),
            CODE.PERMISSION_DENIED,
            "GOVERNANCE_REFUSED",
            threshold="2",
            valid="1",
        )
        opened = await caller.govern("OpenRegister", opening(fresh_name(), (GOVERNANCE[1], new)))
        assert opened.state == STATE_SEQUENCED


async def test_one_wrong_signature_among_enough_good_ones_is_refused(caller: Caller) -> None:
    """If false, an entry would carry a signature that does not verify."""
    good = opening(fresh_name())
    forged = Signature(GOVERNANCE[2].public, b"\0" * 64)
    await caller.refused(
        caller.govern("OpenRegister", good.signed_by([*good.signatures, forged])),
        CODE.UNAUTHENTICATED,
        "SIGNATURE_INVALID",
        key=base64.encode(GOVERNANCE[2].public),
    )


async def test_signatures_are_one_to_eight_and_no_key_signs_twice(caller: Caller) -> None:
    """If false, one key could count as two, or an envelope outgrow its limit."""
    good = opening(fresh_name())
    nine = opening(fresh_name(), (*QUORUM, *(fresh_key() for _ in range(7))))
    for submission, count in (
        (good.signed_by([]), "0"),
        (good.signed_by([good.signatures[0], good.signatures[0]]), "2"),
        (nine, "9"),
    ):
        await caller.refused(
            caller.govern("OpenRegister", submission),
            CODE.INVALID_ARGUMENT,
            "SIGNATURE_COUNT",
            count=count,
            limit="8",
        )


# What is there already


async def test_a_bound_key_is_never_bound_again(caller: Caller) -> None:
    """If false, a key could pass from one department to another."""
    key = fresh_key()
    first = await caller.govern("AuthoriseKey", authorising(key, key))
    await caller.govern("RevokeKey", revoking(key))
    await caller.refused(
        caller.govern("AuthoriseKey", authorising(key, key)),
        CODE.ALREADY_EXISTS,
        "KEY_ALREADY_BOUND",
        key=base64.encode(key.public),
        department=DEPARTMENT,
        index=str(first.first_index),
    )


async def test_a_register_is_never_opened_twice(caller: Caller) -> None:
    """If false, a closed register could be opened again under its old name."""
    name = fresh_name()
    first = await caller.govern("OpenRegister", opening(name))
    await caller.govern(
        "CloseRegister", request("register.closed/1", name=name, size=0, reason="Opened in error")
    )
    await caller.refused(
        caller.govern("OpenRegister", opening(name)),
        CODE.ALREADY_EXISTS,
        "REGISTER_ALREADY_OPEN",
        register=name,
        index=str(first.first_index),
    )


# Shape


async def test_a_governance_submission_has_one_record(caller: Caller) -> None:
    """If false, a change could be approved together with another that was not read."""
    two = [
        governing_record(1_000_000 + number, "register.opened/1", name=fresh_name(), title="An office")
        for number in range(2)
    ]
    await caller.refused(
        caller.govern("OpenRegister", sign_submission(two, f"{ORIGIN}/{GOVERNING}", QUORUM)),
        CODE.INVALID_ARGUMENT,
        "TOO_MANY_RECORDS",
        limit="1",
        count="2",
    )


async def test_each_call_takes_its_own_type_of_record(caller: Caller) -> None:
    """If false, whoever may call RevokeKey at a gateway could open registers."""
    for call in GOVERNANCE_CALLS:
        submission = opening(fresh_name()) if call != "OpenRegister" else revoking(DEPARTMENT_KEY)
        error = await caller.refused(
            caller.govern(call, submission), CODE.INVALID_ARGUMENT, "INVALID_FIELD", "records[0].type"
        )
        assert call in error.message


@pytest.mark.parametrize(
    ("count", "reason"), [(MAX_RECORDS, "INVALID_FIELD"), (MAX_RECORDS + 1, "TOO_MANY_RECORDS")]
)
async def test_records_beyond_the_most_are_refused_before_they_are_looked_at(
    caller: Caller, count: int, reason: str
) -> None:
    """If false, one request with a million of them would hold up everybody while they are read."""
    decisions = SignedSubmission("", (records.decision_bytes(),) * count, b"", (), (), "")
    await caller.refused(caller.govern("OpenRegister", decisions), CODE.INVALID_ARGUMENT, reason)


async def test_a_call_without_a_deadline_is_refused(caller: Caller) -> None:
    """If false, a governance call could wait for ever."""
    for call, message in GOVERNANCE_CALLS.items():
        body = message(submission=message_of(opening(fresh_name())))
        await caller.refused(
            getattr(caller.governance, call)(body), CODE.INVALID_ARGUMENT, "INVALID_FIELD", "grpc-timeout"
        )


WRONG: Final[dict[str, tuple[str, str, dict[str, Any], str]]] = {
    "a register named governing": (
        "OpenRegister",
        "register.opened/1",
        {"name": "governing", "title": "x"},
        "name",
    ),
    "a register with no office": (
        "OpenRegister",
        "register.opened/1",
        {"name": "office", "title": "x"},
        "name",
    ),
    "a reserved word for an office": (
        "OpenRegister",
        "register.opened/1",
        {"name": f"{DEPARTMENT}/checkpoint", "title": "x"},
        "name",
    ),
    "no title": ("OpenRegister", "register.opened/1", {"name": f"{DEPARTMENT}/untitled"}, "title"),
    "no size at closing": (
        "CloseRegister",
        "register.closed/1",
        {"name": REGISTER, "reason": "Abolished"},
        "size",
    ),
    "a reason outside the vocabulary": (
        "RevokeKey",
        "key.revoked/1",
        {"department": DEPARTMENT, "key": base64.encode(bytes(32)), "reason": "bored"},
        "reason",
    ),
    "suspected without compromise": (
        "RevokeKey",
        "key.revoked/1",
        {
            "department": DEPARTMENT,
            "key": base64.encode(bytes(32)),
            "reason": "lost",
            "suspected_from": "2026-01-01",
        },
        "suspected_from",
    ),
    "a key of 31 bytes": (
        "RevokeKey",
        "key.revoked/1",
        {"department": DEPARTMENT, "key": base64.encode(bytes(31)), "reason": "lost"},
        "key",
    ),
    "a witness policy without its text": (
        "PublishPolicy",
        "policy.published/1",
        {"kind": "witness", "name": "x", "effective_from": "2026-08-01T00:00Z"},
        "text",
    ),
}


@pytest.mark.parametrize(("call", "record_type", "members", "field"), WRONG.values(), ids=WRONG.keys())
async def test_a_governing_record_that_breaks_a_rule_is_refused_with_its_field(
    caller: Caller, call: str, record_type: str, members: dict[str, Any], field: str
) -> None:
    """If false, the fold would meet what it cannot read."""
    await caller.refused(
        caller.govern(call, request(record_type, **members)),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        f"records[0].{field}",
    )


# Not listed as refused, so accepted; and without effect


async def test_governance_of_what_is_not_there_is_accepted_and_changes_nothing(caller: Caller) -> None:
    """If false, evidence of a mistaken order would be lost."""
    for call, submission in (
        ("CloseRegister", request("register.closed/1", name=fresh_name(), size=3, reason="Never opened")),
        ("RevokeKey", revoking(fresh_key())),
    ):
        assert (await accepted(caller, call, submission)).state == STATE_SEQUENCED


async def test_a_ledger_or_governance_key_authorised_for_a_department_writes_nothing(
    caller: Caller, ledger: LedgerOnDisk
) -> None:
    """If false, the operator's key could write a department's history."""
    log = read_secret_key(ledger.directory.log_key).secret
    await accepted(caller, "AuthoriseKey", authorising(log, log))
    await accepted(caller, "AuthoriseKey", authorising(GOVERNANCE[0]))
    for key in (log, GOVERNANCE[0]):
        await caller.refused(caller.register(written(REGISTER, key)), CODE.PERMISSION_DENIED, "KEY_UNKNOWN")


async def test_the_ledger_is_opened_once(caller: Caller, ledger: LedgerOnDisk) -> None:
    """If false, the ledger's keys could change under its receipts, and the directory no more be opened."""
    members: dict[str, Any] = {
        "acknowledgement_key": str(ledger.acknowledgement_key),
        "governance": {"keys": sorted(base64.encode(key.public) for key in GOVERNANCE), "threshold": 1},
        "ledger_key": str(ledger.policy.logs[0].key),
        "operator": "Another operator",
        "origin": ORIGIN,
    }
    again = request("ledger.opened/1", GOVERNANCE[2], **members)
    await caller.refused(caller.register(again), CODE.PERMISSION_DENIED, "GOVERNANCE_REFUSED")


async def accepted(caller: Caller, call: str, submission: SignedSubmission) -> Acknowledgement:
    """Make a governance call whose entry is to be the only thing that it adds."""
    before = await caller.sizes()
    answer = await caller.govern(call, submission)
    after = await caller.sizes()
    assert after == {**before, GOVERNING: before[GOVERNING] + 1}
    return answer

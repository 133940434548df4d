"""Registration over a real server: what is refused, just how, and that it changed nothing; what is not refused.

The refusals are those of formats.md, section 19, in its order; the server runs for the whole module, and
every test brings record_ids of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import grpc
import grpc.aio
import pytest
from daybook.registration.v1 import drafts_pb2
from daybook.registration.v1 import registration_service_pb2 as pb
from daybook.submission.v1.submission_pb2 import STATE_SEQUENCED, RecordVersion

from ledger import base64, canonical
from ledger.acknowledgements import open_acknowledgement
from ledger.ed25519 import SecretKey
from ledger.entries import MAX_RECORD, Signature, pae, submission_body
from ledger.hashing import EMPTY_ROOT, Hash, leaf_hash
from ledger.receipts import verify_receipt
from ledger.tree import tree_root
from services.client.client import message_of
from services.client.errors import from_status
from services.client.signing import SignedSubmission, sign_submission
from tests.support import records
from tests.support.calling import SECONDS, Caller, assert_refused, calling
from tests.support.ledger_dir import LedgerOnDisk, authorising, governing, make_ledger, revoking
from tests.support.ledgers import DEPARTMENT, DEPARTMENT_KEY, ORIGIN, REGISTER
from tests.support.server_process import Server, running

CODE = grpc.StatusCode

OTHER_REGISTER: Final = "department-for-others/secretary-of-state"
CLOSED: Final = f"{DEPARTMENT}/abolished"
OTHER_KEY: Final = SecretKey(b"\x05" * 32)
REVOKED_KEY: Final = SecretKey(b"\x06" * 32)
UNKNOWN_KEY: Final = SecretKey(b"\x07" * 32)


def record(register: str = REGISTER, **changes: Any) -> bytes:
    """Return a decision with a record_id of its own; a member set to None is left out."""
    return records.decision_bytes(register=register, **{"record_id": str(uuid4()), **changes})


def spelled(text: Callable[[str], str]) -> bytes:
    """Return a decision's bytes, spelled otherwise than canonical JSON would."""
    return text(record().decode()).encode()


def signed(
    *these: bytes, register: str = REGISTER, origin: str = ORIGIN, key: SecretKey = DEPARTMENT_KEY
) -> SignedSubmission:
    """Return records signed as a department signs them."""
    return sign_submission(these, f"{origin}/{register}", [key])


REVOKED_EARLIER: Final = signed(record(), key=REVOKED_KEY)
"""Registered while its key was good."""


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> LedgerOnDisk:
    """Return a ledger with two departments."""
    keys = {DEPARTMENT: (DEPARTMENT_KEY, REVOKED_KEY), "department-for-others": (OTHER_KEY,)}
    root = tmp_path_factory.mktemp("registration") / "ledger"
    return make_ledger(root, (REGISTER, OTHER_REGISTER, CLOSED), keys)


@pytest.fixture(scope="module")
def server(ledger: LedgerOnDisk) -> Iterator[Server]:
    """Serve it while the module runs."""
    with running(ledger.root, ledger.root.parent / "serve.log") as server:
        yield server


@pytest.fixture
async def caller(server: Server) -> AsyncIterator[Caller]:
    """Return a channel to it. The first one revokes a key and closes a register."""
    async with calling(server.grpc) as caller:
        if not (await caller.sizes())[REGISTER]:
            await caller.register(REVOKED_EARLIER)
            await caller.govern("RevokeKey", revoking(REVOKED_KEY))
            closing = governing(
                "register.closed/1", name=CLOSED, size=0, reason="Abolished", successor=REGISTER
            )
            await caller.govern("CloseRegister", closing)
        yield caller


# Not canonical: where and why


NOT_CANONICAL: Final = {
    "not JSON": (b"{", "1"),
    "nothing": (b"", "0"),
    "no object": (b"[]", "0"),
    "a space": (spelled(lambda text: text.replace(",", ", ", 1)), None),
    "a trailing LF": (spelled(lambda text: text + "\n"), None),
    "a byte order mark": (b"\xef\xbb\xbf" + record(), "0"),
    "not UTF-8": (record().replace(b"gowns", b"g\xf6wns"), None),
    "members out of order": (b'{"b":1,"a":1}', None),
    "a duplicate key": (b'{"a":1,"a":1}', None),
    "a float": (spelled(lambda text: text.replace('"version":1', '"version":1.0')), None),
    "an exponent": (spelled(lambda text: text.replace('"version":1', '"version":1e0')), None),
    "a negative number": (spelled(lambda text: text.replace('"version":1', '"version":-1')), None),
    "2**53": (spelled(lambda text: text.replace('"version":1', f'"version":{1 << 53}')), None),
    "a null": (spelled(lambda text: text.replace('"version":1', '"version":null')), None),
    "an empty string": (spelled(lambda text: text.replace('"Publish the gowns review"', '""')), None),
    "an escaped solidus": (spelled(lambda text: text.replace("Publish the", "Publish\\/the")), None),
    "a right-to-left override": (spelled(lambda text: text.replace("gowns", "\u202egowns")), None),
    "not NFC": (spelled(lambda text: text.replace("gowns", "e\u0301")), None),
    "a capital in a name": (b'{"Type":"decision.registered/1"}', None),
    "17 deep": (b'{"a":' * 17 + b"1" + b"}" * 17, None),
}


@pytest.mark.parametrize(("data", "offset"), NOT_CANONICAL.values(), ids=NOT_CANONICAL.keys())
async def test_bytes_that_are_not_canonical_are_refused_with_the_place(
    caller: Caller, data: bytes, offset: str | None
) -> None:
    """If false, one meaning could have two spellings, and two digests."""
    error = await caller.refused(
        caller.register(signed(record(), data)), CODE.INVALID_ARGUMENT, "NOT_CANONICAL", "records[1]"
    )
    assert error.metadata["offset"].isdigit()
    assert 0 <= int(error.metadata["offset"]) <= len(data)
    if offset is not None:
        assert error.metadata["offset"] == offset


# Fields, types, classification, time


@dataclass(frozen=True, slots=True)
class Wrong:
    """A record that one rule refuses: the field at fault, and one of the values that it names as allowed."""

    changes: dict[str, Any]
    field: str
    reason: str = "INVALID_FIELD"
    allowed: str = ""


WRONG: Final = {
    "outside a vocabulary": Wrong({"channel": "pigeon"}, "channel", allowed="corporate_email"),
    "a required member missing": Wrong({"decided_at": None}, "decided_at"),
    "a member that the type does not list": Wrong({"colour": "red"}, "colour"),
    "a member of another type of record": Wrong({"nil_return": True}, "nil_return"),
    "a string for a number": Wrong({"reference": {"number": "124", "series": "MD/2026"}}, "reference.number"),
    "a number for a string": Wrong({"title": 7}, "title"),
    "a true for a number": Wrong({"version": True}, "version"),
    "an object for a string": Wrong({"title": {"text": "x"}}, "title"),
    "a title of 256": Wrong({"title": "x" * 256}, "title"),
    "two lines in one": Wrong({"title": "one\ntwo"}, "title"),
    "no such day": Wrong({"decided_at": "2026-02-30"}, "decided_at"),
    "a fraction of a second": Wrong({"decided_at": "2026-02-03T10:00:00.5Z"}, "decided_at"),
    "a time zone": Wrong({"decided_at": "2026-02-03T10:00+01:00"}, "decided_at"),
    "an uuid in capitals": Wrong({"record_id": str(uuid4()).upper()}, "record_id"),
    "the nil uuid": Wrong({"record_id": "00000000-0000-0000-0000-000000000000"}, "record_id"),
    "version 0": Wrong({"version": 0}, "version"),
    "money as a number": Wrong({"procurement": {"value": 5}}, "procurement.value"),
    "no such currency": Wrong(
        {"procurement": {"value": {"amount": "1.00", "currency": "gbp"}}}, "procurement.value.currency"
    ),
    "a path that may not be withheld": Wrong({"withheld": {"channel": "0" * 64}}, "withheld"),
    "withheld and in clear": Wrong({"withheld": {"title": "0" * 64}}, "withheld.title"),
    "a version 1 with a previous": Wrong({"previous": {"sha256": "0" * 64, "version": 1}}, "previous"),
    "unknown type": Wrong({"type": "decision.burnt/1"}, "type", "UNKNOWN_TYPE", "decision.registered/1"),
    "unknown version of a type": Wrong({"type": "decision.registered/2"}, "type", "UNKNOWN_TYPE"),
    "reserved type": Wrong({"type": "grant.made/1"}, "type", "UNKNOWN_TYPE"),
    "another register": Wrong({"register": OTHER_REGISTER}, "register", "WRONG_REGISTER", REGISTER),
    "SECRET": Wrong(
        {"classification": {"sensitive": False, "tier": "SECRET"}},
        "classification.tier",
        "CLASSIFICATION_REFUSED",
        "OFFICIAL",
    ),
    "TOP SECRET": Wrong(
        {"classification": {"sensitive": True, "tier": "TOP_SECRET"}},
        "classification.tier",
        "CLASSIFICATION_REFUSED",
    ),
    "a tier that never was": Wrong(
        {"classification": {"sensitive": False, "tier": "RESTRICTED"}},
        "classification.tier",
        allowed="OFFICIAL",
    ),
    "decided in ten years": Wrong({"decided_at": "2036"}, "decided_at", "DECIDED_IN_FUTURE"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
async def test_a_record_that_breaks_a_rule_is_refused_with_its_field(caller: Caller, wrong: Wrong) -> None:
    """If false, a department would not know which field of which record to mend."""
    submission = signed(record(), record(**wrong.changes))
    field = f"records[1].{wrong.field}"
    error = await caller.refused(caller.register(submission), CODE.INVALID_ARGUMENT, wrong.reason, field)
    described = next(one for one in error.violations if one.field == field)
    assert described.reason == wrong.reason
    assert wrong.allowed in described.description


def in_minutes(minutes: int) -> str:
    """Return an instant this many minutes from now."""
    return f"{datetime.now(UTC) + timedelta(minutes=minutes):%Y-%m-%dT%H:%MZ}"


async def test_a_decision_of_the_next_minutes_is_accepted_and_a_later_one_is_not(caller: Caller) -> None:
    """If false, a clock that is a little ahead would lose decisions, or any future would be a fact."""
    later = signed(record(), record(decided_at=in_minutes(10)))
    field = "records[1].decided_at"
    await caller.refused(caller.register(later), CODE.INVALID_ARGUMENT, "DECIDED_IN_FUTURE", field)
    assert (await caller.register(signed(record(decided_at=in_minutes(4))))).state == STATE_SEQUENCED


async def test_every_fault_of_every_record_is_named_at_once(caller: Caller) -> None:
    """If false, a department would mend one fault a call."""
    submission = signed(record(channel="pigeon", device="abacus"), record(), record(title=None))
    error = await caller.refused(caller.register(submission), CODE.INVALID_ARGUMENT, "INVALID_FIELD")
    fields = {violation.field for violation in error.violations}
    assert {"records[0].channel", "records[0].device", "records[2].title"} <= fields
    assert not any(field.startswith("records[1]") for field in fields)


async def test_a_type_that_only_the_ledger_writes_is_refused(caller: Caller) -> None:
    """If false, a department could register that its own submission was rejected."""
    data = canonical.format(
        {
            "count": 1,
            "reason": "STALE_VIEW",
            "record_id": str(uuid4()),
            "register": REGISTER,
            "submission_id": "0" * 64,
            "type": "submission.rejected/1",
            "version": 1,
        }
    )
    await caller.refused(
        caller.register(signed(data)), CODE.INVALID_ARGUMENT, "UNKNOWN_TYPE", "records[0].type"
    )


async def test_a_governing_record_in_a_departments_register_is_refused(caller: Caller) -> None:
    """If false, a department could write what looks like governance."""
    data = canonical.format(
        {
            "name": f"{DEPARTMENT}/minister",
            "record_id": str(uuid4()),
            "register": REGISTER,
            "title": "Minister",
            "type": "register.opened/1",
            "version": 1,
        }
    )
    await caller.refused(caller.register(signed(data)), CODE.INVALID_ARGUMENT, "WRONG_REGISTER")


# The body


def with_body(body: bytes, data: bytes) -> SignedSubmission:
    """Return a submission whose body is signed as it is, whatever the records make."""
    honest = signed(data)
    signature = Signature(DEPARTMENT_KEY.public, DEPARTMENT_KEY.sign(pae(body)))
    return SignedSubmission(
        honest.register_origin, honest.records, body, (signature,), honest.paths, honest.submission_id
    )


def root_of(data: bytes) -> Hash:
    return tree_root([leaf_hash(data)])


BODIES: Final[dict[str, tuple[str, Callable[[bytes], bytes]]]] = {
    "another version": (
        "version",
        lambda data: submission_body(f"{ORIGIN}/{REGISTER}", 1, root_of(data)).replace(b"/1\n", b"/2\n", 1),
    ),
    "a fifth line": (
        "version",
        lambda data: submission_body(f"{ORIGIN}/{REGISTER}", 1, root_of(data)) + b"more\n",
    ),
    "no body": ("version", lambda data: b""),
    "another ledger": ("origin", lambda data: submission_body(f"other.test/{REGISTER}", 1, root_of(data))),
    "no register's name": (
        "register",
        lambda data: submission_body(f"{ORIGIN}/Not A Register", 1, root_of(data)),
    ),
    "another count": ("count", lambda data: submission_body(f"{ORIGIN}/{REGISTER}", 2, root_of(data))),
    "another spelling of the count": (
        "count",
        lambda data: submission_body(f"{ORIGIN}/{REGISTER}", 1, root_of(data)).replace(b"\n1\n", b"\n01\n"),
    ),
    "another root": ("root", lambda data: submission_body(f"{ORIGIN}/{REGISTER}", 1, EMPTY_ROOT)),
}


@pytest.mark.parametrize(("line", "body"), BODIES.values(), ids=BODIES.keys())
async def test_a_body_that_does_not_say_what_was_sent_is_refused_with_the_line(
    caller: Caller, line: str, body: Callable[[bytes], bytes]
) -> None:
    """If false, a signature over one thing could register another."""
    data = record()
    await caller.refused(
        caller.register(with_body(body(data), data)),
        CODE.INVALID_ARGUMENT,
        "BODY_MISMATCH",
        f"body.{line}",
        line=line,
    )


async def test_records_in_another_order_than_signed_are_refused(caller: Caller) -> None:
    """If false, the submission tree would not fix the order of the register."""
    honest = signed(record(), record())
    message = message_of(honest)
    message.records[:] = reversed(honest.records)
    call = caller.registration.Register(pb.RegisterRequest(submission=message), timeout=SECONDS)
    await caller.refused(call, CODE.INVALID_ARGUMENT, "BODY_MISMATCH", line="root")


# Sizes


def of_size(size: int) -> bytes:
    """Return a valid decision of exactly this many bytes, up to about 130 KiB of options considered."""
    base = len(record(options_considered=["x"])) - 1
    whole, rest = divmod(size - base, 16_003)
    lengths = [16_000] * whole + [rest]
    data = record(options_considered=["x" * length for length in lengths if length])
    shortfall = size - len(data)
    return record(options_considered=[*("x" * length for length in lengths[:-1]), "x" * (rest + shortfall)])


async def test_a_record_of_the_largest_size_is_accepted_and_one_byte_more_is_not(caller: Caller) -> None:
    """If false, the limit of the page would not be that of the server."""
    largest, larger = of_size(MAX_RECORD), of_size(MAX_RECORD + 1)
    assert (len(largest), len(larger)) == (MAX_RECORD, MAX_RECORD + 1)
    assert (await caller.register(signed(largest))).state == STATE_SEQUENCED
    await caller.refused(
        caller.register(signed(record(), larger)),
        CODE.INVALID_ARGUMENT,
        "RECORD_TOO_LARGE",
        "records[1]",
        limit="61440",
    )


async def test_a_submission_of_the_largest_size_is_accepted_and_one_byte_more_is_not(caller: Caller) -> None:
    """If false, the limit of the page would not be that of the server."""
    full = [of_size(MAX_RECORD) for _ in range(17)]
    rest = 1_048_576 - sum(map(len, full))
    assert (await caller.register(signed(*full, of_size(rest)))).range_proof.count == 18
    full = [of_size(MAX_RECORD) for _ in range(17)]
    await caller.refused(
        caller.register(signed(*full, of_size(rest + 1))),
        CODE.INVALID_ARGUMENT,
        "SUBMISSION_TOO_LARGE",
        limit="1048576",
        bytes="1048577",
    )


async def test_a_thousand_records_are_accepted_and_one_more_is_not(caller: Caller) -> None:
    """If false, the limit of the page would not be that of the server."""
    assert (await caller.register(signed(*(record() for _ in range(1_000))))).range_proof.count == 1_000
    await caller.refused(
        caller.register(signed(*(record() for _ in range(1_001)))),
        CODE.INVALID_ARGUMENT,
        "TOO_MANY_RECORDS",
        limit="1000",
        count="1001",
    )


async def test_no_record_is_refused(caller: Caller) -> None:
    """If false, an empty submission would be acknowledged."""
    empty = pb.RegisterRequest()
    await caller.refused(
        caller.registration.Register(empty, timeout=SECONDS), CODE.INVALID_ARGUMENT, "INVALID_FIELD", "records"
    )


async def test_a_message_over_two_mebibytes_is_refused_by_grpc_and_the_channel_lives_on(caller: Caller) -> None:
    """If false, one caller could fill the server's memory, or break the connection of others."""
    request = pb.RegisterRequest(submission=message_of(signed(*(of_size(61_000) for _ in range(35)))))
    assert request.ByteSize() > 2 * 1024 * 1024
    await caller.refused(caller.registration.Register(request, timeout=SECONDS), CODE.RESOURCE_EXHAUSTED, "")
    assert (await caller.register(signed(record()))).state == STATE_SEQUENCED


async def test_one_version_of_one_record_twice_in_a_submission_is_refused(caller: Caller) -> None:
    """If false, one version would have two texts."""
    record_id = str(uuid4())
    same = [record(), record(record_id=record_id), record(record_id=record_id, title="Another")]
    await caller.refused(
        caller.register(signed(*same)),
        CODE.INVALID_ARGUMENT,
        "DUPLICATE_IN_SUBMISSION",
        "records[2].record_id",
    )


# Signatures and keys


async def test_a_department_signs_exactly_once(caller: Caller) -> None:
    """If false, an entry would not say who its author is."""
    data = record()
    twice = sign_submission([data], f"{ORIGIN}/{REGISTER}", [DEPARTMENT_KEY, OTHER_KEY])
    for submission, count in ((twice, "2"), (twice.signed_by([]), "0")):
        await caller.refused(
            caller.register(submission), CODE.INVALID_ARGUMENT, "SIGNATURE_COUNT", count=count, limit="1"
        )


@pytest.mark.parametrize("byte", [0, 31, 32, 63])
async def test_a_signature_with_one_bit_flipped_is_refused(caller: Caller, byte: int) -> None:
    """If false, anyone could write."""
    submission = signed(record())
    flipped = bytearray(submission.signatures[0].signature)
    flipped[byte] ^= 1
    key = DEPARTMENT_KEY.public
    await caller.refused(
        caller.register(submission.signed_by([Signature(key, bytes(flipped))])),
        CODE.UNAUTHENTICATED,
        "SIGNATURE_INVALID",
        key=base64.encode(key),
    )


async def test_a_signature_over_the_bare_body_is_refused(caller: Caller) -> None:
    """If false, a signature made for another purpose could be passed off as a submission's."""
    submission = signed(record())
    bare = Signature(DEPARTMENT_KEY.public, DEPARTMENT_KEY.sign(submission.body))
    await caller.refused(
        caller.register(submission.signed_by([bare])), CODE.UNAUTHENTICATED, "SIGNATURE_INVALID"
    )


async def test_keys_and_signatures_of_the_wrong_length_are_refused(caller: Caller) -> None:
    """If false, libsodium would be handed what it does not check."""
    submission = signed(record())
    (good,) = submission.signatures
    for bad, field in (
        (Signature(good.key[:-1], good.signature), "signatures[0].key"),
        (Signature(good.key, good.signature + b"\0"), "signatures[0].signature"),
    ):
        await caller.refused(
            caller.register(submission.signed_by([bad])), CODE.INVALID_ARGUMENT, "INVALID_FIELD", field
        )


async def test_an_unknown_key_is_refused(caller: Caller) -> None:
    """If false, anyone could write (promise P8)."""
    await caller.refused(
        caller.register(signed(record(), key=UNKNOWN_KEY)),
        CODE.PERMISSION_DENIED,
        "KEY_UNKNOWN",
        key=base64.encode(UNKNOWN_KEY.public),
    )


async def test_a_revoked_key_is_refused(caller: Caller) -> None:
    """If false, a stolen key would work for ever."""
    await caller.refused(
        caller.register(signed(record(), key=REVOKED_KEY)),
        CODE.PERMISSION_DENIED,
        "KEY_REVOKED",
        key=base64.encode(REVOKED_KEY.public),
    )


async def test_the_key_of_another_department_is_refused(caller: Caller) -> None:
    """If false, one department could write another's history (promise P8)."""
    await caller.refused(
        caller.register(signed(record(), key=OTHER_KEY)),
        CODE.PERMISSION_DENIED,
        "KEY_OF_OTHER_DEPARTMENT",
        key=base64.encode(OTHER_KEY.public),
        department="department-for-others",
        register=REGISTER,
    )


# Registers


async def test_a_register_that_was_never_opened_is_unknown(caller: Caller) -> None:
    """If false, a register could exist that the governing register does not list."""
    nowhere = f"{DEPARTMENT}/nobody"
    await caller.refused(
        caller.register(signed(record(nowhere), register=nowhere)),
        CODE.NOT_FOUND,
        "REGISTER_UNKNOWN",
        register=nowhere,
    )
    for call in (
        caller.registration.GetSubmission(pb.GetSubmissionRequest(register=nowhere, submission_id="0" * 64)),
        caller.registration.GetReceipt(pb.GetReceiptRequest(register=nowhere, index=0)),
    ):
        await caller.refused(call, CODE.NOT_FOUND, "REGISTER_UNKNOWN", register=nowhere)


async def test_a_closed_register_takes_nothing_and_names_its_successor(caller: Caller) -> None:
    """If false, a register would grow after its stated final size."""
    await caller.refused(
        caller.register(signed(record(CLOSED), register=CLOSED)),
        CODE.FAILED_PRECONDITION,
        "REGISTER_CLOSED",
        register=CLOSED,
        successor=REGISTER,
    )


async def test_what_is_wrong_with_the_key_comes_before_what_is_wrong_with_the_content(caller: Caller) -> None:
    """If false, a stranger would be told about content rules, in another order than formats.md, section 8."""
    await caller.refused(
        caller.register(signed(record(channel="pigeon"), key=UNKNOWN_KEY)),
        CODE.PERMISSION_DENIED,
        "KEY_UNKNOWN",
    )
    await caller.refused(
        caller.register(signed(record(CLOSED, channel="pigeon"), register=CLOSED)),
        CODE.FAILED_PRECONDITION,
        "REGISTER_CLOSED",
    )


# Versions


async def test_a_version_that_follows_nothing_is_refused(caller: Caller) -> None:
    """If false, a correction could stand without what it corrects."""
    data = canonical.format(records.correction(record()))
    await caller.refused(
        caller.register(signed(data)),
        CODE.FAILED_PRECONDITION,
        "PREVIOUS_UNKNOWN",
        "records[0]",
        version="2",
    )


async def test_nothing_follows_a_withdrawal(caller: Caller) -> None:
    """If false, what was withdrawn could come back under the same name."""
    first = record()
    withdrawn = canonical.format(records.withdrawal(first))
    await caller.register(signed(first, withdrawn))
    after = canonical.format(records.correction(first, **records.following(withdrawn)))
    await caller.refused(
        caller.register(signed(record(), after)),
        CODE.FAILED_PRECONDITION,
        "RECORD_WITHDRAWN",
        "records[1]",
        last_version="2",
        last_sha256=hashlib.sha256(withdrawn).hexdigest(),
    )


async def test_a_return_does_not_follow_a_decision(caller: Caller) -> None:
    """If false, one record_id could be two kinds of thing."""
    first = record()
    await caller.register(signed(first))
    follower = records.period_return(
        register=REGISTER,
        record_id=canonical.parse(first)["record_id"],
        reason="Counted again.",
        **records.following(first),
    )
    await caller.refused(
        caller.register(signed(canonical.format(follower))),
        CODE.FAILED_PRECONDITION,
        "TYPE_CONFLICT",
        "records[0]",
        last_version="1",
    )


async def test_a_correction_names_just_what_it_follows(caller: Caller) -> None:
    """If false, a correction could claim to follow a text that was never registered."""
    first = record()
    await caller.register(signed(first))
    changed = canonical.format(
        records.correction(first, previous={"sha256": hashlib.sha256(b"other").hexdigest(), "version": 1})
    )
    await caller.refused(
        caller.register(signed(changed)),
        CODE.FAILED_PRECONDITION,
        "PREVIOUS_MISMATCH",
        "records[0]",
        last_version="1",
        last_sha256=hashlib.sha256(first).hexdigest(),
    )


async def test_a_version_that_does_not_follow_the_last_is_refused_with_the_last(caller: Caller) -> None:
    """If false, two authors could both correct version 1, and one correction would be lost."""
    first = record()
    second = canonical.format(records.correction(first))
    await caller.register(signed(first, second))
    skipping = canonical.format(
        records.correction(second, version=4, previous={"sha256": "0" * 64, "version": 3})
    )
    await caller.refused(
        caller.register(signed(skipping)),
        CODE.ABORTED,
        "VERSION_CONFLICT",
        "records[0]",
        last_version="2",
        last_sha256=hashlib.sha256(second).hexdigest(),
    )


async def test_the_same_version_with_other_bytes_is_refused_with_both_digests(caller: Caller) -> None:
    """If false, a record could be replaced."""
    first = record()
    answer = await caller.register(signed(first))
    other = canonical.format({**canonical.parse(first), "title": "Another title"})
    await caller.refused(
        caller.register(signed(record(), other)),
        CODE.ALREADY_EXISTS,
        "RECORD_CONFLICT",
        "records[1]",
        index=str(answer.first_index),
        sha256=hashlib.sha256(other).hexdigest(),
        last_version="1",
        last_sha256=hashlib.sha256(first).hexdigest(),
    )


async def test_identical_records_in_another_submission_are_all_named_with_their_indices(caller: Caller) -> None:
    """If false, an interrupted client could not tell what it has still to register."""
    these = [record() for _ in range(3)]
    answer = await caller.register(signed(*these))
    mixed = [these[2], record(), these[0]]
    error = await caller.refused(
        caller.register(signed(*mixed)),
        CODE.ALREADY_EXISTS,
        "RECORD_ALREADY_REGISTERED",
        "records[0]",
        "records[2]",
        registered=f"0:{answer.first_index + 2},2:{answer.first_index}",
    )
    assert len(error.violations) == 2


# What formats.md does not list is accepted


ODD: Final[dict[str, dict[str, Any]]] = {
    "a contract without procurement": {"decision_type": "contract_approval"},
    "a private channel without a justification": {"channel": "whatsapp", "device": "privately_owned"},
    "a relation to nothing": {
        "relations": [{"target": {"record_id": str(uuid4()), "version": 9}, "type": "supersedes"}]
    },
    "a relation to itself": {"relations": [{"target": {"uri": "urn:x"}, "type": "supersedes"}]},
    "captured before it was decided": {"captured_at": "1999"},
    "decided long ago": {"decided_at": "1900"},
    "decided this century": {"decided_at": "2000/2099"},
    "no random record_id": {"record_id": "11111111-1111-1111-1111-111111111111"},
    "a title of a symbol": {"title": "☃"},
}


@pytest.mark.parametrize("changes", ODD.values(), ids=ODD.keys())
async def test_what_is_odd_but_not_listed_is_accepted(caller: Caller, changes: dict[str, Any]) -> None:
    """If false, a signed false statement would be lost as evidence (promise P9)."""
    before = await caller.sizes()
    answer = await caller.register(signed(record(**changes)))
    assert (answer.state, answer.first_index) == (STATE_SEQUENCED, before[REGISTER])


async def test_a_return_with_a_wrong_count_filed_early_is_accepted(caller: Caller) -> None:
    """If false, a false return would be lost as evidence."""
    odd = records.period_return(
        register=REGISTER, record_id=str(uuid4()), period="2099", count=7, first=3, last=900
    )
    assert (await caller.register(signed(canonical.format(odd)))).state == STATE_SEQUENCED


# The same submission again


async def test_a_submission_is_answered_with_where_it_stands_and_that_it_will_stay(
    caller: Caller, ledger: LedgerOnDisk
) -> None:
    """If false, the department would hold nothing that binds the ledger."""
    submission = signed(record(), record())
    before = (await caller.sizes())[REGISTER]
    answer = await caller.register(submission)
    assert (answer.submission_id, answer.state) == (submission.submission_id, STATE_SEQUENCED)
    assert (answer.first_index, answer.range_proof.first, answer.range_proof.count) == (before, before, 2)
    assert (answer.already_registered, answer.no_witness) == (False, True)
    assert answer.envelope.submitter == "anonymous"
    promised = open_acknowledgement(answer.note, ledger.acknowledgement_key)
    assert (promised.submission_id, promised.count) == (submission.submission_id, 2)
    assert promised.accepted_at == answer.envelope.accepted_at
    opened = ledger.policy.open(answer.checkpoint, f"{ORIGIN}/{REGISTER}")
    assert opened.checkpoint.size == before + 2


async def test_the_same_submission_again_gets_the_same_answer_and_nothing_is_appended(caller: Caller) -> None:
    """If false, a retry would register twice (promise P2)."""
    submission = signed(record(), record())
    first = await caller.register(submission)
    before = await caller.sizes()
    again = await caller.register(submission)
    assert await caller.sizes() == before
    assert again.already_registered
    assert (again.note, again.envelope, again.first_index) == (first.note, first.envelope, first.first_index)
    request = pb.GetSubmissionRequest(register=REGISTER, submission_id=submission.submission_id)
    asked = (await caller.registration.GetSubmission(request, timeout=SECONDS)).acknowledgement
    assert (asked.note, asked.first_index, asked.state) == (first.note, first.first_index, STATE_SEQUENCED)


async def test_the_same_records_signed_by_a_newer_key_are_the_same_submission(caller: Caller) -> None:
    """If false, a key rotation in the middle of a retry would register everything twice."""
    newer = SecretKey(hashlib.sha256(b"newer").digest())
    await caller.govern("AuthoriseKey", authorising(newer))
    data = record()
    first = await caller.register(signed(data))
    again = await caller.register(signed(data, key=newer))
    assert (again.already_registered, again.first_index) == (True, first.first_index)


async def test_a_known_submission_is_answered_although_its_key_is_revoked(caller: Caller) -> None:
    """If false, a department that rotates its key could never learn what became of its last submission."""
    before = await caller.sizes()
    again = await caller.register(REVOKED_EARLIER)
    assert (again.already_registered, again.first_index) == (True, 0)
    assert await caller.sizes() == before


async def test_a_known_submission_with_a_wrong_signature_is_refused(caller: Caller) -> None:
    """If false, anyone could ask for acknowledgements in a department's name."""
    submission = signed(record())
    await caller.register(submission)
    forged = submission.signed_by([Signature(DEPARTMENT_KEY.public, b"\0" * 64)])
    await caller.refused(caller.register(forged), CODE.UNAUTHENTICATED, "SIGNATURE_INVALID")


async def test_a_submission_that_nobody_sent_is_unknown(caller: Caller) -> None:
    """If false, a client could take a lost submission for a registered one."""
    unsent = signed(record())
    request = pb.GetSubmissionRequest(register=REGISTER, submission_id=unsent.submission_id)
    await caller.refused(
        caller.registration.GetSubmission(request),
        CODE.NOT_FOUND,
        "SUBMISSION_UNKNOWN",
        submission_id=unsent.submission_id,
    )
    for malformed in ("", "0" * 63, "G" * 64, unsent.submission_id.upper() + "A"):
        request = pb.GetSubmissionRequest(register=REGISTER, submission_id=malformed)
        await caller.refused(
            caller.registration.GetSubmission(request), CODE.INVALID_ARGUMENT, "INVALID_FIELD", "submission_id"
        )


# Deadlines


async def test_a_call_without_a_deadline_is_refused(caller: Caller) -> None:
    """If false, a call could wait for ever."""
    request = pb.RegisterRequest(submission=message_of(signed(record())))
    await caller.refused(
        caller.registration.Register(request), CODE.INVALID_ARGUMENT, "INVALID_FIELD", "grpc-timeout"
    )


async def test_a_call_with_no_time_left_changes_nothing(caller: Caller) -> None:
    """If false, a caller that cannot hear the answer would be registered all the same."""
    request = pb.RegisterRequest(submission=message_of(signed(record())))
    before = await caller.sizes()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller.registration.Register(request, timeout=0.005)
    assert caught.value.code() is CODE.DEADLINE_EXCEEDED
    assert await caller.sizes() == before


# Receipts


async def test_a_receipt_by_index_and_by_record_is_the_same_and_verifies(
    caller: Caller, ledger: LedgerOnDisk
) -> None:
    """If false, a department could not fetch what proves its record."""
    first = record()
    second = canonical.format(records.correction(first))
    answer = await caller.register(signed(first, second))
    record_id = canonical.parse(first)["record_id"]
    for offset, data in enumerate((first, second)):
        index = answer.first_index + offset
        by_index = await caller.registration.GetReceipt(pb.GetReceiptRequest(register=REGISTER, index=index))
        named = RecordVersion(record_id=record_id, version=offset + 1)
        by_record = await caller.registration.GetReceipt(pb.GetReceiptRequest(register=REGISTER, record=named))
        assert by_index == by_record
        verified = verify_receipt(by_index.receipt, ledger.policy)
        assert (verified.index, verified.record, verified.department) == (index, data, DEPARTMENT)
        assert by_index.state == STATE_SEQUENCED


async def test_a_receipt_of_what_is_not_there_is_refused(caller: Caller) -> None:
    """If false, a stranger could be shown a proof of nothing."""
    size = (await caller.sizes())[REGISTER]
    for index in (size, 2**63, 2**64 - 1):
        await caller.refused(
            caller.registration.GetReceipt(pb.GetReceiptRequest(register=REGISTER, index=index)),
            CODE.OUT_OF_RANGE,
            "SIZE_NOT_REACHED",
            latest_size=str(size),
        )
    await caller.refused(
        caller.registration.GetReceipt(pb.GetReceiptRequest(register=REGISTER)),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "entry",
    )
    known = record()
    await caller.register(signed(known))
    record_id = canonical.parse(known)["record_id"]
    for wanted in (
        RecordVersion(record_id=record_id, version=2),
        RecordVersion(record_id=str(uuid4()), version=1),
        RecordVersion(record_id=record_id, version=2**64 - 1),
    ):
        await caller.refused(
            caller.registration.GetReceipt(pb.GetReceiptRequest(register=REGISTER, record=wanted)),
            CODE.NOT_FOUND,
            "RECORD_UNKNOWN",
            record_id=wanted.record_id,
            version=str(wanted.version),
        )
    await caller.refused(
        caller.registration.GetReceipt(
            pb.GetReceiptRequest(register=REGISTER, record=RecordVersion(record_id="x", version=1))
        ),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "record.record_id",
    )


# RegisterStream


async def test_a_stream_answers_by_tag_and_goes_on_after_a_refusal(caller: Caller) -> None:
    """If false, one bad submission would cost all those behind it."""
    first = record()
    before = (await caller.sizes())[REGISTER]
    sent = {
        7: signed(first),
        0: signed(record(channel="pigeon")),
        2**64 - 1: signed(record(), record()),
        5: signed(record(), key=UNKNOWN_KEY),
        6: signed(first),
    }
    call = caller.registration.RegisterStream()
    for tag, submission in sent.items():
        request = pb.RegisterRequest(submission=message_of(submission))
        await call.write(pb.RegisterStreamRequest(tag=tag, request=request))
    await call.done_writing()
    answers = {response.tag: response async for response in call}
    assert answers.keys() == sent.keys()
    assert_refused(from_status(answers[0].error), CODE.INVALID_ARGUMENT, "INVALID_FIELD", "records[0].channel")
    assert_refused(from_status(answers[5].error), CODE.PERMISSION_DENIED, "KEY_UNKNOWN")
    same = [answers[tag].acknowledgement for tag in (6, 7)]
    assert same[0].first_index == same[1].first_index
    assert {one.already_registered for one in same} == {False, True}
    assert answers[2**64 - 1].acknowledgement.range_proof.count == 2
    assert (await caller.sizes())[REGISTER] == before + 3


async def test_a_stream_that_sends_what_is_no_request_is_ended_with_the_reason(caller: Caller) -> None:
    """If false, such a stream would hang until the client gave up."""
    raw: Any = caller.channel.stream_stream("/daybook.registration.v1.RegistrationService/RegisterStream")
    good = pb.RegisterStreamRequest(tag=1, request=pb.RegisterRequest(submission=message_of(signed(record()))))
    call = raw(timeout=SECONDS)
    await call.write(good.SerializeToString())
    answered = pb.RegisterStreamResponse.FromString(await call.read())
    assert answered.acknowledgement.state == STATE_SEQUENCED
    await call.write(b"\xff\xff")
    await caller.refused(_to_the_end(call), CODE.INVALID_ARGUMENT, "INVALID_FIELD")


async def _to_the_end(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_a_stream_of_a_thousand_is_answered_whole(caller: Caller) -> None:
    """If false, the window of a stream would stall it, or lose what waits."""
    before = (await caller.sizes())[REGISTER]

    async def requests() -> AsyncIterator[pb.RegisterStreamRequest]:
        for tag in range(1_000):
            request = pb.RegisterRequest(submission=message_of(signed(record())))
            yield pb.RegisterStreamRequest(tag=tag, request=request)

    call = caller.registration.RegisterStream(requests())
    answers = {response.tag: response.acknowledgement.first_index async for response in call}
    assert answers.keys() == set(range(1_000))
    assert set(answers.values()) == set(range(before, before + 1_000))


# PrepareRecords


def draft(**changes: Any) -> drafts_pb2.Draft:
    """Return a draft of the same decision as `record`."""
    members = records.decision(record_id=str(uuid4()), **changes)
    del members["type"], members["register"]
    return drafts_pb2.Draft(decision=drafts_pb2.Decision(**members))


async def test_prepared_records_are_signed_as_they_are_and_registered(caller: Caller) -> None:
    """If false, a department without its own JSON writer could not register."""
    request = pb.PrepareRecordsRequest(ledger_origin=ORIGIN, register=REGISTER, records=[draft(), draft()])
    before = await caller.sizes()
    prepared = await caller.registration.PrepareRecords(request)
    assert await caller.sizes() == before
    assert not prepared.violations
    data = [one.record for one in prepared.records]
    honest = signed(*data)
    assert (prepared.body, prepared.bytes_to_sign) == (honest.body, pae(honest.body))
    assert prepared.submission_id == honest.submission_id
    assert [one.sha256 for one in prepared.records] == [hashlib.sha256(one).digest() for one in data]
    assert (await caller.register(honest)).submission_id == prepared.submission_id


async def test_every_violation_of_every_draft_is_the_answer(caller: Caller) -> None:
    """If false, the dry run would let through what registration refuses, or name one fault at a time."""
    request = pb.PrepareRecordsRequest(
        ledger_origin=ORIGIN,
        register=REGISTER,
        records=[
            draft(channel="pigeon", device="abacus"),
            draft(),
            draft(classification={"sensitive": False, "tier": "SECRET"}, title="a\u202eb"),
            drafts_pb2.Draft(),
        ],
    )
    prepared = await caller.registration.PrepareRecords(request)
    found = {(one.field, one.reason) for one in prepared.violations}
    assert {
        ("records[0].channel", "INVALID_FIELD"),
        ("records[0].device", "INVALID_FIELD"),
        ("records[2].classification.tier", "CLASSIFICATION_REFUSED"),
        ("records[2].title", "NOT_CANONICAL"),
        ("records[3]", "INVALID_FIELD"),
    } <= found
    assert not any(field.startswith("records[1]") for field, _ in found)
    allowed = next(one.allowed for one in prepared.violations if one.field == "records[0].channel")
    assert "corporate_email" in allowed
    to_sign = (prepared.body, prepared.root, prepared.bytes_to_sign, prepared.submission_id)
    assert to_sign == (b"", b"", b"", "")


async def test_a_draft_of_endless_empty_members_is_not_looked_into(caller: Caller) -> None:
    crowded = draft()
    for _ in range(40_000):
        crowded.decision.relations.add()
    request = pb.PrepareRecordsRequest(ledger_origin=ORIGIN, register=REGISTER, records=[crowded, draft()])

    prepared = await caller.registration.PrepareRecords(request)

    (violation,) = prepared.violations
    assert (violation.field, violation.reason) == ("records[0]", "RECORD_TOO_LARGE")
    assert [bool(record.record) for record in prepared.records] == [False, True]


async def test_a_thousand_violations_are_enough_to_answer(caller: Caller) -> None:
    crowded = draft()
    for _ in range(500):
        crowded.decision.relations.add()
    request = pb.PrepareRecordsRequest(
        ledger_origin=ORIGIN, register=REGISTER, records=[*[crowded] * 999, draft()]
    )

    prepared = await caller.registration.PrepareRecords(request, timeout=SECONDS)

    assert len(prepared.violations) == 1_000
    assert len(prepared.records) == 1_000
    assert not prepared.body


async def test_a_preparation_for_another_ledger_or_of_nothing_is_refused(caller: Caller) -> None:
    """If false, a department could sign for a ledger that it does not mean."""
    for request, reason, field in (
        (
            pb.PrepareRecordsRequest(ledger_origin="other.test", register=REGISTER, records=[draft()]),
            "BODY_MISMATCH",
            "ledger_origin",
        ),
        (
            pb.PrepareRecordsRequest(register=REGISTER, records=[draft()]),
            "BODY_MISMATCH",
            "ledger_origin",
        ),
        (
            pb.PrepareRecordsRequest(ledger_origin=ORIGIN, register="nowhere at all", records=[draft()]),
            "INVALID_FIELD",
            "register",
        ),
        (pb.PrepareRecordsRequest(ledger_origin=ORIGIN, register=REGISTER), "INVALID_FIELD", "records"),
        (
            pb.PrepareRecordsRequest(ledger_origin=ORIGIN, register=REGISTER, records=[draft()] * 1_001),
            "TOO_MANY_RECORDS",
            "records",
        ),
    ):
        await caller.refused(caller.registration.PrepareRecords(request), CODE.INVALID_ARGUMENT, reason, field)

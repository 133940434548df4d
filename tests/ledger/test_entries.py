"""Submissions and entries: the bytes that are signed and hashed, against vectors, limits and forgeries."""

import gc
import json
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import base64, entries, tree
from ledger.ed25519 import SecretKey
from ledger.entries import (
    MAX_MESSAGE,
    Acceptance,
    EntryReader,
    Signature,
    Submission,
    accept,
    form_entries,
    form_ledger_entry,
    open_message,
    open_submission,
    pae,
    parse_entry,
    submission_body,
    submission_id,
    verify_entry,
)
from ledger.errors import MalformedError, ProofError, Reason, RejectedError, SignatureError
from ledger.hashing import Hash, leaf_hash
from ledger.tiles import encode_bundle
from tests.support.story import LEDGER_ORIGIN, ORIGIN, REGISTER
from tests.support.vectors import load

SUBMISSIONS: list[dict[str, Any]] = load("submissions.json")["submissions"]
LIMITS: dict[str, int] = load("limits.json")
KEY = SecretKey(b"\x07" * 32)
ACCEPTED = Acceptance("2026-07-03T15:20:11.042Z", "anonymous", 7)


def signatures_of(case: dict[str, Any]) -> list[Signature]:
    return [Signature(base64.decode(s["key"]), base64.decode(s["signature"])) for s in case["signatures"]]


def records_of(case: dict[str, Any]) -> list[bytes]:
    return [record.encode() for record in case["records"]]


def signed(records: list[bytes], *keys: SecretKey, register: str = REGISTER) -> Submission:
    """Return records as a submission of these keys."""
    root, _ = tree.paths([leaf_hash(record) for record in records])
    body = submission_body(f"{LEDGER_ORIGIN}/{register}", len(records), root)
    return open_submission(
        body, records, [Signature(key.public, key.sign(pae(body))) for key in keys], LEDGER_ORIGIN
    )


# Vectors.


@pytest.mark.parametrize("case", SUBMISSIONS, ids=lambda case: case["name"])
def test_a_submission_has_the_bytes_of_the_other_implementation(case: dict[str, Any]) -> None:
    """False if body, PAE, id, paths or one entry came out otherwise than there."""
    records = records_of(case)
    root = Hash(base64.decode(case["root_base64"], 32))
    body = submission_body(f"{LEDGER_ORIGIN}/{case['register']}", len(records), root)
    assert body == case["body"].encode()
    assert pae(body).hex() == case["pae_hex"]
    assert submission_id(body) == case["submission_id"]
    submission = open_submission(body, records, signatures_of(case)[::-1], LEDGER_ORIGIN)
    assert submission.submission_id == case["submission_id"]
    expected = [entry.encode() for entry in case["entries"]]
    acceptance = parse_entry(expected[0]).acceptance
    assert form_entries(submission, acceptance) == expected
    message = open_message(case["register"], encode_bundle(expected), LEDGER_ORIGIN)
    assert message == accept(submission, acceptance)
    assert open_message(message.register, message.value(), LEDGER_ORIGIN) == message


@pytest.mark.parametrize("case", SUBMISSIONS, ids=lambda case: case["name"])
def test_every_entry_verifies_alone(case: dict[str, Any]) -> None:
    """False if the author's signature could not be checked from one entry and the register origin."""
    for position, data in enumerate(case["entries"]):
        entry = parse_entry(data.encode())
        assert entry.membership is not None
        assert entry.membership.position == position
        assert entry.record.decode() == case["records"][position]
        origin = f"{LEDGER_ORIGIN}/{case['register']}"
        assert verify_entry(entry, origin) == case["submission_id"]
        with pytest.raises(SignatureError):
            verify_entry(entry, f"another.example/{case['register']}")


@given(st.data())
def test_any_flipped_bit_of_an_entry_fails_or_shows(data: st.DataObject) -> None:
    """False if an entry could differ in a bit from one that its author signed, and read the same.

    Only what the ledger claims (accepted_at, submitter, governing_size) is not under the author's signature;
    it is under the leaf hash.
    """
    case = data.draw(st.sampled_from(SUBMISSIONS))
    original = data.draw(st.sampled_from(case["entries"])).encode()
    bit = data.draw(st.integers(0, len(original) * 8 - 1))
    changed = bytearray(original)
    changed[bit // 8] ^= 1 << bit % 8
    assert leaf_hash(bytes(changed)) != leaf_hash(original)
    try:
        entry = parse_entry(bytes(changed))
        verify_entry(entry, f"{LEDGER_ORIGIN}/{case['register']}")
    except (MalformedError, ProofError, SignatureError):
        return
    before = parse_entry(original)
    assert entry.acceptance != before.acceptance
    assert (entry.membership, entry.record) == (before.membership, before.record)


# Limits.


def test_the_limits_are_those_of_the_format() -> None:
    """False if a limit differed from the one that others reckon with."""
    assert LIMITS["record_bytes"] == entries.MAX_RECORD
    assert LIMITS["submission_record_bytes"] == entries.MAX_SUBMISSION
    assert LIMITS["submission_records"] == entries.MAX_RECORDS
    assert LIMITS["envelope_bytes"] == entries.MAX_ENVELOPE
    assert LIMITS["entry_bytes"] == entries.MAX_ENTRY


WORST = Acceptance("9999-12-31T23:59:59.999Z", "uri:" + "x" * 252, 2**53 - 1)


def test_the_largest_department_envelope_is_as_long_as_stated() -> None:
    """False if an envelope could outgrow what limits were reckoned with."""
    size = LIMITS["submission_record_bytes"] // 1_000
    records = [b"%04d" % number + b"x" * (size - 4) for number in range(1_000)]
    formed = form_entries(signed(records, KEY), WORST)
    envelopes = [entry.partition(b"\n")[0] for entry in formed]
    assert max(map(len, envelopes)) == LIMITS["largest_department_envelope"]
    assert [parse_entry(entry).record for entry in formed] == records
    assert len(encode_bundle(formed)) <= LIMITS["largest_message"] <= LIMITS["grpc_receive_bytes"]
    assert LIMITS["largest_message"] == LIMITS["submission_record_bytes"] + 1_000 * (
        LIMITS["largest_department_envelope"] + 3
    )


def test_the_largest_governing_envelope_is_as_long_as_stated() -> None:
    """False if eight signatures made an envelope longer than stated."""
    keys = [SecretKey(bytes([number]) * 32) for number in range(8)]
    (entry,) = form_entries(signed([b"{}"], *keys, register="governing"), WORST)
    envelope = entry.partition(b"\n")[0]
    assert len(envelope) == LIMITS["largest_governing_envelope"]
    membership = parse_entry(entry).membership
    assert membership is not None
    assert len(membership.signatures) == 8


def test_the_largest_record_fits_an_entry() -> None:
    """False if a record of the largest size could be accepted and not be kept."""
    records = [b"x" * LIMITS["record_bytes"]]
    message = accept(signed(records, KEY), WORST)
    assert open_message(REGISTER, message.value(), LEDGER_ORIGIN).records() == tuple(records)


# What registration refuses before it looks into a record.


def refused(
    records: list[bytes], *, body: bytes | None = None, signatures: list[Signature] | None = None
) -> RejectedError:
    """Return how a submission was refused; body and signatures are right where they are not given."""
    root = tree.tree_root([leaf_hash(record) for record in records])
    right = submission_body(ORIGIN, len(records), root)
    text = right if body is None else body
    made = [Signature(KEY.public, KEY.sign(pae(text)))] if signatures is None else signatures
    with pytest.raises(RejectedError) as caught:
        open_submission(text, records, made, LEDGER_ORIGIN)
    return caught.value


def fields(error: RejectedError) -> list[str]:
    return [violation.field for violation in error.violations]


def test_sizes_are_refused_by_name() -> None:
    """False if a submission beyond a limit were accepted, or the answer did not say which limit."""
    error = refused([])
    assert (error.reason, fields(error)) == (Reason.INVALID_FIELD, ["records"])
    error = refused([b"{}"] * 1_001)
    assert (error.reason, error.detail) == (Reason.TOO_MANY_RECORDS, {"limit": "1000", "count": "1001"})
    error = refused([b"{}", b"x" * 61_441])
    assert (error.reason, fields(error)) == (Reason.RECORD_TOO_LARGE, ["records[1]"])
    assert error.detail["limit"] == "61440"
    error = refused([b"x" * 61_440] * 17 + [b"x" * 4_097])
    assert error.reason is Reason.SUBMISSION_TOO_LARGE
    assert error.detail == {"limit": "1048576", "bytes": "1048577"}
    signed([b"x" * 61_440] * 17 + [b"x" * 4_096], KEY)
    signed([b"{}"] * 1_000, KEY)


RECORDS = [b"{}", b"{} "]
ROOT = base64.encode(tree.tree_root([leaf_hash(record) for record in RECORDS]))
BODIES = {
    f"daybook.submission/2\n{ORIGIN}\n2\n{ROOT}\n": "version",
    f"daybook.submission/1\n{ORIGIN}\n2\n{ROOT}": "version",
    f"daybook.submission/1\n{ORIGIN}\n2\n{ROOT}\n\n": "version",
    "": "version",
    f"daybook.submission/1\nanother.example/{REGISTER}\n2\n{ROOT}\n": "origin",
    f"daybook.submission/1\n{LEDGER_ORIGIN}\n2\n{ROOT}\n": "origin",
    f"daybook.submission/1\n{LEDGER_ORIGIN}/Governing\n2\n{ROOT}\n": "register",
    f"daybook.submission/1\n{LEDGER_ORIGIN}/tile/office\n2\n{ROOT}\n": "register",
    f"daybook.submission/1\n{LEDGER_ORIGIN}/\n2\n{ROOT}\n": "register",
    f"daybook.submission/1\n{ORIGIN}\n02\n{ROOT}\n": "count",
    f"daybook.submission/1\n{ORIGIN}\n1\n{ROOT}\n": "count",
    f"daybook.submission/1\n{ORIGIN}\n2\n{ROOT[:-2]}A=\n": "root",
    f"daybook.submission/1\n{ORIGIN}\n2\n{ROOT} \n": "root",
}


@pytest.mark.parametrize("body", BODIES, ids=lambda body: BODIES[body])
def test_a_body_that_the_records_do_not_make_is_refused_by_its_line(body: str) -> None:
    """False if a body could say something else than the records, or the answer named another line."""
    error = refused(RECORDS, body=body.encode())
    assert (error.reason, error.detail["line"]) == (Reason.BODY_MISMATCH, BODIES[body])
    assert fields(error) == [f"body.{BODIES[body]}"]


def test_the_order_of_records_is_signed() -> None:
    """False if two records could change places under the signature."""
    right = submission_body(ORIGIN, 2, tree.tree_root([leaf_hash(record) for record in RECORDS]))
    assert refused(RECORDS[::-1], body=right).detail["line"] == "root"


def test_signatures_are_refused_by_number_and_key() -> None:
    """False if a department's submission could have two signatures, none, or a wrong one."""
    body = submission_body(ORIGIN, 1, tree.tree_root([leaf_hash(b"{}")]))
    good = Signature(KEY.public, KEY.sign(pae(body)))
    other = SecretKey(b"\x08" * 32)
    second = Signature(other.public, other.sign(pae(body)))
    for wrong in ([], [good, second], [good, good]):
        error = refused([b"{}"], signatures=wrong)
        assert (error.reason, error.detail["limit"]) == (Reason.SIGNATURE_COUNT, "1")
    error = refused([b"{}"], signatures=[Signature(KEY.public, second.signature)])
    assert (error.reason, error.detail) == (Reason.SIGNATURE_INVALID, {"key": base64.encode(KEY.public)})
    error = refused([b"{}"], signatures=[Signature(KEY.public, KEY.sign(body))])
    assert error.reason is Reason.SIGNATURE_INVALID  # over the body, not over its PAE
    error = refused([b"{}"], signatures=[Signature(KEY.public[:31], good.signature)])
    assert (error.reason, fields(error)) == (Reason.INVALID_FIELD, ["signatures[0].key"])
    error = refused([b"{}"], signatures=[Signature(KEY.public, good.signature + b"\0")])
    assert (error.reason, fields(error)) == (Reason.INVALID_FIELD, ["signatures[0].signature"])


def test_a_governing_submission_has_up_to_eight_signatures_no_key_twice() -> None:
    """False if nine governance keys could sign, or one twice."""
    keys = [SecretKey(bytes([number]) * 32) for number in range(9)]
    for wrong in (keys, [keys[0], keys[0]], []):
        with pytest.raises(RejectedError) as caught:
            signed([b"{}"], *wrong, register="governing")
        assert (caught.value.reason, caught.value.detail["limit"]) == (Reason.SIGNATURE_COUNT, "8")
    submission = signed([b"{}"], *keys[:8], register="governing")
    texts = [base64.encode(signature.key) for signature in submission.signatures]
    assert texts == sorted(texts)


def test_the_submission_id_covers_neither_key_nor_signature() -> None:
    """False if the same records signed again were another submission."""
    other = SecretKey(b"\x08" * 32)
    assert signed([b"{}"], KEY).submission_id == signed([b"{}"], other).submission_id


# Envelopes: one meaning, one spelling.

ENVELOPE = parse_entry(SUBMISSIONS[6]["entries"][0].encode())
TEXT = SUBMISSIONS[6]["entries"][0].partition("\n")[0]
RECORD = SUBMISSIONS[6]["records"][0]
LEDGER_TEXT = (
    '{"accepted_at":"2026-07-03T15:20:11.042Z","governing_size":7,"submitter":"ledger","type":"entry/1"}'
)
_PATH = json.loads(TEXT)["submission"]["path"]

SPOILT: dict[str, Callable[[], str]] = {
    "a space": lambda: TEXT.replace(":7,", ": 7,"),
    "a trailing space": lambda: TEXT + " ",
    "another order": lambda: LEDGER_TEXT[:-1].replace('"submitter":"ledger",', "") + ',"submitter":"ledger"}',
    "a member twice": lambda: TEXT.replace('"governing_size":7,', '"governing_size":7,"governing_size":7,'),
    "an unknown member": lambda: LEDGER_TEXT.replace('"type"', '"tyle":"x","type"'),
    "an unknown member of the submission": lambda: TEXT.replace('"signatures"', '"s":1,"signatures"'),
    "a member missing": lambda: TEXT.replace('"governing_size":7,', ""),
    "null": lambda: LEDGER_TEXT.replace('"submitter"', '"submission":null,"submitter"'),
    "a fraction": lambda: TEXT.replace(":7,", ":7.0,"),
    "an exponent": lambda: TEXT.replace(":7,", ":7e0,"),
    "a negative number": lambda: TEXT.replace(":7,", ":-7,"),
    "a leading zero": lambda: TEXT.replace(":7,", ":07,"),
    "too large a number": lambda: TEXT.replace(":7,", f":{2**53},"),
    "far too large a number": lambda: TEXT.replace(":7,", f":{2**80},"),
    "a string for a number": lambda: TEXT.replace(":7,", ':"7",'),
    "an escape": lambda: LEDGER_TEXT.replace("ledger", "\\u006cedger"),
    "another type": lambda: TEXT.replace("entry/1", "entry/2"),
    "no milliseconds": lambda: TEXT.replace("11.042Z", "11Z"),
    "an offset": lambda: TEXT.replace(".042Z", ".042+00:00"),
    "no such day": lambda: TEXT.replace("2026-07-03", "2026-02-30"),
    "a leap second": lambda: TEXT.replace("15:20:11", "15:20:60"),
    "hour 24": lambda: TEXT.replace("15:20:11.042", "24:00:00.000"),
    "a submitter with a space": lambda: TEXT.replace("uri:spiffe", "uri: spiffe"),
    "a submitter of no scheme": lambda: TEXT.replace("uri:spiffe", "spiffe"),
    "a submitter beyond ASCII": lambda: TEXT.replace("uri:spiffe", "uri:\u00e9"),
    "a submitter of 257 bytes": lambda: LEDGER_TEXT.replace("ledger", "uri:" + "x" * 253),
    "an empty submitter": lambda: LEDGER_TEXT.replace("ledger", ""),
    "count 0": lambda: TEXT.replace('"count":3', '"count":0'),
    "count 1 with a path": lambda: TEXT.replace('"count":3', '"count":1'),
    "count 1,001": lambda: TEXT.replace('"count":3', '"count":1001'),
    "a position past the count": lambda: TEXT.replace('"position":0', '"position":3'),
    "a path for another position": lambda: TEXT.replace('"position":0', '"position":2'),
    "no path": lambda: TEXT.replace(f'"path":"{_PATH}",', ""),
    "a path not padded": lambda: TEXT.replace(_PATH, _PATH.rstrip("=")),
    "a path with spare bits": lambda: TEXT.replace(_PATH, _PATH[:-2] + "B="),
    "no signature": lambda: TEXT[: TEXT.index('"signatures":[') + 14] + TEXT[TEXT.index("]}") :],
    "a short key": lambda: TEXT.replace('"key":"AtB4', '"key":"'),
    "BOM": lambda: "\ufeff" + TEXT,
    "nothing": lambda: "",
    "not JSON": lambda: "{",
}  # fmt: skip


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT.keys())
def test_an_envelope_has_one_spelling_and_one_shape(spoilt: Callable[[], str]) -> None:
    """False if an envelope that the ledger cannot have written were read as one."""
    text = spoilt()
    assert text not in {TEXT, LEDGER_TEXT}
    with pytest.raises(MalformedError):
        parse_entry(f"{text}\n{RECORD}".encode())


def test_sizes_of_entry_and_envelope_are_bounded() -> None:
    """False if a reader could be made to take more than the format allows."""
    with pytest.raises(MalformedError, match="no LF"):
        parse_entry(TEXT.encode())
    parse_entry(f"{LEDGER_TEXT}\n".encode().ljust(65_535, b"x"))
    with pytest.raises(MalformedError, match="at most 65535"):
        parse_entry(f"{LEDGER_TEXT}\n".encode().ljust(65_536, b"x"))
    with pytest.raises(MalformedError, match="at most 4094"):
        parse_entry(f"{LEDGER_TEXT.rstrip('}')}{' ' * 4_000}}}\n".encode())


def two_signatures(first: Signature, second: Signature) -> bytes:
    text = ",".join(
        f'{{"key":"{base64.encode(one.key)}","signature":"{base64.encode(one.signature)}"}}'
        for one in (first, second)
    )
    head, _, rest = TEXT.partition('"signatures":[')
    return f'{head}"signatures":[{text}{rest[rest.index("]") :]}\n{RECORD}'.encode()


def test_signatures_of_an_envelope_are_sorted_no_key_twice() -> None:
    """False if the same signatures could be written in two orders."""
    keys = sorted((SecretKey(bytes([n]) * 32) for n in range(2)), key=lambda key: base64.encode(key.public))
    first, second = (Signature(key.public, bytes(64)) for key in keys)
    parse_entry(two_signatures(first, second))
    for wrong in ((second, first), (first, first)):
        with pytest.raises(MalformedError, match="sorted"):
            parse_entry(two_signatures(*wrong))


def test_a_departments_entry_with_two_signatures_does_not_verify() -> None:
    """False if a second signature could be slipped into a department's entry."""
    records = [b"{}"]
    body = submission_body(ORIGIN, 1, tree.tree_root([leaf_hash(b"{}")]))
    keys = [SecretKey(bytes([number]) * 32) for number in range(2)]
    made = tuple(
        sorted((Signature(key.public, key.sign(pae(body))) for key in keys), key=lambda s: base64.encode(s.key))
    )
    submission = Submission(REGISTER, tuple(records), made, submission_id(body), (b"",))
    (data,) = form_entries(submission, ACCEPTED)
    with pytest.raises(SignatureError, match="exactly one"):
        verify_entry(parse_entry(data), ORIGIN)


# Messages of the event log: none of it is trusted.


def test_a_message_that_registration_cannot_have_made_does_not_open() -> None:
    """False if a message that was cut, mixed or altered on its way were taken for a submission."""
    three = accept(signed([b"{}", b"{} ", b"{}  "], KEY), ACCEPTED).entries
    later = accept(
        signed([b"{}", b"{} ", b"{}  "], KEY), Acceptance("2026-07-03T15:20:11.043Z", "anonymous", 7)
    )
    other = accept(signed([b"{}", b"{} ", b"{}   "], KEY), ACCEPTED).entries
    own = form_ledger_entry(b"{}", "2026-07-03T15:20:11.042Z", 7)
    altered = three[1][:-1] + b"}"
    assert open_message(REGISTER, encode_bundle([own]), LEDGER_ORIGIN).submission is None
    for wrong in (
        [],
        three[:2],
        three[1:],
        [three[1], three[0], three[2]],
        [*three, three[2]],
        [three[0], three[1], other[2]],
        [three[0], three[1], later.entries[2]],
        [three[0], altered, three[2]],
        [own, own],
        [own, *three],
        [*three, own],
    ):
        with pytest.raises((MalformedError, SignatureError)):
            open_message(REGISTER, encode_bundle(wrong), LEDGER_ORIGIN)
    value = encode_bundle(three)
    for wrong_value in (value[:-1], value + b"\0", b"\0" + value):
        with pytest.raises(MalformedError):
            open_message(REGISTER, wrong_value, LEDGER_ORIGIN)
    for register, origin in (
        (REGISTER, "another.example"),
        ("governing", LEDGER_ORIGIN),
        ("no", LEDGER_ORIGIN),
    ):
        with pytest.raises((MalformedError, SignatureError)):
            open_message(register, value, origin)


def test_a_value_larger_than_any_message_is_not_even_decoded() -> None:
    """False if whoever may write to the topic could make us take apart hundreds of megabytes."""
    with pytest.raises(MalformedError, match="4194305 bytes; at most 4194304"):
        open_message(REGISTER, bytes(MAX_MESSAGE + 1), LEDGER_ORIGIN)
    with pytest.raises(MalformedError, match="envelope"):
        open_message(REGISTER, bytes(MAX_MESSAGE), LEDGER_ORIGIN)


@pytest.mark.parametrize("second", [b"junk", b"{}\n{}"])
def test_nothing_holds_a_refused_message(second: bytes) -> None:
    """False if messages that registration cannot have made piled up in memory until Python's collector came."""
    first = accept(signed([b"{}", b"{} "], KEY), ACCEPTED).entries[0]

    def refused() -> weakref.ref[MalformedError]:
        try:
            open_message(REGISTER, encode_bundle([first, second]), LEDGER_ORIGIN)
        except MalformedError as error:
            return weakref.ref(error)
        raise AssertionError("it was taken")

    gc.disable()
    try:
        assert refused()() is None
    finally:
        gc.enable()


@given(st.data())
def test_entries_read_one_after_another_are_parsed_as_each_alone(data: st.DataObject) -> None:
    """False if an entry could be taken for one that it is not because of the one before it."""
    register: list[bytes] = []
    for count in data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)):
        records = [b'{"n":%d}' % number for number in range(count)]
        register += accept(signed(records, KEY), ACCEPTED).entries
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(register) - 1))
        match data.draw(st.sampled_from(["spoilt", "gone", "twice"])):
            case "spoilt":
                place = data.draw(st.integers(0, len(register[at])))
                spoilt = data.draw(st.binary(max_size=2) | st.sampled_from([b"A", b"=", b"0", b'"', b"\n"]))
                end = place + data.draw(st.integers(0, 2))
                register[at] = register[at][:place] + spoilt + register[at][end:]
            case "twice":
                register.insert(data.draw(st.integers(0, len(register))), register[at])
            case _:
                register[at] = register[-1]
    reader = EntryReader()
    for entry in register:
        assert outcome(reader.parse, entry) == outcome(parse_entry, entry)


def test_an_entry_that_goes_on_with_the_one_before_is_not_parsed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """False if reading a long submission cost as much as parsing each of its entries."""
    held = accept(signed([b'{"n":%d}' % number for number in range(100)], KEY), ACCEPTED).entries
    expected = [parse_entry(entry) for entry in held]
    parsed: list[bytes] = []

    def counted(entry: bytes) -> entries.Entry:
        parsed.append(entry)
        return parse_entry(entry)

    monkeypatch.setattr(entries, "parse_entry", counted)
    reader = EntryReader()
    assert [reader.parse(entry) for entry in held] == expected
    assert parsed == [held[0]]


def outcome(parse: Callable[[bytes], object], entry: bytes) -> object:
    """Return what parsing gives, or says."""
    try:
        return parse(entry)
    except MalformedError as error:
        return str(error)

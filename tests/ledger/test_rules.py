"""The append rules that concern records (formats.md, section 9, rule 4): first refusal, and what it met."""

import itertools
from typing import Any

import pytest

from ledger import canonical
from ledger.entries import Acceptance, Message, parse_entry
from ledger.errors import MalformedError, Reason
from ledger.records import record_digest
from ledger.rules import (
    Earlier,
    Refusal,
    Registered,
    judge_records,
    read_header,
    read_headers,
    record_key,
    record_keys,
)
from tests.support import records
from tests.support.records import REGISTER

FIRST = records.decision_bytes()
OTHER = records.decision_bytes(record_id=records.record_id(5))
CORRECTED = canonical.format(records.correction(FIRST))
WITHDRAWN = canonical.format(records.withdrawal(CORRECTED))
RETURN = canonical.format(records.period_return(record_id=records.RECORD_ID))


def registered(*held: bytes) -> Registered:
    """Return these records as registered at the indices 10, 11 and so on."""
    found: dict[str, dict[int, Earlier]] = {}
    for index, record in enumerate(held, 10):
        header = read_header(record)
        found.setdefault(header.record_id, {})[header.version] = Earlier(header, record, index)
    return found


def judge(submitted: list[bytes], *held: bytes) -> Refusal | None:
    """Judge a submission of these records, where those held are registered."""
    headers = [read_header(record) for record in submitted]
    entries = tuple(b"{}\n" + record for record in submitted)
    message = Message(REGISTER, Acceptance("2026-08-04T10:00:00.000Z", "ledger", 1), entries, None)
    return judge_records(message, headers, registered(*held))


def changed(record: bytes, **members: Any) -> bytes:
    return canonical.format({**canonical.parse(record), **members})


ACCEPTED = {
    "a first version": ([FIRST], []),
    "two records": ([FIRST, OTHER], []),
    "a correction": ([CORRECTED], [FIRST]),
    "a withdrawal of a correction": ([WITHDRAWN], [FIRST, CORRECTED]),
    "three versions in one submission": ([FIRST, CORRECTED, WITHDRAWN], []),
    "two versions after one that is registered": ([CORRECTED, WITHDRAWN], [FIRST]),
    "a return": ([RETURN], [OTHER]),
}


@pytest.mark.parametrize(("submitted", "held"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_follows_the_last_version_is_accepted(submitted: list[bytes], held: list[bytes]) -> None:
    """False if a department that does it right were refused."""
    assert judge(submitted, *held) is None


UNRELATED = {"sha256": "0" * 64, "version": 1}
FOLLOWING_RETURN = changed(
    RETURN, version=2, reason="Miscounted.", previous=records.following(FIRST)["previous"]
)
VOID = canonical.format(records.void())
FOLLOWING_VOID = changed(
    VOID, record_id=records.RECORD_ID, version=2, previous=records.following(FIRST)["previous"]
)

# For each: what is sent, what is registered, the reason, the position refused, the version that it met.
REFUSED: dict[str, tuple[list[bytes], list[bytes], Reason, int, tuple[int, int | None] | None]] = {
    "the same again": ([FIRST], [FIRST], Reason.RECORD_ALREADY_REGISTERED, 0, (1, 10)),
    "the same again after its correction": (
        [FIRST], [FIRST, CORRECTED], Reason.RECORD_ALREADY_REGISTERED, 0, (1, 10),
    ),
    "the same again after its withdrawal": (
        [WITHDRAWN], [FIRST, CORRECTED, WITHDRAWN], Reason.RECORD_ALREADY_REGISTERED, 0, (3, 12),
    ),
    "other bytes": ([changed(FIRST, title="Other")], [FIRST], Reason.RECORD_CONFLICT, 0, (1, 10)),
    "an old version with other bytes, of a withdrawn record": (
        [changed(CORRECTED, title="Other")], [FIRST, CORRECTED, WITHDRAWN], Reason.RECORD_CONFLICT, 0, (2, 11),
    ),
    "nothing to correct": ([OTHER, CORRECTED], [], Reason.PREVIOUS_UNKNOWN, 1, None),
    "a withdrawn record": (
        [changed(WITHDRAWN, version=4)], [FIRST, CORRECTED, WITHDRAWN], Reason.RECORD_WITHDRAWN, 0, (3, 12),
    ),
    "a withdrawn record, two versions on": (
        [changed(CORRECTED, version=9)], [FIRST, CORRECTED, WITHDRAWN], Reason.RECORD_WITHDRAWN, 0, (3, 12),
    ),
    "a version left out": ([changed(CORRECTED, version=3)], [FIRST], Reason.VERSION_CONFLICT, 0, (1, 10)),
    "a return after a decision": ([FOLLOWING_RETURN], [FIRST], Reason.TYPE_CONFLICT, 0, (1, 10)),
    "a decision after a return": (
        [changed(CORRECTED, previous=UNRELATED)], [RETURN], Reason.TYPE_CONFLICT, 0, (1, 10),
    ),
    "a void after a decision": ([FOLLOWING_VOID], [FIRST], Reason.TYPE_CONFLICT, 0, (1, 10)),
    "a decision after a void": (
        [changed(CORRECTED, record_id=records.record_id(2))], [VOID], Reason.TYPE_CONFLICT, 0, (1, 10),
    ),
    "a return after a void": (
        [changed(FOLLOWING_RETURN, record_id=records.record_id(2))], [VOID], Reason.TYPE_CONFLICT, 0, (1, 10),
    ),
    "another digest": (
        [changed(CORRECTED, previous=UNRELATED)], [FIRST], Reason.PREVIOUS_MISMATCH, 0, (1, 10),
    ),
    "another version in previous": (
        [changed(CORRECTED, previous={"sha256": record_digest(FIRST), "version": 2})],
        [FIRST], Reason.PREVIOUS_MISMATCH, 0, (1, 10),
    ),
    "no previous": (
        [canonical.format({k: v for k, v in canonical.parse(CORRECTED).items() if k != "previous"})],
        [FIRST], Reason.PREVIOUS_MISMATCH, 0, (1, 10),
    ),
    "a conflict within the submission": (
        [FIRST, OTHER, changed(CORRECTED, version=3)], [], Reason.VERSION_CONFLICT, 2, (1, None),
    ),
    "a withdrawal within the submission": (
        [FIRST, CORRECTED, WITHDRAWN, changed(CORRECTED, version=4)], [], Reason.RECORD_WITHDRAWN, 3, (3, None),
    ),
    "the first refusal counts": (
        [OTHER, changed(FIRST, title="Other"), OTHER], [FIRST, OTHER],
        Reason.RECORD_ALREADY_REGISTERED, 0, (1, 11),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_the_first_rule_broken_is_named_with_what_it_met(
    case: tuple[list[bytes], list[bytes], Reason, int, tuple[int, int | None] | None],
) -> None:
    """False if another rule came first, or the version met were another."""
    submitted, held, reason, position, met = case
    refusal = judge(submitted, *held)
    assert refusal is not None
    assert (refusal.reason, refusal.position) == (reason, position)
    earlier = refusal.earlier
    assert (earlier and (earlier.header.version, earlier.index)) == met
    assert refusal.header == read_header(submitted[position])


def test_every_position_that_is_registered_already_is_named() -> None:
    """False if a department could not sign the rest again at once."""
    third = records.decision_bytes(record_id=records.record_id(6))
    refusal = judge([third, FIRST, OTHER], OTHER, FIRST)
    assert refusal is not None
    assert refusal.registered == ((1, 11), (2, 10))
    error = refusal.error()
    assert error.detail["registered"] == "1:11,2:10"
    assert [violation.field for violation in error.violations] == ["records[1]", "records[2]"]


def test_a_refusal_tells_the_last_version_and_digest() -> None:
    """False if a department could not go on from the answer."""
    refusal = judge([changed(CORRECTED, version=3)], FIRST)
    assert refusal is not None
    error = refusal.error()
    assert error.reason is Reason.VERSION_CONFLICT
    assert error.detail == {
        "record_id": records.RECORD_ID,
        "version": "3",
        "last_version": "1",
        "last_sha256": record_digest(FIRST),
        "index": "10",
    }
    assert [violation.field for violation in error.violations] == ["records[0]"]


def test_a_refusal_that_concerns_no_record_says_so() -> None:
    """False if a stale view were blamed on a record."""
    error = Refusal(Reason.STALE_VIEW).error()
    assert (error.reason, error.violations, error.detail) == (Reason.STALE_VIEW, (), {})


def identified(record_id: str) -> bytes:
    """Return what the append rules read of a record, and no more."""
    return canonical.format({"record_id": record_id, "register": "a/b", "type": "x", "version": 1})


MALFORMED = [
    b"",
    b"{}",
    b"[]",
    b"\xff",
    b'{"register":"a/b","type":"x","record_id":"y","version":1}',
    b'{"register":"a/b","type":"x","record_id":"00000000-0000-4000-8000-000000000001"}',
    b'{"register":"a/b","type":"x","record_id":"00000000-0000-4000-8000-000000000001","version":"1"}',
    b'{"register":"a/b","type":1,"record_id":"00000000-0000-4000-8000-000000000001","version":1}',
    b'{"register":"a/b","type":"x","record_id":"00000000-0000-4000-8000-000000000001","version":0}',
    b'{"register":"a/b","type":"x","record_id":"00000000-0000-4000-8000-000000000001","version":9007199254740992}',
]


@pytest.mark.parametrize("record", MALFORMED)
def test_a_record_without_a_header_is_malformed(record: bytes) -> None:
    """False if a replay could fall over what registration cannot have let through."""
    with pytest.raises(MalformedError):
        read_header(record)


def test_headers_of_many_records_are_those_of_each() -> None:
    """False if a record among others passed that does not alone, or another than the first fault were told."""
    second = nested(255)
    assert read_headers([FIRST, second]) == [read_header(FIRST), read_header(second)]
    assert read_headers([]) == []
    faults = [*MALFORMED, nested(257), identified("x")]
    for fault, other in itertools.product(faults, [FIRST, *faults]):
        with pytest.raises(MalformedError) as alone:
            read_header(fault)
        with pytest.raises(MalformedError) as among:
            read_headers([FIRST, fault, other])
        assert str(among.value) == str(alone.value)


@pytest.mark.parametrize(
    "record_id",
    [
        "A8222494-1071-4ad7-8c1e-11fe48df34ed",
        "{a8222494-1071-4ad7-8c1e-11fe48df34ed}",
        "urn:uuid:a8222494-1071-4ad7-8c1e-11fe48df34ed",
        "a822249410714ad78c1e11fe48df34ed",
    ],
)
def test_a_record_id_has_one_spelling(record_id: str) -> None:
    """False if two spellings of one record_id could be two records, or one of them have no key."""
    with pytest.raises(MalformedError, match="is no record_id"):
        read_header(identified(record_id))


def test_the_key_of_a_record_is_its_sixteen_bytes() -> None:
    """False if the store's key were another than the record_id."""
    header = read_header(FIRST)
    other = read_header(FIRST.replace(records.RECORD_ID.encode(), b"00000000-0000-4000-8000-000000000001"))
    assert record_key(header).hex() == records.RECORD_ID.replace("-", "")
    assert record_keys([header, other, header]) == [record_key(header), record_key(other), record_key(header)]
    assert record_keys([]) == []


def nested(depth: int, within: bytes = b"") -> bytes:
    """Return a record with arrays `depth` deep in a member, beside a text of `within`."""
    return FIRST[:-1] + b',"x":"' + within + b'","y":' + b"[" * depth + b"]" * depth + b"}"


def call_at_depth(frames: int, call: Any) -> Any:
    return call() if not frames else call_at_depth(frames - 1, call)


def test_a_record_that_nests_too_deep_is_refused_wherever_it_is_read() -> None:
    """If false, a message could end every process that reads it, or one and not another."""
    assert read_header(nested(255)) == read_header(nested(255, b"[[[[" * 300)) == read_header(FIRST)
    assert read_header(nested(3, b'[\\"[' * 300)) == read_header(FIRST)
    for depth in (256, 600, 994, 5_000, 25_000):
        for frames in (0, 300):
            with pytest.raises(MalformedError, match="nests"):
                call_at_depth(frames, lambda depth=depth: read_header(nested(depth)))
    with pytest.raises(MalformedError, match="nests"):
        read_header(b'{"a":' * 20_000)


def test_objects_alone_nest_too_deep_as_well() -> None:
    """If false, how deep a record may be would depend on whether there is an array in it."""
    short = b'{"record_id":"%s","register":"a/b","type":"x","version":1' % records.RECORD_ID.encode()
    for depth, is_too_deep in ((255, False), (256, True), (300, True)):
        deep = short + b',"x":' + b'{"":' * depth + b"1" + b"}" * depth + b"}"
        assert b"[" not in deep
        if is_too_deep:
            with pytest.raises(MalformedError, match="nests"):
                read_header(deep)
        else:
            assert read_header(deep).type == "x"
    with pytest.raises(MalformedError, match="nests"):
        read_header(b'{"":' * 257)


def test_an_envelope_that_nests_deep_is_malformed() -> None:
    """If false, a message could end every process that reads it."""
    deep = b"[" * 5_000 + b"]" * 5_000
    for envelope in (b'{"x":' + deep + b"}", b'{"submission":' + deep + b"}", deep):
        with pytest.raises(MalformedError):
            parse_entry(envelope + b"\n" + FIRST)

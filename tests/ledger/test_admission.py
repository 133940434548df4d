"""What registration refuses by content (formats.md, sections 8 and 19): by reason, record and field."""

from typing import Any

import pytest

from ledger import canonical
from ledger.admission import MAX_VIOLATIONS, admit, instant, moment, refuse_future
from ledger.entries import Submission
from ledger.errors import Reason, RejectedError
from ledger.records import checkpoint_anchored
from tests.support import records
from tests.support.ledgers import governing_record
from tests.support.records import REGISTER


def submitted(*data: bytes, register: str = REGISTER) -> Submission:
    """Return a submission of these records: nothing about its signature matters here."""
    return Submission(register, data, (), "0" * 64, tuple(b"" for _ in data))


def refused(*data: bytes, register: str = REGISTER) -> RejectedError:
    with pytest.raises(RejectedError) as caught:
        admit(submitted(*data, register=register))
    return caught.value


GOOD = records.decision_bytes()
SECRET = {"sensitive": True, "tier": "SECRET"}

REFUSALS: dict[str, tuple[bytes, Reason, str]] = {
    "not JSON": (b"{", Reason.NOT_CANONICAL, "records[0]"),
    "a space": (GOOD.replace(b":", b": ", 1), Reason.NOT_CANONICAL, "records[0]"),
    "null": (GOOD.replace(b'"version":1', b'"version":null'), Reason.NOT_CANONICAL, "records[0]"),
    "a fraction": (GOOD.replace(b'"version":1', b'"version":1.0'), Reason.NOT_CANONICAL, "records[0]"),
    "a final LF": (GOOD + b"\n", Reason.NOT_CANONICAL, "records[0]"),
    "a code that is none": (
        records.decision_bytes(channel="pigeon"), Reason.INVALID_FIELD, "records[0].channel",
    ),
    "a member missing": (records.decision_bytes(title=None), Reason.INVALID_FIELD, "records[0].title"),
    "a member unknown": (records.decision_bytes(mood="good"), Reason.INVALID_FIELD, "records[0].mood"),
    "a first version with number 2": (
        records.decision_bytes(version=2), Reason.INVALID_FIELD, "records[0].version",
    ),
    "a type unknown": (records.decision_bytes(type="decision.made/1"), Reason.UNKNOWN_TYPE, "records[0].type"),
    "a type reserved": (records.decision_bytes(type="grant.made/1"), Reason.UNKNOWN_TYPE, "records[0].type"),
    "another register": (
        records.decision_bytes(register="department-for-others/secretary-of-state"),
        Reason.WRONG_REGISTER, "records[0].register",
    ),
    "a governing type": (
        governing_record(0, "register.opened/1", name=REGISTER, title="The office"),
        Reason.WRONG_REGISTER, "records[0].type",
    ),
    "a type that the ledger writes": (
        checkpoint_anchored(b"origin\n1\nroot\n"), Reason.UNKNOWN_TYPE, "records[0].type",
    ),
    "a secret": (
        records.decision_bytes(classification=SECRET),
        Reason.CLASSIFICATION_REFUSED, "records[0].classification.tier",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "reason", "field"), REFUSALS.values(), ids=REFUSALS.keys())
def test_content_is_refused_by_reason_and_field(data: bytes, reason: Reason, field: str) -> None:
    """False if a record that breaks a content rule were let in, or the answer led elsewhere."""
    error = refused(data)
    assert error.reason is reason
    assert field in [violation.field for violation in error.violations]


def test_a_record_that_is_not_canonical_is_refused_by_its_byte() -> None:
    """False if somebody had to search for what is wrong with a record."""
    error = refused(GOOD, GOOD.replace(b'"tier":"OFFICIAL"', b'"tier": "OFFICIAL"'))
    (violation,) = error.violations
    assert violation.field == "records[1]"
    assert violation.offset == GOOD.index(b'"OFFICIAL"')
    assert error.detail["offset"] == str(violation.offset)


def test_a_code_is_refused_with_the_codes_that_are() -> None:
    """False if the allowed values had to be looked up elsewhere."""
    (violation,) = refused(records.decision_bytes(channel="pigeon")).violations
    assert "whatsapp" in violation.allowed


def test_all_violations_come_at_once_up_to_a_bound() -> None:
    """False if a department were told one mistake at a time, or a small question had a huge answer."""
    wrong = [
        records.decision_bytes(record_id=records.record_id(number), channel="pigeon", device="slate")
        for number in range(1, 4)
    ]
    found = [violation.field for violation in refused(GOOD, *wrong).violations]
    assert found == [f"records[{at}].{field}" for at in (1, 2, 3) for field in ("channel", "device")]
    many = [records.decision_bytes(channel="pigeon") for _ in range(1_000)]
    assert len(refused(*many).violations) == MAX_VIOLATIONS


def test_a_version_stands_once_in_a_submission() -> None:
    """False if one submission could hold one version of a record twice, even in the same bytes."""
    other = records.decision_bytes(record_id=records.record_id(2))
    error = refused(GOOD, other, GOOD)
    assert error.reason is Reason.DUPLICATE_IN_SUBMISSION
    assert [violation.field for violation in error.violations] == ["records[2].record_id"]
    corrected = canonical.format(records.correction(GOOD))
    assert len(admit(submitted(GOOD, corrected, other)).headers) == 3


def test_what_is_odd_is_not_refused() -> None:
    """False if a signed false statement, which is evidence, were turned away (P9)."""
    odd: list[dict[str, Any]] = [
        records.decision(channel="whatsapp", device="privately_owned"),
        records.decision(decision_type="contract_approval"),
        records.decision(decided_at="1900"),
        records.decision(relations=[{"type": "supersedes", "target": {"uri": "https://nowhere.example"}}]),
        records.period_return(count=999, first=1, last=2),
        records.period_return(count=None, first=None, last=None, nil_return=True),
    ]
    for number, record in enumerate(odd):
        record["record_id"] = records.record_id(number)
    candidate = admit(submitted(*map(canonical.format, odd)))
    assert len(candidate.records) == len(candidate.headers) == len(odd)


@pytest.mark.parametrize(
    ("decided_at", "fits"),
    [
        ("2026-06-25T09:35Z", True),
        ("2026-06-25T09:35:00Z", True),
        ("2026-06-25T09:35:01Z", False),
        ("2026-06-25T09:36Z", False),
        ("2026-06-25", True),
        ("2026-06", True),
        ("2026-06-25T09:35Z/2026-06-27", True),
        ("2026-06-26", False),
    ],
)
def test_a_decision_may_begin_five_minutes_in_the_future(decided_at: str, fits: bool) -> None:
    """False if the allowance for two clocks were another, or the latest second counted instead."""
    second = records.decision_bytes(record_id=records.record_id(3), decided_at=decided_at)
    candidate = admit(submitted(records.decision_bytes(decided_at="2026-01-01"), second))
    if fits:
        refuse_future(candidate, "2026-06-25T09:30:00.999Z")
        return
    with pytest.raises(RejectedError) as caught:
        refuse_future(candidate, "2026-06-25T09:30:00.999Z")
    assert caught.value.reason is Reason.DECIDED_IN_FUTURE
    assert [violation.field for violation in caught.value.violations] == ["records[1].decided_at"]


def test_the_day_of_a_decision_begins_in_london() -> None:
    """False if a summer's day began an hour late: 25 June begins at 23:00 of the 24th, UTC."""
    candidate = admit(submitted(records.decision_bytes(decided_at="2026-06-25")))
    refuse_future(candidate, "2026-06-24T22:55:00.000Z")
    with pytest.raises(RejectedError):
        refuse_future(candidate, "2026-06-24T22:54:59.999Z")


def test_a_return_is_never_in_the_future() -> None:
    """False if a return, which has no decided_at, were judged by one."""
    refuse_future(admit(submitted(canonical.format(records.period_return()))), "1999-01-01T00:00:00.000Z")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_783_092_011.042, "2026-07-03T15:20:11.042Z"),
        (1_783_092_011.0429, "2026-07-03T15:20:11.042Z"),
        (1_783_092_011.9999, "2026-07-03T15:20:11.999Z"),
    ],
)
def test_an_instant_has_its_milliseconds_cut_off(seconds: float, text: str) -> None:
    """False if the ledger claimed to have accepted something later than its clock said."""
    assert instant(seconds) == text
    assert int(moment(text)) == int(seconds)
    assert instant(moment(text)) == text

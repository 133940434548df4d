"""Rejections that cannot be what they say: a ledger could otherwise drop whatever it had promised."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from ledger.admission import instant
from ledger.entries import form_ledger_entry
from ledger.governing_types import SubmissionRejected
from ledger.own_records import submission_rejected
from ledger.records import parse_record
from services.auditing.rejections import Past, unfounded
from tests.support.ledgers import EPOCH, ORIGIN, REGISTER, decision, record_id
from tests.support.records import decision_bytes

LATER = "20000000-0000-4000-8000-000000000001"


def version(number: int, record_type: str = "decision.corrected/1") -> bytes:
    """Return version `number` of record 0, as far as anybody looks here."""
    return (
        decision(0)
        if number == 1
        else decision_bytes(record_id=record_id(0), version=number, type=record_type, register=REGISTER)
    )


RECORDS = [version(1), version(2), decision(5)]
"""What the register holds: two versions of one record, and another record."""

VERSIONS = {(record_id(0), 1): 0, (record_id(0), 2): 1, (record_id(5), 1): 2}


def judged(
    reason: str,
    rejected: tuple[int, str, int] | None = None,
    existing: int | None = None,
    *,
    view: int = 3,
    withdrawn: bool = False,
) -> str | None:
    held = [*RECORDS[:1], version(2, "decision.withdrawn/1"), *RECORDS[2:]] if withdrawn else RECORDS
    record = submission_rejected(
        register=REGISTER,
        register_origin=f"{ORIGIN}/{REGISTER}",
        submission_id="ab" * 32,
        count=2,
        reason=reason,
        index=3,
        rejected=rejected,
        existing=None if existing is None else (existing, hashlib.sha256(held[existing]).hexdigest()),
    )
    parsed = parse_record(record)
    assert isinstance(parsed, SubmissionRejected)
    entries = [form_ledger_entry(each, instant(EPOCH), 3) for each in held]
    known = {(bytes.fromhex(key.replace("-", "")), number): at for (key, number), at in VERSIONS.items()}
    past = Past(
        lambda index: entries[index] if index < len(entries) else None,
        lambda key, number: known.get((key, number)),
        4,
    )
    return unfounded(parsed, view, past)


FOUNDED: dict[str, dict[str, Any]] = {
    "STALE_VIEW": {},
    "RECORD_ALREADY_REGISTERED": {"rejected": (0, record_id(0), 1), "existing": 0},
    "RECORD_CONFLICT": {"rejected": (0, record_id(0), 2), "existing": 1},
    "PREVIOUS_UNKNOWN": {"rejected": (1, record_id(9), 2)},
    "RECORD_WITHDRAWN": {"rejected": (0, record_id(0), 3), "existing": 1, "withdrawn": True},
    "VERSION_CONFLICT": {"rejected": (0, record_id(0), 4), "existing": 1},
    "TYPE_CONFLICT": {"rejected": (0, record_id(0), 3), "existing": 1},
    "PREVIOUS_MISMATCH": {"rejected": (0, record_id(0), 3), "existing": 1},
}


@pytest.mark.parametrize("reason", FOUNDED)
def test_a_race_that_was_lost_is_no_finding(reason: str) -> None:
    """False if an honest ledger were accused of dropping a submission."""
    assert judged(reason, **FOUNDED[reason]) is None


@pytest.mark.parametrize(
    ("reason", "changed"),
    [
        ("STALE_VIEW", {"view": 4}),
        ("RECORD_CONFLICT", {"rejected": None}),
        ("RECORD_CONFLICT", {"rejected": (0, record_id(5), 2)}),
        ("RECORD_CONFLICT", {"rejected": (0, record_id(0), 3)}),
        ("RECORD_CONFLICT", {"existing": None}),
        ("RECORD_ALREADY_REGISTERED", {"existing": 1}),
        ("PREVIOUS_UNKNOWN", {"rejected": (1, record_id(9), 1)}),
        ("PREVIOUS_UNKNOWN", {"rejected": (1, record_id(0), 3)}),
        ("RECORD_WITHDRAWN", {"withdrawn": False}),
        ("VERSION_CONFLICT", {"rejected": (0, record_id(0), 3)}),
        ("VERSION_CONFLICT", {"existing": 0}),
        ("TYPE_CONFLICT", {"rejected": (0, record_id(0), 5)}),
        ("PREVIOUS_MISMATCH", {"existing": 0}),
    ],
)
def test_a_reason_that_the_register_does_not_show_is_found(reason: str, changed: dict[str, Any]) -> None:
    """False if a ledger could drop what it had promised by making up a reason."""
    assert judged(reason, **{**FOUNDED[reason], **changed}) is not None


def test_what_only_the_rejected_submission_would_show_is_left_to_the_ledgers_word() -> None:
    """False if a second record of a submission that met its first were taken for an invention."""
    assert judged("RECORD_CONFLICT", (1, LATER, 1)) is None

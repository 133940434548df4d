"""Valid records of a fictional department, to start from.

decision(decided_at="2026-06-25")       parsed JSON, changed as told; a member set to None is left out
decision_bytes(title="Another title")   the same, as canonical JSON
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from ledger import canonical
from ledger.own_records import record_digest

DEPARTMENT = "department-for-synthetic-affairs"
REGISTER = f"{DEPARTMENT}/secretary-of-state"
LEDGER_ORIGIN = "ledger.daybook.example"
RECORD_ID = "a8222494-1071-4ad7-8c1e-11fe48df34ed"


def record_id(number: int) -> str:
    """Return a UUID for a number from 0: the same each time."""
    return str(UUID(int=number, version=4))


def decision(*, register: str = REGISTER, **changes: Any) -> dict[str, Any]:
    """Return the smallest `decision.registered/1` with `changes`."""
    return changed(
        {
            "capture_method": "edrms_autocapture",
            "captured_at": "2026-08-04T10:00Z",
            "channel": "edrms_workflow",
            "classification": {"sensitive": False, "tier": "OFFICIAL"},
            "decided_at": "2026-08-04T09:30Z",
            "decision_maker": {"office": "secretary-of-state", "role": "secretary_of_state"},
            "decision_type": "policy",
            "device": "corporate_issued",
            "record_id": RECORD_ID,
            "record_state": "present",
            "reference": {"number": 124, "series": "MD/2026"},
            "register": register,
            "title": "Publish the gowns review",
            "type": "decision.registered/1",
            "version": 1,
        },
        changes,
    )


def correction(previous: bytes, /, **changes: Any) -> dict[str, Any]:
    """Return a `decision.corrected/1` that follows the record `previous` and restates it, with `changes`."""
    restated = {**canonical.parse(previous), **following(previous)}
    stated = {"correction": "correction", "reason": "The title was mistyped.", "type": "decision.corrected/1"}
    return changed({**restated, **stated}, changes)


def withdrawal(previous: bytes, /, **changes: Any) -> dict[str, Any]:
    """Return a `decision.withdrawn/1` that follows the record `previous`, with `changes`."""
    before = canonical.parse(previous)
    return changed(
        {
            **following(previous),
            "reason": "The decision was not carried out.",
            "record_id": before["record_id"],
            "register": before["register"],
            "type": "decision.withdrawn/1",
            "withdrawal": "withdrawn",
            "withdrawn_at": "2026-09-03",
        },
        changes,
    )


def period_return(*, register: str = REGISTER, **changes: Any) -> dict[str, Any]:
    """Return a `return.filed/1` of one decision with `changes`."""
    return changed(
        {
            "count": 1,
            "first": 124,
            "last": 124,
            "period": "2026-08",
            "record_id": record_id(1),
            "register": register,
            "series": "MD/2026",
            "signatory": {"office": "permanent-secretary", "role": "permanent_secretary"},
            "type": "return.filed/1",
            "version": 1,
        },
        changes,
    )


def void(*, register: str = REGISTER, **changes: Any) -> dict[str, Any]:
    """Return a `reference.voided/1` of one number with `changes`."""
    return changed(
        {
            "first": 125,
            "last": 125,
            "reason": "The number was given to a draft that was never submitted.",
            "record_id": record_id(2),
            "register": register,
            "series": "MD/2026",
            "signatory": {"office": "private-office", "role": "private_secretary"},
            "type": "reference.voided/1",
            "version": 1,
        },
        changes,
    )


def following(previous: bytes) -> dict[str, Any]:
    """Return the members `version` and `previous` of the version after the record `previous`."""
    version = canonical.parse(previous)["version"]
    return {
        "previous": {"sha256": record_digest(previous), "version": version},
        "version": version + 1,
    }


def changed(record: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `record` with `changes`; a member set to None is left out."""
    return {name: value for name, value in {**record, **changes}.items() if value is not None}


def decision_bytes(*, register: str = REGISTER, **changes: Any) -> bytes:
    """Return the smallest `decision.registered/1` with `changes`, as canonical JSON."""
    return canonical.format(decision(register=register, **changes))

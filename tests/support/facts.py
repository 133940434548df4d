"""Facts for the detections, made from records, and what is found in them.

facts_of(records)                 each witnessed within a minute, a minute apart
found_in(facts_of(records))       what daybook-strict finds in them
numbered(1, 2, 4)                 decisions with these numbers of one series
"""

from __future__ import annotations

from typing import Any

from ledger import canonical
from ledger.own_records import record_digest
from ledger.records import parse_record
from ledger.timeline import Bounds
from ledger.values import partial
from services.auditing.calendars import packaged
from services.auditing.detecting import Detector
from services.auditing.facts import Fact
from services.auditing.found import Found
from services.auditing.profiles import shipped
from tests.support.records import REGISTER, decision, record_id

STRICT = shipped("daybook-strict")
CALENDAR = packaged("dept-ew")
SEEN = partial("2026-08-05T10:00Z").earliest

Record = dict[str, Any]


def fact_at(index: int, members: Record, at: int, register: str = REGISTER) -> Fact:
    """Return the fact of a record that was witnessed between 30 seconds before and 20 after `at`."""
    data = canonical.format(members)
    record = parse_record(data)
    digest = bytes.fromhex(record_digest(data))
    bounds = Bounds(at - 30, at + 20, comparable=True)
    return Fact(register, index, record, record.type, digest, at, "anonymous", None, index, 7, bounds)


def facts_of(records: list[Record], times: list[int] | None = None, register: str = REGISTER) -> list[Fact]:
    """Return the facts of records, each witnessed within a minute of its time, by default a minute apart."""
    if times is None:
        times = [SEEN + 60 * index for index in range(len(records))]
    pairs = zip(records, times, strict=True)
    return [fact_at(index, members, at, register) for index, (members, at) in enumerate(pairs)]


def found_in(facts: list[Fact], now: int | None = None) -> list[Found]:
    """Return what is found in facts that are taken at once."""
    with Detector(None, STRICT, CALENDAR) as detector:
        detector.observe(facts)
        return list(detector.found(now))


def said(found: list[Found], detection: str = "DET-08") -> list[tuple[str, tuple[int, ...]]]:
    """Return what each finding of a detection is about."""
    return [(each.inputs.get("what", ""), each.indices) for each in found if each.detection == detection]


def numbered(*numbers: int, series: str = "MD/2026") -> list[Record]:
    """Return decisions with these numbers, each another record."""
    return [
        decision(record_id=record_id(100 + place), reference={"number": number, "series": series})
        for place, number in enumerate(numbers)
    ]

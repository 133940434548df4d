"""A year of a fictional department, with planted anomalies, near-misses, and the truth about both.

Deterministic by its seed. The department, its offices and everything that they decide are invented; no record
names a person. What must be found stands in `Year.truth`: whatever else is found is wrong. `write` puts it all
into files, for other tools.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from ledger import canonical
from ledger.own_records import record_digest
from ledger.records import parse_record
from ledger.timeline import Bounds
from services.auditing.calendars import packaged
from services.auditing.facts import Fact
from services.auditing.working_days import is_working_day, nth_working_day

DEPARTMENT: Final = "department-for-synthetic-affairs"
YEAR: Final = 2024
SUBMITTER: Final = "uri:spiffe://dsa.example/edrms"
LONDON: Final = ZoneInfo("Europe/London")
CALENDAR: Final = packaged("dept-ew")

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Truth:
    """One thing that must be found: a detection, and any entry that it is about, or what it says of it."""

    detection: str
    register: str
    indices: tuple[int, ...] = ()
    what: str = ""


@dataclass(frozen=True, slots=True)
class Year:
    """The facts of each register in order, what must be found in them, and up to when (POSIX seconds)."""

    facts: dict[str, list[Fact]]
    records: dict[str, list[bytes]]
    truth: tuple[Truth, ...]
    now: int


@dataclass(slots=True)
class Event:
    """Something that is registered: a record, made once all before it are; its truths are by its index."""

    at: datetime
    office: str
    make: Callable[[int], Record]
    finds: list[tuple[str, str]] = field(default_factory=list)
    index: int = -1
    data: bytes = b""
    delay: int = 10
    witnessed: bool = True


def at(day: date, hour: float = 11.0) -> datetime:
    """Return a moment of a London day."""
    return datetime(day.year, day.month, day.day, tzinfo=LONDON) + timedelta(hours=hour)


def instant(moment: datetime) -> str:
    """Return a moment as records write it, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def after(day: date, working_days: int) -> date:
    """Return the nth working day after a day."""
    return nth_working_day(CALENDAR, day, working_days)


class Story:
    """Collects events, then registers them in the order of their time."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.events: list[Event] = []
        self.joint: list[tuple[str, str, list[Event], str]] = []
        self._made = 0
        self._numbers: dict[tuple[str, str], int] = {}

    def day(self, month: int, first: int = 1, last: int = 28) -> date:
        """Return a working day of a month."""
        while True:
            found = date(YEAR, month, self.random.randint(first, last))
            if is_working_day(CALENDAR, found):
                return found

    def record_id(self) -> str:
        """Return another record_id: the same with the same seed."""
        return str(UUID(int=self.random.getrandbits(128), version=4))

    def number(self, office: str, series: str, skip: int = 0) -> int:
        """Return the next number of a series; leave some out."""
        key = office, series
        self._numbers[key] = self._numbers.get(key, 0) + 1 + skip
        return self._numbers[key]

    def decide(
        self,
        office: str,
        decided: datetime | str,
        registered: datetime,
        finds: str = "",
        *,
        series: str = "MD/2024",
        skip: int = 0,
        again: bool = False,
        delay: int = 10,
        **members: Any,
    ) -> Event:
        """Plan a decision. `finds` are the detections that must find it: ``DET-01 DET-08=gap``."""
        record_id = self.record_id()
        text = decided if isinstance(decided, str) else instant(decided)

        def make(_: int) -> Record:
            number = self._numbers[office, series] if again else self.number(office, series, skip)
            return {
                "capture_method": "edrms_autocapture",
                "captured_at": text,
                "channel": "corporate_email",
                "classification": {"sensitive": False, "tier": "OFFICIAL"},
                "decided_at": text,
                "decision_maker": {"office": office, "role": "minister_of_state"},
                "decision_type": "policy",
                "device": "corporate_issued",
                "record_id": record_id,
                "record_state": "present",
                "reference": {"number": number, "series": series},
                "register": f"{DEPARTMENT}/{office}",
                "title": f"Synthetic decision {record_id[:8]}",
                "type": "decision.registered/1",
                "version": 1,
                **members,
            }

        return self._plan(Event(registered, office, make, _finds(finds), delay=delay))

    def correct(
        self, earlier: Event, registered: datetime, finds: str = "", *, how: str = "correction", **members: Any
    ) -> Event:
        """Plan a later version of a decision."""

        def make(_: int) -> Record:
            before = canonical.parse(earlier.data)
            previous = {"sha256": record_digest(earlier.data), "version": before["version"]}
            stated = {
                "correction": how,
                "previous": previous,
                "reason": "Put right.",
                "version": before["version"] + 1,
            }
            return {**before, **stated, "type": "decision.corrected/1", **members}

        return self._plan(Event(registered, earlier.office, make, _finds(finds)))

    def publish(self, earlier: Event, published: datetime, finds: str = "", *updates: datetime) -> Event:
        """Plan the version that says when a decision was published."""
        publication: Record = {"first": instant(published)}
        if updates:
            publication["updates"] = [instant(update) for update in updates]
        last = max((published, *updates)) + timedelta(minutes=20)
        last = last if is_working_day(CALENDAR, last.date()) else at(after(last.date(), 1), 9.5)
        return self.correct(earlier, last, finds, how="amendment", publication=publication)

    def void(self, office: str, registered: datetime, first: int, last: int, series: str, finds: str) -> Event:
        """Plan a void."""
        record_id = self.record_id()
        record = {
            "first": first,
            "last": last,
            "reason": "Drafts that were given up.",
            "record_id": record_id,
            "register": f"{DEPARTMENT}/{office}",
            "series": series,
            "signatory": {"office": office, "role": "private_secretary"},
            "type": "reference.voided/1",
            "version": 1,
        }
        return self._plan(Event(registered, office, lambda _: record, _finds(finds)))

    def file(
        self,
        office: str,
        month: int,
        registered: datetime,
        finds: str = "",
        *,
        series: str = "MD/2024",
        off: int = 0,
    ) -> Event:
        """Plan a month's return that counts what is registered by then, `off` by so many."""
        record_id = self.record_id()
        record: Record = {
            "period": f"{YEAR}-{month:02}",
            "record_id": record_id,
            "register": f"{DEPARTMENT}/{office}",
            "series": series,
            "signatory": {"office": office, "role": "permanent_secretary"},
            "type": "return.filed/1",
            "version": 1,
        }

        def make(index: int) -> Record:
            numbers = self._counted(office, series, month, index)
            if not numbers and not off:
                return {**record, "nil_return": True}
            return {**record, "count": len(numbers) + off, "first": min(numbers), "last": max(numbers)}

        return self._plan(Event(registered, office, make, _finds(finds)))

    def _counted(self, office: str, series: str, month: int, index: int) -> list[int]:
        latest: dict[str, Record] = {}
        for event in self.events:
            if event.office == office and 0 <= event.index < index:
                record = canonical.parse(event.data)
                if record["type"].startswith("decision."):
                    latest[record["record_id"]] = record
        return [
            record["reference"]["number"]
            for record in latest.values()
            if record["reference"]["series"] == series and _in_month(record["decided_at"], month)
        ]

    def together(self, detection: str, events: list[Event], what: str = "") -> None:
        """Say that one finding is about several events."""
        self.joint.append((detection, events[0].office, events, what))

    def missing(self, detection: str, office: str, what: str) -> None:
        """Say that something must be found that no entry is about."""
        self.joint.append((detection, office, [], what))

    def change_contract(self, earlier: Event, registered: datetime, finds: str, members: Record) -> Event:
        """Plan the version that states a contract otherwise."""

        def make(_: int) -> Record:
            before = canonical.parse(earlier.data)
            previous = {"sha256": record_digest(earlier.data), "version": before["version"]}
            return {
                **before,
                "correction": "amendment",
                "previous": previous,
                "procurement": {**before["procurement"], **members},
                "reason": "The contract was varied.",
                "type": "decision.corrected/1",
                "version": before["version"] + 1,
            }

        return self._plan(Event(registered, earlier.office, make, _finds(finds)))

    def _plan(self, event: Event) -> Event:
        self.events.append(event)
        return event

    def register(self, now: datetime) -> Year:
        """Register everything, and return what came of it."""
        facts: dict[str, list[Fact]] = {}
        records: dict[str, list[bytes]] = {}
        truth: list[Truth] = []
        latest: dict[str, int] = {}
        # A record's own truths first count where it stands.
        self.events.sort(key=lambda each: (each.at, each.office))
        for event in self.events:
            register = f"{DEPARTMENT}/{event.office}"
            mine = facts.setdefault(register, [])
            event.index = len(mine)
            event.data = canonical.format(event.make(event.index))
            accepted = event.at.timestamp()
            before = int(accepted) - self.random.randint(1, 20)
            witnessed = int(accepted) + event.delay
            latest[register] = max(latest.get(register, 0), witnessed)
            bounds = Bounds(before, latest[register] if event.witnessed else None, comparable=True)
            record = parse_record(event.data)
            digest = bytes.fromhex(record_digest(event.data))
            mine.append(
                Fact(
                    register,
                    event.index,
                    record,
                    record.type,
                    digest,
                    accepted,
                    SUBMITTER,
                    None,
                    event.index,
                    9,
                    bounds,
                )
            )
            records.setdefault(register, []).append(event.data)
            truth += [Truth(detection, register, (event.index,), what) for detection, what in event.finds]
        for detection, office, events, what in self.joint:
            indices = tuple(event.index for event in events)
            truth.append(Truth(detection, f"{DEPARTMENT}/{office}", indices, what))
        return Year(facts, records, tuple(truth), int(now.timestamp()))


def _finds(text: str) -> list[tuple[str, str]]:
    return [(name, what.replace("_", " ")) for name, _, what in (each.partition("=") for each in text.split())]


def _in_month(decided: str, month: int) -> bool:
    if "T" not in decided:
        return decided.startswith(f"{YEAR}-{month:02}")
    moment = datetime.fromisoformat(decided).astimezone(LONDON)
    return (moment.year, moment.month) == (YEAR, month)


def matches(truth: Truth, detection: str, register: str, indices: tuple[int, ...], what: str) -> bool:
    """Tell whether a finding is the one that a truth says must be made."""
    return (
        truth.detection == detection
        and truth.register == register
        and (not truth.what or truth.what == what)
        and (not truth.indices or bool(set(truth.indices) & set(indices)))
    )


def write(year: Year, folder: Path) -> None:
    """Write the records of each register, one a line, and `ground-truth.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for register, records in year.records.items():
        (folder / f"{register.replace('/', '+')}.ndjson").write_bytes(
            b"".join(data + b"\n" for data in records)
        )
    truth = [
        {
            "detection": each.detection,
            "register": each.register,
            "indices": list(each.indices),
            "what": each.what,
        }
        for each in year.truth
    ]
    text = json.dumps({"now": year.now, "must_be_found": truth}, indent=2)
    (folder / "ground-truth.json").write_text(text + "\n", encoding="utf-8")

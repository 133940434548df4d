"""Five months of a fictional department, registered for real, sealed and anchored day by day.

with months(tmp_path) as it:
    result = await it.visit()       # an audit, as on the day after
    page = it.report(result)        # and its report, beside the state

Most decisions are registered within days, some late, with a reason or without one; the last one comes in while
the ledger's clock is ahead.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from ledger import canonical
from ledger.admission import instant
from ledger.governing import GOVERNING
from ledger.ledger import Appended
from ledger.own_records import checkpoint_anchored
from services.auditing.audit_state import open_audit_state
from services.auditing.calendars import packaged
from services.auditing.profiles import shipped
from services.auditing.report.writing import write_report
from services.auditing.results import AuditResult
from services.auditing.working_days import is_working_day
from tests.support.audited import visit
from tests.support.ledger_story import commit
from tests.support.ledgers import DEPARTMENT, DEPARTMENT_KEY, EPOCH, REGISTER, decision, submission
from tests.support.monitored import BEGAN, WITNESSED, Monitored, monitored
from tests.support.records import correction, period_return, record_id

SECOND: Final = f"{DEPARTMENT}/permanent-secretary"
PROFILE: Final = shipped("daybook-strict")
FIRST: Final = date(2026, 6, 1)
LAST: Final = date(2026, 10, 30)

_SERIES: Final = {REGISTER: "MD/2026", SECOND: "PS/2026"}
_TYPES: Final = ("policy", "appointment", "grant", "contract_approval")
_CHANNELS: Final = ("corporate_email", "corporate_email", "corporate_email", "whatsapp", "in_person_meeting")


@dataclass(slots=True)
class Months:
    """The ledger, with an auditor whose clock stands on the day after the last."""

    it: Monitored
    now: int = 0

    async def visit(self) -> AuditResult:
        """Audit it, with detections."""
        return await visit(self.it, self.now, profile=PROFILE)

    def report(self, result: AuditResult, path: Path | None = None) -> Path:
        """Write the report of an audit, and return its file."""
        path = path or self.it.folder / "report.html"
        with self.it.opened() as monitored_state, open_audit_state(monitored_state, self.it.policy) as state:
            write_report(path, state, result, PROFILE, lambda *_: nullcontext(lambda _: None))
        return path

    def go_behind_a_return(self, day: date) -> None:
        """File the return of June of one office, and go behind it on the days after.

        Three decisions come a day later: in time, late, and one that is of July and so none of the return's. A
        day after that a correction moves the first decision of the office out of June.
        """
        series, midday = _SERIES[REGISTER], datetime(day.year, day.month, day.day, 11, tzinfo=UTC)
        entries = [each.partition(b"\n")[2] for each in self.it.entries(REGISTER)]
        held = [canonical.parse(each) for each in entries]
        of_june = [each["reference"]["number"] for each in held if each["decided_at"].startswith("2026-06")]
        filed = period_return(
            register=REGISTER,
            period="2026-06",
            series=series,
            record_id=record_id(6_000),
            count=len(of_june),
            first=min(of_june),
            last=max(of_june),
        )
        self.register(midday, REGISTER, [canonical.format(filed)])
        top = max(each["reference"]["number"] for each in held)
        added = [
            decision(
                6_000 + number,
                reference={"number": top + number, "series": series},
                decided_at=decided,
                captured_at=decided,
                title=f"Decision behind the return, {number}",
                decision_type="policy",
            )
            for number, decided in enumerate(("2026-06-30", "2026-06-10", "2026-07-01"), 1)
        ]
        self.register(midday + timedelta(days=1), REGISTER, added)
        first = next(each for each in entries if b'"decided_at":"2026-06' in each)
        moved = canonical.format(correction(first, decided_at="2026-05-29"))
        self.register(midday + timedelta(days=2), REGISTER, [moved])

    def register(self, day: datetime, register: str, records: list[bytes], ahead: int = 0) -> None:
        """Register records in one submission, the ledger's clock `ahead` by seconds; seal and anchor."""
        seconds = int(day.timestamp())
        self.it.held.turns = seconds - EPOCH + ahead
        self.it.held.turn([submission(register, records, [DEPARTMENT_KEY])])
        self.it.publish(at=seconds + 20 - BEGAN)
        turn = self.it.held.ledger.turn()
        anchor = checkpoint_anchored(self.it.notes[register])
        assert isinstance(turn.append_ledger_written(GOVERNING, anchor, instant(seconds + 25)), Appended)
        commit(self.it.held, turn)
        self.it.publish(at=seconds + 30 - BEGAN)
        self.now = seconds + 86_400 - BEGAN


@contextmanager
def months(folder: Path, last: date = LAST, seed: int = 7) -> Iterator[Months]:
    """Make the ledger, from `FIRST` up to `last`; the same with the same seed."""
    with monitored(folder, WITNESSED) as it:
        it.held.open_register(SECOND)
        it.publish(at=EPOCH + 60 - BEGAN)
        made = Months(it)
        _fill(made, last, random.Random(seed))
        yield made


def _fill(made: Months, last: date, pick: random.Random) -> None:
    numbers = dict.fromkeys(_SERIES, 0)
    serial = 0
    day, calendar = FIRST, packaged("dept-ew")
    while day <= last:
        if is_working_day(calendar, day) and pick.random() < 0.6:
            register = REGISTER if pick.random() < 0.7 else SECOND
            records = []
            for _ in range(pick.randint(1, 4)):
                serial += 1
                numbers[register] += 1 + (pick.random() < 0.02)
                reference = {"number": numbers[register], "series": _SERIES[register]}
                records.append(
                    decision(
                        serial, register, reference=reference, title=f"Decision {serial}", **_members(day, pick)
                    )
                )
            hour = 3 if pick.random() < 0.05 else pick.randint(9, 17)
            moment = datetime(day.year, day.month, day.day, hour, pick.randint(0, 59), tzinfo=UTC)
            made.register(moment, register, records)
        day += timedelta(days=1)
    # A ledger whose clock is ahead takes what is dated later than anybody's clock.
    moment = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    reference = {"number": numbers[REGISTER] + 1, "series": _SERIES[REGISTER]}
    dated = decision(
        serial + 1,
        reference=reference,
        decided_at=f"{moment + timedelta(days=9):%Y-%m-%d}",
        title="Dated ahead",
    )
    made.register(moment, REGISTER, [dated], ahead=10 * 86_400)


def _members(day: date, pick: random.Random) -> dict[str, Any]:
    """Return when a decision was made that is registered on a day, and how."""
    late = pick.random()
    back = pick.randint(0, 4) if late < 0.75 else pick.randint(12, 70)
    decided = day - timedelta(days=back)
    text = f"{decided:%Y-%m}" if pick.random() < 0.05 else decided.isoformat()
    members: dict[str, Any] = {
        "captured_at": decided.isoformat(),
        "channel": pick.choice(_CHANNELS),
        "decided_at": text,
        "decision_type": pick.choice(_TYPES),
    }
    if late > 0.9:
        members["late_reason"] = pick.choice(("migration_of_legacy", "oversight"))
    return members

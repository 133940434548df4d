"""What is planted in the year of the fictional department: its everyday life, anomalies, and near-misses.

Each planter plants the anomalies of one rule with everything else that they bring with them, and near-misses of
which the rule must not speak.
"""

from __future__ import annotations

import sys
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from services.auditing.working_days import is_working_day
from tests.support.synthetic_year import CALENDAR, YEAR, Event, Story, Year, after, at, instant, write

SECRETARY: Final = "secretary-of-state"
MINISTER: Final = "minister-of-state"
OFFICER: Final = "accounting-officer"
PERMANENT: Final = "permanent-secretary"
OFFICES: Final = (SECRETARY, MINISTER, OFFICER)

CHAT: Final[dict[str, Any]] = {
    "channel": "whatsapp",
    "channel_justification": "No departmental system was in reach.",
    "capture_method": "native_export",
    "significant": False,
}


def make_year(seed: int = 2024) -> Year:
    """Return the year."""
    story = Story(seed)
    everyday(story)
    contracts(story)
    for plant in (
        late_registration,
        late_capture,
        back_dated,
        future_dated,
        chat_channels,
        disappearing,
        numbers,
        returns,
        stages,
        late_decisions,
        retrospective,
        publication,
        churn,
        duplicates,
        registration_bursts,
        off_hours,
        evidence,
        corrections,
        unwitnessed,
        silence,
        amendments,
    ):
        plant(story)
    return story.register(at(date(YEAR + 1, 1, 13)))


def working_days() -> list[date]:
    """Return every working day of the year."""
    days = (date(YEAR, 1, 1) + timedelta(days=number) for number in range(366))
    return [day for day in days if is_working_day(CALENDAR, day)]


def everyday(story: Story) -> None:
    """Decisions of every working day, registered within two; and a return each month, in time."""
    for office in OFFICES:
        for day in working_days():
            for _ in range(story.random.randint(2, 4)):
                decided = at(day, story.random.uniform(9, 17))
                later = after(day, story.random.randint(1, 2)) if story.random.random() < 0.4 else day
                registered = (
                    at(later, story.random.uniform(9, 17)) if later > day else decided + timedelta(minutes=40)
                )
                channel = story.random.choice(("corporate_email", "in_person_meeting", "parliamentary_email"))
                story.decide(office, decided, registered, channel=channel)
        for month in range(1, 13):
            if (office, month) not in ((MINISTER, 5), (MINISTER, 9), (SECRETARY, 3)):
                story.file(office, month, at(after(_last_day(month), 7), 16))


def _last_day(month: int) -> date:
    return (date(YEAR, month, 28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)


def contract(story: Story, name: str, day: date, finds: str = "", pounds: int = 0, **members: Any) -> Event:
    """Plan an award that is registered on its day: with its supplier, value and identifier."""
    amount = f"{pounds or story.random.randint(10_000, 900_000)}.00"
    procurement = {
        "award_date": day.isoformat(),
        "ocid": f"ocds-synthetic-{story.record_id()}",
        "supplier": {"name": name},
        "value": {"amount": amount, "currency": "GBP"},
        **members.pop("procurement", {}),
    }
    stated = {"decision_type": "contract_award", "procurement": procurement, **members}
    registered = at(day, story.random.uniform(10.2, 17))
    return story.decide(OFFICER, at(day, 10), registered, finds, series="CA/2024", **stated)


def contracts(story: Story) -> None:
    """Contracts as they should be: awarded, begun after that, and published once or updated once."""
    for number in range(60):
        day = story.day(number % 11 + 1)
        start = (day + timedelta(days=story.random.randint(0, 20))).isoformat()
        event = contract(story, f"Ordinary Supplies {number}", day, procurement={"start_date": start})
        published = at(after(day, 3 + story.random.randint(0, 10)), 9.2 + story.random.random() * 7)
        updates = [published + timedelta(days=7)] if number % 3 == 0 else []
        story.publish(event, published, "", *updates)


def late_registration(story: Story) -> None:
    """DET-01: by channel and type; the last moment, a rough date, and a migrated record."""
    for month in (2, 4, 6, 8, 10):
        day = story.day(month, 1, 5)
        story.decide(SECRETARY, at(day, 10), at(after(day, 8), 11), "DET-01")
        story.decide(SECRETARY, at(day, 10), at(after(day, 5), 16.5))
        story.decide(SECRETARY, at(day, 10), at(after(day, 6), 9), "DET-01", late_reason="oversight")
        story.decide(
            MINISTER, at(day, 10), at(after(day, 3), 12), "DET-01 DET-05", **(CHAT | {"significant": True})
        )
        story.decide(MINISTER, at(day, 10), at(after(day, 2), 12), "DET-05", **(CHAT | {"significant": True}))
        story.decide(
            OFFICER, at(day, 10), at(after(day, 2), 12), "DET-01", decision_type="ministerial_direction"
        )
        story.decide(OFFICER, at(day, 10), at(after(day, 1), 12), decision_type="ministerial_direction")
        # Dated to the month only: until its last day nothing is late.
        story.decide(SECRETARY, f"{YEAR}-{month:02}", at(after(_last_day(month), 5), 12))
        story.decide(
            MINISTER, at(day, 10), at(after(day, 14), 12), "DET-01 DET-03", late_reason="migration_of_legacy"
        )
        award = {"award_date": after(day, 1).isoformat()}
        approval: dict[str, Any] = {"decision_type": "contract_approval", "procurement": award}
        story.decide(OFFICER, at(day, 10), at(after(day, 2), 12), "DET-01 DET-12=registered", **approval)
        story.decide(OFFICER, at(day, 10), at(after(day, 1), 16), **approval)


def late_capture(story: Story) -> None:
    """DET-02: three working days after the decision; two are in time."""
    for month in (1, 3, 5, 7, 9, 11):
        day = story.day(month, 8, 20)
        for days, finds in ((3, "DET-02 DET-05"), (2, "DET-05")):
            captured = at(after(day, days), 10)
            story.decide(
                MINISTER,
                at(day, 10),
                captured + timedelta(hours=1),
                finds,
                captured_at=instant(captured),
                **CHAT,
            )


def back_dated(story: Story) -> None:
    """DET-03: long after, behind later ones; a series without any is only late, and so is one day too few."""
    for month in (1, 3, 5, 7, 9, 11):
        day = story.day(month, 1, 5)
        story.decide(SECRETARY, at(day, 10), at(after(day, 13), 11), "DET-01 DET-03")
        story.decide(SECRETARY, at(day, 10), at(after(day, 13), 12), "DET-01", series=f"SPECIAL/{month}")
        story.decide(SECRETARY, at(day, 10), at(after(day, 10), 12), "DET-01")


def future_dated(story: Story) -> None:
    """DET-04: dated hours after the witnesses had it; four minutes are nothing."""
    for month in (2, 5, 8, 11):
        registered = at(story.day(month), 10)
        story.decide(MINISTER, registered + timedelta(hours=3), registered, "DET-04")
        story.decide(MINISTER, registered + timedelta(minutes=4), registered)


def chat_channels(story: Story) -> None:
    """DET-05: every kind; parliamentary e-mail is none."""
    weak = {"capture_method": "note_of_substance"}
    for month in range(1, 13, 2):
        day = story.day(month)
        moment = at(day, 12)
        story.decide(SECRETARY, moment, moment + timedelta(hours=1), "DET-05", **CHAT)
        story.decide(SECRETARY, moment, moment + timedelta(hours=2), "DET-05", **(CHAT | weak))
        story.decide(
            SECRETARY, moment, moment + timedelta(hours=2), channel="parliamentary_email", significant=True
        )
        story.decide(SECRETARY, moment, moment + timedelta(hours=2), channel="corporate_messaging")


def disappearing(story: Story) -> None:
    """DET-06: on; not off, and not unknown."""
    for month in range(1, 13, 2):
        moment = at(story.day(month), 14)
        for state, finds in (("on", "DET-06"), ("off", ""), ("unknown", "")):
            story.decide(
                MINISTER,
                moment,
                moment + timedelta(hours=1),
                finds,
                channel="corporate_messaging",
                disappearing_messages=state,
            )


def numbers(story: Story) -> None:
    """DET-08: numbers left out, given twice, voided, voided and used; and numbers that come out of order."""
    for month in (1, 4, 7, 10):
        day = at(story.day(month), 10)
        series = f"PS/{month}"

        def decide(
            minutes: int, finds: str = "", series: str = series, day: datetime = day, **how: Any
        ) -> Event:
            moment = day + timedelta(minutes=minutes)
            return story.decide(PERMANENT, moment, moment, finds, series=series, **how)

        decide(0)
        decide(40)
        decide(80, "DET-08=gap", skip=2)
        decide(120)
        twice = [decide(160), decide(200, again=True)]
        story.together("DET-08", twice, "duplicate")
        decide(240, skip=3)
        # 8 to 10 are left out and voided; 2 is in use.
        story.void(PERMANENT, day + timedelta(minutes=250), 8, 10, series, "DET-08=voided")
        story.void(PERMANENT, day + timedelta(minutes=260), 2, 2, series, "DET-08=voided_and_used")
        # 13 comes before 12.
        late = day + timedelta(minutes=280)
        story.decide(PERMANENT, late, late, series=series, reference={"number": 13, "series": series})
        story.decide(
            PERMANENT,
            late,
            late + timedelta(minutes=40),
            series=series,
            reference={"number": 12, "series": series},
        )


def returns(story: Story) -> None:
    """DET-09: wrong, missing and late returns; and what comes into a period, or leaves it, after its return."""
    story.file(SECRETARY, 3, at(after(_last_day(3), 7), 16), "DET-09=another_count", off=1)
    story.file(MINISTER, 9, at(after(_last_day(9), 14), 16), "DET-09=late_return")
    # Minister, May: none at all. It has no entry.
    story.missing("DET-09", MINISTER, "missing")
    first = at(date(YEAR, 12, 3), 10)
    story.decide(OFFICER, first, first + timedelta(hours=1), series="EARLY/2024")
    early = "DET-09=filed_before_the_period_had_ended"
    story.file(OFFICER, 12, at(date(YEAR, 12, 20), 16), early, series="EARLY/2024")
    for month in (6, 10):
        day = date(YEAR, month, 27)
        day = day if is_working_day(CALENDAR, day) else after(day, 1)
        added = story.decide(SECRETARY, at(day, 10), at(after(_last_day(month), 12), 11), "DET-01 DET-03")
        story.together("DET-09", [added], "added after return")
        first_day = after(_last_day(month - 1), 1)
        moved = story.decide(MINISTER, at(first_day, 10), at(first_day, 12))
        correction = story.correct(
            moved,
            at(after(_last_day(month), 12), 12),
            "DET-01 DET-03",
            how="amendment",
            decided_at=instant(at(_last_day(month - 1), 10)),
        )
        story.together("DET-09", [correction], "changed after return")


def stage(story: Story, matter: str, code: str, moment: datetime, finds: str = "", **how: Any) -> Event:
    """Plan a stage of the three business cases."""
    registered = how.pop("registered", moment + timedelta(minutes=30))
    outcome = how.pop("outcome", "pass")
    stated = {"scheme": "three-case", "scheme_version": 1, "code": code, "outcome": outcome}
    return story.decide(
        OFFICER, moment, registered, finds, series="BC/2024", matter_id=matter, stage=stated, **how
    )


def stages(story: Story) -> None:
    """DET-10 and DET-11: business cases that lack a stage, go on after a failure, or run backwards."""

    def days() -> list[datetime]:
        """Return three days in a row, at an hour of each matter's own: together they would be a burst."""
        day, hour = story.day(month, 1, 20), next(hours)
        return [at(after(day, number), hour) for number in (1, 2, 3)]

    codes = ("strategic", "outline", "full")
    for month in range(1, 12, 2):
        hours = iter(range(8, 20))
        for name, skipped in (("complete", ""), ("lacking", "outline")):
            for code, moment in zip(codes, days(), strict=True):
                if code != skipped:
                    finds = "DET-10=missing" if skipped and code == "full" else ""
                    stage(story, f"{name}-{month}", code, moment, finds)
        for authority, finds in (({}, "DET-10=waived"), ({"delegated_authority": "HMT delegation 7"}, "")):
            matter = f"waived-{month}-{len(finds)}"
            stage(story, matter, "strategic", days()[0], finds, outcome="waived", **authority)
        for goes_on in (True, False):
            matter, moments = f"failed-{month}-{goes_on}", days()
            stage(story, matter, "strategic", moments[0])
            stage(story, matter, "outline", moments[1], "DET-10=fail" if goes_on else "", outcome="fail")
            if goes_on:
                stage(story, matter, "full", moments[2], "DET-10=missing")
        early, late, _ = days()
        stage(story, f"order-{month}", "strategic", late)
        stage(story, f"order-{month}", "outline", early, "DET-11", registered=late + timedelta(hours=2))
        early, late, _ = days()
        stage(story, f"same-{month}", "strategic", late)
        rough = late.date().isoformat()
        stage(story, f"same-{month}", "outline", late, decided_at=rough, registered=late + timedelta(hours=1))


def late_decisions(story: Story) -> None:
    """DET-12: an approval after the award; on the day of it is nothing."""
    for month in (1, 3, 5, 7, 9, 11):
        day = story.day(month)
        for days, finds in ((4, "DET-12=decided"), (0, "")):
            procurement = {"award_date": (day - timedelta(days=days)).isoformat()}
            moment = at(day, 11)
            story.decide(
                OFFICER,
                moment,
                moment + timedelta(hours=1),
                finds,
                decision_type="spending_approval",
                procurement=procurement,
            )


def retrospective(story: Story) -> None:
    """DET-13: a start before the award, by days and by months; on the day of it is nothing."""
    for month in (1, 3, 5, 7, 9):
        day = story.day(month)
        moment = at(day, 11)
        for start, award, finds in ((5, 15, "DET-13"), (5, 60, "DET-13"), (5, 5, "")):
            dates = {"start_date": start, "award_date": award}
            procurement = {name: (day + timedelta(days=days)).isoformat() for name, days in dates.items()}
            story.decide(
                OFFICER,
                moment,
                moment + timedelta(hours=1),
                finds,
                decision_type="spending_approval",
                procurement=procurement,
            )


def publication(story: Story) -> None:
    """DET-14: published on day 31 and later; day 30 is in time. DET-20: many publications in one hour."""
    for month in (1, 2, 4, 6, 8):
        for days, finds in ((33, "DET-14"), (30, "")):
            day = story.day(month)
            while not is_working_day(CALENDAR, day + timedelta(days=days)):
                day = story.day(month)
            event = contract(story, f"Paper Works {month}-{days}", day)
            story.publish(event, at(day + timedelta(days=days), 13), finds)
    for month in (3, 9):
        day = story.day(month, 10, 20)
        crowd = []
        for number in range(9):
            event = contract(story, f"Crowded House {month}-{number}", after(day, -number % 3 + 1))
            crowd.append(story.publish(event, at(after(day, 9), 15 + number / 20)))
        story.together("DET-20", crowd, "first publications")


def churn(story: Story) -> None:
    """DET-15: two updates, and another value after publication; before publication a value may change."""
    for month in (1, 3, 5, 7, 9):
        day = story.day(month)
        event = contract(story, f"Turning Pages {month}", day)
        first = at(after(day, 3), 10.1)
        story.publish(event, first, "DET-15", first + timedelta(days=5), first + timedelta(days=9))
        for number, is_public in enumerate((True, False)):
            event = contract(story, f"Moving Targets {month}-{number}", day)
            last: Event = event
            if is_public:
                last = story.publish(event, at(after(day, 3), 10.1 + month / 3))
            dearer: dict[str, Any] = {"value": {"amount": "7000000.00", "currency": "GBP"}}
            finds = "DET-15" if is_public else ""
            moment = at(after(day, 12), 10)
            story.change_contract(last, moment, finds, dearer)


def duplicates(story: Story) -> None:
    """DET-16: one supplier, value and date under two identifiers; near in one respect only is nothing."""
    for month in (2, 4, 6, 8, 10):
        day = story.day(month, 1, 20)
        pounds = 1_000_000 + month
        first = contract(story, f"Twin Peaks {month} Ltd", day, pounds=pounds)
        second = contract(story, f"Twin Peaks {month} t/a Gowns Direct", day, pounds=pounds + 3_000)
        story.together("DET-16", [first, second])
        contract(story, f"Twin Valleys {month}", day, pounds=pounds)
        contract(story, f"Twin Peaks {month}", day, pounds=pounds + 20_000)
        contract(story, f"Twin Peaks {month}", after(day, 4), pounds=pounds)


def registration_bursts(story: Story) -> None:
    """DET-20: a dozen late ones within minutes, a dozen in time; six in an hour are nothing."""
    for month, finds, days in ((2, "DET-01", 7), (5, "", 0), (8, "DET-01", 7), (11, "", 0)):
        day = story.day(month, 1, 5)
        moment = at(after(day, days) if days else day, 12)
        crowd = [
            story.decide(SECRETARY, at(day, 9 + number / 10), moment + timedelta(seconds=40 * number), finds)
            for number in range(14)
        ]
        story.together("DET-20", crowd)
        few = at(story.day(month, 15, 25), 13)
        for number in range(5):
            story.decide(MINISTER, few - timedelta(hours=1), few + timedelta(minutes=8 * number))


def off_hours(story: Story) -> None:
    """DET-21: late, and on a Sunday or at night; in time on a Sunday, and late on a Monday, are nothing."""
    for month in (1, 4, 7, 10):
        day = story.day(month, 1, 5)
        sunday = _sunday(after(day, 6))
        story.decide(MINISTER, at(day, 10), at(sunday, 15), "DET-01 DET-21=registered")
        story.decide(MINISTER, at(day, 10), at(after(day, 7), 23.2), "DET-01 DET-21=registered")
        story.decide(MINISTER, at(sunday - timedelta(days=2), 10), at(sunday, 16))
        saturday = sunday - timedelta(days=1)
        story.decide(SECRETARY, at(saturday, 10), at(after(saturday, 7), 10), "DET-01 DET-21=decided")
        award = story.day(month, 1, 20)
        event = contract(story, f"Weekend Works {month}", award)
        story.publish(event, at(_sunday(award + timedelta(days=34)), 12), "DET-14 DET-21=published")
        event = contract(story, f"Weekday Works {month}", award)
        story.publish(event, at(_sunday(award + timedelta(days=14)), 12.3))


def _sunday(day: date) -> date:
    return day + timedelta(days=6 - day.weekday())


def evidence(story: Story) -> None:
    """DET-26: one document under two decisions, screenshots alone; not a screenshot beside a transcript."""
    for month in range(1, 12, 2):
        moment = at(story.day(month), 11)

        def document(kind: str, digest: str = "") -> dict[str, Any]:
            return {
                "kind": kind,
                "media_type": "application/pdf",
                "sha256": digest or f"{story.random.getrandbits(256):064x}",
                "size": 4_096,
            }

        shared = f"{story.random.getrandbits(256):064x}"
        pair = [
            story.decide(
                office, moment, moment + timedelta(hours=1 + hours), evidence=[document("minutes", shared)]
            )
            for hours, office in enumerate((SECRETARY, SECRETARY))
        ]
        story.together("DET-26", pair, "evidence used again")
        story.decide(
            MINISTER,
            moment,
            moment + timedelta(hours=1),
            "DET-26=screenshots_only",
            evidence=[document("screenshot")],
        )
        both = [document("screenshot"), document("transcript")]
        event = story.decide(MINISTER, moment, moment + timedelta(hours=1), evidence=both)
        story.correct(event, moment + timedelta(hours=3), how="amendment", title="Another title")


def corrections(story: Story) -> None:
    """DET-28: three corrections, an answer turned; two corrections, and an amended answer, are nothing."""
    for month in (2, 4, 6, 8, 10, 12):
        moment = at(story.day(month, 1, 15), 11)
        for count in (3, 2):
            event = story.decide(SECRETARY, moment, moment + timedelta(hours=1))
            last = event
            for number in range(count):
                last = story.correct(last, moment + timedelta(days=1 + number), title=f"Version {number + 2}")
            if count == 3:
                story.together("DET-28", [last], "corrections")
        for how, finds in (("correction", "DET-28=answer_turned"), ("amendment", "")):
            event = story.decide(SECRETARY, moment, moment + timedelta(hours=1), decision_answer="agreed")
            story.correct(event, moment + timedelta(hours=5), finds, how=how, decision_answer="not_agreed")


def unwitnessed(story: Story) -> None:
    """DET-29: witnessed a day and more after, or never; twenty hours are in time."""
    for month, hours, finds in ((2, 30, "DET-29"), (5, 20, ""), (8, 40, "DET-29")):
        moment = at(story.day(month, 16, 27), 10)
        story.decide(PERMANENT, moment, moment, finds, series="PS/outage", delay=hours * 3_600)
    last = at(date(YEAR, 12, 30), 10)
    never = [
        story.decide(PERMANENT, last, last + timedelta(minutes=number), series="PS/outage")
        for number in range(3)
    ]
    for event in never:
        event.witnessed = False
    story.together("DET-29", never, "never witnessed")


def silence(story: Story) -> None:
    """DET-30: an office that stops in spring; one that stops some days before the others do not."""
    for office, months, finds in (("chief-scientist", (1, 2, 4), "DET-30"), ("chief-whip", (3, 8), "")):
        for month in months:
            moment = at(story.day(month), 11)
            story.decide(office, moment, moment, finds if month == months[-1] else "")
    last = at(date(YEAR, 12, 18), 11)
    story.decide("chief-whip", last, last)


def amendments(story: Story) -> None:
    """DET-01: a late amendment; one in time is nothing, and a correction does not change when that was.

    DET-10: an award that names no stage, behind one that failed.
    """
    for month in (2, 6, 10):
        day = story.day(month, 1, 10)
        for wait, finds in ((8, "DET-01"), (3, "")):
            first = story.decide(MINISTER, at(day, 13), at(day, 14))
            # Decided anew a week later: long after the witnesses had the first version.
            anew = after(day, 5)
            amended = story.correct(
                first, at(after(anew, wait), 15), finds, how="amendment", decided_at=instant(at(anew, 13))
            )
            # The date had been a day off: that it was registered when it was stays as it is.
            day_before = instant(at(anew, 13) - timedelta(days=1)) if not finds else instant(at(anew, 12.9))
            again = "DET-01" if finds else ""
            story.correct(amended, at(after(anew, wait + 9), 16), again, decided_at=day_before)
        matter, moments = f"unnamed-{month}", [at(after(day, number), 9.5) for number in (1, 2, 3)]
        stage(story, matter, "strategic", moments[0])
        stage(story, matter, "outline", moments[1], "DET-10=fail", outcome="fail")
        story.decide(
            OFFICER,
            moments[2],
            moments[2] + timedelta(minutes=30),
            "DET-10=missing",
            decision_type="contract_award",
            matter_id=matter,
        )


if __name__ == "__main__":
    write(make_year(*map(int, sys.argv[2:])), Path(sys.argv[1]))

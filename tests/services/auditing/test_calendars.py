"""Calendars: their data and versions, and days that a file has otherwise."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from datetime import date, timedelta
from typing import Any

import pytest

from ledger.errors import MalformedError, RejectedError
from services.auditing.calendars import good_friday, packaged, parse_overrides, with_overrides
from services.auditing.working_days import Calendar, is_working_day, nth_working_day

ONE_OFF = date(2027, 5, 10)
BOXING_DAY = date(2028, 12, 26)


def overrides(**changes: Any) -> dict[str, Any]:
    stated = {
        "type": "daybook.calendar/1",
        "name": "one-off-2027",
        "calendar": "dept-ew",
        "dated": "2026-11-26",
        "basis": "A proclamation that is made up",
        "non_working": [{"date": "2027-05-10", "reason": "A day off for everybody"}],
        **changes,
    }
    return {name: value for name, value in stated.items() if value is not None}


def working(calendar: Calendar) -> list[date]:
    return [date.fromordinal(each) for each in calendar.days]


def test_both_calendars_know_the_years_of_their_data() -> None:
    """False if a year were there that one part's list leaves out."""
    for name in ("foi-uk", "dept-ew"):
        calendar = packaged(name)
        assert (calendar.first, calendar.last) == (date(2012, 1, 1), date(2028, 12, 31))
        assert calendar.name == name
        assert not any(each.weekday() >= 5 for each in working(calendar))


def test_a_version_names_the_package_and_the_days() -> None:
    """False if two lists of days could give results of one version."""
    for name in ("foi-uk", "dept-ew"):
        calendar = packaged(name)
        digest = hashlib.sha256("".join(f"{each}\n" for each in working(calendar)).encode()).hexdigest()
        assert calendar.version == f"{name} govuk-bank-holidays 0.19 2012-2028 sha256:{digest[:32]}"


def test_christmas_day_and_good_friday_are_no_working_days_for_foi() -> None:
    """False if they were missing wherever no list of bank holidays has them."""
    for year in range(2012, 2029):
        for each in (date(year, 12, 25), good_friday(year)):
            assert not is_working_day(packaged("foi-uk"), each)


@pytest.mark.parametrize(
    ("year", "month", "day"),
    [(2012, 4, 6), (2016, 3, 25), (2020, 4, 10), (2022, 4, 15), (2024, 3, 29), (2026, 4, 3)],
)
def test_good_friday_is_worked_out(year: int, month: int, day: int) -> None:
    """False if the computus were wrong. The days are those of the published lists."""
    assert good_friday(year) == date(year, month, day)


def test_nothing_is_fetched() -> None:
    """False if a result could depend on the network: not even what would fetch is loaded."""
    code = (
        "import sys, socket; socket.socket = None\n"
        "from services.auditing.calendars import packaged; packaged('foi-uk')\n"
        "assert 'requests' not in sys.modules and 'govuk_bank_holidays.bank_holidays' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_day_is_taken_out_and_put_back() -> None:
    """False if an override had no effect, or one on other days."""
    plain = packaged("dept-ew")
    added = with_overrides(plain, parse_overrides(overrides()))
    assert not is_working_day(added, ONE_OFF)
    assert set(working(plain)) - set(working(added)) == {ONE_OFF}
    moved = [{"date": "2028-12-26", "reason": "Boxing Day is moved"}]
    removed = with_overrides(plain, parse_overrides(overrides(non_working=None, working=moved)))
    assert set(working(removed)) - set(working(plain)) == {BOXING_DAY}
    assert nth_working_day(added, ONE_OFF - timedelta(3), 1) == ONE_OFF + timedelta(1)


def test_a_later_override_holds_over_an_earlier_one() -> None:
    """False if the order of publication did not count."""
    back = parse_overrides(overrides(non_working=None, working=overrides()["non_working"], name="back"))
    first = parse_overrides(overrides())
    assert is_working_day(with_overrides(packaged("dept-ew"), first, back), ONE_OFF)
    assert not is_working_day(with_overrides(packaged("dept-ew"), back, first), ONE_OFF)


def test_every_override_stands_in_the_version() -> None:
    """False if a result did not say which days it was worked out with."""
    plain = packaged("dept-ew")
    versions = {
        with_overrides(plain, parse_overrides(overrides(**change))).version
        for change in ({}, {"basis": "Another"}, {"dated": "2026-11-27"}, {"name": "another"})
    }
    assert len(versions) == 4
    assert all(each.startswith(f"{plain.version} + overrides ") for each in versions)
    assert any("one-off-2027 of 2026-11-26 sha256:" in each for each in versions)
    both = with_overrides(plain, *(parse_overrides(overrides(name=name)) for name in ("one", "two"))).version
    assert both.index(" + overrides one of ") < both.index(" + overrides two of ")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"type": "daybook.calendar/2"}, "type"),
    ({"calendar": "scotland"}, "calendar"),
    ({"dated": "2026-13-01"}, "dated"),
    ({"dated": "2026-W01-1"}, "dated"),
    ({"dated": None}, "dated"),
    ({"basis": None}, "basis"),
    ({"name": "Not a slug"}, "name"),
    ({"weekends": True}, "weekends"),
    ({"non_working": None}, "non_working"),
    ({"non_working": []}, "non_working"),
    ({"non_working": [{"date": "2027-05-10"}]}, "non_working[0].reason"),
    ({"non_working": [{"date": "2027-02-29", "reason": "x"}]}, "non_working[0].date"),
    ({"non_working": [{"date": "2027-05-08", "reason": "a Saturday"}]}, "non_working[0].date"),
    ({"working": [{"date": "2027-05-09", "reason": "a Sunday"}]}, "working[0].date"),
    ({"working": [{"date": "2027-05-10", "reason": "and not"}]}, "working[0].date"),
]


@pytest.mark.parametrize(("changes", "field"), WRONG, ids=str)
def test_what_is_wrong_with_overrides_is_named(changes: dict[str, Any], field: str) -> None:
    """False if a mistyped file passed, and deadlines moved or did not."""
    with pytest.raises(RejectedError) as refused:
        parse_overrides(overrides(**changes))
    assert field in [each.field for each in refused.value.violations]


def test_overrides_with_characters_that_no_record_may_have_are_refused() -> None:
    """False if what passes could not be published, or could steer a terminal."""
    with pytest.raises(MalformedError):
        parse_overrides(overrides(basis="\u202etxt.exe"))


def test_overrides_of_another_calendar_or_of_unknown_years_are_refused() -> None:
    """False if a file were taken that has no effect."""
    with pytest.raises(RejectedError, match="calendar"):
        with_overrides(packaged("foi-uk"), parse_overrides(overrides()))
    later = parse_overrides(overrides(non_working=[{"date": "2029-05-08", "reason": "x"}]))
    with pytest.raises(RejectedError, match="2012 to 2028"):
        with_overrides(packaged("dept-ew"), later)


def test_there_is_no_third_calendar() -> None:
    """False if a name without data gave some calendar."""
    with pytest.raises(RejectedError):
        packaged("england")

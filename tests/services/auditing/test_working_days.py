"""Working days on both calendars: the published test vectors, and what holds for every day."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auditing.calendars import packaged
from services.auditing.working_days import (
    Calendar,
    OutsideCalendarError,
    deadline_after,
    end_of_day,
    is_working_day,
    london_day,
    nth_working_day,
    working_days_between,
)
from tests.support.times import seconds

FOI = packaged("foi-uk")
DEPARTMENT = packaged("dept-ew")

TWENTIETH = [
    ("2020-06-25", "2020-07-24", "2020-07-23"),
    ("2020-12-10", "2021-01-13", "2021-01-12"),
    ("2021-07-06", "2021-08-05", "2021-08-03"),
    ("2021-12-20", "2022-01-21", "2022-01-20"),
    ("2022-06-20", "2022-07-19", "2022-07-18"),
    ("2022-09-01", "2022-09-30", "2022-09-30"),
    ("2024-12-16", "2025-01-17", "2025-01-16"),
    ("2026-03-02", "2026-03-31", "2026-03-30"),
    ("2026-07-01", "2026-07-30", "2026-07-29"),
    ("2026-11-20", "2026-12-21", "2026-12-18"),
]
"""Received, the 20th working day for FOI, and the one that the list of England and Wales alone would give."""

calendars = st.sampled_from(["foi-uk", "dept-ew"]).map(packaged)
days = st.dates(FOI.first, FOI.last)


def day(text: str) -> date:
    return date.fromisoformat(text)


@pytest.mark.parametrize(("received", "foi", "england_and_wales"), TWENTIETH)
def test_the_twentieth_working_day_is_that_of_the_table(
    received: str, foi: str, england_and_wales: str
) -> None:
    """False if a due date were a day early or late: the day after receipt is day 1."""
    assert nth_working_day(FOI, day(received), 20) == day(foi)
    assert nth_working_day(DEPARTMENT, day(received), 20) == day(england_and_wales)
    assert working_days_between(FOI, day(received), day(foi)) == 20


@pytest.mark.parametrize(
    ("decided", "n", "due"), [("2020-04-09", 1, "2020-04-14"), ("2022-04-13", 5, "2022-04-22")]
)
def test_easter_is_left_out(decided: str, n: int, due: str) -> None:
    """False if Good Friday or Easter Monday counted."""
    for calendar in (FOI, DEPARTMENT):
        assert nth_working_day(calendar, day(decided), n) == day(due)


def test_the_days_of_2026_that_only_foi_leaves_out_are_those_of_the_list() -> None:
    """False if a bank holiday of Scotland or Northern Ireland counted, or another day did not."""
    year = (date(2026, 1, 1) + timedelta(n) for n in range(365))
    differing = [each for each in year if is_working_day(FOI, each) != is_working_day(DEPARTMENT, each)]
    assert differing == [day(f"2026-{each}") for each in ("01-02", "03-17", "07-13", "08-03", "11-30")]
    assert all(is_working_day(DEPARTMENT, each) for each in differing)


@pytest.mark.parametrize("text", ["2020-05-08", "2022-06-02", "2022-06-03", "2022-09-19", "2023-05-08"])
def test_a_holiday_by_proclamation_is_no_working_day(text: str) -> None:
    """False if the days that were moved or added once were missing."""
    assert not is_working_day(FOI, day(text))
    assert not is_working_day(DEPARTMENT, day(text))


def test_the_moved_holiday_is_a_working_day() -> None:
    """False if the first Monday of May 2020 were left out, which had been moved to the Friday."""
    assert is_working_day(DEPARTMENT, day("2020-05-04"))


@given(calendars, days, st.integers(1, 300))
def test_to_count_to_the_nth_working_day_gives_n(calendar: Calendar, after: date, n: int) -> None:
    """False if the two functions counted differently."""
    try:
        nth = nth_working_day(calendar, after, n)
    except OutsideCalendarError:
        assert working_days_between(calendar, after, calendar.last) < n
        return
    assert is_working_day(calendar, nth)
    assert working_days_between(calendar, after, nth) == n
    assert working_days_between(calendar, after, nth - timedelta(1)) == n - 1


@given(days, days)
def test_to_count_is_to_ask_each_day(one: date, other: date) -> None:
    """False if counting skipped a day or counted one twice."""
    begin, end = min(one, other), min(max(one, other), min(one, other) + timedelta(400))
    between = (begin + timedelta(n) for n in range(1, (end - begin).days + 1))
    assert working_days_between(FOI, begin, end) == sum(is_working_day(FOI, each) for each in between)
    assert working_days_between(FOI, end, begin) == 0


@given(days)
def test_a_working_day_for_foi_is_one_in_england_and_wales(each: date) -> None:
    """False if the union left out a holiday of one of its parts."""
    assert not is_working_day(FOI, each) or is_working_day(DEPARTMENT, each)


def test_outside_the_data_nothing_is_guessed() -> None:
    """False if a year without a list of holidays were taken for one without holidays."""
    before, last = FOI.first - timedelta(1), FOI.last
    asks: tuple[Callable[[], object], ...] = (
        lambda: is_working_day(FOI, before),
        lambda: nth_working_day(FOI, last, 1),
        lambda: nth_working_day(FOI, before, 1),
        lambda: working_days_between(FOI, before, last),
        lambda: working_days_between(FOI, last, last + timedelta(1)),
        lambda: deadline_after(FOI, seconds("2029-01-05T12:00:00Z"), 1),
        lambda: london_day(1e20),
    )
    for asked in asks:
        with pytest.raises(OutsideCalendarError):
            asked()
    with pytest.raises(ValueError, match="number 0"):
        nth_working_day(FOI, day("2026-01-01"), 0)


def test_a_day_is_londons() -> None:
    """False if a decision late on a summer evening, or a deadline, fell on another day than in London."""
    assert london_day(seconds("2026-06-25T23:30:00Z")) == day("2026-06-26")
    assert london_day(seconds("2026-12-25T23:30:00Z")) == day("2026-12-25")
    assert end_of_day(day("2026-06-26")) == seconds("2026-06-26T22:59:59Z")
    assert end_of_day(day("2026-12-25")) == seconds("2026-12-25T23:59:59Z")
    # Friday in UTC, Saturday in London: the first working day is still Monday.
    assert deadline_after(DEPARTMENT, seconds("2026-06-26T23:30:00Z"), 1) == seconds("2026-06-29T22:59:59Z")

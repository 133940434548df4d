"""The plots of the report: counted from witnessed times, of bounded size, and the same in their tables."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from ledger.records import Decision, parse_record
from ledger.timeline import Bounds
from services.auditing.calendars import packaged
from services.auditing.lateness import Lateness, LatenessJudge
from services.auditing.profiles import shipped
from services.auditing.report.axes import Axis, fence, ticks, widened
from services.auditing.report.figures import LAGS, MAX_CELLS, Cell, Figures, Tally, Timing, lag_names
from services.auditing.report.lag_plot import histogram
from services.auditing.report.marks import MARKS
from services.auditing.report.timeline_plot import timeline
from services.auditing.report.timing_tables import MAX_ROWS, classes_table, lags_table, months_table
from tests.support.records import decision_bytes
from tests.support.times import seconds

JUDGE = LatenessJudge(shipped("daybook-strict"), packaged("dept-ew"))

DAY = 86_400


def judged(decided: str, before: str | int | None, after: str | int | None, **changes: Any) -> Lateness:
    record = parse_record(decision_bytes(decided_at=decided, captured_at=decided, **changes))
    assert isinstance(record, Decision)
    bounds = Bounds(_seconds(before), _seconds(after), comparable=True)
    return JUDGE.judge(record, 0.0, bounds)


def _seconds(at: str | int | None) -> int | None:
    return seconds(at) if isinstance(at, str) else at


def counted(*of: Lateness) -> Figures:
    tally = Tally()
    for each in of:
        tally.add("department/office", each)
    return tally.figures()


# Decided on Thursday 25 June 2026; the fifth working day after it is Thursday 2 July.
SEVEN = {
    Timing.IN_TIME: judged("2026-06-25", "2026-06-25T10:00:00Z", "2026-06-26T10:00:00Z"),
    Timing.LATE: judged("2026-06-25", "2026-07-06T10:00:00Z", "2026-07-06T11:00:00Z"),
    Timing.LATE_EXPLAINED: judged(
        "2026-06-25", "2026-07-06T10:00:00Z", "2026-07-06T11:00:00Z", late_reason="oversight"
    ),
    Timing.EXEMPT: judged(
        "2026-06-25", "2026-07-06T10:00:00Z", "2026-07-06T11:00:00Z", late_reason="migration_of_legacy"
    ),
    Timing.UNDETERMINED: judged("2026-06-25", "2026-06-25T10:00:00Z", "2026-07-06T11:00:00Z"),
    Timing.IMPOSSIBLE: judged("2026-06-25", "2026-06-23T10:00:00Z", "2026-06-24T10:00:00Z"),
}


@pytest.mark.parametrize("timing", SEVEN)
def test_each_class_is_counted_and_drawn_as_itself(timing: Timing) -> None:
    """False if a late decision were drawn as one in time, or two classes had one mark."""
    figures = counted(SEVEN[timing])
    assert figures.totals == {timing: 1}
    assert [each.timing for each in figures.cells] == [timing]
    drawn = str(timeline(figures))
    assert f"{MARKS[timing].name}: {timing.value}" in drawn
    assert drawn.count(MARKS[timing].colour) == 2
    assert len({(mark.name, mark.filled) for mark in MARKS.values()}) == len(MARKS) == len(Timing)


def test_lags_are_working_days_to_each_witnessed_moment() -> None:
    """False if weekends counted, or what is known at least were shown as known exactly.

    From Thursday 25 June to Monday 6 July there are seven working days, to Friday 26 June there is one.
    """
    figures = counted(SEVEN[Timing.LATE], SEVEN[Timing.UNDETERMINED], judged("2026-06-25", None, None))
    assert figures.at_least == {LAGS.index(6): 1, 0: 1, None: 1}
    assert figures.at_most == {LAGS.index(6): 2, None: 1}
    rows = re.findall(r'scope="row">([^<]*)</th><td[^>]*>([^<]*)</td><td[^>]*>([^<]*)<', lags_table(figures))
    assert {name: counts for name, *counts in rows}["6 to 10"] == ["1", "2"]
    assert rows[-1] == ("not proved by the witnesses", "1", "1")
    assert lag_names() == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6 to 10",
        "11 to 20",
        "21 to 60",
        "61 to 250",
        "251 or more",
    ]


def test_the_higher_the_later_and_the_dashed_line_is_the_same_day() -> None:
    """False if the plot showed a late decision below one in time, or an impossible one above the line."""
    across, up = Axis(100, 200, 0, 300), Axis(100, 200, 300, 0)
    assert (across.at(100), across.at(150), across.at(200), across.at(999)) == (0, 150, 300, 300)
    assert up.at(150) > up.at(160)
    figures = counted(*SEVEN.values())
    drawn = str(timeline(figures))
    line = re.search(r'<path d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)" class="same-day"', drawn)
    assert line is not None
    x1, y1, x2, y2 = map(float, line.groups())

    def above(timing: Timing) -> float:
        """Return how far the mark of a class stands above the line."""
        mark = MARKS[timing]
        fill = mark.colour if mark.filled else "none"
        path = re.search(
            rf'<path d="M([\d.]+) ([\d.]+)[^"]*" fill="{fill}" stroke="(?:#ffffff|{mark.colour})"', drawn
        )
        assert path is not None
        x, y = map(float, path.groups())
        return y1 + (y2 - y1) * (x - x1) / (x2 - x1) - y

    assert above(Timing.LATE) > above(Timing.IN_TIME) > 0 > above(Timing.IMPOSSIBLE)


def test_a_million_decisions_make_no_larger_plot() -> None:
    """False if marks, months or memory grew with the ledger; or if a decision were lost in the counting."""
    pick = random.Random(5)
    tally, days = Tally(), range(date(1950, 1, 1).toordinal(), date(2026, 6, 1).toordinal())
    samples = [judged(date.fromordinal(pick.choice(days)).isoformat(), *window(pick)) for _ in range(20_000)]
    for sample in samples:
        tally.add(f"department/office-{pick.randrange(300)}", sample)
    figures = tally.figures()
    assert len(figures.cells) <= MAX_CELLS
    assert figures.span > 1
    assert sum(each.count for each in figures.cells) + figures.unplaced == 20_000 == figures.decisions
    assert sum(figures.at_least.values()) == sum(figures.at_most.values()) == 20_000
    drawn = timeline(figures)
    assert len(drawn) < 600_000
    assert f"the same {figures.span} days" in drawn
    assert str(months_table(figures)).count("<tr>") <= MAX_ROWS + 2
    again = Tally()
    for sample in reversed(samples):
        again.add("department/office", sample)
    assert again.figures().cells == figures.cells


def window(pick: random.Random) -> tuple[int | None, int | None]:
    at = pick.randrange(seconds("2020-01-01T00:00:00Z"), seconds("2026-07-01T00:00:00Z"))
    return at, None if pick.random() < 0.05 else at + pick.randrange(DAY)


@pytest.mark.parametrize("decided", ["1950-10-14", "9999-12-31", "1900", "2999"])
def test_a_date_that_cannot_be_presses_no_others_together(decided: str) -> None:
    """False if one record dated 1900 made the plot of all others a dot, or were left out of it unsaid."""
    year = [
        judged(
            date.fromordinal(date(2025, 7, 1).toordinal() + n).isoformat(),
            n * DAY + 1_751_400_000,
            n * DAY + 1_751_400_100,
        )
        for n in range(300)
    ]
    drawn = str(timeline(counted(*year, judged(decided, "2026-05-01T10:00:00Z", "2026-05-01T11:00:00Z"))))
    assert "edge: 1 decision dated" in drawn
    labels = re.findall(r">(?:\w{3} )?(\d{4})</text>", drawn)
    assert set(labels) <= {"2024", "2025", "2026", "2027"}


def test_what_is_rare_does_not_cover_what_is_frequent() -> None:
    """False if one late decision looked like a thousand in time, where marks stand for many."""
    radii = {count: _radius(count) for count in (1, 10, 100, 1_000, 10_000)}
    assert list(radii.values()) == sorted(set(radii.values()))
    assert radii[1_000] / radii[1] >= 4


def _radius(count: int) -> float:
    """Return the radius of a circle for so many decisions, in a plot of spans of days."""
    cell = Cell(date(2026, 6, 25).toordinal(), date(2026, 6, 26).toordinal(), Timing.IN_TIME, count)
    drawn = str(timeline(replace(counted(), cells=(cell,), span=8)))
    circle = re.search(r'<path d="M[\d.]+ [\d.]+a([\d.]+) ', drawn)
    assert circle is not None
    return float(circle[1])


def test_the_years_at_the_edges_say_that_they_count_what_is_beyond() -> None:
    """False if a decision dated 1955 were listed as one of 1990."""
    table = str(months_table(counted(judged("1955-02-03", None, None), SEVEN[Timing.LATE])))
    assert "January 1990 or before" in table
    assert "June 2026<" in table


def test_times_that_no_calendar_has_are_counted() -> None:
    """False if a witness's absurd clock ended the report with a traceback."""
    figures = counted(judged("2026-06-25", 1 << 62, 1 << 62), judged("2026-06-25", 0, 0))
    assert figures.decisions == 2
    assert "svg" in timeline(figures)
    assert "svg" in histogram(figures) or "nothing to draw" in histogram(figures)


def test_nothing_is_drawn_of_what_no_witness_has_seen() -> None:
    """False if the ledger's own clock stood in for the witnesses'."""
    figures = counted(judged("2026-06-25", None, None))
    assert "svg" not in timeline(figures)
    assert "svg" not in histogram(figures)
    assert "Not decided by the witnesses" in classes_table(figures)
    drawn = timeline(counted(judged("2026-06-25", None, None), SEVEN[Timing.LATE]))
    assert "Not drawn: 1 decision that no quorum" in drawn


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (1, 1),
        (739_000, 739_000),
        (739_000, 739_062),
        (739_000, 739_063),
        (738_000, 739_500),
        (726_468, 767_009),
    ],
)
def test_an_axis_marks_at_most_eight_days(first: int, last: int) -> None:
    """False if labels ran into each other, or an axis had none."""
    shown = widened(first, last)
    assert shown[0] <= max(first, 1) <= last <= shown[1]
    marked = ticks(*shown)
    assert 1 <= len(marked) <= 9
    assert all(shown[0] <= each.day <= shown[1] for each in marked)


def test_what_is_far_from_all_others_is_beyond_the_fence() -> None:
    """False if few days were cut off without need, or one far off were kept."""
    assert fence([(739_000, 1)]) == (739_000, 739_000)
    assert fence([(739_000, 1), (739_400, 1)]) == (739_000, 739_400)
    ten = [(day, 5) for day in range(739_000, 739_010)]
    assert fence([*ten, (739_300, 1)]) == (739_000, 739_300)
    assert fence([*ten, (739_600, 1), (700_000, 1)]) == (739_000, 739_009)

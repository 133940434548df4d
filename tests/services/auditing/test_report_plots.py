"""The plots of the report: counted from witnessed times, of bounded size, and the same in their tables."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from datetime import date
from itertools import combinations
from typing import Any

import msgspec
import pytest

from ledger.records import Decision, parse_record
from ledger.timeline import Bounds
from services.auditing.after_returns import AfterReturn, AfterReturnKind
from services.auditing.calendars import packaged
from services.auditing.lateness import Lateness, LatenessJudge
from services.auditing.profiles import shipped
from services.auditing.report.axes import Axis, ticks, widened, within
from services.auditing.report.figures import (
    LAGS,
    MAX_CELLS,
    Cell,
    Figures,
    PackedTally,
    Tally,
    Timing,
    lag_names,
)
from services.auditing.report.lag_plot import histogram
from services.auditing.report.marks import AFTER_RETURN, MARKS
from services.auditing.report.timeline_plot import timeline
from services.auditing.report.timing_tables import (
    MAX_ROWS,
    after_returns_table,
    classes_table,
    in_a_sentence,
    lags_table,
    months_table,
)
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


@pytest.mark.parametrize("timing", SEVEN)
@pytest.mark.parametrize("kind", AfterReturnKind)
def test_after_a_return_is_a_class_beside_the_one_in_time(timing: Timing, kind: AfterReturnKind) -> None:
    """False if a decision behind a return were not to be seen, or were taken out of its class in time."""
    behind = replace(SEVEN[timing], after_return=AfterReturn(kind, 3))
    assert "return at entry 3" in behind.sentence
    assert (behind.inputs["after_return"], behind.inputs["return"]) == (kind.value, "3")
    figures = counted(behind, SEVEN[timing])
    assert figures.totals == {timing: 2}
    assert figures.after_returns == {kind: 1}
    assert [(each.count, each.after_return) for each in figures.cells] == [(2, 1)]
    drawn = str(timeline(figures))
    assert drawn.count(AFTER_RETURN.colour) == 2
    assert drawn.count(MARKS[timing].colour) == 2
    assert AFTER_RETURN.colour not in {mark.colour for mark in MARKS.values()}
    row = f"{kind.value[:1].upper()}{kind.value[1:]}</th>"
    assert f"{row}<td" in after_returns_table(figures)
    assert ">1<" in after_returns_table(figures)
    assert "1 of them was added or changed after a return that should have counted it." in in_a_sentence(
        figures
    )
    assert "Added or changed after a return" in months_table(figures)


def test_what_is_not_after_a_return_is_not_marked() -> None:
    """False if every decision looked as if it had come behind a return."""
    figures = counted(*SEVEN.values())
    assert figures.after_returns == {}
    for part in (timeline(figures), histogram(figures), lags_table(figures), months_table(figures)):
        assert "after-return" not in part
        assert "after a return" not in part
    assert str(after_returns_table(figures)).count(">0<") == 3


def test_the_histogram_shows_how_many_of_a_bar_came_after_a_return() -> None:
    """False if the hollow part were higher or lower than its share, or stood in another bar."""
    late = SEVEN[Timing.LATE]
    behind = replace(late, after_return=AfterReturn(AfterReturnKind.ADDED, 3))
    figures = counted(late, late, late, behind, SEVEN[Timing.IN_TIME])
    bars = re.findall(
        r'<rect x="([^"]*)" y="([^"]*)" width="[^"]*" height="([^"]*)" class="([^"]*)"', histogram(figures)
    )
    (hollow,) = [each for each in bars if "after-return" in each[3]]
    (whole,) = [each for each in bars if each[0] == hollow[0] and each is not hollow]
    assert float(hollow[2]) == pytest.approx(float(whole[2]) / 4, abs=0.1)
    assert float(hollow[1]) + float(hollow[2]) == pytest.approx(float(whole[1]) + float(whole[2]), abs=0.1)
    rows = re.findall(r'scope="row">([^<]*)</th>(.*?)</tr>', lags_table(figures))
    assert re.findall(r">(\d+)<", dict(rows)["6 to 10"]) == ["4", "4", "1"]


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
    behind = AfterReturn(AfterReturnKind.ADDED, 3)
    samples = [*(replace(each, after_return=behind) for each in samples[:2_000]), *samples[2_000:]]
    for sample in samples:
        tally.add(f"department/office-{pick.randrange(300)}", sample)
    figures = tally.figures()
    assert len(figures.cells) <= MAX_CELLS
    assert figures.span > 1
    assert sum(each.after_return for each in figures.cells) <= sum(figures.after_returns.values())
    assert figures.after_returns == {AfterReturnKind.ADDED: 2_000}
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


def test_it_does_not_matter_how_counting_is_divided() -> None:
    """False if a tally that was put together from parts differed from one that took every decision."""
    pick = random.Random(3)
    days = range(date(1990, 1, 1).toordinal(), date(2026, 6, 1).toordinal())
    samples = []
    for _ in range(4_000):
        behind = AfterReturn(pick.choice(list(AfterReturnKind)), 1) if pick.random() < 0.1 else None
        one = judged(date.fromordinal(pick.choice(days)).isoformat(), *window(pick))
        samples.append((f"department/office-{pick.randrange(3)}", replace(one, after_return=behind)))
    whole, together = Tally(), Tally()
    decoder = msgspec.msgpack.Decoder(PackedTally)
    for begin in range(0, len(samples), 97):
        part = Tally()
        for register, each in samples[begin : begin + 97]:
            part.add(register, each)
            whole.add(register, each)
        together.merge(decoder.decode(msgspec.msgpack.encode(part.packed())))
    assert together.figures() == whole.figures()
    assert whole.figures().span > 1


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


def test_an_axis_shows_all_days_that_can_be() -> None:
    """False if few days were cut off, or one that cannot be were kept; or if there were an axis of none."""
    assert within([3, 999, 7], 1, 10) == (3, 7)
    assert within([999], 1, 10) is None


def test_an_axis_hardly_runs_into_days_to_come() -> None:
    """False if half of an axis were of days on which nothing can have been registered yet."""
    assert widened(739_000, 739_000) == (738_987, 739_001)
    assert widened(739_000, 739_800) == (738_980, 739_810)


# Many decisions of 2020, brought in on one day of November 2026, and six of that month.

OLD = [
    judged(
        date.fromordinal(date(2020, 3, 1).toordinal() + n).isoformat(),
        "2026-11-26T10:00:00Z",
        "2026-11-26T10:01:00Z",
        late_reason="migration_of_legacy",
    )
    for n in range(200)
]
RECENT = [
    judged(f"2026-11-{day:02}", "2026-11-26T10:00:00Z", "2026-11-26T10:01:00Z") for day in (2, 3, 4, 24, 25, 26)
]


def test_decisions_of_this_month_are_not_at_the_edge_of_those_of_years_ago() -> None:
    """False if the few that can be acted on were put where no day is, since there are so few of them."""
    figures = counted(*OLD, *RECENT)
    assert figures.totals == {Timing.EXEMPT: 200, Timing.LATE: 3, Timing.IN_TIME: 3}
    drawn = str(timeline(figures))
    assert "edge" not in drawn.partition("<figcaption>")[2]
    late, in_time = places(drawn, Timing.LATE), places(drawn, Timing.IN_TIME)
    assert (len(late), len(in_time)) == (3, 3)
    assert all(x < 744 for x, _ in (*late, *in_time))
    # None covers another: three units are half a mark.
    assert all(abs(x - a) + abs(y - b) >= 3 for x, y in late for a, b in in_time)
    assert drawn.index(MARKS[Timing.LATE].colour) > drawn.index(MARKS[Timing.IN_TIME].colour)


def test_marks_of_different_classes_do_not_cover_each_other() -> None:
    """False if three classes of one day, registered on one day, looked like one."""
    crowd = [*OLD, *RECENT, judged("2026-11-30", "2026-11-26T10:00:00Z", "2026-11-26T10:01:00Z")]
    drawn = str(timeline(counted(*crowd)))
    recent = [places(drawn, each) for each in (Timing.LATE, Timing.IN_TIME, Timing.IMPOSSIBLE)]
    late, in_time, impossible = (sum(y for _, y in points) / len(points) for points in recent)
    assert late + 5 < in_time < impossible - 5
    drawn = str(timeline(counted(*SEVEN.values())))
    at_once = [Timing.LATE, Timing.LATE_EXPLAINED, Timing.EXEMPT, Timing.UNDETERMINED]
    points = [point for timing in at_once for point in places(drawn, timing)]
    assert all(abs(x - a) + abs(y - b) >= 3 for (x, y), (a, b) in combinations(points, 2))


def places(drawn: str, timing: Timing) -> list[tuple[float, float]]:
    """Return where the marks of a class stand, by their first points."""
    mark = MARKS[timing]
    fill = mark.colour if mark.filled else "none"
    stroke = "#ffffff" if mark.filled else mark.colour
    path = re.search(rf'<path d="([^"]*)" fill="{fill}" stroke="{stroke}"', drawn.partition("<ul")[0])
    assert path is not None
    return [(float(x), float(y)) for x, y in re.findall(r"M([\d.-]+) ([\d.-]+)", path[1])]


def test_the_dashed_line_is_spoken_of_where_it_is_drawn() -> None:
    """False if a reader were sent to look for a line that is not in the picture."""
    with_line, without = str(timeline(counted(*SEVEN.values()))), str(timeline(counted(*OLD, *RECENT)))
    for drawn, has_line in ((with_line, True), (without, False), (str(timeline(counted(*OLD))), False)):
        assert ('class="same-day"' in drawn) is has_line
        assert drawn.count("dashed line") == (2 if has_line else 0)
    assert "The higher and the further to the left a mark stands, the later" in without


def test_late_marks_are_drawn_over_those_in_time() -> None:
    """False if a reader could not see what the report is for."""
    assert list(MARKS).index(Timing.IN_TIME) < list(MARKS).index(Timing.LATE_EXPLAINED)
    assert list(MARKS)[-2:] == [Timing.LATE, Timing.IMPOSSIBLE]
    drawn = str(timeline(counted(*reversed(list(SEVEN.values()))))).partition("<ul")[0]
    shown = [
        drawn.index(f'"{MARKS[each].colour}"') for each in (Timing.IN_TIME, Timing.LATE, Timing.IMPOSSIBLE)
    ]
    assert shown == sorted(shown)


@pytest.mark.parametrize("decided", ["1995-06-01", "2027-08-01"])
def test_one_late_or_impossible_decision_years_away_has_its_place(decided: str) -> None:
    """False if the gravest were left at the edge since it is far from all others."""
    figures = counted(*RECENT, judged(decided, "2026-11-26T10:00:00Z", "2026-11-26T10:01:00Z"))
    assert "edge:" not in str(timeline(figures))


def test_what_stands_at_the_edge_is_told_by_its_class() -> None:
    """False if somebody could not see that what is beyond is late, or cannot be."""
    early = judged("1900", "2026-11-26T10:00:00Z", "2026-11-26T10:01:00Z")
    drawn = str(timeline(counted(*RECENT, early, judged("9999-12-31", None, "2026-11-26T10:01:00Z"))))
    assert (
        "At the left edge: 1 decision dated before 1 November 2026 (1 provably late, not explained)." in drawn
    )
    assert "(1 impossible: dated after the witnesses had it)." in drawn

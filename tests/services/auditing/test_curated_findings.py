"""The detections on the real published decisions: what docs and the data set say must be found, and no more.

The rows, days and clusters here were read from the table of award notices and events by hand. The records are
registered on a Tuesday in July 2026, in the order of the table, each witnessed before the next one came in.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ledger import canonical
from ledger.own_records import record_digest
from ledger.records import parse_record
from ledger.timeline import Bounds
from services.auditing.calendars import packaged
from services.auditing.detecting import Detector
from services.auditing.facts import Fact
from services.auditing.found import Found, Severity
from services.auditing.profiles import shipped
from services.demo import curated

REGISTERED = 1_783_422_000
"""2026-07-07 11:00 UTC."""

# Days from the award to first publication: the table's "lag days", but for the rows below it.
# fmt: off
LAGS = {
    "R01": 74, "R02": 74, "R03": 68, "R04": 99, "R05": 87, "R06": 140, "R07": 57, "R08": 135, "R09": 256,
    "R10": 91, "R12": 151, "R13": 54, "R14": 105, "R15": 162, "R16": 57, "R17": 39, "R19": 234, "R20": 58,
    "R21": 127, "R23": 175, "R24": 88,
    # The table counts from the first of four days, Good Friday; from the last, 13 April, there are three fewer.
    "R11": 158,
}
# fmt: on


@pytest.fixture(scope="module")
def found() -> list[Found]:
    return found_in(by_register(60))


def found_in(registers: dict[str, list[Fact]]) -> list[Found]:
    with Detector(None, shipped("daybook-strict"), packaged("dept-ew")) as detector:
        for facts in registers.values():
            detector.observe(facts)
        return list(detector.found())


def by_register(apart: int) -> dict[str, list[Fact]]:
    """Return the facts of each register, its entries witnessed so many seconds apart."""
    facts: dict[str, list[Fact]] = {}
    for _, register, members in curated.registered():
        mine = facts.setdefault(register, [])
        data = canonical.format(members)
        record = parse_record(data)
        digest = bytes.fromhex(record_digest(data))
        at = REGISTERED + apart * len(mine)
        bounds = Bounds(at - 10, at + 10, comparable=True)
        mine.append(
            Fact(register, len(mine), record, record.type, digest, REGISTERED, "anonymous", None, 0, 9, bounds)
        )
    return facts


ROWS = {
    (register, index): row
    for register in {item.register for item in curated.registered()}
    for index, row in enumerate(item.row for item in curated.registered() if item.register == register)
}


def rows(found: Iterable[Found], detection: str, **inputs: str) -> list[set[str]]:
    """Return the rows that each finding of a detection with these inputs is about."""
    return [
        {ROWS[each.register, index] for index in each.indices}
        for each in found
        if each.detection == detection and inputs.items() <= each.inputs.items()
    ]


def together(found: Iterable[Found], detection: str, **inputs: str) -> set[str]:
    return set().union(*rows(found, detection, **inputs))


def test_the_publication_burst_of_september_2020_is_found(found: list[Found]) -> None:
    """Five notices of one day, at 14:30 and from 15:39 to 15:44. Nothing else came out so close together."""
    assert rows(found, "DET-20", what="first publications") == [{"R01", "R02", "R05", "R10", "R24"}]


def test_the_mass_update_of_5_october_2020_is_found(found: list[Found]) -> None:
    """Seven rows of the table have a release that day, from 12:35 to 14:42."""
    updates = rows(found, "DET-20", what="updates of what was published")
    assert updates == [{"R01", "R02", "R04", "R05", "R10", "R15", "R24"}]


def test_every_publication_after_30_days_is_found_with_its_days(found: list[Found]) -> None:
    """The rule asks for 30 days, and the rows say how many there were."""
    late = [each for each in found if each.detection == "DET-14" and each.inputs["certain"] == "yes"]
    assert {ROWS[each.register, each.indices[0]]: int(each.inputs["days_at_least"]) for each in late} == LAGS


def test_a_span_of_dates_leaves_lateness_open_and_is_said_to(found: list[Found]) -> None:
    """R18 has 30 March to 30 April, published on 18 May: 49 days after the first, 18 after the last."""
    (each,) = [one for one in found if one.detection == "DET-14" and one.inputs["certain"] == "no"]
    assert ROWS[each.register, each.indices[0]] == "R18"
    assert (each.inputs["days_at_least"], each.inputs["days_at_most"]) == ("18", "49")
    assert each.severity is Severity.LOW


def test_an_award_that_was_published_in_time_is_not_late(found: list[Found]) -> None:
    """R22 was awarded on 7 October and published on the 20th; its period began half a year before."""
    assert "R22" not in together(found, "DET-14")


def test_the_retrospective_contracts_are_found(found: list[Found]) -> None:
    """R19, R20, R22, E21 and E22 begin before their award: by 26, 105, 183, 129 and 94 days."""
    days = {
        ROWS[each.register, each.indices[0]]: (int(each.inputs["days"]), each.severity)
        for each in found
        if each.detection == "DET-13"
    }
    assert days == {
        "R19": (26, Severity.MEDIUM),
        "R20": (105, Severity.HIGH),
        "R22": (183, Severity.HIGH),
        "E21": (129, Severity.HIGH),
        "E22": (94, Severity.HIGH),
    }


def test_awards_decided_after_the_start_are_found(found: list[Found]) -> None:
    """The three notices that state a start before the award."""
    assert together(found, "DET-12") == {"R19", "R20", "R22"}


def test_the_contract_under_two_identifiers_is_found(found: list[Found]) -> None:
    """R04 looks like R03 again: one supplier, trading under a name, one value, one day."""
    assert rows(found, "DET-16") == [{"R03", "R04"}]


def test_notices_that_changed_twice_and_more_are_found(found: list[Found]) -> None:
    """Those with at least two later releases in the table."""
    assert together(found, "DET-15") == {"R12", "R14", "R16", "R18", "R21"}


def test_decisions_on_bank_holidays_are_found(found: list[Found]) -> None:
    """R07 and R12 on 25 May, R11 from Good Friday to Easter Monday; R09 on a Saturday."""
    assert together(found, "DET-21", what="decided") == {"R07", "R09", "R11", "R12"}


def test_publications_on_days_off_are_found(found: list[Found]) -> None:
    """R08 came out on a Sunday, the direction of E12 on the Saturday of Easter."""
    assert together(found, "DET-21", what="published") == {"R08", "E12"}


def test_what_was_brought_in_years_later_is_listed_and_not_held_late(found: list[Found]) -> None:
    """All 29 are marked as migrated. The direction of E12 had one working day: to Thursday 14 April 2022."""
    late = [each for each in found if each.detection == "DET-01"]
    assert {ROWS[each.register, index] for each in late for index in each.indices} == set(ROWS.values())
    assert {each.severity for each in late} == {Severity.INFO}
    (direction,) = [each for each in late if ROWS[each.register, each.indices[0]] == "E12"]
    assert direction.inputs["deadline"] == "2022-04-14T22:59:59Z"


def test_an_order_that_is_turned_in_a_migrated_series_is_noted_for_information(found: list[Found]) -> None:
    """Each row that is dated before the latest one above it; a span of dates counts with its last day."""
    inverted = {ROWS[each.register, max(each.indices)] for each in found if each.detection == "DET-03"}
    # R01 and R02 are of 25 June, which nothing passes before R20, awarded in December.
    assert inverted == {f"R{number:02}" for number in (*range(3, 20), 21, 22, 23, 24)}
    assert {each.severity for each in found if each.detection == "DET-03"} == {Severity.INFO}


def test_what_came_in_at_once_has_no_order(found: list[Found]) -> None:
    """No witness saw one without the other; what each row says of itself is the same."""
    at_once = found_in(by_register(0))
    assert not [each for each in at_once if each.detection == "DET-03"]
    assert {each.detection for each in at_once} == {each.detection for each in found} - {"DET-03"}


def test_nothing_else_is_found(found: list[Found]) -> None:
    """No record names a non-corporate channel, has evidence, stages, returns or a gap; all came in one hour."""
    expected = {"DET-01", "DET-03", "DET-12", "DET-13", "DET-14", "DET-15", "DET-16", "DET-20", "DET-21"}
    assert {each.detection for each in found} == expected
    assert all("registrations" not in each.inputs["what"] for each in found if each.detection == "DET-20")

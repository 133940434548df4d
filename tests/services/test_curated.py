"""The curated data says what was published, and nothing more."""

from __future__ import annotations

import csv
import json
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ledger import canonical
from ledger.records import parse_record
from ledger.values import partial
from services.demo import curated

DATA = Path(curated.__file__).parent / "data"
NOTICES = [f"R{number:02}" for number in range(1, 25)]
EVENTS = ["E01", "E12", "E13", "E21", "E22"]
PEOPLE = ("bethell", "paterson", "hancock", "javid", "lopez", "clegg", "khan", "lord ", "sir ")
DHSC = "department-of-health-and-social-care"
REGISTERS = {
    "E01": f"{DHSC}/parliamentary-under-secretary-of-state",
    "E12": "home-office/home-secretary",
    "E13": "department-for-business-energy-and-industrial-strategy/secretary-of-state",
    "E21": f"{DHSC}/accounting-officer",
    "E22": "cabinet-office/accounting-officer",
}
RECORDS = {item.row: item.record for item in curated.registered()}


def rows(file: str) -> list[dict[str, str]]:
    with (DATA / file).open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text, strict=True))


NOTICE_ROWS = {row["row"]: row for row in rows("award_notices.csv")}


def both_readings(stamp: str) -> str:
    """A stamp without time zone as the partial date that holds it as UTC and as London time."""
    if len(stamp) == len("2020-11-24"):
        return stamp
    utc = datetime.fromisoformat(stamp).replace(tzinfo=UTC)
    london = datetime.fromisoformat(stamp).replace(tzinfo=ZoneInfo("Europe/London")).astimezone(UTC)
    spelled = [f"{moment:%Y-%m-%dT%H:%MZ}" for moment in sorted({london, utc})]
    return "/".join(spelled)


def test_exactly_the_24_notices_and_five_events_become_records() -> None:
    """False if a row that the data's rules leave out is registered, or one is forgotten."""
    assert [item.row for item in curated.registered()] == NOTICES + EVENTS


def test_every_other_row_is_context_with_a_reason() -> None:
    """False if a row is neither registered nor explained."""
    context = curated.context()
    assert all(item.description and item.reason for item in context)
    assert len(context) == 28
    told = [item.row for item in context]
    assert {"R25", "R26"} < set(told)
    assert sorted(told + EVENTS) == sorted(row["row"] for row in rows("events.csv"))


@pytest.mark.parametrize("row", NOTICES + EVENTS)
def test_a_record_is_canonical_and_accepted(row: str) -> None:
    """False if the ledger would refuse a record of the demonstration."""
    data = canonical.format(RECORDS[row])
    assert canonical.parse(data) == RECORDS[row]
    parse_record(data)


@pytest.mark.parametrize("row", NOTICES + EVENTS)
def test_a_record_makes_only_the_claims_that_all_share(row: str) -> None:
    """False if a record invents a channel, a device, a marking or a maker, or hides that it is late."""
    record = RECORDS[row]
    assert record["type"] == "decision.registered/1"
    assert record["version"] == 1
    assert record["channel"] == "unknown"
    assert record["device"] == "unknown"
    assert record["capture_method"] == "retrospective_reconstruction"
    assert record["late_reason"] == "migration_of_legacy"
    assert record["classification"] == {"tier": "OFFICIAL", "sensitive": False}
    assert record["record_state"] == ("missing_known" if row == "E01" else "present")
    assert "neither made nor signed" in record["late_explanation"]
    series = "curated-award-notices" if row in NOTICES else "curated-events"
    assert record["reference"] == {"series": series, "number": int(row[1:])}
    assert "evidence" not in record
    assert "channel_justification" not in record
    assert "decision_answer" not in record


@pytest.mark.parametrize("row", [*NOTICES, "E21", "E22"])
def test_an_award_implies_no_minister(row: str) -> None:
    """False if an award notice's record says who decided, which the notice does not."""
    record = RECORDS[row]
    assert record["register"] == REGISTERS.get(row, f"{DHSC}/accounting-officer")
    assert record["decision_maker"] == {
        "office": "accounting-officer",
        "role": "accounting_officer_or_delegate",
    }
    assert record["decision_type"] == "contract_award"
    assert "participants" not in record


@pytest.mark.parametrize(
    ("row", "decision_type", "role"),
    [
        ("E01", "meeting_outcome", "parliamentary_under_secretary_of_state"),
        ("E12", "ministerial_direction", "secretary_of_state"),
        ("E13", "ministerial_direction", "secretary_of_state"),
    ],
)
def test_an_event_goes_to_the_register_of_the_office_its_row_names(
    row: str, decision_type: str, role: str
) -> None:
    """False if a direction or a call is put on somebody else's register."""
    record = RECORDS[row]
    assert record["register"] == REGISTERS[row]
    assert record["decision_type"] == decision_type
    assert record["decision_maker"]["role"] == role
    assert record["register"].endswith("/" + record["decision_maker"]["office"])


@pytest.mark.parametrize("row", NOTICES + EVENTS)
def test_no_record_names_a_natural_person(row: str) -> None:
    """False if a name from the sources reached a record, where it could never be erased."""
    data = canonical.format(RECORDS[row]).decode().lower()
    assert [name for name in PEOPLE if name in data] == []
    assert all("name" not in participant for participant in RECORDS[row].get("participants", []))


@pytest.mark.parametrize("row", ["R01", "R09"])
def test_an_inferred_supplier_is_not_registered(row: str) -> None:
    """False if a guess by value and date became a signed statement about a company."""
    data = canonical.format(RECORDS[row]).decode()
    assert "supplier" not in data
    assert "Medpro" not in data
    assert "Purple" not in data
    assert "PSIIR" not in data


@pytest.mark.parametrize("row", NOTICES)
def test_suppliers_are_those_of_the_cell(row: str) -> None:
    """False if a supplier was typed that the collected cell does not name."""
    cell, supplier = NOTICE_ROWS[row]["supplier_and_goods_as_stated"], NOTICE_ROWS[row]["supplier"]
    assert supplier.removesuffix(" Ltd") in cell
    assert RECORDS[row]["procurement"].get("supplier") == ({"name": supplier} if supplier else None)
    assert NOTICE_ROWS[row]["goods"] in cell


def test_rows_that_nobody_has_checked_are_in_no_file() -> None:
    """False if a row known only from general knowledge reached the repository."""
    for file in DATA.iterdir():
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"\bE(15|16|17|39)\b", text), file.name
        for words in ("Bounce Back", "Future Fund", "OneWeb", "FS50422276", "29 Apr"):
            assert words not in text, file.name


@pytest.mark.parametrize("file", ["award_notices.csv", "events.csv"])
def test_every_row_has_source_and_confidence(file: str) -> None:
    """False if a fact stands without saying where it was seen and how sure it is."""
    for row in rows(file):
        assert row["source"], row["row"]
        assert row["confidence"], row["row"]


@pytest.mark.parametrize("row", NOTICES)
def test_the_lag_is_the_distance_of_its_dates(row: str) -> None:
    """False if a lag in the table does not follow from the dates beside it."""
    cells = NOTICE_ROWS[row]
    published = date.fromisoformat(cells["first_published_as_stated"][:10])
    assert (published - date.fromisoformat(cells["lag_from"])).days == int(cells["lag_days"])
    assert 39 <= int(cells["lag_days"]) <= 256


def test_lags_count_from_the_award_but_where_the_table_says_otherwise() -> None:
    """False if the base of a lag is unexplained: R22's is the period, R04's the last day of its span."""
    bases = {}
    for row, cells in NOTICE_ROWS.items():
        usual = cells["award_date"] or cells["contract_date"].partition("/")[0]
        if cells["lag_from"] != usual:
            bases[row] = cells["lag_from"]
    assert bases == {
        "R04": NOTICE_ROWS["R04"]["contract_date"].partition("/")[2],
        "R22": NOTICE_ROWS["R22"]["start_date"],
    }
    award = date.fromisoformat(NOTICE_ROWS["R22"]["award_date"])
    assert date(2020, 10, 20) - award == timedelta(days=13)


@pytest.mark.parametrize("row", NOTICES)
def test_values_are_exact(row: str) -> None:
    """False if an amount lost a penny or a digit on its way into the record."""
    cells = NOTICE_ROWS[row]
    assert RECORDS[row]["procurement"]["value"] == {"amount": cells["value_gbp"], "currency": "GBP"}


def test_the_values_add_up() -> None:
    """False if any of the 24 amounts was typed wrongly: the sum is known from the source table."""
    total = sum(Decimal(cells["value_gbp"]) for cells in NOTICE_ROWS.values())
    assert total == Decimal("794615816.79")
    assert NOTICE_ROWS["R12"]["value_gbp"] == "91970816.79"


@pytest.mark.parametrize("row", ["E21", "E22"])
def test_a_rounded_amount_is_not_given_to_the_penny(row: str) -> None:
    """False if `£3.2m` became 3200000.00, which no source says."""
    assert "value" not in RECORDS[row]["procurement"]


@pytest.mark.parametrize(
    ("row", "decided_at"),
    [
        ("R01", "2020-06-25"),
        ("R04", "2020-04-15/2020-04-16"),
        ("R11", "2020-04-10/2020-04-13"),
        ("R18", "2020-03-30/2020-04-30"),
        ("R19", "2020-04-20"),
        ("R20", "2020-12-15"),
        ("R22", "2020-10-07"),
        ("E01", "2020-04-09"),
        ("E12", "2022-04-13"),
        ("E13", "2020-06"),
        ("E21", "2020-07-21"),
        ("E22", "2020-06-05"),
    ],
)
def test_the_precision_of_a_date_is_kept(row: str, decided_at: str) -> None:
    """False if a span or a month became a day."""
    assert RECORDS[row]["decided_at"] == decided_at


def test_award_and_start_stand_only_where_the_notice_tells_them_apart() -> None:
    """False if an unlabelled date was declared to be the award's, or a period's start was lost."""
    labelled = {
        row: (record["procurement"].get("award_date"), record["procurement"].get("start_date"))
        for row, record in RECORDS.items()
        if row in NOTICES
    }
    assert {row: dates for row, dates in labelled.items() if dates != (None, None)} == {
        "R01": ("2020-06-25", "2020-06-26"),
        "R19": ("2020-04-20", "2020-03-25"),
        "R20": ("2020-12-15", "2020-09-01"),
        "R22": ("2020-10-07", "2020-04-07"),
    }
    assert [RECORDS[row]["effective_at"] for row in ("E21", "E22")] == ["2020-03-14", "2020-03-03"]


@pytest.mark.parametrize("row", NOTICES)
def test_publication_holds_both_readings_of_a_stamp(row: str) -> None:
    """False if a summer stamp without time zone was declared to be UTC, or British time."""
    cells, publication = NOTICE_ROWS[row], RECORDS[row]["publication"]
    assert publication["first"] == both_readings(cells["first_published_as_stated"][:16])
    updates = publication.get("updates", [])
    assert updates == sorted(updates)
    for update in updates:
        day, _, time = update.partition("/")[2].partition("T") if "/" in update else update.partition("T")
        stamp = f"{day} {time[:5]}".strip()
        assert update == both_readings(stamp)
        assert day[5:] in cells["later_releases_as_stated"]
        assert time[:5] in cells["later_releases_as_stated"]
    assert len(updates) == len(re.findall(r"\d\d:\d\d|11-2[45]", cells["later_releases_as_stated"]))


def test_twenty_notices_were_released_again() -> None:
    """False if a later release was lost or invented: 20 of the 24 have one, R16 three, R21 four."""
    updates = {row: len(RECORDS[row]["publication"].get("updates", [])) for row in NOTICES}
    assert {row for row, count in updates.items() if not count} == {"R08", "R19", "R22", "R23"}
    assert updates["R14"] == updates["R16"] == 3
    assert updates["R21"] == max(updates.values()) == 4


@pytest.mark.parametrize("row", NOTICES)
def test_capture_is_the_day_of_first_publication(row: str) -> None:
    """False if a notice is said to have been captured before or after it could be read."""
    captured = RECORDS[row]["captured_at"]
    assert captured == NOTICE_ROWS[row]["first_published_as_stated"][:10]
    day, first = partial(captured), partial(RECORDS[row]["publication"]["first"])
    assert day.earliest <= first.earliest <= first.latest <= day.latest


def test_capture_of_an_event_is_its_report() -> None:
    """False if an event's record claims to have been captured before its source was published."""
    captured = {row: RECORDS[row]["captured_at"] for row in EVENTS}
    assert captured == {
        "E01": "2021-11-17",
        "E12": "2022-04-16",
        "E13": "2020-06",
        "E21": "2020-11-18",
        "E22": "2020-11-18",
    }


@pytest.mark.parametrize("row", ["R20", "R21"])
def test_a_contract_in_two_services_names_both_identifiers(row: str) -> None:
    """False if the second identifier of a contract was dropped."""
    relation = RECORDS[row]["relations"][0]
    assert relation["type"] == "published_as"
    assert relation["target"]["uri"].startswith("ocds-h6vhtk-")
    assert RECORDS[row]["procurement"]["ocid"].startswith("ocds-b5fd17-")


def test_identifiers_are_distinct_and_stay_the_same() -> None:
    """False if loading the data twice would register a row twice, or two rows as one."""
    ids = [record["record_id"] for record in RECORDS.values()]
    assert len(set(ids)) == len(ids)
    assert [item.record["record_id"] for item in curated.registered()] == ids
    assert RECORDS["R01"]["record_id"] == "7dbd41c7-14b1-8a80-b20d-f673d8ef2d25"
    ocids = [RECORDS[row]["procurement"]["ocid"] for row in NOTICES]
    assert len(set(ocids)) == len(ocids)


def test_callers_cannot_change_the_data_for_each_other() -> None:
    """False if editing a returned record alters what the next caller gets."""
    curated.registered()[0].record["decision_maker"]["office"] = "somebody-else"
    curated.registered()[-1].record["decision_maker"]["office"] = "somebody-else"
    assert [item.record for item in curated.registered()] == list(RECORDS.values())


def departments() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads((DATA / "departments.json").read_bytes())["departments"]
    return listed


def test_there_are_24_ministerial_departments_and_their_predecessors() -> None:
    """False if a department is missing, listed twice, or a register has no department."""
    slugs = [department["slug"] for department in departments()]
    assert len(set(slugs)) == len(slugs)
    assert sum(department["kind"] == "ministerial department" for department in departments()) == 24
    assert sum(department["kind"] == "predecessor" for department in departments()) == 8
    assert {item.register.partition("/")[0] for item in curated.registered()} < set(slugs)


def test_no_date_of_a_department_is_invented() -> None:
    """False if a validity date appeared that no checked source gives."""
    known = {
        department["slug"]: (department["valid_from"], department["valid_to"])
        for department in departments()
        if department["valid_from"] != "unknown" or department["valid_to"] not in ("unknown", "current")
    }
    assert known == {"ministry-of-housing-communities-and-local-government": ("2018", "2021")}
    assert {department["succeeded_by"] for department in departments()} == {"unknown", "none"}


def test_registers_are_those_of_the_records_with_titles() -> None:
    """False if the demonstration would open another set of registers than it writes to."""
    assert [register.name for register in curated.registers()] == sorted(set(REGISTERS.values()))
    assert curated.registers()[0].title == "Cabinet Office: accounting officer or delegate"

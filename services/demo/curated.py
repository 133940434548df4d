"""The curated real data as records: what was published, and nothing more.

Each record is a reconstruction by this project from a published notice or report. What it claims:

- `decision_maker` is the accounting officer or a delegate, since an award notice does not say who decided
  and no minister may be implied. E01, E12 and E13 name an office, so theirs is that office and role. No
  record names a natural person.
- `decided_at` is the award date where the notice tells it apart, else its one contract date, kept as the
  interval it was stated as. `procurement.award_date` and `start_date` stand only where the source says which
  is which. E13 is dated by its source to a month, and by the publication; it names the department, and the
  register is that of its Secretary of State, who gives directions.
- `captured_at` is the day on which its source was first published: the notice (E21, E22: the report of the
  National Audit Office; E01: the statement to the Commons that no formal note was found).
- `publication` is that of the notice that `procurement.ocid` names. Stamps have no time zone: in summer they
  are an interval that holds the reading as UTC and as British Summer Time.
- `channel` and `device` are `unknown`; `capture_method` is `retrospective_reconstruction`.
- `record_state` is `missing_known` for E01, whose note was looked for and not found, else `present`.
- A supplier is named only where the notice names one (R01 and R09 were inferred elsewhere: none), and an
  amount only where it is known to the penny: the £3.2m of E21 stands in words.

`record_id` is derived from the row (UUIDv8 of ``daybook.curated/1`` LF row LF), not random as formats.md,
section 2, advises for a department: loading this data twice, or after an interruption, must meet the same
ids. A row that is ever changed needs a correction, since its version 1 is the same record for ever.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from importlib import resources
from typing import Any, Final, NamedTuple

from ledger.records import uuid8

NOTICE_SERIES: Final = "curated-award-notices"
EVENT_SERIES: Final = "curated-events"

_BUYERS: Final = {"DHSC": "department-of-health-and-social-care"}
_NOT_THE_DEPARTMENT: Final = (
    "Reconstructed by the Daybook project from published sources, as a demonstration. "
    "The department neither made nor signed this record."
)
_ACCOUNTING_OFFICER: Final = {"office": "accounting-officer", "role": "accounting_officer_or_delegate"}
_OFFICE_TITLES: Final = {
    "accounting-officer": "accounting officer or delegate",
    "home-secretary": "Home Secretary",
    "parliamentary-under-secretary-of-state": "Parliamentary Under-Secretary of State",
    "secretary-of-state": "Secretary of State",
}


class Registered(NamedTuple):
    """A row that becomes a record: its id (`R01`), the register and the members of the record."""

    row: str
    register: str
    record: dict[str, Any]


class Context(NamedTuple):
    """A row that becomes no record: its id (`E02`), what it says and why it is not registered."""

    row: str
    description: str
    reason: str


class Register(NamedTuple):
    """A register that the records need: its name, and a title for `register.opened/1`."""

    name: str
    title: str


# What the five registered events claim beyond what all records say. Their days stand in `events.csv` as
# part of sentences, so they are spelled out here; the source of each is the row's.
_EVENTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "E01": {
        "department": "department-of-health-and-social-care",
        "decision_maker": {
            "office": "parliamentary-under-secretary-of-state",
            "role": "parliamentary_under_secretary_of_state",
            "title": "Parliamentary Under-Secretary of State",
        },
        "decision_type": "meeting_outcome",
        "decided_at": "2020-04-09",
        "captured_at": "2021-11-17",
        "record_state": "missing_known",
        "title": "Call with Randox",
        "description": (
            "A call, declared in the transparency return. The Commons were told on 17 November 2021 that no "
            "formal note had been located; what was decided, if anything, is not known."
        ),
        "external_parties": [{"name": "Randox"}],
    },
    "E12": {
        "department": "home-office",
        "decision_maker": {
            "office": "home-secretary",
            "role": "secretary_of_state",
            "title": "Home Secretary",
        },
        "decision_type": "ministerial_direction",
        "decided_at": "2022-04-13",
        "captured_at": "2022-04-16",
        "title": "Ministerial direction: Rwanda MEDP",
        "description": "The accounting officer's letter and the direction, published on 16 April 2022.",
        "participants": [{"organisation": "home-office", "role": "permanent_secretary"}],
        "publication": {"first": "2022-04-16"},
    },
    "E13": {
        "department": "department-for-business-energy-and-industrial-strategy",
        "decision_maker": {"office": "secretary-of-state", "role": "secretary_of_state"},
        "decision_type": "ministerial_direction",
        "decided_at": "2020-06",
        "captured_at": "2020-06",
        "title": "Ministerial direction: CBILS changes",
        "description": (
            "Dated by its publication, to the month; the day on which the direction was given is not stated."
        ),
        "publication": {"first": "2020-06"},
    },
    "E21": {
        "department": "department-of-health-and-social-care",
        "decision_maker": _ACCOUNTING_OFFICER,
        "decision_type": "contract_award",
        "decided_at": "2020-07-21",
        "effective_at": "2020-03-14",
        "captured_at": "2020-11-18",
        "title": "Contract award to Deloitte",
        "description": (
            "A contract stated as £3.2m, effective from an earlier day than its award, as the National Audit "
            "Office reported."
        ),
        "procurement": {"award_date": "2020-07-21", "supplier": {"name": "Deloitte"}},
    },
    "E22": {
        "department": "cabinet-office",
        "decision_maker": _ACCOUNTING_OFFICER,
        "decision_type": "contract_award",
        "decided_at": "2020-06-05",
        "effective_at": "2020-03-03",
        "captured_at": "2020-11-18",
        "title": "Contract award to Public First",
        "description": (
            "A contract effective from an earlier day than its award, as the National Audit Office reported."
        ),
        "procurement": {"award_date": "2020-06-05", "supplier": {"name": "Public First"}},
    },
}


def registered() -> list[Registered]:
    """Return the 24 award notices and the five events as records, in the order of their rows.

    A record holds the members of `decision.registered/1` as Python values, ready for
    `ledger.canonical.format`. Each call makes new dicts.
    """
    notices = [_notice(row) for row in _rows("award_notices.csv")]
    return notices + [_event(row) for row in _rows("events.csv") if row["registered"] == "yes"]


def context() -> list[Context]:
    """Return the rows that are not registered, in the order of the file, each with the reason."""
    return [
        Context(row["row"], _sentence(row), row["reason_not_registered"])
        for row in _rows("events.csv")
        if row["registered"] == "no"
    ]


def registers() -> list[Register]:
    """Return the registers that the records need, in byte order of their names."""
    names = _department_names()
    needed = sorted({item.register for item in registered()})
    split = [(name, *name.split("/")) for name in needed]
    return [
        Register(name, f"{names[department]}: {_OFFICE_TITLES[office]}") for name, department, office in split
    ]


def _rows(file: str) -> Iterator[dict[str, str]]:
    text = resources.files("services.demo").joinpath("data", file).read_text(encoding="utf-8")
    return csv.DictReader(text.splitlines(keepends=True), strict=True)


@cache
def _department_names() -> dict[str, str]:
    text = resources.files("services.demo").joinpath("data", "departments.json").read_text(encoding="utf-8")
    return {department["slug"]: department["name"] for department in json.loads(text)["departments"]}


def _sentence(row: Mapping[str, str]) -> str:
    parts = (row["date_as_stated"], row["body"], row["event"])
    return "; ".join(part for part in parts if part)


def _record(row: str, series: str, department: str, decision: Mapping[str, Any]) -> Registered:
    """Return the record of `row`: `decision`, and what every curated record says."""
    register = f"{department}/{decision['decision_maker']['office']}"
    record = {
        "type": "decision.registered/1",
        "record_id": uuid8(f"daybook.curated/1\n{row}\n".encode()),
        "register": register,
        "version": 1,
        "capture_method": "retrospective_reconstruction",
        "channel": "unknown",
        "classification": {"sensitive": False, "tier": "OFFICIAL"},
        "device": "unknown",
        "late_explanation": _NOT_THE_DEPARTMENT,
        "late_reason": "migration_of_legacy",
        "record_state": "present",
        "reference": {"number": int(row[1:]), "series": series},
        **decision,
    }
    return Registered(row, register, record)


def _notice(row: Mapping[str, str]) -> Registered:
    decision: dict[str, Any] = {
        "captured_at": row["first_published_as_stated"][: len("YYYY-MM-DD")],
        "decided_at": row["award_date"] or row["contract_date"],
        "decision_maker": dict(_ACCOUNTING_OFFICER),
        "decision_type": "contract_award",
        "description": _dating(row),
        "procurement": _procurement(row),
        "publication": {"first": row["publication_first"]},
        "source_system": row["source"],
        "title": _title(row),
    }
    if row["publication_updates"]:
        decision["publication"]["updates"] = row["publication_updates"].split(";")
    if row["other_ocid"]:
        decision["relations"] = [
            {
                "reason": f"The same contract in Find a Tender, dated {row['other_ocid_date']}.",
                "target": {"uri": row["other_ocid"]},
                "type": "published_as",
            }
        ]
    return _record(row["row"], NOTICE_SERIES, _BUYERS[row["buyer"]], decision)


def _title(row: Mapping[str, str]) -> str:
    title = "Contract award"
    if row["supplier"]:
        title += f" to {row['supplier']}"
    if row["goods"]:
        title += f": {row['goods']}"
    return title


def _dating(row: Mapping[str, str]) -> str:
    """Say what the dates of the record rest on."""
    if row["award_date"]:
        return "From a published contract award notice, which gives the award and the start apart."
    if "/" in row["contract_date"]:
        return (
            "From a published contract award notice. Its summary gives a span of dates and does not say "
            "whether they are of the award or of the contract."
        )
    return (
        "From a published contract award notice. Its summary gives one date and does not say whether it is "
        "of the award or of the contract."
    )


def _procurement(row: Mapping[str, str]) -> dict[str, Any]:
    procurement: dict[str, Any] = {
        "ocid": row["ocid"],
        "value": {"amount": row["value_gbp"], "currency": "GBP"},
    }
    for date in ("award_date", "start_date"):
        if row[date]:
            procurement[date] = row[date]
    if row["supplier"]:
        procurement["supplier"] = {"name": row["supplier"]}
    return procurement


def _event(row: Mapping[str, str]) -> Registered:
    claims = deepcopy(dict(_EVENTS[row["row"]]))
    department = claims.pop("department")
    return _record(row["row"], EVENT_SERIES, department, {"source_system": row["source"], **claims})

"""Policy profiles: the limits and thresholds by which records are looked at, as versioned data.

A profile is what somebody has chosen, and says on what it rests. It is never law: no statute sets a number of
days for recording a decision. What it leaves out is not looked at. Its identity stands in every result, so that
a past result can be worked out again, and another profile gives another result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

from ledger.entries import parse_entry
from ledger.errors import Reason, Violation
from ledger.governing import Published
from ledger.record_rules import refusal
from ledger.records import Decision, PolicyPublished, parse_record
from services.auditing.calendars import Overrides, parse_overrides
from services.auditing.declared import digest, parse, read_object
from services.auditing.profile_types import Limit, Profile

SHIPPED: Final = ("cabinet-office-2013", "daybook-strict", "nccc-2023")
"""The profiles that come with Daybook."""

PROFILE: Final = "profile"
CALENDAR: Final = "calendar"

DETECTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "late_registration": "DET-01",
        "late_capture": "DET-02",
        "back_dated": "DET-03",
        "future_dated": "DET-04",
        "nccc_origin": "DET-05",
        "disappearing_on": "DET-06",
        "series_gap": "DET-08",
        "return_missing": "DET-09",
        "stage_missing": "DET-10",
        "stage_order": "DET-11",
        "decision_after_award": "DET-12",
        "retrospective_contract": "DET-13",
        "late_publication": "DET-14",
        "notice_churn": "DET-15",
        "duplicate_contract": "DET-16",
        "burst": "DET-20",
        "off_hours": "DET-21",
        "evidence_reuse": "DET-26",
        "correction_chain": "DET-28",
        "unwitnessed": "DET-29",
        "silence": "DET-30",
    }
)
"""The id of each detection by the name that its parameters have in a profile."""


def parse_profile(value: object) -> Profile:
    """Return the profile that a JSON value is.

    Raises RejectedError with everything that is wrong with it, MalformedError for a character that no record
    may have.
    """
    return parse(value, Profile, _rules)


def identity(profile: Profile) -> str:
    """Return what names a profile in results: its name, version, and the digest of its canonical JSON."""
    return f"{profile.name}/{profile.version} sha256:{digest(profile)}"


@cache
def shipped(name: str) -> Profile:
    """Return a profile that comes with Daybook. Raises RejectedError for a name that none has."""
    if name not in SHIPPED:
        raise refusal((Violation(Reason.INVALID_FIELD, f"{name!a} is not shipped", "name", SHIPPED),))
    return parse_profile(read_object((files(__package__) / "profiles" / f"{name}.json").read_bytes()))


def limit_for(limits: Sequence[Limit], decision: Decision) -> Limit | None:
    """Return the first limit that fits a decision; None where none does."""
    return next((limit for limit in limits if _fits(limit, decision)), None)


def _fits(limit: Limit, decision: Decision) -> bool:
    if limit.channels is not None and decision.channel not in limit.channels:
        return False
    if limit.decision_types is not None and decision.decision_type not in limit.decision_types:
        return False
    return not (limit.unless_insignificant and decision.significant is False)


# What a ledger has published


def in_force(published: Sequence[Published], kind: str, at: float) -> tuple[Published, ...]:
    """Return what of one kind (`PROFILE` or `CALENDAR`) is in force at `at` (POSIX seconds).

    `published` is that of the governing register's fold. Of each name it is the last one there whose time has
    come; they are in the order of the register.
    """
    latest: dict[str, Published] = {}
    for one in published:
        if one.kind == kind and datetime.fromisoformat(one.effective_from).timestamp() <= at:
            latest[one.name] = one
    return tuple(sorted(latest.values(), key=lambda each: each.index))


def published_profile(entry: bytes) -> Profile:
    """Return the profile in a governing entry that `in_force` names.

    Raises RejectedError where it is none: registration accepts any object there.
    """
    record = _published(entry, PROFILE)
    profile = parse_profile(record.profile)
    _check_name(profile.name, record)
    return profile


def published_overrides(entry: bytes) -> Overrides:
    """Return the calendar's overrides in a governing entry that `in_force` names. Raises as for a profile."""
    record = _published(entry, CALENDAR)
    overrides = parse_overrides(record.calendar)
    _check_name(overrides.name, record)
    return overrides


def _published(entry: bytes, kind: str) -> PolicyPublished:
    record = parse_record(parse_entry(entry).record)
    if not isinstance(record, PolicyPublished) or record.kind != kind:
        raise refusal((Violation(Reason.INVALID_FIELD, f"is no published {kind}", "type"),))
    return record


def _check_name(name: str, record: PolicyPublished) -> None:
    if name != record.name:
        description = f"is not the name {record.name!a} under which it is published"
        raise refusal((Violation(Reason.INVALID_FIELD, description, "name"),))


def _rules(value: Mapping[str, Any]) -> Iterator[Violation]:
    """Yield what is wrong with a profile of the right shape."""
    hours = value["detections"].get("off_hours")
    if hours is not None and hours["from_hour"] == hours["until_hour"]:
        yield Violation(
            Reason.INVALID_FIELD, "is the hour from which they last", "detections.off_hours.until_hour"
        )
    spans = value["detections"].get("retrospective_contract")
    if spans is not None and spans["high_days"] < spans["days"]:
        yield Violation(Reason.INVALID_FIELD, "is below days", "detections.retrospective_contract.high_days")
    schemes: set[tuple[str, int]] = set()
    for index, scheme in enumerate(value.get("stage_schemes", ())):
        named = scheme["scheme"], scheme["scheme_version"]
        if named in schemes:
            yield Violation(
                Reason.INVALID_FIELD, "is there twice in this version", f"stage_schemes[{index}].scheme"
            )
        schemes.add(named)
        seen: set[str] = set()
        for place, stage in enumerate(scheme["stages"]):
            if stage["code"] in seen:
                path = f"stage_schemes[{index}].stages[{place}].code"
                yield Violation(Reason.INVALID_FIELD, "is there twice", path)
            seen.add(stage["code"])

"""Profiles: those that are shipped ask for what the domain model says, and what is no profile is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from ledger import canonical
from ledger.errors import MalformedError, RejectedError
from ledger.governing import Published
from ledger.records import Decision, parse_record
from ledger.vocabularies import NCCC
from services.auditing.declared import MAX_FILE, members, read_object
from services.auditing.profile_types import Detections, Profile
from services.auditing.profiles import (
    CALENDAR,
    DETECTIONS,
    PROFILE,
    SHIPPED,
    identity,
    in_force,
    limit_for,
    parse_profile,
    shipped,
)
from tests.support.records import decision_bytes
from tests.support.times import seconds

STRICT = shipped("daybook-strict")


def decision(**changes: Any) -> Decision:
    record = parse_record(decision_bytes(**changes))
    assert isinstance(record, Decision)
    return record


def limit_of(**changes: Any) -> int | None:
    """Return the working days that the strict profile gives a decision to be registered."""
    rule = STRICT.detections.late_registration
    assert rule is not None
    limit = limit_for(rule.limits, decision(**changes))
    return None if limit is None else limit.working_days


def test_the_strict_profile_has_the_parameters_of_the_table() -> None:
    """False if a shipped number were another than the domain model's."""
    found = members(STRICT)["detections"]
    del found["late_registration"], found["late_capture"]
    nccc = found.pop("nccc_origin")
    assert set(nccc.pop("channels")) == NCCC
    assert nccc == {
        "justification_expected": True,
        "weak_capture_methods": ["note_of_substance", "transcription"],
    }
    assert found == {
        "back_dated": {"working_days": 10, "inversions": 1},
        "burst": {"registrations": 5, "minutes": 60, "times_median": 8, "one_in": 10_000},
        "correction_chain": {"corrections": 3},
        "decision_after_award": {"days": 0},
        "disappearing_on": {"states": ["on"]},
        "duplicate_contract": {"days": 1, "value_per_mille": 5},
        "evidence_reuse": {"decisions": 2, "screenshot_only": True},
        "future_dated": {"seconds": 300},
        "late_publication": {"calendar_days": 30},
        "notice_churn": {"updates": 2},
        "off_hours": {"from_hour": 22, "until_hour": 6},
        "retrospective_contract": {"days": 0, "high_days": 28},
        "return_missing": {"working_days": 10},
        "series_gap": {"missing": 1},
        "silence": {"working_days": 10},
        "stage_missing": {"outcomes": ["fail", "waived"]},
        "stage_order": {"days": 0},
        "unwitnessed": {"seconds": 86_400},
    }


def test_the_strict_limits_are_those_of_the_table() -> None:
    """False if a channel or a direction had another limit."""
    assert limit_of() == 5
    assert {limit_of(channel=each, significant=True) for each in NCCC} == {2}
    assert limit_of(channel="whatsapp", significant=False) == 5
    assert limit_of(channel="whatsapp") == 2, "who says nothing of significance has no more time"
    assert limit_of(decision_type="ministerial_direction", channel="whatsapp") == 1
    assert limit_of(channel="parliamentary_email") == 5
    rule = STRICT.detections.late_registration
    assert rule is not None
    assert rule.contract_approval_before_award
    assert rule.exempt_late_reasons == ("migration_of_legacy",)
    capture = STRICT.detections.late_capture
    assert capture is not None
    assert limit_for(capture.limits, decision()) is None
    captured = [limit_for(capture.limits, decision(channel=each)) for each in NCCC]
    assert {each.working_days for each in captured if each is not None} == {2}
    assert None not in captured


@pytest.mark.parametrize("name", ["cabinet-office-2013", "nccc-2023"])
def test_guidance_without_a_number_of_days_gives_no_limit(name: str) -> None:
    """False if Daybook put a number into guidance that has none."""
    found = shipped(name).detections
    assert (found.late_registration, found.late_capture) == (None, None)
    asked = found.nccc_origin
    assert asked is not None
    assert bool(asked.justification_expected) == (name == "nccc-2023")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_says_what_it_rests_on_and_that_it_is_not_law(name: str) -> None:
    """False if a profile passed for law."""
    found = shipped(name)
    assert found.name == name
    assert found.basis.endswith("A profile is not law.")
    assert found.calendar == "dept-ew"
    assert set(DETECTIONS) - set(members(found)["detections"]) <= {"late_registration", "late_capture"}


def test_every_detection_has_its_id() -> None:
    """False if parameters were of no detection, or one had none."""
    assert set(DETECTIONS) == set(Detections.__struct_fields__)
    assert len(set(DETECTIONS.values())) == len(DETECTIONS)


def test_the_identity_is_the_digest_of_what_is_published() -> None:
    """False if somebody could not check it with other tools, or two profiles shared it."""
    digest = hashlib.sha256(canonical.format(members(STRICT))).hexdigest()
    assert identity(STRICT) == f"daybook-strict/1 sha256:{digest}"
    other = members(STRICT)
    other["detections"]["series_gap"]["missing"] = 2
    assert identity(parse_profile(other)) != identity(STRICT)
    assert parse_profile(members(STRICT)) == STRICT


def set_member(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(profile: dict[str, Any]) -> None:
        at: Any = profile
        *before, last = path.split(".")
        for step in before:
            at = at[int(step) if step.isdigit() else step]
        if value is None:
            del at[last]
        else:
            at[last] = value

    return change


WRONG: list[tuple[str, object, str]] = [
    ("type", "daybook.profile/2", "type"),
    ("basis", None, "basis"),
    ("version", 0, "version"),
    ("calendar", "foi", "calendar"),
    ("law", True, "law"),
    ("detections", {}, "detections"),
    ("detections.chat_integrity", {"k": 10}, "detections.chat_integrity"),
    ("detections.series_gap", {}, "detections.series_gap"),
    ("detections.series_gap.missing", 0, "detections.series_gap.missing"),
    ("detections.series_gap.missing", True, "detections.series_gap.missing"),
    ("detections.series_gap.missing", "1", "detections.series_gap.missing"),
    ("detections.series_gap.missing", 1.0, "detections.series_gap.missing"),
    ("detections.series_gap.mising", 1, "detections.series_gap.mising"),
    ("detections.off_hours.until_hour", 22, "detections.off_hours.until_hour"),
    ("detections.retrospective_contract.days", 30, "detections.retrospective_contract.high_days"),
    ("detections.late_registration.limits", [], "detections.late_registration.limits"),
    (
        "detections.late_registration.limits.0.channels",
        ["pigeon"],
        "detections.late_registration.limits[0].channels[0]",
    ),
    ("detections.late_capture.limits.0.working_days", 0, "detections.late_capture.limits[0].working_days"),
    ("detections.evidence_reuse.screenshot_only", False, "detections.evidence_reuse.screenshot_only"),
    ("stage_schemes.1.scheme", "ppe-eight-stage", "stage_schemes[1].scheme"),
    ("stage_schemes.0.stages.1.code", "offer_received", "stage_schemes[0].stages[1].code"),
]


@pytest.mark.parametrize(("path", "value", "field"), WRONG, ids=str)
def test_what_is_wrong_with_a_profile_is_named(path: str, value: object, field: str) -> None:
    """False if a mistyped profile passed, and a detection were silently not run or another limit held."""
    stated = members(STRICT)
    set_member(path, value)(stated)
    with pytest.raises(RejectedError) as refused:
        parse_profile(stated)
    assert field in [each.field for each in refused.value.violations]


@pytest.mark.parametrize("value", [None, [], "x", {}, {"type": "daybook.profile/1"}])
def test_what_is_no_profile_is_refused(value: object) -> None:
    """False if the object of another kind, or of none, passed."""
    with pytest.raises(RejectedError):
        parse_profile(value)


def test_characters_that_no_record_may_have_are_refused() -> None:
    """False if a profile passed that could not be published, or that steers a terminal."""
    with pytest.raises(MalformedError):
        parse_profile({**members(STRICT), "title": "\u202ewal"})


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"a": 1, "a": 2}', b'{"a": NaN}}', b"\xff", b"[" * 100_000, b"{}" + b" " * MAX_FILE]
)
def test_a_file_that_is_no_object_is_refused(data: bytes) -> None:
    """False if a file could say two things at once, or ended the program."""
    with pytest.raises(MalformedError):
        read_object(data)


def test_a_file_may_be_laid_out_as_one_likes() -> None:
    """False if a person could not write one."""
    assert parse_profile(read_object(json.dumps(members(STRICT), indent=7).encode())) == STRICT


def test_in_force_is_the_latest_of_each_name_whose_time_has_come() -> None:
    """False if an old profile, or one that is still to come, were taken."""
    published = (
        Published(1, PROFILE, "a", "2026-01-01T00:00Z"),
        Published(2, PROFILE, "b", "2026-01-01T00:00Z"),
        Published(3, CALENDAR, "a", "2026-01-01T00:00Z"),
        Published(4, PROFILE, "a", "2026-02-01T00:00Z"),
        Published(5, PROFILE, "a", "2026-03-01T00:00:30Z"),
        Published(6, "witness", "a", "2026-01-01T00:00Z"),
    )
    assert [each.index for each in in_force(published, PROFILE, seconds("2025-12-31T23:59:59Z"))] == []
    assert [each.index for each in in_force(published, PROFILE, seconds("2026-01-01T00:00:00Z"))] == [1, 2]
    assert [each.index for each in in_force(published, PROFILE, seconds("2026-03-01T00:00:29Z"))] == [2, 4]
    assert [each.index for each in in_force(published, PROFILE, seconds("2026-03-01T00:00:30Z"))] == [2, 5]
    assert [each.index for each in in_force(published, CALENDAR, seconds("2026-03-01T00:00:30Z"))] == [3]


def test_a_profile_fits_into_a_record() -> None:
    """False if one could not be published."""
    for name in SHIPPED:
        assert len(canonical.format(members(shipped(name)))) < MAX_FILE - 1_000


def test_profiles_are_told_apart_by_type() -> None:
    """False if a profile could be changed once it is read."""
    assert isinstance(STRICT, Profile)
    with pytest.raises(AttributeError):
        STRICT.name = "x"  # type: ignore[misc]

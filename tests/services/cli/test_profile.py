"""`daybook profile`, and what `daybook govern publish-policy` takes of profiles and calendars."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ledger.ledger import Ledger
from ledger.stores.sqlite import SqliteStore
from services.auditing.calendars import packaged, with_overrides
from services.auditing.declared import members
from services.auditing.profiles import (
    CALENDAR,
    PROFILE,
    SHIPPED,
    identity,
    in_force,
    published_overrides,
    published_profile,
    shipped,
)
from services.auditing.working_days import is_working_day
from services.ledger_files import LedgerDirectory
from tests.support.command import run, run_json
from tests.support.records import LEDGER_ORIGIN
from tests.support.times import seconds

DAYS: dict[str, Any] = {
    "type": "daybook.calendar/1",
    "name": "one-off-2027",
    "calendar": "dept-ew",
    "dated": "2026-11-26",
    "basis": "A proclamation that is made up",
    "non_working": [{"date": "2027-05-10", "reason": "A day off for everybody"}],
}


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    run("init", tmp_path / "ledger", "--origin", LEDGER_ORIGIN)
    return tmp_path / "ledger"


def written(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
    return path


def test_the_shipped_profiles_are_listed() -> None:
    """False if somebody could not find out what there is to choose from."""
    listed = run_json("profile", "list")["profiles"]
    assert [each["identity"] for each in listed] == [identity(shipped(name)) for name in SHIPPED]
    assert [line.split()[0] for line in run("profile", "list").stdout.splitlines()] == list(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_profile_is_shown_with_what_it_rests_on(name: str) -> None:
    """False if a reader saw numbers and not whose they are."""
    found = shipped(name)
    told = run("profile", "show", name).stdout
    assert found.basis in told
    assert identity(found) in told
    assert packaged("dept-ew").version in told
    assert ("no limit: nothing is late" in told) == (name != "daybook-strict")
    assert ("  1 working day: ministerial_direction" in told) == (name == "daybook-strict")
    assert run_json("profile", "show", name)["profile"] == members(found)


def test_a_shipped_profile_is_the_start_of_an_own_one(tmp_path: Path) -> None:
    """False if a department had to write one from nothing; or if a file could be overwritten."""
    out = tmp_path / "ours.json"
    run("profile", "show", "daybook-strict", "--out", out)
    stated = json.loads(out.read_bytes())
    assert stated == members(shipped("daybook-strict"))
    assert run_json("profile", "show", "nccc-2023", "--out", out, status=3)["error"]["reason"] == "UNREADABLE"
    written(out, {**stated, "name": "ours", "version": 4})
    assert run_json("profile", "check", out)["identity"].startswith("ours/4 sha256:")


def test_everything_that_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    """False if its author had to try again for each mistake."""
    wrong = written(tmp_path / "wrong.json", {**members(shipped("nccc-2023")), "version": 0, "\u001b[2J": 1})
    told = run("profile", "check", wrong, status=2).output
    assert "version must be 1 to" in told
    assert "is not a member of this type" in told
    assert "\u001b" not in told
    error = run_json("profile", "check", wrong, status=2)["error"]
    assert error["reason"] == "PROFILE_MALFORMED"
    assert len(error["violations"]) == 2
    days = written(
        tmp_path / "days.json", {**DAYS, "non_working": [{"date": "2031-05-12", "reason": "far off"}]}
    )
    error = run_json("profile", "check", days, status=2)["error"]
    assert (error["reason"], error["violations"][0]["field"]) == ("CALENDAR_MALFORMED", "non_working[0].date")
    (tmp_path / "none.json").write_text("{")
    assert (
        run_json("profile", "check", tmp_path / "none.json", status=2)["error"]["reason"] == "PROFILE_MALFORMED"
    )


def test_a_file_comes_before_a_shipped_profile_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if a file that somebody names were passed over for what Daybook has."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "nccc-2023", {**members(shipped("nccc-2023")), "version": 9})
    assert run_json("profile", "show", "nccc-2023")["identity"].startswith("nccc-2023/9 ")


def test_a_name_that_there_is_not_is_told_with_those_that_are() -> None:
    """False if a mistyped name were a file that cannot be read."""
    error = run_json("profile", "show", "dayboook-strict", status=2)["error"]
    assert error["reason"] == "PROFILE_UNKNOWN"
    assert "daybook-strict" in error["message"]
    assert run_json("profile", "show", "./none.json", status=3)["error"]["reason"] == "UNREADABLE"


def published(ledger: Path, kind: str, at: str) -> list[bytes]:
    """Return the entries of what is in force."""
    store = SqliteStore(LedgerDirectory(ledger).store)
    try:
        opened = Ledger.open(store, LEDGER_ORIGIN)
        found = in_force(opened.fold.published, kind, seconds(at))
        return [opened.reader("governing").entry(each.index) for each in found]
    finally:
        store.close()


def test_a_shipped_profile_is_published_by_its_name(ledger: Path) -> None:
    """False if what an auditor reads from the register were another profile than the shipped one."""
    command = ("govern", ledger, "publish-policy", "daybook-strict", "--kind", "profile")
    told = run_json(*command, "--effective-from", "2026-01-01T00:00Z")
    assert told["record"]["name"] == "daybook-strict"
    (entry,) = published(ledger, PROFILE, "2026-01-01T00:00:00Z")
    assert published_profile(entry) == shipped("daybook-strict")
    assert published(ledger, PROFILE, "2025-12-31T23:59:59Z") == []


def test_days_of_a_calendar_are_published(ledger: Path, tmp_path: Path) -> None:
    """False if a day that was proclaimed could not be brought to every auditor."""
    days = written(tmp_path / "days.json", DAYS)
    run("govern", ledger, "publish-policy", days, "--kind", "calendar", "--effective-from", "2026-12-01T00:00Z")
    (entry,) = published(ledger, CALENDAR, "2026-12-01T00:00:00Z")
    calendar = with_overrides(packaged("dept-ew"), published_overrides(entry))
    day = packaged("dept-ew").first.replace(2027, 5, 10)
    assert is_working_day(packaged("dept-ew"), day)
    assert not is_working_day(calendar, day)
    assert calendar.version == run_json("profile", "check", days)["calendar"]


def test_what_is_no_profile_or_calendar_is_not_published(ledger: Path, tmp_path: Path) -> None:
    """False if a mistake stood in the governing register for ever."""
    days = written(tmp_path / "days.json", DAYS)
    ours = written(tmp_path / "ours.json", {**members(shipped("nccc-2023")), "calendar": "scotland"})
    publish = ("govern", ledger, "publish-policy")
    for file, kind in ((days, "profile"), (ours, "profile"), (ours, "calendar"), ("nccc-2023", "calendar")):
        run_json(*publish, file, "--kind", kind, status=3 if file == "nccc-2023" else 2)
    other = run_json(*publish, "nccc-2023", "--kind", "profile", "--name", "other", status=2)
    assert other["error"]["reason"] == "NAME_DIFFERS"
    nameless = run_json(*publish, days, "--kind", "witness", status=2)
    assert nameless["error"]["reason"] == "NAME_MISSING"
    assert published(ledger, PROFILE, "2099-01-01T00:00:00Z") == []
    assert published(ledger, CALENDAR, "2099-01-01T00:00:00Z") == []

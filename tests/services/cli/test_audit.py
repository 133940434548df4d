"""`daybook audit` as it is called: its statuses, what it prints, and that it may be killed at any point."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import services.auditing
from services.auditing import authority
from services.auditing.notebook import FILE, Notebook
from services.auditing.oddities import KINDS
from tests.support.command import run, run_json
from tests.support.ledger_story import SECOND
from tests.support.ledgers import DEPARTMENT_KEY, REGISTER, decision, submission
from tests.support.monitored import Monitored, monitored, sign
from tests.support.server import command_line, environment
from tests.support.tiled_site import Handler, status


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Monitored]:
    with monitored(tmp_path) as it:
        it.held.fill(300)
        it.publish()
        yield it


def options(it: Monitored, *more: str | Path) -> tuple[str | Path, ...]:
    return (
        *("audit", it.site.url, "--policy", it.policy_file, "--state", it.state, "--patience", "0"),
        *more,
    )


def told(it: Monitored, *more: str | Path, status: int = 0) -> dict[str, Any]:
    return run_json(*options(it, *more), status=status)


def verdicts(value: dict[str, Any]) -> dict[str, str]:
    return {each["register"]: each["standing"] for each in value["registers"]}


def test_the_verdict_comes_first_and_says_what_is_left_open(it: Monitored) -> None:
    """False if a reader had to look for the verdict, or took it for more than it is."""
    lines = run(*options(it)).stdout.splitlines()
    (verdict,) = (number for number, line in enumerate(lines) if line.startswith("VERDICT"))
    assert "No integrity failure was found: 2 registers with 303 entries" in lines[verdict]
    assert verdict < min(number for number, line in enumerate(lines) if REGISTER in line)
    assert lines[-1].startswith("- ")
    text = run(*options(it)).stdout
    assert "Nothing was altered or removed since your last visit on" in text
    assert "nothing was added" in text


def test_an_integrity_failure_ends_it_with_status_1_and_its_evidence(it: Monitored) -> None:
    """False if a script could take a fork for a clean audit."""
    assert told(it)["ok"] is True
    entries = [*it.entries(REGISTER)[:-1], it.entries(REGISTER)[0]]
    it.site.put(REGISTER, entries, sign(REGISTER, entries))
    text = run(*options(it), status=1).stdout
    assert "FAILED  " in text
    assert "FAILURE fork: two checkpoints of size 300 state different roots" in text
    value = told(it, status=1)
    assert (value["ok"], value["failed"]) == (False, True)
    assert verdicts(value)[REGISTER] == "failed"
    failures = [each for one in value["registers"] for each in one["findings"] if each["is_failure"]]
    (fork,) = failures
    assert (fork["code"], fork["is_failure"], fork["is_proof"], fork["is_new"]) == ("fork", True, True, False)
    assert (
        "has signed two histories"
        in run("monitor", "--policy", it.policy_file, "--check", fork["evidence"], status=1).stdout
    )


def test_findings_of_detections_do_not_change_the_status(it: Monitored) -> None:
    """False if a late record were treated as a broken ledger."""
    private = decision(900, channel="whatsapp", device="privately_owned", significant=True)
    it.held.turn([submission(REGISTER, [private], [DEPARTMENT_KEY])])
    it.publish()
    value = told(it, "--profile", "daybook-strict")
    found = [each for register in value["registers"] for each in register["findings"]]
    assert "DET-05" in {each["code"] for each in found}
    assert {each["source"] for each in found} == {"detection"}
    assert value["ok"] is True
    assert value["profile"].startswith("daybook-strict/1 sha256:")
    assert value["calendar"]
    # Under a profile that does not ask for it, it is gone: what is remembered is of the terms.
    assert told(it, "--profile", "cabinet-office-2013")["profile"].startswith("cabinet-office-2013")


def test_days_that_are_otherwise_are_the_auditors_to_choose(it: Monitored, tmp_path: Path) -> None:
    """False if the days of a ledger held with the auditor's own profile, or his own ones could not be given."""
    days = {
        "type": "daybook.calendar/1",
        "name": "theirs",
        "basis": "Made up",
        "calendar": "dept-ew",
        "dated": "2026-05-01",
        "non_working": [{"date": "2026-05-20", "reason": "Made up"}],
    }
    from_when = "2026-06-01T00:00Z"
    it.held.govern(
        "policy.published/1", kind="calendar", name="theirs", effective_from=from_when, calendar=days
    )
    it.publish()
    own = tmp_path / "own.json"
    own.write_text(json.dumps(days | {"name": "own"}), encoding="utf-8")
    strict = ("--profile", "daybook-strict")
    assert "overrides" not in told(it, *strict)["calendar"]
    both = told(it, *strict, "--overrides", "published", "--overrides", own)
    assert re.findall("overrides ([a-z]+) of", both["calendar"]) == ["theirs", "own"]
    assert "overrides theirs" in both["changed_terms"]
    assert re.findall("overrides ([a-z]+) of", told(it, "--overrides", own)["calendar"]) == ["own"]
    own.write_text(json.dumps(days | {"calendar": "none"}), encoding="utf-8")
    assert told(it, "--overrides", own, status=2)["error"]["reason"] == "CALENDAR_MALFORMED"


def test_what_cannot_be_read_ends_it_with_status_3(it: Monitored) -> None:
    """False if half an audit looked like one."""
    it.site.answers[f"/logs/{REGISTER}/tile/entries/001.p/44"] = status(403)
    value = told(it, status=3)
    assert verdicts(value)[REGISTER] == "unread"
    assert value["ok"] is False
    assert [each["register"] for each in value["unread"]] == [REGISTER]
    it.site.answers.clear()
    assert verdicts(told(it))[REGISTER] == "intact"


def test_a_server_that_is_not_there_ends_it_with_status_3(it: Monitored, tmp_path: Path) -> None:
    """False if nothing at all passed for a ledger without changes."""
    value = run_json(
        *("audit", "http://127.0.0.1:9", "--policy", it.policy_file, "--state", tmp_path / "new"), status=3
    )
    assert verdicts(value) == {"governing": "unread"}


@pytest.mark.parametrize(
    "more",
    [
        ("--register", "department-for-testing/nobody"),
        ("--profile", "no-such-profile"),
        ("--last-checkpoint", "policy"),
    ],
)
def test_bad_input_ends_it_with_status_2(it: Monitored, more: tuple[str, str]) -> None:
    """False if a typing error looked like a clean audit, or like a broken ledger."""
    option, value = more
    given = it.policy_file if value == "policy" else value
    run(*options(it, option, given), status=2)


def test_a_folder_of_acknowledgements_that_is_not_there_is_said(it: Monitored, tmp_path: Path) -> None:
    """False if a mistyped folder counted as one in which every promise was kept."""
    run(*options(it, "--acknowledgements", tmp_path / "nowhere"), status=3)


def test_registers_are_asked_for_by_name(it: Monitored) -> None:
    """False if an auditor of one office were told of others."""
    it.held.open_register(SECOND)
    it.publish()
    assert verdicts(told(it, "--register", SECOND)) == {"governing": "intact", SECOND: "intact"}


def test_one_state_has_one_auditor(it: Monitored) -> None:
    """False if two could write one state at once."""
    with it.opened():
        assert "in use" in run(*options(it), status=2).output


def test_hostile_titles_steer_no_terminal(it: Monitored) -> None:
    """False if what a record says reached a terminal as it is."""
    it.held.open_register(SECOND, "An office\ue000")
    it.publish()
    text = run(*options(it)).stdout
    assert "\ue000" not in text


def audited(it: Monitored) -> tuple[object, ...]:
    """Return what the auditor has noted of the entries, however he came to it."""
    with it.opened() as state:
        notebook = Notebook(state.directory.root / FILE)
        try:
            return tuple(
                tuple(notebook.rows(f"SELECT * FROM {table} ORDER BY 1, 2, 3"))
                for table in ("examined", "counted", "signed", "relation", "rejection")
            )
        finally:
            notebook.close()


@pytest.mark.parametrize("bundle", [3, 30])
def test_it_goes_on_after_a_kill(tmp_path: Path, bundle: int) -> None:
    """False if an audit that was killed had to begin again, or came to something else."""
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
    with monitored(tmp_path / "killed") as it, monitored(tmp_path / "whole") as whole:
        for each in (it, whole):
            each.held.fill(9_000)
            each.publish()
        told(whole)
        place = f"/logs/{REGISTER}/tile/entries/{bundle:03}"
        data = it.site.files[place]
        asked, go_on = threading.Event(), threading.Event()

        def hold(handler: Handler) -> None:
            asked.set()
            go_on.wait(60)
            handler.reply(200, data)

        it.site.answers[place] = hold
        process = subprocess.Popen(command_line(*options(it)), env=environment(), stdout=subprocess.DEVNULL)
        assert asked.wait(60)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        go_on.set()
        it.site.answers.clear()
        value = told(it)
        assert value["ok"] is True
        assert [each["size"] for each in value["registers"]] == [3, 9_000]
        assert audited(it) == audited(whole)


# What is written down


def page() -> str:
    return (Path(__file__).resolve().parents[3] / "docs" / "auditing.md").read_text(encoding="utf-8")


def test_every_member_of_the_json_is_documented(it: Monitored) -> None:
    """False if a program had to guess what a member is, or one went away unnoticed."""
    private = decision(900, channel="whatsapp", device="privately_owned")
    it.held.turn([submission(REGISTER, [private], [DEPARTMENT_KEY])])
    it.publish()
    value = told(it, "--acknowledgements", it.folder, "--profile", "daybook-strict")
    documented = set(re.findall("`([a-z_]+)`", page().partition("\n## JSON\n")[2].partition("\n## ")[0]))
    assert set(value) <= documented
    assert value["registers"]
    for register in value["registers"]:
        assert set(register) <= documented
    (finding, *_) = (each for register in value["registers"] for each in register["findings"])
    assert set(finding) <= documented
    assert set(value["promises"]) <= documented


def test_every_code_of_a_finding_is_documented() -> None:
    """False if a reader met a finding of which nothing is said."""
    found = page().partition("\n## What it finds\n")[2].partition("\n## ")[0]
    documented = set(re.findall("`([a-z-]+)`", found))
    sources = (Path(services.auditing.__file__).parent).glob("*.py")
    stated = {
        code
        for path in sources
        for code in re.findall('AuditFinding\\(\\s*"([a-z-]+)"', path.read_text(encoding="utf-8"))
    }
    judged = {code for code, *_ in authority.SAID.values()}
    assert len(stated) >= 6
    assert stated | judged | set(KINDS) <= documented

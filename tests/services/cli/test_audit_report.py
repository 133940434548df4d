"""`daybook audit --report`: the page beside what the command says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger import canonical
from tests.support.command import run, run_json
from tests.support.ledgers import DEPARTMENT_KEY, REGISTER, submission
from tests.support.monitored import Monitored, monitored, sign
from tests.support.records import period_return, record_id


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Monitored]:
    with monitored(tmp_path) as it:
        it.held.fill(20)
        it.publish()
        yield it


def arguments(it: Monitored, report: Path) -> tuple[str | Path, ...]:
    options = ("--policy", it.policy_file, "--state", it.state, "--patience", "0")
    return ("audit", it.site.url, *options, "--report", report)


def test_the_page_says_what_the_command_says(it: Monitored, tmp_path: Path) -> None:
    """False if the command and its report could differ, or the page were left half written."""
    path = tmp_path / "report.html"
    path.write_text("an older report")
    told = run_json(*arguments(it, path))
    page = path.read_text(encoding="utf-8")
    assert told["verdict"] in page
    assert page.endswith("</html>\n")
    assert "Of 20 decisions: 20 not decided by the witnesses." in page
    assert [each.name for each in tmp_path.glob("report*")] == ["report.html"]


def test_the_command_tells_the_classes_that_its_report_has_counted(it: Monitored, tmp_path: Path) -> None:
    """False if the numbers were in the page only, or numbers were told that nobody had counted."""
    filed = canonical.format(
        period_return(
            register=REGISTER, period="2026-05", count=20, first=1, last=20, record_id=record_id(7_000)
        )
    )
    it.held.turn([submission(REGISTER, [filed], [DEPARTMENT_KEY])])
    it.held.add([20, 21])
    it.publish()
    audit = arguments(it, tmp_path / "report.html")
    told = {each["register"]: each for each in run_json(*audit[:-2])["registers"]}
    assert told[REGISTER]["timing"] is None
    assert told[REGISTER]["after_returns"] == {"added": 2, "changed": 0}
    told = {each["register"]: each for each in run_json(*audit)["registers"]}
    assert told[REGISTER]["timing"] == {
        "in_time": 0,
        "exempt": 0,
        "late_explained": 0,
        "late": 0,
        "impossible": 0,
        "undetermined": 22,
        "no_limit": 0,
    }
    lines = run(*audit).stdout.splitlines()
    assert "  Decisions by when they were registered: 22 not decided by the witnesses" in lines
    assert (
        "  Decisions by the returns before them: 2 added after the return that should have counted them"
        in lines
    )


def test_a_failure_is_told_and_its_status_kept_even_if_no_report_can_be_written(
    it: Monitored, tmp_path: Path
) -> None:
    """False if a full disk, or a folder in the way, could silence a fork."""
    run(*arguments(it, tmp_path / "report.html"))
    lie = [*it.entries(REGISTER)[:5], *reversed(it.entries(REGISTER)[5:])]
    it.site.put(REGISTER, lie, sign(REGISTER, lie))
    (tmp_path / "folder").mkdir()
    result = run(*arguments(it, tmp_path / "folder"), status=1)
    assert "Do not rely on this register" in result.stdout
    assert "The report was not written" in result.stderr
    assert "Traceback" not in result.output
    assert [each.name for each in tmp_path.glob("folder*")] == ["folder"]


def test_a_folder_that_is_not_there_is_said_before_the_audit_begins(it: Monitored, tmp_path: Path) -> None:
    """False if an hour's audit ended without its report for a mistyped folder."""
    result = run(*arguments(it, tmp_path / "no" / "report.html"), status=2)
    assert "no such folder" in result.output
    assert not it.state.exists()

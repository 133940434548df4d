from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from services.cli import COMMANDS, available, main
from services.cli.reporting import UsageError, fail
from tests.support.command import run
from tests.support.server import daybook, environment


@pytest.mark.parametrize("name", available())
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    """False if a newcomer had to look elsewhere for how a command is used."""
    assert f"daybook {name}" in run(name, "--help").stdout.replace("\n", " ")


def test_the_list_of_commands_loads_none_of_them() -> None:
    """False if `daybook --help` waited for gRPC and the rest to load."""
    program = """
import sys
from services.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0, end.code
loaded = [name for name in sys.modules if name.startswith("services.cli.") or name.split(".")[0] == "grpc"]
assert not loaded, loaded
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), check=True, capture_output=True, text=True
    )
    for name in available():
        assert name in done.stdout


def test_what_is_no_command_is_bad_usage() -> None:
    """False if a typing mistake ended as anything but status 2."""
    daybook("verfiy", status=2)
    daybook("verify", "--no-such-option", status=2)


@pytest.mark.parametrize(
    "given",
    [
        ("verify", "--no-such-option", "--json"),
        ("register", "--json"),
        ("govern", "led", "opn-register", "--json"),
        ("verfiy", "--json"),
    ],
)
def test_bad_usage_is_json_where_json_was_asked_for(
    given: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """False if a program that reads stdout found nothing there after a mistake in its own arguments."""
    with pytest.raises(SystemExit) as end:
        main(given)
    assert end.value.code == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["reason"] == "BAD_USAGE"
    assert error["message"]


def test_statuses_are_the_same_with_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """False if a command ended with another status because it was asked to print JSON."""
    for given, status in (
        (("keygen", f"{tmp_path}/key", "--json"), 0),
        (("keygen", f"{tmp_path}/key", "--json"), 2),
        (("policy", "show", f"{tmp_path}/none", "--json"), 3),
    ):
        with pytest.raises(SystemExit) as end:
            main(given)
        assert (end.value.code or 0) == status
        json.loads(capsys.readouterr().out)


def test_every_command_that_is_listed_is_there() -> None:
    """False if the table named a command whose module is missing."""
    assert set(available()) == set(COMMANDS)


def test_what_a_failure_says_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """False if a server, or a record, could write escapes to whoever reads its refusal."""
    with pytest.raises(typer.Exit):
        fail(UsageError("no \x1b[2J\u202e such\nrecord"), as_json=False)
    assert capsys.readouterr().err == "no \\x1b[2J\\u202e such\nrecord\n"

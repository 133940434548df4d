"""`daybook` commands inside the test's own process, where no server is needed: quick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from services.cli import command


def run(*arguments: str | Path, status: int = 0, stdin: bytes | None = None) -> Result:
    """Run a command to its end, and assert its exit status."""
    name, *rest = map(str, arguments)
    result = CliRunner().invoke(command(name), rest, prog_name=f"daybook {name}", input=stdin)
    assert result.exit_code == status, (
        f"exit {result.exit_code}, not {status}\n{result.output}\n{result.exception!r}"
    )
    return result


def run_json(*arguments: str | Path, status: int = 0) -> dict[str, Any]:
    """Run a command with --json; return the one object that it prints."""
    value: dict[str, Any] = json.loads(run(*arguments, "--json", status=status).stdout)
    return value

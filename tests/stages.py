"""Runs every check and test in stages, printing what each took: `make test`.

Stops at the first stage that fails. The last line sums up, for people and for CI.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

BIN: Final = Path(sys.executable).parent
PYTEST: Final = [str(BIN / "pytest"), "-q", "--no-header"]
IN_PARALLEL: Final = ["-n", "2", "--dist", "worksteal"]
FILE_BY_FILE: Final = ["-n", "2", "--dist", "loadfile"]
"""For tests that share what is slow to start, as a ledger, a broker or a database server, with their file."""

STAGES: Final = (
    ("check: format, lint, types, generated files", ["make", "--no-print-directory", "check"]),
    ("ledger: formats, proofs, rules", [*PYTEST, *IN_PARALLEL, "tests/ledger", "tests/stores", "tests/faults"]),
    ("services: gRPC, HTTP, client, command line", [*PYTEST, *IN_PARALLEL, "tests/services"]),
    (
        "journeys: real servers, documents, foreign clients, SIGKILL under load",
        [*PYTEST, *FILE_BY_FILE, "tests/journeys", "tests/docs", "tests/interop", "tests/hammer"],
    ),
    (
        "distributed: Kafka, PostgreSQL, every service",
        [*PYTEST, *FILE_BY_FILE, "-m", "not soak", "tests/distributed"],
    ),
    ("structure: imports, layout", [*PYTEST, "tests/test_imports.py"]),
)

_COUNTS: Final = re.compile(r"(\d+) (passed|failed|skipped)")


def main() -> int:
    """Run the stages; return the exit status."""
    totals = {"passed": 0, "failed": 0, "skipped": 0}
    began = time.monotonic()
    for name, command in STAGES:
        print(f"== {name}", flush=True)
        started = time.monotonic()
        status, lines = _run(command)
        for count, kind in _COUNTS.findall(lines):
            totals[kind] += int(count)
        print(
            f"== {name}: {'ok' if not status else 'FAILED'} in {time.monotonic() - started:.0f} s\n", flush=True
        )
        if status:
            break
    print(f"all stages: {time.monotonic() - began:.0f} s")
    print(f"{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped")
    return status


def _run(command: list[str]) -> tuple[int, str]:
    """Run one stage, showing its output as it comes; return its status and the last lines."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        tail = ""
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            tail = line if _COUNTS.search(line) else tail
    return process.returncode, tail


if __name__ == "__main__":
    sys.exit(main())

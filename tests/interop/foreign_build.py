"""Builds programs of others, and three small ones of ours over their libraries, to check Daybook against.

    .venv/bin/python -m tests.interop.foreign_build

Which programs, and at what versions, stands in foreign/go.mod; go.sum fixes every byte of them. Needs Go 1.25
or later. Modules come from the Go module proxy; what is built goes into .cache/foreign, so that a second run
needs no network. No C compiler is needed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.interop.go_command import find_go, run_go

ROOT: Final = Path(__file__).resolve().parents[2]
FOREIGN: Final = Path(__file__).resolve().parent / "foreign"
PROGRAMS: Final = ROOT / ".cache" / "foreign"

OLDEST_GO: Final = (1, 25)


def build() -> Path:
    """Build all programs and return their folder. Quick when nothing has changed: Go keeps what it made."""
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    # "tool" stands for the programs that go.mod names so. CGO_ENABLED=0: both SQLites are in Go as well.
    run_go(FOREIGN, OLDEST_GO, "build", "-o", f"{PROGRAMS}/", "tool", "./...", CGO_ENABLED="0")
    return PROGRAMS


def vet() -> str:
    """Run `go vet` over our own programs, and return the names of those that gofmt would change."""
    run_go(FOREIGN, OLDEST_GO, "vet", "./...", CGO_ENABLED="0")
    gofmt = Path(find_go(OLDEST_GO) or "").with_name("gofmt")
    return subprocess.run([gofmt, "-l", FOREIGN], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    print(build())
    sys.exit(0)

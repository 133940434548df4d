"""Runs the benchmarks and prints each with its floor, its ratio and its target; JSON in bench-results/.

Nothing is asserted: absolute times on a shared machine are noise, and a ratio is for a person to judge.

    python -m tests.bench            all
    python -m tests.bench a c        some, by letter
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import grpc
import uvloop

from ledger.stores.sqlite import PAGE_SIZE
from tests.bench import (
    at_a_million,
    auditing,
    detecting,
    distributed,
    evidencing,
    registering,
    sealing,
    witnessing,
)
from tests.bench.measure import Measure

_LETTERS: Final = "abcdefghijklmno"


def main() -> None:
    """Run the measures that are asked for."""
    asked = set("".join(sys.argv[1:])) or set(_LETTERS)
    if not asked <= set(_LETTERS):
        sys.exit(f"usage: python -m tests.bench [LETTER …], of {_LETTERS[0]} to {_LETTERS[-1]}; none for all")
    found: list[Measure] = []
    if asked & set("abc"):
        found += uvloop.run(registering.run(asked))
    if asked & set("def"):
        found += uvloop.run(at_a_million.run(asked))
    if "g" in asked:
        found += uvloop.run(sealing.run())
    if "h" in asked:
        found += uvloop.run(witnessing.run())
    if asked & set("ijkl"):
        found += uvloop.run(distributed.run(asked))
    if "m" in asked:
        found += detecting.run()
    if "n" in asked:
        found += evidencing.run()
    if "o" in asked:
        found += auditing.run()
    machine = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "grpc": grpc.__version__,
        "sqlite": sqlite3.sqlite_version,
        "journal": "WAL, synchronous=FULL",
        "page_size": PAGE_SIZE,
    }
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine.items()))
    for measure in found:
        print(measure.line())
    folder = Path("bench-results")
    folder.mkdir(exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps({"machine": machine, "measures": [asdict(one) for one in found]}, indent=2))
    print(f"\nJSON: {path}")


main()

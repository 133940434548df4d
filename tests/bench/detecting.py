"""Detections, (m): precision and recall of each over years of the fictional department, and entries a second.

Entries are observed in a process of their own, as facts that are made one by one, so that its memory is that of
the detector. The floor keeps one row of each fact in one table.

    python -m tests.bench.detecting 1000000        that process
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from ledger.record_types import DecisionRegistered, Reference
from ledger.records import parse_record
from ledger.timeline import Bounds
from services.auditing.calendars import packaged
from services.auditing.detecting import Detector
from services.auditing.detections.rules import RULES
from services.auditing.facts import Fact
from services.auditing.profiles import shipped
from tests.bench.measure import Measure
from tests.support.records import REGISTER, decision_bytes
from tests.support.synthetic_plants import make_year
from tests.support.synthetic_year import matches

SEEDS: Final = range(2024, 2034)
ENTRIES: Final = 1_000_000
MORE: Final = 1_000
BEGIN: Final = 1_704_100_000
STEP: Final = 30
"""Seconds from one decision to the next."""


def run() -> list[Measure]:
    """Return the measures."""
    return [*_quality(), *_speed()]


def _quality() -> Iterator[Measure]:
    planted, hit, made, right = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for seed in SEEDS:
        year = make_year(seed)
        with Detector(None, shipped("daybook-strict"), packaged("dept-ew")) as detector:
            for facts in year.facts.values():
                detector.observe(facts)
            found = list(detector.found(year.now))
        marks = [(each.detection, each.register, each.indices, each.inputs.get("what", "")) for each in found]
        for truth in year.truth:
            planted[truth.detection] += 1
            hit[truth.detection] += any(matches(truth, *mark) for mark in marks)
        for mark in marks:
            made[mark[0]] += 1
            right[mark[0]] += any(matches(truth, *mark) for truth in year.truth)
    for rule in RULES.values():
        id_ = rule.id
        recall, precision = hit[id_] / max(1, planted[id_]), right[id_] / max(1, made[id_])
        named = f"{id_} {rule.name}"
        for name, value, of in (("recall", recall, planted[id_]), ("precision", precision, made[id_])):
            yield Measure("m", f"{named}, {name} over {of}", value, None, "", None, "1", value == 1)


def _speed() -> Iterator[Measure]:
    command = [sys.executable, "-m", "tests.bench.detecting", str(ENTRIES)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    floor = _one_row_each(ENTRIES // 10)
    value = told["entries_a_second"]
    yield Measure(
        "m",
        f"detections of {ENTRIES:,} plain decisions",
        value,
        floor,
        "entries/s",
        value / floor,
        "100,000",
        value >= 1e5,
    )
    more = told["more_seconds"]
    yield Measure("m", f"{MORE:,} more, and all findings again", more, None, "s", None, "1", more <= 1)
    memory = told["megabytes"]
    yield Measure("m", "memory of the detector", memory, None, "MB", None, "100", memory <= 100)


def _facts(first: int, count: int) -> Iterator[Fact]:
    base = parse_record(decision_bytes())
    assert isinstance(base, DecisionRegistered)
    for index in range(first, first + count):
        at = BEGIN + STEP * index
        text = f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
        # Spread as random ones are, and the same each time.
        spread = index * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128)
        record = msgspec.structs.replace(
            base,
            captured_at=text,
            decided_at=text,
            record_id=str(UUID(int=spread, version=4)),
            reference=Reference(number=index + 1, series="MD/2026"),
        )
        bounds = Bounds(at + 590, at + 620, comparable=True)
        yield Fact(
            REGISTER, index, record, record.type, bytes(32), at + 600, "anonymous", None, index, 7, bounds
        )


def _one_row_each(count: int) -> float:
    """Return the facts a second of which one row is kept."""
    with tempfile.TemporaryDirectory(prefix="daybook-bench-") as folder:
        connection = sqlite3.connect(Path(folder) / "rows.sqlite3", isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("CREATE TABLE facts (place INTEGER PRIMARY KEY, record TEXT, at REAL) STRICT")
        facts = list(_facts(0, count))
        began = time.perf_counter()
        connection.execute("BEGIN")
        rows = (
            (fact.index, fact.record.record_id, fact.accepted_at) for fact in facts if fact.record is not None
        )
        connection.executemany("INSERT INTO facts VALUES (?, ?, ?)", rows)
        connection.execute("COMMIT")
        return count / (time.perf_counter() - began)


def _peak() -> int:
    """Return the most memory that this process has had, in KiB; what its parent had does not count."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])


def _observe(count: int) -> None:
    """Observe so many facts and print what it took. The time that it takes to make them is not counted."""
    with tempfile.TemporaryDirectory(prefix="daybook-bench-") as folder:
        path = Path(folder) / "facts.sqlite3"
        with Detector(path, shipped("daybook-strict"), packaged("dept-ew")) as detector:
            before = _peak()
            began = time.perf_counter()
            for _ in _facts(0, count):
                pass
            making = time.perf_counter() - began
            began = time.perf_counter()
            detector.observe(_facts(0, count))
            seconds = time.perf_counter() - began - making
            assert list(detector.found()) == []
            began = time.perf_counter()
            detector.observe(_facts(count, MORE))
            list(detector.found())
            more = time.perf_counter() - began
            after = _peak()
    told = {"entries_a_second": count / seconds, "more_seconds": more, "megabytes": (after - before) / 1024}
    print(json.dumps(told))


if __name__ == "__main__":
    _observe(int(sys.argv[1]))

"""Evidence packs, (n): a thousand witnessed and anchored records packed, then verified here and in Chromium.

The floor of packing and of verifying here is to hash the same files, SHA-256 and SHA-512, and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.bench.measure import Measure
from tests.support.chromium import ChromiumMissingError, chromium
from tests.support.command import run as command
from tests.support.ledgers import REGISTER
from tests.support.monitored import WITNESSED, monitored

RECORDS: Final = 1_000
ROUNDS: Final = 10
"""Checkpoints under which the records come in, each sealed and anchored."""

PACKED_WITHIN: Final = 10.0
VERIFIED_WITHIN: Final = 5.0


def run() -> list[Measure]:
    """Return the measures."""
    with tempfile.TemporaryDirectory() as folder:
        return list(_measures(Path(folder)))


def _measures(folder: Path) -> Iterator[Measure]:
    pack = folder / "pack.zip"
    with monitored(folder, WITNESSED) as it:
        for number in range(1, ROUNDS + 1):
            it.held.fill(RECORDS * number // ROUNDS)
            it.publish(at=20 * number)
            it.anchor()
            it.publish(at=20 * number + 1)
            asyncio.run(it.round(at=20 * number + 2))
        given = ("--register", REGISTER, "--policy", it.policy_file)
        began = time.perf_counter()
        command("evidence", *given, "--state", it.state, "--out", pack)
        packing = time.perf_counter() - began
        policy = it.policy_file
        began = time.perf_counter()
        command("verify", pack, "--policy", policy)
        verifying = time.perf_counter() - began
    floor = _hashing(pack)
    named = f"evidence pack of {RECORDS:,} records, {pack.stat().st_size / 1e6:.1f} MB"
    yield _measure(f"{named}, made", packing, floor, PACKED_WITHIN)
    yield _measure(f"{named}, daybook verify", verifying, floor, VERIFIED_WITHIN)
    try:
        yield _measure(
            f"{named}, verified in Chromium", _in_chromium(pack, policy, folder), None, VERIFIED_WITHIN
        )
    except ChromiumMissingError as missing:
        print(f"(n) not measured in Chromium: {missing}")


def _measure(name: str, seconds: float, floor: float | None, within: float) -> Measure:
    ratio = None if floor is None else seconds / floor
    return Measure("n", name, seconds, floor, "s", ratio, f"< {within:.0f} s", seconds < within)


def _hashing(pack: Path) -> float:
    with zipfile.ZipFile(pack) as archive:
        files = [archive.read(each) for each in archive.infolist()]
    began = time.perf_counter()
    for data in files:
        hashlib.sha256(data).digest()
        hashlib.sha512(data).digest()
    return time.perf_counter() - began


def _in_chromium(pack: Path, policy: Path, folder: Path) -> float:
    """Return the seconds from the choice of the pack to green."""
    with zipfile.ZipFile(pack) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith("verify.html")]
        (folder / "verify.html").write_bytes(archive.read(name))
    with chromium() as browser:
        page = browser.new_context(offline=True).new_page()
        page.goto((folder / "verify.html").as_uri())
        page.set_input_files("#policy", policy)
        page.wait_for_selector("#policy-said[data-policy=own]")
        began = time.perf_counter()
        page.set_input_files("#zip", pack)
        page.wait_for_selector("#result[data-verdict=green]", timeout=120_000)
        return time.perf_counter() - began

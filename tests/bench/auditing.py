"""`daybook audit` over loopback HTTP, (o): a whole register, one of single records, and what is new.

The floor is a loop that only downloads every entry bundle and hashes what is in it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import aiohttp

from ledger.tiles import TILE_WIDTH, Bundle, decode_bundle
from services.compose import embedded
from tests.bench.corpus import submission
from tests.bench.floors import hash_both_trees
from tests.bench.measure import Measure
from tests.support.ledger_dir import LedgerOnDisk, make_ledger, register_all
from tests.support.ledgers import REGISTER

ENTRIES: Final = 1_000_000
TOGETHER: Final = 500
ALONE: Final = 100_000
"""Entries of the register of which each came by itself."""

NEW: Final = 1_000
PEAK: Final = 300.0
"""Megabytes."""


def run() -> list[Measure]:
    """Return the measures."""
    return [*_of(ENTRIES, TOGETHER, is_first=True), *_of(ALONE, 1, is_first=False)]


def _of(entries: int, together: int, *, is_first: bool) -> Iterator[Measure]:
    print(f"filling a register with {entries:,} entries, {together} a submission …", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="daybook-bench-") as name:
        folder = Path(name)
        ledger = make_ledger(folder / "ledger")
        _fill(ledger, entries, together)
        policy = folder / "policy"
        policy.write_bytes(ledger.policy.text())
        with _serving(ledger.root) as url:
            seconds, peak = _audited(url, policy, folder / "state")
            floor = asyncio.run(_downloaded_and_hashed(url, entries, together))
        rate, ratio = entries / seconds, entries / seconds / floor
        what = f"audit of {entries:,} entries, submissions of {together}"
        yield Measure("o", what, rate, floor, "entries/s", ratio, "aim 50,000/s", rate >= 50_000)
        if is_first:
            yield Measure("o", f"{what}: peak memory", peak, None, "MB", None, "< 300", peak < PEAK)
            _fill(ledger, NEW, TOGETHER)
            with _serving(ledger.root) as url:
                again, _ = _audited(url, policy, folder / "state")
                nothing, _ = _audited(url, policy, folder / "state")
            what = f"audit of {NEW:,} new ones, the whole command, beside that of none"
            met = again - nothing < 1
            yield Measure("o", what, again, nothing, "s", again / nothing, "1 s more", met)


def _fill(ledger: LedgerOnDisk, entries: int, together: int) -> None:
    async def fill() -> None:
        with embedded(ledger.directory) as opened:
            running = asyncio.create_task(opened.sequencer.run())
            left = entries // together
            while left:
                several = [submission(together) for _ in range(min(left, 64))]
                await asyncio.gather(*(register_all(opened, [one]) for one in several))
                left -= len(several)
            opened.sequencer.drain()
            await running

    asyncio.run(fill())


@contextmanager
def _serving(root: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "services.cli", "serve", str(root), "--json"]
    with subprocess.Popen(
        [*command, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://{json.loads(process.stdout.readline())['http']}"
        finally:
            process.terminate()


_WATCHED: Final = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""
"""Runs a command and prints its peak of memory: started from here it would begin with that of this process."""


def _audited(url: str, policy: Path, state: Path) -> tuple[float, float]:
    """Run the command; return its seconds and its peak of memory, in megabytes."""
    command = [sys.executable, "-m", "services.cli", "audit", url, "--policy", str(policy)]
    began = time.perf_counter()
    watched = [sys.executable, "-c", _WATCHED, *command, "--state", str(state), "--json"]
    done = subprocess.run(watched, check=True, capture_output=True, text=True)
    return time.perf_counter() - began, int(done.stdout) / 1e3


async def _downloaded_and_hashed(url: str, entries: int, together: int) -> float:
    """Return entries a second of reading every bundle and hashing both trees of what is in it."""
    bundles = (
        Bundle(index, min(TILE_WIDTH, entries - index * TILE_WIDTH))
        for index in range(-(-entries // TILE_WIDTH))
    )
    read: list[bytes] = []
    began = time.perf_counter()
    async with aiohttp.ClientSession() as session:

        async def fetch(bundle: Bundle) -> list[bytes]:
            async with session.get(f"{url}/logs/{REGISTER}/{bundle.path()}") as answer:
                answer.raise_for_status()
                return decode_bundle(await answer.read(), bundle.width)

        while several := [bundle for bundle, _ in zip(bundles, range(16), strict=False)]:
            for found in await asyncio.gather(*map(fetch, several)):
                read += found
            whole = len(read) // together * together
            hash_both_trees([read[at : at + together] for at in range(0, whole, together)])
            del read[:whole]
    return entries / (time.perf_counter() - began)

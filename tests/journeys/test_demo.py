"""`make demo`, as a newcomer runs it."""

import re
import subprocess
import sys

import pytest

from services.demo import curated


@pytest.mark.timeout(1_800)
def test_the_demo_proves_the_published_decisions_and_catches_whoever_cheats() -> None:
    """False if a newcomer's first command failed, or registered or proved something else than it says."""
    done = subprocess.run(
        [sys.executable, "-m", "services.demo"], capture_output=True, text=True, timeout=1_500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counted = [int(number) for number in re.findall(r"^(\d+) records? registered", done.stdout, re.MULTILINE)]
    assert sum(counted) == len(curated.registered()) == 29
    assert "25 records passed over" in done.stdout
    assert "All 29 receipts verify." in done.stdout
    assert "changed.receipt does NOT verify" in done.stdout
    assert "Caught: exit status 1." in done.stdout
    assert "not witnessed" not in done.stdout
    # The older copy is refused, with two notes of one register: the ledger's, and the one that a witness holds.
    assert re.search(
        r"witness \S+ holds \d+ entries, where this ledger has \d+\. Nothing more is signed", done.stdout
    )
    shown = done.stdout[done.stdout.index("row R12 of the award notices") :]
    by_when, not_before = re.findall(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$", shown, re.MULTILINE)[:2]
    assert not_before <= by_when
    assert "Witnessed  by regulator.example/witness, archive.example/witness" in shown
    assert re.search(r"Anchored   entry \d+ of the governing register carries", shown)
    assert re.search(r"Everything holds: 6 registers, \d+ entries, .* cosignatures\.", done.stdout)
    for row in curated.context():
        assert f"  {row.row}: " in done.stdout
        assert row.reason in done.stdout

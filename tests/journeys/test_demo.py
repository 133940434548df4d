"""`make demo`, as a newcomer runs it."""

import re
import subprocess
import sys

from services.demo import curated


def test_the_demo_proves_the_published_decisions_and_catches_a_changed_byte() -> None:
    """False if a newcomer's first command failed, or registered something else than it says."""
    done = subprocess.run(
        [sys.executable, "-m", "services.demo"], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counted = [int(number) for number in re.findall(r"^(\d+) records? registered", done.stdout, re.MULTILINE)]
    assert sum(counted) == len(curated.registered()) == 29
    assert "25 records passed over" in done.stdout
    assert "All 29 receipts verify." in done.stdout
    assert "changed.receipt does NOT verify" in done.stdout
    assert "Caught: exit status 1." in done.stdout
    assert "not witnessed" in done.stdout
    assert "Everything holds: 6 registers, 39 entries" in done.stdout
    for row in curated.context():
        assert f"  {row.row}: " in done.stdout
        assert row.reason in done.stdout

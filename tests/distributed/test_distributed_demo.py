"""`make distributed`: the commands of docs/distributed.md, on a Kafka and a PostgreSQL of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.brokers import needs_kafka

COMMAND = [sys.executable, "-m", "services.demo.distributed"]


@needs_kafka
@pytest.mark.usefixtures("postgres")
@pytest.mark.journey
@pytest.mark.timeout(1_800)
def test_the_demo_ends_with_equal_roots() -> None:
    """False if an operator who follows the page were stopped, or a ledger came back from Kafka as another."""
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=False, timeout=1_500)
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    assert "All 29 receipts verify" in done.stdout
    assert "Equal roots: " in done.stdout
    assert "everything is stopped" in done.stdout


@pytest.mark.timeout(1_800)
def test_where_java_is_missing_it_says_what_to_install() -> None:
    """False if a newcomer without Java met a traceback."""
    without = {**os.environ, "JAVA_HOME": "/nowhere"}
    done = subprocess.run(COMMAND, env=without, capture_output=True, text=True, check=False, timeout=1_500)
    assert done.returncode == 3
    assert "Java" in done.stderr
    assert "Traceback" not in done.stderr

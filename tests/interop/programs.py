"""Small acts that several tests with foreign programs share."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable


def fetch(url: str) -> bytes:
    """Return what an HTTP address on this machine answers with status 200."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        data: bytes = answer.read()
        return data


def wait_until(is_so: Callable[[], object], what: str, *, seconds: float = 60.0) -> None:
    """Wait until something is so; fail the test where it is not in time. `what` says what was waited for."""
    give_up = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < give_up, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)

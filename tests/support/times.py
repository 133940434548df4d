"""Times as tests write them."""

from __future__ import annotations

from datetime import datetime


def seconds(instant: str) -> int:
    """Return an instant such as ``2026-06-25T23:30:00Z`` in POSIX seconds."""
    return int(datetime.fromisoformat(instant).timestamp())

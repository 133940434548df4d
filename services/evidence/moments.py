"""Times as a pack tells them: in UTC, and in the civil time of London."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

LOCAL: Final = ZoneInfo("Europe/London")
"""Whose civil time stands beside UTC."""

INCOMPARABLE: Final = "two quorums may share no witness: the two may not be compared"
"""What is said of two times under a policy of which that holds (formats.md, section 15)."""


def moment(seconds: int) -> str:
    """Return POSIX seconds in UTC and in the civil time of London, where a calendar has them."""
    try:
        at = datetime.fromtimestamp(seconds, UTC)
        return f"{at:%Y-%m-%dT%H:%M:%SZ} ({at.astimezone(LOCAL):%d %B %Y %H:%M:%S %Z})"
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"

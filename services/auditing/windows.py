"""Times as a reader is shown them: instants, and the window in which an entry came in."""

from __future__ import annotations

from ledger.timeline import Bounds
from services.monitoring.findings import instant


def shown_time(seconds: float) -> str:
    """Return POSIX seconds as an instant; a witness may have signed a time that no calendar has."""
    try:
        return instant(seconds)
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.0f} s"


def shown_bounds(bounds: Bounds) -> str:
    """Return the window in which an entry came into the witnessed history, in words."""
    after = "unknown" if bounds.not_before is None else shown_time(bounds.not_before)
    before = "unknown" if bounds.not_after is None else shown_time(bounds.not_after)
    return f"not before {after}, not after {before}"

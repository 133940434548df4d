"""A browser for tests of the report."""

from __future__ import annotations

from tests.support.chromium import browser

__all__ = ["browser"]

"""Small acts that several tests with foreign programs share."""

from __future__ import annotations

import urllib.request


def fetch(url: str) -> bytes:
    """Return what an HTTP address on this machine answers with status 200."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        data: bytes = answer.read()
        return data

"""Reads the test vectors in tests/vectors (see SOURCES.md there)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ledger.hashing import Hash

VECTORS = Path(__file__).parent.parent / "vectors"


def load(name: str) -> Any:
    """Return the value of a JSON vector file."""
    return json.loads((VECTORS / name).read_bytes())


def hashes(values: list[str]) -> list[Hash]:
    """Return the hashes that a vector file gives in hex."""
    return [Hash(bytes.fromhex(value)) for value in values]

"""Files of what an audit's detections found, checked by somebody who was given one (docs/detections.md).

A first line says of which register the others are, then each finding has a line. They name entries by hash and
prove nothing: what can be checked is that the lines are whole, and that a state has the very same entries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ledger import base64
from ledger.errors import MalformedError
from ledger.hashing import leaf_hash
from ledger.values import is_register
from services.monitoring.state import State

TYPE: Final = "daybook.detections/1"
"""The type that the first line states."""

MAX_LINE: Final = 64 * 1024 * 1024
"""Bytes of the longest line."""

_ID: Final = 16
_AT_ONCE: Final = 1_024


def is_detections(line: bytes) -> bool:
    """Tell whether a file with this first line is one of detections."""
    try:
        head = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(head, dict) and head.get("type") == TYPE


def check_detections(path: Path, state: State | None = None) -> str:
    """Check that a file is whole and, where a state is given, that its entries stand there; say what it is.

    Raises MalformedError where it is not so, OSError, StoreError.
    """
    findings = 0
    try:
        lines = _lines(path)
        head = next(lines, None)
        if head is None or head["type"] != TYPE:
            raise MalformedError("not a file of detections")
        ledger, register, size = head["ledger"], head["register"], head["size"]
        if not isinstance(ledger, str) or not is_register(register) or not isinstance(size, int):
            raise MalformedError("its first line does not say of which register it is")
        if state is not None:
            _check_head(state, ledger, register, size, head["root"])
        for number, line in enumerate(lines, 2):
            _check_id(number, line)
            findings += 1
            if state is not None:
                _check_entries(state, register, size, line["entries"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedError(f"not a whole file of detections: {error!r}") from error
    counted = "1 finding" if findings == 1 else f"{findings:,} findings"
    return f"{counted} of detections in the first {size:,} entries of {register} of the ledger {ledger!a}"


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE + 1):
            if len(line) > MAX_LINE or not line.endswith(b"\n"):
                raise MalformedError("a line is cut off, or too long")
            yield json.loads(line)


def _check_id(number: int, line: Mapping[str, Any]) -> None:
    """Check that a finding is the one that its name was given to."""
    members = {name: value for name, value in line.items() if name not in ("id", "entries")}
    named = hashlib.sha256(json.dumps(members, sort_keys=True).encode()).hexdigest()[:_ID]
    if line["id"] != named:
        raise MalformedError(f"line {number} was altered: it is not the finding that its id names")


def _check_head(state: State, ledger: str, register: str, size: int, root: str) -> None:
    if ledger != state.mirror.origin:
        raise MalformedError(f"it is of the ledger {ledger!a}, and your state of {state.mirror.origin}")
    held = state.size(register)
    if not 0 <= size <= held:
        raise MalformedError(
            f"it is of {size} entries of {register}, of which your state has {held}: read on first"
        )
    if base64.decode(root) != state.mirror.reader(register).root(size):
        raise MalformedError(f"it is of another history of {register} than your state: compare the two states")


def _check_entries(state: State, register: str, size: int, entries: list[Mapping[str, Any]]) -> None:
    for begin in range(0, len(entries), _AT_ONCE):
        stated = {each["index"]: each["sha256"] for each in entries[begin : begin + _AT_ONCE]}
        if any(not isinstance(index, int) or not 0 <= index < size for index in stated):
            raise MalformedError(f"it names an entry beyond the {size} that it is of")
        held = state.mirror.store.entries_at(register, sorted(stated))
        for index, digest in stated.items():
            if leaf_hash(held[index]).hex() != digest:
                raise MalformedError(f"entry {index} of {register} has another hash in your state")

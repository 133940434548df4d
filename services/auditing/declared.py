"""Objects that somebody declares in a file or publishes: profiles, and overrides of calendars.

They are canonical JSON as records are (formats.md, section 1), so that a published one and a file with the same
content have the same digest. Their types say what may stand in them; everything else is refused, with reasons.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from ledger import canonical
from ledger.errors import MalformedError, Violation
from ledger.record_rules import refusal
from ledger.record_types import Members
from ledger.shapes import shape_of

MAX_FILE: Final = 61_440
"""Bytes of the longest file: what does not fit into a record cannot be published."""

_Declared = TypeVar("_Declared", bound=Members)
_encode: Final = msgspec.json.Encoder(order="sorted").encode


def parse(
    value: object,
    declared_type: type[_Declared],
    rules: Callable[[Mapping[str, Any]], Iterable[Violation]] | None = None,
) -> _Declared:
    """Return the object that a JSON value is. `rules` are asked what else is wrong with one of the right shape.

    Raises RejectedError with everything that is wrong, MalformedError for a character that no record may have.
    """
    found = tuple(shape_of(declared_type).faults(value, ""))
    if not found and isinstance(value, Mapping) and rules is not None:
        found = tuple(rules(value))
    if found:
        raise refusal(found)
    declared = msgspec.convert(value, declared_type)
    canonical.parse(_encode(declared))
    return declared


def digest(declared: Members) -> str:
    """Return the SHA-256 of an object's canonical JSON, as hex."""
    return hashlib.sha256(_encode(declared)).hexdigest()


def members(declared: Members) -> dict[str, Any]:
    """Return an object as the JSON value that is published."""
    value: dict[str, Any] = json.loads(_encode(declared))
    return value


def read_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in a file's bytes, however it is laid out; no name may stand twice.

    Raises MalformedError.
    """
    if len(data) > MAX_FILE:
        raise MalformedError(f"more than {MAX_FILE} bytes")
    try:
        value = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise MalformedError("not a JSON object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise MalformedError(f"the member {twice!a} stands twice")
    return value

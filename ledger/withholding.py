"""Withheld fields: a salted digest in the record, and the disclosure that opens it (formats.md, section 4).

Withholding happens on the department's side, and the ledger never receives a value or a salt. Whoever
destroys both has erased the field, and every proof still holds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NoReturn

from ledger import canonical
from ledger.errors import MalformedError, Reason, VerificationError, Violation
from ledger.record_rules import pattern_of, refusal
from ledger.records import KNOWN_TYPES, violations
from ledger.shapes import shape_of
from ledger.values import is_register, is_sha256, is_uuid

SALT_SIZE: Final = 32
"""Bytes of a salt."""

DISCLOSURE_TYPE: Final = "disclosure/1"


@dataclass(frozen=True, slots=True, repr=False)
class Opening:
    """What opens one field: path, 32-byte salt and the value as parsed JSON. Secret until disclosed."""

    path: str
    salt: bytes
    value: Any


@dataclass(frozen=True, slots=True)
class Disclosure:
    """Openings of fields of one record version, sorted by path, no path twice."""

    register: str
    record_id: str
    version: int
    openings: tuple[Opening, ...]

    def format(self) -> bytes:
        """Return the disclosure file, as canonical JSON."""
        return canonical.format(
            {
                "disclosures": [
                    {"path": opening.path, "salt": opening.salt.hex(), "value": opening.value}
                    for opening in self.openings
                ],
                "record_id": self.record_id,
                "register": self.register,
                "type": DISCLOSURE_TYPE,
                "version": self.version,
            }
        )

    def only(self, paths: Iterable[str]) -> Disclosure:
        """Return the disclosure of these paths alone. Raises MalformedError if there are none."""
        wanted = frozenset(paths)
        openings = tuple(opening for opening in self.openings if opening.path in wanted)
        if not openings:
            raise MalformedError("a disclosure opens at least one field")
        return Disclosure(self.register, self.record_id, self.version, openings)


def withheld_digest(
    *, ledger_origin: str, register: str, record_id: str, version: int, path: str, salt: bytes, value: Any
) -> str:
    """Return the digest, 64 hex digits, that stands for a withheld value.

    SHA-256("daybook.withheld/1" LF register origin LF record_id LF version LF path LF || salt || value), the
    value as canonical JSON. Raises MalformedError for a salt of another size than 32 bytes.
    """
    if len(salt) != SALT_SIZE:
        raise MalformedError(f"salt of {path}: {len(salt)} bytes, not {SALT_SIZE}")
    stated = f"daybook.withheld/1\n{ledger_origin}/{register}\n{record_id}\n{version}\n{path}\n"
    return hashlib.sha256(stated.encode() + salt + canonical_value(value)).hexdigest()


def canonical_value(value: Any) -> bytes:
    """Return the canonical JSON of any value: a string keeps its quotes. Raises MalformedError."""
    return canonical.format({"v": value})[len('{"v":') : -1]


def withhold(
    record: Mapping[str, Any], paths: Sequence[str], ledger_origin: str, salts: Mapping[str, bytes]
) -> tuple[dict[str, Any], Disclosure]:
    """Return `record` with the fields at `paths` withheld, and the disclosure that opens them all.

    `record` is parsed JSON with every value in clear, the `name` of officers and participants too; `salts`
    has, for every path, 32 bytes fresh from the system's random source. The items of a list are withheld all
    or none. Nothing that is passed in changes. Raises RejectedError with every violation, of the values and
    of the record that results; MalformedError for a path without a value or without a salt of its own.
    """
    if not paths or len(set(paths)) != len(paths):
        raise MalformedError("the paths to withhold: none, or one twice")
    for path in paths:
        if len(salts.get(path, b"")) != SALT_SIZE:
            raise MalformedError(f"salt of {path}: not {SALT_SIZE} bytes")
    if len({salts[path] for path in paths}) != len(paths):
        raise MalformedError("two fields share a salt: each needs its own")
    openings = tuple(Opening(path, salts[path], _value_at(record, path)) for path in sorted(paths))
    for name in ("record_id", "register", "version"):
        if name not in record:
            raise MalformedError(f"{name}: the digests need it")
    disclosure = Disclosure(record["register"], record["record_id"], record["version"], openings)
    found = _values_faults(record, openings)
    left = _without(record, frozenset(paths))
    left["withheld"] = {**record.get("withheld", {}), **_digests(disclosure, ledger_origin)}
    found += violations(left)
    if found:
        raise refusal(found)
    return left, disclosure


def parse_disclosure(data: bytes) -> Disclosure:
    """Parse a disclosure file: JSON in any layout, its members exactly those of `disclosure/1`.

    Raises MalformedError.
    """
    value = _members(_json(data), ("disclosures", "record_id", "register", "type", "version"), "disclosure")
    if value["type"] != DISCLOSURE_TYPE:
        raise MalformedError(f"disclosure: type is not {DISCLOSURE_TYPE}")
    register, record_id, version = value["register"], value["record_id"], value["version"]
    if not isinstance(register, str) or not is_register(register):
        raise MalformedError("disclosure: register is ill formed")
    if not isinstance(record_id, str) or not is_uuid(record_id):
        raise MalformedError("disclosure: record_id is no UUID")
    if type(version) is not int or not 1 <= version <= canonical.MAX_INTEGER:
        raise MalformedError("disclosure: version is not an integer from 1")
    if not isinstance(value["disclosures"], list) or not value["disclosures"]:
        raise MalformedError("disclosure: disclosures is no list, or empty")
    openings = tuple(_opening(item) for item in value["disclosures"])
    if any(first.path >= second.path for first, second in pairwise(openings)):
        raise MalformedError("disclosure: paths are not sorted, or one stands twice")
    return Disclosure(register, record_id, version, openings)


def open_disclosure(disclosure: Disclosure, record: bytes, ledger_origin: str) -> dict[str, Any]:
    """Return the opened values by path, each shown to be what the record withheld.

    `record` is the bytes whose inclusion was verified, and `ledger_origin` that of the verified checkpoint.
    Raises VerificationError where a field is not withheld in this record, or its digest differs;
    RejectedError where a value that opens breaks the rules of its field; MalformedError for a record that
    is not JSON.
    """
    value = _json(record)
    if not isinstance(value, dict):
        raise MalformedError("record: not a JSON object")
    for name, stated in (
        ("register", disclosure.register),
        ("record_id", disclosure.record_id),
        ("version", disclosure.version),
    ):
        if type(value.get(name)) is not type(stated) or value[name] != stated:
            raise VerificationError(f"disclosure: of another record: {name} differs")
    digests = value.get("withheld")
    if not isinstance(digests, dict):
        raise VerificationError("disclosure: the record withholds nothing")
    for path, digest in _digests(disclosure, ledger_origin).items():
        if digests.get(path) != digest:
            raise VerificationError(f"disclosure: {path} does not open a field of this record")
    if found := _values_faults(value, disclosure.openings):
        raise refusal(found)
    return {opening.path: opening.value for opening in disclosure.openings}


def _digests(disclosure: Disclosure, ledger_origin: str) -> dict[str, str]:
    return {
        opening.path: withheld_digest(
            ledger_origin=ledger_origin,
            register=disclosure.register,
            record_id=disclosure.record_id,
            version=disclosure.version,
            path=opening.path,
            salt=opening.salt,
            value=opening.value,
        )
        for opening in disclosure.openings
    }


def _values_faults(record: Mapping[str, Any], openings: Iterable[Opening]) -> tuple[Violation, ...]:
    """Return what is wrong with the values, each judged by the rules of its field."""
    name = record.get("type")
    record_type = KNOWN_TYPES.get(name) if isinstance(name, str) else None
    if record_type is None:
        return (Violation(Reason.UNKNOWN_TYPE, "is not a type that is defined", "type"),)
    known = record_type.WITHHOLDABLE
    found: list[Violation] = []
    for opening in openings:
        annotation = known.get(pattern_of(opening.path))
        if annotation is None:
            found.append(
                Violation(Reason.INVALID_FIELD, "is no path that may be withheld", opening.path, tuple(known))
            )
        else:
            found.extend(shape_of(annotation).faults(opening.value, opening.path))
    return tuple(found)


def _value_at(record: Mapping[str, Any], path: str) -> Any:
    value: Any = record
    for step in path.split("."):
        name, slash, index = step.partition("/")
        value = value.get(name) if isinstance(value, Mapping) else None
        if slash:
            places = {str(place): item for place, item in enumerate(value if isinstance(value, list) else ())}
            value = places.get(index)
    if value is None:
        raise MalformedError(f"{path}: the record has no value there")
    return value


def _without(record: Mapping[str, Any], paths: frozenset[str]) -> dict[str, Any]:
    """Return a copy of `record` without the values at `paths`, and without what that leaves empty."""
    left: dict[str, Any] = {}
    for name, value in record.items():
        if name in paths:
            continue
        if isinstance(value, Mapping) and name != "withheld":
            kept: Any = {key: item for key, item in value.items() if f"{name}.{key}" not in paths}
        elif isinstance(value, list):
            kept = [
                _item(item, f"{name}/{index}", paths)
                for index, item in enumerate(value)
                if f"{name}/{index}" not in paths
            ]
        else:
            kept = value
        if kept not in ({}, []):
            left[name] = kept
    return left


def _item(item: Any, place: str, paths: frozenset[str]) -> Any:
    if not isinstance(item, Mapping):
        return item
    return {key: value for key, value in item.items() if f"{place}.{key}" not in paths}


def _opening(item: object) -> Opening:
    value = _members(item, ("path", "salt", "value"), "disclosures")
    path, salt = value["path"], value["salt"]
    if not isinstance(path, str) or not path:
        raise MalformedError("disclosures: path is no string")
    if not isinstance(salt, str) or not is_sha256(salt):
        raise MalformedError("disclosures: salt is not 64 lower-case hex digits")
    return Opening(path, bytes.fromhex(salt), value["value"])


def _members(value: object, names: tuple[str, ...], what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or sorted(value) != sorted(names):
        raise MalformedError(f"{what}: not an object of {', '.join(names)}")
    return value


def _json(data: bytes) -> Any:
    try:
        return json.loads(data.decode(), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not JSON: {error}") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise MalformedError("a member stands twice")
    return value


def _no_constant(constant: str) -> NoReturn:
    raise MalformedError(f"not JSON: {constant}")

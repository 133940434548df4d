"""Records from a file: `.csv`, `.json` and `.ndjson` into canonical bytes (formats.md, sections 1 to 3).

**CSV.** The first row names a path of the record in each column: member names joined by ``.``, a list item
by ``/`` and its index from 0, spelled as the withheld paths of formats.md, section 4:

    title, decision_maker.office, procurement.value.amount, evidence/0.kind, classification.descriptors/0

Each further row is one record. An empty cell means that the member is absent; a list is filled from item 0
without a gap. A cell is taken as it stands, except that CR LF inside it becomes LF: nothing is trimmed,
rounded or guessed. Whole numbers and `true`/`false` (in any letter case, since spreadsheets write `TRUE`)
are read as such where formats.md, section 3, has a uint or a bool; everything else is a string. Rows whose
cells are all blank are passed over. Commas separate, quotes are as in RFC 4180.

**JSON.** `.json` is one record or an array of records; `.ndjson` is one record a line, blank lines passed
over. They need not be canonical: they are formatted canonically. Canonical bytes that state all members
below come out byte for byte as they went in.

All three are UTF-8; a byte order mark is passed over, another encoding is refused.

**Members that a file may leave out**: `type` (then `decision.registered/1`), `version` (1) and `register`
(the one asked for; a record of another register is refused).

**`record_id` and resuming.** The ledger knows a record again by its `record_id` and `version`. If a
missing `record_id` were drawn at random, reading a file a second time after an interruption would register
each decision twice under two ids. So ids are never drawn here: either the file states them (better: a
random one for each decision, made once by the department's own system), or the caller passes
`reference_id`, which derives the id from register, series and number. Either way the same row always gives
the same bytes: the ledger answers RECORD_ALREADY_REGISTERED for what it has, and RECORD_CONFLICT where a
row was edited in between, never a second record. Two rows of one file with one id and version are refused
here, naming both. `reference_id` needs series and number to be the decision's for ever: it serves
only version 1 of a decision, and a department that renumbers must state its ids.
"""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from ledger import canonical
from ledger.errors import MalformedError, Reason, RejectedError, Violation
from ledger.record_types import (
    DecisionCorrected,
    DecisionRegistered,
    DecisionWithdrawn,
    Members,
    ReferenceVoided,
    ReturnFiled,
)
from ledger.records import uuid8

DEFAULT_TYPE = "decision.registered/1"
DEFAULT_VERSION = 1

Fields = dict[str, Any]
"""A record's members as Python values: strings, ints, bools, lists and dicts of these."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a record stands in a file; `number` counts from 1, and the header of a CSV file is row 1."""

    file: str
    unit: Literal["row", "line", "record"]
    number: int

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"


class _Kind(Enum):
    TEXT = "text"
    UINT = "uint"
    BOOL = "bool"


_KINDS: Mapping[type, _Kind] = {bool: _Kind.BOOL, int: _Kind.UINT, str: _Kind.TEXT}


def _paths(annotation: Any, path: str = "") -> Iterator[tuple[str, _Kind]]:
    """Yield every path of a record type that can hold a string, number or bool, `*` for a list index."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Members):
        for name, member in get_type_hints(annotation).items():
            if get_origin(member) is not ClassVar and name != "withheld":
                yield from _paths(member, f"{path}.{name}" if path else name)
    elif origin in (Union, UnionType):
        for argument in arguments:
            yield from _paths(argument, path)
    elif origin is tuple:
        yield from _paths(arguments[0], f"{path}/*")
    elif origin is Literal:
        yield path, _KINDS[type(arguments[0])]
    elif annotation is not NoneType:
        yield path, _KINDS[annotation]


PATHS: Mapping[str, _Kind] = dict(
    found
    for record_type in (DecisionRegistered, DecisionCorrected, DecisionWithdrawn, ReturnFiled, ReferenceVoided)
    for found in _paths(record_type)
)
"""Every path that a column may have, `*` for a list index, of the types that departments register."""

_PATH = re.compile(r"[a-z][a-z0-9_]*(/(0|[1-9][0-9]{0,3}))?(\.[a-z][a-z0-9_]*(/(0|[1-9][0-9]{0,3}))?)*")
_INDEX = re.compile(r"/[0-9]+")
_WITHHELD = "withheld."
_UINT = re.compile(r"0|[1-9][0-9]*")
_BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class _Column:
    path: str
    steps: tuple[str | int, ...]
    kind: _Kind


class _Items(dict[int, Any]):
    """A list while its row is read: items by index."""


def read_records(
    path: Path, register: str, identify: Callable[[Fields], str] | None = None
) -> Iterator[tuple[Position, bytes]]:
    """Read the records of `path` for `register`, each with its place and as canonical bytes.

    `identify` gives the `record_id` of a record that states none; without it such a record is refused.
    Memory grows with the number of records by their ids alone, except that a `.json` file is read whole.

    Raises MalformedError when the file or a record is not as the module says, RejectedError with the
    violations when a record lacks its id, repeats one or names another register; both name the place.
    The rules of a record's type are not judged here: `ledger.records.parse_record` does that.
    """
    seen: dict[tuple[str, int], int] = {}
    for position, fields in _rows(path):
        complete = _completed(position, fields, register, identify)
        try:
            data = canonical.format(complete)
        except MalformedError as error:
            raise MalformedError(f"{position}: {error}") from error
        key = (str(complete["record_id"]), int(complete["version"]))
        first = seen.setdefault(key, position.number)
        if first != position.number:
            message = f"{position.unit} {first} has this record_id and version already"
            raise _refused(position, Reason.DUPLICATE_IN_SUBMISSION, "record_id", message)
        yield position, data


def read_csv(path: Path) -> Iterator[tuple[Position, Fields]]:
    """Read a CSV file of records, each with its place and exactly the members that its cells state.

    Raises MalformedError for the file, its header or the shape of a row, and RejectedError with one
    violation for each cell that its column's type cannot hold.
    """
    lines = _decoded_lines(path)
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise MalformedError(f"{path.name}: empty file")
        columns = _columns(path.name, header)
        for number, cells in enumerate(reader, start=2):
            if not any(cell.strip() for cell in cells):
                continue
            position = Position(path.name, "row", number)
            yield position, _fields(position, columns, cells)
    except csv.Error as error:
        raise MalformedError(f"{path.name}, line {reader.line_num}: {error}") from error


def reference_id(fields: Fields) -> str:
    """Return the id that a decision's register, series and number imply: the same for ever.

    UUIDv8 (formats.md, section 3) of ``daybook.record_id/1`` LF register LF series LF number LF. Raises
    RejectedError unless `fields` is version 1 of a decision with a reference.
    """
    reference = fields.get("reference")
    series, number = (
        (reference.get("series"), reference.get("number")) if isinstance(reference, dict) else (None, None)
    )
    if (
        fields.get("type") != DEFAULT_TYPE
        or fields.get("version") != DEFAULT_VERSION
        or not isinstance(series, str)
        or type(number) is not int
    ):
        message = "an id can be derived only for version 1 of a decision with a reference series and number"
        raise RejectedError(
            Reason.INVALID_FIELD,
            f"record_id: {message}",
            violations=(Violation(Reason.INVALID_FIELD, message, "record_id"),),
        )
    return uuid8(f"daybook.record_id/1\n{fields['register']}\n{series}\n{number}\n".encode())


def _rows(path: Path) -> Iterator[tuple[Position, Fields]]:
    match path.suffix.lower():
        case ".csv":
            return read_csv(path)
        case ".json":
            return _read_json(path)
        case ".ndjson":
            return _read_ndjson(path)
        case _:
            raise MalformedError(f"{path.name}: not .csv, .json or .ndjson")


def _refused(position: Position, reason: Reason, field: str, message: str) -> RejectedError:
    return RejectedError(
        reason, f"{position}: {field}: {message}", violations=(Violation(reason, message, field),)
    )


def _completed(
    position: Position, fields: Fields, register: str, identify: Callable[[Fields], str] | None
) -> Fields:
    """Return `fields` with the members that a file may leave out."""
    complete = {"type": DEFAULT_TYPE, "version": DEFAULT_VERSION, "register": register, **fields}
    if complete["register"] != register:
        message = f"{complete['register']!r} is not {register!r}, the register asked for"
        raise _refused(position, Reason.WRONG_REGISTER, "register", message)
    if type(complete["version"]) is not int:
        raise _refused(position, Reason.INVALID_FIELD, "version", "not a whole number")
    if "record_id" not in complete:
        if identify is None:
            message = "missing; each record needs its own, or a repeated run would register it twice"
            raise _refused(position, Reason.INVALID_FIELD, "record_id", message)
        try:
            complete["record_id"] = identify(complete)
        except RejectedError as error:
            raise RejectedError(error.reason, f"{position}: {error}", violations=error.violations) from error
    return complete


# CSV


def _columns(file: str, header: Sequence[str]) -> tuple[_Column | None, ...]:
    """Return what each column holds; None for one without a name, whose cells must be empty."""
    if len(header) == 1 and (found := re.search(r"[;\t]", header[0])):
        name = {";": "semicolons", "\t": "tabs"}[found[0]]
        raise MalformedError(f"{file}, row 1: separated by {name}; save the file as CSV with commas")
    columns: list[_Column | None] = []
    taken: dict[str, int] = {}
    for number, path in enumerate(header, start=1):
        if not path:
            columns.append(None)
            continue
        if path in taken:
            raise MalformedError(f"{file}, row 1, column {number}: {path!r} is column {taken[path]} already")
        taken[path] = number
        column = _column(path)
        if column is None:
            raise MalformedError(
                f"{file}, row 1, column {number}: {path!r} is no path of a record{_hint(path)}"
            )
        columns.append(column)
    return tuple(columns)


def _hint(path: str) -> str:
    if _INDEX.sub("/*", path) in ("decision_maker.name", "participants/*.name"):
        return ": names of persons are only ever withheld"
    close = difflib.get_close_matches(path, PATHS, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _column(path: str) -> _Column | None:
    if path.startswith(_WITHHELD) and path != _WITHHELD:
        # The rest is one member name: the paths inside `withheld` are not taken apart.
        return _Column(path, ("withheld", path.removeprefix(_WITHHELD)), _Kind.TEXT)
    kind = PATHS.get(_INDEX.sub("/*", path))
    if kind is None or not _PATH.fullmatch(path):
        return None
    steps: list[str | int] = []
    for segment in path.split("."):
        name, slash, index = segment.partition("/")
        steps.append(name)
        if slash:
            steps.append(int(index))
    return _Column(path, tuple(steps), kind)


def _fields(position: Position, columns: Sequence[_Column | None], cells: Sequence[str]) -> Fields:
    if len(cells) != len(columns):
        raise MalformedError(f"{position}: {len(cells)} cells under a header of {len(columns)}")
    fields: Fields = {}
    violations: list[Violation] = []
    for number, (column, cell) in enumerate(zip(columns, cells, strict=True), start=1):
        if not cell:
            continue
        if column is None:
            raise MalformedError(f"{position}, column {number}: a value in a column without a name")
        value: str | int | bool = cell
        try:
            value = _value(column.kind, cell)
        except ValueError as error:
            violations.append(Violation(Reason.INVALID_FIELD, str(error), column.path))
        _place(fields, column.steps, value)
    finished = {name: _finished(value, name, violations) for name, value in fields.items()}
    if violations:
        listed = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise RejectedError(Reason.INVALID_FIELD, f"{position}: {listed}", violations=tuple(violations))
    return finished


def _value(kind: _Kind, cell: str) -> str | int | bool:
    match kind:
        case _Kind.UINT:
            if not _UINT.fullmatch(cell):
                raise ValueError(f"{cell!r} is not a whole number")
            return int(cell)
        case _Kind.BOOL:
            if cell.lower() not in ("true", "false"):
                raise ValueError(f"{cell!r} is neither true nor false")
            return cell.lower() == "true"
        case _Kind.TEXT:
            return cell.replace("\r\n", "\n")


def _place(fields: Fields, steps: Sequence[str | int], value: str | int | bool) -> None:
    """Put `value` at `steps`, making the objects and lists on the way."""
    inside: dict[Any, Any] = fields
    for step, following in pairwise(steps):
        inside = inside.setdefault(step, _Items() if isinstance(following, int) else {})
    inside[steps[-1]] = value


def _finished(value: Any, path: str, violations: list[Violation]) -> Any:
    """Return `value` with lists for items; a gap in one is a violation."""
    if isinstance(value, _Items):
        if len(value) != max(value) + 1:
            missing = next(index for index in range(len(value) + 1) if index not in value)
            message = f"empty although item {max(value)} is not; fill a list from item 0"
            violations.append(Violation(Reason.INVALID_FIELD, message, f"{path}/{missing}"))
        return [_finished(value[index], f"{path}/{index}", violations) for index in sorted(value)]
    if isinstance(value, dict):
        return {name: _finished(inner, f"{path}.{name}", violations) for name, inner in value.items()}
    return value


# JSON


def _read_json(path: Path) -> Iterator[tuple[Position, Fields]]:
    whole = _parsed(path.name, _decoded(path.read_bytes(), path.name).removeprefix(_BOM))
    records = whole if isinstance(whole, list) else [whole]
    for number, record in enumerate(records, start=1):
        position = Position(path.name, "record", number)
        yield position, _object(position, record)


def _read_ndjson(path: Path) -> Iterator[tuple[Position, Fields]]:
    for number, line in enumerate(_decoded_lines(path), start=1):
        if line.strip(" \t\r\n"):
            position = Position(path.name, "line", number)
            yield position, _object(position, _parsed(str(position), line))


def _parsed(place: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_members)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise MalformedError(f"{place}: not JSON: {error.msg} at {where}") from error
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"{place}: not JSON of a record: {error}") from error


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        # The last of two would win silently, and what was signed would not be what a reader sees.
        if name in members:
            raise ValueError(f"member {name!r} stands twice")
        members[name] = value
    return members


def _object(position: Position, value: Any) -> Fields:
    if not isinstance(value, dict):
        raise MalformedError(f"{position}: not an object")
    return value


# Encoding


def _decoded_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, each with its line end."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = _decoded(line, f"{path.name}, line {number}")
            yield text.removeprefix(_BOM) if number == 1 else text


def _decoded(data: bytes, place: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise MalformedError(f"{place}: UTF-16; save the file as UTF-8")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise MalformedError(
            f"{place}: byte {error.start + 1} (0x{data[error.start]:02x}) is not UTF-8; the file is perhaps "
            "Windows-1252: save it as UTF-8 (in a spreadsheet, 'CSV UTF-8')",
            error.start,
        ) from error

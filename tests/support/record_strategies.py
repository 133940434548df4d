"""Hypothesis strategies of records: valid ones, made from the shapes of their types, and spoilt ones."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import date
from typing import Any, get_args

from hypothesis import strategies as st

from ledger import canonical, values
from ledger.record_types import Decision, Recorded, ReferenceVoided, ReturnFiled, Target
from ledger.records import DEPARTMENT_TYPES, KNOWN_TYPES
from ledger.shapes import Code, Integer, Items, Object, Shape, String, Truth, shape_of
from tests.support.vectors import VECTORS

Draw = Callable[[st.SearchStrategy[Any]], Any]

_CHARACTERS = ' aZ09"\\/{}[]:,~£é—ẁ😀'
_SHA256 = st.binary(min_size=32, max_size=32).map(bytes.hex)
_DATES = st.dates(min_value=date(1900, 1, 1)).map(str)
_INSTANTS = st.builds(
    lambda day, hour, second: f"{day}T{hour:02}:{second:02}" + (f":{second:02}Z" if second % 2 else "Z"),
    _DATES,
    st.integers(0, 23),
    st.integers(0, 59),
)
_CIVIL = _DATES | _DATES.map(lambda day: day[:7]) | _DATES.map(lambda day: day[:4]) | st.just("2020-07/2020-09")


def _form(annotation: Any) -> values.Form:
    (form,) = (note for note in get_args(annotation) if isinstance(note, values.Form))
    return form


_FORMS: dict[values.Form | None, st.SearchStrategy[str]] = {
    _form(values.Slug): st.sampled_from(["a", "hm-treasury", "office-2", "x" * 100]),
    _form(values.Register): st.sampled_from(["governing", "access", "a/b", f"{'x' * 100}/{'y' * 100}"]),
    _form(values.Uuid): st.uuids().map(str),
    _form(values.Sha256): _SHA256,
    _form(values.PartialDate): _CIVIL | _INSTANTS,
    _form(values.Period): _CIVIL,
    _form(values.Amount): st.sampled_from(["0.00", "91970816.79"]),
    _form(values.Currency): st.just("GBP"),
    _form(values.Series): st.sampled_from(["MD/2026", "a.b_c-d"]),
}


@st.composite
def department_records(draw: Draw) -> dict[str, Any]:
    """Draw a valid record of a type that departments submit, as parsed JSON."""
    record_type = KNOWN_TYPES[draw(st.sampled_from(sorted(DEPARTMENT_TYPES)))]
    record: dict[str, Any] = _draw(draw, shape_of(record_type))
    if issubclass(record_type, ReturnFiled):
        _settle_return(draw, record)
    if issubclass(record_type, ReferenceVoided):
        _settle_void(record)
    for name in record_type.OWED:
        if name not in record:
            record[name] = "In clear"
    if issubclass(record_type, Decision):
        for item in record.get("evidence", ()):
            item.setdefault("sha256", "0" * 64)
    _withhold(draw, record_type, record)
    return record


def spoilt_records() -> st.SearchStrategy[bytes]:
    """Draw the bytes of a record, valid or a vector, with one to three things changed: seldom still valid."""
    return st.one_of(_spoilt_values(), _spoilt_bytes())


def _draw(draw: Draw, shape: Shape) -> Any:
    match shape:
        case String(form=form) if form is not None:
            return draw(_FORMS[form])
        case String():
            alphabet = _CHARACTERS + ("\n" if shape.multiline else "")
            return draw(st.text(alphabet, min_size=1, max_size=12))
        case Code():
            return draw(st.sampled_from(shape.values))
        case Integer():
            return draw(st.integers(shape.minimum, min(shape.maximum, shape.minimum + 3)))
        case Truth():
            return draw(st.sampled_from(shape.values))
        case Items():
            return [_draw(draw, shape.item) for _ in range(draw(st.integers(1, 2)))]
        case Object() if shape.type is Target:
            return _target(draw)
        case Object():
            return _members(draw, shape)
    raise TypeError(f"nothing to draw for {shape}")


def _members(draw: Draw, shape: Object) -> dict[str, Any]:
    optional = [name for name in shape.members if name not in shape.required and name != "withheld"]
    chosen = draw(st.sets(st.sampled_from(optional), max_size=6)) if optional else set()
    names = [*shape.required, *sorted(chosen)] or optional[:1]
    return {name: _draw(draw, shape.members[name]) for name in names}


def _target(draw: Draw) -> dict[str, Any]:
    record = {"record_id": draw(st.uuids().map(str)), "version": 1}
    targets: list[dict[str, Any]] = [{"uri": "https://a.example/"}, record, {**record, "register": "a/b"}]
    return targets[draw(st.integers(0, 2))]


def _settle_return(draw: Draw, record: dict[str, Any]) -> None:
    for name in ("count", "first", "last", "nil_return", "previous", "reason"):
        record.pop(name, None)
    counted = {"count": 2, "first": 0, "last": 9}
    record.update(draw(st.sampled_from([counted, {"nil_return": True}])))
    if record["version"] > 1:
        record["previous"] = {"sha256": "0" * 64, "version": record["version"] - 1}
        record["reason"] = "Counted\nagain"


def _settle_void(record: dict[str, Any]) -> None:
    record["last"] = record["first"] + 2
    record.pop("previous", None)
    if record["version"] > 1:
        record["previous"] = {"sha256": "0" * 64, "version": record["version"] - 1}
    else:
        record.pop("taken_back", None)


def _withhold(draw: Draw, record_type: type[Recorded], record: dict[str, Any]) -> None:
    held = []
    for pattern in sorted(record_type.WITHHOLDABLE):
        first, _, rest = pattern.partition(".")
        name, _, _ = first.partition("/")
        if name not in record or not draw(st.sampled_from([True, False, False, False])):
            continue
        if not rest and pattern.endswith("*"):
            held += [f"{name}/{index}" for index in range(len(record.pop(name)))]
        elif not rest:
            del record[name]
            held.append(name)
        elif "*" in first:
            record[name][0].pop(rest, None)
            held.append(f"{name}/0.{rest}")
        else:
            record[name].pop(rest, None)
            held.append(pattern)
            if not record[name]:
                del record[name]
    # A list whose items are withheld after a member of one of them was: only the items stay.
    gone = {path.partition("/")[0] for path in held if "/" in path and "." not in path}
    held = [path for path in held if "." not in path or path.partition("/")[0] not in gone]
    if held:
        record["withheld"] = {path: draw(_SHA256) for path in held}


def _starting_points() -> st.SearchStrategy[dict[str, Any]]:
    vectors = [json.loads(path.read_bytes()) for path in sorted((VECTORS / "records").iterdir())]
    return department_records() | st.sampled_from(vectors).map(copy.deepcopy)


_JUNK: list[Any] = [
    *(
        None,
        1.5,
        -1,
        0,
        1,
        2,
        2**53,
        True,
        False,
        "",
        "a",
        "x\ny",
        "SECRET",
        "é",
        "e\u0301",
        "\x7f",
        "\t",
        "\u2028",
    ),
    *("2026-02-30", "2026-06/2026-05", "2026-06/2027", "9999-12-31", "0" * 64, "x" * 501, "😀" * 256),
    *([], {}, [1], ["a"], ["x\ny"], {"a": 1}, {"uri": "a", "version": 1}),
]


@st.composite
def _spoilt_values(draw: Draw) -> bytes:
    record = draw(_starting_points())
    for _ in range(draw(st.integers(1, 3))):
        _spoil(draw, record)
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def _spoil(draw: Draw, record: dict[str, Any]) -> None:
    place: Any = draw(st.sampled_from(list(_containers(record))))
    key: Any = draw(st.sampled_from(list(place))) if isinstance(place, dict) and place else None
    if isinstance(place, list):
        key = draw(st.integers(0, len(place) - 1)) if place else None
    change = draw(st.sampled_from(["remove", "replace", "add", "withhold"]))
    if change == "remove" and key is not None:
        del place[key]
    elif change == "replace" and key is not None:
        place[key] = copy.deepcopy(draw(st.sampled_from(_JUNK)))
    elif change == "withhold" and isinstance(record.get("withheld", {}), dict):
        paths = ["title", "reason", "participants/0", "participants/1", "participants/0.name", "channel"]
        record.setdefault("withheld", {})[draw(st.sampled_from(paths))] = "0" * 64
    elif isinstance(place, dict):
        names = [
            "name",
            "foi",
            "procurement",
            "version",
            "previous",
            "reason",
            "nil_return",
            "title",
            "uri",
            "x",
        ]
        place[draw(st.sampled_from(names))] = copy.deepcopy(draw(st.sampled_from(_JUNK)))


def _containers(value: Any) -> list[Any]:
    if not isinstance(value, dict | list):
        return []
    inner = value.values() if isinstance(value, dict) else value
    return [value, *(place for item in inner for place in _containers(item))]


@st.composite
def _spoilt_bytes(draw: Draw) -> bytes:
    data = bytearray(canonical.format(draw(_starting_points())))
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, len(data) - 1))
        new = draw(
            st.sampled_from(
                [b"", b" ", b"\\", b"\\n", b"\\t", b"\\u0041", b"\\/", b"0", b'"', b"\x7f", b"\xff"]
            )
        )
        data[place : place + draw(st.integers(0, 1))] = new
    return bytes(data)

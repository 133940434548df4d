"""A record as a person reads it: one line for each member, in the record's own order.

The browser's verifier renders the same record to the same bytes (verifier/rendering.js), so that the readable
text of a pack cannot say something else than the record. What a record says is hostile: nothing in it makes a
line of its own, steers a terminal or reverses what is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

NOT_CANONICAL: Final = b"The bytes of this record are not canonical JSON. Read record.json, byte by byte.\n"
"""The text of a record that is not shown."""

_MAX_INTEGER: Final = 2**53 - 1
_MAX_DEPTH: Final = 16

# Controls, marks that reorder or hide, separators, private and tag characters. LF is dealt with by itself.
_HIDDEN: Final = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\uf8ff\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)
_ASCII: Final = re.compile("[ -~]+")


def render(record: bytes) -> bytes:
    """Return the readable text of a record; `NOT_CANONICAL` for bytes that could be read in two ways."""
    try:
        value = json.loads(record.decode(), parse_constant=_refuse)
        if not isinstance(value, dict) or not _is_plain(value, 1):
            return NOT_CANONICAL
        again = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return NOT_CANONICAL
    return "".join(f"{line}\n" for line in _lines(value, "")).encode() if again == record else NOT_CANONICAL


def render_opened(opened: Mapping[str, Any]) -> bytes:
    """Return the readable text of what a disclosure opens, by path."""
    return "".join(f"{line}\n" for path in sorted(opened) for line in _lines(opened[path], path)).encode()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _is_plain(value: Any, depth: int) -> bool:
    """Tell whether a value is of what every reader of JSON reads alike."""
    if isinstance(value, (dict, list)) and depth > _MAX_DEPTH:
        return False
    match value:
        case bool():
            return True
        case int():
            return 0 <= value <= _MAX_INTEGER
        case str():
            return not any("\ud800" <= each <= "\udfff" for each in value)
        case list():
            return all(_is_plain(item, depth + 1) for item in value)
        case dict():
            return all(_ASCII.fullmatch(name) and _is_plain(item, depth + 1) for name, item in value.items())
    return False


def _lines(value: Any, path: str) -> Iterator[str]:
    match value:
        case dict():
            for name in sorted(value):
                # The paths inside `withheld` hold dots and slashes themselves.
                yield from _lines(value[name], f"{path}.{name}" if path else name)
        case list():
            for place, item in enumerate(value):
                yield from _lines(item, f"{path}/{place}")
        case bool():
            yield f"{path}: {'yes' if value else 'no'}"
        case str():
            first, *rest = visible(value).split("\n")
            yield f"{path}: {first}"
            yield from (f"    | {line}" for line in rest)
        case _:
            yield f"{path}: {value}"


def one_line(text: str) -> str:
    """Return `text` as `visible` does, in one line."""
    return visible(text).replace("\n", "{U+000A}")


def visible(text: str) -> str:
    """Return `text` with everything that hides, steers or reorders spelled out as ``{U+202E}``. LF stays."""
    return _HIDDEN.sub(lambda found: f"{{U+{ord(found[0]):04X}}}", text)

"""Canonical JSON: one meaning, one spelling (formats.md, section 1; RFC 8785).

`parse` decodes, walks over types, ranges and names, looks at every character, then formats again and
compares the bytes. Bytes that fail are read once more by a scanner, which knows the same rules
independently and says which byte breaks which of them.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

import msgspec

from ledger.errors import MalformedError
from ledger.unicode14 import UNASSIGNED

MAX_DEPTH: Final = 16
"""How deep objects and arrays nest, the top object being 1."""

MAX_INTEGER: Final = 2**53 - 1
"""The largest integer: the last one that every JSON reader holds exactly."""

WITHHELD: Final = "withheld"
"""The member of the top object whose own member names are paths (formats.md, section 4)."""

_CONTROLS: Final = ((0x00, 0x1F), (0x7F, 0x9F))
_SURROGATES: Final = ((0xD800, 0xDFFF),)
# They hide, reorder or break what a reader sees: Arabic letter mark, LRM, RLM, line and paragraph
# separators, bidirectional embeddings, overrides and isolates, byte order mark.
_MISLEADING: Final = (
    (0x061C, 0x061C),
    (0x200E, 0x200F),
    (0x2028, 0x202E),
    (0x2066, 0x2069),
    (0xFEFF, 0xFEFF),
)


def _class_of(ranges: Iterable[tuple[int, int]]) -> str:
    return "[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges) + "]"


def _any_of(ranges: Sequence[tuple[int, int]]) -> re.Pattern[str]:
    """Return an expression for one character in `ranges`.

    Up to U+FFFF a class is a bitmap, beyond it a list that is tried range by range: so that list comes
    second, after a look that spares it all others.
    """
    near = [(first, min(last, 0xFFFF)) for first, last in ranges if first <= 0xFFFF]
    far = [(max(first, 0x10000), last) for first, last in ranges if last > 0xFFFF]
    return re.compile(f"{_class_of(near)}|(?={_class_of([(0x10000, 0x10FFFF)])}){_class_of(far)}")


_REFUSED: Final = _any_of((*_CONTROLS, *_SURROGATES, *_MISLEADING, *UNASSIGNED))
_PRINTABLE_ASCII: Final = bytes(range(0x20, 0x7F))
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|.?)", re.DOTALL)
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_STEP: Final = _NAME.pattern + r"(?:/(?:0|[1-9][0-9]*))?"
_WITHHELD_PATH: Final = re.compile(rf"{_STEP}(?:\.{_STEP})*")

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder(order="sorted").encode

# Names that matched, so that a known one costs a set look-up rather than a regular expression. Bounded: it
# is emptied when full.
_known_names: Final[set[str]] = set()
_MAX_KNOWN_NAMES: Final = 4096


def parse(data: bytes) -> dict[str, Any]:
    """Return the object of which `data` is the canonical JSON.

    Its values are dict, list, str, int and bool. Raises MalformedError, whose message names the rule and
    whose `offset` is the zero-based byte at which it is broken.
    """
    try:
        value: dict[str, Any] = _decode(data)
        _check_object(value, ())
        _check_characters(data)
        if _encode(value) == data:
            return value
    except (MalformedError, msgspec.MsgspecError, ValueError, RecursionError):
        pass
    scan(data)
    raise MalformedError("not canonical JSON")


def format(value: Mapping[str, Any]) -> bytes:  # noqa: A001 - parse and format, the pair
    """Return the canonical JSON of an object built of dict, list, str, int and bool, exactly those types.

    Raises MalformedError, whose message names the member, for a value outside the rules.
    """
    members = dict(value)
    _check_object(members, ())
    try:
        data = _encode(members)
    except UnicodeEncodeError as error:
        raise MalformedError(_refusal(error.object[error.start])) from error
    _check_characters(data)
    return data


def _check_characters(data: bytes) -> None:
    """Raise MalformedError for a character or an escape that no string may have.

    `data` is JSON, looked at as a whole: outside strings canonical JSON has printable ASCII only, and
    nothing composes with the quotation marks around a string.
    """
    # What remains without ASCII is still UTF-8. A set, since a text uses few different characters.
    if unusual := data.translate(None, _PRINTABLE_ASCII):
        if refused := _REFUSED.search("".join(set(unusual.decode()))):
            raise MalformedError(_refusal(refused[0]))
        if not unicodedata.is_normalized("NFC", data.decode()):
            raise MalformedError(_NOT_NFC)
    if b"\\" in data:
        for escape in _ESCAPE.finditer(data.decode()):
            if escape[1] not in _ESCAPED:
                raise MalformedError(_wrong_escape(escape[0]))


def _check_object(value: object, path: tuple[str | int, ...]) -> None:
    """Raise MalformedError unless `value` is an object within the rules on types, ranges, names and depth.

    `path` leads to it from the top, so that its length is the depth above it.
    """
    if type(value) is not dict:
        raise MalformedError(_at(path, _NOT_AN_OBJECT))
    if not value:
        raise MalformedError(_at(path, _EMPTY_OBJECT))
    if len(path) >= MAX_DEPTH:
        raise MalformedError(_at(path, _TOO_DEEP))
    if not _known_names.issuperset(value):
        _check_names(value, path)
    for name, item in value.items():
        kind = type(item)
        if kind is str:
            if not item:
                raise MalformedError(_at((*path, name), _EMPTY_STRING))
        elif kind is dict:
            _check_object(item, (*path, name))
        elif kind is int:
            if not 0 <= item <= MAX_INTEGER:
                raise MalformedError(_at((*path, name), _OUT_OF_RANGE))
        elif kind is not bool:
            _check_array(item, (*path, name))


def _check_array(value: object, path: tuple[str | int, ...]) -> None:
    """Raise MalformedError unless `value` is an array within the rules: as `_check_object`."""
    if type(value) is not list:
        raise MalformedError(_at(path, _wrong_type(value)))
    if not value:
        raise MalformedError(_at(path, _EMPTY_ARRAY))
    if len(path) >= MAX_DEPTH:
        raise MalformedError(_at(path, _TOO_DEEP))
    for index, item in enumerate(value):
        kind = type(item)
        if kind is str:
            if not item:
                raise MalformedError(_at((*path, index), _EMPTY_STRING))
        elif kind is dict:
            _check_object(item, (*path, index))
        elif kind is int:
            if not 0 <= item <= MAX_INTEGER:
                raise MalformedError(_at((*path, index), _OUT_OF_RANGE))
        elif kind is not bool:
            _check_array(item, (*path, index))


def _check_names(names: Iterable[object], path: tuple[str | int, ...]) -> None:
    """Raise MalformedError for a name that no member may have; remember the others."""
    if path == (WITHHELD,):
        for name in names:
            if type(name) is not str or _WITHHELD_PATH.fullmatch(name) is None:
                raise MalformedError(_at(path, _wrong_path(name)))
        return
    for name in names:
        if type(name) is not str or _NAME.fullmatch(name) is None:
            raise MalformedError(_at(path, _wrong_name(name)))
        if len(_known_names) >= _MAX_KNOWN_NAMES:
            _known_names.clear()
        _known_names.add(name)


# The scanner: the same rules once more, token by token, so that a refusal can name the byte.

_STRING: Final = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_NUMBER: Final = re.compile(r"-?([0-9]+)(\.[0-9]*)?([eE][+-]?[0-9]*)?")
_WORD: Final = re.compile(r"true|false|null")
_ESCAPED: Final = {"n": "\n", '"': '"', "\\": "\\"}


def scan(data: bytes) -> dict[str, Any]:
    """Return what `parse` returns, an order of magnitude slower, or raise what `parse` raises.

    Says which byte is at fault, since it reads token by token; `parse` calls it for bytes that it refuses.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"byte {error.start}: not UTF-8", error.start) from error
    return _Scanner(text).document()


class _Scanner:
    """Reads one text from left to right. `position` counts characters; faults give bytes."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._path: list[str | int] = []

    def document(self) -> dict[str, Any]:
        if not self._text.startswith("{"):
            self._refuse(0, self._unexpected(_NOT_AN_OBJECT))
        value = self._object()
        if self._position < len(self._text):
            self._refuse(self._position, self._unexpected("something follows the object"))
        return value

    def _value(self) -> Any:
        start = self._position
        match self._text[start : start + 1]:
            case '"':
                if not (value := self._string()):
                    self._refuse(start, _EMPTY_STRING)
                return value
            case "{":
                return self._object()
            case "[":
                return self._array()
        if number := _NUMBER.match(self._text, start):
            return self._integer(number)
        if word := _WORD.match(self._text, start):
            if word[0] == "null":
                self._refuse(start, _wrong_type(None))
            self._position = word.end()
            return word[0] == "true"
        return self._refuse(start, self._unexpected("a value was expected"))

    def _object(self) -> dict[str, Any]:
        start = self._open("}", _EMPTY_OBJECT)
        members: dict[str, Any] = {}
        previous = ""
        while True:
            place = self._position
            if self._text[place : place + 1] != '"':
                self._refuse(place, self._unexpected("a member name was expected"))
            name = self._string()
            if self._path == [WITHHELD]:
                if _WITHHELD_PATH.fullmatch(name) is None:
                    self._refuse(place, _wrong_path(name))
            elif _NAME.fullmatch(name) is None:
                self._refuse(place, _wrong_name(name))
            if name in members:
                self._refuse(place, f'member "{_short(name)}" stands twice')
            if name < previous:
                self._refuse(place, f'member "{_short(name)}" must stand before "{_short(previous)}"')
            if self._text[self._position : self._position + 1] != ":":
                self._refuse(self._position, self._unexpected("':' was expected"))
            self._position += 1
            self._path.append(name)
            members[name] = self._value()
            self._path.pop()
            previous = name
            if self._closes("}", start):
                return members

    def _array(self) -> list[Any]:
        start = self._open("]", _EMPTY_ARRAY)
        items: list[Any] = []
        while True:
            self._path.append(len(items))
            items.append(self._value())
            self._path.pop()
            if self._closes("]", start):
                return items

    def _open(self, end: str, if_empty: str) -> int:
        """Step into an object or array and return where it started."""
        start = self._position
        if len(self._path) >= MAX_DEPTH:
            self._refuse(start, _TOO_DEEP)
        self._position += 1
        if self._text.startswith(end, self._position):
            self._refuse(start, if_empty)
        return start

    def _closes(self, end: str, start: int) -> bool:
        """Step over the comma or the end after an item; return whether it was the end."""
        found = self._text[self._position : self._position + 1]
        if found not in (",", end):
            if not found:
                self._refuse(start, f"no '{end}' closes what starts here")
            self._refuse(self._position, self._unexpected(f"',' or '{end}' was expected"))
        self._position += 1
        return found == end

    def _string(self) -> str:
        """Step over a string, empty or not, and return its value."""
        token = _STRING.match(self._text, self._position)
        if token is None:
            self._refuse(self._position, "no quotation mark ends the string")
        raw, start = token[1], token.start(1)
        if refused := _REFUSED.search(raw):
            self._refuse(start + refused.start(), _refusal(refused[0]))
        for escape in _ESCAPE.finditer(raw):
            if escape[1] not in _ESCAPED:
                self._refuse(start + escape.start(), _wrong_escape(escape[0]))
        if not unicodedata.is_normalized("NFC", raw):
            self._refuse(start + _first_not_nfc(raw), _NOT_NFC)
        self._position = token.end()
        return _ESCAPE.sub(lambda escape: _ESCAPED[escape[1]], raw)

    def _integer(self, number: re.Match[str]) -> int:
        """Step over a number and return it, if it is an integer in range in its one spelling."""
        digits, fraction, exponent = number.groups()
        start = number.start()
        if number[0].startswith("-"):
            self._refuse(start, "a negative number is not allowed")
        if fraction is not None or exponent is not None:
            self._refuse(start, "a number with a fraction or an exponent is not allowed")
        if digits.startswith("0") and digits != "0":
            self._refuse(start, "a number has no leading zero")
        # Lengths first: to read a hundred thousand digits takes quadratic time.
        if len(digits) > len(str(MAX_INTEGER)) or int(digits) > MAX_INTEGER:
            self._refuse(start, _OUT_OF_RANGE)
        self._position = number.end()
        return int(digits)

    def _unexpected(self, message: str) -> str:
        """Return what was expected, and what stands there instead."""
        found = self._text[self._position : self._position + 1]
        if not found:
            return f"{message}; the text ends here"
        if found in " \t\r\n":
            return f"{message}; white space is not allowed"
        return f"{message}; found {_named(found)}"

    def _refuse(self, place: int, message: str) -> NoReturn:
        offset = len(self._text[:place].encode())
        raise MalformedError(f"byte {offset}: {_at(tuple(self._path), message)}", offset)


def _first_not_nfc(text: str) -> int:
    """Return the index at which a text that is not in normalization form C first differs from it.

    Only the shortest prefix at fault is normalized: to order many marks that are out of order takes quadratic
    time, during which no other thread runs. What stands before its last character is in order.
    """
    length = 1 + bisect_left(
        range(1, len(text)), True, key=lambda length: not unicodedata.is_normalized("NFC", text[:length])
    )
    pairs = zip(text, unicodedata.normalize("NFC", text[:length]), strict=False)
    return next((index for index, (is_, ought) in enumerate(pairs) if is_ != ought), 0)


# What the rules are called, once for both readings.

_NOT_AN_OBJECT: Final = "an object was expected"
_EMPTY_OBJECT: Final = "an empty object is not allowed; leave the member out"
_EMPTY_ARRAY: Final = "an empty array is not allowed; leave the member out"
_EMPTY_STRING: Final = "an empty string is not allowed; leave the member out"
_TOO_DEEP: Final = f"objects and arrays nest at most {MAX_DEPTH} deep"
_OUT_OF_RANGE: Final = f"an integer is at least 0 and at most {MAX_INTEGER}"
_NOT_NFC: Final = "text must be in Unicode normalization form C"


def _at(path: tuple[str | int, ...], message: str) -> str:
    """Return `message` after the path to the value, such as ``evidence[2].kind``, if it has one."""
    steps = "".join(f"[{step}]" if type(step) is int else f".{_short(step)}" for step in path)
    return f"{steps.removeprefix('.')}: {message}" if steps else message


def _short(name: object) -> str:
    """Return a name as it may stand in a message: printable, and at most 64 characters."""
    text = ascii(name)[1:-1] if type(name) is str else ascii(name)
    return text if len(text) <= 64 else f"{text[:61]}..."


def _named(character: str) -> str:
    return f"'{character}'" if character.isascii() and character.isprintable() else f"U+{ord(character):04X}"


def _refusal(character: str) -> str:
    point = ord(character)
    for reason, ranges in (
        ("control character", _CONTROLS),
        ("surrogate", _SURROGATES),
        ("misleading character", _MISLEADING),
    ):
        if any(first <= point <= last for first, last in ranges):
            return f"{reason} U+{point:04X} is not allowed"
    return f"U+{point:04X} is not an assigned character of Unicode 14.0"


def _wrong_escape(escape: str) -> str:
    return rf"escape \{_short(escape[1:])} is not allowed; only \n, \" and \\ are"


def _wrong_name(name: object) -> str:
    return f'"{_short(name)}" is not a member name: a lowercase letter, then at most 63 of a-z, 0-9 and _'


def _wrong_path(name: object) -> str:
    return f'"{_short(name)}" is not the path of a withheld field'


def _wrong_type(value: object) -> str:
    if value is None:
        return "null is not allowed; leave the member out"
    if type(value) is float:
        return "a number with a fraction or an exponent is not allowed"
    return f"a {type(value).__name__} has no canonical JSON"

"""The value types of formats.md, section 2: how each is spelled, and what a partial date means.

A `Form` stands in the annotations of the record types, so the fast check, the walk that explains faults and
the JSON Schemas all read the same spelling.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from msgspec import Meta

from ledger.errors import MalformedError
from ledger.notes import VerifierKey

MAX_UINT: Final = 2**53 - 1
MAX_LINE: Final = 500
MAX_TEXT: Final = 16_000

_LONDON: Final = ZoneInfo("Europe/London")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)
_EPOCH_DAY: Final = _EPOCH.toordinal()

# Patterns match a whole value and keep to what Python's `re` and ECMA-262 both understand, because they are
# published in the JSON Schemas.
_RESERVED: Final = "(?:governing|access|checkpoint|tile|logs|acknowledgements)"
_WORDS: Final = "[a-z0-9]+(?:-[a-z0-9]+)*"
_SLUG: Final = f"(?!{_RESERVED}$)(?!.{{101}}){_WORDS}"
_REGISTER: Final = (
    f"(?!{_RESERVED}/)(?!.*/{_RESERVED}$)(?!.{{101}}.*/)(?!.*/.{{101}}){_WORDS}/{_WORDS}|governing|access"
)
_UUID: Final = "(?!0{8}-0{4}-0{4}-0{4}-0{12})[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_YEAR: Final = "(?:19|[2-9][0-9])[0-9]{2}"
_MONTH: Final = "(?:0[1-9]|1[0-2])"
_DATE: Final = (
    f"(?:{_YEAR}-(?:{_MONTH}-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    "|(?:(?:19|[2-9][0-9])(?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[3579][26])00)-02-29)"
)
_TIME: Final = "T(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9])?Z"
_SINGLE: Final = f"(?:{_DATE}(?:{_TIME})?|{_YEAR}(?:-{_MONTH})?)"
_CIVIL: Final = f"(?:{_DATE}|{_YEAR}(?:-{_MONTH})?)"

_slug: Final = re.compile(_SLUG).fullmatch
_register: Final = re.compile(_REGISTER).fullmatch
_origin: Final = re.compile("[a-z0-9.-]{1,80}").fullmatch
_uuid: Final = re.compile(_UUID).fullmatch
_uuid_lines: Final = re.compile(f"(?:{_UUID}\n)*").fullmatch
_sha256: Final = re.compile("[0-9a-f]{64}").fullmatch
# 32 bytes leave two spare bits in the last character: they are zero in the canonical spelling.
_key: Final = re.compile("[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=").fullmatch
_instant: Final = re.compile(_DATE + _TIME).fullmatch
_accepted_at: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z").fullmatch
_single: Final = re.compile(_SINGLE).fullmatch
_amount: Final = re.compile(r"(?:0|[1-9][0-9]{0,14})\.[0-9]{2}").fullmatch
_currency: Final = re.compile("[A-Z]{3}").fullmatch
_series: Final = re.compile("(?!.{101})[A-Za-z0-9]+(?:[/._-][A-Za-z0-9]+)*").fullmatch


@dataclass(frozen=True, slots=True)
class Partial:
    """A claimed time of some precision, as its earliest and latest second, both included (POSIX seconds)."""

    earliest: int
    latest: int


@dataclass(frozen=True, slots=True)
class Form:
    """How the strings of one value type are spelled.

    `words` completes "must be …"; `accepts` returns something true for a value; `pattern` says as much of it
    as a regular expression can (ECMA-262, the whole value), for JSON Schemas.
    """

    words: str
    accepts: Callable[[str], object]
    pattern: str | None = None


def is_slug(value: str) -> bool:
    """Tell whether `value` is a slug: lower-case words joined by hyphens, at most 100, not reserved."""
    return _slug(value) is not None


def is_register(value: str) -> bool:
    """Tell whether `value` is `department/office`, `governing` or `access`."""
    return _register(value) is not None


def is_ledger_origin(value: str) -> bool:
    """Tell whether `value` is the origin of a ledger: 1 to 80 of `a-z`, `0-9`, `.` and `-`."""
    return _origin(value) is not None


def is_uuid(value: str) -> bool:
    """Tell whether `value` is a UUID in lower case with hyphens, of any version, not nil."""
    return _uuid(value) is not None


def are_uuids(values: Sequence[str]) -> bool:
    """Tell whether each of `values` is a UUID as `is_uuid` has it."""
    lines = "\n".join([*values, ""])
    # A value that is itself several lines makes too many of them.
    return _uuid_lines(lines) is not None and lines.count("\n") == len(values)


def is_sha256(value: str) -> bool:
    """Tell whether `value` is 64 lower-case hex digits."""
    return _sha256(value) is not None


def is_key(value: str) -> bool:
    """Tell whether `value` is canonical base64 of 32 bytes. Whether they are a usable key is not asked."""
    return _key(value) is not None


def is_vkey(value: str) -> bool:
    """Tell whether `value` is a C2SP verifier key of type 0x01 (Ed25519), key ID included."""
    try:
        return VerifierKey.parse(value).type == 0x01
    except MalformedError:
        return False


def is_instant(value: str) -> bool:
    """Tell whether `value` is `YYYY-MM-DDTHH:MM[:SS]Z` on a day that exists, in the years of a partial."""
    return _instant(value) is not None


def is_accepted_at(value: str) -> bool:
    """Tell whether `value` is a moment as the ledger writes it: ``YYYY-MM-DDTHH:MM:SS.mmmZ``, UTC."""
    if not _accepted_at(value):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def is_partial(value: str) -> bool:
    """Tell whether `value` is a partial date: see `partial`."""
    return _single(value) is not None or ("/" in value and _interval(value) is not None)


def is_period(value: str) -> bool:
    """Tell whether `value` is a partial date without instants: years, months and days only."""
    return "T" not in value and is_partial(value)


def is_amount(value: str) -> bool:
    """Tell whether `value` is an amount of money: 1 to 15 digits, a point, two digits, no leading zero."""
    return _amount(value) is not None


def is_currency(value: str) -> bool:
    """Tell whether `value` is three capitals. The list of ISO 4217 changes, so it is not consulted."""
    return _currency(value) is not None


def is_series(value: str) -> bool:
    """Tell whether `value` is the name of a series of reference numbers, such as `MD/2026`."""
    return _series(value) is not None


def is_line(value: str) -> bool:
    """Tell whether `value` has 1 to 500 code points and no LF."""
    return 1 <= len(value) <= MAX_LINE and "\n" not in value


def is_text(value: str) -> bool:
    """Tell whether `value` has 1 to 16,000 code points."""
    return 1 <= len(value) <= MAX_TEXT


def partial(value: str) -> Partial:
    """Return what the partial date `value` covers.

    `YYYY`, `YYYY-MM` and `YYYY-MM-DD` are civil dates in Europe/London, an instant to the minute lasts to its
    59th second, and of `a/b` a ends before b begins (formats.md, section 2). Raises MalformedError.
    """
    if _single(value) is not None:
        return _bounds(value)
    found = _interval(value)
    if found is None:
        raise MalformedError("not a partial date")
    return found


def _interval(value: str) -> Partial | None:
    first, slash, last = value.partition("/")
    if not slash or _single(first) is None or _single(last) is None:
        return None
    begins, ends = _bounds(first), _bounds(last)
    return Partial(begins.earliest, ends.latest) if begins.latest < ends.earliest else None


def _bounds(single: str) -> Partial:
    if single[-1] == "Z":
        return _bounds_of_instant(single)
    return _bounds_of_date(single)


def _bounds_of_instant(instant: str) -> Partial:
    minute = _midnight(instant[:10]) + int(instant[11:13]) * 3_600 + int(instant[14:16]) * 60
    if instant[16] == "Z":
        return Partial(minute, minute + 59)
    exact = minute + int(instant[17:19])
    return Partial(exact, exact)


@lru_cache(maxsize=4096)
def _midnight(day: str) -> int:
    return (date(int(day[0:4]), int(day[5:7]), int(day[8:10])).toordinal() - _EPOCH_DAY) * 86_400


@lru_cache(maxsize=4096)
def _bounds_of_date(civil: str) -> Partial:
    year = int(civil[0:4])
    first_month = int(civil[5:7]) if len(civil) > 4 else 1
    last_month = first_month if len(civil) > 4 else 12
    first_day = int(civil[8:10]) if len(civil) > 7 else 1
    last_day = first_day if len(civil) > 7 else monthrange(year, last_month)[1]
    # London's clocks have never changed at midnight, so neither second is skipped or repeated.
    begin = datetime(year, first_month, first_day, tzinfo=_LONDON)
    end = datetime(year, last_month, last_day, 23, 59, 59, tzinfo=_LONDON)
    return Partial((begin - _EPOCH) // _SECOND, (end - _EPOCH) // _SECOND)


# A register, its office and its series recur in record after record; their lengths are bounded before the
# form is asked, so the memory of these is too.
_recurring_slug: Final = lru_cache(maxsize=1024)(is_slug)
_recurring_register: Final = lru_cache(maxsize=1024)(is_register)
_recurring_series: Final = lru_cache(maxsize=1024)(is_series)

Slug = Annotated[
    str,
    Meta(min_length=1, max_length=100),
    Form("a slug: lower-case words joined by hyphens, not reserved", _recurring_slug, _SLUG),
]
Register = Annotated[
    str,
    Meta(min_length=1, max_length=201),
    Form("a register: department/office, governing or access", _recurring_register, _REGISTER),
]
LedgerOrigin = Annotated[
    str, Form("a ledger origin: 1 to 80 of a-z, 0-9, point and hyphen", _origin, "[a-z0-9.-]{1,80}")
]
Uuid = Annotated[str, Form("a UUID in lower case with hyphens, not nil", _uuid, _UUID)]
Sha256 = Annotated[str, Form("64 lower-case hex digits", _sha256, "[0-9a-f]{64}")]
Key = Annotated[
    str, Form("base64 of a 32-byte Ed25519 public key", _key, "[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")
]
Vkey = Annotated[
    str,
    Meta(min_length=1, max_length=MAX_LINE),
    Form("a verifier key, name+hash+key, of type 0x01", is_vkey, r"[^+\s]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]+=*"),
]
Uint = Annotated[int, Meta(ge=0, le=MAX_UINT)]
FromOne = Annotated[int, Meta(ge=1, le=MAX_UINT)]
Instant = Annotated[str, Form("an instant, YYYY-MM-DDTHH:MM[:SS]Z", _instant, _DATE + _TIME)]
PartialDate = Annotated[
    str,
    Form(
        "a date (YYYY, YYYY-MM, YYYY-MM-DD), an instant in UTC, or a/b of two of these in order",
        is_partial,
        f"{_SINGLE}(?:/{_SINGLE})?",
    ),
]
Period = Annotated[
    str,
    Form("YYYY, YYYY-MM, YYYY-MM-DD or a/b of two of these in order", is_period, f"{_CIVIL}(?:/{_CIVIL})?"),
]
Amount = Annotated[str, Form("an amount such as 91970816.79", _amount, r"(?:0|[1-9][0-9]{0,14})\.[0-9]{2}")]
Currency = Annotated[str, Form("three capitals of ISO 4217", _currency, "[A-Z]{3}")]
Series = Annotated[
    str,
    Meta(min_length=1, max_length=100),
    Form(
        "a series: letters and digits, joined by / . _ or -",
        _recurring_series,
        "[A-Za-z0-9]+(?:[/._-][A-Za-z0-9]+)*",
    ),
]

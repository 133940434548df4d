"""Reading profiles and overrides of calendars: the files that an auditor or a governance names."""

from __future__ import annotations

from pathlib import Path

from ledger.errors import LedgerError, MalformedError, RejectedError
from services.auditing.calendars import OVERRIDES_TYPE, Overrides, packaged, parse_overrides, with_overrides
from services.auditing.declared import MAX_FILE, read_object
from services.auditing.profile_types import Profile
from services.auditing.profiles import SHIPPED, parse_profile, shipped
from services.cli.reporting import UsageError, violation_json

_MALFORMED = {Profile: "PROFILE_MALFORMED", Overrides: "CALENDAR_MALFORMED"}


def read_profile(named: str) -> Profile:
    """Read a profile: a file, or by its name one that comes with Daybook, where no file is called so.

    Raises OSError, or UsageError with everything that is wrong with it.
    """
    path = Path(named)
    if named in SHIPPED and not path.exists():
        return shipped(named)
    try:
        found = read_declared(path)
    except FileNotFoundError as error:
        if "/" in named or path.suffix:
            raise
        names = ", ".join(SHIPPED)
        raise UsageError(f"{named!r} is no file, and none of {names}", "PROFILE_UNKNOWN") from error
    if isinstance(found, Profile):
        return found
    raise UsageError(f"{named} overrides a calendar, and is no profile", "PROFILE_MALFORMED")


def read_overrides(path: Path) -> Overrides:
    """Read overrides of a calendar, all of whose days the packaged calendar knows.

    Raises OSError, or UsageError with everything that is wrong with them.
    """
    found = read_declared(path)
    if isinstance(found, Overrides):
        return found
    raise UsageError(f"{path} is a profile, and overrides no calendar", "CALENDAR_MALFORMED")


def read_declared(path: Path) -> Profile | Overrides:
    """Read a file that is either, by its `type`. Raises OSError, or UsageError."""
    kind: type[Profile | Overrides] = Profile
    try:
        with path.open("rb") as file:
            value = read_object(file.read(MAX_FILE + 1))
        if value.get("type") != OVERRIDES_TYPE:
            return parse_profile(value)
        kind = Overrides
        overrides = parse_overrides(value)
        with_overrides(packaged(overrides.calendar), overrides)
    except (MalformedError, RejectedError) as error:
        raise _unusable(path, kind, error) from error
    return overrides


def _unusable(path: Path, kind: type[Profile | Overrides], error: LedgerError) -> UsageError:
    what = "profile" if kind is Profile else "overrides of a calendar"
    if not isinstance(error, RejectedError):
        return UsageError(f"{path} holds no {what}: {error}", _MALFORMED[kind])
    lines = [f"  {each.field} {each.description}{_one_of(each.allowed)}" for each in error.violations]
    details = {"violations": [violation_json(each) for each in error.violations]}
    return UsageError("\n".join([f"{path} holds no {what}:", *lines]), _MALFORMED[kind], details)


def _one_of(allowed: tuple[str, ...]) -> str:
    return f"; one of: {', '.join(allowed)}" if allowed else ""

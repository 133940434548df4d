"""The custody log: who did what with the evidence, when, by which tool, and what it was before and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from ledger.errors import MalformedError
from services.evidence.moments import LOCAL

CUSTODY_TYPE: Final = "daybook.custody/1"

GATHERED: Final = "gathered"
PACKED: Final = "packed"
"""The actions with which the log of a pack begins and ends."""

_MEMBERS: Final = frozenset(
    ("at", "at_local", "who", "role", "action", "object", "sha256_before", "sha256_after", "reason", "tool")
)


@dataclass(frozen=True, slots=True)
class Handling:
    """One thing that was done. Digests are hex SHA-256, None where there is nothing before or after.

    `at` and `at_local` are one moment: UTC, and the civil time of London with its offset.
    """

    at: str
    at_local: str
    who: str
    role: str
    action: str
    object: str
    sha256_before: str | None
    sha256_after: str | None
    reason: str
    tool: str


@dataclass(frozen=True, slots=True)
class Keeper:
    """Who makes the pack, in which role, why, and when by their own clock."""

    who: str
    role: str
    reason: str
    now: datetime

    def handling(self, action: str, what: str, before: str | None = None, after: str | None = None) -> Handling:
        """Return the entry of something that was done now, by this program."""
        local = self.now.astimezone(LOCAL).isoformat(timespec="seconds")
        at = self.now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return Handling(at, local, self.who, self.role, action, what, before, after, self.reason, tool())


def tool() -> str:
    """Return the name of this program, with its version."""
    try:
        return f"daybook {version('daybook')}"
    except PackageNotFoundError:  # run from its sources
        return "daybook, version unknown"


def custody_log(entries: Sequence[Handling]) -> Mapping[str, Any]:
    """Return the log as it stands in a pack."""
    return {"type": CUSTODY_TYPE, "entries": [asdict(entry) for entry in entries]}


def check_custody_log(value: object) -> Iterable[Mapping[str, Any]]:
    """Return the entries of a log, its shape checked. Raises MalformedError."""
    entries = value.get("entries") if isinstance(value, dict) and value.get("type") == CUSTODY_TYPE else None
    if not isinstance(entries, list) or not entries:
        raise MalformedError("custody log: no entries, or of another type")
    for entry in entries:
        if not isinstance(entry, dict) or entry.keys() != _MEMBERS:
            raise MalformedError("custody log: an entry has other members than it must have")
        if any(not isinstance(each, str) for name, each in entry.items() if not name.startswith("sha256_")):
            raise MalformedError("custody log: a member that is no text")
    return entries


def check_custody_of(entries: Iterable[Mapping[str, Any]], receipts: str, schedule: str) -> None:
    """See that a log is of this pack: of these receipts, and it ends in this hash schedule (digests, in hex).

    Who did it, when and why is what the log says, and no more. Raises MalformedError.
    """
    *earlier, last = entries
    if last["action"] != PACKED or last["sha256_after"] != schedule:
        raise MalformedError("custody log: it does not end in the packing of this hash schedule")
    if not any(each["action"] == GATHERED and each["sha256_after"] == receipts for each in earlier):
        raise MalformedError("custody log: it does not tell of the gathering of these receipts")

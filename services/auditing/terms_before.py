"""The terms of the last visit, and what changed with them: other terms give other findings of the same records.

What an auditor was shown under one profile may be gone under the next, which the ledger itself may have
published meanwhile. So the terms of a visit are kept, with the findings that they gave, and files of them in
the folder `terms` of the state, from which they can be used again.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from ledger import canonical
from services.auditing.audit_state import AuditState
from services.auditing.calendars import Overrides
from services.auditing.declared import digest, members
from services.auditing.known_findings import identity_of
from services.auditing.profile_types import Profile
from services.auditing.profiles import SHIPPED, identity, shipped
from services.auditing.results import AuditFinding, Source
from services.auditing.stale_seals import STALE
from services.auditing.terms_in_force import TermsInForce

FOLDER: Final = "terms"
"""The folder of profiles and overrides in the state's directory."""

_ABOUT: Final = "terms of the last visit"
_DIGITS: Final = 16
_LONGEST: Final = 300
"""Characters of a calendar's version that are shown: it names every file of overrides."""


class Earlier(msgspec.Struct, frozen=True):
    """The terms of a visit: identities, the options that choose them again, and what was listed under them."""

    profile: str
    calendar: str
    options: str
    listed: tuple[str, ...]


def changed_terms(state: AuditState, terms: TermsInForce, findings: Iterable[AuditFinding]) -> str:
    """Say how the terms differ from those of the last visit, and what that does; empty where they do not.

    `findings` are those of this visit. Raises StoreError.
    """
    earlier = _earlier(state)
    now = identity(terms.profile), terms.calendar.version
    if earlier is None or (earlier.profile, earlier.calendar) == now:
        return ""
    said = []
    if earlier.profile != now[0]:
        said.append(f"by profile {earlier.profile} then, by {terms.profile_named} now")
    if earlier.calendar != now[1]:
        entries = ", ".join(map(str, terms.days_from))
        by = f", which governing entries {entries} override" if entries else ""
        said.append(f"in the working days of {_short(earlier.calendar)} then, of {_short(now[1])}{by} now")
    gone = len(set(earlier.listed) - set(_listed(findings)))
    return (
        f"Records are looked at in other terms than at your last visit: {'; '.join(said)}. "
        f"Of the findings of then {gone:,} {'is' if gone == 1 else 'are'} not listed now, though the records "
        f"are the same. To look at them in the terms of then: {earlier.options}"
    )


def keep_terms(state: AuditState, terms: TermsInForce, findings: Iterable[AuditFinding]) -> None:
    """Keep the terms of a visit that has come to its end, and what was listed. Raises OSError, StoreError."""
    options = shlex.join(_options(state, terms))
    kept = Earlier(identity(terms.profile), terms.calendar.version, options, tuple(_listed(findings)))
    state.notebook.set_about(_ABOUT, msgspec.json.encode(kept).decode())


def _earlier(state: AuditState) -> Earlier | None:
    held = state.notebook.about(_ABOUT)
    return msgspec.json.decode(held, type=Earlier) if held else None


def _listed(findings: Iterable[AuditFinding]) -> Iterator[str]:
    """Yield by what the findings that depend on the terms are known again."""
    for each in findings:
        if each.source is Source.DETECTION or each.code == STALE:
            yield identity_of(each).hex()[:_DIGITS]


def _options(state: AuditState, terms: TermsInForce) -> Iterator[str]:
    """Yield the options that choose the terms again, whatever the ledger publishes by then."""
    profile = terms.profile
    if profile.name in SHIPPED and profile == shipped(profile.name):
        yield from ("--profile", profile.name)
    else:
        name = f"{profile.name}-{profile.version}-{digest(profile)[:_DIGITS]}.json"
        yield from ("--profile", str(_file(state, name, profile)))
    for each in terms.overrides:
        name = f"days-{each.name}-{digest(each)[:_DIGITS]}.json"
        yield from ("--overrides", str(_file(state, name, each)))


def _file(state: AuditState, name: str, declared: Profile | Overrides) -> Path:
    folder = state.monitored.directory.root / FOLDER
    path = folder / name
    if not path.exists():
        folder.mkdir(exist_ok=True)
        being_written = path.with_suffix(".tmp")
        with being_written.open("wb") as file:
            file.write(canonical.format(members(declared)))
            file.flush()
            os.fsync(file.fileno())
        being_written.rename(path)
    return path


def _short(version: str) -> str:
    return version if len(version) <= _LONGEST else f"{version[:_LONGEST]}…"

"""A visit in its course: what was asked for, and what has come of it so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ledger.errors import LedgerError
from services.auditing.kept_checkpoints import Kept
from services.auditing.listing import Listing
from services.auditing.profile_types import Profile
from services.auditing.promises import Held
from services.auditing.terms_in_force import NONE_CHOSEN, ChosenDays, TermsInForce
from services.monitoring.rounds import Limits, Round


class UnknownRegisterError(LedgerError):
    """A register was asked for that the governing register does not open."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What an auditor asks for.

    `registers` are those to be read, empty for all. `kept` are files of checkpoint notes that he has kept,
    `acknowledgements` the folder of a department's. `profile` is the one that he chooses, None for the one
    that is in force, and `days` are the working days that he has otherwise; `detects` tells whether detections
    are run.
    """

    registers: tuple[str, ...] = ()
    kept: tuple[Path, ...] = ()
    acknowledgements: Path | None = None
    limits: Limits = field(default_factory=Limits)
    profile: Profile | None = None
    detects: bool = True
    days: ChosenDays = NONE_CHOSEN


@dataclass(slots=True)
class Visit:
    """What is known in the course of a visit: when it began, POSIX seconds, and its number from 1.

    `previous` is when the last one ended, None for none. `listing` has what was found by now. `changed_terms`
    says how the terms differ from those of the last visit, empty where they do not.
    """

    begun: int
    number: int
    previous: int | None
    made: Round
    kept: Kept
    terms: TermsInForce
    listing: Listing = field(default_factory=Listing)
    held: Held | None = None
    changed_terms: str = ""

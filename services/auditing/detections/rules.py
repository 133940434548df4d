"""The rules by id and version, with their known innocent causes and how to look at a finding again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ledger.records import Decision
from ledger.timeline import Bounds
from ledger.values import Partial
from services.auditing.found import Found, Severity
from services.auditing.profile_types import Profile
from services.auditing.profiles import identity
from services.auditing.working_days import Calendar

MAX_INDICES: Final = 1_000
"""Entries that one finding lists at most; its inputs say how many there are."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One detection: what findings of it say of themselves."""

    id: str
    version: int
    name: str
    innocent: tuple[str, ...]
    recheck: str


def _rule(number: int, name: str, innocent: tuple[str, ...], recheck: str, version: int = 1) -> Rule:
    return Rule(f"DET-{number:02}", version, name, innocent, recheck)


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        rule.id: rule
        for rule in (
            _rule(
                1,
                "late registration",
                (
                    "a date that is given only to the month or year",
                    "leave or absence of those who register",
                    "legacy records that were brought in later",
                ),
                "Take decided_at from the entry and not-before from the cosignatures of its "
                "register; count the "
                "working days between them in the calendar named in the inputs.",
                version=3,
            ),
            _rule(
                2,
                "late capture",
                ("a device that was broken or out of reach",),
                "Compare decided_at and captured_at of the entry; both are the department's own claims.",
                version=2,
            ),
            _rule(
                3,
                "order inversion",
                ("legacy records that were brought in later",),
                "List the entries of the series, or of the matter, in the order of the register, and "
                "compare decided_at.",
                version=3,
            ),
            _rule(
                4,
                "dated after it was registered",
                ("a typing error in the date",),
                "Compare decided_at of the entry with not-after of its register's cosignatures.",
                version=3,
            ),
            _rule(
                5,
                "non-corporate channel",
                ("an emergency in which no other channel was in reach",),
                "Read channel, device, capture_method and channel_justification of the entry.",
            ),
            _rule(
                6,
                "disappearing messages on",
                ("a default setting of the app that nobody had changed",),
                "Read disappearing_messages of the entry.",
            ),
            _rule(
                8,
                "series gap or duplicate number",
                (
                    "a series that is shared with another office or system",
                    "numbers given to drafts that were never decided",
                ),
                "List the reference numbers of the series and the voids of them, as "
                "docs/reference-voids.md says.",
                version=2,
            ),
            _rule(
                9,
                "return differs or is missing",
                ("a return that came late", "a decision that was dated anew by a correction"),
                "Count the decisions of the series in the period as at the return's index "
                "(formats.md, section 16).",
                version=2,
            ),
            _rule(
                10,
                "stage missing",
                ("a scheme that was not in force yet", "a stage that is recorded in another matter or system"),
                "List the entries of the matter with their stages, beside the scheme that the profile has.",
                version=2,
            ),
            _rule(
                11,
                "stages out of order",
                ("dates that are given only to the month or year",),
                "List the entries of the matter with their stages and decided_at.",
            ),
            _rule(
                12,
                "decision after award or start",
                ("date fields that the department uses in another sense",),
                "Compare decided_at with procurement.award_date and procurement.start_date of the entry.",
                version=2,
            ),
            _rule(
                13,
                "contract before its award",
                ("a letter of intent under which work began",),
                "Compare start_date, award_date and effective_at of the entry.",
            ),
            _rule(
                14,
                "late publication",
                ("a contract that is exempt from publication, or whose details were held back lawfully",),
                "Count the days from the award date to publication.first of the entry.",
            ),
            _rule(
                15,
                "notice changed again and again",
                ("corrections of form only", "a planned second award under the same notice"),
                "Read publication.updates of the entry, and compare value and supplier over its versions.",
            ),
            _rule(
                16,
                "contract recorded twice",
                ("two lots of one procurement that are alike",),
                "Compare supplier, value, date and ocid of the two entries.",
                version=2,
            ),
            _rule(
                20,
                "burst",
                ("a batch job that the department has declared", "a backlog that was cleared at once"),
                "Count the entries of the submitter and series, or the dates of publication, in the "
                "window named.",
                version=2,
            ),
            _rule(
                21,
                "off hours",
                ("work in an emergency", "a job that runs at night"),
                "Take the time named in the inputs to London time, and look for it in the calendar.",
                version=2,
            ),
            _rule(
                26,
                "evidence used again, or screenshots only",
                ("one submission that was the basis of several decisions",),
                "Look for the digest among evidence.sha256 of the entries named.",
            ),
            _rule(
                28,
                "corrected again and again",
                ("careful upkeep of a record whose first version was hasty",),
                "Read the versions of the record in their order, each with its reason.",
            ),
            _rule(
                29,
                "unwitnessed",
                ("an outage of the witnesses or of the network",),
                "Look for cosignatures of the register over a size above the index, by the witnesses "
                "of your policy.",
            ),
            _rule(
                30,
                "silence",
                ("a recess or an election", "an office that seldom decides", "an office that was closed"),
                "List the last entries of the registers of the department with their not-after.",
                version=2,
            ),
        )
    }
)
"""Every rule that is run, by its id."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Under what the rules are run: a profile and the calendar in which its working days are counted."""

    profile: Profile
    calendar: Calendar
    profile_identity: str

    @classmethod
    def of(cls, profile: Profile, calendar: Calendar) -> Terms:
        """Return the terms that a profile and a calendar make."""
        return cls(profile, calendar, identity(profile))

    def found(
        self,
        rule_id: str,
        severity: Severity,
        register: str,
        indices: Iterable[int],
        inputs: Mapping[str, object],
        explanation: str,
    ) -> Found:
        """Return a finding of a rule. Of more than `MAX_INDICES` entries the first are listed."""
        rule = RULES[rule_id]
        listed = sorted(set(indices))
        stated = {name: str(value) for name, value in inputs.items() if value is not None}
        stated |= {"calendar": self.calendar.version, "profile": self.profile_identity}
        if len(listed) > MAX_INDICES:
            stated["entries"] = str(len(listed))
            listed = listed[:MAX_INDICES]
        return Found(
            rule.id,
            rule.version,
            severity,
            register,
            tuple(listed),
            stated,
            explanation,
            rule.innocent,
            rule.recheck,
        )


@dataclass(frozen=True, slots=True)
class Case:
    """One full statement of a decision, as the detections of single records take it.

    `index` is the index of this version's entry, with `own_bounds`, and `first_index` that of version 1.
    `bounds` and `accepted_at` are those of the entry at `registered_index`, which registered the decision as it
    is dated here: version 1, since a correction does not change when a decision was registered; or the last
    amendment that stated another date, which is a new decision.
    """

    register: str
    index: int
    first_index: int
    registered_index: int
    record: Decision
    decided: Partial
    bounds: Bounds
    accepted_at: float
    own_bounds: Bounds


DAY: Final = 86_400
"""Seconds."""


def many(count: int, one: str, several: str = "") -> str:
    """Return a number with its noun: ``1 day``, ``2 days``."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"

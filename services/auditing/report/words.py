"""Plain words for what the audit says in codes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Final

from services.auditing.detections.rules import RULES
from services.auditing.found import Severity
from services.auditing.results import Source, Standing

STANDINGS: Final[Mapping[Standing, str]] = {
    Standing.INTACT: "Intact",
    Standing.FAILED: "Failed",
    Standing.UNREAD: "Not read to its end",
}

SEVERITIES: Final[Mapping[Severity, str]] = {
    Severity.CRITICAL: "Critical",
    Severity.HIGH: "High",
    Severity.MEDIUM: "Medium",
    Severity.LOW: "Low",
    Severity.INFO: "For information",
}

SOURCES: Final[Mapping[Source, str]] = {
    Source.INTEGRITY: "Reading and deriving everything anew",
    Source.RULES: "The rules, keys and versions as they stood at the time",
    Source.TIME: "What the ledger claims of time, against the witnesses' clocks",
    Source.ACKNOWLEDGEMENT: "What was promised to a department, against the registers",
    Source.DETECTION: "A detection, with numbers from the profile",
}

NAMES: Final[Mapping[str, str]] = {
    "fork": "two histories were signed",
    "rollback": "signed entries are gone",
    "altered": "what is served is not what was signed",
    "forged": "an entry that nobody authorised can have registered",
    "hidden": "a register is kept from view",
    "unopened": "a register that was never opened",
    "unanchored": "a checkpoint is kept out of the governing register",
    "anchor": "an anchor that is none of this ledger",
    "signature": "a checkpoint is not signed by the ledger",
    "unsealed": "a checkpoint lacks the witnesses that were asked for",
    "ahead": "governing entries are kept from view",
    "missing": "something that was signed is not served",
    "second-tree": "two independent programs come to different roots",
    "broken-promise": "what was acknowledged was not registered",
    "after-revocation": "entries signed with a revoked key",
    "stale-view": "entries signed with a key that had long been revoked",
    "concurrent-revocation": "entries signed about when their key was revoked",
    "before-revocation": "entries signed before their key was revoked",
    "suspected-key": "entries signed with a key that may have been stolen by then",
    "key-unendorsed": "a key without its owner's agreement",
    "key-bound-twice": "a key that is bound to two departments",
    "ledgers-own-key": "a department's key that is the ledger's own",
    "beyond-closure": "entries in a register that was closed",
    "view-not-sealed": "judged by rules that were not public yet",
    "impossible-time": "said to be accepted after witnesses had it",
    "claimed-earlier": "said to be accepted before witnesses can have had it",
    "claimed-before-visit": "said to be accepted before the last visit, when it was not there",
    "claimed-just-earlier": "said to be accepted shortly before witnesses can have had it",
    "claimed-earlier-acknowledged": "said to be accepted earlier, and an acknowledgement agrees",
    "relation-to-nothing": "a record that relates to one that is not there",
    "unfounded-rejection": "a rejection that names another entry",
    "breaks-a-rule": "a record that should have been refused",
    "type-not-understood": "a record of a type that is not known",
    "restored": "the ledger was restored from a copy",
    "promise-overdue": "an acknowledgement that is still to be kept",
    "acknowledgement-ahead": "an acknowledgement that is dated ahead of the auditor's clock",
    "unwitnessed-beginning": "a register that witnesses are not shown to have seen empty",
    "terms-back-dated": "rules that hold from before they were published",
    "terms-misnamed": "rules under a name that others have",
    "stale-checkpoint": "a checkpoint that witnesses have not cosigned anew for long",
    "acknowledgement-unusable": "an acknowledgement that proves nothing",
}
"""What findings of each code are called; the detections name themselves."""


def name_of(code: str) -> str:
    """Return what a kind of finding is called by somebody who does not know the codes."""
    rule = RULES.get(code)
    words = rule.name if rule is not None else NAMES.get(code, code.replace("-", " "))
    return f"{words[:1].upper()}{words[1:]}"


def many(count: int, one: str, several: str = "") -> str:
    """Return a number with its noun: ``1 day``, ``2 days``."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def day_in_words(day: date) -> str:
    """Return a day as people write it: ``3 July 2026``."""
    return f"{day.day} {day:%B} {day.year}"


def time_in_words(seconds: float) -> str:
    """Return POSIX seconds as people write a time, in UTC; a witness may sign a time that no calendar has."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.0f} seconds after 1970"
    return f"{day_in_words(moment)}, {moment:%H:%M:%S} UTC"

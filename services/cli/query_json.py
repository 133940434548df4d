"""What `daybook query --json` prints: every match with its whole record and the facts of its entry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ledger import base64, canonical
from ledger.entries import parse_entry, submission_body_of, submission_id
from ledger.errors import MalformedError
from ledger.hashing import leaf_hash
from ledger.witnessing import Policy
from services.cli.query_found import Found, instant
from services.query_answer import Match, Unread
from services.querying import sealed_by


def value(found: Found, policy: Policy, kept: Sequence[Path], statements: Iterable[str]) -> dict[str, Any]:
    """Return the JSON object. `kept` are the receipts that were kept; entries must have been kept too."""
    register, answer = found.register, found.answer
    told: dict[str, Any] = {
        "ledger_origin": register.ledger_origin,
        "register": register.name,
        "policy_fingerprint": policy.fingerprint,
        "checkpoint": {
            "size": register.size,
            "root": base64.encode(register.root),
            "witnessed": register.judged.sealed,
            "witnesses": sorted({each.witness for each in register.judged.cosignatures}),
            "sealed_by": instant(sealed_by(register.judged, policy)),
        },
        "completeness_proved": not found.quick,
        "indices": [[begin, end - 1] for begin, end in found.spans] or None,
        "matches": [_match(each, found) for each in answer.matches],
        "not_read": [_unread(each, register.origin) for each in answer.unread],
        "not_read_count": answer.unread_count,
        "receipts": [str(path) for path in kept],
        "statements": list(statements),
    }
    if found.as_at:
        told["as_at"] = _as_at(found)
        told["since"] = [_match(each, found) for each in answer.since]
    return told


def _as_at(found: Found) -> dict[str, Any]:
    told: dict[str, Any] = {"proved": found.cut is not None}
    if found.when is not None:
        told |= {
            "asked": found.when.text,
            "earliest": instant(found.when.earliest),
            "latest": instant(found.when.latest),
        }
    if found.cut is not None:
        told |= {
            "known_size": found.cut.known,
            "known_by": instant(found.cut.known_by),
            "later_from": found.cut.later,
            "later_than": instant(found.cut.later_than),
            "comparable": found.cut.comparable,
        }
    return told


def _match(match: Match, found: Found) -> dict[str, Any]:
    newest = found.answer.newest(match)
    window = found.windows.get(match.index)
    told: dict[str, Any] = {
        "index": match.index,
        "type": match.type,
        "record_id": match.record_id,
        "version": match.version,
        "record_sha256": match.sha256,
        "decided_at": match.decided_at,
        "decision_type": match.decision_type,
        "channel": match.channel,
        "title": match.title,
        "title_withheld": match.title_withheld,
        "accepted_at": match.accepted_at,
        "decided_perhaps": match.perhaps,
        "standing": match.standing.value,
    }
    if newest is not None:
        told["newest_version"] = {
            "index": newest.index,
            "type": newest.type,
            "standing": newest.standing.value,
        }
    elif not found.spans:
        # Where indices were asked for, no later entry was looked at, and null would say that there is none.
        told["newest_version"] = None
    if window is not None:
        told["not_before"] = instant(window.not_before)
        told["not_after"] = instant(window.not_after)
    if match.entry is not None:
        told |= _entry(match.entry, found.register.origin)
    return told


def _entry(data: bytes, origin: str) -> dict[str, Any]:
    """Return what an entry that was verified holds: its record, and what the ledger added to it."""
    entry = parse_entry(data)
    submission = None
    if entry.membership is not None:
        submission = {
            "id": submission_id(submission_body_of(entry, origin)),
            "count": entry.membership.count,
            "position": entry.membership.position,
            "signers": [base64.encode(each.key) for each in entry.membership.signatures],
        }
    told: dict[str, Any] = {
        "submitter": entry.acceptance.submitter,
        "governing_size": entry.acceptance.governing_size,
        "leaf_hash": base64.encode(leaf_hash(data)),
        "submission": submission,
    }
    try:
        told["record"] = canonical.parse(entry.record)
    except MalformedError:
        told["record"] = None
        told["record_base64"] = base64.encode(entry.record)
    return told


def _unread(unread: Unread, origin: str) -> dict[str, Any]:
    told = {"index": unread.index, "why": unread.why}
    return told if unread.entry is None else told | _entry(unread.entry, origin)

"""Whether a rejection can be what it says: by what the register itself shows (formats.md, section 9).

What only the rejected submission would show, since nobody but its author has it, is left to the ledger's word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ledger.entries import parse_entry
from ledger.errors import MalformedError, Reason
from ledger.governing_types import SubmissionRejected
from ledger.records import record_digest
from ledger.rules import read_header

_WITHDRAWN: Final = "decision.withdrawn/1"
_SAME: Final = frozenset({Reason.RECORD_ALREADY_REGISTERED, Reason.RECORD_CONFLICT})
_NEXT: Final = frozenset({Reason.TYPE_CONFLICT, Reason.PREVIOUS_MISMATCH})


@dataclass(frozen=True, slots=True)
class Past:
    """What a register held before a rejection.

    `entry` gives the entry at an index, `version` the index of a version of a record (16 bytes); None for what
    was not there. `governing_size` is that of the latest entry with a submission, None where there is none.
    """

    entry: Callable[[int], bytes | None]
    version: Callable[[bytes, int], int | None]
    governing_size: int | None


def unfounded(rejected: SubmissionRejected, governing_size: int, past: Past) -> str | None:
    """Return why a rejection whose envelope has `governing_size` cannot be what it says; None where it can."""
    reason, refused, met = rejected.reason, rejected.rejected, rejected.existing
    if reason == Reason.GOVERNANCE_REFUSED:
        return None
    if reason == Reason.STALE_VIEW:
        if past.governing_size is not None and governing_size < past.governing_size:
            return None
        return "rejects a submission for a stale view, and no earlier entry has a newer one"
    if refused is None:
        return f"rejects a submission as {reason}, and names no record of it"
    identity = UUID(refused.record_id).bytes
    if reason == Reason.PREVIOUS_UNKNOWN:
        return _nothing_to_follow(refused.version, past.version(identity, 1))
    if met is None:
        # It can only have met another record of its own submission, before it.
        return None if refused.position else f"rejects a submission as {reason}, and names no earlier entry"
    what = f"rejects a submission for entry {met.index}, which is not"
    entry = past.entry(met.index)
    if entry is None:
        return f"{what} before it"
    record = parse_entry(entry).record
    if record_digest(record) != met.sha256:
        return f"{what} the record that it names"
    try:
        header = read_header(record)
    except MalformedError:
        return f"{what} a version of any record"
    if header.record_id != refused.record_id:
        return f"{what} a version of the record that was rejected"
    if reason in _SAME:
        return None if header.version == refused.version else f"{what} the version that was rejected"
    if past.version(identity, header.version + 1) is not None:
        return f"{what} the last version of the record that was rejected"
    if reason == Reason.RECORD_WITHDRAWN and header.type != _WITHDRAWN:
        return f"{what} a withdrawal"
    follows = refused.version == header.version + 1
    if (reason in _NEXT and not follows) or (reason == Reason.VERSION_CONFLICT and follows):
        return f"rejects a submission as {reason}, and its version {refused.version} is no such"
    return None


def _nothing_to_follow(version: int, first: int | None) -> str | None:
    if version == 1:
        return "rejects a first version of a record for not following another"
    return None if first is None else f"rejects a submission for following nothing, and entry {first} is there"

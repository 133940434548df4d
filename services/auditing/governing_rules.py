"""The governing register: what its rules allow, and an auditor wants to know (formats.md, section 7).

Signatures, thresholds and proofs of possession are the append rules', which the round has replayed. These are
the findings that those rules leave: keys that were authorised in odd ways.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from ledger import base64
from ledger.entries import Membership, parse_entry
from ledger.errors import MalformedError, RejectedError
from ledger.governing import GOVERNING, Fold
from ledger.notes import VerifierKey
from ledger.records import KeyAuthorised, parse_record
from services.auditing.audit_state import STRETCH, AuditState

BOUND_TWICE: Final = "key-bound-twice"
"""A key was authorised again: the first binding holds for ever, and this has no effect."""

OWN_KEY: Final = "ledgers-own-key"
"""A key of the ledger or of governance was authorised for a department: this has no effect."""

UNENDORSED: Final = "key-unendorsed"
"""A key was authorised for a department that had one, and no current key of it has signed."""

_LOOKED_AT: Final = "governing rules"
_TYPE: Final = b'"key.authorised/1"'


def judge_governing(state: AuditState) -> None:
    """Look at the governing entries that were not yet looked at, and note what is odd. Raises StoreError."""
    notebook, size = state.notebook, state.monitored.size(GOVERNING)
    begin = notebook.position(_LOOKED_AT)
    while begin < size:
        end = min(begin + STRETCH, size)
        found: list[tuple[str, str, int, int, str]] = []
        for index, data in enumerate(state.entries(GOVERNING, begin, end), begin):
            # Nearly every governing entry is an anchor: those are not taken apart.
            odd = _odd(state.monitored.mirror.fold, index, data) if _TYPE in data else None
            if odd is not None:
                found.append((odd[0], GOVERNING, index, index, odd[1]))
        with notebook.together():
            notebook.write_all("INSERT OR REPLACE INTO odd VALUES (?, ?, ?, ?, NULL, ?)", found)
            notebook.set_position(_LOOKED_AT, end)
        begin = end


def _odd(fold: Fold, index: int, data: bytes) -> tuple[str, str] | None:
    """Return what is odd about a governing entry, its code and in words, by the fold of all entries."""
    entry = parse_entry(data)
    try:
        record = parse_record(entry.record)
    except (MalformedError, RejectedError):
        return None
    if entry.membership is None or not isinstance(record, KeyAuthorised):
        return None
    key = base64.decode(record.key, 32)
    bound = fold.keys.get(key)
    if bound is not None and bound.authorised < index:
        return BOUND_TWICE, (
            f"authorises key {record.key} for {record.department}; it was bound to {bound.department} "
            f"for ever by entry {bound.authorised}"
        )
    if bound is None or _is_own(fold, index, key):
        return OWN_KEY, f"authorises key {record.key} for {record.department}, which is the ledger's own"
    return _unendorsed(fold, index, record, entry.membership)


def _unendorsed(fold: Fold, index: int, record: KeyAuthorised, signed: Membership) -> tuple[str, str] | None:
    """Tell whether a department that has keys was given one that none of them has signed for."""
    earlier = [each for each in fold.keys.values() if each.department == record.department]
    if not any(each.authorised < index for each in earlier):
        return None  # its first
    current = {
        each.key
        for each in earlier
        if each.authorised < index and (each.revoked is None or each.revoked >= index)
    }
    if current.intersection(_signers(signed)):
        return None
    reason = f"; the reason given is: {record.reason}" if record.reason else "; no reason is given"
    return UNENDORSED, (
        f"authorises key {record.key} for {record.department} without the signature of any of its "
        f"{len(current)} current keys{reason}"
    )


def _signers(signed: Membership) -> Collection[bytes]:
    return {each.key for each in signed.signatures}


def _is_own(fold: Fold, index: int, key: bytes) -> bool:
    if any(key in held.keys for held in fold.governance if held.since < index):
        return True
    opened = fold.opened
    return opened is not None and any(
        VerifierKey.parse(vkey).public == key for vkey in (opened.ledger_key, opened.acknowledgement_key)
    )

"""Registers that no witness has seen empty: from when their first entries are at the earliest, nothing shows.

A register's checkpoint of no entries is sealed and anchored when it is opened (formats.md, section 11). Where
it was not, what was registered before the first checkpoint that was may have been decided long before. A
register that grows faster than the witnesses answer may begin so; one that has stood open for long may not.
"""

from __future__ import annotations

from typing import Final

from ledger.admission import moment
from ledger.entries import parse_entry
from ledger.governing import GOVERNING
from services.auditing.audit_state import AuditState
from services.auditing.found import Severity
from services.auditing.results import AuditFinding, Source
from services.auditing.windows import shown_bounds

UNWITNESSED: Final = "unwitnessed-beginning"


def undated(state: AuditState, register: str) -> int:
    """Return how many entries a register begins with that have no not-before. Raises StoreError."""
    count = 0
    for _, end, bounds in state.times.stretches(register, 0, state.monitored.size(register)):
        if bounds.not_before is not None:
            break
        count = end
    return count


def unwitnessed_beginning(state: AuditState, register: str, within: int) -> AuditFinding | None:
    """Return the finding for a department's register that stood open, unseen, for more than `within` seconds.

    That is by the ledger's own word, and not about one that says otherwise: None. For a policy that asks for
    witnesses: without them no time is proved of anything. Raises StoreError.
    """
    count = undated(state, register)
    if not count:
        return None
    opened = state.monitored.mirror.fold.registers[register].opened
    waited = _waited(state, register, opened)
    if waited <= within:
        return None
    entries = "its first entry" if count == 1 else f"its first {count:,} entries"
    return AuditFinding(
        UNWITNESSED,
        Source.TIME,
        Severity.HIGH,
        False,
        register,
        f"by the ledger's own word it stood open for {waited // 60:,} minutes before its first entry, and no "
        f"sealed checkpoint of no entries is shown. From when {entries} can be is not proved, and so neither "
        "whether that was registered late",
        "a register's checkpoint of no entries is sealed and anchored when it is opened",
        ((0, count - 1),),
        count,
        {
            "opened_by_governing_entry": str(opened),
            "opened": shown_bounds(state.bounds(GOVERNING, opened)),
            "first_entry": shown_bounds(state.bounds(register, 0)),
            "waited_seconds": str(waited),
            "limit_seconds": str(within),
        },
        (
            "the ledger had no witnesses when the register was opened, or others than your policy names",
            "its witnesses were away then",
        ),
        recheck="ask for a checkpoint of it that others have kept, and give it with --last-checkpoint",
    )


def _waited(state: AuditState, register: str, opened: int) -> int:
    """Return how many seconds, by the ledger's own word, lie between its opening and its first entry."""
    (opening,) = state.entries(GOVERNING, opened, opened + 1)
    (entry,) = state.entries(register, 0, 1)
    accepted = [moment(parse_entry(each).acceptance.accepted_at) for each in (opening, entry)]
    return int(accepted[1] - accepted[0])

"""Registers of which only an old checkpoint is served: what came since, if anything, is not shown.

Witnesses cosign a checkpoint anew while its register stands still. So one that they have not seen for long is
not the newest that there is, or they, or the ledger, were away.
"""

from __future__ import annotations

from typing import Final

from ledger.witnessing import Policy
from services.auditing.audit_state import AuditState
from services.auditing.found import Severity
from services.auditing.results import AuditFinding, Source
from services.auditing.sealed_times import last_sealed_at
from services.auditing.windows import shown_time

STALE: Final = "stale-checkpoint"


def stale_checkpoint(
    state: AuditState, policy: Policy, register: str, limit: int, now: float
) -> AuditFinding | None:
    """Return the finding for a register whose served checkpoint was sealed last more than `limit` seconds ago.

    `now` is POSIX seconds. None where no time is proved. Raises StoreError.
    """
    seen = state.monitored.seen.latest(register)
    if seen is None:
        return None
    sealed = last_sealed_at(policy, policy.open(seen.last, state.monitored.mirror.register_origin(register)))
    if sealed is None or now - sealed <= limit:
        return None
    waited = int(now - sealed)
    return AuditFinding(
        STALE,
        Source.TIME,
        Severity.HIGH,
        False,
        register,
        f"the checkpoint that is served, of {seen.size:,} entries, was sealed last at {shown_time(sealed)}, "
        f"{waited // 3_600:,} hours before this visit: what was added since, if anything, is not shown",
        "a checkpoint is cosigned anew while nothing is added",
        inputs={
            "sealed_at": shown_time(sealed),
            "waited_seconds": str(waited),
            "limit_seconds": str(limit),
            "size": str(seen.size),
        },
        innocent=("the ledger, or its witnesses, have been away", "your clock, or theirs, is wrong"),
        recheck="fetch the checkpoint again, and ask the witnesses what they have cosigned last",
    )

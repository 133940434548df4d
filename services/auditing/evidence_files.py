"""What is kept of a finding about an entry, so that it can be shown to others.

A file is evidence of the monitor's own form: it proves, offline and to anybody, that this very entry stands in
the register under a checkpoint that the ledger has signed. What follows from the entry it says in words.
"""

from __future__ import annotations

from pathlib import Path

from services.auditing.audit_state import AuditState
from services.auditing.results import AuditFinding
from services.monitoring.findings import EntryProof, evidence_members, keep_members, shown
from services.monitoring.state import Seen


def keep_entry_finding(state: AuditState, finding: AuditFinding, now: int) -> tuple[Path, bool]:
    """Write the evidence of a finding durably; return its file, and whether that proves its first entry.

    The same finding has the same file, and the first one stays. Raises OSError, StoreError.
    """
    proof, material = _first_entry(state, finding)
    spans = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in finding.spans)
    members = evidence_members(
        finding.code,
        state.origin,
        finding.register,
        finding.what,
        finding.expected,
        (proof.note,) if proof else (),
        proof,
        {**material, **({"entries": spans} if spans else {}), **finding.inputs},
    )
    path = keep_members(state.monitored.directory.evidence, finding.code, finding.register, members, now)
    return path, proof is not None


def _first_entry(state: AuditState, finding: AuditFinding) -> tuple[EntryProof | None, dict[str, str]]:
    if not finding.spans:
        return None, {}
    index = finding.spans[0][0]
    (entry,) = state.entries(finding.register, index, index + 1)
    seen = covering(state, finding.register, index)
    if seen is None:
        return None, {"entry": shown(entry)}
    reader = state.monitored.mirror.reader(finding.register)
    return EntryProof(seen.last, index, entry, reader.inclusion(index, seen.size)), {"entry": shown(entry)}


def covering(state: AuditState, register: str, index: int) -> Seen | None:
    """Return the smallest checkpoint seen that covers an entry, of those whose entries were read."""
    seen = state.monitored.seen.next_above(register, index)
    return seen if seen is not None and seen.size <= state.monitored.size(register) else None

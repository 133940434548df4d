"""Relations to records that are not there: not yet, or never.

What a record points at may be registered later, in this register or in another one. So relations that lead
nowhere are kept, and tried again at every visit.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from ledger.store import RecordAt
from services.auditing.audit_state import AuditState
from services.auditing.found import Severity
from services.auditing.results import AuditFinding, Source
from services.auditing.spans import Spans

_AT_ONCE: Final = 512


def try_relations(state: AuditState, register: str) -> None:
    """Forget those relations of a register whose target is there by now. Raises StoreError."""
    last: tuple[object, ...] = (-1, "", b"", 0)
    while rows := list(
        state.notebook.rows(
            "SELECT entry, target, record_id, version FROM relation WHERE register = ? "
            "AND (entry, target, record_id, version) > (?, ?, ?, ?) ORDER BY 1, 2, 3, 4 LIMIT ?",
            (register, *last, _AT_ONCE),
        )
    ):
        last = rows[-1]
        there: list[tuple[object, ...]] = []
        for target in {row[1] for row in rows}:
            wanted = [(row[2], row[3]) for row in rows if row[1] == target]
            found = {(at.record_id, at.version) for at in _versions(state, target, wanted)}
            there += [(register, *row) for row in rows if row[1] == target and (row[2], row[3]) in found]
        with state.notebook.together():
            state.notebook.write_all(
                "DELETE FROM relation WHERE register = ? AND entry = ? AND target = ? AND record_id = ? "
                "AND version = ?",
                there,
            )


def relation_findings(state: AuditState, register: str, read: Collection[str]) -> list[AuditFinding]:
    """Return what is found of relations that lead nowhere, of those whose register was read or is none.

    `read` are the registers whose entries were read to their ends.
    """
    opened = state.monitored.mirror.fold.registers
    spans = Spans([])
    targets = state.notebook.rows("SELECT DISTINCT target FROM relation WHERE register = ?", (register,))
    judged = [each for (each,) in targets if each in read or each not in opened]
    marks = ",".join("?" * len(judged))
    for (index,) in state.notebook.rows(
        f"SELECT DISTINCT entry FROM relation WHERE register = ? AND target IN ({marks}) ORDER BY entry",  # noqa: S608
        (register, *judged),
    ):
        spans.add(index, index)
    if not spans.count:
        return []
    return [
        AuditFinding(
            "relation-to-nothing",
            Source.RULES,
            Severity.LOW,
            False,
            register,
            f"{spans.count:,} entries relate to a record that is not in the register that they name",
            "what a record relates to is there, or is registered later",
            tuple(spans.listed),
            spans.count,
            innocent=("the other record is still to be registered", "a typing error in the record_id"),
        )
    ]


def _versions(state: AuditState, register: str, wanted: list[tuple[bytes, int]]) -> list[RecordAt]:
    if not state.monitored.size(register):
        return []
    return state.monitored.mirror.store.versions(register, wanted)

"""What is kept of the findings of detections: a file for each register, a line for each finding.

A detection proves nothing against the ledger, so its evidence is what it was made from: the entries by index
and hash, the numbers, what else may explain them, and how to look again. Whoever packs the entries
(`daybook evidence`) has the proofs that these very entries stand in the register. There may be thousands of
findings, so they share a file, which is written anew where a later audit finds something else.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ledger import base64
from ledger.hashing import leaf_hash
from ledger.store import Head
from services.auditing.audit_state import AuditState
from services.auditing.results import AuditFinding, AuditResult, Source

TYPE: Final = "daybook.detections/1"
"""The type that the first line of a file states."""


def keep_detections(state: AuditState, result: AuditResult) -> AuditResult:
    """Write the findings of detections; return the result with where each is kept.

    A file has the findings of one register in this audit, and is bounded as they are: `MAX_LISTED` of each
    detection, of each the entries in its spans. What stood in its place is replaced at once or not at all.
    Raises OSError, StoreError.
    """
    if not result.profile:
        return result
    found: dict[str, list[_Named]] = {}
    for finding in result.all_findings():
        if finding.source is Source.DETECTION:
            found.setdefault(finding.register, []).append(_Named(_name(finding), finding))
    places: dict[int, tuple[str, str]] = {}
    for register, head in state.monitored.mirror.heads().items():
        # A register that the governing register opens has two parts, of small letters, digits and dashes.
        path = state.monitored.directory.evidence / f"detections-{register.replace('/', '+')}.jsonl"
        named = found.get(register)
        if named is None:
            path.unlink(missing_ok=True)
            continue
        _write(path, _lines(state, result, register, head, named))
        places |= {id(each.finding): (str(path), each.name) for each in named}

    def placed(finding: AuditFinding) -> AuditFinding:
        place = places.get(id(finding))
        return finding if place is None else replace(finding, evidence=place[0], evidence_id=place[1])

    registers = tuple(replace(each, findings=tuple(map(placed, each.findings))) for each in result.registers)
    return replace(result, registers=registers, findings=tuple(map(placed, result.findings)))


@dataclass(frozen=True, slots=True)
class _Named:
    """A finding with the name of its line."""

    name: str
    finding: AuditFinding


def _name(finding: AuditFinding) -> str:
    """Return by what a finding is called in its file: it differs where anything that was found does."""
    return hashlib.sha256(json.dumps(_members(finding), sort_keys=True).encode()).hexdigest()[:16]


def _members(finding: AuditFinding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "register": finding.register,
        "explanation": finding.what,
        "inputs": dict(finding.inputs),
        "innocent": list(finding.innocent),
        "recheck": finding.recheck,
        "spans": [list(span) for span in finding.spans],
        "count": finding.count,
    }


def _lines(
    state: AuditState, result: AuditResult, register: str, head: Head, found: Sequence[_Named]
) -> Iterator[bytes]:
    yield _line(
        {
            "type": TYPE,
            "ledger": result.ledger,
            "register": register,
            "size": head.size,
            "root": base64.encode(head.root),
            "profile": result.profile,
            "calendar": result.calendar,
            "software": result.software,
            "how_to_check": _HOW_TO_CHECK.format(register=register),
        }
    )
    store = state.monitored.mirror.store
    for each in found:
        indices = [index for first, last in each.finding.spans for index in range(first, last + 1)]
        held = store.entries_at(register, indices) if indices else {}
        entries = [{"index": index, "sha256": leaf_hash(entry).hex()} for index, entry in sorted(held.items())]
        yield _line({"id": each.name, **_members(each.finding), "entries": entries})


_HOW_TO_CHECK: Final = (
    "sha256 is the leaf hash of an entry (RFC 6962, section 2.1), below the root of so many entries. daybook "
    "evidence --register {register} --select index=FIRST..LAST --state STATE --policy YOUR_POLICY --out "
    "PACK.zip packs entries with the proofs that they stand there. daybook audit with a new state finds all of "
    "this anew."
)


def _line(members: Mapping[str, Any]) -> bytes:
    # In ASCII, so that nothing that a record says can break a line, or steer a terminal.
    return json.dumps(members, separators=(",", ":")).encode() + b"\n"


def _write(path: Path, lines: Iterator[bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    being_written = path.with_name(f"{path.name}.tmp")
    try:
        with being_written.open("wb") as file:
            digest = hashlib.sha256()
            for line in lines:
                digest.update(line)
                file.write(line)
            if _digest_of(path) == digest.digest():
                return
            file.flush()
            os.fsync(file.fileno())
        being_written.replace(path)
    finally:
        being_written.unlink(missing_ok=True)


def _digest_of(path: Path) -> bytes | None:
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()

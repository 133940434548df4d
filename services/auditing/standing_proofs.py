"""Proofs from earlier visits. That a ledger has signed two histories stays true, whatever it serves today."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from ledger.errors import MalformedError, VerificationError
from ledger.witnessing import Policy
from services.auditing.found import Severity
from services.auditing.results import AuditFinding, Source
from services.monitoring.findings import MAX_FILE, Kind, check

_MOST: Final = 20
"""Proofs that are told of in any case; beyond them, one of each register."""


def standing_proofs(folder: Path, policy: Policy, new: Collection[Path]) -> Iterator[AuditFinding]:
    """Yield the forks whose proofs are kept below `folder` and still hold, but for those that are `new`.

    Of every register that has one at least one, and one file in memory at a time. Raises OSError.
    """
    told, proved_of = 0, set[str]()
    for path in sorted(folder.glob(f"{Kind.FORK.value}-*.json")):
        if path in new:
            continue
        with path.open("rb") as file:
            data = file.read(MAX_FILE)
        register = _register(data)
        if register is None or (told >= _MOST and register in proved_of):
            continue
        try:
            proved = check(data, policy).proved
        except (MalformedError, VerificationError):
            continue  # it proves nothing under this policy
        told += 1
        proved_of.add(register)
        yield AuditFinding(
            Kind.FORK.value,
            Source.INTEGRITY,
            Severity.CRITICAL,
            True,
            register,
            f"it was proved at an earlier visit, and stays proved, that {proved}",
            "a register has one history, and every checkpoint is of it",
            evidence=str(path),
            is_proof=True,
            recheck=f"daybook monitor --check {path} --policy YOUR_POLICY",
        )


def _register(data: bytes) -> str | None:
    """Return the register that a file of evidence is about; None where it is no such file."""
    try:
        members = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return str(members.get("register", "")) if isinstance(members, dict) else None

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


def standing_proofs(folder: Path, policy: Policy, new: Collection[Path]) -> Iterator[AuditFinding]:
    """Yield the forks whose proofs are kept below `folder` and still hold, but for those that are `new`.

    Raises OSError.
    """
    files = sorted(path for path in folder.glob(f"{Kind.FORK.value}-*.json") if path not in new)
    for path in files[:_MOST]:
        with path.open("rb") as file:
            data = file.read(MAX_FILE)
        try:
            proved = check(data, policy).proved
        except (MalformedError, VerificationError):
            continue  # it proves nothing under this policy
        register = str(json.loads(data).get("register", ""))
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

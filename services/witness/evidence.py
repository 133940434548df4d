"""Evidence against a log: a checkpoint that it has signed and that does not follow from the one before.

One JSON file for each pair of checkpoints. What is proved has files of its own that nothing else can crowd
out: anybody can send a wrong proof beside an honest checkpoint, but only the log can sign two histories.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ledger.add_checkpoint import AddCheckpoint, Contradiction
from services.witness.directory import make_durable
from services.witness.state import Cosigned, origin_hash

MAX_PER_ORIGIN: Final = 8
"""Files of one kind about one log: the first say it all."""

MAX_FILES: Final = 1000
"""Files of one kind about all logs together."""

TYPE: Final = "daybook.witness-evidence/1"


@dataclass(frozen=True, slots=True)
class Contradicted:
    """A refused checkpoint whose log signature holds, beside the latest one cosigned: what is kept.

    `found_at` is POSIX seconds, by the witness's clock.
    """

    kind: Contradiction
    ours: Cosigned
    theirs: AddCheckpoint
    found_at: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of evidence; `members` is empty where the file cannot be read as one."""

    path: Path
    members: Mapping[str, Any]

    @property
    def is_proof(self) -> bool:
        """Whether it proves that its log has signed two histories. A damaged file is taken for a proof."""
        return self.members.get("kind") != Contradiction.SUSPECTED.value


class EvidenceFolder:
    """The files of evidence of one witness. Only its server writes them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, found: Contradicted) -> Path | None:
        """Keep evidence, durably, and return its file; None where it is there already, or there is enough.

        Raises OSError.
        """
        origin = origin_hash(found.ours.checkpoint.origin).hex()
        both = found.ours.checkpoint.text() + found.theirs.note.rpartition(b"\n\n")[0]
        about = f"{found.kind.value}-{origin[:32]}-"
        path = self._folder / f"{about}{hashlib.sha256(both).hexdigest()[:32]}.json"
        self._folder.mkdir(exist_ok=True)
        if path.exists() or self._is_full(found.kind, about):
            return None
        members = {
            "type": TYPE,
            "kind": found.kind.value,
            "origin": found.ours.checkpoint.origin,
            "found_at": f"{datetime.fromtimestamp(found.found_at, UTC):%Y-%m-%dT%H:%M:%SZ}",
            "ours": found.ours.note.decode(),
            "theirs": found.theirs.note.decode(),
            "request": found.theirs.data().decode(),
        }
        being_written = path.with_suffix(".tmp")
        with being_written.open("w", encoding="utf-8") as file:
            json.dump(members, file, ensure_ascii=False, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        being_written.rename(path)
        make_durable(self._folder)
        return path

    def _is_full(self, kind: Contradiction, about: str) -> bool:
        if len(list(self._folder.glob(f"{about}*.json"))) >= MAX_PER_ORIGIN:
            return True
        return len(list(self._folder.glob(f"{kind.value}-*.json"))) >= MAX_FILES

    def all(self) -> list[Kept]:
        """Return every file, proofs first."""
        return [_read(path) for path in sorted(self._folder.glob("*.json"))]


def _read(path: Path) -> Kept:
    try:
        members = json.loads(path.read_bytes())
    except (ValueError, OSError):
        members = {}
    is_evidence = isinstance(members, dict) and members.get("type") == TYPE
    return Kept(path, members if is_evidence else {})

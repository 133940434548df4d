"""Acknowledgements: what was promised to a department, held against the registers (formats.md, section 12).

The ledger signs that a submission will be in its register, as entries or as one rejection. Whoever has kept
that promise can show that it was broken: the register that was signed later holds neither.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from ledger.acknowledgements import Acknowledgement, open_acknowledgement
from ledger.errors import LedgerError
from ledger.notes import MAX_NOTE_SIZE, VerifierKey
from ledger.witnessing import FUTURE_TOLERANCE, Policy
from services.auditing.audit_state import AuditState
from services.auditing.examining import CLAIMED_EARLIER
from services.auditing.found import Severity
from services.auditing.listing import Listing
from services.auditing.results import AuditFinding, Promises, Source
from services.auditing.sealed_times import sealed_at
from services.auditing.windows import shown_time
from services.monitoring.findings import shown

SUFFIX: Final = ".acknowledgement"
"""How the files end, below the folder at any depth: as `daybook register` writes them."""

SUPPORTED: Final = "claimed-earlier-acknowledged"
"""An entry claimed earlier than witnessed, whose acknowledgement was signed for that time."""

OVERDUE: Final = 86_400
"""Seconds after which a promise of a register that stands still is remarked upon."""


@dataclass(slots=True)
class Held:
    """What became of a collection of acknowledgements."""

    promises: Promises
    listing: Listing = field(default_factory=Listing)


def hold_promises(state: AuditState, policy: Policy, folder: Path, read: Collection[str], now: float) -> Held:
    """Judge every acknowledgement below a folder. `read` are the registers that were read to their ends.

    `now` is POSIX seconds. Without a governing register all files count as unread. Raises OSError, StoreError.
    """
    opened = state.monitored.mirror.fold.opened
    key = VerifierKey.parse(opened.acknowledgement_key) if opened else None
    tally: dict[str, int] = {}
    judge = _Judge(state, policy, read, now, Listing())
    for path in _files(folder):
        tally["files"] = tally.get("files", 0) + 1
        outcome = judge.judged(path, key)
        tally[outcome] = tally.get(outcome, 0) + 1
    return Held(Promises(**tally), judge.listing)


def _files(folder: Path) -> Iterator[Path]:
    # A folder that cannot be read must not pass for one without promises.
    next(folder.iterdir(), None)
    for path in sorted(folder.rglob(f"*{SUFFIX}")):
        if path.is_file():
            yield path


@dataclass(frozen=True, slots=True)
class _Judge:
    """Judges acknowledgements one by one, and lists what is found."""

    state: AuditState
    policy: Policy
    read: Collection[str]
    now: float
    listing: Listing

    def judged(self, path: Path, key: VerifierKey | None) -> str:
        """Return what became of the promise in a file: the member of `Promises` that counts it."""
        if key is None:
            return "unread"
        with path.open("rb") as file:
            note = file.read(MAX_NOTE_SIZE)
        try:
            promised = open_acknowledgement(note, key)
        except LedgerError as error:
            self.listing.add(_unusable(path, str(error)))
            return "unusable"
        register = promised.register_origin.partition("/")[2]
        if register in self.state.monitored.mirror.fold.registers and register not in self.read:
            return "unread"
        return self._kept(register, promised) or self._not_kept(path, note, promised, register)

    def _kept(self, register: str, promised: Acknowledgement) -> str | None:
        """Return how a promise was kept; None where the register holds neither entries nor a rejection."""
        if not self.state.monitored.size(register):
            return None
        identity = bytes.fromhex(promised.submission_id)
        run = self.state.monitored.mirror.store.submissions(register, [identity]).get(identity)
        if run is not None and run.count == promised.count:
            self._support(register, identity, _posix(promised))
            return "kept"
        row = self.state.notebook.one(
            "SELECT 1 FROM rejection WHERE register = ? AND submission_id = ?", (register, identity)
        )
        return "rejected" if row else None

    def _support(self, register: str, identity: bytes, at: float) -> None:
        """Take an acknowledgement for what supports the early time that its entries claim (section 15)."""
        notebook = self.state.notebook
        row = notebook.one(
            "SELECT first FROM odd WHERE code = ? AND register = ? AND submission_id = ?",
            (CLAIMED_EARLIER, register, identity),
        )
        if row is None:
            return
        not_before = self.state.bounds(register, row[0]).not_before
        if not_before is None or at <= not_before:
            notebook.write(
                "UPDATE odd SET code = ? WHERE code = ? AND register = ? AND submission_id = ?",
                (SUPPORTED, CLAIMED_EARLIER, register, identity),
            )

    def _not_kept(self, path: Path, note: bytes, promised: Acknowledgement, register: str) -> str:
        seen = self.state.monitored.seen.latest(register)
        inputs = {"file": str(path), "acknowledgement": shown(note)}
        if seen is None:
            self.listing.add(_broken(path, promised, "", "the ledger has no such register", inputs))
            return "broken"
        opened = self.policy.open(seen.last, self.state.monitored.mirror.register_origin(register))
        at = sealed_at(self.policy, opened) or seen.at
        inputs["checkpoint"] = shown(seen.last)
        if at > _posix(promised) + FUTURE_TOLERANCE:
            what = f"the checkpoint of {seen.size:,} entries at {shown_time(at)} holds neither"
            self.listing.add(_broken(path, promised, register, what, inputs))
            return "broken"
        # Nothing was signed since: a register that stands still breaks no promise, and keeps none.
        if self.now > _posix(promised) + OVERDUE:
            self.listing.add(_overdue(path, promised, register, inputs))
        return "open"


def _broken(
    path: Path, promised: Acknowledgement, register: str, why: str, inputs: Mapping[str, str]
) -> AuditFinding:
    return AuditFinding(
        "broken-promise",
        Source.ACKNOWLEDGEMENT,
        Severity.CRITICAL,
        True,
        register,
        f"submission {promised.submission_id} ({promised.count} records) was acknowledged at "
        f"{promised.accepted_at}, and is in the register neither as entries nor as a rejection: {why}",
        "every acknowledged submission becomes entries, or one provable rejection",
        inputs=inputs,
        recheck=_recheck(path),
    )


def _overdue(path: Path, promised: Acknowledgement, register: str, inputs: Mapping[str, str]) -> AuditFinding:
    return AuditFinding(
        "promise-overdue",
        Source.ACKNOWLEDGEMENT,
        Severity.HIGH,
        False,
        register,
        f"submission {promised.submission_id} ({promised.count} records) was acknowledged at "
        f"{promised.accepted_at}, more than a day ago, and nothing was signed of the register since",
        "an acknowledged submission becomes entries soon",
        inputs=inputs,
        innocent=("the ledger, or its witnesses, have been away for a long time",),
        recheck=_recheck(path),
    )


def _unusable(path: Path, why: str) -> AuditFinding:
    return AuditFinding(
        "acknowledgement-unusable",
        Source.ACKNOWLEDGEMENT,
        Severity.LOW,
        False,
        "",
        f"{path} proves nothing: {why}",
        "an acknowledgement that this ledger has signed",
        inputs={"file": str(path)},
        recheck=_recheck(path),
    )


def _recheck(path: Path) -> str:
    return f"daybook audit URL --policy POLICY --state A_NEW_DIRECTORY --acknowledgements {path.parent}"


def _posix(promised: Acknowledgement) -> float:
    return datetime.fromisoformat(promised.accepted_at).timestamp()

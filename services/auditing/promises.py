"""Acknowledgements: what was promised to a department, held against the registers (formats.md, section 12).

The ledger signs that a submission will be in its register, as entries or as one rejection. It does not say by
when. Whoever has kept that promise can show that it was broken where the register has moved on since, and holds
neither; while it stands still, the promise is open, and after a day overdue.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ledger.acknowledgements import Acknowledgement, open_acknowledgement
from ledger.admission import moment
from ledger.entries import parse_entry
from ledger.errors import LedgerError
from ledger.governing import GOVERNING
from ledger.governing_types import SubmissionRejected
from ledger.notes import MAX_NOTE_SIZE, VerifierKey
from ledger.receipts import CLOCK_ALLOWANCE
from ledger.records import parse_record
from ledger.witnessing import FUTURE_TOLERANCE
from services.auditing.audit_state import AuditState
from services.auditing.bounds_used import CLAIMED_EARLIER, SUPPORTED
from services.auditing.examining import UNFOUNDED
from services.auditing.found import Severity
from services.auditing.listing import Listing
from services.auditing.moved_on import A_DAY, moved_on
from services.auditing.results import AuditFinding, Promises, Source
from services.monitoring.findings import shown

SUFFIX: Final = ".acknowledgement"
"""How the files end, below the folder at any depth: as `daybook register` writes them."""


@dataclass(slots=True)
class Held:
    """What became of a collection of acknowledgements."""

    promises: Promises
    listing: Listing = field(default_factory=Listing)


def hold_promises(state: AuditState, folder: Path, read: Collection[str], now: float) -> Held:
    """Judge every acknowledgement below a folder. `read` are the registers that were read to their ends.

    `now` is POSIX seconds. Without a governing register all files count as unread. Raises OSError, StoreError.
    """
    opened = state.monitored.mirror.fold.opened
    key = VerifierKey.parse(opened.acknowledgement_key) if opened else None
    tally: dict[str, int] = {}
    judge = _Judge(state, read, now, Listing())
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
        if self._is_there(register) and register not in self.read:
            return "unread"
        return (
            self._kept(register, promised)
            or self._rejected(path, note, promised, register)
            or self._not_kept(path, note, promised, register)
        )

    def _kept(self, register: str, promised: Acknowledgement) -> str | None:
        """Return "kept" where the register holds the entries that were promised."""
        if not self.state.monitored.size(register):
            return None
        identity = bytes.fromhex(promised.submission_id)
        run = self.state.monitored.mirror.store.submissions(register, [identity]).get(identity)
        if run is not None and run.count == promised.count:
            self._support(register, identity, moment(promised.accepted_at))
            return "kept"
        return None

    def _rejected(self, path: Path, note: bytes, promised: Acknowledgement, register: str) -> str | None:
        """Return what becomes of a promise that a rejection answers; None where there is none."""
        notebook = self.state.notebook
        row = notebook.one(
            "SELECT entry FROM rejection WHERE register = ? AND submission_id = ?",
            (register, bytes.fromhex(promised.submission_id)),
        )
        if row is None:
            return None
        (index,) = row
        (entry,) = self.state.entries(register, index, index + 1)
        record = parse_record(parse_entry(entry).record)
        assert isinstance(record, SubmissionRejected)  # noqa: S101 - as such it was noted
        odd = notebook.one(
            "SELECT 1 FROM odd WHERE code = ? AND register = ? AND first <= ? AND last >= ?",
            (UNFOUNDED, register, index, index),
        )
        if odd is None and record.count == promised.count:
            return "rejected"
        why = (
            f"entry {index} rejects it for a reason that the register does not show"
            if odd
            else f"entry {index} rejects a submission of {record.count} records under its name"
        )
        inputs = {"file": str(path), "acknowledgement": shown(note), "rejection": str(index)}
        self.listing.add(_broken(path, promised, register, why, inputs))
        return "broken"

    def _support(self, register: str, identity: bytes, at: float) -> None:
        """Take an acknowledgement for what supports the early time that its entries claim (section 15)."""
        notebook = self.state.notebook
        row = notebook.one(
            "SELECT first FROM odd WHERE code = ? AND register = ? AND submission_id = ?",
            (CLAIMED_EARLIER, register, identity),
        )
        if row is None:
            return
        (entry,) = self.state.entries(register, row[0], row[0] + 1)
        if at > moment(parse_entry(entry).acceptance.accepted_at) + CLOCK_ALLOWANCE:
            return  # it was signed for a later time than they claim
        with notebook.together():
            notebook.write("INSERT OR IGNORE INTO supported VALUES (?, ?)", (register, identity))
            notebook.write(
                "UPDATE odd SET code = ? WHERE code = ? AND register = ? AND submission_id = ?",
                (SUPPORTED, CLAIMED_EARLIER, register, identity),
            )

    def _not_kept(self, path: Path, note: bytes, promised: Acknowledgement, register: str) -> str:
        """Say what becomes of a promise that is not kept yet: nothing promises by when it will be."""
        inputs = {"file": str(path), "acknowledgement": shown(note)}
        accepted_at = moment(promised.accepted_at)
        if accepted_at > self.now + FUTURE_TOLERANCE:
            self.listing.add(_ahead(path, promised, register, inputs))
            return "open"
        is_there = self._is_there(register)
        # A register that is not there is opened by a governing entry, before anything is accepted for it.
        judged = register if is_there else GOVERNING
        if judged not in self.read:
            return "unread"
        seen = self.state.monitored.seen.latest(judged)
        assert seen is not None  # noqa: S101 - it was read to its end
        inputs["checkpoint"] = shown(seen.last)
        why = moved_on(self.state, judged, accepted_at, self.now)
        if why is not None:
            # No register of the ledger is to blame for one that it does not have.
            where, which = (register, "the register") if is_there else ("", "the governing register")
            none = "" if is_there else "the ledger has no such register; "
            what = (
                f"{none}the checkpoint of {seen.size:,} entries holds neither, and {which} has moved on: {why}"
            )
            self.listing.add(_broken(path, promised, where, what, inputs))
            return "broken"
        if self.now > accepted_at + A_DAY:
            self.listing.add(_overdue(path, promised, register if is_there else "", inputs))
        return "open" if is_there else "unread"

    def _is_there(self, register: str) -> bool:
        return register == GOVERNING or register in self.state.monitored.mirror.fold.registers


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
        f"{promised.accepted_at}, more than a day ago. It is not in the register, which has not moved on since "
        "as far as is known",
        "an acknowledged submission becomes entries soon",
        inputs=inputs,
        innocent=("the ledger, or its witnesses, have been away for a long time",),
        recheck=_recheck(path),
    )


def _ahead(path: Path, promised: Acknowledgement, register: str, inputs: Mapping[str, str]) -> AuditFinding:
    return AuditFinding(
        "acknowledgement-ahead",
        Source.ACKNOWLEDGEMENT,
        Severity.HIGH,
        False,
        register,
        f"submission {promised.submission_id} ({promised.count} records) is not in the register, and its "
        f"acknowledgement is dated {promised.accepted_at}, which is still to come: until then nothing can show "
        "that it was broken",
        "an acknowledgement is dated when it was signed",
        inputs=inputs,
        innocent=("the clock of the ledger was wrong, or yours is",),
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

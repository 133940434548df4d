"""A drill: every lie told, every tool tried on it, and an honest copy for control."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger.errors import MalformedError
from ledger.receipt_file import Receipt
from ledger.witnessing import Policy
from services.drill.lies import LIES, CannotLieError, choose
from services.drill.originals import Original
from services.drill.receipts import forged_receipts, true_receipt
from services.drill.rewriting import LyingCopy
from services.drill.serving import served
from services.drill.tools import Auditor, Caught, caught_by_audit, check_receipt, check_store

BEFORE: Final = "before"
"""The state of an auditor who has been here before anybody lied."""

MEMORY: Final = "audit"
FIRST: Final = "audit, first visit"
RECEIPT: Final = "audit, with a receipt's checkpoint"


@dataclass(frozen=True, slots=True)
class Drilled:
    """What came of one copy. `why_not` says why a lie could not be told; it is empty where it was."""

    name: str
    what: str
    caught: tuple[Caught, ...]
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class DrillResult:
    """What came of a drill.

    `register` is the one that was lied about. `control` are the integrity failures that were found in a clean
    copy: false alarms, unless the ledger itself needs an audit first. `known` are the findings that it has
    anyway: they catch no lie.
    """

    ledger: str
    register: str
    witnessed: bool
    control: tuple[Caught, ...]
    known: tuple[Caught, ...]
    copies: tuple[Drilled, ...]

    @property
    def uncaught(self) -> tuple[str, ...]:
        """The names of the lies that no tool has caught."""
        return tuple(each.name for each in self.copies if not each.caught and not each.why_not)

    @property
    def ok(self) -> bool:
        """Whether every lie was caught, and nothing else was."""
        return not self.uncaught and not self.control


class Drill:
    """One drill on a copy of a ledger.

    Copies are made below `folder`, and the auditors' states below `states`. `told` is called with the name of
    each lie before it is told.
    """

    def __init__(
        self,
        original: Original,
        policy: Policy,
        receipts: Iterable[Path],
        folder: Path,
        states: Path,
        told: Callable[[str], None],
    ) -> None:
        self._original = original
        self._policy = policy
        self._folder = folder
        self._told = told
        self._auditor = Auditor(original.ledger.origin, policy, states)
        self._register = choose(original)
        self._receipt = _newest(receipts, f"{original.ledger.origin}/{self._register}")
        self._known: set[tuple[str, str]] = set()
        self._honest = LyingCopy(original.directory, original.notes, listed=tuple(original.notes))

    async def run(self) -> DrillResult:
        """Tell every lie, and try every tool on it. Raises CannotLieError, StoreError, OSError."""
        self._told("control")
        clean = await self._control()
        self._known = {(each.code, each.register) for each in clean if not each.is_failure}
        drilled = []
        for lie in LIES:
            self._told(lie.name)
            folder = self._folder / lie.name
            try:
                copy = lie.tell(self._original, self._register, folder)
            except CannotLieError as error:
                drilled.append(Drilled(lie.name, lie.what, (), str(error)))
            else:
                drilled.append(Drilled(lie.name, lie.what, tuple(await self._tried(lie.name, copy))))
            shutil.rmtree(folder, ignore_errors=True)
        drilled += await self._receipts()
        return DrillResult(
            self._original.ledger.origin,
            self._register,
            self._policy.quorum.root is not None,
            tuple(each for each in clean if each.is_failure),
            tuple(each for each in clean if not each.is_failure),
            tuple(drilled),
        )

    async def _control(self) -> list[Caught]:
        """Visit the clean copy twice, and try the other tools on it: whatever they find is no lie."""
        async with served(self._honest) as url:
            found = caught_by_audit(MEMORY, await self._auditor.audit(url, BEFORE))
            self._auditor.remember("again", BEFORE)
            found += caught_by_audit(MEMORY, await self._auditor.audit(url, "again", self._kept()))
        found += self._auditor.compare("again", BEFORE)
        found += check_store(self._honest)
        if self._receipt is not None:
            found += check_receipt(self._receipt.data(), self._policy)
        return list(dict.fromkeys(found))

    async def _tried(self, name: str, copy: LyingCopy) -> list[Caught]:
        auditor, kept = self._auditor, self._kept()
        auditor.remember(f"{name}-memory", BEFORE)
        async with served(copy) as url:
            caught = caught_by_audit(MEMORY, await auditor.audit(url, f"{name}-memory"))
            caught += caught_by_audit(FIRST, await auditor.audit(url, f"{name}-first"))
            if kept:
                caught += caught_by_audit(RECEIPT, await auditor.audit(url, f"{name}-receipt", kept))
        caught += auditor.compare(f"{name}-first", BEFORE)
        return self._new([*caught, *check_store(copy)])

    async def _receipts(self) -> list[Drilled]:
        """Forge receipts; have them verified, and their checkpoints compared with the ledger."""
        true = self._receipt or true_receipt(self._original, self._register)
        folder = self._folder / "forging"
        drilled = []
        for forged in forged_receipts(self._original, self._register, true, folder):
            self._told(forged.name)
            caught = check_receipt(forged.data, self._policy)
            note = self._folder / f"{forged.name}.note"
            note.write_bytes(forged.note)
            self._auditor.remember(forged.name, BEFORE)
            async with served(self._honest) as url:
                result = await self._auditor.audit(url, forged.name, [note])
            caught += caught_by_audit(RECEIPT, result)
            drilled.append(Drilled(forged.name, forged.what, tuple(self._new(caught))))
        return drilled

    def _new(self, caught: Iterable[Caught]) -> list[Caught]:
        """Return what the clean copy does not give as well."""
        return [each for each in caught if each.is_failure or (each.code, each.register) not in self._known]

    def _kept(self) -> Sequence[Path]:
        """Return the checkpoint of a receipt that a department has, in a file; nothing where it has none."""
        if self._receipt is None:
            return ()
        note = self._folder / "receipt.note"
        note.write_bytes(self._receipt.proof.note)
        return (note,)


def _newest(receipts: Iterable[Path], origin: str) -> Receipt | None:
    """Return the receipt of a register with the largest checkpoint. Raises OSError."""
    found: Receipt | None = None
    largest = -1
    for path in receipts:
        try:
            receipt = Receipt.parse(path.read_bytes())
            stated, size, *_ = receipt.proof.note.split(b"\n", 2)
        except (MalformedError, ValueError):
            continue
        if stated == origin.encode() and size.isdigit() and int(size) > largest:
            found, largest = receipt, int(size)
    return found

"""Getting the committed heads of one partition signed, and their notes published.

An unsigned head holds nobody up. The signer may be away, or not yet confirmed, or its mark may be beyond the
store, as after the restore of an older backup: the head waits, and is asked for again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from ledger.checkpoints import Checkpoint
from ledger.errors import ProofError, SplitViewError, VerificationError
from ledger.event_log import LogStore
from ledger.hashing import EMPTY_ROOT
from ledger.ledger import Growth, LedgerView
from ledger.store import Head, StoredNote
from services.distributed.signing import Marks, Signing, Signings, ToSign, Verdict

TOGETHER: Final = 256
"""Checkpoints, or marks, of one call of the signer, at the most: gRPC takes no larger message than some."""


_Result = TypeVar("_Result")


class Signer(Protocol):
    """Whoever signs. Both raise SignerAwayError where it is not there."""

    async def marks(self, origins: Sequence[str]) -> Marks:
        """Return the marks of these origins; one may have none."""
        ...

    async def sign(self, wanted: Sequence[ToSign]) -> Signings:
        """Ask for signatures, at most one for each origin."""
        ...


class InThread(Protocol):
    """Does work in the thread of the partition's writer, between two of its commits."""

    async def __call__(self, work: Callable[[], _Result]) -> _Result:
        """Do it."""
        ...


class HeadSigning:
    """The heads of one partition that have no note yet.

    `signs` tells whose task a register at a size is. What touches the store is done in the writer's thread; the
    signer is asked outside of it, and however long it takes, the writer goes on.
    """

    def __init__(self, store: LogStore, ledger: LedgerView, signs: Callable[[str, int], bool]) -> None:
        self._store = store
        self._ledger = ledger
        self._signs = signs
        self._instance: str | None = None
        self._compared = False
        self._marks: dict[str, Checkpoint] = {}
        self._agreed: dict[str, Checkpoint] = {}
        self.unsigned: Mapping[str, Head] = {}
        """The heads that wait, by register. Replaced as a whole."""
        self.behind: Mapping[str, Checkpoint] = {}
        """The marks that lie beyond the store, by register. Replaced as a whole."""

    @property
    def waits(self) -> bool:
        """Whether `sign` has something to do."""
        return not self._compared or bool(self.unsigned)

    def look_up(self) -> None:
        """Find the committed heads that have no note: what a crash between commit and signature leaves."""
        unsigned = {name for name, _ in self._store.unsigned()}
        self.unsigned = {
            name: head
            for name, head in self._store.heads().items()
            if name in unsigned and self._signs(name, head.size)
        }

    def grew(self, growths: Mapping[str, Growth]) -> None:
        """Take in the heads of a commit."""
        new = {name: each.head for name, each in growths.items() if self._signs(name, each.head.size)}
        self.unsigned = {**self.unsigned, **new}

    async def sign(self, signer: Signer, in_thread: InThread) -> Mapping[str, StoredNote]:
        """Have what waits signed, as far as it may be, and publish the notes; return them.

        Raises SignerAwayError, StoreError, and SplitViewError where the signer has signed another history: the
        evidence is in it.
        """
        if not self._compared:
            await self._compare_all(signer, in_thread)
        published: dict[str, StoredNote] = {}
        waiting = list(self.unsigned.items())
        for begin in range(0, len(waiting), TOGETHER):
            published |= await self._sign(signer, in_thread, dict(waiting[begin : begin + TOGETHER]))
        return published

    async def _compare_all(self, signer: Signer, in_thread: InThread) -> None:
        """Compare every register with its mark, once a signer: a signed head too may be behind or beside it."""
        heads = await in_thread(self._ledger.heads)
        names = list(heads)
        for begin in range(0, len(names), TOGETHER):
            before = self._instance
            await self._read_marks(signer, names[begin : begin + TOGETHER])
            if begin and self._instance != before:
                return  # what the one before had told is forgotten, and everything is compared the next time
        beside = {
            name: head
            for name, head in heads.items()
            if (mark := self._marks.get(name)) is not None
            and (mark.size > head.size or (mark.size == head.size and mark.root != head.root))
        }
        await in_thread(lambda: self._add(beside))
        self._compared = True

    def _add(self, heads: Mapping[str, Head]) -> None:
        self.unsigned = {**heads, **self.unsigned}

    async def _sign(
        self, signer: Signer, in_thread: InThread, waiting: Mapping[str, Head]
    ) -> Mapping[str, StoredNote]:
        # A mark beyond the store is asked for again: the signer may be another one by now.
        unknown = [name for name in waiting if name not in self._marks or name in self.behind]
        if unknown:
            await self._read_marks(signer, unknown)
        behind = {
            name: self._marks[name]
            for name, head in waiting.items()
            if name in self._marks and self._marks[name].size > head.size
        }
        wanted = {name: head for name, head in waiting.items() if name not in behind}
        items = await in_thread(
            lambda: {name: self._item(name, head, self._marks.get(name)) for name, head in wanted.items()}
        )
        signings = await signer.sign(list(items.values())) if items else None
        return await in_thread(lambda: self._take_in(waiting, items, signings, behind))

    async def _read_marks(self, signer: Signer, registers: Sequence[str]) -> None:
        names = {self._ledger.register_origin(name): name for name in registers}
        told = await signer.marks(list(names))
        self._heard_from(told.instance)
        for name in registers:
            self._marks.pop(name, None)
        self._marks |= {names[origin]: mark.checkpoint for origin, mark in told.by_origin.items()}

    def _heard_from(self, instance: str) -> None:
        if instance != self._instance:
            self._instance = instance
            self._marks = {}
            self._compared = False

    def _item(self, register: str, head: Head, mark: Checkpoint | None) -> ToSign:
        origin = self._ledger.register_origin(register)
        if mark is None:
            # What was never signed begins with its size 0, by which a quorum confirms that it knows no more.
            return ToSign(Checkpoint(origin, 0, EMPTY_ROOT))
        checkpoint = Checkpoint(origin, head.size, head.root)
        self._check_extends(register, checkpoint, mark)
        if mark.size in (0, head.size):
            return ToSign(checkpoint)
        return ToSign(checkpoint, self._ledger.reader(register).consistency(mark.size, head.size))

    def _check_extends(self, register: str, checkpoint: Checkpoint, mark: Checkpoint) -> None:
        """Raise SplitViewError unless the store, which has reached the mark's size, has its root there."""
        if mark.size == 0 or self._agreed.get(register) == mark:
            return
        if mark.size == checkpoint.size:
            own = checkpoint
        else:
            own = Checkpoint(checkpoint.origin, mark.size, self._ledger.reader(register).root(mark.size))
        if own != mark:
            raise SplitViewError(
                f"{register}: the signer has signed another root at size {mark.size} than the event log makes. "
                "Nothing of this register is signed any more",
                mark.text(),
                own.text(),
            )
        self._agreed[register] = mark

    def _take_in(
        self,
        waiting: Mapping[str, Head],
        items: Mapping[str, ToSign],
        signings: Signings | None,
        behind: Mapping[str, Checkpoint],
    ) -> Mapping[str, StoredNote]:
        notes = self._taken(items, signings) if signings else {}
        self._store.publish_notes(notes)
        self._settle(waiting, notes, behind)
        return notes

    def _taken(self, items: Mapping[str, ToSign], signings: Signings) -> dict[str, StoredNote]:
        self._heard_from(signings.instance)
        notes = {}
        for (register, item), signing in zip(items.items(), signings.results, strict=True):
            if signing.mark is not None:
                self._marks[register] = signing.mark
            if signing.verdict is Verdict.SIGNED:
                notes[register] = _checked(item, signing)
                self._agreed[register] = item.checkpoint
            elif signing.verdict is Verdict.CONTRADICTS:
                self._refute(register, item, signing)
        return notes

    def _refute(self, register: str, item: ToSign, signing: Signing) -> None:
        """Raise for a contradiction, unless the mark is only another one than the proof was made from."""
        if signing.mark is None or signing.mark.size > item.checkpoint.size:
            return
        self._check_extends(register, item.checkpoint, signing.mark)
        size = signing.mark.size
        if size and item.checkpoint.size > size:
            proof = self._ledger.reader(register).consistency(size, item.checkpoint.size)
            if list(proof) == list(item.consistency):
                raise ProofError(f"{register}: the signer refuses the proof that its mark {size} is extended")

    def _settle(
        self, waiting: Mapping[str, Head], notes: Mapping[str, StoredNote], behind: Mapping[str, Checkpoint]
    ) -> None:
        signed = {name for name, note in notes.items() if note.size == waiting[name].size}
        # Whose size 0 it is alone: its own writer has gone on, and signs more.
        passed = {name for name in behind if waiting[name].size == 0 and not self._signs(name, 1)}
        self.unsigned = {
            name: head
            for name, head in self.unsigned.items()
            if name not in signed | passed or head != waiting.get(name)
        }
        kept = {name: mark for name, mark in self.behind.items() if name not in waiting}
        self.behind = {**kept, **{name: mark for name, mark in behind.items() if name not in passed}}


def _checked(item: ToSign, signing: Signing) -> StoredNote:
    """Return the note of what was asked for. Raises VerificationError where it is of something else."""
    if not signing.note.startswith(item.checkpoint.text() + b"\n"):
        raise VerificationError(f"{item.checkpoint.origin}: the signer gave a note of another checkpoint")
    return StoredNote(item.checkpoint.size, signing.note)

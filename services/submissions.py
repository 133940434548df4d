"""The durable way in: accept a submission, make it durable, take all in order.

`Submissions` is the seam that registration speaks to. `Sequencer` fills it in one process: a task that takes
whatever waits as one turn (group commit, no idle delay), in which accepted, durable and sequenced coincide.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias, TypeVar, TypeVarTuple

import structlog

from ledger.acknowledgements import Acknowledgement, sign_acknowledgement
from ledger.admission import Candidate, instant, moment
from ledger.checkpoints import Checkpoint
from ledger.entries import Acceptance, Submission, parse_entry
from ledger.errors import LedgerError, Reason, RejectedError, StorageFullError
from ledger.governing import GOVERNING
from ledger.hashing import Hash
from ledger.ledger import Appended, FinishedTurn, Growth, Known, Ledger, Outcome
from ledger.notes import SignerKey
from ledger.store import Head, Run
from services.published import Published, SignedCheckpoint
from services.signing import CheckpointSigner
from services.status import let_go

MAX_TURN: Final = 2_048
"""Submissions that one turn takes at the most."""

MAX_TURN_BYTES: Final = 16 * 1024 * 1024
"""Record bytes after which a turn takes no further submission."""

MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
"""Record bytes that may wait; beyond it the ledger says OVERLOADED at once instead of swelling."""

_INLINE_BYTES: Final = 64 * 1024
"""Record bytes up to which a turn is computed in the event loop: some milliseconds."""

_SYNC_AFTER: Final = 1.0
"""Idle seconds after which the signer's marks are synced."""

_QUIET_PASSES: Final = 2
"""Passes of the event loop without a newcomer after which a turn begins."""

_log = structlog.get_logger()

_Asked = TypeVarTuple("_Asked")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A submission that is durable and sequenced: what an acknowledgement is made of.

    `note` is the signed acknowledgement; `checkpoint` covers the run; `range_proof` is at its size. `known`
    tells that this very submission was there before.
    """

    register: str
    submission_id: str
    acceptance: Acceptance
    run: Run
    checkpoint: SignedCheckpoint
    range_proof: tuple[Hash, ...]
    note: bytes
    known: bool


@dataclass(frozen=True, slots=True)
class Pending:
    """A submission that is durable, and not sequenced as far as is known.

    `acceptance` is provisional: the entries carry that of the first message of this submission. `known` tells
    that the same submission was on its way already; `no_witness` that nothing can be sealed. `sequenced`
    waits, without end, for what comes of it; None where this server gives up waiting.
    """

    register: str
    submission_id: str
    acceptance: Acceptance
    note: bytes
    known: bool
    no_witness: bool
    sequenced: Callable[[], Awaitable[Accepted | LostRace | None]] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class LostRace:
    """A submission that was accepted and then refused: the entry at `index` says so.

    A signed checkpoint covers it. `position` is that of the record refused; `existing` the index and the
    digest, 32 bytes, of the entry that it met. Both None where no one record is at fault.
    """

    register: str
    submission_id: str
    acceptance: Acceptance
    note: bytes
    index: int
    reason: str
    position: int | None
    existing: tuple[int, bytes] | None


Durable: TypeAlias = Accepted | Pending | LostRace
"""Whatever a submission that is durable may have come to."""


class Submissions(Protocol):
    """The seam. A submission that `accept` returns for is durable, whatever happens afterwards."""

    async def accept(self, candidate: Candidate, submitter: str) -> Accepted | Pending:
        """Make a submission durable, in order, once.

        Raises RejectedError with nothing changed: a rule that it breaks, OVERLOADED, DRAINING,
        STORAGE_FULL or BACKEND_DOWN. After BACKEND_DOWN the outcome is unknown: ask again.
        """
        ...

    async def recall(self, register: str, submission_id: str, run: Run) -> Accepted | Pending:
        """Answer again for a submission that is known to stand at `run`."""
        ...

    async def find(self, register: str, submission_id: str) -> Accepted | LostRace | None:
        """Answer again for a submission, if a published checkpoint covers what became of it.

        The register is one that is published.
        """
        ...


@dataclass(slots=True)
class _Waiting:
    candidate: Candidate
    submitter: str
    size: int
    answer: asyncio.Future[Accepted]


@dataclass(slots=True)
class _Written:
    """A record of the ledger's own that is to be appended."""

    register: str
    record: bytes
    done: asyncio.Future[Outcome]


@dataclass(frozen=True, slots=True)
class _Drafted:
    """A turn that was judged: what came of each submission and own record, in order, and what to commit."""

    outcomes: Sequence[Appended | Known | RejectedError]
    own: Sequence[Outcome]
    opened: Sequence[str]
    turn: FinishedTurn


class Sequencer:
    """The embedded mode's single writer. `run` is its task; `drain` ends it after the last answer.

    `clock` gives POSIX seconds. When the store or the signer fails in a way that leaves the outcome unknown,
    everything that waits is told BACKEND_DOWN and `run` raises: the process must end and open again.

    Nothing is appended to a register before `confirm` was called for it and for the governing register: an
    older copy of the ledger must not sign a second history (formats.md, section 11).
    """

    def __init__(
        self,
        ledger: Ledger,
        published: Published,
        signer: CheckpointSigner,
        acknowledger: SignerKey,
        clock: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._published = published
        self._signer = signer
        self._acknowledger = acknowledger
        self._clock = clock
        # A clock that was put back between two runs would set times back that are found by their order.
        last = ledger.last_accepted()
        self._latest = moment(last) if last is not None else 0.0
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._own: deque[_Written] = deque()
        self._confirmed: set[str] = set()
        self._confirming = asyncio.Event()
        self._arrived = asyncio.Event()
        self._draining = False
        self._down = False
        # Of its own: whatever callers make the shared threads do, no commit waits behind it.
        self._thread = ThreadPoolExecutor(1, "sequencer")

    async def _apart(self, work: Callable[[*_Asked], _Result], *asked: *_Asked) -> _Result:
        """Do work in the sequencer's own thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *asked)

    def sign_heads(self) -> None:
        """Sign every committed head again and show it: repairs a crash between commit and signature.

        Where no witness is asked, there is nobody to confirm them: the registers may grow. Raises
        SplitViewError where the signer has signed something larger or different.
        """
        heads = self._ledger.heads()
        self._published.add(self._sign(heads))
        if self._published.policy is None:
            self.confirm(heads)

    def _sign(self, heads: dict[str, Head]) -> dict[str, SignedCheckpoint]:
        checkpoints = [
            Checkpoint(self._ledger.register_origin(register), head.size, head.root)
            for register, head in heads.items()
        ]
        notes = self._signer.sign(checkpoints)
        return {
            register: SignedCheckpoint(checkpoint, note)
            for register, checkpoint, note in zip(heads, checkpoints, notes, strict=True)
        }

    def confirm(self, registers: Iterable[str]) -> None:
        """Allow these registers to grow: their heads are the latest that there are."""
        self._confirmed.update(registers)
        self._confirming.set()
        self._confirming = asyncio.Event()

    async def until_confirmed(self, registers: Iterable[str]) -> None:
        """Wait until all of these registers may grow."""
        waiting = set(registers)
        while not all(map(self.is_confirmed, waiting)):
            await self._confirming.wait()

    def is_confirmed(self, register: str) -> bool:
        """Tell whether a register may grow."""
        return {register, GOVERNING} <= self._confirmed

    async def write(self, register: str, record: bytes) -> Outcome:
        """Append a record that the ledger itself writes, unless it is there already, and wait for its turn.

        Raises RejectedError as `accept` does.
        """
        self._check_open()
        self._check_confirmed(register)
        written = _Written(register, record, asyncio.get_running_loop().create_future())
        self._own.append(written)
        self._arrived.set()
        return await asyncio.shield(written.done)

    def _check_open(self) -> None:
        if self._down:
            raise _down()
        if self._draining:
            raise RejectedError(Reason.DRAINING, "this server is stopping; ask another, or again")

    def _check_confirmed(self, register: str) -> None:
        if not self.is_confirmed(register) and register in self._published.registers():
            raise RejectedError(
                Reason.BACKEND_DOWN,
                "a quorum of witnesses has not confirmed yet that this is the ledger's latest state; ask again",
            )

    async def accept(self, candidate: Candidate, submitter: str) -> Accepted:
        """Queue a submission and wait for its turn."""
        submission = candidate.submission
        self._check_open()
        try:
            self._check_confirmed(submission.register)
        except RejectedError:
            # What is there is answered for all the same: nothing grows by it.
            if (run := self._ledger.run_of(submission)) is None:
                raise
            return await self.recall(submission.register, submission.submission_id, run)
        size = sum(map(len, submission.records))
        if self._waiting_bytes + size > MAX_WAITING_BYTES:
            raise RejectedError(Reason.OVERLOADED, "too much is waiting to be appended; ask again")
        waiting = _Waiting(candidate, submitter, size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._waiting_bytes += size
        self._arrived.set()
        # A caller that goes away does not take its submission back: it may have been committed already.
        return await asyncio.shield(waiting.answer)

    async def find(self, register: str, submission_id: str) -> Accepted | None:
        """Answer again for a submission, if a published checkpoint covers it."""
        key = bytes.fromhex(submission_id)
        run = self._ledger.store.submissions(register, [key]).get(key)
        if run is None or not self._is_shown(register, run):
            return None
        return await self.recall(register, submission_id, run)

    async def recall(self, register: str, submission_id: str, run: Run) -> Accepted:
        """Answer again for a submission that is known to stand at `run`."""
        # It may have been committed this very moment, and not be signed yet.
        changed = self._published.changed()
        while not self._is_shown(register, run):
            if self._down:
                raise _down()
            await changed.wait()
            changed = self._published.changed()
        return await asyncio.to_thread(self._recall, register, submission_id, run)

    def _is_shown(self, register: str, run: Run) -> bool:
        shown = self._published.registers().get(register)
        return shown is not None and shown.size >= run.first + run.count

    async def run(self) -> None:
        """Take turns until drained. Raises whatever makes the outcome of a turn unknown."""
        turn: list[_Waiting] = []
        own: list[_Written] = []
        try:
            while self._waiting or self._own or not self._draining:
                if not self._waiting and not self._own:
                    await self._idle()
                    continue
                await self._joined()
                turn, own = self._take(), list(self._own)
                self._own.clear()
                answers, written = await self._take_turn(turn, own)
                self._published.wake()
                for waiting, answer in zip(turn, answers, strict=True):
                    _settle(waiting.answer, answer)
                for one, outcome in zip(own, written, strict=True):
                    _settle(one.done, outcome)
                turn, own = [], []
            await self._apart(self._keep_notes)
        except BaseException:
            self._down = True
            for waiting in (*turn, *self._waiting):
                _settle(waiting.answer, _down())
            for one in (*own, *self._own):
                _settle(one.done, _down())
            self._waiting.clear()
            self._own.clear()
            self._published.wake()
            raise
        finally:
            # A commit that was cancelled goes on: the store may be closed only after it.
            self._thread.shutdown()

    async def _idle(self) -> None:
        """Wait for a submission; after a second without one, let the signer's marks be made durable."""
        self._arrived.clear()
        try:
            # Not wait_for, which forgets that it was cancelled where a submission has just arrived.
            async with asyncio.timeout(None if self._signer.is_synced else _SYNC_AFTER):
                await self._arrived.wait()
        except TimeoutError:
            await self._apart(self._signer.sync)

    async def _joined(self) -> None:
        """Let those join who have arrived, but whom the event loop has not come to: no delay, only a pass.

        Without it a busy loop would make many small turns, each with its own sync of the disk.
        """
        quiet = 0
        while quiet < _QUIET_PASSES and len(self._waiting) < MAX_TURN:
            before = len(self._waiting)
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._waiting) == before else 0

    def drain(self) -> None:
        """Accept nothing more; `run` returns when everything accepted has been answered."""
        self._draining = True
        self._arrived.set()

    def _take(self) -> list[_Waiting]:
        turn: list[_Waiting] = []
        size = 0
        while self._waiting and len(turn) < MAX_TURN and size < MAX_TURN_BYTES:
            waiting = self._waiting.popleft()
            size += waiting.size
            turn.append(waiting)
            if waiting.candidate.submission.register == GOVERNING:
                # A register that is opened here gets its checkpoint of size 0 before anything is in it.
                break
        self._waiting_bytes -= size
        return turn

    async def _take_turn(
        self, waiting: Sequence[_Waiting], own: Sequence[_Written]
    ) -> tuple[list[Accepted | LedgerError], Sequence[Outcome | LedgerError]]:
        """Judge, commit, sign, answer. Only what waits for the disk is sure to be in a thread of its own.

        Small turns are computed in the event loop: in a thread they would fight it for the interpreter at
        every signature.
        """
        size = sum(one.size for one in waiting) + sum(len(one.record) for one in own)
        small = size <= _INLINE_BYTES
        drafted = self._draft(waiting, own) if small else await self._apart(self._draft, waiting, own)
        try:
            await self._apart(self._commit, drafted)
        except StorageFullError as error:
            _log.warning("storage full", waiting=len(waiting))
            full = RejectedError(Reason.STORAGE_FULL, f"{error}; nothing was written, ask again later")
            return [full for _ in waiting], [full for _ in own]
        self._confirmed.update(drafted.opened)
        if small:
            return self._answers(waiting, drafted), drafted.own
        return await self._apart(self._answers, waiting, drafted), drafted.own

    def _draft(self, waiting: Sequence[_Waiting], own: Sequence[_Written]) -> _Drafted:
        turn = self._ledger.turn()
        turn.look_up([one.candidate for one in waiting])
        self._latest = max(self._latest, self._clock())
        accepted_at = instant(self._latest)
        outcomes: list[Appended | Known | RejectedError] = []
        for one in waiting:
            try:
                outcomes.append(turn.accept(one.candidate, accepted_at, one.submitter))
            except RejectedError as error:
                outcomes.append(error)
        written = [turn.append_ledger_written(one.register, one.record, accepted_at) for one in own]
        return _Drafted(outcomes, written, turn.opened(), turn.finish(self._published.unsaved()))

    def _commit(self, drafted: _Drafted) -> None:
        growths = drafted.turn.growths
        if not growths:
            return
        self._signer.reserve(map(self._ledger.register_origin, drafted.opened))
        drafted.turn.commit()
        self._published.saved()
        # Committed, so durable: from here on a crash is repaired by signing the same heads again.
        self._published.add(self._sign({name: growth.head for name, growth in growths.items()}))

    def _answers(self, waiting: Sequence[_Waiting], drafted: _Drafted) -> list[Accepted | LedgerError]:
        growths = drafted.turn.growths
        return [
            self._answer(one.candidate.submission, outcome, growths)
            for one, outcome in zip(waiting, drafted.outcomes, strict=True)
        ]

    def _answer(
        self, submission: Submission, outcome: Appended | Known | RejectedError, growths: Mapping[str, Growth]
    ) -> Accepted | RejectedError:
        if isinstance(outcome, RejectedError):
            return outcome
        growth = growths.get(submission.register)
        if isinstance(outcome, Known) or growth is None:
            return self._recall(submission.register, submission.submission_id, outcome.run)
        return Accepted(
            submission.register,
            submission.submission_id,
            outcome.message.acceptance,
            outcome.run,
            self._published.latest(submission.register),
            growth.range_proof(outcome.run),
            self._acknowledge(
                submission.register,
                submission.submission_id,
                outcome.run.count,
                outcome.message.acceptance.accepted_at,
            ),
            known=False,
        )

    def _recall(self, register: str, submission_id: str, run: Run) -> Accepted:
        checkpoint = self._published.latest(register)
        reader = self._ledger.reader(register)
        acceptance = parse_entry(reader.entry(run.first)).acceptance
        return Accepted(
            register,
            submission_id,
            acceptance,
            run,
            checkpoint,
            reader.range_proof(run.first, run.first + run.count, checkpoint.size),
            self._acknowledge(register, submission_id, run.count, acceptance.accepted_at),
            known=True,
        )

    def _acknowledge(self, register: str, submission_id: str, count: int, accepted_at: str) -> bytes:
        origin = self._ledger.register_origin(register)
        acknowledgement = Acknowledgement(origin, submission_id, count, accepted_at)
        return sign_acknowledgement(acknowledgement, self._acknowledger)

    def _keep_notes(self) -> None:
        try:
            self._ledger.turn().commit(self._published.unsaved())
        except StorageFullError:
            _log.warning("storage full: the last notes will be signed again at the next start")
            return
        self._published.saved()


def _settle(answer: asyncio.Future[_Result], outcome: _Result | LedgerError) -> None:
    if isinstance(outcome, LedgerError):
        # A future remembers where its exception came from: through a frame that holds all of the turn.
        let_go(outcome)
        answer.set_exception(outcome)
        answer.exception()  # seen, even where the caller has gone away
    else:
        answer.set_result(outcome)


def _down() -> RejectedError:
    return RejectedError(Reason.BACKEND_DOWN, "the store failed and the server is restarting; ask again")

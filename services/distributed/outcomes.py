"""What comes of accepted submissions: found in the store as checkpoints cover it.

Whoever waits is not asked for one by one: a checkpoint of a register makes one question for all who wait for
something in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

import structlog

from ledger.entries import Acceptance, parse_entry
from ledger.errors import RejectedError, StoreError
from ledger.event_log import LogStore
from ledger.governing_types import SubmissionRejected
from ledger.hashing import Hash
from ledger.ledger import LedgerView
from ledger.proofs import nodes_of, plan_range
from ledger.records import parse_record
from ledger.store import Run
from ledger.tree import Node
from services.published import Published, SignedCheckpoint
from services.submissions import Accepted, LostRace

Acknowledge = Callable[[str, str, int, str], bytes]
"""Signs an acknowledgement: of a register, a submission_id, a count of records and an `accepted_at`."""

_TRY_AGAIN: Final = 1.0
"""Seconds after which a store that could not be read is asked again."""

_log = structlog.get_logger()

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Sent:
    """A submission that is durable, and what its entries will be if no message of it came before this one.

    `leaf` is the leaf hash of its first entry, None where that is another's; `rejected` the index of the latest
    rejection of this submission that was there before, -1 for none: it is not about this message. Nothing came
    of it under the checkpoint of `shown` entries, -1 for none.
    """

    register: str
    submission_id: str
    acceptance: Acceptance
    note: bytes
    leaf: Hash | None
    rejected: int
    shown: int


@dataclass(eq=False, slots=True)
class _Waiting:
    sent: Sent
    looked_at: int
    found: asyncio.Future[Accepted | LostRace | None]


@dataclass(slots=True)
class _Register:
    """Who waits for something in one register; `stirred` is set at news of it, and at each newcomer."""

    waiting: set[_Waiting] = field(default_factory=set[_Waiting])
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    following: asyncio.Task[None] | None = None


class Outcomes:
    """Tells what came of submissions. Only for the event loop's thread."""

    def __init__(
        self, view: LedgerView, store: LogStore, published: Published, acknowledge: Acknowledge
    ) -> None:
        self._view = view
        self._store = store
        self._published = published
        self._acknowledge = acknowledge
        self._registers: dict[str, _Register] = {}
        self._given_up = False
        self._thread = ThreadPoolExecutor(2, "outcomes")

    async def of(self, sent: Sent) -> Accepted | LostRace | None:
        """Wait until a signed checkpoint covers what came of a submission; None after `give_up`."""
        if self._given_up:
            return None
        held = self._registers.setdefault(sent.register, _Register())
        waiting = _Waiting(sent, sent.shown, asyncio.get_running_loop().create_future())
        held.waiting.add(waiting)
        held.stirred.set()
        if held.following is None:
            held.following = asyncio.create_task(self._follow(sent.register, held))
        try:
            return await waiting.found
        finally:
            held.waiting.discard(waiting)
            held.stirred.set()

    def give_up(self) -> None:
        """End every wait, now and from now on."""
        self._given_up = True
        for held in self._registers.values():
            for waiting in held.waiting:
                _settle(waiting, None)

    async def close(self) -> None:
        """End what is left. To be awaited after every caller is answered."""
        self.give_up()
        following = [held.following for held in self._registers.values() if held.following]
        if following:
            await asyncio.wait(following)
        self._thread.shutdown()

    async def recall(self, register: str, submission_id: str, run: Run) -> Accepted:
        """Answer for a submission that stands at `run`, which the published checkpoint covers."""
        return await self._apart(lambda: self._recalled(register, submission_id, run))

    async def find(self, register: str, submission_id: str) -> Accepted | LostRace | None:
        """Answer for a submission, if the published checkpoint covers what came of it."""

        def look() -> Accepted | LostRace | None:
            size = self._published.latest(register).size
            key = bytes.fromhex(submission_id)
            run = self._store.submissions(register, [key]).get(key)
            if run is not None:
                is_covered = run.first + run.count <= size
                return self._recalled(register, submission_id, run) if is_covered else None
            index = self._store.rejection(register, [key]).get(key)
            return self._rejected(register, index, None) if index is not None and index < size else None

        return await self._apart(look)

    def _apart(self, work: Callable[[], _Result]) -> Awaitable[_Result]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _follow(self, register: str, held: _Register) -> None:
        with self._published.stirring(register, held.stirred):
            while held.waiting and not self._given_up:
                held.stirred.clear()
                with suppress(RejectedError):  # nothing of the register is shown yet
                    await self._look(self._published.latest(register), held)
                if held.waiting:
                    await held.stirred.wait()
        held.following = None
        if not held.waiting:
            del self._registers[register]

    async def _look(self, latest: SignedCheckpoint, held: _Register) -> None:
        asked = [waiting for waiting in held.waiting if waiting.looked_at < latest.size]
        if not asked:
            return
        try:
            found = await self._apart(lambda: self._found([waiting.sent for waiting in asked], latest))
        except StoreError as error:
            _log.warning("what came of submissions cannot be read", waiting=len(asked), why=str(error))
            asyncio.get_running_loop().call_later(_TRY_AGAIN, held.stirred.set)
            return
        except Exception as error:
            for waiting in asked:
                held.waiting.discard(waiting)
                if not waiting.found.done():
                    waiting.found.set_exception(error)
            return
        for waiting, outcome in zip(asked, found, strict=True):
            waiting.looked_at = latest.size
            if outcome is not None:
                _settle(waiting, outcome)
                held.waiting.discard(waiting)

    def _found(self, asked: Sequence[Sent], latest: SignedCheckpoint) -> list[Accepted | LostRace | None]:
        """Return what came of submissions of one register, None for what no checkpoint covers yet."""
        register = asked[0].register
        keys = [bytes.fromhex(sent.submission_id) for sent in asked]
        runs = self._store.submissions(register, keys)
        without = [key for key in keys if key not in runs]
        rejections = self._store.rejection(register, without) if without else {}
        covered = [run for run in runs.values() if run.first + run.count <= latest.size]
        # All tiles are read at once; then every proof finds its own in the cache.
        self._view.reader(register).nodes(
            [node for run in covered for node in _needed(run, latest.size)], latest.size
        )
        found: list[Accepted | LostRace | None] = []
        for sent, key in zip(asked, keys, strict=True):
            run, rejected = runs.get(key), rejections.get(key, -1)
            if run is not None and run.first + run.count <= latest.size:
                found.append(self._accepted(sent, run, latest))
            elif run is None and sent.rejected < rejected < latest.size:
                found.append(self._rejected(register, rejected, sent.note))
            else:
                found.append(None)
        return found

    def _accepted(self, sent: Sent, run: Run, latest: SignedCheckpoint) -> Accepted:
        reader = self._view.reader(sent.register)
        acceptance = sent.acceptance
        # Its leaf is in a tile that the range proof needs anyhow: so the entry is not read to be compared.
        node = (0, run.first)
        known = reader.nodes([node], latest.size)[node] != sent.leaf
        if known:
            acceptance = parse_entry(reader.entry(run.first)).acceptance
        return Accepted(
            sent.register,
            sent.submission_id,
            acceptance,
            run,
            latest,
            reader.range_proof(run.first, run.first + run.count, latest.size),
            sent.note,
            known,
        )

    def _recalled(self, register: str, submission_id: str, run: Run) -> Accepted:
        latest = self._published.latest(register)
        reader = self._view.reader(register)
        acceptance = parse_entry(reader.entry(run.first)).acceptance
        return Accepted(
            register,
            submission_id,
            acceptance,
            run,
            latest,
            reader.range_proof(run.first, run.first + run.count, latest.size),
            self._acknowledge(register, submission_id, run.count, acceptance.accepted_at),
            known=True,
        )

    def _rejected(self, register: str, index: int, note: bytes | None) -> LostRace:
        """Read a rejection. Raises StoreError where the entry at `index` is none."""
        entry = parse_entry(self._view.reader(register).entry(index))
        try:
            record = parse_record(entry.record)
        except RejectedError as error:
            raise StoreError(f"{register}: entry {index} cannot be read; run fsck: {error}") from error
        if not isinstance(record, SubmissionRejected):
            raise StoreError(f"{register}: entry {index} rejects nothing; run fsck")
        acceptance = entry.acceptance
        if note is None:
            note = self._acknowledge(register, record.submission_id, record.count, acceptance.accepted_at)
        existing = record.existing
        return LostRace(
            register,
            record.submission_id,
            acceptance,
            note,
            index,
            record.reason,
            record.rejected.position if record.rejected else None,
            (existing.index, bytes.fromhex(existing.sha256)) if existing else None,
        )


def _needed(run: Run, size: int) -> tuple[Node, ...]:
    """Return the nodes that tell whether a run is of the message that was sent, and prove it."""
    return (0, run.first), *nodes_of(plan_range(run.first, run.first + run.count, size))


def _settle(waiting: _Waiting, outcome: Accepted | LostRace | None) -> None:
    if not waiting.found.done():
        waiting.found.set_result(outcome)

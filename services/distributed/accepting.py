"""The durable way in of the distributed mode: what is accepted is a message of `daybook.submissions`.

Accepted is durable and not yet in order: that is the sequencer's to say. What this replica judges, by a view
that may be some moments old, is advice; the rules of formats.md, section 9, decide once more in the order of
the log. The same submission in two messages, of two replicas or of one that was killed, is appended once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from ledger.acknowledgements import Acknowledgement, sign_acknowledgement
from ledger.admission import Candidate, instant, judge_now
from ledger.entries import Acceptance, Message, accept, parse_entry
from ledger.errors import Reason, RejectedError, StoreError
from ledger.event_log import LogStore
from ledger.governing import GOVERNING
from ledger.hashing import leaf_hash
from ledger.ledger import LedgerView
from ledger.notes import SignerKey
from ledger.rules import judge_records
from ledger.store import Run
from services.distributed.lookups import Held, Lookups
from services.distributed.outcomes import Outcomes, Sent
from services.distributed.running import LAST
from services.distributed.settings import DistributedSettings
from services.distributed.submission_log import SubmissionLog
from services.published import Published
from services.submissions import Accepted, LostRace, Pending

PATIENCE: Final = 5.0
"""Seconds after which a caller is told that Kafka, or the store, does not answer."""

_INLINE_BYTES: Final = 32 * 1024
"""Record bytes up to which entries are formed in the event loop."""

_UNKNOWN: Final = "whether the submission was accepted is not known; ask again, it is never registered twice"


class KafkaSubmissions:
    """Accepts submissions into Kafka, and tells what came of them. Only for the event loop's thread.

    `age` tells the seconds since the view was current; `clock` gives POSIX seconds.
    """

    def __init__(
        self,
        settings: DistributedSettings,
        view: LedgerView,
        store: LogStore,
        published: Published,
        age: Callable[[], float],
        acknowledger: SignerKey,
        registry: CollectorRegistry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._view = view
        self._published = published
        self._age = age
        self._acknowledger = acknowledger
        self._clock = clock
        self._latest = 0.0
        self._messages = SubmissionLog(settings, registry)
        self._lookups = Lookups(store)
        self._outcomes = Outcomes(view, store, published, self._acknowledge)
        self._under_way: dict[tuple[str, str], asyncio.Task[Sent]] = {}
        self._in_flight = 0
        self._draining = False
        gauge = Gauge(
            "daybook_in_flight_bytes", "Bytes of records that are on their way to Kafka.", registry=registry
        )
        gauge.set_function(lambda: self._in_flight)

    @asynccontextmanager
    async def started(self) -> AsyncIterator[None]:
        """Accept while the block runs; at its end wait for what is on its way. Raises as SubmissionLog does."""
        async with self._messages.started():
            try:
                yield
            finally:
                self.drain()
                if self._under_way:
                    await asyncio.wait(self._under_way.values(), timeout=LAST * self._settings.grace_seconds)
                await self._outcomes.close()
                self._lookups.close()

    def drain(self) -> None:
        """Accept nothing more."""
        self._draining = True

    def give_up_waiting(self) -> None:
        """End every wait for what comes of a submission: it is answered as accepted."""
        self._outcomes.give_up()

    async def accept(self, candidate: Candidate, submitter: str) -> Accepted | Pending:
        """Make a submission durable, unless it is known."""
        self._check_open()
        size = sum(map(len, candidate.submission.records))
        if self._in_flight and self._in_flight + size > self._settings.in_flight_bytes:
            raise RejectedError(Reason.OVERLOADED, "too much is on its way to Kafka; ask again")
        self._in_flight += size
        try:
            shown = self._shown(candidate.submission.register)
            held = await self._held(candidate)
            if held.run is not None:
                submission = candidate.submission
                return await self.recall(submission.register, submission.submission_id, held.run)
            form = partial(self._form, candidate, submitter, held)
            message = await asyncio.to_thread(form) if size > _INLINE_BYTES else form()
            key = (candidate.submission.register, candidate.submission.submission_id)
            sending = self._under_way.get(key)
            joins = sending is not None
            if sending is None:
                sending = asyncio.create_task(self._send(message, candidate, held.rejected, shown))
                self._under_way[key] = sending
                sending.add_done_callback(partial(self._sent, key, size))
                size = 0
            # A caller that goes away does not take its submission back: it may be durable already.
            done, _ = await asyncio.wait({sending}, timeout=PATIENCE)
            if not done:
                raise RejectedError(Reason.BACKEND_DOWN, f"Kafka does not answer: {_UNKNOWN}")
            return self._pending(await sending, known=joins)
        finally:
            self._in_flight -= size

    def _check_open(self) -> None:
        if self._draining:
            raise RejectedError(Reason.DRAINING, "this server is stopping; ask another, or again")
        age = self._age()
        if age > self._settings.view_seconds:
            raise RejectedError(
                Reason.GOVERNING_VIEW_OLD,
                f"what this server knows of keys and registers is {age:.0f} s old; ask another, or again",
            )

    def _shown(self, register: str) -> int:
        try:
            return self._published.latest(register).size
        except RejectedError:
            return -1

    async def _held(self, candidate: Candidate) -> Held:
        register = candidate.submission.register
        if register != GOVERNING and register not in self._view.fold.registers:
            return Held()  # which is refused
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._lookups.held(candidate)
        except (StoreError, TimeoutError) as error:
            raise _store_away() from error

    def _form(self, candidate: Candidate, submitter: str, held: Held) -> Message:
        """Judge what is left to be judged, and fix the entries. Raises RejectedError."""
        fold = self._view.fold
        self._latest = max(self._latest, self._clock())
        accepted_at = instant(self._latest)
        judge_now(candidate, fold, self._view.origin, accepted_at)
        message = accept(candidate.submission, Acceptance(accepted_at, submitter, fold.signed_size))
        refusal = judge_records(message, candidate.headers, held.registered or {})
        if refusal is not None:
            raise refusal.error()
        return message

    async def _send(self, message: Message, candidate: Candidate, rejected: int, shown: int) -> Sent:
        """Make a message durable, and only then acknowledge it."""
        try:
            await self._messages.append(message.register, message.value())
        except OSError as error:
            raise RejectedError(Reason.BACKEND_DOWN, f"Kafka is away: {_UNKNOWN}") from error
        submission_id, acceptance = candidate.submission.submission_id, message.acceptance
        note = self._acknowledge(message.register, submission_id, len(message.entries), acceptance.accepted_at)
        leaf = leaf_hash(message.entries[0])
        return Sent(message.register, submission_id, acceptance, note, leaf, rejected, shown)

    def _sent(self, key: tuple[str, str], size: int, sending: asyncio.Task[Sent]) -> None:
        self._in_flight -= size
        del self._under_way[key]
        if not sending.cancelled():
            sending.exception()  # seen, even where the caller has gone away

    def _pending(self, sent: Sent, *, known: bool) -> Pending:
        return Pending(
            sent.register,
            sent.submission_id,
            sent.acceptance,
            sent.note,
            known,
            self._published.policy is None,
            partial(self._sequenced, sent, known=known),
        )

    async def _sequenced(self, sent: Sent, *, known: bool) -> Accepted | LostRace | None:
        outcome = await self._outcomes.of(sent)
        return replace(outcome, known=True) if known and isinstance(outcome, Accepted) else outcome

    async def recall(self, register: str, submission_id: str, run: Run) -> Accepted | Pending:
        """Answer again for a submission that is known to stand at `run`."""
        try:
            shown = self._shown(register)
            if shown >= run.first + run.count:
                return await self._outcomes.recall(register, submission_id, run)
            # Committed, but no signed checkpoint covers it yet.
            entry = await asyncio.to_thread(self._view.reader(register).entry, run.first)
        except StoreError as error:
            raise _store_away() from error
        acceptance = parse_entry(entry).acceptance
        note = self._acknowledge(register, submission_id, run.count, acceptance.accepted_at)
        return self._pending(Sent(register, submission_id, acceptance, note, None, -1, shown), known=True)

    async def find(self, register: str, submission_id: str) -> Accepted | LostRace | None:
        """Answer again for a submission, if a published checkpoint covers what came of it."""
        try:
            return await self._outcomes.find(register, submission_id)
        except StoreError as error:
            raise _store_away() from error

    def _acknowledge(self, register: str, submission_id: str, count: int, accepted_at: str) -> bytes:
        origin = self._view.register_origin(register)
        return sign_acknowledgement(
            Acknowledgement(origin, submission_id, count, accepted_at), self._acknowledger
        )


def _store_away() -> RejectedError:
    return RejectedError(Reason.BACKEND_DOWN, "the store does not answer; nothing was changed, ask again")

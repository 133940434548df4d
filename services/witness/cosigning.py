"""Cosigning: one writer takes what waits, decides each request, commits all of them at once, then answers.

A cosignature leaves only after the checkpoint that it is over is durable. The durable commit is what costs,
so that requests which arrive during one share the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from ledger.add_checkpoint import (
    CONFLICT,
    AddCheckpoint,
    CheckpointRefusedError,
    check_follows,
    contradiction,
)
from ledger.checkpoints import Checkpoint, OpenedCheckpoint
from ledger.errors import ConflictError, StorageFullError, StoreError
from ledger.notes import SignerKey, cosignature_line, format_note
from services.witness.evidence import Contradicted, EvidenceFolder
from services.witness.state import PATIENCE, Cosigned, State, StateBusyError

MAX_STEP_BACK: Final = 300
"""Seconds by which the clock may be behind the last cosignature of an origin before none is made."""

UNAVAILABLE: Final = 503

_MAX_BATCH: Final = 256
_AGAIN: Final = 0.005
"""Seconds after which a busy state is tried again."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Asked:
    request: AddCheckpoint
    opened: OpenedCheckpoint
    answer: asyncio.Future[bytes]


class Cosigner:
    """Cosigns checkpoints whose log signatures are verified, one after the other.

    `clock` gives POSIX seconds. `run` must be running for `cosign` to answer.
    """

    def __init__(
        self,
        state: State,
        signer: SignerKey,
        evidence: EvidenceFolder,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._signer = signer
        self._evidence = evidence
        self._clock = clock
        self._waiting: asyncio.Queue[_Asked | None] = asyncio.Queue()
        self._failure: StoreError | None = None

    async def cosign(self, request: AddCheckpoint, opened: OpenedCheckpoint) -> bytes:
        """Return the witness's signature line over the checkpoint, once it is the latest and durable.

        Raises CheckpointRefusedError; StoreError where it could not be kept, and then nothing is cosigned.
        """
        if self._failure is not None:
            raise self._failure
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(_Asked(request, opened, answer))
        return await answer

    async def run(self) -> None:
        """Work until `drain`. Raises StoreError where the state is unknown: the process must end then."""
        while (asked := await self._waiting.get()) is not None:
            batch = [asked]
            while len(batch) < _MAX_BATCH and not self._waiting.empty():
                following = self._waiting.get_nowait()
                if following is None:
                    self._waiting.put_nowait(None)
                    break
                batch.append(following)
            try:
                outcomes: Sequence[bytes | Exception] = await self._committed(batch)
            except (StorageFullError, StateBusyError) as error:
                _log.error("not cosigned", why=str(error), requests=len(batch))
                outcomes = [error] * len(batch)
            except StoreError as error:
                self._fail(error, batch)
                raise
            _answer(batch, outcomes)

    async def _committed(self, batch: Sequence[_Asked]) -> list[bytes | Exception]:
        """Decide and commit in the event loop: whoever arrives meanwhile waits for the next commit in any case.

        To wake a thread and be woken by it costs more than a commit on a fast disk. Only while another process
        writes, as a command that accepts a ledger does for a moment, is it tried again and not waited for.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        while True:
            try:
                return self._cosigned(batch)
            except StateBusyError:
                if loop.time() >= until:
                    raise
            await asyncio.sleep(_AGAIN)

    def _fail(self, error: StoreError, batch: list[_Asked]) -> None:
        """Answer everybody that nothing is cosigned, now and from now on."""
        self._failure = error
        while not self._waiting.empty():
            batch += [asked for asked in (self._waiting.get_nowait(),) if asked is not None]
        _answer(batch, [error] * len(batch))

    def drain(self) -> None:
        """Answer what waits, and then end `run`."""
        self._waiting.put_nowait(None)

    def _cosigned(self, batch: Sequence[_Asked]) -> list[bytes | Exception]:
        outcomes: list[bytes | Exception] = []
        found: list[Contradicted] = []
        now = int(self._clock())
        with self._state.transaction():
            for asked in batch:
                latest = self._state.latest(asked.opened.checkpoint.origin)
                try:
                    outcomes.append(self._one(asked, latest, now))
                except CheckpointRefusedError as refusal:
                    outcomes.append(refusal)
                    found += _contradicted(asked, latest, now)
        # Only from here on may anybody see a cosignature.
        for each in found:
            self._keep(each)
        return outcomes

    def _one(self, asked: _Asked, latest: Cosigned | None, now: int) -> bytes:
        # Not the bytes that came: should they differ from what was understood, the signature is useless
        # instead of dangerous.
        given = asked.opened.checkpoint
        checkpoint = Checkpoint(given.origin, given.size, given.root)
        check_follows(asked.request, checkpoint, latest.checkpoint if latest else None)
        at = _time_after(latest, now)
        line = cosignature_line(checkpoint.text(), self._signer, at)
        # Whatever else was on the note stays out: a planted line under this witness's own name would later
        # keep the note from being opened.
        note = format_note(asked.opened.note.text, [*asked.opened.note.verified, line])
        try:
            self._state.replace(latest, Cosigned(checkpoint, at, note))
        except ConflictError as error:
            held = self._state.latest(given.origin)
            raise CheckpointRefusedError(CONFLICT, str(error), held.checkpoint.size if held else 0) from error
        return line.line

    def _keep(self, found: Contradicted) -> None:
        origin = found.ours.checkpoint.origin
        try:
            path = self._evidence.keep(found)
        except OSError as error:
            _log.error("evidence could not be kept", kind=found.kind.value, origin=origin, error=str(error))
            return
        if path is not None:
            _log.error("evidence against a log", kind=found.kind.value, origin=origin, file=str(path))


def _answer(batch: Sequence[_Asked], outcomes: Sequence[bytes | Exception]) -> None:
    for asked, outcome in zip(batch, outcomes, strict=True):
        if asked.answer.done():  # whoever asked has gone away
            continue
        if isinstance(outcome, bytes):
            asked.answer.set_result(outcome)
        else:
            asked.answer.set_exception(outcome)


def _contradicted(asked: _Asked, latest: Cosigned | None, now: int) -> list[Contradicted]:
    if latest is None:
        return []
    kind = contradiction(asked.request, asked.opened.checkpoint, latest.checkpoint)
    return [] if kind is None else [Contradicted(kind, latest, asked.request, now)]


def _time_after(latest: Cosigned | None, now: int) -> int:
    """Return the time to sign at: never before the last one for this origin.

    To cosign a later tree at an earlier time would contradict what was said before: that at the later time
    the smaller tree was the largest seen. A clock a little behind repeats the last time. Raises
    CheckpointRefusedError where it is further behind, or before 1970.
    """
    last = 0 if latest is None else latest.time
    if now >= max(last, 1):
        return now
    if last - now > MAX_STEP_BACK or last < 1:
        _log.error("not cosigned: the clock is wrong", now=now, last_cosigned_at=last)
        raise CheckpointRefusedError(
            UNAVAILABLE,
            f"the witness's clock is {last - now} s behind its last cosignature for this log; nothing is "
            "cosigned until it is set right",
        )
    return last

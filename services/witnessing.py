"""Puts cosigning together for one open ledger, and for as long as a block runs."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from ledger.add_checkpoint import AddCheckpoint
from ledger.checkpoints import Checkpoint
from ledger.governing import GOVERNING
from ledger.ledger import LedgerView
from ledger.notes import split_note
from ledger.witnessing import Policy
from services.asking import Unavailable, ask, new_session
from services.cosigning import Cosigner, nothing_more, unsealed
from services.following import Growing, Observer
from services.published import Published
from services.settings import WitnessSettings
from services.submissions import Sequencer
from services.witness_policy import Asked

CONFIRM_SECONDS: Final = 15.0
"""Seconds for which a command that does one thing waits for the witnesses to confirm the stored heads."""

SETTLE_SECONDS: Final = 3.0
"""Seconds for which a process that ends waits for its last checkpoints to be sealed."""


class WitnessesAwayError(ConnectionError):
    """No quorum of witnesses has answered, so nothing may be signed."""


@asynccontextmanager
async def cosigning(
    ledger: LedgerView,
    published: Published,
    growing: Growing,
    settings: WitnessSettings,
    observer: Observer,
    clock: Callable[[], float],
    declared: Callable[[str], int | None],
    history: Callable[[], Sequence[Asked]],
    signed_size: Callable[[str], Awaitable[int]] = nothing_more,
) -> AsyncIterator[Cosigner]:
    """Yield a cosigner with its connections; its `run` is the caller's to start.

    Raises OSError where the file of issuers cannot be read.
    """
    issuers = await asyncio.to_thread(_issuers, settings.witness_ca)
    async with new_session(timeout=settings.witness_seconds, issuers=issuers) as session:
        yield Cosigner(
            ledger,
            published,
            growing,
            session,
            settings.witness_refresh_seconds,
            observer,
            clock,
            declared,
            history,
            signed_size,
        )


async def require_quorum(policy: Policy, note: bytes, settings: WitnessSettings, now: int) -> None:
    """Check that a quorum of a policy's witnesses answers when asked about a signed checkpoint note.

    Any refusal will do as an answer: that a ledger is not known yet can still be mended. `now` is in POSIX
    seconds. Raises WitnessesAwayError, which names those that do not answer.
    """
    size = Checkpoint.parse(split_note(note)[0]).size
    issuers = await asyncio.to_thread(_issuers, settings.witness_ca)
    asked = [each for each in policy.witnesses if each.url is not None]
    troubles = {each.name: "the policy names no URL for it" for each in policy.witnesses if each.url is None}
    async with new_session(timeout=settings.witness_seconds, issuers=issuers) as session:
        request = AddCheckpoint(size, (), note)
        answers = await asyncio.gather(*(ask(session, each, request, now) for each in asked))
    for witness, answer in zip(asked, answers, strict=True):
        if isinstance(answer, Unavailable):
            troubles[witness.name] = answer.text
    if not policy.quorum.is_met_by({each.name for each in policy.witnesses} - troubles.keys()):
        told = "; ".join(f"{name}: {why}" for name, why in troubles.items())
        raise WitnessesAwayError(
            f"no quorum of this policy's witnesses answers, so nothing would be sealed under it ({told}). "
            "Nothing was published: start them, or correct their addresses"
        )


def _issuers(path: Path | None) -> ssl.SSLContext | None:
    if path is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(path))
    except ssl.SSLError as error:
        raise OSError(f"{path} holds no PEM certificates: {error.reason or error}") from error


async def until_confirmed(sequencer: Sequencer, published: Published, running: asyncio.Task[None]) -> None:
    """Wait until every register may grow: a longer one anywhere shows that this is an older copy.

    Raises WitnessesAwayError after 15 s, or whatever ends `running`, the cosigner's task.
    """
    registers = published.registers()
    if GOVERNING not in registers:
        return  # nothing was ever signed
    confirmed = asyncio.create_task(sequencer.until_confirmed(registers))
    try:
        await asyncio.wait({confirmed, running}, timeout=CONFIRM_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        confirmed.cancel()
    if running.done():
        running.result()
    missing = sorted(name for name in registers if not sequencer.is_confirmed(name))
    if missing:
        raise WitnessesAwayError(
            "no quorum of witnesses has confirmed that this is the ledger's latest state, so nothing may "
            f"be signed; are they running, and do they know this ledger? Not confirmed: {missing[0]}"
            + (f" and {len(missing) - 1} more" if missing[1:] else "")
        )


async def until_all_sealed(published: Published, seconds: float) -> bool:
    """Wait until every latest checkpoint is sealed, for at most `seconds`; tell whether they are."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while any(unsealed(published)):
                changed = published.changed()
                if not any(unsealed(published)):
                    break
                await changed.wait()
    return not any(unsealed(published))


async def until_handed_over(cosigner: Cosigner, seconds: float) -> bool:
    """Wait until the witnesses of earlier policies hold what followed, for at most `seconds`; tell whether."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await cosigner.until_handed_over()
    return cosigner.handed_over.is_set()


class Silent:
    """An observer that takes note of nothing: for commands that do one thing."""

    def answered(self, witness: str, answer: str) -> None:
        """Take no note."""

    def kept(self, register: str, size: int, lines: object) -> None:
        """Take no note."""

    def sealed(self, seconds: float) -> None:
        """Take no note."""

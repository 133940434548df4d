"""A ledger whose policy asks witnesses, open in the test's own process, with all that seals its checkpoints.

    async with witnessed(ledger.root) as it:
        await it.publish(policy_text(ledger, [one.witness, two.witness]))
        await it.add(3)                     three decisions in one turn
        await it.until_sealed(3)

Nothing is simulated but the world outside: the witnesses are servers, mostly those of `scripted_witness`.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Final
from uuid import uuid4

from ledger.ed25519 import SecretKey
from ledger.entries import ANONYMOUS
from ledger.notes import SignatureLine
from ledger.sealing import SealedCheckpoint
from ledger.witnessing import Policy, Witness
from services.client.signing import SignedSubmission, sign_submission
from services.compose import Embedded, embedded
from services.cosigning import Cosigner
from services.ledger_files import LedgerDirectory
from services.published import Published
from services.registrar import Registrar
from services.settings import WitnessSettings
from services.submissions import Accepted
from services.witnessing import cosigning
from tests.support.ledger_dir import LedgerOnDisk, governing
from tests.support.ledgers import DEPARTMENT_KEY, ORIGIN, REGISTER, decision

PATIENCE: Final = 30.0
"""Seconds after which a condition is taken never to come true."""

_numbers: Final = count()


def copied(ledger: LedgerOnDisk, root: Path) -> LedgerOnDisk:
    """Return a copy of a ledger's directory, as a backup or a thief would make it."""
    shutil.copytree(ledger.root, root)
    return replace(ledger, directory=LedgerDirectory(root))


def policy_text(ledger: LedgerOnDisk, witnesses: Iterable[Witness], *lines: str) -> str:
    """Return a witness policy file of a ledger; `lines` are its groups and quorum, by default all of them."""
    held = list(witnesses)
    names = " ".join(each.name for each in held)
    stated = lines or (f"group all all {names}", "quorum all")
    return "".join(
        f"{line}\n"
        for line in (
            f"log {ledger.policy.logs[0].key}",
            *(f"witness {each.name} {each.key} {each.url or ''}".rstrip() for each in held),
            *stated,
        )
    )


def publishing(text: str, effective_from: str = "2026-01-01T00:00Z") -> SignedSubmission:
    """Return the request to publish a witness policy."""
    return governing(
        "policy.published/1", kind="witness", name="default", effective_from=effective_from, text=text
    )


def deciding(number: int = 1, register: str = REGISTER, key: SecretKey = DEPARTMENT_KEY) -> SignedSubmission:
    """Return a submission of so many decisions that nobody has sent yet."""
    records = [decision(next(_numbers), register, record_id=str(uuid4())) for _ in range(number)]
    return sign_submission(records, f"{ORIGIN}/{register}", [key])


@dataclass(slots=True)
class Observed:
    """All that an observer was told: answers by witness, what was kept, seconds of each seal."""

    answers: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    kept_lines: list[tuple[str, int, tuple[str, ...]]] = field(
        default_factory=list[tuple[str, int, tuple[str, ...]]]
    )
    seals: list[float] = field(default_factory=list[float])

    def answered(self, witness: str, answer: str) -> None:
        self.answers.setdefault(witness, []).append(answer)

    def kept(self, register: str, size: int, lines: Sequence[SignatureLine]) -> None:
        self.kept_lines.append((register, size, tuple(line.name for line in lines)))

    def sealed(self, seconds: float) -> None:
        self.seals.append(seconds)


@dataclass(slots=True)
class Witnessed:
    """An open ledger, its sequencer and cosigner running. `following` is the cosigner's task."""

    opened: Embedded
    cosigner: Cosigner
    observed: Observed
    following: asyncio.Task[None]

    @property
    def published(self) -> Published:
        """What the ledger shows."""
        return self.opened.published

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        policy = self.published.policy
        assert policy is not None
        return policy

    async def send(self, submission: SignedSubmission) -> Accepted:
        """Register a submission, and return once it is under a signed checkpoint."""
        registrar = Registrar(self.opened.ledger, self.opened.sequencer)
        accepted = await registrar.register(
            submission.body, submission.records, submission.signatures, ANONYMOUS
        )
        assert isinstance(accepted, Accepted)
        return accepted

    async def add(self, number: int = 1, register: str = REGISTER) -> Accepted:
        """Register so many decisions in one submission."""
        return await self.send(deciding(number, register))

    async def publish(self, text: str, effective_from: str = "2026-01-01T00:00Z") -> Accepted:
        """Publish a witness policy."""
        return await self.send(publishing(text, effective_from))

    def sealed_size(self, register: str = REGISTER) -> int | None:
        """Return the size of a register's latest sealed checkpoint."""
        sealed = self.published.sealed(register)
        return None if sealed is None else sealed.size

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so. Raises what has ended the cosigner."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                if self.following.done():
                    self.following.result()
                await asyncio.sleep(0.002)

    async def until_sealed(self, size: int, register: str = REGISTER) -> SealedCheckpoint:
        """Wait until a checkpoint of at least `size` entries is sealed."""

        def covered() -> bool:
            held = self.sealed_size(register)
            return held is not None and held >= size

        await self.until(covered)
        sealed = self.published.sealed(register)
        assert sealed is not None
        return sealed

    async def until_all_sealed(self) -> None:
        """Wait until every register's latest checkpoint is sealed."""
        await self.until(
            lambda: all(
                self.sealed_size(register) == latest.size
                for register, latest in self.published.registers().items()
            )
        )

    async def failure(self) -> BaseException:
        """Wait until the cosigner has failed, and return with what."""
        await asyncio.wait({self.following}, timeout=PATIENCE)
        assert self.following.done(), "the cosigner goes on"
        error = self.following.exception()
        assert error is not None
        return error


@asynccontextmanager
async def witnessed(
    root: Path,
    *,
    refresh: float = 600.0,
    witness_seconds: float = 10.0,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Witnessed]:
    """Open a ledger's directory and run all that seals it while the block runs.

    `refresh` and `witness_seconds` are the settings of those names; `clock` is the cosigner's.
    """
    observed = Observed()
    settings = WitnessSettings(witness_seconds=witness_seconds, witness_refresh_seconds=refresh)
    with embedded(LedgerDirectory(root)) as opened:
        sequencing = asyncio.create_task(opened.sequencer.run())
        try:
            async with cosigning(
                opened.ledger,
                opened.published,
                opened.sequencer,
                settings,
                observed,
                clock,
                opened.declared,
                opened.policies.history,
            ) as cosigner:
                following = asyncio.create_task(cosigner.run())
                try:
                    yield Witnessed(opened, cosigner, observed, following)
                finally:
                    following.cancel()
                    await asyncio.wait({following})
        finally:
            opened.sequencer.drain()
            await sequencing

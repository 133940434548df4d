"""A small ledger in PostgreSQL that grows without sequencer or registration, signed by the real signer service.

Its entries are a function of the calls, so a copy of it that stopped earlier is made by making fewer of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ledger.add_checkpoint import AddCheckpoint
from ledger.checkpoints import Checkpoint
from ledger.governing import GOVERNING
from ledger.notes import SignerKey
from ledger.store import Head, StoredNote
from ledger.stores.memory import MemoryStore
from ledger.stores.postgres import PostgresStore
from ledger.witnessing import Policy, Witness
from services.distributed.signing import Mark, SignerAwayError, SignerClient, ToSign, Verdict
from services.ledger_files import write_key_pair
from services.local.ports import free_port
from tests.support.ledgers import (
    DEPARTMENT_KEY,
    LOG_KEY,
    ORIGIN,
    POLICY,
    REGISTER,
    LedgerUnderTest,
    decision,
    open_ledger,
    submission,
)
from tests.support.outbox import Ground
from tests.support.witness_process import RunningWitness, ask

LISTEN: Final = "127.0.0.1:0"


def policy_asking(witnesses: Iterable[Witness]) -> Policy:
    """Return the policy that wants all of these witnesses."""
    held = list(witnesses)
    lines = [
        f"log {POLICY.logs[0].key}",
        *(f"witness {each.name} {each.key} {each.url}" for each in held),
        f"group all all {' '.join(each.name for each in held)}",
        "quorum all",
    ]
    return Policy.parse("".join(f"{line}\n" for line in lines).encode())


def governed(held: LedgerUnderTest, policy: Policy | None) -> None:
    """Publish a witness policy, if there is one."""
    if policy is not None:
        held.govern(
            "policy.published/1",
            kind="witness",
            name="default",
            effective_from="2026-01-01T00:00Z",
            text=policy.text().decode(),
        )


@dataclass(slots=True)
class PostgresLedger:
    """The ledger in the database of `ground`, and the signer's files. `held` adds without signing."""

    ground: Ground
    store: PostgresStore
    held: LedgerUnderTest
    policy: Policy | None

    @classmethod
    def made(cls, ground: Ground, policy: Policy | None) -> PostgresLedger:
        """Open the ledger and publish the policy; everything so far is signed and published."""
        folder = ground.folder
        if not (folder / "log.key").exists():
            write_key_pair(folder / "log.key", SignerKey(f"{ORIGIN}/{GOVERNING}", LOG_KEY))
        ground = replace(
            ground,
            environment={
                **ground.environment,
                "DAYBOOK_LOG_KEY": str(folder / "log.key"),
                "DAYBOOK_SIGNER": f"127.0.0.1:{free_port()}",
                "DAYBOOK_SIGNER_MARKS": str(folder / "signer.marks"),
            },
        )
        store = ground.store()
        marks = folder / "signer.marks"
        held = open_ledger(store, marks)
        governed(held, policy)
        held.signer.sync()
        held.signer.close()
        latest = held.published.registers()
        store.publish_notes({name: StoredNote(one.size, one.note) for name, one in latest.items()})
        return cls(ground, store, held, policy)

    def add(self, numbers: Iterable[int]) -> int:
        """Commit decisions in one submission, unsigned; return the register's size."""
        records = [decision(number) for number in numbers]
        self.held.commit_unsigned([submission(REGISTER, records, [DEPARTMENT_KEY])])
        self.held.turns += 1
        return self.store.heads()[REGISTER].size

    @property
    def client(self) -> SignerClient:
        """A new client of the signer."""
        settings = self.ground.settings.model_copy(update={"signer": self.ground.environment["DAYBOOK_SIGNER"]})
        return SignerClient.of(settings)

    async def sign(self) -> set[str]:
        """Have all heads signed that the signer will sign now, and publish them; return the registers."""
        heads = self.store.heads()
        names = {self.held.ledger.register_origin(name): name for name, _ in self.store.unsigned()}
        client = self.client
        try:
            marks = (await client.marks(list(names))).by_origin if names else {}
            wanted = [self._item(name, heads[name], marks.get(origin)) for origin, name in names.items()]
            results = (await client.sign(wanted)).results
        finally:
            await client.close()
        signed = {
            names[item.checkpoint.origin]: StoredNote(item.checkpoint.size, result.note)
            for item, result in zip(wanted, results, strict=True)
            if result.verdict is Verdict.SIGNED
        }
        self.store.publish_notes(signed)
        return set(signed)

    def _item(self, register: str, head: Head, mark: Mark | None) -> ToSign:
        checkpoint = Checkpoint(self.held.ledger.register_origin(register), head.size, head.root)
        if mark is None or not 0 < mark.checkpoint.size < head.size:
            return ToSign(checkpoint)
        reader = self.held.ledger.reader(register)
        return ToSign(checkpoint, reader.consistency(mark.checkpoint.size, head.size))

    async def until_signed(self, seconds: float = 60.0) -> None:
        """Ask until no head is without a note."""
        async with asyncio.timeout(seconds):
            while self.store.unsigned():
                # On a slow disk a call waits behind those of others for longer than it may.
                with suppress(SignerAwayError):
                    await self.sign()
                await asyncio.sleep(0.05)

    async def grow(self, numbers: Iterable[int]) -> int:
        """Commit decisions, and have the head signed; return the size."""
        size = self.add(numbers)
        await self.until_signed()
        return size

    def close(self) -> None:
        """Close the store."""
        self.store.close()


def longer_copy(policy: Policy | None, batches: Sequence[Iterable[int]], marks: Path) -> LedgerUnderTest:
    """Return the same ledger with more in it, in memory; `marks` are its signer's."""
    held = open_ledger(MemoryStore(), marks)
    governed(held, policy)
    for numbers in batches:
        held.add(numbers)
    held.signer.sync()
    return held


def witness_knows(witness: RunningWitness, held: LedgerUnderTest, register: str = REGISTER) -> int:
    """Let a witness cosign the latest checkpoint of a copy directly; return its size."""
    latest = held.published.latest(register)
    answer = ask(witness.http, AddCheckpoint(0, (), latest.note))
    assert answer.status == 200, answer
    return latest.size

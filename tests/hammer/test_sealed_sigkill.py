"""SIGKILL under load with two live witnesses: of the ledger's server, and of a witness. Real processes, all.

What a killed process has given to the operating system stays; so this shows what a crash of the program does.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.client.answers import Registered
from services.client.client import connect
from tests.support.journal import Held, compare
from tests.support.ledgers import DEPARTMENT_KEY, ORIGIN, REGISTER
from tests.support.load import Load
from tests.support.sealed_ledger import NAMES, SealedLedger, sealed_ledger
from tests.support.server_process import Server, assert_fsck_finds_nothing, leave_sealed, running

pytestmark = [pytest.mark.hammer, pytest.mark.timeout(3_600)]

ROUNDS = int(os.environ.get("DAYBOOK_ROUNDS", "3"))
"""Kills under load."""

SEED = int(os.environ.get("DAYBOOK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
"""Printed, so that a failure can be repeated as far as the scheduling of processes allows."""


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SealedLedger]:
    """A ledger that two witnesses seal, with an anchor every second."""
    monkeypatch.setenv("DAYBOOK_ANCHOR_SECONDS", "1")
    with sealed_ledger(tmp_path) as made:
        yield made


async def test_a_server_that_is_killed_again_and_again_loses_and_doubles_nothing_that_was_sealed(
    sealed: SealedLedger,
) -> None:
    """If false, a department would hold a sealed receipt for what the register, or a witness, does not have."""
    print(f"DAYBOOK_SEED={SEED} DAYBOOK_ROUNDS={ROUNDS}")
    draw = random.Random(SEED)
    load = Load(sealed.ledger, draw)
    for _ in range(ROUNDS):
        with running(sealed.ledger.root, sealed.log) as server:
            async with load.on(server.grpc):
                await load.answered()
                await asyncio.sleep(draw.uniform(0.0, 1.5))
                server.kill()
    with running(sealed.ledger.root, sealed.log) as server:
        await ask_again(load, server)
        assert await asyncio.to_thread(server.terminate) == 0
    await asyncio.to_thread(leave_sealed, sealed.ledger.root, sealed.log)
    check(sealed, load)


async def test_a_witness_that_is_killed_again_and_again_costs_nothing_but_time(sealed: SealedLedger) -> None:
    """If false, a crash of a witness would look like a second history, or leave the ledger unsealed."""
    print(f"DAYBOOK_SEED={SEED} DAYBOOK_ROUNDS={ROUNDS}")
    draw = random.Random(SEED)
    load = Load(sealed.ledger, draw)
    with running(sealed.ledger.root, sealed.log) as server:
        async with load.on(server.grpc):
            for _ in range(ROUNDS):
                await load.answered()
                await asyncio.sleep(draw.uniform(0.0, 0.5))
                name = draw.choice(NAMES)
                await asyncio.to_thread(sealed.kill, name)
                await asyncio.sleep(draw.uniform(0.0, 0.5))
                await asyncio.to_thread(sealed.start, name)
                await load.answered()
            assert server.process.poll() is None
        await ask_again(load, server)
        assert await asyncio.to_thread(server.terminate) == 0, server.errors()
        assert "lost its state" not in server.errors()
    await asyncio.to_thread(leave_sealed, sealed.ledger.root, sealed.log)
    check(sealed, load)


async def ask_again(load: Load, server: Server) -> None:
    """Submit again what was answered, in any round: the same answer, sealed, and nothing more in the ledger."""
    answers = [one for one in load.journal.answers if one.submission.register == REGISTER]
    async with connect(server.grpc, policy=load.ledger.policy, register=REGISTER, key=DEPARTMENT_KEY) as client:
        for old in load.draw.sample(answers, min(len(answers), 50)):
            again = await client.submit(old.submission)
            assert isinstance(again, Registered)
            assert (again.known, again.sealed) == (True, True)
            assert (again.first_index, again.entries) == (old.first_index, old.entries)


def check(sealed: SealedLedger, load: Load) -> None:
    """Hold what clients were told against the store, fsck, and what the witnesses have cosigned."""
    assert all(answer.sealed for answer in load.journal.answers)
    held: dict[str, Held] = compare(load.journal, sealed.ledger)
    print(f"{len(load.journal.answers)} answers, {sum(len(one.entries) for one in held.values())} entries")
    for name, cosigned in sealed.cosigned().items():
        assert cosigned.keys() == {f"{ORIGIN}/{register}" for register in held}, name
        for register, one in held.items():
            checkpoint = cosigned[f"{ORIGIN}/{register}"]
            assert checkpoint.size == len(one.entries)
            assert checkpoint.root == one.tree.frontier(checkpoint.size).root()
    assert_fsck_finds_nothing(sealed.ledger.root)

"""SIGKILL of the real server, at random moments under load, again and again on one ledger.

A killed process keeps what it had given to the operating system, so this shows what a crash of the program
does; that what was committed survives the machine's own crash rests on synchronous=FULL.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path

import pytest

from services.client.answers import Registered
from services.client.client import connect
from tests.support.journal import compare
from tests.support.ledger_dir import LedgerOnDisk, make_ledger
from tests.support.ledgers import DEPARTMENT_KEY, REGISTER
from tests.support.load import Load
from tests.support.server_process import ANY_PORT, Server, assert_fsck_finds_nothing, launch, running

pytestmark = [pytest.mark.hammer, pytest.mark.timeout(3_600)]

ROUNDS = int(os.environ.get("DAYBOOK_ROUNDS", "5"))
"""Kills under load."""

SEED = int(os.environ.get("DAYBOOK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
"""Printed, so that a failure can be repeated as far as the scheduling of processes allows."""


@pytest.fixture
def ledger(tmp_path: Path) -> LedgerOnDisk:
    """Return a new ledger with one register and one key."""
    return make_ledger(tmp_path / "ledger")


async def test_nothing_acknowledged_is_lost_or_doubled_or_forked_however_often_the_server_is_killed(
    ledger: LedgerOnDisk, tmp_path: Path
) -> None:
    """If false, a department would hold an acknowledgement or a receipt for what the register does not have."""
    print(f"DAYBOOK_SEED={SEED} DAYBOOK_ROUNDS={ROUNDS}")
    draw = random.Random(SEED)
    load = Load(ledger, draw)
    log = tmp_path / "serve.log"
    for _ in range(ROUNDS):
        if draw.random() < 0.3:
            _kill_while_starting(ledger.root, log, draw)
        with running(ledger.root, log) as server:
            await _kill_under_load(load, server, draw)
    with running(ledger.root, log) as server:
        await _ask_again(load, server)
        assert server.terminate() == 0
    held = compare(load.journal, ledger)
    print(f"{len(load.journal.answers)} answers, {sum(len(one.entries) for one in held.values())} entries")
    assert_fsck_finds_nothing(ledger.root)


def _kill_while_starting(root: Path, log: Path, draw: random.Random) -> None:
    """Kill a server that may not have come to its ready line: recovery itself is interrupted."""
    process = launch(root, log, ANY_PORT)
    time.sleep(draw.uniform(0.2, 1.0))
    process.kill()
    process.communicate()


async def _kill_under_load(load: Load, server: Server, draw: random.Random) -> None:
    """Kill the server up to a second after the first answer."""
    async with load.on(server.grpc):
        await load.answered()
        await asyncio.sleep(draw.uniform(0.0, 1.0))
        server.kill()


async def _ask_again(load: Load, server: Server) -> None:
    """Submit again what was answered, in any round: the same answer, and nothing more in the ledger."""
    answers = [one for one in load.journal.answers if one.submission.register == REGISTER]
    async with connect(server.grpc, policy=load.ledger.policy, register=REGISTER, key=DEPARTMENT_KEY) as client:
        for old in load.draw.sample(answers, min(len(answers), 200)):
            again = await client.submit(old.submission)
            assert isinstance(again, Registered)
            assert again.known
            assert (again.first_index, again.entries) == (old.first_index, old.entries)

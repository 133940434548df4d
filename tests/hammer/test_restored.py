"""Copies: an older directory put back, one that is served twice, a witness put back. Real processes, all.

What each test performs is an operator's mistake, or an attack: no second history may come of it.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from daybook.registration.v1 import registration_service_pb2 as pb
from daybook.submission.v1.submission_pb2 import State, WaitFor

from ledger.notes import SignerKey
from ledger.stores.sqlite import SqliteStore
from services.client.client import message_of
from services.client.errors import from_rpc_error
from services.client.signing import SignedSubmission
from services.ledger_files import write_key_pair
from tests.support.calling import Caller, assert_refused, calling
from tests.support.ledger_dir import LedgerOnDisk
from tests.support.ledgers import GOVERNANCE_KEY, ORIGIN, REGISTER
from tests.support.sealed_ledger import SealedLedger, backed_up, restored, sealed_ledger
from tests.support.server_process import (
    DAYBOOK,
    NotServingError,
    Server,
    assert_fsck_finds_nothing,
    running,
)
from tests.support.witnessed import copied, deciding

pytestmark = [pytest.mark.hammer, pytest.mark.timeout(600)]

MAIN = f"{ORIGIN}/{REGISTER}"
PATIENCE = 60.0


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[SealedLedger]:
    """A ledger that two witnesses seal."""
    with sealed_ledger(tmp_path) as made:
        yield made


@asynccontextmanager
async def served(it: SealedLedger, ledger: LedgerOnDisk | None = None) -> AsyncIterator[tuple[Server, Caller]]:
    """Serve the ledger, or a copy of it, in a process of its own."""
    with running((ledger or it.ledger).root, it.log) as server:
        async with calling(server.grpc) as caller:
            yield server, caller


async def register(caller: Caller, number: int = 1) -> SignedSubmission:
    """Register decisions, and wait until they are sealed."""
    submission = deciding(number)
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                answer = await caller.register(submission)
            except grpc.aio.AioRpcError as error:
                # The heads are not confirmed yet.
                assert_refused(from_rpc_error(error), grpc.StatusCode.UNAVAILABLE, "BACKEND_DOWN")
                await asyncio.sleep(0.05)
                continue
            if answer.state in (State.STATE_SEALED, State.STATE_ANCHORED):
                return submission


async def ready(server: Server) -> dict[str, Any]:
    """Return what /readyz tells, with its `status`."""
    async with httpx.AsyncClient(trust_env=False) as client:
        response = await client.get(f"http://{server.http}/readyz")
        return {**response.json(), "status": response.status_code}


async def until(condition: Callable[[dict[str, Any]], bool], server: Server) -> dict[str, Any]:
    """Wait until /readyz tells what is wanted."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if condition(told := await ready(server)):
                return told
            await asyncio.sleep(0.05)


def govern(ledger: LedgerOnDisk, register: str) -> subprocess.CompletedProcess[str]:
    """Try to open a register in a directory that nobody serves."""
    keys = ledger.root.parent / "governance"
    if not keys.exists():
        write_key_pair(keys, SignerKey("governance", GOVERNANCE_KEY))
    command = [DAYBOOK, "govern", str(ledger.root), "open-register", register, "--title", "An office"]
    return subprocess.run(
        [*command, "--key", str(keys)], capture_output=True, text=True, check=False, timeout=120
    )


def notes_in(text: str) -> list[tuple[str, int]]:
    """Return origin and size of every checkpoint note in what was printed."""
    found = re.findall(rf"^({re.escape(ORIGIN)}/\S+)\n(\d+)\n\S{{43}}=\n\n— ", text, re.MULTILINE)
    return [(origin, int(size)) for origin, size in found]


# The ledger


async def test_a_restart_under_live_witnesses_goes_on(sealed: SealedLedger) -> None:
    """If false, every restart would need somebody."""
    for number in range(1, 4):
        async with served(sealed) as (server, caller):
            submission = await register(caller)
            again = await caller.register(submission)
            assert again.already_registered
            assert (await ready(server))["status"] == 200
            assert await asyncio.to_thread(server.terminate) == 0
        assert {each[MAIN].size for each in sealed.cosigned().values()} == {number}
    assert_fsck_finds_nothing(sealed.ledger.root)


async def test_with_its_witnesses_down_a_ledger_reads_and_goes_on_by_itself_when_they_come(
    sealed: SealedLedger,
) -> None:
    """If false, a power cut that takes everything down would need somebody, or let an older copy grow."""
    async with served(sealed) as (server, caller):
        submission = await register(caller, 3)
        assert await asyncio.to_thread(server.terminate) == 0
    sealed.kill("one", "two")
    before = sealed.signed(sealed.ledger)
    async with served(sealed) as (server, caller):
        told = await until(lambda told: bool(told["witnesses"]["witnesses"][0]["trouble"]), server)
        assert (told["status"], told["ready"]) == (503, False)
        assert "has not confirmed" in told["reason"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.register(deciding())
        error = from_rpc_error(caught.value)
        assert_refused(error, grpc.StatusCode.UNAVAILABLE, "BACKEND_DOWN")
        assert error.retry_after is not None
        assert (await caller.sizes())[REGISTER] == 3
        # What is known is answered, sealed as it was.
        assert (await caller.register(submission)).already_registered
        sealed.start("one")
        sealed.start("two")
        await register(caller)
        assert (await ready(server))["status"] == 200
        assert await asyncio.to_thread(server.terminate) == 0
    assert before[REGISTER][0].size == 3
    assert sealed.signed(sealed.ledger)[REGISTER][0].size == 4


def test_a_decision_on_a_ledger_whose_witnesses_are_down_signs_nothing(sealed: SealedLedger) -> None:
    """If false, a command would sign what nobody has confirmed to be the latest state."""
    sealed.kill("one", "two")
    before = sealed.signed(sealed.ledger)
    done = govern(sealed.ledger, "department-for-testing/permanent-secretary")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "no quorum of witnesses has confirmed" in done.stderr
    assert sealed.signed(sealed.ledger) == before
    for name in ("one", "two"):
        sealed.start(name)
    done = govern(sealed.ledger, "department-for-testing/permanent-secretary")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("down", [(), ("one",), ("two",)], ids=["both there", "one down", "two down"])
async def test_an_older_copy_is_refused_with_both_notes_and_signs_nothing(
    sealed: SealedLedger, tmp_path: Path, down: tuple[str, ...]
) -> None:
    """If false, restoring a backup would make a second history under the ledger's key (promise P3)."""
    async with served(sealed) as (server, caller):
        await register(caller, 2)
        assert await asyncio.to_thread(server.terminate) == 0
    backup = copied(sealed.ledger, tmp_path / "backup")
    async with served(sealed) as (server, caller):
        await register(caller, 3)
        server.kill()
    sealed.kill(*down)
    before, cosigned = sealed.signed(backup), sealed.cosigned()
    assert (before[REGISTER][0].size, cosigned["one"][MAIN].size) == (2, 5)
    for attempt in (_serve, _govern):
        status, said = await attempt(sealed, backup)
        assert status == 1, said
        assert "was an older copy restored" in said
        assert set(notes_in(said)) == {(MAIN, 2), (MAIN, 5)}, said
        assert sealed.signed(backup) == before
        assert sealed.cosigned() == cosigned
    # The real one is not touched by any of it.
    for name in down:
        sealed.start(name)
    async with served(sealed) as (server, caller):
        await register(caller)
        assert await asyncio.to_thread(server.terminate) == 0
    assert_fsck_finds_nothing(sealed.ledger.root)


async def _serve(sealed: SealedLedger, ledger: LedgerOnDisk) -> tuple[int, str]:
    """Serve a copy until it ends; return the exit status and what it said."""
    log = ledger.root.parent / "backup.log"
    try:
        with running(ledger.root, log) as server:
            status = await asyncio.to_thread(server.wait)
            return status, server.errors()
    except NotServingError as error:
        return error.status, error.errors


async def _govern(sealed: SealedLedger, ledger: LedgerOnDisk) -> tuple[int, str]:
    done = await asyncio.to_thread(govern, ledger, "department-for-testing/permanent-secretary")
    return done.returncode, done.stdout + done.stderr


async def test_a_directory_that_is_served_twice_never_has_one_size_cosigned_twice(
    sealed: SealedLedger, tmp_path: Path
) -> None:
    """If false, whoever copies a ledger's directory could show two people two histories, both witnessed."""
    async with served(sealed) as (server, caller):
        await register(caller, 2)
        assert await asyncio.to_thread(server.terminate) == 0
    fork = copied(sealed.ledger, tmp_path / "fork")
    log = tmp_path / "fork.log"
    with running(sealed.ledger.root, sealed.log) as server, running(fork.root, log) as other:
        async with calling(server.grpc) as caller, calling(other.grpc) as forger:
            writers = [asyncio.create_task(_write(each)) for each in (caller, forger)]
            ends = [asyncio.create_task(asyncio.to_thread(each.wait)) for each in (server, other)]
            done, _ = await asyncio.wait(ends, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            assert done
            for writer in writers:
                writer.cancel()
            await asyncio.wait(writers)
        ended = [each for each in (server, other) if each.process.poll() is not None]
        assert [each.process.returncode for each in ended] == [1] * len(ended)
        assert all("history" in each.errors() or "entries" in each.errors() for each in ended)
    assert_one_history(sealed, sealed.ledger, fork)


async def _write(caller: Caller) -> None:
    """Register decisions until the server is gone."""
    while True:
        with suppress(grpc.aio.AioRpcError):
            await caller.register(deciding())
        await asyncio.sleep(0)


def assert_one_history(sealed: SealedLedger, *ledgers: LedgerOnDisk) -> None:
    """Compare every cosignature that any copy keeps, and what witnesses hold: of one size, one root."""
    seen: dict[tuple[str, int, str], bytes] = {}
    for name, origins in sealed.cosigned().items():
        for origin, checkpoint in origins.items():
            seen[origin, checkpoint.size, f"{name}.example/w"] = checkpoint.text()
    for ledger in ledgers:
        store = SqliteStore(ledger.directory.store)
        try:
            for register, head in store.heads().items():
                for kept in store.cosigned(register, 0, head.size + 1):
                    note = store.note(register, kept.size)
                    assert note is not None
                    key = f"{ORIGIN}/{register}", kept.size, kept.first.name
                    text = note.note.partition(b"\n\n")[0] + b"\n"
                    assert seen.setdefault(key, text) == text
        finally:
            store.close()


# The witnesses


async def test_a_witness_that_was_put_back_is_found_out_and_refused_until_declared(
    sealed: SealedLedger, tmp_path: Path
) -> None:
    """If false, a witness that has forgotten could cosign a second history, and help to confirm it."""
    directory, backup = sealed.witnesses["two"].directory, tmp_path / "witness-backup"
    async with served(sealed) as (server, caller):
        await register(caller, 2)
        sealed.kill("two")
        backed_up(directory, backup)
        sealed.start("two")
        await register(caller, 3)
        sealed.kill("two")
        restored(directory, backup)
        sealed.start("two")
        await asyncio.wait_for(_unsealed(caller), PATIENCE)
        told = await until(lambda told: "lost its state" in str(told), server)
        assert told["witnesses"]["quorum_met"] is False
        (trouble,) = [each["trouble"] for each in told["witnesses"]["witnesses"] if each["name"] == "two"]
        assert "holds 2 entries, and had cosigned 5. Refused until its restoration is declared" in trouble
        assert await asyncio.to_thread(server.terminate) == 0
    assert sealed.cosigned()["two"][MAIN].size == 2
    async with served(sealed) as (server, caller):
        # Nor does it confirm anything after a restart.
        told = await until(lambda told: "lost its state" in str(told), server)
        assert told["status"] == 503
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.register(deciding())
        assert sealed.cosigned()["two"][MAIN].size == 2
        command = [DAYBOOK, "sealing", str(sealed.ledger.root), "--declare-restored", "two"]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        await register(caller)
        await until(lambda told: told["status"] == 200 and told["witnesses"]["quorum_met"], server)
        assert await asyncio.to_thread(server.terminate) == 0
    assert sealed.cosigned()["two"][MAIN].size == 7
    assert_fsck_finds_nothing(sealed.ledger.root)


async def _unsealed(caller: Caller) -> None:
    """Register a decision without waiting for the seal that cannot come."""
    request = pb.RegisterRequest(submission=message_of(deciding()), wait_for=WaitFor.WAIT_FOR_SEQUENCED)
    answer = (await caller.registration.Register(request, timeout=30.0)).acknowledgement
    assert answer.state == State.STATE_SEQUENCED

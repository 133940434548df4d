"""A disk that is really full, writes that really fail, and stores that are damaged or older than they say."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import grpc
import grpc.aio
import httpx
import pytest
from daybook.audit.v1 import audit_service_pb2 as audit
from daybook.registration.v1 import registration_service_pb2 as pb

from ledger.receipts import verify_receipt
from services.client.answers import AnswerVerifier, Registered
from services.client.errors import CallError, from_rpc_error
from services.client.signing import SignedSubmission, sign_submission
from services.ledger_files import LedgerDirectory
from tests.support import records
from tests.support.calling import Caller, assert_refused, calling
from tests.support.journal import Journal, compare
from tests.support.ledger_dir import LedgerOnDisk, make_ledger, opening
from tests.support.ledgers import DEPARTMENT, DEPARTMENT_KEY, ORIGIN, REGISTER
from tests.support.server_process import ANY_PORT, assert_fsck_finds_nothing, refusal, running
from tests.support.small_disk import SmallDisk, small_disk

pytestmark = [pytest.mark.hammer, pytest.mark.timeout(600)]

CODE = grpc.StatusCode
WRITERS = 8
CYCLES = 4


def signed(count: int = 1) -> SignedSubmission:
    """Return so many new decisions as one submission."""
    data = [
        records.decision_bytes(register=REGISTER, record_id=str(uuid4()), rationale="Because. " * 40)
        for _ in range(count)
    ]
    return sign_submission(data, f"{ORIGIN}/{REGISTER}", [DEPARTMENT_KEY])


@dataclass(slots=True)
class Department:
    """Submits to a server by single calls, with no retries of its own, and writes down every answer."""

    ledger: LedgerOnDisk
    caller: Caller
    journal: Journal = field(default_factory=Journal)
    refusals: list[CallError] = field(default_factory=list)

    async def submit(self, submission: SignedSubmission) -> Registered | CallError:
        """Submit once; return the verified answer, or what the call ended in."""
        self.journal.send(submission)
        try:
            answer = await self.caller.register(submission)
        except grpc.aio.AioRpcError as error:
            refused = from_rpc_error(error)
            self.refusals.append(refused)
            return refused
        verifier = AnswerVerifier(
            self.ledger.policy, submission.register_origin, self.ledger.acknowledgement_key
        )
        verified = verifier.verify(submission, answer)
        assert isinstance(verified, Registered)
        self.journal.answered(verified)
        return verified

    async def submit_until_refused(self) -> SignedSubmission:
        """Submit new records until one is refused; return that submission."""
        while True:
            submission = signed()
            if isinstance(await self.submit(submission), CallError):
                return submission

    async def keep_submitting(self) -> None:
        """Submit for ever, each until it is answered. Only a full disk may stand in the way."""
        number = 0
        while True:
            number += 1
            submission = signed(1 + number % 7)
            while isinstance(outcome := await self.submit(submission), CallError):
                assert_refused(outcome, CODE.UNAVAILABLE, "STORAGE_FULL")
                await asyncio.sleep(0.005)  # as a client would, but for the 60 seconds


@pytest.fixture
def ledger(tmp_path: Path) -> LedgerOnDisk:
    """Return a new ledger."""
    return make_ledger(tmp_path / "ledger")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Return a disk of 24 MiB."""
    with small_disk(tmp_path / "disk", 24) as disk:
        yield disk


@pytest.fixture
def ledger_on(disk: SmallDisk, ledger: LedgerOnDisk) -> LedgerOnDisk:
    """Return a ledger that was moved to the small disk: only the disk's own processes can open it there."""
    shutil.move(ledger.root, disk.seen / "ledger")
    return ledger


def compare_on(disk: SmallDisk, journal: Journal, ledger: LedgerOnDisk) -> None:
    """Bring the ledger back from the small disk, and compare it with what was answered."""
    shutil.copytree(disk.seen / "ledger", ledger.root)
    compare(journal, ledger)
    assert_fsck_finds_nothing(ledger.root)


@asynccontextmanager
async def department(ledger: LedgerOnDisk, address: str) -> AsyncIterator[Department]:
    """Connect a department to a server."""
    async with calling(address) as caller:
        yield Department(ledger, caller)


async def test_a_full_disk_refuses_submissions_serves_readers_and_recovers_by_itself(
    disk: SmallDisk, ledger_on: LedgerOnDisk, tmp_path: Path
) -> None:
    """If false, a full disk would silence the register, or need a hand to recover."""
    with running(disk.path / "ledger", tmp_path / "serve.log", within=disk.within) as server:
        async with department(ledger_on, server.grpc) as writer, httpx.AsyncClient() as http:
            caller = writer.caller
            first = await writer.submit(signed(3))
            assert isinstance(first, Registered)
            disk.fill()
            refused = await writer.submit_until_refused()
            size = (await caller.sizes())[REGISTER]
            for submission in (refused, signed(100), signed()):
                outcome = await writer.submit(submission)
                assert isinstance(outcome, CallError)
                assert_refused(outcome, CODE.UNAVAILABLE, "STORAGE_FULL")
                assert outcome.retry_after is not None
            await caller.refused(
                caller.govern("OpenRegister", opening(f"{DEPARTMENT}/minister")),
                CODE.UNAVAILABLE,
                "STORAGE_FULL",
            )
            assert (await caller.sizes()) == {"governing": 3, REGISTER: size}

            receipt = await caller.registration.GetReceipt(
                pb.GetReceiptRequest(register=REGISTER, index=size - 1)
            )
            assert verify_receipt(receipt.receipt, ledger_on.policy).index == size - 1
            checkpoint = await caller.audit.GetCheckpoint(audit.GetCheckpointRequest(register=REGISTER))
            assert checkpoint.size == size
            base = f"http://{server.http}/logs/{REGISTER}"
            for path in ("checkpoint", "tile/0/000.p/3", "tile/entries/000.p/3"):
                assert (await http.get(f"{base}/{path}")).status_code == 200
            assert isinstance(again := await writer.submit(first.submission), Registered)
            assert again.known

            disk.free()
            late = await writer.submit(refused)
            assert isinstance(late, Registered)
            assert (late.known, late.first_index) == (False, size)
        assert server.terminate() == 0
    compare_on(disk, writer.journal, ledger_on)


async def test_a_disk_that_fills_and_empties_under_load_loses_nothing(
    disk: SmallDisk, ledger_on: LedgerOnDisk, tmp_path: Path
) -> None:
    """If false, a commit that met the end of the disk half way would be acknowledged, or leave a trace."""
    with running(disk.path / "ledger", tmp_path / "serve.log", within=disk.within) as server:
        async with department(ledger_on, server.grpc) as writer:
            writers = [asyncio.create_task(writer.keep_submitting()) for _ in range(WRITERS)]
            for _ in range(CYCLES):
                answers = len(writer.journal.answers)
                await until(lambda: len(writer.journal.answers) >= answers + 50, writers)  # noqa: B023
                disk.fill()
                refusals = len(writer.refusals)
                await until(lambda: len(writer.refusals) >= refusals + 20, writers)  # noqa: B023
                disk.free()
            answers = len(writer.journal.answers)
            await until(lambda: len(writer.journal.answers) >= answers + 50, writers)
            for task in writers:
                task.cancel()
            await asyncio.wait(writers)
        assert server.terminate() == 0
    compare_on(disk, writer.journal, ledger_on)


async def until(condition: Callable[[], bool], tasks: list[asyncio.Task[None]]) -> None:
    """Wait for a condition that `tasks` bring about; what ends one of them is raised."""
    while not condition():
        done, _ = await asyncio.wait(tasks, timeout=0.002, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


async def test_a_server_on_a_full_disk_stops_and_starts_again_without_loss(
    disk: SmallDisk, ledger_on: LedgerOnDisk, tmp_path: Path
) -> None:
    """If false, an operator who restarts the server to make room would be told of a failure, or lose notes."""
    log = tmp_path / "serve.log"
    with running(disk.path / "ledger", log, within=disk.within) as server:
        async with department(ledger_on, server.grpc) as writer:
            disk.fill()
            await writer.submit_until_refused()
        assert server.terminate() == 0, server.errors()
    disk.free()
    with running(disk.path / "ledger", log, within=disk.within) as server:
        assert server.terminate() == 0
    compare_on(disk, writer.journal, ledger_on)


async def test_a_server_killed_on_a_full_disk_recovers_when_there_is_room(
    disk: SmallDisk, ledger_on: LedgerOnDisk, tmp_path: Path
) -> None:
    """If false, a crash while the disk is full would lose what was acknowledged."""
    log = tmp_path / "serve.log"
    with running(disk.path / "ledger", log, within=disk.within) as server:
        async with department(ledger_on, server.grpc) as writer:
            disk.fill()
            await writer.submit_until_refused()
        server.kill()
    disk.free()
    with running(disk.path / "ledger", log, within=disk.within) as server:
        async with department(ledger_on, server.grpc) as later:
            assert isinstance(await later.submit(signed()), Registered)
        assert server.terminate() == 0
    later.journal.sent |= writer.journal.sent
    later.journal.answers += writer.journal.answers
    compare_on(disk, later.journal, ledger_on)


# Writes that fail for another reason


async def test_a_failing_write_ends_the_process_and_the_next_start_has_all_that_was_acknowledged(
    ledger: LedgerOnDisk, tmp_path: Path
) -> None:
    """If false, a server would go on over a store whose state it does not know."""
    log = tmp_path / "serve.log"
    with running(ledger.root, log) as server:
        async with department(ledger, server.grpc) as writer:
            for _ in range(20):
                assert isinstance(await writer.submit(signed(5)), Registered)
            # From here on the system refuses to let any file of the process grow (EFBIG, not ENOSPC).
            wal = os.stat(f"{ledger.directory.store}-wal").st_size  # noqa: PTH116 - no wait to speak of
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (wal, wal))
            refused = await writer.submit_until_refused()
            assert_refused(writer.refusals[-1], CODE.UNAVAILABLE, "BACKEND_DOWN")
            assert writer.refusals[-1].retry_after is not None
        assert server.wait() == 3
        assert "SQLite" in server.errors()
    with running(ledger.root, log) as server:
        async with department(ledger, server.grpc) as later:
            assert isinstance(await later.submit(refused), Registered)
        assert server.terminate() == 0
    later.journal.sent |= writer.journal.sent
    later.journal.answers += writer.journal.answers
    compare(later.journal, ledger)
    assert_fsck_finds_nothing(ledger.root)


# Stores that are not what they were


@pytest.fixture
async def filled(ledger: LedgerOnDisk, tmp_path: Path) -> LedgerOnDisk:
    """Return a ledger with 300 entries: one full tile and a part of the next."""
    await _register(ledger, tmp_path, 300)
    return ledger


async def _register(ledger: LedgerOnDisk, tmp_path: Path, count: int) -> None:
    with running(ledger.root, tmp_path / "serve.log") as server:
        async with department(ledger, server.grpc) as writer:
            assert isinstance(await writer.submit(signed(count)), Registered)
        assert server.terminate() == 0


def changed(path: Path, statement: str) -> None:
    """Change a store behind its back, as whoever has the disk can."""
    with closing(sqlite3.connect(path)) as database:
        assert database.execute(statement).rowcount == 1
        database.commit()


_LAST = "id = (SELECT max(id) FROM {} WHERE id >> 40 = (SELECT number FROM register WHERE name LIKE '%/%'))"
RIGHT_EDGES = {
    "the head's root": "UPDATE register SET root = zeroblob(32) WHERE name LIKE '%/%'",
    "the head's size": "UPDATE register SET size = size - 1 WHERE name LIKE '%/%'",
    "the last tile": f"UPDATE tile SET hashes = zeroblob(length(hashes)) WHERE {_LAST.format('tile')}",
    "the last entries": "UPDATE stretch SET entries = CAST(replace(CAST(entries AS TEXT), 'gowns', 'crown') "
    f"AS BLOB) WHERE {_LAST.format('stretch')}",
    "the last entries gone": f"DELETE FROM stretch WHERE {_LAST.format('stretch')}",
    "the governing root": "UPDATE register SET root = zeroblob(32) WHERE name = 'governing'",
}


@pytest.mark.parametrize("statement", RIGHT_EDGES.values(), ids=RIGHT_EDGES.keys())
async def test_a_damaged_right_edge_is_not_served(filled: LedgerOnDisk, tmp_path: Path, statement: str) -> None:
    """If false, the server would append to a history that is not the one it signed, and sign the result."""
    changed(filled.directory.store, statement)
    refused = refusal(filled.root, tmp_path / "serve.log")
    assert refused.status == 3
    assert "run fsck" in refused.errors
    assert "Traceback" not in refused.errors


@pytest.mark.parametrize("at", [0, 100, 4_096])
async def test_a_file_that_is_no_database_any_more_is_not_served(
    filled: LedgerOnDisk, tmp_path: Path, at: int
) -> None:
    """If false, the server would end in a traceback, or make a new store in the place of the damaged one."""
    with filled.directory.store.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 4_096)
    damaged = filled.directory.store.read_bytes()
    refused = refusal(filled.root, tmp_path / "serve.log")
    assert refused.status == 3
    assert "Traceback" not in refused.errors
    assert filled.directory.store.read_bytes() == damaged


async def test_an_older_copy_of_the_store_is_not_served_and_both_checkpoints_are_shown(
    filled: LedgerOnDisk, tmp_path: Path
) -> None:
    """If false, a restore would make the ledger sign a second history (promise P3)."""
    older = tmp_path / "older"
    shutil.copy(filled.directory.store, older)
    await _register(filled, tmp_path, 5)
    shutil.copy(older, filled.directory.store)
    marks = filled.directory.marks.read_bytes()
    refused = refusal(filled.root, tmp_path / "serve.log")
    assert refused.status == 1
    assert f"{ORIGIN}/{REGISTER}\n305\n" in refused.errors
    assert f"{ORIGIN}/{REGISTER}\n300\n" in refused.errors
    assert filled.directory.marks.read_bytes() == marks


async def test_another_history_of_the_same_size_is_not_served(filled: LedgerOnDisk, tmp_path: Path) -> None:
    """If false, a fork of equal length would be signed beside the first (promise P3)."""
    twin = LedgerOnDisk(LedgerDirectory(tmp_path / "twin"), filled.policy, filled.acknowledgement_key)
    shutil.copytree(filled.root, twin.root)
    await _register(filled, tmp_path, 5)
    await _register(twin, tmp_path, 5)
    shutil.copy(twin.directory.store, filled.directory.store)
    refused = refusal(filled.root, tmp_path / "serve.log", (*ANY_PORT, "--json"))
    assert refused.status == 1
    error = json.loads(refused.errors)["error"]
    assert error["reason"] == "SPLIT_VIEW"
    assert error["first"].startswith(f"{ORIGIN}/{REGISTER}\n305\n")
    assert error["second"].startswith(f"{ORIGIN}/{REGISTER}\n305\n")
    assert error["first"] != error["second"]


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: path.write_bytes(b"")], ids=["gone", "empty"])
def test_a_signer_that_has_forgotten_signs_nothing_until_it_is_told_to(
    filled: LedgerOnDisk, tmp_path: Path, lose: Callable[[Path], object]
) -> None:
    """If false, an older store beside lost marks would be signed over without a word (promise P3)."""
    lose(filled.directory.marks)
    refused = refusal(filled.root, tmp_path / "serve.log")
    assert refused.status == 2
    assert "signer.marks knows nothing of" in refused.errors
    assert "--trust-store" in refused.errors
    with running(filled.root, tmp_path / "serve.log", (*ANY_PORT, "--trust-store")) as server:
        assert server.terminate() == 0
    with running(filled.root, tmp_path / "serve.log") as server:
        assert server.terminate() == 0

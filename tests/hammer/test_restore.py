"""Restoring an older copy of a ledger's directory: under live witnesses, and with imports that are killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ledger.checkpoints import Checkpoint
from ledger.entries import ANONYMOUS, parse_entry
from ledger.governing import GOVERNING
from ledger.hashing import Hash
from ledger.notes import split_note
from ledger.reader import RegisterReader, TileCache
from ledger.records import RestoreDeclared, parse_record
from ledger.stores.sqlite import SqliteStore
from ledger.witnessing import Policy
from services.client.answers import Registered
from services.client.client import connect
from services.client.signing import SignedSubmission, sign_submission
from services.compose import embedded, register_locally
from services.ledger_files import LedgerDirectory
from services.registrar import Registrar
from services.restoring import read_pending
from tests.support.command import run, run_json
from tests.support.ledger_dir import LedgerOnDisk, governing, make_ledger, opening
from tests.support.ledgers import DEPARTMENT, DEPARTMENT_KEY, ORIGIN, REGISTER, decision
from tests.support.server_process import (
    ANY_PORT,
    DAYBOOK,
    Server,
    assert_fsck_finds_nothing,
    launch,
    leave_sealed,
    running,
)
from tests.support.witness_process import make_witness, witnessing

pytestmark = [pytest.mark.hammer, pytest.mark.timeout(3_600)]

ROUNDS = int(os.environ.get("DAYBOOK_ROUNDS", "5"))
"""Imports that are killed, once or several times each."""

SEED = int(os.environ.get("DAYBOOK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
"""Printed, so that a failure can be repeated as far as the scheduling of processes allows."""

SECOND = f"{DEPARTMENT}/permanent-secretary"


def signed(numbers: Iterable[int], register: str = REGISTER) -> SignedSubmission:
    """Return decisions of the department as one submission."""
    records = [decision(number, register) for number in numbers]
    return sign_submission(records, f"{ORIGIN}/{register}", [DEPARTMENT_KEY])


def locally(ledger: LedgerOnDisk, submission: SignedSubmission) -> None:
    """Register in a ledger that nobody serves."""
    register_locally(ledger.root, submission.body, submission.records, submission.signatures)


@contextmanager
def witnessed(ledger: LedgerOnDisk, folder: Path) -> Iterator[Policy]:
    """Run two witnesses, both of whom must have seen a checkpoint, and publish that."""
    log = ledger.policy.logs[0].key
    with ExitStack() as stack:
        lines = [f"log {log}"]
        for name in ("one", "two"):
            made = make_witness(folder / name, f"{name}.example/w")
            made.add_ledger(str(log))
            served = stack.enter_context(witnessing(made.directory))
            lines.append(f"witness {name} {made.vkey} {served.url}")
        text = "".join(f"{line}\n" for line in (*lines, "group both all one two", "quorum both"))
        locally(
            ledger,
            governing(
                "policy.published/1",
                kind="witness",
                name="ledger",
                effective_from="2026-01-01T00:00Z",
                text=text,
            ),
        )
        yield Policy.parse(text.encode())


async def register_sealed(server: Server, policy: Policy, *submissions: SignedSubmission) -> None:
    """Register through a server, and wait for every seal."""
    for submission in submissions:
        register = json.loads(submission.records[0])["register"]
        async with connect(server.grpc, policy=policy, register=register, key=DEPARTMENT_KEY) as client:
            answer = await client.submit(submission)
            assert isinstance(answer, Registered)


def serve_until_it_stops(root: Path, log: Path) -> tuple[int, dict[str, Any]]:
    """Serve a ledger that must stop by itself; return its exit status and the error that it printed."""
    process = launch(root, log, (*ANY_PORT, "--json"))
    printed, _ = process.communicate(timeout=60)
    _, _, error = printed.partition("\n")  # after the line that says it is ready
    told: dict[str, Any] = json.loads(error)["error"]
    return process.returncode, told


def signed_roots(directory: LedgerDirectory) -> dict[tuple[str, int], Hash]:
    """Return the root at every size that has a note, as the tiles make it; the notes state the same."""
    found = {}
    with closing(SqliteStore(directory.store)) as store:
        for register, head in store.heads().items():
            reader = RegisterReader(store, register, TileCache())
            for stored in store.notes(register, 0, head.size + 1):
                found[register, stored.size] = reader.root(stored.size)
                assert Checkpoint.parse(split_note(stored.note)[0]).root == reader.root(stored.size)
    return found


def sizes(directory: LedgerDirectory) -> dict[str, int]:
    """Return the size of every register."""
    with closing(SqliteStore(directory.store)) as store:
        return {register: head.size for register, head in store.heads().items()}


def declared(directory: LedgerDirectory) -> dict[str, tuple[int, int]]:
    """Return what the governing register declares of restores: stored and recovered size, by register."""
    found: dict[str, tuple[int, int]] = {}
    with closing(SqliteStore(directory.store)) as store:
        for entry in store.entries(GOVERNING, 0, store.heads()[GOVERNING].size):
            record = parse_record(parse_entry(entry).record)
            if isinstance(record, RestoreDeclared):
                assert record.restored not in found, "declared twice"
                found[record.restored] = (record.stored_size, record.recovered_size)
    return found


def until(condition: Any, seconds: float = 60.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def test_an_older_copy_is_stopped_by_the_witnesses_and_catches_up_from_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if a restored ledger could sign a second history, or what was witnessed were lost for good."""
    monkeypatch.setenv("DAYBOOK_ANCHOR_SECONDS", "0.2")
    ledger = make_ledger(tmp_path / "ledger")
    log = tmp_path / "log"
    with witnessed(ledger, tmp_path) as policy:
        with running(ledger.root, log) as server:
            asyncio.run(register_sealed(server, policy, signed(range(5))))
            assert server.terminate() == 0
        older = LedgerDirectory(tmp_path / "older")
        shutil.copytree(ledger.root, older.root)
        held = sizes(older)
        locally(ledger, opening(SECOND))
        with running(ledger.root, log) as server:
            asyncio.run(register_sealed(server, policy, signed([5, 6]), signed(range(20, 24), SECOND)))
            run("export", ledger.root, tmp_path / "while.export")
            asyncio.run(register_sealed(server, policy, signed([7])))
            assert server.terminate() == 0
        leave_sealed(ledger.root, log)
        run("export", ledger.root, tmp_path / "last.export")
        witnesses_know = sizes(ledger.directory)

        status, told = serve_until_it_stops(older.root, log)
        assert (status, told["reason"]) == (1, "SPLIT_VIEW")
        stated = []
        for note in (told["first"], told["second"]):
            origin = note.partition("\n")[0]
            stated.append(policy.open(note.encode(), origin).checkpoint)
        register = stated[0].origin.removeprefix(f"{ORIGIN}/")
        assert stated[0].origin == stated[1].origin
        assert {one.size for one in stated} == {held[register], witnesses_know[register]}
        assert sizes(older) == held, "nothing was added to the older copy"

        # What was exported before the end catches up with a part, which witnesses do not take for the whole.
        assert run_json("import", older.root, tmp_path / "while.export")["changed"]
        assert serve_until_it_stops(older.root, log)[0] == 1
        assert declared(older) == {}

        run("import", older.root, tmp_path / "last.export")
        assert sizes(older) == witnesses_know
        assert signed_roots(older) == signed_roots(ledger.directory)
        with running(older.root, log) as server:
            asyncio.run(register_sealed(server, policy, signed([8]), signed([24], SECOND)))
            until(lambda: not older.pending_restore.exists())
            assert server.terminate() == 0
    assert declared(older) == {
        register: (held.get(register, 0), size)
        for register, size in witnesses_know.items()
        if held.get(register, 0) < size
    }
    assert_fsck_finds_nothing(older.root)
    told = run_json("fsck", older.root, "--processes", "1")
    assert told["cosignatures"] > 0
    assert told["unchecked"] == 0
    assert_is_continued(ledger.directory, older)


def assert_is_continued(before: LedgerDirectory, after: LedgerDirectory) -> None:
    """Assert that what one ledger has signed and had cosigned is all in the other, which went on from it."""
    roots = signed_roots(after)
    assert {key: roots.get(key) for key in signed_roots(before)} == signed_roots(before)
    with closing(SqliteStore(before.store)) as old, closing(SqliteStore(after.store)) as new:
        for register, head in old.heads().items():
            kept = {(row.size, row.first.by): row.first for row in new.cosigned(register, 0, head.size + 1)}
            for row in old.cosigned(register, 0, head.size + 1):
                assert kept[row.size, row.first.by] == row.first


# Killed.


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[LedgerDirectory, LedgerDirectory, Path]:
    """Return a ledger whose catch-up takes several commits, an older copy of it, and its export."""
    folder = tmp_path_factory.mktemp("large")
    ledger = make_ledger(folder / "ledger", (REGISTER, SECOND))
    locally(ledger, signed(range(3)))
    older = LedgerDirectory(folder / "older")
    shutil.copytree(ledger.root, older.root)
    asyncio.run(_fill(ledger, 9_000))
    run("export", ledger.root, folder / "export")
    return ledger.directory, older, folder / "export"


async def _fill(ledger: LedgerOnDisk, size: int) -> None:
    with embedded(ledger.directory) as opened:
        task = asyncio.create_task(opened.sequencer.run())
        opened.sequencer.confirm(opened.published.registers())
        registrar = Registrar(opened.ledger, opened.sequencer)
        for first in range(10, size, 100):
            for register in (REGISTER, SECOND):
                one = signed(range(first, first + 100), register)
                await registrar.register(one.body, one.records, one.signatures, ANONYMOUS)
        opened.sequencer.drain()
        await task


def test_an_import_that_is_killed_again_and_again_still_brings_everything_back(
    large: tuple[LedgerDirectory, LedgerDirectory, Path], tmp_path: Path
) -> None:
    """False if a kill could leave a ledger that cannot catch up, or that forgets how much it had lost."""
    print(f"DAYBOOK_SEED={SEED} DAYBOOK_ROUNDS={ROUNDS}")
    ledger, older, export = large
    draw = random.Random(SEED)
    held, whole = sizes(older), signed_roots(ledger)
    kills = halfway = 0
    for number in range(ROUNDS):
        restored = LedgerDirectory(tmp_path / str(number))
        shutil.copytree(older.root, restored.root)
        for _ in range(draw.randrange(1, 4)):
            kills += _kill_while_importing(restored, export, draw)
            halfway += held != sizes(restored) != sizes(ledger)
            assert {name: one.stored_size for name, one in read_pending(restored).restored.items()}.items() <= (
                held.items()
            )
        told = run_json("import", restored.root, export)
        assert not restored.scratch.exists()
        assert {name: one.stored_size for name, one in read_pending(restored).restored.items()} == {
            name: size for name, size in held.items() if size < told["sizes"][name]
        }
        assert signed_roots(restored) == whole
        assert_fsck_finds_nothing(restored.root)
        shutil.rmtree(restored.root)
    print(f"{kills} imports killed, {halfway} of them halfway")
    assert kills


def test_the_making_of_a_copy_that_is_killed_can_be_begun_again(
    large: tuple[LedgerDirectory, LedgerDirectory, Path], tmp_path: Path
) -> None:
    """False if a kill could leave half a copy that looks like a whole one, or a directory of no use."""
    ledger, _, export = large
    draw = random.Random(SEED)
    copy = LedgerDirectory(tmp_path / "copy")
    for _ in range(ROUNDS):
        _kill_while_importing(copy, export, draw)
        if copy.store.exists():
            assert signed_roots(copy) == signed_roots(ledger)
    run("import", copy.root, export)
    assert signed_roots(copy) == signed_roots(ledger)
    assert_fsck_finds_nothing(copy.root)


def _kill_while_importing(directory: LedgerDirectory, export: Path, draw: random.Random) -> bool:
    """Start an import and kill it: while it checks, or brings entries in. False if it ended before."""
    process = subprocess.Popen(
        [DAYBOOK, "import", str(directory.root), str(export)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    phase = directory.pending_restore if draw.random() < 0.7 else directory.scratch
    end = time.monotonic() + 60
    while process.poll() is None and not phase.exists() and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(draw.uniform(0.0, 0.6))
    process.kill()
    return process.wait(60) < 0

"""A real ledger behind its real server, and what its operator may try with copies of its directory."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ledger.governing import GOVERNING
from ledger.notes import SignerKey
from ledger.witnessing import Policy
from services.client.client import connect
from services.client.signing import sign_submission
from services.compose import embedded
from services.ledger_files import LedgerDirectory, write_key_pair
from services.monitoring.state import StateDirectory
from services.registrar import Registrar
from tests.support.command import run, run_json
from tests.support.ledger_dir import LedgerOnDisk, make_ledger
from tests.support.ledgers import DEPARTMENT_KEY, GOVERNANCE_KEY, ORIGIN, REGISTER, decision
from tests.support.server import Server, daybook, serving
from tests.support.witness_process import make_witness, witnessing


def write(directory: Path, numbers: Sequence[int]) -> None:
    """Register decisions in a ledger that nobody serves."""

    async def register() -> None:
        signed = sign_submission(
            [decision(number) for number in numbers], f"{ORIGIN}/{REGISTER}", [DEPARTMENT_KEY]
        )
        with embedded(LedgerDirectory(directory)) as opened:
            running = asyncio.create_task(opened.sequencer.run())
            registrar = Registrar(opened.ledger, opened.sequencer)
            await registrar.register(signed.body, signed.records, signed.signatures, "anonymous")
            opened.sequencer.drain()
            await running

    asyncio.run(register())


@pytest.fixture
def ledger(tmp_path: Path) -> LedgerOnDisk:
    made = make_ledger(tmp_path / "ledger")
    write(made.root, range(3))
    (tmp_path / "policy").write_bytes(made.policy.text())
    return made


def monitor(directory: Path, state: Path, *, status: int = 0) -> dict[str, Any]:
    """Serve a directory, make one round with a state, and return what was told."""
    with serving(directory) as server:
        return monitor_at(server, state, directory.parent / "policy", status=status)


def monitor_at(
    server: Server, state: Path, policy: Path, *, patience: int = 0, status: int = 0
) -> dict[str, Any]:
    """Make one round over a server."""
    return run_json(
        *("monitor", f"http://{server.http}", "--policy", policy, "--state", state, "--once"),
        *("--patience", str(patience)),
        status=status,
    )


def sizes(told: dict[str, Any]) -> dict[str, int]:
    return {each["register"]: each["size"] for each in told["registers"]}


@pytest.mark.journey
def test_yesterdays_copy_is_found(ledger: LedgerOnDisk, tmp_path: Path) -> None:
    """False if an operator could undo a day by putting a copy of the directory back."""
    shutil.copytree(ledger.root, tmp_path / "yesterday")
    write(ledger.root, range(3, 7))
    assert sizes(monitor(ledger.root, tmp_path / "state")) == {GOVERNING: 3, REGISTER: 7}
    told = monitor(tmp_path / "yesterday", tmp_path / "state", status=1)
    assert [(each["kind"], each["register"]) for each in told["findings"]] == [("rollback", REGISTER)]
    # And when yesterday's copy goes on from there, the two histories prove it.
    write(tmp_path / "yesterday", range(10, 20))
    told = monitor(tmp_path / "yesterday", tmp_path / "state", status=1)
    (finding,) = told["findings"]
    assert (finding["kind"], finding["proof"]) == ("fork", True)
    run("monitor", "--policy", tmp_path / "policy", "--check", finding["evidence"], status=1)


@pytest.mark.journey
def test_two_copies_that_are_shown_to_two_people_are_found_when_they_compare(
    ledger: LedgerOnDisk, tmp_path: Path
) -> None:
    """False if an operator could keep two histories for two auditors who talk to each other."""
    shutil.copytree(ledger.root, tmp_path / "other")
    write(ledger.root, range(3, 8))
    write(tmp_path / "other", range(100, 103))
    mine, theirs, policy = tmp_path / "mine", tmp_path / "theirs", tmp_path / "policy"
    assert monitor(ledger.root, mine)["ok"]
    assert monitor(tmp_path / "other", theirs)["ok"]
    for state, other in ((mine, theirs), (theirs, mine)):
        told = run_json("monitor", "--policy", policy, "--state", state, "--compare", other, status=1)
        (finding,) = told["findings"]
        assert (finding["kind"], finding["register"]) == ("fork", REGISTER)
        proved = run("monitor", "--policy", policy, "--check", finding["evidence"], status=1).stdout
        assert f"{ORIGIN}/{REGISTER} has signed two histories: its first 6 entries" in proved


@contextmanager
def witnessed(ledger: LedgerOnDisk, folder: Path) -> Iterator[Path]:
    """Have two witnesses asked from now on, both of whom must have seen a checkpoint; yield the policy."""
    with ExitStack() as stack:
        asked = []
        for name in ("first.example/w", "second.example/w"):
            made = make_witness(folder / name.partition(".")[0], name)
            made.add_policy(folder / "policy")
            running = stack.enter_context(witnessing(made.directory))
            asked += ["--witness", f"{made.directory / 'key.pub'}={running.url}"]
        policy = folder / "policy-of-two"
        policy.write_text(run("policy", ledger.root, *asked, "--quorum", "all").stdout, encoding="utf-8")
        key = folder / "governance"
        write_governance_key(key)
        daybook(
            *("govern", ledger.root, "publish-policy", policy, "--kind", "witness", "--name", "ledger"),
            *("--key", key),
        )
        yield policy


def write_governance_key(path: Path) -> None:
    """Write the governance key of test ledgers to a file."""
    write_key_pair(path, SignerKey("governance", GOVERNANCE_KEY))


@pytest.mark.journey
def test_a_witnessed_ledger_is_followed_with_its_anchors(
    ledger: LedgerOnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if what the ledger seals and anchors were not what a monitor asks for."""
    monkeypatch.setenv("DAYBOOK_ANCHOR_SECONDS", "0.1")
    with witnessed(ledger, tmp_path) as policy, serving(ledger.root) as server:
        state = tmp_path / "state"
        anchored = 0
        for number in range(10, 13):
            asyncio.run(register(server, policy.read_bytes(), number))
            told = monitor_at(server, state, policy, patience=30)
            assert told["witnessed"] is True
            anchored += told["anchors_compared"]
        assert sizes(told)[REGISTER] == 6
        while not anchored:
            anchored += monitor_at(server, state, policy, patience=30)["anchors_compared"]
    assert not StateDirectory(state).evidence.exists()


async def register(server: Server, policy: bytes, number: int) -> None:
    """Register one decision, and wait until it is sealed."""
    async with connect(
        server.grpc, policy=Policy.parse(policy), register=REGISTER, key=DEPARTMENT_KEY
    ) as client:
        await client.submit(client.sign([decision(number)]))

"""A ledger on disk whose policy asks two real witnesses, all of them processes of their own.

with sealed_ledger(tmp_path) as it:
    with running(it.ledger.root, it.log) as server: …
    it.kill("one"); it.start("one")     at the same address as before
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ledger.checkpoints import Checkpoint
from ledger.stores.sqlite import SqliteStore
from ledger.witnessing import Policy, Witness
from services.compose import embedded, register_once
from services.ledger_files import public_path, read_public_key
from services.signing import HighWaterMarks
from services.witness.directory import WitnessDirectory
from services.witness.state import State
from tests.support.ledger_dir import LedgerOnDisk, make_ledger
from tests.support.ledgers import ORIGIN, REGISTER
from tests.support.witness_process import MadeWitness, RunningWitness, make_witness, witnessing
from tests.support.witnessed import policy_text, publishing

NAMES: Final = ("one", "two")


@dataclass(slots=True)
class SealedLedger:
    """The ledger, with the policy that asks for both witnesses; and the witnesses, by name."""

    root: Path
    ledger: LedgerOnDisk
    witnesses: dict[str, MadeWitness]
    running: dict[str, RunningWitness] = field(default_factory=dict[str, RunningWitness])
    _stack: ExitStack = field(default_factory=ExitStack)
    _addresses: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def log(self) -> Path:
        """Where the ledger's servers write what they log."""
        return self.root / "serve.log"

    @property
    def policy_file(self) -> Path:
        """The policy, in a file for verifiers."""
        path = self.root / "policy"
        path.write_bytes(self.ledger.policy.text())
        return path

    def start(self, name: str) -> None:
        """Serve a witness, always at the address where it was first."""
        listen = self._addresses.get(name, "127.0.0.1:0")
        serving = witnessing(self.witnesses[name].directory, "--listen", listen)
        self.running[name] = self._stack.enter_context(serving)
        self._addresses[name] = self.running[name].http

    def kill(self, *names: str) -> None:
        """End witnesses with SIGKILL."""
        for name in names:
            self.running.pop(name).kill()

    def close(self) -> None:
        """End everything."""
        self._stack.close()

    def cosigned(self) -> dict[str, dict[str, Checkpoint]]:
        """Return the latest that each witness has cosigned, by witness and origin, from its own files."""
        found = {}
        for name, made in self.witnesses.items():
            state = State(WitnessDirectory(made.directory).state)
            found[name] = {each.checkpoint.origin: each.checkpoint for each in state.all_cosigned()}
            state.close()
        return found

    def signed(self, ledger: LedgerOnDisk) -> dict[str, tuple[Checkpoint, Checkpoint | None]]:
        """Return head and high-water mark of every register of a copy that nobody serves."""
        store, marks = SqliteStore(ledger.directory.store), HighWaterMarks(ledger.directory.marks)
        try:
            return {
                register: (
                    Checkpoint(f"{ORIGIN}/{register}", head.size, head.root),
                    marks.latest(f"{ORIGIN}/{register}"),
                )
                for register, head in store.heads().items()
            }
        finally:
            marks.close()
            store.close()


@contextmanager
def sealed_ledger(root: Path, registers: Sequence[str] = (REGISTER,)) -> Iterator[SealedLedger]:
    """Make a ledger below `root`, of these registers, and two witnesses that cosign it."""
    ledger = make_ledger(root / "ledger", registers)
    vkey = str(read_public_key(public_path(ledger.directory.log_key)))
    made = {name: make_witness(root / f"witness-{name}", f"{name}.example/w") for name in NAMES}
    it = SealedLedger(root, ledger, made)
    try:
        for name in NAMES:
            made[name].add_ledger(vkey)
            it.start(name)
        witnesses = [Witness(name, made[name].key, it.running[name].url) for name in NAMES]
        text = policy_text(ledger, witnesses)
        request = publishing(text)
        with embedded(ledger.directory) as opened:
            asyncio.run(register_once(opened, request.body, request.records, request.signatures))
        it.ledger = replace(ledger, policy=Policy.parse(text.encode()))
        yield it
    finally:
        it.close()


def backed_up(path: Path, backup: Path) -> None:
    """Copy a directory, as a backup does."""
    shutil.copytree(path, backup)


def restored(path: Path, backup: Path) -> None:
    """Put a directory back to what it was when it was copied."""
    shutil.rmtree(path)
    shutil.copytree(backup, path)

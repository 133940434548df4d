"""Two real witnesses of the ledgers of `tests.support.ledgers`, each a process of its own."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Final

from ledger.witnessing import Policy, Witness
from tests.support.ledgers import vkey
from tests.support.postgres_ledger import policy_asking
from tests.support.witness_process import MadeWitness, RunningWitness, make_witness, witnessing

NAMES: Final = ("one", "two")


class Witnesses:
    """Two real witnesses, which a test may stop and start at the same addresses."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self._stack = stack
        self.made: dict[str, MadeWitness] = {}
        self.running: dict[str, RunningWitness] = {}
        self._addresses: dict[str, str] = {}
        for name in NAMES:
            made = self.made[name] = make_witness(root / f"witness-{name}", f"{name}.example/w")
            made.add_ledger(str(vkey("governing")))
            self.start(name)

    def start(self, name: str) -> None:
        """Serve a witness, always at the address where it was first."""
        listen = self._addresses.get(name, "127.0.0.1:0")
        serving = witnessing(self.made[name].directory, "--listen", listen)
        self.running[name] = self._stack.enter_context(serving)
        self._addresses[name] = self.running[name].http

    def kill(self, name: str) -> None:
        """End a witness with SIGKILL."""
        self.running.pop(name).kill()

    @property
    def policy(self) -> Policy:
        """The policy that wants both."""
        return policy_asking(
            Witness(name, self.made[name].key, f"http://{self._addresses[name]}") for name in NAMES
        )

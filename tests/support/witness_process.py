"""A real witness in a directory, and its real server: what a ledger, a monitor or a foreign client talks to."""

from __future__ import annotations

import hashlib
import http.client
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger.add_checkpoint import AddCheckpoint
from ledger.notes import VerifierKey
from tests.support.command import run, run_json
from tests.support.server_process import DAYBOOK

ANY_PORT: Final = ("--listen", "127.0.0.1:0")
"""Options for any free port."""

_READY: Final = re.compile(r"daybook witness ready name=(\S+) http=(\S+)\n")


class WitnessNotServingError(Exception):
    """The server ended before it was ready: `status` is its exit status, `errors` what it said."""

    def __init__(self, status: int, errors: str) -> None:
        super().__init__(f"daybook witness serve ended with status {status}: {errors}")
        self.status = status
        self.errors = errors


@dataclass(frozen=True, slots=True)
class MadeWitness:
    """A witness's directory, and the vkey line (type 0x04) for policies."""

    directory: Path
    vkey: str

    @property
    def key(self) -> VerifierKey:
        """The key that verifies its cosignatures."""
        return VerifierKey.parse(self.vkey)

    def add_ledger(self, vkey: str) -> None:
        """Accept a ledger by its governing vkey, or one log by its own; also while the witness is served."""
        run("witness", "add-ledger", self.directory, "--vkey", vkey)

    def add_policy(self, policy: Path) -> None:
        """Accept the ledgers of a witness policy file; also while the witness is served."""
        run("witness", "add-ledger", self.directory, "--policy", policy)


@dataclass(frozen=True, slots=True)
class RunningWitness:
    """A witness's server. `http` is HOST:PORT; its stderr goes to the file `log`."""

    process: subprocess.Popen[str]
    name: str
    http: str
    log: Path

    @property
    def url(self) -> str:
        """The submission prefix, as it stands in a policy file; it is the monitoring prefix as well."""
        return f"http://{self.http}"

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    def errors(self) -> str:
        """Return what it has written to stderr so far."""
        return self.log.read_text(encoding="utf-8")

    def terminate(self) -> int:
        """Send SIGTERM, wait, and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        """End it with SIGKILL: nothing of it runs any more on return."""
        self.process.kill()
        self.process.wait(60)


def make_witness(root: Path, name: str) -> MadeWitness:
    """Make a witness in the directory `root`, which is not there yet. It accepts no ledger so far."""
    return MadeWitness(root, run_json("witness", "keygen", root, "--name", name)["vkey"])


@dataclass(frozen=True, slots=True)
class Answer:
    """How a server answered. `content_type` is the header, verbatim."""

    status: int
    content_type: str | None
    body: bytes


def call(address: str, method: str, path: str, body: bytes | None = None) -> Answer:
    """Make one HTTP request on a connection of its own."""
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return Answer(response.status, response.getheader("Content-Type"), response.read())
    finally:
        connection.close()


def ask(address: str, request: AddCheckpoint) -> Answer:
    """Ask a witness to cosign."""
    return call(address, "POST", "/add-checkpoint", request.data())


def latest(address: str, origin: str) -> Answer:
    """Ask a witness what it cosigned last for an origin."""
    return call(address, "GET", f"/{hashlib.sha256(origin.encode()).hexdigest()}/checkpoint")


@contextmanager
def witnessing(
    directory: Path, *options: str, log: Path | None = None, within: Sequence[str] = ()
) -> Iterator[RunningWitness]:
    """Serve a witness, by default at any free port of 127.0.0.1; at the end kill it if it still runs.

    Give ``--listen HOST:PORT`` to serve at the same address again. `log` takes its stderr, by default a file
    beside the directory. `within` is a command that runs it, such as nsenter. Raises WitnessNotServingError
    where it ends before it is ready.
    """
    errors = directory.with_name(f"{directory.name}.log") if log is None else log
    begin = errors.stat().st_size if errors.exists() else 0
    process = launch(directory, errors, *options, within=within)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = _READY.fullmatch(line)
        if found is None:
            said = line + process.stdout.read()
            raise WitnessNotServingError(process.wait(60), said + errors.read_text(encoding="utf-8")[begin:])
        yield RunningWitness(process, found[1], found[2], errors)
    finally:
        process.kill()
        process.wait(60)
        process.stdout.close()


def launch(directory: Path, log: Path, *options: str, within: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start the server's process and return at once. `log` takes its stderr, behind what is there."""
    with log.open("a", encoding="utf-8") as errors:
        return subprocess.Popen(
            [*within, DAYBOOK, "witness", "serve", str(directory), *(options or ANY_PORT)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )

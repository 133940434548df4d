"""A real `daybook serve` whose end is what a test is about: killed, stopped, or refusing to start.

`tests.support.server` serves while a test's body runs; here the way in and the way out are told apart.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest

DAYBOOK: Final = str(Path(sys.executable).with_name("daybook"))
"""The command that is installed beside this Python."""

ANY_PORT: Final = ("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0")
"""Options for any two free ports."""

PATIENCE: Final = 120.0
"""Seconds after which it is given up that the witnesses cosign everything."""

_READY: Final = re.compile(r"daybook ready origin=(\S+) grpc=(\S+) http=(\S+)\n")


class NotServingError(Exception):
    """The server ended before it was ready: `status` is its exit status, `errors` what it said."""

    def __init__(self, status: int, errors: str) -> None:
        super().__init__(f"daybook serve ended with status {status}: {errors}")
        self.status = status
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. `grpc` and `http` are HOST:PORT; its stderr goes to the file `log`."""

    process: subprocess.Popen[str]
    origin: str
    grpc: str
    http: str
    log: Path

    def errors(self) -> str:
        """Return what it has written to stderr so far."""
        return self.log.read_text(encoding="utf-8")

    def ask_to_stop(self) -> None:
        """Send SIGTERM, as an operator does, and return at once."""
        self.process.send_signal(signal.SIGTERM)

    def terminate(self) -> int:
        """Send SIGTERM, wait, and return the exit status."""
        self.ask_to_stop()
        return self.wait()

    def kill(self) -> None:
        """End it with SIGKILL: nothing of it runs any more on return."""
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        """Wait until it ends, and return its exit status."""
        return self.process.wait(60)


def launch(
    directory: Path, log: Path, options: Sequence[str] = ANY_PORT, *, within: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Start the process and return at once. `within` is a command that runs it, such as nsenter.

    `log` takes its stderr; a file that is there is written on.
    """
    with log.open("a", encoding="utf-8") as errors:
        return subprocess.Popen(
            [*within, DAYBOOK, "serve", str(directory), *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


def start(
    directory: Path, log: Path, options: Sequence[str] = ANY_PORT, *, within: Sequence[str] = ()
) -> Server:
    """Start a server and wait for its ready line. Raises NotServingError where it ends instead."""
    begin = log.stat().st_size if log.exists() else 0
    process = launch(directory, log, options, within=within)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = _READY.fullmatch(line)
    if found is None:
        said = line + process.stdout.read()
        process.stdout.close()
        raise NotServingError(process.wait(60), said + log.read_text(encoding="utf-8")[begin:])
    origin, grpc, http = found.groups()
    return Server(process, origin, grpc, http, log)


@contextmanager
def running(
    directory: Path, log: Path, options: Sequence[str] = ANY_PORT, *, within: Sequence[str] = ()
) -> Iterator[Server]:
    """Start a server, and at the end kill it if it still runs."""
    server = start(directory, log, options, within=within)
    try:
        yield server
    finally:
        server.kill()
        assert server.process.stdout is not None
        server.process.stdout.close()


def leave_sealed(directory: Path, log: Path) -> None:
    """Serve a ledger until all of it is sealed, and kill the server: a stop waits for that only so long."""
    with pytest.MonkeyPatch.context() as patched:
        # An anchor would be one more entry to be sealed.
        patched.setenv("DAYBOOK_ANCHOR_SECONDS", "86400")
        with running(directory, log) as server:
            end = time.monotonic() + PATIENCE
            while not httpx.get(f"http://{server.http}/readyz", timeout=60).json()["witnesses"]["quorum_met"]:
                assert time.monotonic() < end, f"not sealed in {PATIENCE:.0f} s"
                time.sleep(0.05)


def refusal(directory: Path, log: Path, options: Sequence[str] = ANY_PORT) -> NotServingError:
    """Return how a server ended that must not come to serve at all. What it said has stdout before stderr."""
    with pytest.raises(NotServingError) as refused, running(directory, log, options):
        pass
    return refused.value


def assert_fsck_finds_nothing(root: Path) -> None:
    """Check a whole ledger that nobody serves, with the command."""
    command = [DAYBOOK, "fsck", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

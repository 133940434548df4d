"""The real `daybook` as a child process: commands that end, and a server that is stopped by its pid.

    ledger = make_ledger(tmp_path)
    with serving(ledger.directory) as server:
        daybook("register", "--server", server.grpc, …)

Where the end of the server is what a test is about, see `tests.support.server_process`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.records import DEPARTMENT, LEDGER_ORIGIN, REGISTER

ROOT = Path(__file__).resolve().parents[2]
STARTUP = 60.0
"""Seconds that a server may take to its ready line on a busy machine."""

_UNSYNCED = "import os, services.cli as cli; os.fsync = lambda _: None; cli.main()"

_READY = re.compile(r"daybook ready\b.*\bgrpc=(\S+) http=(\S+)")


def environment() -> dict[str, str]:
    """Return the environment of a child: this one, with the packages of this tree to import."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "protos" / "gen")])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "COLUMNS": "200"}


def command_line(*arguments: str | Path) -> list[str]:
    """Return the command line of `daybook` with these arguments."""
    return [sys.executable, "-m", "services.cli", *map(str, arguments)]


def daybook(
    *arguments: str | Path, status: int = 0, cwd: Path | None = None, unsynced: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `daybook` to its end, and assert its exit status.

    `unsynced` has it not wait for the disk: where it writes hundreds of files, and nobody cuts the power.
    """
    line = [sys.executable, "-c", _UNSYNCED, *map(str, arguments)] if unsynced else command_line(*arguments)
    done = subprocess.run(
        line,
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == status, f"exit {done.returncode}, not {status}\n{done.stdout}\n{done.stderr}"
    return done


@dataclass(frozen=True, slots=True)
class MadeLedger:
    """A ledger on disk with one register open and one department key authorised.

    `key` is the department's secret key file, `policy` the policy file that it holds.
    """

    directory: Path
    key: Path
    policy: Path

    @property
    def origin(self) -> str:
        """The origin of the register."""
        return f"{LEDGER_ORIGIN}/{REGISTER}"


def make_ledger(root: Path) -> MadeLedger:
    """Make a ledger below `root` with the real commands, as a reader of the README would."""
    made = MadeLedger(root / "ledger", root / "department", root / "policy")
    daybook("init", made.directory, "--origin", LEDGER_ORIGIN)
    daybook("govern", made.directory, "open-register", REGISTER, "--title", "Secretary of State")
    daybook("keygen", made.key, "--name", "department")
    daybook(
        *("govern", made.directory, "authorise-key", DEPARTMENT, "--label", "test"),
        *("--public-key", f"{made.key}.pub", "--proof", made.key),
    )
    made.policy.write_text(daybook("policy", made.directory).stdout, encoding="utf-8")
    return made


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its addresses, HOST:PORT, and its process."""

    grpc: str
    http: str
    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        """The process id, for whoever wants to kill it."""
        return self.process.pid

    def stop(self) -> int:
        """Ask it to stop by SIGTERM, wait, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=STARTUP)


def start(directory: Path, *options: str) -> Server:
    """Start `daybook serve` on any free ports, and return once it has printed its ready line."""
    arguments: Sequence[str | Path] = ("serve", directory, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0")
    log = directory / "serve.log"
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command_line(*arguments, *options),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    # Reading a line has no timeout of its own: a server that hangs is killed, and the line is then empty.
    watchdog = threading.Timer(STARTUP, process.kill)
    watchdog.start()
    try:
        line = process.stdout.readline()
    finally:
        watchdog.cancel()
    found = _READY.search(line)
    if found is None:
        process.kill()
        process.wait()
        process.stdout.close()
        raise AssertionError(f"no ready line, but {line!r}\n{log.read_text(encoding='utf-8')}")
    return Server(found[1], found[2], process)


@contextmanager
def serving(directory: Path, *options: str) -> Iterator[Server]:
    """Serve a ledger while the body runs; stop it gracefully, and assert that it ended well."""
    server = start(directory, *options)
    try:
        yield server
    except BaseException:
        server.process.kill()
        server.process.wait()
        raise
    else:
        if server.process.poll() is None:
            assert server.stop() == 0
    finally:
        if server.process.stdout is not None:
            server.process.stdout.close()

"""The steps that the demos share: each is the command that a person would type."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from services.demo import curated

ORIGIN: Final = "demo.daybook.example"
WITNESSES: Final = ("regulator", "archive")
ANCHOR_SECONDS: Final = 1.0
"""Seconds between two anchors: fewer than by default, so that nobody has to wait."""

SHOWN: Final = "R12"
"""The row of the data that is looked at closely."""


class DemoError(Exception):
    """A step did not end as it must."""


def start_witnesses(folder: Path, running: ExitStack) -> None:
    """Start the witnesses, and publish the policy that asks for both."""
    (folder / "own.policy").write_text(daybook(folder, "policy", "ledger", quiet=True), encoding="utf-8")
    asked = []
    for name in WITNESSES:
        daybook(folder, "witness", "keygen", name, "--name", f"{name}.example/witness")
        daybook(folder, "witness", "add-ledger", name, "--policy", "own.policy", quiet=True)
        witness = running.enter_context(
            serving("witness", "serve", str(folder / name), "--listen", "127.0.0.1:0", "--json")
        )
        asked += ["--witness", f"{name}/key.pub=http://{witness['http']}"]
    text = daybook(folder, "policy", "ledger", *asked, "--quorum", "all")
    (folder / "witnesses").write_text(text, encoding="utf-8")
    daybook(
        folder,
        *("govern", "ledger", "publish-policy", "witnesses", "--kind", "witness", "--name", "witnesses"),
    )


def registering(
    server: Mapping[str, str], register: str, departments: Mapping[str, str], path: str
) -> tuple[str, ...]:
    """Return the command that registers a file of records."""
    key = departments[register.partition("/")[0]]
    return (
        *("register", "--server", server["grpc"], "--register", register, "--policy", "policy"),
        *("--key", key, "--receipts", "receipts", path),
    )


def open_registers(folder: Path) -> dict[str, str]:
    """Open the registers that the data needs, and authorise one key for each department."""
    keys: dict[str, str] = {}
    for register in curated.registers():
        daybook(folder, "govern", "ledger", "open-register", register.name, "--title", register.title)
        department = register.name.partition("/")[0]
        if department not in keys:
            key = keys[department] = f"{department}.key"
            daybook(folder, "keygen", key, "--name", department, quiet=True)
            daybook(
                folder,
                *("govern", "ledger", "authorise-key", department, "--label", "demo"),
                *("--public-key", f"{key}.pub", "--proof", key),
            )
    return keys


def write_records(folder: Path) -> dict[str, str]:
    """Write the curated records as one file for each register; return the files by register."""
    by_register: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in curated.registered():
        by_register[row.register].append(row.record)
    files = {}
    for number, (register, records) in enumerate(by_register.items(), 1):
        files[register] = f"decisions-{number}.ndjson"
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        (folder / files[register]).write_text(lines, encoding="utf-8")
    return files


def verify_all(folder: Path, receipts: Sequence[Path]) -> None:
    """Verify every receipt, and say so."""
    expected = len(curated.registered())
    if len(receipts) != expected:
        raise DemoError(f"{len(receipts)} receipts for {expected} records")
    for receipt in receipts:
        daybook(folder, "verify", below(folder, receipt), "--policy", "policy", quiet=True)
    print(f"All {len(receipts)} receipts verify. One of them, row {SHOWN} of the award notices:")


@contextmanager
def serving(
    *arguments: str, settings: Mapping[str, str] | None = None, log: Path | None = None
) -> Iterator[Mapping[str, str]]:
    """Run a server with DAYBOOK_ `settings`, yield what it says when it is ready, and stop it.

    What it logs goes to the file `log`, or is shown.
    """
    environment = {**os.environ, "DAYBOOK_ANCHOR_SECONDS": str(ANCHOR_SECONDS), **(settings or {})}
    wanted = command(*arguments)
    with (
        ExitStack() as files,
        subprocess.Popen(  # noqa: S603 - the project's own command
            wanted,
            stdout=subprocess.PIPE,
            stderr=files.enter_context(log.open("w")) if log else None,
            text=True,
            env=environment,
        ) as process,
    ):
        assert process.stdout is not None  # noqa: S101 - it was asked for
        line = process.stdout.readline()
        if not line:
            said = log.read_text(encoding="utf-8") if log else ""
            raise DemoError(f"daybook {arguments[0]} ended with status {process.wait()}: {said}")
        try:
            yield json.loads(line)
        finally:
            process.send_signal(signal.SIGTERM)
            if process.wait() != 0:
                raise DemoError(f"daybook {arguments[0]} stopped with status {process.returncode}")


def daybook(
    folder: Path,
    *arguments: str,
    status: int = 0,
    quiet: bool = False,
    settings: Mapping[str, str] | None = None,
) -> str:
    """Run one command in the demo's folder, shown unless `quiet`; return what it printed."""
    if not quiet:
        print(f"\n$ daybook {shlex.join(arguments)}", flush=True)
    done = subprocess.run(  # noqa: S603 - the project's own command
        command(*arguments),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(settings or {})},
    )
    if not quiet or done.returncode != status:
        print((done.stdout + done.stderr).rstrip(), flush=True)
    if done.returncode != status:
        raise DemoError(f"daybook {arguments[0]} ended with status {done.returncode}, not {status}")
    return done.stdout


def command(*arguments: str) -> list[str]:
    """Return the command line of `daybook` with these arguments."""
    return [sys.executable, "-m", "services.cli", *arguments]


def below(folder: Path, path: Path) -> str:
    """Return a path as a person in the demo's folder would type it."""
    return str(path.relative_to(folder))


def say(text: str) -> None:
    """Print what comes next."""
    print(f"\n== {text}", flush=True)

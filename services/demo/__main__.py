"""`make demo`: a real ledger, two witnesses, real published decisions, receipts, and attempts to cheat.

Every step is the command that a person would type; each is printed before it runs. Everything lies in a
temporary directory, and the server listens on this computer only.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
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

_SHOWN: Final = "R12"
_ANCHORED_WITHIN: Final = 60.0


class DemoError(Exception):
    """A step did not end as it must."""


def main() -> int:
    """Run the demo; return 0 when every step ended as it must."""
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="daybook-demo-") as folder:
            _run(Path(folder))
    except DemoError as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    print(f"\nDone in {time.monotonic() - began:.0f} s: every step ended as it must.")
    return 0


def _run(folder: Path) -> None:
    ledger, policy = folder / "ledger", folder / "policy"
    _say("1. A new ledger. Its governing register says who may write where; nothing else does.")
    _daybook(folder, "init", "ledger", "--origin", ORIGIN, "--operator", "The demo")
    _say("2. Two witnesses, each with its own key and its own memory. Both must have seen a checkpoint.")
    with ExitStack() as running:
        _witnessed(folder, running)
        departments = _open_registers(folder)
        policy.write_text(_daybook(folder, "policy", "ledger", quiet=True), encoding="utf-8")
        _say("3. The policy file: the keys that a verifier must hold. Compare its fingerprint by another way.")
        _daybook(folder, "policy", "show", "policy")
        shutil.copytree(ledger, folder / "older")
        with _served(ledger) as server:
            _register(folder, server, departments)
            shown = _anchored(folder, server)
            _say("7. Anybody may follow the ledger from outside, and derive every root again.")
            url = f"http://{server['http']}"
            _daybook(folder, "monitor", url, "--policy", "policy", "--state", "monitor", "--once")
        _say("8. The operator puts an older copy of the ledger in its place, from before these records.")
        print("A witness remembers more, and refuses. Both notes are signed by the ledger: they are the proof.")
        _daybook(folder, "serve", "older", *_ANY_PORT, status=1)
    _say("9. All servers are stopped. From here on: receipts, the policy file, no network.")
    receipts = sorted(folder.glob("receipts/**/*.receipt"))
    _verify_all(folder, receipts)
    verified = _daybook(folder, "verify", _below(folder, shown), "--policy", "policy")
    if not all(word in verified for word in ("By when", "and not before", "Anchored")):
        raise DemoError("the receipt does not prove its time")
    _change_a_byte(folder, shown)
    _say("11. fsck derives the whole ledger again from its entries, and compares.")
    _daybook(folder, "fsck", "ledger")
    _list_context()
    print(
        "\nWhat was proved: these records stand in registers whose history two independent witnesses have "
        "seen, between\ntwo times that neither department nor operator could move; and one number, the "
        "governing root, commits to\nall of it. What was not: that what the records say is true, and that "
        "everything was registered."
    )


def _witnessed(folder: Path, running: ExitStack) -> None:
    """Start the witnesses, and publish the policy that asks for both."""
    (folder / "own.policy").write_text(_daybook(folder, "policy", "ledger", quiet=True), encoding="utf-8")
    asked = []
    for name in WITNESSES:
        _daybook(folder, "witness", "keygen", name, "--name", f"{name}.example/witness")
        _daybook(folder, "witness", "add-ledger", name, "--policy", "own.policy", quiet=True)
        witness = running.enter_context(
            _process("witness", "serve", str(folder / name), "--listen", "127.0.0.1:0", "--json")
        )
        asked += ["--witness", f"{name}/key.pub=http://{witness['http']}"]
    text = _daybook(folder, "policy", "ledger", *asked, "--quorum", "all")
    (folder / "witnesses").write_text(text, encoding="utf-8")
    _daybook(
        folder,
        *("govern", "ledger", "publish-policy", "witnesses", "--kind", "witness", "--name", "witnesses"),
    )


def _register(folder: Path, server: Mapping[str, str], departments: Mapping[str, str]) -> None:
    _say(f"4. A server on {server['grpc']}. The departments sign and register; each answer is verified.")
    files = _write_records(folder)
    for register, path in files.items():
        _daybook(folder, *_registering(server, register, departments, path))
    _say("5. The same again: what has its receipt is passed over, and nothing is registered twice.")
    register, path = next(iter(files.items()))
    _daybook(folder, *_registering(server, register, departments, path))


def _registering(
    server: Mapping[str, str], register: str, departments: Mapping[str, str], path: str
) -> tuple[str, ...]:
    key = departments[register.partition("/")[0]]
    return (
        *("register", "--server", server["grpc"], "--register", register, "--policy", "policy"),
        *("--key", key, "--receipts", "receipts", path),
    )


def _anchored(folder: Path, server: Mapping[str, str]) -> Path:
    """Fetch the shown record's receipt again until its register is anchored; return its file."""
    _say("6. The registers are anchored in the governing register; a receipt fetched now shows that too.")
    row = next(each for each in curated.registered() if each.row == _SHOWN)
    command = (
        *("receipt", "--server", server["grpc"], "--register", row.register, "--policy", "policy"),
        *("--receipts", "receipts", "--record", row.record["record_id"]),
    )
    end = time.monotonic() + _ANCHORED_WITHIN
    while not json.loads(_daybook(folder, *command, "--json", quiet=True))["anchored"]:
        if time.monotonic() > end:
            raise DemoError("the register is not anchored")
        time.sleep(ANCHOR_SECONDS / 2)
    _daybook(folder, *command)
    return _receipt_of(_SHOWN, sorted(folder.glob("receipts/**/*.receipt")))


def _open_registers(folder: Path) -> dict[str, str]:
    """Open the registers that the data needs, and authorise one key for each department."""
    keys: dict[str, str] = {}
    for register in curated.registers():
        _daybook(folder, "govern", "ledger", "open-register", register.name, "--title", register.title)
        department = register.name.partition("/")[0]
        if department not in keys:
            key = keys[department] = f"{department}.key"
            _daybook(folder, "keygen", key, "--name", department, quiet=True)
            _daybook(
                folder,
                *("govern", "ledger", "authorise-key", department, "--label", "demo"),
                *("--public-key", f"{key}.pub", "--proof", key),
            )
    return keys


def _write_records(folder: Path) -> dict[str, str]:
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


def _verify_all(folder: Path, receipts: Sequence[Path]) -> None:
    expected = len(curated.registered())
    if len(receipts) != expected:
        raise DemoError(f"{len(receipts)} receipts for {expected} records")
    for receipt in receipts:
        _daybook(folder, "verify", _below(folder, receipt), "--policy", "policy", quiet=True)
    print(f"All {len(receipts)} receipts verify. One of them, row {_SHOWN} of the award notices:")


def _receipt_of(row: str, receipts: Sequence[Path]) -> Path:
    record_id = next(each.record["record_id"] for each in curated.registered() if each.row == row)
    return next(path for path in receipts if path.name.startswith(record_id))


def _change_a_byte(folder: Path, receipt: Path) -> None:
    _say("10. One byte of it is changed: the amount, by one pound. It must be caught.")
    data = receipt.read_bytes()
    amount = b'"amount":"91970816.79"'
    if data.count(amount) != 1:
        raise DemoError("the amount is not where it was")
    changed = folder / "changed.receipt"
    changed.write_bytes(data.replace(amount, b'"amount":"91970815.79"'))
    _daybook(folder, "verify", changed.name, "--policy", "policy", status=1)
    print("Caught: exit status 1.")


def _list_context() -> None:
    _say("12. What was not registered, and why.")
    for row in curated.context():
        print(f"  {row.row}: {row.description}\n       {row.reason}")


_ANY_PORT: Final = ("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0")


@contextmanager
def _served(ledger: Path) -> Iterator[Mapping[str, str]]:
    with _process("serve", str(ledger), *_ANY_PORT, "--json") as server:
        yield server


@contextmanager
def _process(*arguments: str) -> Iterator[Mapping[str, str]]:
    """Run a server, yield what it says when it is ready, and stop it."""
    environment = {**os.environ, "DAYBOOK_ANCHOR_SECONDS": str(ANCHOR_SECONDS)}
    command = _command(*arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:  # noqa: S603
        assert process.stdout is not None  # noqa: S101 - it was asked for
        line = process.stdout.readline()
        if not line:
            raise DemoError(f"the server ended with status {process.wait()}")
        try:
            yield json.loads(line)
        finally:
            process.send_signal(signal.SIGTERM)
            if process.wait() != 0:
                raise DemoError(f"the server stopped with status {process.returncode}")


def _daybook(folder: Path, *arguments: str, status: int = 0, quiet: bool = False) -> str:
    """Run one command in the demo's folder, shown unless `quiet`; return what it printed."""
    if not quiet:
        print(f"\n$ daybook {shlex.join(arguments)}", flush=True)
    done = subprocess.run(  # noqa: S603 - the project's own command
        _command(*arguments), cwd=folder, capture_output=True, text=True, check=False
    )
    if not quiet or done.returncode != status:
        print((done.stdout + done.stderr).rstrip(), flush=True)
    if done.returncode != status:
        raise DemoError(f"daybook {arguments[0]} ended with status {done.returncode}, not {status}")
    return done.stdout


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "services.cli", *arguments]


def _below(folder: Path, path: Path) -> str:
    return str(path.relative_to(folder))


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

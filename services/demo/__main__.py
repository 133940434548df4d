"""`make demo`: a real ledger, real published decisions, receipts, and what a changed byte does.

Every step is the command that a person would type; each is printed before it runs. Everything lies in a
temporary directory, and the server listens on this computer only.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from services.demo import curated

ORIGIN: Final = "demo.daybook.example"
_SHOWN: Final = "R12"


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
    departments = _open_registers(folder)
    policy.write_text(_daybook(folder, "policy", "ledger", quiet=True), encoding="utf-8")
    _say("2. The policy file: the one key that a verifier must hold. Compare its fingerprint by another way.")
    _daybook(folder, "policy", "show", "policy")
    with _served(ledger) as server:
        _say(f"3. A server on {server['grpc']}. The departments sign and register; each answer is verified.")
        files = _write_records(folder)
        for register, path in files.items():
            department = register.partition("/")[0]
            _daybook(
                folder,
                *("register", "--server", server["grpc"], "--register", register, "--policy", "policy"),
                *("--key", departments[department], "--receipts", "receipts", path),
            )
        _say("4. The same again: what has its receipt is passed over, and nothing is registered twice.")
        register, path = next(iter(files.items()))
        _daybook(
            folder,
            *("register", "--server", server["grpc"], "--register", register, "--policy", "policy"),
            *("--key", departments[register.partition("/")[0]], "--receipts", "receipts", path),
        )
    _say("5. The server is stopped. From here on: receipts, the policy file, no network.")
    receipts = sorted(folder.glob("receipts/**/*.receipt"))
    _verify_all(folder, receipts)
    shown = _receipt_of(_SHOWN, receipts)
    _daybook(folder, "verify", _below(folder, shown), "--policy", "policy")
    _change_a_byte(folder, shown)
    _say("7. fsck derives the whole ledger again from its entries, and compares.")
    _daybook(folder, "fsck", "ledger")
    _list_context()
    print(
        "\nWhat was proved: these records stand in registers of a ledger that its log key has signed, "
        "unchanged since.\nWhat was not: that a witness has seen them (this ledger has none), and that "
        "everything was registered."
    )


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
    _say("6. One byte of it is changed: the amount, by one pound. It must be caught.")
    data = receipt.read_bytes()
    amount = b'"amount":"91970816.79"'
    if data.count(amount) != 1:
        raise DemoError("the amount is not where it was")
    changed = folder / "changed.receipt"
    changed.write_bytes(data.replace(amount, b'"amount":"91970815.79"'))
    _daybook(folder, "verify", changed.name, "--policy", "policy", status=1)
    print("Caught: exit status 1.")


def _list_context() -> None:
    _say("8. What was not registered, and why.")
    for row in curated.context():
        print(f"  {row.row}: {row.description}\n       {row.reason}")


@contextmanager
def _served(ledger: Path) -> Iterator[Mapping[str, str]]:
    command = _command("serve", str(ledger), "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
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

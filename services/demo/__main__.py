"""`make demo`: a real ledger, two witnesses, real published decisions, receipts, and attempts to cheat.

Every step is the command that a person would type; each is printed before it runs. Everything lies in a
temporary directory, and the server listens on this computer only.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from services.demo import curated
from services.demo.steps import (
    ANCHOR_SECONDS,
    ORIGIN,
    SHOWN,
    DemoError,
    below,
    daybook,
    open_registers,
    registering,
    say,
    serving,
    start_witnesses,
    verify_all,
    write_records,
)

_ANCHORED_WITHIN: Final = 60.0


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
    say("1. A new ledger. Its governing register says who may write where; nothing else does.")
    daybook(folder, "init", "ledger", "--origin", ORIGIN, "--operator", "The demo")
    say("2. Two witnesses, each with its own key and its own memory. Both must have seen a checkpoint.")
    with ExitStack() as running:
        start_witnesses(folder, running)
        departments = open_registers(folder)
        policy.write_text(daybook(folder, "policy", "ledger", quiet=True), encoding="utf-8")
        say("3. The policy file: the keys that a verifier must hold. Compare its fingerprint by another way.")
        daybook(folder, "policy", "show", "policy")
        shutil.copytree(ledger, folder / "older")
        with serving("serve", str(ledger), *_ANY_PORT, "--json") as server:
            _register(folder, server, departments)
            shown = _anchored(folder, server)
            say("7. Anybody may follow the ledger from outside, and derive every root again.")
            url = f"http://{server['http']}"
            daybook(folder, "monitor", url, "--policy", "policy", "--state", "monitor", "--once")
            say("8. An auditor asks more: was anything added later, altered or deleted? What is odd?")
            daybook(folder, "audit", url, "--policy", "policy", "--state", "audit", "--report", "report.html")
        say("9. The operator puts an older copy of the ledger in its place, from before these records.")
        print("A witness remembers more, and refuses. Both notes are signed by the ledger: they are the proof.")
        daybook(folder, "serve", "older", *_ANY_PORT, status=1)
    say("10. All servers are stopped. From here on: receipts, the policy file, no network.")
    receipts = sorted(folder.glob("receipts/**/*.receipt"))
    verify_all(folder, receipts)
    verified = daybook(folder, "verify", below(folder, shown), "--policy", "policy")
    if not all(word in verified for word in ("By when", "and not before", "Anchored")):
        raise DemoError("the receipt does not prove its time")
    _change_a_byte(folder, shown)
    say("12. fsck derives the whole ledger again from its entries, and compares.")
    daybook(folder, "fsck", "ledger")
    say("13. Somebody who holds every key of the ledger lies in copies of it. What catches each lie?")
    daybook(folder, "drill", "ledger", "--receipts", "receipts", "--policy", "policy")
    _list_context()
    print(
        "\nWhat was proved: these records stand in registers whose history two independent witnesses have "
        "seen, between\ntwo times that neither department nor operator could move; and one number, the "
        "governing root, commits to\nall of it. What was not: that what the records say is true, and that "
        "everything was registered."
    )


def _register(folder: Path, server: Mapping[str, str], departments: Mapping[str, str]) -> None:
    say(f"4. A server on {server['grpc']}. The departments sign and register; each answer is verified.")
    files = write_records(folder)
    for register, path in files.items():
        daybook(folder, *registering(server, register, departments, path))
    say("5. The same again: what has its receipt is passed over, and nothing is registered twice.")
    register, path = next(iter(files.items()))
    daybook(folder, *registering(server, register, departments, path))


def _anchored(folder: Path, server: Mapping[str, str]) -> Path:
    """Fetch the shown record's receipt again until its register is anchored; return its file."""
    say("6. The registers are anchored in the governing register; a receipt fetched now shows that too.")
    row = next(each for each in curated.registered() if each.row == SHOWN)
    command = (
        *("receipt", "--server", server["grpc"], "--register", row.register, "--policy", "policy"),
        *("--receipts", "receipts", "--record", row.record["record_id"]),
    )
    end = time.monotonic() + _ANCHORED_WITHIN
    while not json.loads(daybook(folder, *command, "--json", quiet=True))["anchored"]:
        if time.monotonic() > end:
            raise DemoError("the register is not anchored")
        time.sleep(ANCHOR_SECONDS / 2)
    daybook(folder, *command)
    return _receipt_of(SHOWN, sorted(folder.glob("receipts/**/*.receipt")))


def _receipt_of(row: str, receipts: Sequence[Path]) -> Path:
    record_id = next(each.record["record_id"] for each in curated.registered() if each.row == row)
    return next(path for path in receipts if path.name.startswith(record_id))


def _change_a_byte(folder: Path, receipt: Path) -> None:
    say("11. One byte of it is changed: the amount, by one pound. It must be caught.")
    data = receipt.read_bytes()
    amount = b'"amount":"91970816.79"'
    if data.count(amount) != 1:
        raise DemoError("the amount is not where it was")
    changed = folder / "changed.receipt"
    changed.write_bytes(data.replace(amount, b'"amount":"91970815.79"'))
    daybook(folder, "verify", changed.name, "--policy", "policy", status=1)
    print("Caught: exit status 1.")


def _list_context() -> None:
    say("14. What was not registered, and why.")
    for row in curated.context():
        print(f"  {row.row}: {row.description}\n       {row.reason}")


_ANY_PORT: Final = ("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0")


if __name__ == "__main__":
    sys.exit(main())

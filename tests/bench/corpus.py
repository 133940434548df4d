"""What the benchmarks register: decisions of a fictional department, about 500 bytes each, signed."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from services.client.signing import SignedSubmission, sign_submission
from tests.support.ledger_dir import LedgerOnDisk, make_ledger
from tests.support.ledgers import DEPARTMENT_KEY, ORIGIN, REGISTER
from tests.support.records import decision_bytes

_numbers: Final = itertools.count(1)


def records(count: int) -> list[bytes]:
    """Return canonical records with random record_ids, numbered on and on."""
    return [
        decision_bytes(
            register=REGISTER,
            record_id=str(uuid.uuid4()),
            reference={"number": next(_numbers), "series": "MD/2026"},
        )
        for _ in range(count)
    ]


def submission(size: int) -> SignedSubmission:
    """Return a signed submission of `size` fresh records."""
    return sign_submission(records(size), f"{ORIGIN}/{REGISTER}", [DEPARTMENT_KEY])


@asynccontextmanager
async def fresh_ledger() -> AsyncIterator[LedgerOnDisk]:
    """Make a ledger with one register and one key; it is removed again."""
    with tempfile.TemporaryDirectory(prefix="daybook-bench-") as folder:
        yield await asyncio.to_thread(make_ledger, Path(folder) / "ledger")


@contextmanager
def serving(root: Path) -> Iterator[tuple[str, int]]:
    """Serve a ledger in a process of its own; yield its gRPC address and its pid."""
    command = [sys.executable, "-m", "services.cli", "serve", str(root), "--json"]
    with subprocess.Popen(
        [*command, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["grpc"], process.pid
        finally:
            process.terminate()

"""Sealing, by a real server and two real witnesses, each in a process of its own: (g) sequenced to sealed."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
from daybook.audit.v1 import audit_service_pb2 as audit
from daybook.audit.v1 import audit_service_pb2_grpc as audit_rpc
from daybook.registration.v1 import registration_service_pb2 as registration
from daybook.registration.v1 import registration_service_pb2_grpc as registration_rpc
from daybook.submission.v1 import submission_pb2

from ledger.witnessing import Policy
from services.client.channels import open_channel
from services.client.client import connect, message_of
from services.compose import register_locally
from tests.bench.corpus import fresh_ledger, serving, submission
from tests.bench.floors import one_row_commits
from tests.bench.measure import Measure, middle
from tests.bench.witnessing import echo_server
from tests.support.ledger_dir import LedgerOnDisk, governing
from tests.support.ledgers import DEPARTMENT_KEY, REGISTER
from tests.support.witness_process import make_witness, witnessing

COUNT = 300
WARM_UP = 20
ROUNDS = 3
TARGET = 6.0


@asynccontextmanager
async def witnessed_ledger() -> AsyncIterator[tuple[LedgerOnDisk, Policy]]:
    """Make a ledger that asks two witnesses, which run; both must cosign."""
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(fresh_ledger())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="daybook-bench-")))
        lines = [ledger.policy.text().decode().replace("quorum none\n", "")]
        for name in ("one", "two"):
            made = make_witness(folder / name, f"{name}.example/w")
            made.add_ledger(str(ledger.policy.logs[0].key))
            running = stack.enter_context(witnessing(made.directory))
            lines.append(f"witness {name} {made.vkey} {running.url}\n")
        policy = Policy.parse("".join([*lines, "group both all one two\nquorum both\n"]).encode())
        asked = governing(
            "policy.published/1",
            kind="witness",
            name="witnesses",
            text=policy.text().decode(),
            effective_from="2026-01-01T00:00Z",
        )
        await asyncio.to_thread(register_locally, ledger.root, asked.body, asked.records, asked.signatures)
        yield ledger, policy


async def run() -> list[Measure]:
    """Run the measure."""
    halves, tails, floors = [], [], []
    for _ in range(ROUNDS):
        async with witnessed_ledger() as (ledger, policy):
            waits = sorted((await _sealed_after(ledger, policy))[WARM_UP:])
        halves.append(middle(waits))
        tails.append(waits[len(waits) * 99 // 100])
        echoed = middle(await _echo_seconds())
        with tempfile.TemporaryDirectory(prefix="daybook-bench-") as folder:
            floors.append(echoed + middle(one_row_commits(Path(folder) / "raw", bytes(200), COUNT)))
    ratio, tail = (
        middle([one / floor for one, floor in zip(each, floors, strict=True)]) for each in (halves, tails)
    )
    name = f"sequenced to sealed by two witnesses, p50 (p99: ratio {tail:.1f})"
    value, floor = middle(halves) * 1e3, middle(floors) * 1e3
    return [Measure("g", name, value, floor, "ms", ratio, f"<= {TARGET:.0f}", ratio <= TARGET)]


async def _sealed_after(ledger: LedgerOnDisk, policy: Policy) -> list[float]:
    """Return the seconds from the answer SEQUENCED to the sealed checkpoint, for each of many lone records.

    The client verifies nothing here: its work would be done by the cores that the witnesses need.
    """
    requests = [
        registration.RegisterRequest(
            submission=message_of(submission(1)), wait_for=submission_pb2.WAIT_FOR_SEQUENCED
        )
        for _ in range(COUNT)
    ]
    with serving(ledger.root) as (address, _):
        async with (
            connect(address, policy=policy, register=REGISTER, key=DEPARTMENT_KEY) as client,
            open_channel(address, None) as channel,
        ):
            # The first is sealed only after the stored heads are confirmed.
            await client.submit(submission(1))
            register = registration_rpc.RegistrationServiceStub(channel).Register
            seen: asyncio.Queue[float] = asyncio.Queue()
            watching = asyncio.create_task(_watch(audit_rpc.AuditServiceStub(channel), seen))
            waits = []
            try:
                await seen.get()
                for request in requests:
                    await register(request, timeout=30)
                    sequenced = time.perf_counter()
                    waits.append(await seen.get() - sequenced)
            finally:
                watching.cancel()
            return waits


async def _watch(stub: audit_rpc.AuditServiceAsyncStub, seen: asyncio.Queue[float]) -> None:
    """Note when each sealed checkpoint arrives."""
    request = audit.WatchCheckpointsRequest(register=REGISTER, kind=audit.CHECKPOINT_KIND_SEALED)
    async for _ in stub.WatchCheckpoints(request):
        seen.put_nowait(time.perf_counter())


async def _echo_seconds() -> list[float]:
    """Return the seconds of each of many HTTP calls to a server that only echoes."""
    waits = []
    body = bytes(700)  # as long as a request with a proof of some hashes
    async with echo_server() as url, aiohttp.ClientSession() as session:
        for _ in range(COUNT):
            began = time.perf_counter()
            async with session.post(f"{url}/add-checkpoint", data=body) as response:
                await response.read()
            waits.append(time.perf_counter() - began)
    return waits[WARM_UP:]

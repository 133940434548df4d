"""The embedded server in the test's own process and event loop: real gRPC, real HTTP, and nothing out of reach.

    async with served(ledger.root) as it:
        await it.caller.register(submission)
        await it.get("/readyz")

Where the process itself is what a test is about, see `server_process`.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from daybook.audit.v1 import audit_service_pb2 as audit
from daybook.registration.v1 import registration_service_pb2 as pb
from daybook.submission.v1.submission_pb2 import Acknowledgement, WaitFor

from ledger.sealing import SealedCheckpoint
from services.client.client import message_of
from services.client.signing import SignedSubmission
from services.compose import Embedded, embedded
from services.ledger_files import LedgerDirectory
from services.published import Published
from services.serving import Addresses, Stop, serve
from services.settings import serve_settings
from tests.support.calling import GOVERNANCE_CALLS, SECONDS, Caller, calling
from tests.support.ledgers import REGISTER
from tests.support.witnessed import PATIENCE


@dataclass(frozen=True, slots=True)
class Served:
    """A running server. `serving` is its task."""

    opened: Embedded
    addresses: Addresses
    caller: Caller
    stop: Stop
    serving: asyncio.Task[None]

    @property
    def published(self) -> Published:
        """What the ledger shows."""
        return self.opened.published

    async def register(
        self,
        submission: SignedSubmission,
        wait_for: WaitFor.ValueType = WaitFor.WAIT_FOR_UNSPECIFIED,
        seconds: float = SECONDS,
    ) -> Acknowledgement:
        """Register a submission with a wait and a deadline."""
        request = pb.RegisterRequest(submission=message_of(submission), wait_for=wait_for)
        response: pb.RegisterResponse = await self.caller.registration.Register(request, timeout=seconds)
        return response.acknowledgement

    async def govern(
        self, call: str, submission: SignedSubmission, seconds: float = SECONDS
    ) -> Acknowledgement:
        """Make one governance call, which waits for the seal as long as it may."""
        request = GOVERNANCE_CALLS[call](submission=message_of(submission))
        response: Any = await getattr(self.caller.governance, call)(request, timeout=seconds)
        acknowledgement: Acknowledgement = response.acknowledgement
        return acknowledgement

    async def receipt(self, index: int, register: str = REGISTER) -> pb.GetReceiptResponse:
        """Ask for the receipt of an entry."""
        wanted = pb.GetReceiptRequest(register=register, index=index)
        response: pb.GetReceiptResponse = await self.caller.registration.GetReceipt(wanted)
        return response

    async def bounds(self, index: int, register: str = REGISTER) -> audit.GetTimeBoundsResponse:
        """Ask when an entry came in."""
        wanted = audit.GetTimeBoundsRequest(register=register, index=index)
        response: audit.GetTimeBoundsResponse = await self.caller.audit.GetTimeBounds(wanted)
        return response

    async def get(self, path: str) -> httpx.Response:
        """Make one HTTP request."""
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            return await client.get(f"http://{self.addresses.http}{path}")

    async def ready(self) -> dict[str, Any]:
        """Return what /readyz tells, with its `status`."""
        response = await self.get("/readyz")
        told: dict[str, Any] = response.json()
        return {**told, "status": response.status_code}

    def sealed_size(self, register: str = REGISTER) -> int | None:
        """Return the size of a register's latest sealed checkpoint."""
        sealed = self.published.sealed(register)
        return None if sealed is None else sealed.size

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so. Raises what has ended the server."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                if self.serving.done():
                    self.serving.result()
                await asyncio.sleep(0.002)

    async def until_all_sealed(self) -> None:
        """Wait until every register's latest checkpoint is sealed."""
        await self.until(
            lambda: all(
                self.sealed_size(register) == latest.size
                for register, latest in self.published.registers().items()
            )
        )

    async def until_anchored(self, size: int, register: str = REGISTER) -> None:
        """Wait until a register is anchored at a size, and the governing register sealed with that anchor."""
        await self.until(
            lambda: (
                (anchor := self.opened.ledger.anchors.latest(register)) is not None
                and anchor.size >= size
                and (self.sealed_size("governing") or 0) > anchor.index
            )
        )

    async def until_sealed(self, size: int, register: str = REGISTER) -> SealedCheckpoint:
        """Wait until a checkpoint of at least `size` entries is sealed."""

        def covered() -> bool:
            held = self.sealed_size(register)
            return held is not None and held >= size

        await self.until(covered)
        sealed = self.published.sealed(register)
        assert sealed is not None
        return sealed


@asynccontextmanager
async def served(root: Path, **settings: Any) -> AsyncIterator[Served]:
    """Serve a ledger's directory at any free ports while the block runs; then stop it as SIGTERM does.

    Raises what the server failed with, unless the test has waited for it.
    """
    stop = Stop()
    thresholds = gc.get_threshold()
    ready: asyncio.Future[Addresses] = asyncio.get_running_loop().create_future()
    given = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", **settings}
    try:
        with embedded(LedgerDirectory(root)) as opened:
            serving = asyncio.create_task(serve(opened, serve_settings(**given), ready.set_result, stop))
            either: set[asyncio.Future[Any]] = {serving, ready}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
            addresses = ready.result()
            async with calling(addresses.grpc) as caller:
                held = Served(opened, addresses, caller, stop, serving)
                try:
                    yield held
                finally:
                    failed = serving.done()
                    stop.asked.set()
                    await asyncio.wait({serving})
            if not failed:
                serving.result()
    finally:
        # The server sets the collector for itself; this process goes on.
        gc.unfreeze()
        gc.set_threshold(*thresholds)

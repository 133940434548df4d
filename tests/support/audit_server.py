"""A ledger that answers auditors over gRPC from a thread of its own, honestly or by a servicer that lies.

    with audit_server(held) as address: run("query", "--server", address, …)

`witnessed` gives a ledger witnesses, whose cosignatures are made here, at whatever times a test says.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc.aio
from daybook.audit.v1.audit_service_pb2_grpc import add_AuditServiceServicer_to_server
from prometheus_client import CollectorRegistry

from ledger.checkpoints import Checkpoint
from ledger.notes import split_note
from ledger.store import NewCosignatures, StoredNote
from ledger.witnessing import Policy, cosign
from services.audit import AuditServicer
from services.interceptors import CallInterceptor, CallMetrics
from services.published import Published
from services.time_bounds import BoundsProver, Timelines
from tests.support.ledgers import REGISTER, LedgerUnderTest
from tests.support.monitored import WITNESSED, WITNESSES


def witnessed(held: LedgerUnderTest, policy: Policy = WITNESSED) -> LedgerUnderTest:
    """Put a witness policy in force for a ledger under test. Nobody has cosigned anything yet."""
    published = Published(held.ledger.store, lambda: policy)
    published.add(held.published.registers())
    held.published = published
    return held


def seal(
    held: LedgerUnderTest, at: int, witnesses: Sequence[str] = ("one", "two"), register: str = REGISTER
) -> int:
    """Have a register's latest checkpoint cosigned at a POSIX second; return its size."""
    signed = held.published.latest(register)
    checkpoint = Checkpoint.parse(split_note(signed.note)[0])
    lines = [cosign(checkpoint, WITNESSES[name], at) for name in witnesses]
    stored = StoredNote(signed.size, signed.note)
    held.ledger.store.keep_cosignatures([NewCosignatures(register, stored, lines)])
    return signed.size


@contextmanager
def audit_server(held: LedgerUnderTest, servicer: type[AuditServicer] = AuditServicer) -> Iterator[str]:
    """Serve a ledger at a free port while the block runs; yields HOST:PORT."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        server, address = asyncio.run_coroutine_threadsafe(_start(held, servicer), loop).result()
        try:
            yield address
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start(held: LedgerUnderTest, servicer: type[AuditServicer]) -> tuple[grpc.aio.Server, str]:
    server = grpc.aio.server(interceptors=[CallInterceptor(CallMetrics(CollectorRegistry()))])
    bounds = BoundsProver(held.ledger, held.published, Timelines(held.published))
    answering = servicer(held.ledger, held.published, bounds, asyncio.Event())
    add_AuditServiceServicer_to_server(answering, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"

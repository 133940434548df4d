"""Calls that are begun and not finished, or not read: they cost the server little, and nobody else anything."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import psutil
import pytest
from daybook.audit.v1 import audit_service_pb2 as audit
from daybook.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from daybook.registration.v1 import registration_service_pb2 as pb
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services import receiving, registration
from services.client.errors import from_rpc_error
from services.descriptors import allow_descriptors
from services.grpc_server import MAX_CONNECTIONS
from services.receiving import MAX_RECEIVED, MAX_STREAMS
from services.registration import MAX_PREPARED
from tests.support.calling import SECONDS, calling
from tests.support.half_calls import half_calls
from tests.support.ledger_dir import LedgerOnDisk
from tests.support.ledgers import ORIGIN, REGISTER
from tests.support.served import Served, served
from tests.support.server_process import running

CODE = grpc.StatusCode
SERVICE: Final = "/daybook.registration.v1.RegistrationService"
WATCH: Final = "/grpc.health.v1.Health/Watch"
HEALTH = health_pb2.HealthCheckResponse

HALF: Final = 1_900_000
"""Bytes of each unfinished request."""
CALLS: Final = 400
MOST: Final = 400 * 1024 * 1024
"""Bytes that a server may grow by: what it receives at once, and a window of each other call."""

_STARTED: Final = re.compile(r'^grpc_server_started_total\{[^}]*"Register"[^}]*\} (\S+)$', re.MULTILINE)

KNOWN: Final = pb.GetSubmissionRequest(register=REGISTER, submission_id="0" * 64)


async def silent(it: Served, count: int) -> list[Any]:
    """Begin calls whose request never comes; return when the server has heard of all of them."""
    begin: Callable[..., Any] = it.caller.channel.stream_unary(f"{SERVICE}/Register")
    calls = [begin(timeout=5 * SECONDS) for _ in range(count)]
    async with asyncio.timeout(SECONDS):
        while await heard(it) < count:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    return calls


async def heard(it: Served) -> float:
    """Return how many calls to register a server has heard of."""
    found = _STARTED.search((await it.get("/metrics")).text)
    return float(found[1]) if found else 0


async def ended(call: Any) -> tuple[grpc.StatusCode, str, str]:
    """Wait for a call to be refused; return code, reason and text."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = from_rpc_error(caught.value)
    return error.code, error.reason, str(error)


async def test_calls_that_nobody_finishes_do_not_fill_the_memory(ledger: LedgerOnDisk, tmp_path: Path) -> None:
    """If false, whoever begins enough of them has the server killed, with neither key nor certificate."""
    with running(ledger.root, tmp_path / "serve.log") as server:
        process = psutil.Process(server.process.pid)
        before = process.memory_info().rss
        async with half_calls(server.grpc) as calls:
            streams = [await calls.begin(f"{SERVICE}/Register") for _ in range(CALLS)]
            sent = await calls.fill(streams, HALF, quiet=2)
            assert sent >= MAX_RECEIVED * HALF  # so many are received indeed
            assert process.memory_info().rss - before < MOST


async def test_connections_for_nothing_leave_others_theirs_and_the_store_its_files(
    ledger: LedgerOnDisk, tmp_path: Path
) -> None:
    """If false, whoever opens enough of them would take the descriptors that a ledger writes with."""
    allow_descriptors()
    with running(ledger.root, tmp_path / "serve.log") as server, ExitStack() as sockets:
        process = psutil.Process(server.process.pid)
        async with calling(server.grpc) as caller:
            await caller.sizes()
            before = process.num_fds()
            host, _, port = server.grpc.rpartition(":")
            silent = [
                sockets.enter_context(socket.create_connection((host, int(port))))
                for _ in range(MAX_CONNECTIONS + 100)
            ]
            for one in silent[-100:]:
                one.settimeout(SECONDS)
                with suppress(ConnectionResetError):
                    assert one.recv(1) == b""  # closed at once
            assert process.num_fds() - before < MAX_CONNECTIONS + 50  # the last ones are still being closed
            assert await caller.sizes()
            # Once those who send nothing are sent away. A channel like the other one would share what that has.
            own = (("grpc.use_local_subchannel_pool", 1),)
            async with grpc.aio.insecure_channel(server.grpc, options=own) as channel:
                another: Any = AuditServiceStub(channel)
                wanted = audit.ListRegistersRequest()
                await another.ListRegisters(wanted, timeout=2 * SECONDS, wait_for_ready=True)


async def test_a_request_that_does_not_come_gives_up_its_place(
    ledger: LedgerOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, so many silent calls would shut everybody out for good."""
    monkeypatch.setattr(receiving, "RECEIVE_SECONDS", 2.0)
    async with served(ledger.root) as it:
        calls = await silent(it, MAX_RECEIVED)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await it.caller.registration.GetSubmission(KNOWN, timeout=SECONDS)
        assert from_rpc_error(caught.value).reason == "SUBMISSION_UNKNOWN"
        assert {(code, text.partition(";")[0]) for code, _, text in [await ended(call) for call in calls]} == {
            (CODE.DEADLINE_EXCEEDED, "the request had not come in whole after 2 s")
        }


async def test_health_is_told_whatever_else_is_taken(
    ledger: LedgerOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, Kubernetes would kill a server whose places others hold, and help them."""
    monkeypatch.setattr(receiving, "RECEIVE_SECONDS", 10 * SECONDS)
    async with served(ledger.root) as it:
        calls = await silent(it, 2 * MAX_RECEIVED)
        health: Any = health_pb2_grpc.HealthStub(it.caller.channel)
        told = await health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        assert told.status == HEALTH.SERVING
        for call in calls:
            call.cancel()


async def test_a_call_without_a_request_is_told_so(ledger: LedgerOnDisk) -> None:
    """If false, a caller who ends his side too early would wait for his deadline."""
    async with served(ledger.root) as it:
        (call,) = await silent(it, 1)
        await call.done_writing()
        assert await ended(call) == (CODE.INVALID_ARGUMENT, "INVALID_FIELD", "the call has no request")


async def test_so_many_streams_are_open_at_once_and_no_more(ledger: LedgerOnDisk) -> None:
    """If false, unfinished requests of streams would fill the memory: nobody can tell them from a pause."""
    async with served(ledger.root) as it:

        async def opened() -> Any:
            stream = it.caller.registration.RegisterStream()
            await stream.write(pb.RegisterStreamRequest(tag=7))
            return stream, await stream.read()

        streams = []
        for _ in range(MAX_STREAMS):
            stream, answer = await opened()
            assert answer.tag == 7
            streams.append(stream)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await opened()
        assert from_rpc_error(caught.value).reason == "OVERLOADED"
        streams.pop().cancel()
        async with asyncio.timeout(SECONDS):
            while True:  # the server hears of it some time
                try:
                    await opened()
                    break
                except grpc.aio.AioRpcError as error:
                    assert from_rpc_error(error).reason == "OVERLOADED"  # noqa: PT017


async def test_who_does_not_read_how_a_server_is_holds_up_nobody(ledger: LedgerOnDisk) -> None:
    """If false, one of them would stop the news for all others, and the server from ending."""
    async with served(ledger.root) as it, half_calls(it.addresses.grpc, window=0) as unread:
        stream = await unread.begin(WATCH)
        await unread.send(stream, bytes(5), end=True)
        await unread.answered(stream)
        health: Any = health_pb2_grpc.HealthStub(it.caller.channel)
        watching = health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=SECONDS)
        assert (await watching.read()).status == HEALTH.SERVING
        it.stop.asked.set()
        assert (await watching.read()).status == HEALTH.NOT_SERVING


async def test_health_knows_the_services_that_are_here(ledger: LedgerOnDisk) -> None:
    """If false, an operator who mistypes a service would be told that it serves."""
    async with served(ledger.root) as it:
        health: Any = health_pb2_grpc.HealthStub(it.caller.channel)
        for name in ("", SERVICE[1:]):
            asked = health_pb2.HealthCheckRequest(service=name)
            assert (await health.Check(asked, timeout=SECONDS)).status == HEALTH.SERVING
        asked = health_pb2.HealthCheckRequest(service="nobody")
        assert (await ended(health.Check(asked, timeout=SECONDS)))[0] is CODE.NOT_FOUND
        assert (await health.Watch(asked, timeout=SECONDS).read()).status == HEALTH.SERVICE_UNKNOWN


async def test_requests_to_prepare_records_wait_in_places(
    ledger: LedgerOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, they would queue up in memory, those of callers who have left among them."""
    busy, go_on = threading.Semaphore(0), threading.Event()

    def prepare(*_: Any) -> pb.PrepareRecordsResponse:
        busy.release()
        assert go_on.wait(SECONDS)
        return pb.PrepareRecordsResponse()

    monkeypatch.setattr(registration, "prepare", prepare)
    async with served(ledger.root) as it:

        def asked() -> Any:
            wanted = pb.PrepareRecordsRequest(ledger_origin=ORIGIN, register=REGISTER)
            return it.caller.registration.PrepareRecords(wanted, timeout=SECONDS)

        try:
            calls = [asyncio.ensure_future(asked()) for _ in range(MAX_PREPARED + 1)]
            assert await asyncio.to_thread(busy.acquire, timeout=SECONDS)
            done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            assert [(await ended(call))[1] for call in done] == ["OVERLOADED"]
            for call in waiting:
                call.cancel()
            await asyncio.wait(waiting)
            assert (await ended(asked()))[1] == "OVERLOADED"  # what they have sent is still here
        finally:
            go_on.set()
        async with asyncio.timeout(SECONDS):
            while True:  # they have their turns, for nobody
                try:
                    await asked()
                    break
                except grpc.aio.AioRpcError as error:
                    assert from_rpc_error(error).reason == "OVERLOADED"  # noqa: PT017

"""HTTP connections to a ledger that bring no request, or take no answer; a witness's are tested with it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import httpx
import psutil
import pytest

from ledger.tiles import TILE_WIDTH
from services.client.signing import SignedSubmission, sign_submission
from services.http_server import MAX_HTTP
from services.witness import connections
from services.witness.connections import Impatient
from tests.support import records
from tests.support.calling import calling
from tests.support.ledger_dir import LedgerOnDisk
from tests.support.ledgers import DEPARTMENT_KEY, ORIGIN, REGISTER
from tests.support.served import Served, served
from tests.support.server_process import running


@asynccontextmanager
async def silent(it: Served, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Open connections that send nothing; yield their readers."""
    host, _, port = it.addresses.http.rpartition(":")
    opened = [await asyncio.open_connection(host, int(port)) for _ in range(count)]
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def healthy(it: Served) -> bool:
    """Tell whether the server answers; one that is slow to read may have shut this connection as well."""
    try:
        return (await it.get("/healthz")).status_code == 200
    except httpx.TransportError:
        return False


async def test_connections_that_send_nothing_shut_nobody_out_for_long(
    ledger: LedgerOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, whoever opens some hundred of them and leaves would shut everybody out for good."""
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.5)
    async with served(ledger.root) as it, silent(it, MAX_HTTP), asyncio.timeout(30):
        while not await healthy(it):  # noqa: ASYNC110 - a server tells nobody
            await asyncio.sleep(0.05)


async def test_far_beyond_the_limit_there_is_no_connection(
    ledger: LedgerOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, silent ones would take the descriptors that a ledger writes with."""
    monkeypatch.setattr(connections, "HEADER_SECONDS", 600.0)
    async with served(ledger.root) as it, silent(it, 2 * MAX_HTTP + 10) as readers, asyncio.timeout(30):
        for reader in readers[-10:]:
            with suppress(ConnectionResetError):
                assert await reader.read() == b""


BUNDLE: Final = f"/logs/{REGISTER}/tile/entries/000"
READERS: Final = 40
MOST: Final = 400 * 1024 * 1024
"""Bytes that a server may grow by; all that is asked for of it is 600 million."""


def large() -> Iterator[SignedSubmission]:
    """Yield submissions that fill an entry bundle with records of 60 kB."""
    for first in range(0, TILE_WIDTH, 16):
        data = [
            records.decision_bytes(
                register=REGISTER,
                record_id=records.record_id(first + number),
                options_considered=["x" * 15_000] * 4,
            )
            for number in range(16)
        ]
        yield sign_submission(data, f"{ORIGIN}/{REGISTER}", [DEPARTMENT_KEY])


async def asking(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for the bundle; nothing is read of it before somebody reads."""
    host, _, port = address.rpartition(":")
    with socket.socket() as narrow:
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        narrow.connect((host, int(port)))
        reader, writer = await asyncio.open_connection(sock=narrow.dup(), limit=1_024)
    writer.write(f"GET {BUNDLE} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
    await writer.drain()
    assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    return reader, writer


async def test_who_takes_nothing_of_a_large_bundle_does_not_hold_it(
    ledger: LedgerOnDisk, tmp_path: Path
) -> None:
    """If false, some hundred of them would have the server killed for its memory."""
    with running(ledger.root, tmp_path / "serve.log") as server:
        async with calling(server.grpc) as caller:
            for submission in large():
                await caller.register(submission)
        process = psutil.Process(server.process.pid)
        before = process.memory_info().rss
        readers = [await asking(server.http) for _ in range(READERS)]
        assert process.memory_info().rss - before < MOST
        for _, writer in readers:
            writer.transport.abort()


async def test_who_takes_nothing_is_left_after_a_while(
    ledger: LedgerOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, whoever asks for bundles and reads none would shut everybody out for good."""
    left, lost = asyncio.Event(), Impatient.connection_lost

    def connection_lost(connection: Impatient, error: Exception | None) -> None:
        lost(connection, error)
        left.set()

    monkeypatch.setattr(connections, "TAKE_SECONDS", 0.5)
    monkeypatch.setattr(Impatient, "connection_lost", connection_lost)
    async with served(ledger.root) as it:
        for submission in large():
            await it.caller.register(submission)
        _, writer = await asking(it.addresses.http)
        async with asyncio.timeout(30):
            await left.wait()
        writer.transport.abort()

"""HTTP connections that bring no request, to a ledger; those to a witness are tested with it."""

from __future__ import annotations

import asyncio

import pytest

from services.http_server import MAX_HTTP
from services.witness import connections
from tests.support.ledger_dir import LedgerOnDisk
from tests.support.served import served


async def test_connections_that_send_nothing_shut_nobody_out_for_long(
    ledger: LedgerOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, whoever opens some hundred of them and leaves would shut everybody out for good."""
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.5)
    async with served(ledger.root) as it:
        host, _, port = it.addresses.http.rpartition(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(MAX_HTTP)]
        try:
            async with asyncio.timeout(30):
                while (await it.get("/healthz")).status_code != 200:  # noqa: ASYNC110 - a server tells nobody
                    await asyncio.sleep(0.05)
        finally:
            for _, writer in silent:
                writer.transport.abort()

"""The floors: the least that the same bytes cost with no ledger around them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop

from ledger.stores.sqlite import PAGE_SIZE

METHOD = "/bench.Echo/Echo"


def raw_inserts(path: Path, batches: Sequence[Sequence[bytes]]) -> float:
    """Return the seconds that `sqlite3.executemany` takes for these entries in these transactions."""
    connection = _open(path)
    index = 0
    began = time.perf_counter()
    for batch in batches:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO entry VALUES (?, ?)", [(index + i, entry) for i, entry in enumerate(batch)]
        )
        connection.execute("COMMIT")
        index += len(batch)
    seconds = time.perf_counter() - began
    connection.close()
    return seconds


def one_row_commits(path: Path, entry: bytes, count: int) -> list[float]:
    """Return the seconds of each of `count` durable one-row transactions."""
    connection = _open(path)
    found = []
    for index in range(count):
        began = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO entry VALUES (?, ?)", (index, entry))
        connection.execute("COMMIT")
        found.append(time.perf_counter() - began)
    connection.close()
    return found


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    connection.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, entry BLOB NOT NULL) STRICT")
    return connection


def hash_both_trees(submissions: Sequence[Sequence[bytes]]) -> float:
    """Return the seconds to hash the submission trees and the register's tree of these entries."""
    sha256 = hashlib.sha256
    began = time.perf_counter()
    stack: list[bytes] = []
    size = 0
    for entries in submissions:
        row = [sha256(b"\0" + entry[entry.index(b"\n") + 1 :]).digest() for entry in entries]
        while len(row) > 1:
            odd = row[-1:] if len(row) % 2 else []
            row = [sha256(b"\1" + a + b).digest() for a, b in zip(row[::2], row[1::2], strict=False)] + odd
        for entry in entries:
            stack.append(sha256(b"\0" + entry).digest())
            size += 1
            carry = size
            while not carry & 1:
                right = stack.pop()
                stack[-1] = sha256(b"\1" + stack[-1] + right).digest()
                carry >>= 1
    return time.perf_counter() - began


@asynccontextmanager
async def echo_server(reply_size: int) -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
    """Run a bare grpc.aio server in a process of its own; yield a call to it."""
    process = subprocess.Popen(  # noqa: ASYNC220 - a benchmark waits for nothing else
        [sys.executable, "-m", "tests.bench.floors", str(reply_size)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        port = await asyncio.to_thread(process.stdout.readline)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{int(port)}") as channel:
            call: Any = channel.unary_unary(METHOD)

            async def echo(request: bytes) -> bytes:
                reply: bytes = await call(request, timeout=30)
                return reply

            yield echo
    finally:
        process.terminate()
        process.wait()


async def _serve(reply_size: int) -> None:
    reply = os.urandom(reply_size)

    async def echo(_request: bytes, _context: object) -> bytes:
        return reply

    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))

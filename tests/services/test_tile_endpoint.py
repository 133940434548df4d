"""The HTTP endpoint is a tiled log: a client written from specs/tiles.md alone reads and proves everything."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import socket
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from ledger.checkpoints import open_checkpoint
from ledger.governing import GOVERNING
from ledger.stores.memory import MemoryStore
from ledger.stores.sqlite import SqliteStore
from ledger.tiles import Bundle
from services import tile_endpoint
from services.tile_endpoint import Readiness, build_app
from tests.support.ledgers import (
    DEPARTMENT,
    DEPARTMENT_KEY,
    EPOCH,
    ORIGIN,
    REGISTER,
    LedgerUnderTest,
    decision,
    open_ledger,
    submission,
    vkey,
)
from tests.support.unwitnessed import sealing_state

LOG = f"/logs/{REGISTER}"
Get = Callable[[str], Awaitable[bytes]]


class Site:
    """A ledger with its HTTP application, called in process."""

    def __init__(self, held: LedgerUnderTest) -> None:
        self.held = held
        self.readiness = Readiness()
        self.app: Starlette = build_app(
            held.ledger,
            held.published,
            CollectorRegistry(),
            self.readiness,
            sealing_state(held.published),
            lambda: float(EPOCH + 100),
        )

    async def call(
        self, path: str, method: str = "GET", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://daybook.test") as client:
            return await client.request(
                method, path, headers={"Accept-Encoding": "identity", **(headers or {})}
            )

    async def get(self, path: str) -> bytes:
        reply = await self.call(path)
        assert reply.status_code == 200, path
        return reply.content


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(open_ledger(MemoryStore(), tmp_path / "marks"))


# A tile client from specs/tiles.md: nothing below, up to `tiled`, uses code of the ledger.


def number(index: int) -> str:
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03}")
    return "/".join(groups)


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def mth(hashes: list[bytes]) -> bytes:
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return node(mth(hashes[:split]), mth(hashes[split:]))


def path(index: int, hashes: list[bytes]) -> list[bytes]:
    if len(hashes) == 1:
        return []
    split = 1 << (len(hashes) - 1).bit_length() - 1
    if index < split:
        return [*path(index, hashes[:split]), mth(hashes[split:])]
    return [*path(index - split, hashes[split:]), mth(hashes[:split])]


def root_from(index: int, size: int, leaf: bytes, proof: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.3.2."""
    first, last, root = index, size - 1, leaf
    for sibling in proof:
        assert last > 0
        if first & 1 or first == last:
            root = node(sibling, root)
            while not first & 1 and first:
                first >>= 1
                last >>= 1
        else:
            root = node(root, sibling)
        first >>= 1
        last >>= 1
    assert last == 0
    return root


def places(level: int, size: int) -> list[tuple[str, int]]:
    """Return path and width of every tile of a level that a size implies."""
    count = size >> 8 * level
    full = [(number(index), 256) for index in range(count // 256)]
    partial = [(f"{number(count // 256)}.p/{count % 256}", count % 256)] if count % 256 else []
    return full + partial


async def read_log(get: Get, log: str) -> tuple[int, bytes, list[bytes]]:
    """Return size and root of the checkpoint, and the entries, every tile compared with them."""
    note = await get(f"{log}/checkpoint")
    _, size_line, root_line, *_ = note.decode().split("\n")
    size, root = int(size_line), base64.b64decode(root_line)
    entries: list[bytes] = []
    for place, width in places(0, size):
        data = await get(f"{log}/tile/entries/{place}")
        before = len(entries)
        while data:
            length = int.from_bytes(data[:2], "big")
            entries.append(data[2 : 2 + length])
            data = data[2 + length :]
        assert len(entries) - before == width
    row = [hashlib.sha256(b"\x00" + entry).digest() for entry in entries]
    level = 0
    while size >> 8 * level:
        tiles = [await get(f"{log}/tile/{level}/{place}") for place, _ in places(level, size)]
        assert [len(tile) for tile in tiles] == [32 * width for _, width in places(level, size)]
        assert b"".join(tiles) == b"".join(row)
        row = [mth(row[start : start + 256]) for start in range(0, len(row) - 255, 256)]
        level += 1
    return size, root, entries


@pytest.mark.parametrize("size", [1, 255, 256, 257, 700])
async def test_a_plain_tile_client_proves_every_entry(site: Site, size: int) -> None:
    """If false, what is published would not verify with tools that we did not write (promise P6)."""
    site.held.fill(size)
    found, root, entries = await read_log(site.get, LOG)
    leaves = [hashlib.sha256(b"\x00" + entry).digest() for entry in entries]
    assert found == len(entries) == size
    assert [entry.partition(b"\n")[2] for entry in entries] == [decision(index) for index in range(size)]
    assert mth(leaves) == root
    for index in {0, 1, size // 2, 255, 256, size - 1} & set(range(size)):
        assert root_from(index, size, leaves[index], path(index, leaves)) == root


async def test_the_checkpoint_is_signed_by_the_key_of_its_origin(site: Site) -> None:
    """If false, no verifier could open what is served."""
    site.held.fill(3)
    for register, size in ((REGISTER, 3), (GOVERNING, 3)):
        reply = await site.call(f"/logs/{register}/checkpoint")
        opened = open_checkpoint(reply.content, f"{ORIGIN}/{register}", [vkey(register)])
        assert opened.checkpoint.size == size
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"
        assert reply.headers["cache-control"] == "no-store"


async def test_tiles_are_immutable_octets(site: Site) -> None:
    """If false, caches in front would not keep what never changes."""
    site.held.fill(300)
    for place in ("0/000", "0/001.p/44", "1/000.p/1", "entries/000", "entries/001.p/44"):
        reply = await site.call(f"{LOG}/tile/{place}")
        assert reply.status_code == 200
        assert reply.headers["content-type"] == "application/octet-stream"
        assert "immutable" in reply.headers["cache-control"]
        assert int(reply.headers["content-length"]) == len(reply.content)


async def test_partial_tiles_of_every_earlier_size_stay(site: Site) -> None:
    """If false, a client that holds an older checkpoint would be cut off (tiles.md, section 5)."""
    seen: dict[str, bytes] = {}
    for size in (1, 5, 200, 256, 257):
        site.held.fill(size)
        for kind in ("0", "entries"):
            for place, _ in places(0, size):
                seen.setdefault(f"{LOG}/tile/{kind}/{place}", await site.get(f"{LOG}/tile/{kind}/{place}"))
    for address, data in seen.items():
        assert await site.get(address) == data


async def test_nothing_beyond_the_latest_signed_size_is_served(site: Site) -> None:
    """If false, entries would be shown that no checkpoint vouches for."""
    site.held.fill(255)
    later = [decision(index) for index in range(255, 300)]
    site.held.commit_unsigned([submission(REGISTER, later, [DEPARTMENT_KEY])])
    assert site.held.ledger.heads()[REGISTER].size == 300
    for place in ("0/000", "entries/000", "0/001.p/1", "entries/001.p/44", "1/000.p/1"):
        assert (await site.call(f"{LOG}/tile/{place}")).status_code == 404
    assert len(await site.get(f"{LOG}/tile/0/000.p/255")) == 255 * 32


@pytest.mark.parametrize(
    "place",
    [
        "/logs/",
        "/logs/no/such/checkpoint",
        f"/logs/{DEPARTMENT}/checkpoint",
        f"/logs/{DEPARTMENT.upper()}/secretary-of-state/checkpoint",
        f"{LOG}",
        f"{LOG}/",
        f"{LOG}/checkpoint/",
        f"{LOG}/Checkpoint",
        f"{LOG}//checkpoint",
        f"{LOG}/checkpoin%74",
        f"{LOG}/checkpoint%0A",
        f"{LOG}/tile",
        f"{LOG}/tile/0/000/",
        f"{LOG}/tile/0/0",
        f"{LOG}/tile/00/000",
        f"{LOG}/tile/0/x000/000",
        f"{LOG}/tile/0/X001/000",
        f"{LOG}/tile/0/%30%30%30",
        f"{LOG}/tile/0/000.p/0",
        f"{LOG}/tile/0/000.p/01",
        f"{LOG}/tile/0/000.p/256",
        f"{LOG}/tile/0/000.p/",
        f"{LOG}/tile/0/001.p/45",
        f"{LOG}/tile/0/001",
        f"{LOG}/tile/0/999",
        f"{LOG}/tile/1/000",
        f"{LOG}/tile/1/000.p/2",
        f"{LOG}/tile/2/000.p/1",
        f"{LOG}/tile/63/000.p/1",
        f"{LOG}/tile/64/000",
        f"{LOG}/tile/-1/000",
        f"{LOG}/tile/8/0/000",
        f"{LOG}/tile/data/000",
        f"{LOG}/tile/entries/x999/x999/x999/x999/x999/x999/999",
        f"{LOG}/tile/0/../0/000",
        "/registers.json/",
        "/registers",
        "/",
        "//healthz",
    ],
)
async def test_any_other_path_is_not_found(site: Site, place: str) -> None:
    """If false, one resource would have two addresses, or a Go client would meet what is not a 404."""
    site.held.fill(300)
    # An address built by hand: httpx would tidy it up.
    reply = await site.call(place) if "/../" not in place else await raw(site, place)
    assert reply.status_code == 404
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "location" not in reply.headers
    assert "content-encoding" not in reply.headers


async def raw(site: Site, place: str) -> httpx.Response:
    """Call the application with exactly this path."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": place,
        "raw_path": place.encode(),
        "query_string": b"",
        "headers": [],
        "root_path": "",
        "scheme": "http",
        "server": ("daybook.test", 80),
    }
    await site.app(scope, receive, send)
    return httpx.Response(sent[0]["status"], headers=sent[0]["headers"], content=sent[1]["body"])


@pytest.mark.parametrize("whole", [tile_endpoint._WHOLE, 1_000], ids=["whole", "in pieces"])
@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, identity", "gzip"),
        ("GZIP;q=0.5", "gzip"),
        ("br, gzip", "gzip"),
        ("gzip;q=0", None),
        ("gzip; q=0.0", None),
        ("identity", None),
        ("xgzip", None),
        ("", None),
    ],
)
async def test_entry_bundles_are_compressed_for_who_accepts_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, accepted: str, coding: str | None, whole: int
) -> None:
    """If false, a client would get bytes that it cannot read, or the wire would carry ten times as many."""
    monkeypatch.setattr(tile_endpoint, "_WHOLE", whole)
    site.held.fill(300)
    plain = site.held.ledger.reader(REGISTER).bundle(Bundle(0))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(site.app), base_url="http://daybook.test"
    ) as client:
        request = client.build_request("GET", f"{LOG}/tile/entries/000", headers={"Accept-Encoding": accepted})
        reply = await client.send(request, stream=True)
        data = b"".join([chunk async for chunk in reply.aiter_raw()])
    assert reply.headers.get("content-encoding") == coding
    assert reply.headers["vary"] == "Accept-Encoding"
    assert (gzip.decompress(data) if coding else data) == plain
    assert len(data) < len(plain) / 3 or coding is None


async def test_neither_hash_tiles_nor_errors_are_compressed(site: Site) -> None:
    """If false, Go clients would fail on them (tiles.md, section 1)."""
    site.held.fill(300)
    for place in ("tile/0/000", "tile/entries/002", "checkpoint"):
        reply = await site.call(f"{LOG}/{place}", headers={"Accept-Encoding": "gzip"})
        assert "content-encoding" not in reply.headers


@pytest.mark.parametrize(
    "place", [f"{LOG}/checkpoint", f"{LOG}/tile/0/000.p/5", f"{LOG}/tile/entries/000.p/5", "/registers.json"]
)
async def test_head_says_what_get_would(site: Site, place: str) -> None:
    """If false, HEAD would not work as GET (tiles.md, section 1)."""
    site.held.fill(5)
    got, head = await site.call(place), await site.call(place, "HEAD")
    assert head.status_code == got.status_code == 200
    assert head.content == b""
    assert head.headers == got.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("place", [f"{LOG}/checkpoint", f"{LOG}/tile/0/000.p/5", "/registers.json", "/metrics"])
async def test_other_methods_are_not_allowed(site: Site, method: str, place: str) -> None:
    """If false, a read-only endpoint would seem to take more."""
    site.held.fill(5)
    reply = await site.call(place, method)
    assert reply.status_code == 405
    assert {one.strip() for one in reply.headers["allow"].split(",")} == {"GET", "HEAD"}
    assert reply.headers["access-control-allow-origin"] == "*"


async def test_registers_json_lists_what_is_open(site: Site) -> None:
    """If false, an auditor would have nothing to compare the governing register with."""
    site.held.open_register("department-for-testing/a-minister", "A minister")
    site.held.govern("register.closed/1", name="department-for-testing/a-minister", size=0, reason="Abolished")
    site.held.fill(5)
    reply = await site.call("/registers.json")
    assert reply.headers["content-type"] == "application/json"
    found = reply.json()
    assert (found["origin"], found["governing_size"]) == (ORIGIN, 5)
    minister, secretary, governing = found["registers"]
    assert minister == {
        "name": "department-for-testing/a-minister",
        "title": "A minister",
        "origin": f"{ORIGIN}/department-for-testing/a-minister",
        "vkey": str(vkey("department-for-testing/a-minister")),
        "size": 0,
        "opened_index": 3,
        "closed_index": 4,
    }
    assert (secretary["name"], secretary["size"], "closed_index" in secretary) == (REGISTER, 5, False)
    assert (governing["name"], governing["vkey"]) == (GOVERNING, str(vkey(GOVERNING)))


async def test_a_register_that_was_just_opened_serves_size_0(site: Site) -> None:
    """If false, an auditor would take a new register for one that is withheld."""
    size, root, entries = await read_log(site.get, LOG)
    assert (size, root, entries) == (0, hashlib.sha256().digest(), [])


async def test_readiness_says_why_not(site: Site) -> None:
    """If false, a balancer would send calls to a server that cannot answer them."""
    assert (await site.call("/healthz")).status_code == 200
    starting = await site.call("/readyz")
    site.readiness.ready()
    ready = await site.call("/readyz")
    site.readiness.draining()
    draining = await site.call("/readyz")
    assert (starting.status_code, starting.json()["reason"]) == (503, "starting")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "witnesses": "none configured"})
    assert (draining.status_code, draining.json()["reason"]) == (503, "draining")
    assert (await site.call("/healthz")).status_code == 200


async def test_metrics_show_every_register(site: Site) -> None:
    """If false, nobody would notice a register that stopped growing."""
    site.held.fill(5)
    reply = await site.call("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    assert f'daybook_tree_size{{register="{REGISTER}"}} 5.0' in reply.text
    assert f'daybook_checkpoint_age_seconds{{register="{REGISTER}"}} 97.0' in reply.text
    assert 'daybook_tree_size{register="governing"} 3.0' in reply.text


async def test_a_damaged_store_is_never_not_found(tmp_path: Path) -> None:
    """If false, a client would believe that a published tile had never been there."""
    held = open_ledger(SqliteStore(tmp_path / "store"), tmp_path / "marks")
    held.fill(5)
    with sqlite3.connect(tmp_path / "store") as database:
        database.execute("DELETE FROM tile")
        database.execute("DELETE FROM stretch")
    database.close()
    for place in ("tile/0/000.p/5", "tile/entries/000.p/5"):
        reply = await Site(held).call(f"{LOG}/{place}")
        assert (reply.status_code, reply.text) == (503, "BACKEND_DOWN\n")
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["access-control-allow-origin"] == "*"


@asynccontextmanager
async def served(app: Starlette) -> AsyncIterator[str]:
    """Serve over a real socket; yield the base address."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False))
        task = asyncio.create_task(server.serve(sockets=[bound]))
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


async def test_a_real_server_serves_the_log(tmp_path: Path) -> None:
    """If false, what holds in process would not hold over HTTP."""
    held = open_ledger(SqliteStore(tmp_path / "store"), tmp_path / "marks")
    held.fill(300)
    async with served(Site(held).app) as base, httpx.AsyncClient(base_url=base) as client:

        async def get(place: str) -> bytes:
            reply = await client.get(place)
            assert reply.status_code == 200
            return reply.content

        size, root, entries = await read_log(get, LOG)
        assert size == 300
        assert mth([hashlib.sha256(b"\x00" + entry).digest() for entry in entries]) == root
        assert (await client.get(f"{LOG}/tile/0/%30%30%30")).status_code == 404
        assert (await client.get(f"{LOG}/tile/0/000?x=1")).status_code == 200
        head = await client.head(f"{LOG}/tile/0/000")
        assert (head.status_code, head.headers["content-length"]) == (200, "8192")

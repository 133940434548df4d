"""A witness that does what a test says: a real HTTP server on 127.0.0.1 that holds a real key.

    async with scripted_witness("one") as witness:
        witness.will(replies(503), hangs)     the next two requests; then what it does by itself, `honestly`
        witness.always(replies(404))          every request from now on that nothing else is scripted for
        witness.asked                         all that it was asked, in order

A behaviour is a coroutine that has the request and the connection, so that nothing which a server can do to
a client is out of reach.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET
from typing import Final

from ledger.add_checkpoint import AddCheckpoint, CheckpointRefusedError, check_follows
from ledger.checkpoints import Checkpoint
from ledger.ed25519 import SecretKey
from ledger.notes import SignerKey, cosignature_line, format_note, split_note
from ledger.witnessing import Witness

SIZE_TYPE: Final = "text/x.tlog.size"
"""Content type of a 409 that states a size, exactly (specs/witness.md, section 2)."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One add-checkpoint request, and the connection that it came over."""

    witness: ScriptedWitness
    request: AddCheckpoint
    headers: Mapping[str, str]
    writer: asyncio.StreamWriter

    @property
    def checkpoint(self) -> Checkpoint:
        """What is to be cosigned; its log signature is not looked at."""
        return Checkpoint.parse(split_note(self.request.note)[0])

    async def send(self, data: bytes) -> None:
        """Send bytes, whatever they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a whole answer; a header's name is written with ``_`` for ``-``."""
        stated = {"Content_Type": "text/plain; charset=utf-8", "Content_Length": str(len(body)), **headers}
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in stated.items() if value)
        await self.send(f"HTTP/1.1 {status} As Scripted\r\n{lines}\r\n".encode() + body)

    def close(self) -> None:
        """Close the connection behind what was sent."""
        self.writer.close()

    def reset(self) -> None:
        """Break the connection: the other side reads an error, not an end."""
        self.writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Exchange], Awaitable[None]]


async def honestly(exchange: Exchange) -> None:
    """Do as the specification says: cosign what follows from the latest, once it is kept (witness.md, 2)."""
    witness, checkpoint = exchange.witness, exchange.checkpoint
    try:
        check_follows(exchange.request, checkpoint, witness.latest.get(checkpoint.origin))
    except CheckpointRefusedError as refusal:
        if refusal.latest is not None:
            await exchange.reply(refusal.status, f"{refusal.latest}\n".encode(), Content_Type=SIZE_TYPE)
        else:
            await exchange.reply(refusal.status, f"{refusal}\n".encode())
        return
    await exchange.reply(200, witness.keep(exchange.request.note))


async def hangs(exchange: Exchange) -> None:
    """Never answer, and keep the connection open."""
    await exchange.witness.closing.wait()


async def resets(exchange: Exchange) -> None:
    """Break the connection instead of answering."""
    exchange.reset()


def replies(status: int, body: bytes = b"as scripted\n", **headers: str) -> Behaviour:
    """Answer just so."""

    async def reply(exchange: Exchange) -> None:
        await exchange.reply(status, body, **headers)

    return reply


def holds(size: int) -> Behaviour:
    """Answer 409: that the latest cosigned has `size` entries."""
    return replies(409, b"%d\n" % size, Content_Type=SIZE_TYPE)


def sends(data: bytes) -> Behaviour:
    """Send these bytes and close the connection."""

    async def send(exchange: Exchange) -> None:
        await exchange.send(data)
        exchange.close()

    return send


def cosigns(change: Callable[[Exchange], bytes]) -> Behaviour:
    """Answer 200 with the body that `change` makes."""

    async def cosign(exchange: Exchange) -> None:
        await exchange.reply(200, change(exchange))

    return cosign


def waits_for(event: asyncio.Event, behaviour: Behaviour = honestly) -> Behaviour:
    """Do something once an event is set."""

    async def wait(exchange: Exchange) -> None:
        await event.wait()
        await behaviour(exchange)

    return wait


@dataclass(slots=True)
class ScriptedWitness:
    """A running witness. `name` is that in policies; `url` its submission and monitoring prefix.

    `latest` and `notes` are what it has cosigned, by origin; `shown` replaces what it shows of an origin, None
    for nothing. `clock` gives the POSIX seconds at which it cosigns.
    """

    name: str
    key: SignerKey
    url: str = ""
    clock: Callable[[], float] = time.time
    asked: list[AddCheckpoint] = field(default_factory=list[AddCheckpoint])
    latest: dict[str, Checkpoint] = field(default_factory=dict[str, Checkpoint])
    notes: dict[str, bytes] = field(default_factory=dict[str, bytes])
    shown: dict[str, bytes | None] = field(default_factory=dict[str, bytes | None])
    connections: int = 0
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    _script: deque[Behaviour] = field(default_factory=deque[Behaviour])
    _default: Behaviour = honestly
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])
    _server: asyncio.Server | None = None

    @property
    def witness(self) -> Witness:
        """The witness as a policy names it."""
        return Witness(self.name, self.key.cosigner, self.url)

    def will(self, *behaviours: Behaviour) -> None:
        """Do these at the next requests, one each."""
        self._script.extend(behaviours)

    def always(self, behaviour: Behaviour) -> None:
        """Do this at every request for which nothing else is scripted."""
        self._default = behaviour

    def keep(self, note: bytes, at: int | None = None) -> bytes:
        """Cosign a checkpoint note, whatever it is, and keep it as the latest; return the line."""
        text, lines = split_note(note)
        checkpoint = Checkpoint.parse(text)
        line = self.cosignature(text, at)
        self.latest[checkpoint.origin] = checkpoint
        self.notes[checkpoint.origin] = format_note(text, lines) + line
        return line

    def cosignature(self, text: bytes, at: int | None = None) -> bytes:
        """Return its line over a text, at its clock's time or another."""
        return cosignature_line(text, self.key, int(self.clock()) if at is None else at).line

    def size_of(self, origin: str) -> int:
        """Return how many entries of an origin it has cosigned."""
        return self.latest[origin].size if origin in self.latest else 0

    def sizes(self, origin: str) -> list[tuple[int, int]]:
        """Return old and new size of all that it was asked about an origin, in order."""
        return [
            (each.old, Checkpoint.parse(split_note(each.note)[0]).size)
            for each in self.asked
            if each.origin == origin
        ]

    async def until_asked(self, count: int) -> AddCheckpoint:
        """Wait until it was asked so often in all; return that request."""
        while len(self.asked) < count:
            self._news.clear()
            await self._news.wait()
        return self.asked[count - 1]

    async def start(self, port: int = 0) -> None:
        """Listen, by default at any free port."""
        self.closing = asyncio.Event()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def port(self) -> int:
        """The port that it listens at, or listened at last."""
        return int(self.url.rpartition(":")[2])

    async def stop(self) -> None:
        """Break every connection, and refuse new ones; what it has cosigned it still knows."""
        self.closing.set()
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while not writer.is_closing():
                await self._answer(reader, writer)
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        method, path, _ = first.split(" ")
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if (method, path) != ("POST", "/add-checkpoint"):
            await self._show(Exchange(self, AddCheckpoint(0, (), b""), headers, writer), path)
            return
        request = AddCheckpoint.parse(body)
        self.asked.append(request)
        behaviour = self._script.popleft() if self._script else self._default
        self._news.set()
        await behaviour(Exchange(self, request, headers, writer))

    async def _show(self, exchange: Exchange, path: str) -> None:
        for origin in {*self.notes, *self.shown}:
            note = self.shown.get(origin, self.notes.get(origin))
            if path == f"/{hashlib.sha256(origin.encode()).hexdigest()}/checkpoint" and note is not None:
                await exchange.reply(200, note)
                return
        await exchange.reply(404)


@asynccontextmanager
async def scripted_witness(name: str) -> AsyncIterator[ScriptedWitness]:
    """Serve a witness while the block runs. Its key, TEST ONLY, follows from its name."""
    secret = SecretKey(hashlib.sha256(f"scripted, TEST ONLY: {name}".encode()).digest())
    witness = ScriptedWitness(name, SignerKey(f"{name}.example/w", secret))
    await witness.start()
    try:
        yield witness
    finally:
        await witness.stop()

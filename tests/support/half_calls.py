"""gRPC calls that are begun and not finished: a gRPC client sends whole requests only, HTTP/2 need not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived
from h2.settings import SettingCodes, Settings

_HEAD: Final = b"\x00" + (2_000_000).to_bytes(4, "big")
"""The head of a gRPC message, not compressed, of two million bytes."""

_CHUNK: Final = 16_384
"""Bytes of the largest frame that every HTTP/2 server takes."""


class HalfCalls:
    """One connection, on which calls are begun. What the server sends is read, and dropped."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str) -> None:
        self._reader = reader
        self._writer = writer
        self._authority = authority
        self._http2 = H2Connection(H2Configuration(client_side=True))
        self._answered: set[int] = set()

    async def start(self, window: int) -> None:
        """Begin the connection; `window` is how many bytes of each answer the server may send unasked."""
        initial = {SettingCodes.INITIAL_WINDOW_SIZE: window}
        self._http2.local_settings = Settings(client=True, initial_values=initial)
        self._http2.initiate_connection()
        await self._flush()

    async def begin(self, path: str) -> int:
        """Begin a call; return its stream."""
        stream = self._http2.get_next_available_stream_id()
        self._http2.send_headers(
            stream,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", path),
                (":authority", self._authority),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("grpc-timeout", "1H"),
            ],
        )
        await self._flush()
        return stream

    async def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send these bytes of a request, which its windows must allow."""
        self._http2.send_data(stream, data, end_stream=end)
        await self._flush()

    async def fill(self, streams: list[int], most: int, quiet: float) -> int:
        """Send up to `most` bytes of a larger request in each call; return how many in all.

        It has come to its end when the server has taken nothing more for `quiet` seconds.
        """
        for stream in streams:
            self._http2.send_data(stream, _HEAD)
        left = dict.fromkeys(streams, most)
        sent = 0
        while any(left.values()):
            before = sent
            for stream in streams:
                room = min(self._http2.local_flow_control_window(stream), left[stream], _CHUNK)
                if room > 0:
                    self._http2.send_data(stream, bytes(room))
                    left[stream] -= room
                    sent += room
            await self._flush()
            if sent == before:
                try:
                    async with asyncio.timeout(quiet):
                        await self._hear()
                except TimeoutError:
                    break
        return sent

    async def answered(self, stream: int) -> None:
        """Wait until the server has begun to answer a call: at least its headers are here."""
        while stream not in self._answered:
            await self._hear()

    async def _hear(self) -> None:
        data = await self._reader.read(65_536)
        assert data, "the server has ended the connection"
        for event in self._http2.receive_data(data):
            if isinstance(event, ResponseReceived):
                self._answered.add(event.stream_id)
        await self._flush()

    async def _flush(self) -> None:
        self._writer.write(self._http2.data_to_send())
        await self._writer.drain()


@asynccontextmanager
async def half_calls(address: str, *, window: int = 65_535) -> AsyncIterator[HalfCalls]:
    """Connect to HOST:PORT without TLS."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        calls = HalfCalls(reader, writer, address)
        await calls.start(window)
        yield calls
    finally:
        writer.transport.abort()

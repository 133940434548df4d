"""Reading a tiled ledger over HTTP, believing nothing of what it sends (specs/tiles.md).

What comes back is bounded in bytes and in time before anybody looks at it. Only its form is checked here;
what it says is checked by whoever asked.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import zlib
from collections.abc import Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp

from ledger.errors import LedgerError, MalformedError
from ledger.hashing import HASH_SIZE
from ledger.notes import MAX_NOTE_SIZE
from ledger.tiles import MAX_BUNDLE_SIZE, TILE_WIDTH, Bundle, Tile, decode_bundle

T = TypeVar("T")

TIMEOUT: Final = 60.0
"""Seconds that one answer may take, all of it: 16 MiB at the most."""

CONNECTIONS: Final = 8
"""Connections to one ledger at once."""

ATTEMPTS: Final = 3
"""How often something is asked for that could not be got, before it counts as unavailable."""

MAX_LISTING: Final = 4 * 1024 * 1024
"""Bytes of the longest list of registers."""

_MAX_TILE: Final = TILE_WIDTH * HASH_SIZE
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
_TRANSIENT: Final = frozenset({429, 500, 502, 503, 504})


class FetchError(LedgerError):
    """Something was not got; `url` is what was asked for."""

    def __init__(self, url: str, what: str) -> None:
        super().__init__(f"{url}: {what}")
        self.url = url
        self.what = what


class AbsentError(FetchError):
    """The server says that there is no such thing (404)."""


class UnavailableError(FetchError):
    """The server was not reached, or did not answer in time, or refused: it may have the thing or not."""


class UnfitError(FetchError):
    """What was sent cannot be what was asked for, whoever made it: too long, or of another form."""


class _OtherStatusError(UnavailableError):
    def __init__(self, url: str, status: int, pause: float | None) -> None:
        super().__init__(url, f"answered with status {status}")
        self.is_transient = status in _TRANSIENT
        self.pause = pause


class Site:
    """One ledger's HTTP address. Use it as an asynchronous context manager.

    Raises ValueError for an address that is none. `tls` is how an https address is trusted; `timeout` is in
    seconds, for one answer.
    """

    def __init__(self, url: str, tls: ssl.SSLContext | None = None, timeout: float = TIMEOUT) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{url!r} is not an http or https address")
        self.url = url.rstrip("/")
        self._tls = tls
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the connections."""
        self._session = aiohttp.ClientSession(
            # A proxy from the environment would be asked for what only the ledger may answer.
            trust_env=False,
            # What is sent compressed is unpacked here, within bounds.
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=self._tls or True),
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            headers={"Accept-Encoding": "gzip, identity", "User-Agent": "daybook"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close them."""
        if self._session is not None:
            await self._session.close()

    async def checkpoint(self, register: str) -> bytes:
        """Return what is served as the checkpoint of a register, at most 1,000,000 bytes. Raises FetchError."""
        return await self._get(self.place(register, "checkpoint"), MAX_NOTE_SIZE)

    async def tile(self, register: str, tile: Tile) -> bytes:
        """Return a hash tile of exactly this width. Raises FetchError.

        A partial tile that is no longer there is cut from the full one (tiles.md, section 6).
        """
        try:
            return await self._tile(register, tile)
        except AbsentError:
            if tile.width == TILE_WIDTH:
                raise
        whole = await self._tile(register, Tile(tile.level, tile.index))
        return whole[: tile.width * HASH_SIZE]

    async def _tile(self, register: str, tile: Tile) -> bytes:
        url = self.place(register, tile.path())
        data = await self._get(url, _MAX_TILE)
        if len(data) != tile.width * HASH_SIZE:
            raise UnfitError(url, f"{len(data)} bytes, not {tile.width} hashes")
        return data

    async def bundle(self, register: str, bundle: Bundle) -> list[bytes]:
        """Return the entries of a bundle of exactly this width, as `tile` does. Raises FetchError."""
        try:
            return await self._bundle(register, bundle)
        except AbsentError:
            if bundle.width == TILE_WIDTH:
                raise
        whole = await self._bundle(register, Bundle(bundle.index))
        return whole[: bundle.width]

    async def _bundle(self, register: str, bundle: Bundle) -> list[bytes]:
        url = self.place(register, bundle.path())
        data = await self._get(url, MAX_BUNDLE_SIZE)
        try:
            return decode_bundle(data, bundle.width)
        except MalformedError as error:
            raise UnfitError(url, str(error)) from error

    async def registers(self) -> Mapping[str, int | None]:
        """Return the operator's list of registers: names, whatever they are, and where each is said to open.

        Where is an index of the governing register, None where it is not said. Raises FetchError.
        """
        url = f"{self.url}/registers.json"
        data = await self._get(url, MAX_LISTING)
        try:
            return {str(each["name"]): _index(each) for each in json.loads(data)["registers"]}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UnfitError(url, f"no list of registers: {error!r}") from error

    def place(self, register: str, resource: str) -> str:
        """Return where a resource of a register is."""
        return f"{self.url}/logs/{register}/{resource}"

    async def _get(self, url: str, limit: int) -> bytes:
        """Return the decoded body, of at most `limit` bytes; what may pass is asked for again."""
        pause = _FIRST_PAUSE
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._get_once(url, limit)
            except _OtherStatusError as error:
                if attempt == ATTEMPTS or not error.is_transient:
                    raise
                await asyncio.sleep(min(max(pause, error.pause or 0.0), _LONGEST_PAUSE))
            except UnavailableError:
                if attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(pause)
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    async def _get_once(self, url: str, limit: int) -> bytes:
        assert self._session is not None, "the site is not open"  # noqa: S101 - the caller's mistake
        try:
            # No redirects: none belongs here, and one could lead anywhere.
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status == 404:
                    raise AbsentError(url, "is not there (404)")
                if response.status != 200:
                    raise _OtherStatusError(url, response.status, _retry_after(response.headers))
                return await _body(url, response, limit)
        except TimeoutError as error:
            raise UnavailableError(url, f"no whole answer within {self._timeout:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UnavailableError(url, _why(url, error)) from error


async def _body(url: str, response: aiohttp.ClientResponse, limit: int) -> bytes:
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip"):
        raise UnavailableError(url, f"answered in the coding {coding[:40]!r}, which was not asked for")
    unpack = _Gzip(limit) if coding == "gzip" else _Plain()
    body = bytearray()
    async for chunk in response.content.iter_any():
        try:
            body += unpack.more(chunk)
        except zlib.error as error:
            raise UnfitError(url, f"is not gzip: {error}") from error
        if len(body) > limit or unpack.taken > 2 * limit:
            raise UnfitError(url, f"goes on beyond {limit} bytes, which nothing there can have")
    if not unpack.is_whole:
        raise UnavailableError(url, "was cut off")
    return bytes(body)


class _Plain:
    taken = 0
    is_whole = True

    def more(self, chunk: bytes) -> bytes:
        return chunk


class _Gzip:
    """Unpacks a body and stops one byte beyond the limit: what a few bytes can unpack to has no end."""

    def __init__(self, limit: int) -> None:
        self._left = limit + 1
        self._unpack = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self.taken = 0

    @property
    def is_whole(self) -> bool:
        return self._unpack.eof

    def more(self, chunk: bytes) -> bytes:
        self.taken += len(chunk)
        if self._left <= 0:
            return b""
        data = self._unpack.decompress(chunk, self._left)
        self._left -= len(data)
        if self._unpack.unused_data:
            raise zlib.error("bytes after its end")
        return data


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all at once and return their results in order; where one fails, give up the others."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to be left alone; dates are not read."""
    text = headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else None


def _why(url: str, error: Exception) -> str:
    """Say in plain words why nothing was got, with what may be wrong with the address."""
    parts = urlsplit(url)
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return (
                f"its TLS certificate is not one that this computer trusts ({error.certificate_error}); "
                "DAYBOOK_CLIENT_TLS_CA names a file of other issuers"
            )
        case aiohttp.ClientConnectorSSLError(os_error=ssl.SSLError(reason="WRONG_VERSION_NUMBER")):
            return "what answers there speaks no TLS: http:// instead of https://?"
        case aiohttp.ClientConnectorSSLError():
            return f"TLS cannot be spoken with it: {error.os_error}"
        case aiohttp.ClientConnectorDNSError():
            return f"no computer is known by the name {parts.hostname}"
        case aiohttp.ClientConnectorError():
            number = error.os_error.errno
            return f"nobody answers at {parts.netloc}{f' ({os.strerror(number)})' if number else ''}"
        case aiohttp.ClientResponseError():
            # The bytes themselves would tell a person nothing.
            https = "" if parts.scheme == "https" else ", or one for https://"
            return f"what answers there does not speak HTTP: is it the gRPC address{https}?"
        case aiohttp.ServerDisconnectedError():
            return "the connection was ended without an answer"
        case aiohttp.ClientPayloadError():
            return "the answer was cut off"
        case _:
            return str(error) or type(error).__name__


def _index(listed: Mapping[str, Any]) -> int | None:
    index = listed.get("opened_index")
    return index if isinstance(index, int) and index >= 0 else None

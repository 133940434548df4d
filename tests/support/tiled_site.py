"""A tiled ledger as static files over real HTTP, and every way in which such a server can misbehave.

    with TiledSite() as site:
        site.put("ledger.test/…/register", entries, note)      # everything that the size implies
        site.files["/logs/…/tile/0/000"] = b"something else"    # an attack is a changed file
        site.answers["/logs/…/checkpoint"] = endless            # or an answer of its own

What was asked for is in `asked`, in order.
"""

from __future__ import annotations

import gzip
import http.server
import json
import ssl
import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from types import TracebackType
from typing import Any, Final, Self

from ledger.hashing import leaf_hash
from ledger.tiles import TILE_HEIGHT, TILE_WIDTH, Bundle, encode_bundle, implied, implied_width
from ledger.tree import EMPTY, extend
from tests.support.certificates import Pair

Answer = Callable[["Handler"], None]
"""Answers one request by itself, in a thread of its own."""

PIECE: Final = b"0" * 65_536


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers from the site's files and answers."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        site: TiledSite = self.server.site
        site.asked.append(self.path)
        answer = site.answers.get(self.path)
        if answer is not None:
            try:
                answer(self)
            except (BrokenPipeError, ConnectionResetError):
                pass  # whoever asked has had enough
            finally:
                self.close_connection = True
            return
        data = site.files.get(self.path)
        if data is None:
            self.reply(404, b"not found\n")
        else:
            self.reply(200, data)

    def reply(self, status: int, data: bytes, **headers: str) -> None:
        """Send a whole answer; underscores in names of headers are hyphens."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def begin(self, **headers: str) -> None:
        """Begin an answer that ends when the connection does."""
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library names it
        """Say nothing."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of callers who go away."""


class TiledSite:
    """A server on a free port of 127.0.0.1, for as long as the context lasts."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.ended = threading.Event()
        self._scheme = "http"
        self._server = _Server(("127.0.0.1", 0), Handler)
        vars(self._server)["site"] = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        """The ledger's address."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def use_tls(self, pair: Pair) -> None:
        """Speak TLS from now on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        # The handshake is done in the thread of each request, not where all are taken.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._scheme = "https"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def put(self, register: str, entries: Sequence[bytes], note: bytes) -> None:
        """Serve a register of these entries, with the tiles that they make, whatever the note says of them.

        Narrower tiles that were served before stay (specs/tiles.md, section 5), and the checkpoint comes last:
        whoever reads it meanwhile finds all that it speaks of.
        """
        prefix = f"/logs/{register}"
        grown = extend(EMPTY, [leaf_hash(entry) for entry in entries])
        for tile in implied(len(entries)):
            _, hashes = grown.levels[TILE_HEIGHT * tile.level]
            start = tile.index * TILE_WIDTH
            self.files[f"{prefix}/{tile.path()}"] = b"".join(hashes[start : start + tile.width])
        for start in range(0, len(entries), TILE_WIDTH):
            index = start // TILE_WIDTH
            bundle = Bundle(index, implied_width(0, index, len(entries)))
            self.files[f"{prefix}/{bundle.path()}"] = encode_bundle(entries[start : start + TILE_WIDTH])
        self.files[f"{prefix}/checkpoint"] = note

    def list(self, registers: Iterable[str]) -> None:
        """Serve a list of registers."""
        members = {"registers": [{"name": name} for name in registers]}
        self.files["/registers.json"] = json.dumps(members).encode()


def endless(handler: Handler) -> None:
    """Answer without end."""
    handler.begin()
    while not handler.server.site.ended.is_set():
        handler.wfile.write(PIECE)


def silent(handler: Handler) -> None:
    """Begin to answer, and say no more."""
    handler.begin()
    handler.wfile.write(b"x")
    handler.server.site.ended.wait(60)


def bomb(handler: Handler) -> None:
    """Answer with a little that unpacks to 256 MiB."""
    handler.reply(200, _packed_zeros(), Content_Encoding="gzip")


@cache
def _packed_zeros() -> bytes:
    pack = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    return b"".join(pack.compress(bytes(1 << 20)) for _ in range(256)) + pack.flush()


def zipped(data: bytes) -> Answer:
    """Answer with data, compressed."""
    return lambda handler: handler.reply(200, gzip.compress(data), Content_Encoding="gzip")


def status(number: int, **headers: str) -> Answer:
    """Answer with a status."""
    return lambda handler: handler.reply(number, b"no\n", **headers)

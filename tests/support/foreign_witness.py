"""Witnesses that others wrote, as real processes on 127.0.0.1: omniwitness and litewitness.

    with omniwitness(programs, folder, log_list([vkey, ...])) as witness:
        ...whoever asks for cosignatures, at witness.url

`programs` is what tests/interop/foreign_build.py builds. omniwitness reads a log list; litewitness is told of
the same logs in its database, as its own command writes it. Both use a key that `daybook keygen` could have
made.
"""

from __future__ import annotations

import re
import secrets
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from ledger import base64
from ledger.ed25519 import SecretKey
from ledger.hashing import EMPTY_ROOT
from ledger.notes import SignerKey, VerifierKey
from ledger.witnessing import Witness
from services.local.ports import free_port

STARTUP: Final = 60.0
"""Seconds that a witness may take until it listens."""


@dataclass(frozen=True, slots=True)
class ForeignWitness:
    """A running witness: its name within policies, its key for cosignatures, and its submission prefix.

    `learn` gives it a log list that has more logs than the one before.
    """

    name: str
    key: VerifierKey
    url: str
    learn: Callable[[str], object]

    @property
    def witness(self) -> Witness:
        """What a policy says of it."""
        return Witness(self.name, self.key, self.url)

    @property
    def policy_line(self) -> str:
        """Its line in a witness policy file, without LF."""
        return f"witness {self.name} {self.key} {self.url}"


def log_list(vkeys: Iterable[str]) -> str:
    """Return a log list as a ledger's operator would publish it (witness.md, section 6)."""
    items = "".join(f"\nvkey {vkey}\nqpd 86400\ncontact operator@ledger.example\n" for vkey in vkeys)
    return f"# The registers of one ledger, each a log.\nlogs/v0\n{items}"


@contextmanager
def omniwitness(programs: Path, folder: Path, logs: str) -> Iterator[ForeignWitness]:
    """Run omniwitness of transparency-dev, which fetches the log list over HTTP; `folder` is empty or new."""
    key = _make_key(folder, "omniwitness.example/w")
    port = free_port()
    shown = [logs]
    with (
        _serving_last_of(shown) as list_url,
        _running(
            [
                *(programs / "omniwitness", "-private_key_path", folder / "key", "-db_file", folder / "db"),
                *("-listen", f"127.0.0.1:{port}", "-metrics_listen", "", "-http_timeout", "5s"),
                *("-public_witness_config_url", list_url, "-public_witness_config_poll_interval", "200ms"),
            ],
            folder,
        ) as witness,
    ):
        witness.wait(lambda: "Successfully merged public witness config" in witness.said())
        witness.wait(lambda: _listens(port))
        yield ForeignWitness("omniwitness", key.cosigner, f"http://127.0.0.1:{port}", shown.append)


@contextmanager
def litewitness(programs: Path, folder: Path, logs: str) -> Iterator[ForeignWitness]:
    """Run litewitness of torchwood, its key in an SSH agent of its own; `folder` is empty or new."""
    key = _make_key(folder, "litewitness.example/w")

    def learn(logs: str) -> None:
        with closing(sqlite3.connect(folder / "db", timeout=30)) as db, db:
            known = {origin for (origin,) in db.execute("SELECT origin FROM log")}
            for vkey in re.findall(r"^vkey (.*)$", logs, re.MULTILINE):
                origin = vkey.partition("+")[0]
                if origin not in known:
                    db.execute("INSERT INTO log VALUES (?, 0, ?)", (origin, base64.encode(EMPTY_ROOT)))
                    db.execute("INSERT INTO key VALUES (?, ?)", (origin, vkey))

    port = free_port()
    with (
        _agent(programs, folder) as fingerprint,
        _running(
            [
                *(programs / "litewitness", "-name", key.name, "-db", "db", "-ssh-agent", "agent"),
                *("-key", fingerprint, "-listen", f"127.0.0.1:{port}"),
            ],
            folder,
        ) as witness,
    ):
        witness.wait(lambda: _listens(port))
        assert str(key.cosigner) in witness.said()
        learn(logs)
        yield ForeignWitness("litewitness", key.cosigner, f"http://127.0.0.1:{port}", learn)


def _make_key(folder: Path, name: str) -> SignerKey:
    folder.mkdir(parents=True, exist_ok=True)
    key = SignerKey(name, SecretKey(secrets.token_bytes(32)))
    (folder / "key").write_text(f"{key.text()}\n", encoding="utf-8")
    return key


@contextmanager
def _agent(programs: Path, folder: Path) -> Iterator[str]:
    """Run an SSH agent that holds the folder's key, at the socket `agent` there; yield its fingerprint."""
    with subprocess.Popen(
        [programs / "keyagent", "agent", "key"],
        # A socket's path may have some hundred bytes, so it is named from within.
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        # Leaving closes its stdin, at which it ends.


@dataclass(frozen=True, slots=True)
class _Process:
    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so, while the process runs."""
        give_up = time.monotonic() + STARTUP
        while not is_so():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < give_up, self.said()
            time.sleep(0.02)


@contextmanager
def _running(command: Sequence[str | Path], folder: Path) -> Iterator[_Process]:
    log = folder / "log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
        ) as process,
    ):
        try:
            yield _Process(process, log)
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def _serving_last_of(texts: Sequence[str]) -> Iterator[str]:
    """Serve whatever text is the last, over HTTP at any free port; yield its address."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = texts[-1].encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/logs"
        finally:
            server.shutdown()
            thread.join()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True

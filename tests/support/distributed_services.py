"""A distributed ledger of real processes: broker, database, services, each of which a test may kill.

with distributed_ledger(tmp_path, kafka, postgres) as it:
    it.start("signer"); it.start("sequencer")
    it["sequencer"].kill(); it.start("sequencer")

It begins as an embedded ledger in a directory, with two witnesses where a test wants them, is moved onto Kafka
and PostgreSQL by the commands that an operator types, and in the end `settled` compares all with all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Protocol
from uuid import uuid4

import httpx
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ledger.reader import RegisterReader, TileCache
from ledger.store import Store
from ledger.stores.postgres import PostgresStore
from ledger.stores.sqlite import SqliteStore
from services.ledger_files import LedgerDirectory
from services.local.ports import free_port
from services.local.postgres import create_database
from tests.support.ledger_dir import LedgerOnDisk
from tests.support.service_process import GRACE

DAYBOOK: Final = [sys.executable, "-m", "services.cli"]
WRITING: Final = ("signer", "relay", "cosigner", "sequencer", "registration")
"""The services without which nothing is registered to the end."""

PATIENCE: Final = 60.0

STARTING: Final = 120.0
"""Seconds after which a service that is not ready is killed."""


class Broker(Protocol):
    """What is needed of a running Kafka."""

    @property
    def bootstrap(self) -> str:
        """HOST:PORT."""
        ...


class Database(Protocol):
    """What is needed of a running PostgreSQL."""

    @property
    def superuser_dsn(self) -> str:
        """The superuser's connection."""
        ...

    def dsn(self, database: str) -> str:
        """The superuser's connection to one database."""
        ...


class NotReadyError(Exception):
    """A service ended, with the exit status `status`, before it was ready."""

    def __init__(self, name: str, status: int, said: str) -> None:
        super().__init__(f"{name} ended with {status}: {said[-3000:]}")
        self.status = status
        self.said = said


@dataclass(slots=True)
class Running:
    """One service in a process of its own; its stderr goes to the file `log`."""

    name: str
    process: subprocess.Popen[str]
    log: Path
    addresses: Mapping[str, str]

    def kill(self) -> None:
        """SIGKILL; nothing of it runs any more on return."""
        self.process.kill()
        self.process.wait(30)

    def terminate(self) -> int:
        """SIGTERM; return the exit status."""
        self.process.terminate()
        return self.process.wait(120)

    def pause(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait until it ends by itself; return the exit status."""
        return self.process.wait(seconds)

    def said(self) -> str:
        """Return what it has logged."""
        return self.log.read_text(encoding="utf-8")

    def standing(self) -> dict[str, Any]:
        """Return what /readyz tells."""
        return dict(httpx.get(f"http://{self.addresses['ops']}/readyz", timeout=60).json())

    def metrics(self) -> dict[str, float]:
        """Return what /metrics tells, by name and labels."""
        lines = httpx.get(f"http://{self.addresses['ops']}/metrics", timeout=60).text.splitlines()
        told = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name: float(value) for name, _, value in told}


@dataclass(slots=True)
class DistributedLedger:
    """The ledger, its settings, and the services that run, by name."""

    root: Path
    ledger: LedgerOnDisk
    broker: Broker
    database: Database
    name: str
    settings: dict[str, str]
    services: dict[str, Running] = field(default_factory=dict)
    addresses: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Where each was first, by name: there it listens whenever it is started again."""

    def __getitem__(self, name: str) -> Running:
        return self.services[name]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every service and command."""
        told = {f"DAYBOOK_{name}": value for name, value in self.settings.items()}
        return {**os.environ, "PYTHONFAULTHANDLER": "1", **told}

    def daybook(self, *arguments: str | Path, status: int = 0) -> dict[str, Any]:
        """Run a command with --json and return what it says; it must end with `status`."""
        done = subprocess.run(
            [*DAYBOOK, *map(str, arguments), "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def launch(self, service: str, name: str | None = None, **settings: str) -> subprocess.Popen[str]:
        """Start a service and return at once."""
        told = {f"DAYBOOK_{key.upper()}": value for key, value in settings.items()}
        with self._log(name or service).open("a", encoding="utf-8") as errors:
            return subprocess.Popen(
                [*DAYBOOK, "run", service, *self._listening(service, name or service)],
                env={**self.environment, **told},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def start(self, service: str, name: str | None = None, **settings: str) -> Running:
        """Start a service under a name, by default its own, and wait until it is ready."""
        known = name or service
        process = self.launch(service, known, **settings)
        stdout: IO[str] | None = process.stdout
        assert stdout is not None
        killing = threading.Timer(STARTING, process.kill)
        killing.start()
        line = stdout.readline()
        killing.cancel()
        stdout.close()  # it says nothing more: why it ends goes to stderr
        if not line.startswith(_READY):
            status = process.wait(30)
            raise NotReadyError(known, status, line + self._log(known).read_text()[-30_000:])
        addresses = dict(pair.split("=", 1) for pair in line.removeprefix(_READY).split())
        running = Running(known, process, self._log(known), addresses)
        self.services[known] = running
        self.addresses.setdefault(known, running.addresses)
        return running

    def start_all(self, services: Sequence[str] = WRITING) -> None:
        """Start services, one after the other."""
        for service in services:
            self.start(service)

    def keep_alive(self, service: str) -> Running:
        """Start a service anew where it has ended, as a supervisor does."""
        running = self.services[service]
        return running if running.process.poll() is None else self.start(service)

    def stop_all(self) -> None:
        """Stop every service: whoever accepts first, whoever signs last."""
        for name in sorted(self.services, key=lambda each: _STOPPED_LAST.get(each, 0)):
            running = self.services.pop(name)
            if running.process.poll() is None:
                running.resume()
                running.process.terminate()
                try:
                    running.process.wait(120)
                except subprocess.TimeoutExpired:
                    running.kill()

    def store(self) -> PostgresStore:
        """Return the store, to read from; the caller closes it."""
        return PostgresStore(self.database.dsn(self.name), read_only=True)

    def until(self, told: Callable[[Store], bool], what: str, seconds: float = PATIENCE) -> None:
        """Wait until something is true of the store."""
        store = self.store()
        try:
            end = time.monotonic() + seconds
            while not told(store):
                assert time.monotonic() < end, f"not in {seconds:.0f} s: {what}; heads {store.heads()}"
                time.sleep(0.05)
        finally:
            store.close()

    def settled(self) -> Path:
        """Compare the store, the topic, and an embedded ledger that is made from the export; return its root.

        Nothing may run meanwhile. Every signed size has one root in all of them.
        """
        self.stop_all()
        assert self.daybook("rebuild", "--from", "kafka", "--check") is not None
        return self.copied()

    def copied(self) -> Path:
        """Check the store, and make an embedded ledger from its export; return the root of that.

        Nothing may run meanwhile. Every signed size has one root in both.
        """
        self.stop_all()
        self.daybook("fsck", "--database")
        exported, copy = self.root / f"{uuid4().hex}.export", self.root / uuid4().hex
        policy = self.root / "policy"
        policy.write_bytes(self.ledger.policy.text())
        self.daybook("export", "--from-database", exported)
        self.daybook("import", copy, exported, "--policy", policy)
        mine, theirs = self.store(), SqliteStore(LedgerDirectory(copy).store)
        try:
            assert _roots(mine) == _roots(theirs)
        finally:
            mine.close()
            theirs.close()
        return copy

    def _log(self, name: str) -> Path:
        return self.root / f"{name}.log"

    def _listening(self, service: str, name: str) -> list[str]:
        option = _LISTENING.get(service)
        return [] if option is None else [f"--{option}", self.addresses.get(name, {}).get(option, ANY_PORT)]


_READY: Final = "daybook ready "

ANY_PORT: Final = "127.0.0.1:0"

_LISTENING: Final = {"registration": "grpc", "audit": "grpc", "tiles": "http"}

_STOPPED_LAST: Final = {"sequencer": 1, "cosigner": 2, "relay": 3, "signer": 4}


def _roots(store: Store) -> dict[str, dict[int, bytes]]:
    """Return every register's root, computed from tiles, at every size of which there is a note."""
    found: dict[str, dict[int, bytes]] = {}
    for register, head in store.heads().items():
        reader = RegisterReader(store, register, TileCache())
        sizes = [note.size for note in store.notes(register, 0, head.size + 1)]
        found[register] = {size: bytes(reader.root(size)) for size in (*sizes, head.size)}
    return found


@contextmanager
def distributed_ledger(
    root: Path, ledger: LedgerOnDisk, broker: Broker, database: Database, **settings: str
) -> Iterator[DistributedLedger]:
    """Move an embedded ledger onto a broker and a database, and stop its services in the end."""
    root.mkdir(parents=True, exist_ok=True)
    name = f"daybook_{uuid4().hex[:12]}"
    create_database(database.superuser_dsn, name)
    told = conninfo_to_dict(database.dsn(name))
    password = root / "database.password"
    password.write_text(str(told.pop("password")), encoding="utf-8")
    password.chmod(0o600)
    it = DistributedLedger(
        root,
        ledger,
        broker,
        database,
        name,
        {
            "ORIGIN": ledger.policy.ledger_origins[0],
            "KAFKA": broker.bootstrap,
            "TOPIC_PREFIX": f"{name}.",
            "PARTITIONS": "4",
            "DATABASE": make_conninfo("", **told),
            "DATABASE_PASSWORD_FILE": str(password),
            "LOG_KEY": str(ledger.directory.log_key),
            "ACKNOWLEDGEMENT_KEY": str(ledger.directory.acknowledgement_key),
            "SIGNER": f"127.0.0.1:{free_port()}",
            "SIGNER_MARKS": str(root / "signer.marks"),
            "ANCHOR_SECONDS": "2",
            "GRACE_SECONDS": str(GRACE),
            **{key.upper(): value for key, value in settings.items()},
        },
    )
    try:
        begun = root / "begun.export"
        it.daybook("export", ledger.root, begun)
        it.daybook("migrate")
        it.daybook("topics")
        it.daybook("import", begun, "--kafka")
        it.daybook("rebuild", "--from", "kafka", "--signer-marks", root / "signer.marks")
        yield it
    finally:
        it.stop_all()

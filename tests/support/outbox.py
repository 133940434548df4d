"""A database with an outbox, topics, and services over both as processes: for tests of single services."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import psycopg
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ledger.stores.postgres import APPLICATION_ROLE, READER_ROLE, PostgresStore, migrate
from services.distributed.projection import migrate_projection
from services.distributed.settings import DistributedSettings
from services.distributed.topics import create_topics
from tests.support.patched import daybook
from tests.support.service_process import GRACE

PARTITIONS: Final = 4
PATIENCE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Ground:
    """What services of one ledger stand on: a migrated database, topics, and how they are told of both."""

    database: str
    settings: DistributedSettings
    environment: Mapping[str, str]
    folder: Path

    @classmethod
    async def laid(cls, folder: Path, bootstrap: str, prefix: str, database: str, **more: Any) -> Self:
        """Migrate the database, create the topics."""
        migrate(database)
        migrate_projection(database, writer=APPLICATION_ROLE, reader=READER_ROLE)
        await create_topics(bootstrap, PARTITIONS, prefix=prefix)
        told = conninfo_to_dict(database)
        password = folder / "database.password"
        password.write_text(f"{told.pop('password', '')}\n", encoding="utf-8")
        values = {
            "origin": "ledger.test",
            "kafka": bootstrap,
            "topic_prefix": prefix,
            "partitions": PARTITIONS,
            "database": make_conninfo(**told),  # type: ignore[arg-type]
            "database_password_file": str(password),
            **more,
        }
        environment = {f"DAYBOOK_{name.upper()}": str(value) for name, value in values.items()}
        return cls(database, DistributedSettings(**values), environment, folder)

    def store(self) -> PostgresStore:
        """Open the store as the owner; the caller closes it."""
        return PostgresStore(self.database)

    @contextmanager
    def refusing(self, what: str, table: str) -> Iterator[None]:
        """Take a right away from the services while the block runs."""
        role, names = sql.Identifier(self.settings.database_role), (sql.SQL(what), sql.Identifier(table))
        with psycopg.connect(self.database, autocommit=True) as connection:
            connection.execute(sql.SQL("REVOKE {} ON {} FROM {}").format(*names, role))
            try:
                yield
            finally:
                connection.execute(sql.SQL("GRANT {} ON {} TO {}").format(*names, role))

    def end_connections(self, application: str) -> None:
        """End every connection to the database that calls itself so, from the server's side."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = %s AND datname = current_database()",
                (application,),
            )


@dataclass(slots=True)
class Process:
    """One service; its stderr goes to the file `log`."""

    process: subprocess.Popen[str]
    addresses: Mapping[str, str]
    log: Path

    @property
    def ops(self) -> str:
        """HOST:PORT of its readiness."""
        return self.addresses["ops"]

    def kill(self) -> None:
        """SIGKILL; nothing of it runs any more on return."""
        self.process.kill()
        self.process.wait(30)

    def terminate(self) -> int:
        """SIGTERM; return the exit status."""
        self.process.terminate()
        return self.process.wait(120)

    async def readiness(self) -> tuple[int, dict[str, Any]]:
        """Return the status and body of /readyz."""
        async with aiohttp.ClientSession() as session, session.get(f"http://{self.ops}/readyz") as answer:
            return answer.status, await answer.json()


@contextmanager
def service(
    ground: Ground,
    name: str,
    *options: str,
    constants: Any = None,
    **settings: object,
) -> Iterator[Process]:
    """Run `daybook run NAME`, with `constants` as `patched` sets them, and wait until it is ready.

    It is killed when the block ends.
    """
    log = ground.folder / f"{name}-{time.monotonic_ns()}.log"
    told = {f"DAYBOOK_{key.upper()}": str(value) for key, value in settings.items()}
    with log.open("a", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [*daybook(constants or {}), "run", name, *options, "--json"],
            env={**os.environ, "DAYBOOK_GRACE_SECONDS": str(GRACE), **ground.environment, **told},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line.startswith('{"ready"'):
            said = line + process.stdout.read() + log.read_text()[-3000:]
            raise AssertionError(f"{name} ended with {process.wait(30)}: {said}")
        yield Process(process, json.loads(line), log)
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()


class Topic:
    """Reads a topic from its beginning, in the order of each partition."""

    def __init__(self, ground: Ground, name: str) -> None:
        self._name = ground.settings.topic_prefix + name
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=ground.settings.kafka, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        self.read: list[ConsumerRecord[bytes, bytes]] = []

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        self._consumer.assign([TopicPartition(self._name, each) for each in range(PARTITIONS)])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def until(self, count: int) -> list[ConsumerRecord[bytes, bytes]]:
        """Read until there are `count` messages at least; return all."""
        deadline = time.monotonic() + PATIENCE
        while len(self.read) < count:
            assert time.monotonic() < deadline, f"{len(self.read)} of {count} messages"
            await self.more()
        return self.read

    async def more(self, wait_ms: int = 100) -> None:
        """Read what is there, for a moment."""
        for records in (await self._consumer.getmany(timeout_ms=wait_ms)).values():
            self.read += records

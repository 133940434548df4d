"""`make distributed`: the demo's data through the distributed ledger, and back into one process.

A real Kafka broker, a real PostgreSQL, two witnesses and every service run on this computer, on loopback, in
a temporary directory. In the end an embedded ledger is made from the event log, and every register has the
same root in both, at every size that was ever signed.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from psycopg.conninfo import make_conninfo

from ledger.reader import RegisterReader, TileCache
from ledger.store import Store
from ledger.stores.postgres import PostgresStore
from ledger.stores.sqlite import SqliteStore
from services.cli.run import Service
from services.demo import curated
from services.demo.steps import (
    ORIGIN,
    DemoError,
    daybook,
    open_registers,
    registering,
    say,
    serving,
    start_witnesses,
    verify_all,
    write_records,
)
from services.local.kafka import Kafka, KafkaMissingError, kafka
from services.local.ports import free_port
from services.local.postgres import Postgres, PostgresMissingError, postgres

_DATABASE: Final = "daybook"

_ORDER: Final = (
    Service.SIGNER,
    Service.RELAY,
    Service.COSIGNER,
    Service.SEQUENCER,
    Service.ANCHORER,
    Service.PROJECTOR,
    Service.TILES,
    Service.AUDIT,
    Service.REGISTRATION,
)
"""The order in which the services are started. Any other would do: each waits for what it needs."""


def main() -> int:
    """Run the demo; return 0 when every step ended as it must."""
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="daybook-distributed-") as folder:
            _run(Path(folder))
    except (KafkaMissingError, PostgresMissingError) as error:
        print(f"\nThe demo cannot run here: {error}", file=sys.stderr)
        return 3
    except DemoError as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    print(
        f"\nDone in {time.monotonic() - began:.0f} s: every step ended as it must, and everything is stopped."
    )
    return 0


def _run(folder: Path) -> None:
    with ExitStack() as running:
        # First: where one of them is missing, nothing else is begun.
        broker, database = (
            running.enter_context(kafka(folder / "kafka")),
            running.enter_context(_database(folder)),
        )
        say("1. A ledger in a directory: its keys, its governing register, two witnesses, the registers.")
        daybook(folder, "init", "ledger", "--origin", ORIGIN, "--operator", "The demo")
        start_witnesses(folder, running)
        departments = open_registers(folder)
        (folder / "policy").write_text(daybook(folder, "policy", "ledger", quiet=True), encoding="utf-8")
        daybook(folder, "export", "ledger", "begun.export")

        say("2. Kafka and PostgreSQL, and the ledger moved onto them: its event log first, all else from that.")
        settings = _settings(folder, broker, database)
        for command in (
            ("migrate",),
            ("topics",),
            ("import", "begun.export", "--kafka"),
            ("rebuild", "--from", "kafka", "--signer-marks", "signer.marks"),
        ):
            daybook(folder, *command, settings=settings)

        say("3. The services: each one a process that may be killed at any moment.")
        addresses = {}
        for service in _ORDER:
            addresses[service] = running.enter_context(
                serving(
                    *("run", service, *_ports(service), "--json"),
                    settings=settings,
                    log=folder / f"{service}.log",
                )
            )
            places = {name: at for name, at in addresses[service].items() if name in ("grpc", "http", "ops")}
            print(f"  {service}: {', '.join(f'{name} {at}' for name, at in places.items())}", flush=True)

        say("4. The departments sign and register, as they would with one process; each answer is verified.")
        server = addresses[Service.REGISTRATION]
        for register, path in write_records(folder).items():
            daybook(folder, *registering(server, register, departments, path))
        verify_all(folder, sorted(folder.glob("receipts/**/*.receipt")))

        say("5. A monitor follows it over HTTP, and derives every root again.")
        url = f"http://{addresses[Service.TILES]['http']}"
        daybook(folder, "monitor", url, "--policy", "policy", "--state", "monitor", "--once")

        say("6. The event log is read again from the first message, and compared with the database.")
        daybook(folder, "rebuild", "--from", "kafka", "--check", settings=settings)

        say("7. The event log is exported, and imported into an empty ledger of one process.")
        daybook(folder, "export", "--from-database", "after.export", settings=settings)
        daybook(folder, "import", "copy", "after.export", "--policy", "policy")
        compared = _compare(folder, settings)
        print(f"\nEqual roots: {compared} signed sizes of {len(curated.registers()) + 1} registers.")


def _settings(folder: Path, broker: Kafka, database: Postgres) -> Mapping[str, str]:
    """Return the settings of every service, as an operator would put them into the environment."""
    password = folder / "database.password"
    password.write_text(database.password, encoding="utf-8")
    password.chmod(0o600)
    told = {
        "ORIGIN": ORIGIN,
        "KAFKA": broker.bootstrap,
        "PARTITIONS": "4",
        "DATABASE": database.dsn(_DATABASE, password=""),
        "DATABASE_PASSWORD_FILE": str(password),
        "SIGNER": f"127.0.0.1:{free_port()}",
        "LOG_KEY": str(folder / "ledger/keys/log"),
        "ACKNOWLEDGEMENT_KEY": str(folder / "ledger/keys/acknowledgements"),
        "SIGNER_MARKS": str(folder / "signer.marks"),
        # Every service must end in order here, also where the disk is slow.
        "GRACE_SECONDS": "60",
    }
    return {f"DAYBOOK_{name}": value for name, value in told.items()}


@contextmanager
def _database(folder: Path) -> Iterator[Postgres]:
    with postgres(folder / "postgres") as running:
        running.create_database(_DATABASE)
        yield running


def _ports(service: Service) -> tuple[str, ...]:
    if service in (Service.REGISTRATION, Service.AUDIT):
        return ("--grpc", "127.0.0.1:0")
    return ("--http", "127.0.0.1:0") if service is Service.TILES else ()


def _compare(folder: Path, settings: Mapping[str, str]) -> int:
    """Compare every root of the two ledgers, each computed from its own tiles; return how many there were."""
    dsn = make_conninfo(settings["DAYBOOK_DATABASE"], password=(folder / "database.password").read_text())
    mine, theirs = PostgresStore(dsn, read_only=True), SqliteStore(folder / "copy/daybook.sqlite3")
    try:
        roots, copied = _roots(mine), _roots(theirs)
    finally:
        mine.close()
        theirs.close()
    if roots != copied:
        raise DemoError("the two ledgers have different roots")
    return len(roots)


def _roots(store: Store) -> dict[tuple[str, int], bytes]:
    """Return every register's root at every size that was ever signed."""
    return {
        (register, note.size): RegisterReader(store, register, TileCache()).root(note.size)
        for register, head in store.heads().items()
        for note in store.notes(register, 0, head.size + 1)
    }


if __name__ == "__main__":
    sys.exit(main())

"""Kafka, PostgreSQL and the calls between services over TLS, and nothing where a certificate is not accepted.

The brokers and the database listen for nothing but TLS, and demand a certificate of every client: so what
works here works with TLS.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import pytest
from daybook.submission.v1 import submission_pb2
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from services.client.answers import Answer, Registered
from services.client.channels import Tls
from services.client.client import connect
from services.client.errors import UnavailableError
from services.local.kafka import Kafka, has_brokers
from services.local.tls import ServerTls
from tests.support.brokers import started_kafka, started_postgres
from tests.support.certificates import Issuer, Pair, make_issuer
from tests.support.distributed_load import DistributedLoad
from tests.support.distributed_services import DAYBOOK, WRITING, DistributedLedger, distributed_ledger
from tests.support.ledger_dir import make_ledger
from tests.support.ledgers import DEPARTMENT_KEY, REGISTER

WITH_KAFKA: Final = (
    "sequencer",
    "relay",
    "cosigner",
    "anchorer",
    "projector",
    "registration",
    "audit",
    "tiles",
)
SERVICES: Final = ("signer", *WITH_KAFKA)
UNREACHABLE: Final = 3
PATIENCE: Final = 60.0


@dataclass(frozen=True, slots=True)
class World:
    """A distributed ledger over TLS; who issued its certificates, and somebody whom nobody trusts."""

    it: DistributedLedger
    issuer: Issuer
    mine: Pair
    strangers: Issuer
    stranger: Pair

    @property
    def tls(self) -> Tls:
        """What a department needs."""
        files = (self.issuer.pair.certificate, self.mine.certificate, self.mine.key)
        return Tls(*(each.read_bytes() for each in files))

    def database(self, **parts: str) -> str:
        """Return the database's connection string with other parts."""
        given = {name: str(value) for name, value in conninfo_to_dict(self.it.settings["DATABASE"]).items()}
        return make_conninfo("", **{**given, **parts})

    def ended(
        self, command: Sequence[str], settings: Mapping[str, str], without: Sequence[str] = ()
    ) -> tuple[int, str, list[str]]:
        """Run a command with other settings; return its status, what it said last, and its log before."""
        told = {f"DAYBOOK_{name.upper()}": value for name, value in settings.items()}
        environment = {**self.it.environment, **told}
        for name in without:
            del environment[f"DAYBOOK_{name.upper()}"]
        # Whoever tried for ever would be ended here.
        done = subprocess.run(
            [*DAYBOOK, *command], env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        *log, last = done.stderr.splitlines()
        return done.returncode, last, log


@contextmanager
def world_of(folder: Path, *, demands_certificates: bool) -> Iterator[World]:
    """Start all that a ledger needs, without its services."""
    issuer, strangers = make_issuer(folder / "issuer"), make_issuer(folder / "strangers")
    server = issuer.issue("server", "IP:127.0.0.1")
    mine, stranger = issuer.issue("service", "IP:127.0.0.1"), strangers.issue("stranger", "IP:127.0.0.1")
    trusted = str(issuer.pair.certificate)
    tls = ServerTls(issuer.pair.certificate, server.certificate, server.key, demands_certificates)
    settings = {
        "kafka_ca": trusted,
        "tls_certificate": str(mine.certificate),
        "tls_key": str(mine.key),
        "client_ca": trusted,
    }
    if demands_certificates:
        settings |= {"kafka_certificate": str(mine.certificate), "kafka_key": str(mine.key)}
    ledger = make_ledger(folder / "ledger")
    with (
        started_kafka(folder / "kafka", tls=tls) as broker,
        started_postgres(folder / "postgres", tls=tls) as database,
        distributed_ledger(folder / "services", ledger, broker, database, **settings) as it,
    ):
        yield World(it, issuer, mine, strangers, stranger)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """With certificates on both sides."""
    with world_of(tmp_path_factory.mktemp("tls"), demands_certificates=True) as made:
        yield made


async def registered(world: World, tls: Tls | None) -> Answer:
    """Register one record over gRPC, and return what was proved."""
    it = world.it
    load = DistributedLoad(it.ledger, random.Random(1))
    async with connect(
        it["registration"].addresses["grpc"],
        policy=it.ledger.policy,
        register=REGISTER,
        key=DEPARTMENT_KEY,
        tls=tls,
        timeout=5,
    ) as client:
        return await client.submit(
            load.sign(REGISTER, 1), wait_for=submission_pb2.WAIT_FOR_SEQUENCED, timeout=PATIENCE
        )


@pytest.mark.parametrize("demands_certificates", [True, False], ids=["mutual", "server"])
def test_a_record_is_sequenced_with_tls_on_every_way(
    demands_certificates: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """False if a service reached Kafka, PostgreSQL or the signer only without TLS, or not at all."""
    with ExitStack() as stack:
        if demands_certificates:
            world = request.getfixturevalue("world")
        else:
            world = stack.enter_context(world_of(tmp_path, demands_certificates=False))
        try:
            world.it.start_all(SERVICES if demands_certificates else WRITING)
            answer = asyncio.run(registered(world, world.tls))
            assert isinstance(answer, Registered)
            # gRPC demands a certificate of every caller, and tells nothing without TLS.
            for outsider in (Tls(world.issuer.pair.certificate.read_bytes()), None):
                with pytest.raises(UnavailableError):
                    asyncio.run(registered(world, outsider))
        finally:
            world.it.stop_all()


KAFKA_FAULTS: Final = {
    "issuer": r"its certificate is not accepted \(unable to get local issuer certificate\)",
    "name": r"its certificate is not accepted \(Hostname mismatch.*\)",
    "stranger": r"it ends the connection \(.*certificate.*\): does it accept kafka_certificate\?",
    "nobody": r"it ends the connection \(.*certificate.*\): does it want a kafka_certificate\?",
    "no TLS": r"it ends the connection: does it want TLS\? Then set kafka_ca",
}
"""What is said of each; the words of OpenSSL differ from version to version."""


def kafka_fault(world: World, fault: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return settings that cannot work, and the names of those that are left out."""
    match fault:
        case "issuer":
            return {"kafka_ca": str(world.strangers.pair.certificate)}, ()
        case "name":
            return {"kafka": world.it.broker.bootstrap.replace("127.0.0.1", "localhost")}, ()
        case "stranger":
            return {
                "kafka_certificate": str(world.stranger.certificate),
                "kafka_key": str(world.stranger.key),
            }, ()
        case "nobody":
            return {}, ("kafka_certificate", "kafka_key")
        case _:
            return {}, ("kafka_ca", "kafka_certificate", "kafka_key")


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        *((("topics", "--check"), fault) for fault in KAFKA_FAULTS),
        (("rebuild", "--from", "kafka", "--check"), "issuer"),
        (("export", "--kafka", "unwritten"), "issuer"),
    ],
)
def test_a_command_says_which_certificate_kafka_or_we_do_not_accept(
    world: World, command: tuple[str, ...], fault: str
) -> None:
    """False if it went on without TLS, tried for ever, or left an operator to guess."""
    settings, without = kafka_fault(world, fault)
    status, last, before = world.ended(command, settings, without)
    assert status == UNREACHABLE
    address = settings.get("kafka", world.it.broker.bootstrap)
    assert re.fullmatch(f"Kafka cannot be reached: {address}: {KAFKA_FAULTS[fault]}", last)
    assert before == []


@pytest.mark.parametrize(
    ("service", "fault"),
    [*((service, "issuer") for service in WITH_KAFKA), ("sequencer", "name"), ("sequencer", "stranger")],
)
def test_a_service_ends_where_kafka_or_we_do_not_accept_a_certificate(
    world: World, service: str, fault: str
) -> None:
    """False if a service went on without TLS, or tried for ever."""
    settings, without = kafka_fault(world, fault)
    status, last, before = world.ended(("run", service), settings, without)
    assert status == UNREACHABLE
    address = settings.get("kafka", world.it.broker.bootstrap)
    assert re.fullmatch(f"Kafka cannot be reached: {address}: {KAFKA_FAULTS[fault]}", last)
    for line in before:
        json.loads(line)


def test_a_broker_that_names_itself_otherwise_than_its_certificate_is_not_tried_for_ever(world: World) -> None:
    """False if the first broker's certificate alone were looked at, or it were tried again without a word."""
    broker = world.it.broker
    assert isinstance(broker, Kafka)
    broker.stop()
    broker.name = "localhost"
    try:
        broker.start()
        ended = [
            world.ended(command, {})
            for command in (("topics", "--check"), ("run", "relay"), ("run", "registration"))
        ]
    finally:
        broker.stop()
        broker.name = "127.0.0.1"
        broker.start()
    for status, last, _ in ended:
        assert status == UNREACHABLE
        assert last.startswith("Kafka answers, but: Unable connect to node with id 1: ")
        assert "Hostname mismatch" in last


POSTGRES_FAULTS: Final = {
    "issuer": "certificate verify failed",
    "name": 'does not match host name "localhost"',
    "stranger": "alert unknown ca",
    "no TLS": "no encryption",
}


def postgres_fault(world: World, fault: str) -> str:
    """Return a connection string that cannot work."""
    match fault:
        case "issuer":
            return world.database(sslrootcert=str(world.strangers.pair.certificate))
        case "name":
            return world.database(host="localhost", hostaddr="127.0.0.1")
        case "stranger":
            return world.database(sslcert=str(world.stranger.certificate), sslkey=str(world.stranger.key))
        case _:
            return world.database(sslmode="disable")


@pytest.mark.parametrize(
    ("command", "fault"),
    [*((("migrate",), fault) for fault in POSTGRES_FAULTS), (("fsck", "--database"), "name")],
)
def test_a_command_ends_where_postgresql_or_we_do_not_accept_a_certificate(
    world: World, command: tuple[str, ...], fault: str
) -> None:
    """False if a password went to another server than the operator's, or the reason were not told."""
    status, last, before = world.ended(command, {"database": postgres_fault(world, fault)})
    assert status == UNREACHABLE
    assert last.startswith("PostgreSQL: ")
    assert POSTGRES_FAULTS[fault] in last
    assert before == []


@pytest.mark.parametrize("service", WITH_KAFKA)
def test_a_service_ends_where_the_database_is_another(world: World, service: str) -> None:
    """False if it worked with whoever answers at that address."""
    status, last, _ = world.ended(("run", service), {"database": postgres_fault(world, "name")})
    assert status == UNREACHABLE
    assert last.startswith("PostgreSQL: ")
    assert POSTGRES_FAULTS["name"] in last


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("kafka_ca",), "holds no PEM certificates"),
        (("kafka_certificate", "kafka_key"), "are not a PEM certificate and its private key, unencrypted"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    world: World, tmp_path: Path, names: tuple[str, ...], said: str
) -> None:
    """False if somebody were told of a file without its name, or asked on a terminal that a service lacks."""
    unusable = tmp_path / "unusable"
    for content, expected in ((b"this is none", said), (None, "No such file or directory")):
        if content is None:
            unusable.unlink()
        else:
            unusable.write_bytes(content)
        status, last, _ = world.ended(("topics", "--check"), dict.fromkeys(names, str(unusable)))
        assert status == 2
        assert last.startswith(names[0])
        assert str(unusable) in last
        assert expected in last


def test_the_broker_and_the_database_take_nobody_without_tls(world: World) -> None:
    """False if what worked above could have worked without TLS."""
    port = int(world.it.broker.bootstrap.rpartition(":")[2])
    assert not has_brokers(port)
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        psycopg.connect(make_conninfo(world.it.database.superuser_dsn, sslmode="disable"))

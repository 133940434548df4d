"""How a server ends and begins: SIGTERM under load, one writer for a directory, TLS or loopback."""

from __future__ import annotations

import asyncio
import random
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import grpc.aio
import httpx
import pytest
from daybook.audit.v1 import audit_service_pb2 as audit
from daybook.registration.v1 import registration_service_pb2 as pb
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ledger.receipts import verify_receipt
from ledger.stores.sqlite import SqliteStore
from services.client.client import message_of
from services.client.errors import from_rpc_error
from services.client.signing import SignedSubmission, sign_submission
from tests.support import records
from tests.support.calling import Caller, assert_refused, calling
from tests.support.certificates import Issuer, Pair, make_issuer
from tests.support.journal import Journal, compare
from tests.support.ledger_dir import LedgerOnDisk, make_ledger
from tests.support.ledgers import DEPARTMENT_KEY, ORIGIN, REGISTER
from tests.support.load import PATIENCE, Load
from tests.support.server_process import (
    ANY_PORT,
    Server,
    assert_fsck_finds_nothing,
    refusal,
    running,
)

pytestmark = [pytest.mark.hammer, pytest.mark.timeout(600)]

CODE = grpc.StatusCode
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

GRACE = 300.0
"""Seconds that calls under way are given: no stop that waits for them is over when Server.wait() gives up."""


@pytest.fixture(autouse=True)
def _grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYBOOK_GRACE_SECONDS", str(GRACE))


@pytest.fixture
def ledger(tmp_path: Path) -> LedgerOnDisk:
    """Return a new ledger."""
    return make_ledger(tmp_path / "ledger")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return where servers write what they log."""
    return tmp_path / "serve.log"


def signed() -> SignedSubmission:
    """Return a new decision, signed."""
    data = records.decision_bytes(register=REGISTER, record_id=str(uuid4()))
    return sign_submission([data], f"{ORIGIN}/{REGISTER}", [DEPARTMENT_KEY])


# SIGTERM


async def test_a_stop_under_load_answers_all_that_it_accepted(ledger: LedgerOnDisk, log: Path) -> None:
    """If false, an operator's restart would leave departments with records that they do not know of.

    Just that: every submission that stands in a register when the process has ended was answered to the one
    who sent it, although calls were under way in every way there is.
    """
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    load = Load(ledger, random.Random(seed))
    with running(ledger.root, log) as server:
        async with load.on(server.grpc):
            await load.answered()
            await asyncio.sleep(load.draw.uniform(0.2, 1.0))
            status = await asyncio.to_thread(server.terminate)
            registered = _registered(ledger)
            # The last answers may still be on their way through this process: a client that has its answer
            # asks for the key's evidence too, until its time is over, before it hands the answer on.
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE + 5):
                    while registered - _answered(load.journal):
                        await load.answered()
    assert status == 0, server.errors()
    assert registered - _answered(load.journal) == set()
    compare(load.journal, ledger)
    assert_fsck_finds_nothing(ledger.root)


def _answered(journal: Journal) -> set[str]:
    return {answer.submission.submission_id for answer in journal.answers}


def _registered(ledger: LedgerOnDisk) -> set[str]:
    """Return the ids of all submissions in departments' registers."""
    store = SqliteStore(ledger.directory.store)
    try:
        names = [name for name in store.heads() if "/" in name]
        return {key.hex() for name in names for key, _ in store.all_submissions(name)}
    finally:
        store.close()


async def test_a_stop_keeps_the_note_of_every_checkpoint_that_was_shown(
    ledger: LedgerOnDisk, log: Path
) -> None:
    """If false, a checkpoint that an auditor holds could not be shown again."""
    load = Load(ledger, random.Random(1))
    with running(ledger.root, log) as server:
        async with load.on(server.grpc):
            for _ in range(50):
                await load.answered()
            server.ask_to_stop()
            assert await asyncio.to_thread(server.wait) == 0
    store = SqliteStore(ledger.directory.store)
    try:
        for register, head in store.heads().items():
            notes = {note.note for note in store.notes(register, 0, head.size + 1)}
            latest = store.note(register, head.size)
            assert latest is not None
            assert latest.size == head.size
            assert load.journal.notes.get(register, set()) <= notes
    finally:
        store.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_does_not_wait_for_those_who_watch_and_tells_them(
    ledger: LedgerOnDisk, log: Path, number: signal.Signals
) -> None:
    """If false, each open watch or idle stream would hold up every restart, and then be cut off."""
    with running(ledger.root, log) as server:
        async with calling(server.grpc) as caller:
            await caller.register(signed())
            watching = caller.audit.WatchCheckpoints(audit.WatchCheckpointsRequest(register=REGISTER))
            assert (await watching.read()).size == 1
            stream = caller.registration.RegisterStream()
            request = pb.RegisterRequest(submission=message_of(signed()))
            await stream.write(pb.RegisterStreamRequest(tag=1, request=request))
            assert (await stream.read()).tag == 1
            health: Any = health_pb2_grpc.HealthStub(caller.channel)
            watched = health.Watch(health_pb2.HealthCheckRequest(service=""))
            assert (await watched.read()).status == SERVING

            server.process.send_signal(number)
            assert {response.status for response in await rest(watched)} == {NOT_SERVING}
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await rest(watching)
            assert_refused(from_rpc_error(ended.value), CODE.UNAVAILABLE, "DRAINING")
            assert await rest(stream) == []
            assert await stream.code() is CODE.OK
            assert await asyncio.to_thread(server.wait) == 0


async def rest(call: Any) -> list[Any]:
    """Read a stream to its end."""
    responses = []
    while (response := await call.read()) is not grpc.aio.EOF:
        responses.append(response)
    return responses


async def test_a_server_that_has_stopped_starts_again_where_it_was(ledger: LedgerOnDisk, log: Path) -> None:
    """If false, a stop would lose the end of the register."""
    submission = signed()
    with running(ledger.root, log) as server:
        async with calling(server.grpc) as caller:
            first = await caller.register(submission)
        assert server.terminate() == 0
    with running(ledger.root, log) as server:
        async with calling(server.grpc) as caller:
            again = await caller.register(submission)
            assert (again.already_registered, again.note) == (True, first.note)
            assert (again.first_index, again.checkpoint) == (first.first_index, first.checkpoint)
        assert server.terminate() == 0


# One writer


async def test_a_second_server_is_refused_and_the_first_goes_on(
    ledger: LedgerOnDisk, log: Path, tmp_path: Path
) -> None:
    """If false, two writers would fork the register (promise P3)."""
    with running(ledger.root, log) as server:
        second = refusal(ledger.root, tmp_path / "second.log")
        assert second.status == 2
        assert f"in use by process {server.process.pid}" in second.errors
        assert "one writer" in second.errors
        async with calling(server.grpc) as caller:
            assert (await caller.register(signed())).first_index == 0
        assert server.terminate() == 0
    with running(ledger.root, log) as server:
        assert server.terminate() == 0


def test_a_directory_without_a_ledger_is_refused(tmp_path: Path, log: Path) -> None:
    """If false, a mistyped path would become an empty ledger."""
    (tmp_path / "empty").mkdir()
    refused = refusal(tmp_path / "empty", log)
    assert refused.status == 2
    assert "daybook init" in refused.errors
    assert list((tmp_path / "empty").iterdir()) == []


# Addresses and TLS


@pytest.mark.parametrize(
    "options",
    [
        ("--grpc", "0.0.0.0:0", "--http", "127.0.0.1:0"),
        ("--grpc", "127.0.0.1:0", "--http", "0.0.0.0:0"),
        ("--grpc", "[::]:0", "--http", "127.0.0.1:0"),
        ("--grpc", "192.0.2.1:0", "--http", "127.0.0.1:0"),
        ("--grpc", "ledger.example:7070", "--http", "127.0.0.1:0"),
    ],
    ids=["any address for gRPC", "any address for HTTP", "any IPv6 address", "an address", "a name"],
)
def test_without_tls_only_loopback_is_served(ledger: LedgerOnDisk, log: Path, options: tuple[str, ...]) -> None:
    """If false, records would travel in clear, and anyone on the network could read the answers."""
    refused = refusal(ledger.root, log, options)
    assert refused.status == 2
    assert "TLS" in refused.errors
    assert "loopback" in refused.errors


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    """Return an issuer of certificates."""
    return make_issuer(tmp_path_factory.mktemp("certificates") / "issuer")


@pytest.fixture(scope="module")
def server_pair(issuer: Issuer) -> Pair:
    """Return the certificate of a server on this computer."""
    return issuer.issue("server", "IP:127.0.0.1", "DNS:localhost")


def tls(pair: Pair, *more: str | Path) -> tuple[str, ...]:
    """Return the options that serve on every address with a certificate."""
    options = ("--tls-certificate", pair.certificate, "--tls-key", pair.key, *more)
    return ("--grpc", "0.0.0.0:0", "--http", "0.0.0.0:0", *map(str, options))


@asynccontextmanager
async def secured(server: Server, credentials: grpc.ChannelCredentials) -> AsyncIterator[Caller]:
    """Open a channel with TLS to a server that listens on every address."""
    port = server.grpc.rpartition(":")[2]
    options = (("grpc.enable_http_proxy", 0),)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        yield Caller(channel)


async def submitter_of(caller: Caller, ledger: LedgerOnDisk) -> str:
    """Register a record; return the submitter as its entry, proved by its receipt, states it."""
    answer = await caller.register(signed())
    wanted = pb.GetReceiptRequest(register=REGISTER, index=answer.first_index)
    receipt = (await caller.registration.GetReceipt(wanted)).receipt
    stated = verify_receipt(receipt, ledger.policy).entry.acceptance.submitter
    assert answer.envelope.submitter == stated
    return stated


async def test_with_tls_every_address_is_served_and_nobody_in_clear(
    ledger: LedgerOnDisk, log: Path, issuer: Issuer, server_pair: Pair
) -> None:
    """If false, a ledger could not be served to other computers, or would be in clear."""
    with running(ledger.root, log, tls(server_pair)) as server:
        async with secured(server, issuer.credentials()) as caller:
            assert await submitter_of(caller, ledger) == "anonymous"
        port = server.http.rpartition(":")[2]
        context = ssl.create_default_context(cafile=issuer.pair.certificate)
        async with httpx.AsyncClient(verify=context, trust_env=False) as http:
            checkpoint = await http.get(f"https://127.0.0.1:{port}/logs/{REGISTER}/checkpoint")
            assert ledger.policy.open(checkpoint.content, f"{ORIGIN}/{REGISTER}").checkpoint.size == 1
            with pytest.raises(httpx.TransportError):
                await http.get(f"http://127.0.0.1:{port}/healthz")
        async with calling(f"127.0.0.1:{server.grpc.rpartition(':')[2]}") as caller:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await caller.sizes()
            assert refused.value.code() is CODE.UNAVAILABLE
        assert server.terminate() == 0


async def test_with_mutual_tls_entries_state_the_certificates_uri(
    ledger: LedgerOnDisk, log: Path, issuer: Issuer, server_pair: Pair
) -> None:
    """If false, an entry would not say which system submitted it, or say what no certificate vouches for."""
    longest = "spiffe://dsa.example/" + "a" * 231
    with running(ledger.root, log, tls(server_pair, "--client-ca", issuer.pair.certificate)) as server:
        for name, uris, submitter in (
            ("edrms", ["spiffe://dsa.example/edrms"], "uri:spiffe://dsa.example/edrms"),
            ("longest", [longest], f"uri:{longest}"),
            ("too-long", [longest + "a"], "anonymous"),
            ("two", ["spiffe://dsa.example/one", "spiffe://dsa.example/two"], "anonymous"),
        ):
            pair = issuer.issue(name, *(f"URI:{uri}" for uri in uris))
            async with secured(server, issuer.credentials(pair)) as caller:
                assert await submitter_of(caller, ledger) == submitter
        unnamed = issuer.issue("unnamed", "DNS:edrms.dsa.example")
        async with secured(server, issuer.credentials(unnamed)) as caller:
            assert await submitter_of(caller, ledger) == "anonymous"
        assert server.terminate() == 0
    assert_fsck_finds_nothing(ledger.root)


async def test_with_mutual_tls_a_client_without_a_certificate_of_the_issuer_is_refused(
    ledger: LedgerOnDisk, log: Path, issuer: Issuer, server_pair: Pair, tmp_path: Path
) -> None:
    """If false, anyone on the network could submit, or read what only the department may."""
    stranger = make_issuer(tmp_path / "stranger").issue("stranger", "URI:spiffe://dsa.example/edrms")
    with running(ledger.root, log, tls(server_pair, "--client-ca", issuer.pair.certificate)) as server:
        for credentials in (issuer.credentials(), issuer.credentials(stranger)):
            async with secured(server, credentials) as caller:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await caller.register(signed())
                assert refused.value.code() is CODE.UNAVAILABLE
        assert server.terminate() == 0
    assert _registered(ledger) == set()


def test_tls_settings_that_do_not_go_together_are_refused(
    ledger: LedgerOnDisk, log: Path, issuer: Issuer, server_pair: Pair, tmp_path: Path
) -> None:
    """If false, a server would start without the protection that it was asked for."""
    certificate, key = str(server_pair.certificate), str(server_pair.key)
    for options, said in (
        (("--tls-certificate", certificate), "key"),
        (("--tls-key", key), "certificate"),
        (("--client-ca", str(issuer.pair.certificate)), "TLS"),
    ):
        refused = refusal(ledger.root, log, (*ANY_PORT, *options))
        assert refused.status == 2
        assert said in refused.errors


def test_certificates_that_cannot_be_used_are_refused_by_name(
    ledger: LedgerOnDisk, log: Path, issuer: Issuer, server_pair: Pair, tmp_path: Path
) -> None:
    """If false, the operator would be told of a port that is taken, or of nothing at all."""
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("not a certificate\n")
    certificate, key = server_pair.certificate, server_pair.key
    for pair, more, named in (
        (Pair(garbage, key), (), garbage),
        (Pair(certificate, garbage), (), garbage),
        (Pair(certificate, issuer.pair.key), (), issuer.pair.key),
        (Pair(tmp_path / "none.pem", key), (), tmp_path / "none.pem"),
        (server_pair, ("--client-ca", garbage), garbage),
    ):
        refused = refusal(ledger.root, log, tls(pair, *more))
        assert refused.status in {2, 3}
        assert str(named) in refused.errors
        assert "ready" not in refused.errors
        assert "Traceback" not in refused.errors

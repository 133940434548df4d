"""The witness's server itself: large and slow requests, other paths and methods, its pages, start and end."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ledger.add_checkpoint import MAX_BODY, AddCheckpoint
from tests.support.certificates import make_issuer
from tests.support.growing_log import GrowingLog
from tests.support.witness_process import (
    Answer,
    MadeWitness,
    RunningWitness,
    WitnessNotServingError,
    ask,
    call,
    latest,
    make_witness,
    witnessing,
)

NewLog = Callable[[], GrowingLog]


def connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def head(length: str) -> bytes:
    return f"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\n{length}\r\n\r\n".encode()


def everything(connection: socket.socket) -> bytes:
    """Read until the other side closes."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


def padded(log: GrowingLog, size: int) -> AddCheckpoint:
    """Return a valid request whose body has so many bytes, by the line of a stranger with a long name."""
    request = log.request(0, 5)
    line = "— {} AAAAAAA=\n"
    missing = size - len(request.data()) - len(line.format("").encode())
    return AddCheckpoint(0, (), request.note + line.format("x" * missing).encode())


def test_a_body_of_the_largest_size_is_read_and_one_byte_more_is_not(
    served: RunningWitness, new_log: NewLog
) -> None:
    """If false, a stranger could make the witness hold any number of bytes, or a full note would not fit."""
    log = new_log()
    largest = padded(log, MAX_BODY)
    assert len(largest.data()) == MAX_BODY
    assert call(served.http, "POST", "/add-checkpoint", largest.data() + b"x").status == 400
    assert ask(served.http, largest).status == 200
    assert len(latest(served.http, log.origin).body) < 1000


@pytest.mark.parametrize(
    "begin",
    [
        head(f"Content-Length: {MAX_BODY + 1}"),
        head("Content-Length: 9999999999999999999"),
        head("Transfer-Encoding: chunked") + b"21000\r\n" + b"x" * 0x21000,
    ],
    ids=["declared", "declared and absurd", "chunked without end"],
)
def test_a_body_that_is_too_large_is_answered_before_it_has_arrived(
    served: RunningWitness, begin: bytes
) -> None:
    """If false, whoever sends without end keeps the witness reading."""
    with connected(served.http) as connection:
        connection.sendall(begin)
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer.lower()


def test_whoever_sends_slowly_is_cut_off_and_nobody_else_waits(served: RunningWitness, new_log: NewLog) -> None:
    """If false, a few connections that never end would shut out every ledger."""
    log = new_log()
    request = log.request(0, 5).data()
    half_a_body = head(f"Content-Length: {len(request)}") + request[: len(request) // 2]
    beginnings = [half_a_body] * 8 + [b"POST /add-checkp", b"GET /healthz HTTP/1.1\r\nHost:", b""] * 8
    connections = [connected(served.http) for _ in beginnings]
    for connection, begin in zip(connections, beginnings, strict=True):
        connection.sendall(begin)
    assert ask(served.http, log.request(0, 4)).status == 200
    with ThreadPoolExecutor(len(connections)) as threads:
        answers = list(threads.map(everything, connections))
    assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers[:8])
    assert set(answers[8:]) == {b""}
    for connection in connections:
        connection.close()
    assert latest(served.http, log.origin).body.startswith(log.note(4))


def test_a_body_that_ends_early_changes_nothing(served: RunningWitness, new_log: NewLog) -> None:
    """If false, half a request would be taken for one."""
    log = new_log()
    request = log.request(0, 5).data()
    with connected(served.http) as connection:
        connection.sendall(head(f"Content-Length: {len(request)}") + request[:-1])
        connection.shutdown(socket.SHUT_WR)
        everything(connection)
    assert latest(served.http, log.origin).status == 404
    assert ask(served.http, log.request(0, 5)).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/add-checkpoint", 405),
        ("PUT", "/add-checkpoint", 405),
        ("POST", "/add-checkpoint/", 404),
        ("POST", "//add-checkpoint", 404),
        ("POST", "/sign-subtree", 404),
        ("POST", "/add-entries", 404),
        ("POST", f"/{'0' * 64}/checkpoint", 405),
        ("GET", f"/{'0' * 64}/checkpoint", 404),
        ("GET", f"/{'0' * 64}", 404),
        ("GET", "/", 404),
        ("GET", "/docs", 404),
    ],
)
def test_there_is_nothing_else_to_ask(served: RunningWitness, method: str, path: str, status: int) -> None:
    """If false, the witness would answer for what it does not do."""
    assert call(served.http, method, path, b"x").status == status


def test_its_pages_say_that_it_lives_and_what_it_has_answered(served: RunningWitness, new_log: NewLog) -> None:
    """If false, an operator could not watch it."""
    log = new_log()
    assert ask(served.http, log.request(0, 5)).status == 200
    assert call(served.http, "GET", "/healthz") == Answer(200, "text/plain; charset=utf-8", b"ok\n")
    metrics = call(served.http, "GET", "/metrics").body.decode()
    for wanted in (
        'daybook_witness_answers_total{status="200"}',
        "daybook_witness_origins ",
        'daybook_witness_evidence{kind="proved"}',
        'daybook_witness_evidence{kind="suspected"}',
    ):
        assert wanted in metrics


def test_one_directory_has_one_server(made: MadeWitness, served: RunningWitness) -> None:
    """If false, two servers could each cosign a history of their own."""
    with (
        pytest.raises(WitnessNotServingError, match=f"served by process {served.pid}") as refused,
        witnessing(made.directory),
    ):
        pass
    assert refused.value.status == 2


def test_a_served_address_is_not_shared(served: RunningWitness, tmp_path: Path) -> None:
    """If false, two witnesses would take turns at one address."""
    other = make_witness(tmp_path / "w", "other.example/w")
    with (
        pytest.raises(WitnessNotServingError, match="cannot bind") as refused,
        witnessing(other.directory, "--listen", served.http),
    ):
        pass
    assert refused.value.status == 3


@pytest.mark.parametrize(
    "options",
    [("--listen", "0.0.0.0:0"), ("--listen", "nowhere"), ("--tls-key", "key.pem")],
    ids=["no TLS", "no address", "half of TLS"],
)
def test_it_does_not_serve_where_it_could_be_overheard(tmp_path: Path, options: tuple[str, ...]) -> None:
    """If false, a cosignature could be replaced on the way by whoever sits between."""
    made = make_witness(tmp_path / "w", "other.example/w")
    with pytest.raises(WitnessNotServingError) as refused, witnessing(made.directory, *options):
        pass
    assert refused.value.status == 2


def wait_until_refused(address: str) -> None:
    """Wait until nobody listens any more."""
    # Whoever was let in just before the port was closed is reset.
    with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):
        while True:
            connected(address).close()


def test_a_graceful_stop_answers_what_is_under_way(tmp_path: Path) -> None:
    """If false, a restart would leave ledgers without the cosignatures that were made for them."""
    made = make_witness(tmp_path / "w", "other.example/w")
    log = GrowingLog("log.example/a")
    made.add_ledger(log.vkey)
    request = log.request(0, 5).data()
    with witnessing(made.directory) as running, connected(running.http) as connection:
        connection.sendall(head(f"Content-Length: {len(request)}") + request[:-1])
        # Answered behind it, so that the half request has been begun.
        assert call(running.http, "GET", "/healthz").status == 200
        running.process.terminate()
        wait_until_refused(running.http)
        connection.sendall(request[-1:])
        assert everything(connection).startswith(b"HTTP/1.1 200 ")
        assert running.process.wait(60) == 0


def test_with_tls_it_is_served_under_its_certificate(tmp_path: Path) -> None:
    """If false, an institution could not put its witness on the network by itself."""
    made = make_witness(tmp_path / "w", "other.example/w")
    issuer = make_issuer(tmp_path / "issuer")
    pair = issuer.issue("witness", "IP:127.0.0.1")
    trusting = ssl.create_default_context(cafile=issuer.pair.certificate)
    options = ("--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key))
    with witnessing(made.directory, "--listen", "127.0.0.1:0", *options) as running:
        connection = http.client.HTTPSConnection(running.http, context=trusting, timeout=60)
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok\n"
        connection.close()


def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """If false, an operator would have to guess which of the files is wrong."""
    made = make_witness(tmp_path / "w", "other.example/w")
    for certificate in (tmp_path / "none", made.directory / "key.pub"):
        options = ("--tls-certificate", str(certificate), "--tls-key", str(made.directory / "key"))
        with (
            pytest.raises(WitnessNotServingError, match=str(certificate)) as refused,
            witnessing(made.directory, "--listen", "127.0.0.1:0", *options),
        ):
            pass
        assert refused.value.status == 3
        assert "PRIVATE+KEY" not in refused.value.errors

"""What a refused call leaves behind in a server: nothing of what was sent, so nobody can fill its memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import grpc.aio
import psutil
import pytest
from daybook.registration.v1 import registration_service_pb2 as pb
from daybook.submission.v1.submission_pb2 import SignedSubmission

from ledger.ed25519 import SecretKey
from services.client.client import message_of
from services.client.signing import sign_submission
from tests.support import records
from tests.support.calling import SECONDS, Caller, calling
from tests.support.ledger_dir import make_ledger
from tests.support.ledgers import DEPARTMENT, DEPARTMENT_KEY, ORIGIN, REGISTER
from tests.support.server_process import Server, running

CALLS: Final = 400
MOST: Final = 200 * 1024 * 1024
"""Bytes that a server may grow by, some for what is under way; what is sent to it is twice as much."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Serve a ledger of one department: anew for each test, since what is free again hides what stays."""
    ledger = make_ledger(tmp_path / "ledger", (REGISTER,), {DEPARTMENT: (DEPARTMENT_KEY,)})
    with running(ledger.root, tmp_path / "serve.log") as server:
        yield server


@pytest.fixture
async def caller(server: Server) -> AsyncIterator[Caller]:
    async with calling(server.grpc) as caller:
        yield caller


def signed(key: SecretKey = DEPARTMENT_KEY, **members: Any) -> SignedSubmission:
    """Return a submission of nearly 1 MiB, whose records have these members; without, each breaks a rule."""
    said = members or {"title": "x" * 60_000}
    data = [
        records.decision_bytes(register=REGISTER, record_id=records.record_id(number), **said)
        for number in range(16)
    ]
    return message_of(sign_submission(data, f"{ORIGIN}/{REGISTER}", [key]))


def forged() -> SignedSubmission:
    message = signed()
    message.signatures[0].signature = bytes(64)
    return message


def of_another_count() -> SignedSubmission:
    message = signed()
    message.body = message.body.replace(b"\n16\n", b"\n17\n")
    return message


REFUSED: Final[dict[str, Callable[[], SignedSubmission]]] = {
    "a body of nothing": lambda: SignedSubmission(body=b"a" * 1_000_000),
    "a body that says another count": of_another_count,
    "a signature that is none": forged,
    "a key that nobody knows": lambda: signed(SecretKey(b"\x07" * 32)),
    "records that break a rule": signed,
    "a key that nobody knows, under good records": lambda: signed(
        SecretKey(b"\x07" * 32), options_considered=["x" * 15_000] * 4
    ),
}


async def unary(caller: Caller, message: SignedSubmission, times: int) -> None:
    for _ in range(times):
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.registration.Register(pb.RegisterRequest(submission=message), timeout=SECONDS)


async def streamed(caller: Caller, message: SignedSubmission, times: int) -> None:
    async def requests() -> AsyncIterator[pb.RegisterStreamRequest]:
        for tag in range(times):
            yield pb.RegisterStreamRequest(tag=tag, request=pb.RegisterRequest(submission=message))

    call = caller.registration.RegisterStream(requests())
    assert all([response.HasField("error") async for response in call])


async def test_nothing_of_a_name_stays_that_nothing_has(server: Server, caller: Caller) -> None:
    """If false, the same without a submission: what is wrong with a name repeats it."""
    process, asked = (
        psutil.Process(server.process.pid),
        pb.GetSubmissionRequest(register="x" * 1_900_000, submission_id="0" * 64),
    )

    async def ask(times: int) -> None:
        for _ in range(times):
            with pytest.raises(grpc.aio.AioRpcError):
                await caller.registration.GetSubmission(asked, timeout=SECONDS)

    await ask(10)
    before = process.memory_info().rss
    await ask(200)
    assert process.memory_info().rss - before < MOST


@pytest.mark.parametrize("send", [unary, streamed])
@pytest.mark.parametrize("message", REFUSED.values(), ids=REFUSED.keys())
async def test_nothing_of_a_refused_request_stays(
    server: Server,
    caller: Caller,
    message: Callable[[], SignedSubmission],
    send: Callable[[Caller, SignedSubmission, int], Awaitable[None]],
) -> None:
    """If false, anybody could have a server killed for its memory, with neither key nor certificate."""
    sent, process = message(), psutil.Process(server.process.pid)
    await send(caller, sent, 10)
    before = process.memory_info().rss
    await send(caller, sent, CALLS)
    assert process.memory_info().rss - before < MOST

"""What a refused call leaves behind in a server: nothing of what was sent, so nobody can fill its memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

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

CALLS: Final = 200
MOST: Final = 100 * 1024 * 1024
"""Bytes that a server may grow by, some for what is under way; what is sent to it is twice as much."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve a ledger of one department while the module runs."""
    root: Path = tmp_path_factory.mktemp("refused") / "ledger"
    ledger = make_ledger(root, (REGISTER,), {DEPARTMENT: (DEPARTMENT_KEY,)})
    with running(ledger.root, root.parent / "serve.log") as server:
        yield server


@pytest.fixture
async def caller(server: Server) -> AsyncIterator[Caller]:
    async with calling(server.grpc) as caller:
        yield caller


def signed(key: SecretKey = DEPARTMENT_KEY) -> SignedSubmission:
    """Return a submission of nearly 1 MiB, all of whose records break a rule."""
    title = "x" * 60_000
    data = [records.decision_bytes(title=title) for _ in range(16)]
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

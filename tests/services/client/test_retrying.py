from __future__ import annotations

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from services.client import retrying
from services.client.errors import FaultError, RefusedError, UnavailableError
from services.client.retrying import FIRST_BACKOFF, LONGEST_BACKOFF, call, pause


def rpc_error(
    code: grpc.StatusCode, reason: str = "", retry_after: float | None = None
) -> grpc.aio.AioRpcError:
    details: list[AnyMessage] = []
    for message in (
        ErrorInfo(domain="daybook", reason=reason) if reason else None,
        RetryInfo(retry_delay=timedelta(seconds=retry_after)) if retry_after is not None else None,
    ):
        if message is not None:
            details.append(AnyMessage())
            details[-1].Pack(message)
    value: Any = code.value
    status = Status(code=value[0], message=code.name, details=details)
    trailer = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailer, details=code.name)


class Attempts:
    """Fails with each of `errors` in turn, then returns how often it was asked."""

    def __init__(self, *errors: grpc.aio.AioRpcError) -> None:
        self.errors = list(errors)
        self.times: list[float] = []
        self.left: list[float] = []

    async def __call__(self, left: float) -> int:
        self.times.append(asyncio.get_running_loop().time())
        self.left.append(left)
        if self.errors:
            raise self.errors.pop(0)
        return len(self.times)


class Clock:
    """Time that passes in pauses and nowhere else, however busy the machine is."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which calls are sent again."""
    clock = Clock()
    told = SimpleNamespace(get_running_loop=lambda: clock, sleep=clock.sleep)
    monkeypatch.setattr(retrying, "asyncio", told)
    return clock


@pytest.mark.parametrize(
    "error",
    [
        rpc_error(grpc.StatusCode.UNAVAILABLE),
        rpc_error(grpc.StatusCode.CANCELLED),
        rpc_error(grpc.StatusCode.UNAVAILABLE, "DRAINING", 0.01),
        rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", 0.01),
        rpc_error(grpc.StatusCode.ABORTED, "STALE_VIEW", 0.01),
        rpc_error(grpc.StatusCode.INTERNAL, "INTERNAL", 0.01),
    ],
    ids=lambda error: f"{error.code().name}",
)
async def test_a_passing_trouble_is_asked_about_again(error: grpc.aio.AioRpcError) -> None:
    """False if a department had to handle a restart of the ledger itself."""
    assert await call(Attempts(error), 10) == 2


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (rpc_error(grpc.StatusCode.PERMISSION_DENIED, "KEY_REVOKED"), RefusedError),
        (rpc_error(grpc.StatusCode.ABORTED, "VERSION_CONFLICT"), RefusedError),
        (rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED), UnavailableError),
        (rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED), UnavailableError),
        (rpc_error(grpc.StatusCode.INTERNAL), FaultError),
    ],
    ids=["revoked", "version-conflict", "too-large-for-grpc", "deadline", "fault"],
)
async def test_what_would_not_change_is_not_asked_about_again(
    error: grpc.aio.AioRpcError, expected: type[Exception]
) -> None:
    """False if a refusal were hammered at the server until the deadline."""
    attempts = Attempts(error, error)
    with pytest.raises(expected):
        await call(attempts, 10)
    assert len(attempts.times) == 1


async def test_a_fault_is_asked_about_once_more_and_no_oftener() -> None:
    """False if INTERNAL, which the table allows once, were repeated for ever."""
    attempts = Attempts(*[rpc_error(grpc.StatusCode.INTERNAL, "INTERNAL", 0.0)] * 5)
    with pytest.raises(FaultError):
        await call(attempts, 10)
    assert len(attempts.times) == 2


async def test_the_pause_is_never_shorter_than_the_server_asked_for() -> None:
    """False if RetryInfo were ignored: an overloaded ledger would get no rest."""
    attempts = Attempts(rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", 0.2))
    await call(attempts, 10)
    assert attempts.times[1] - attempts.times[0] >= 0.2


async def test_the_deadline_bounds_everything(clock: Clock) -> None:
    """False if retries outlived the time that the caller gave, or an attempt got more than was left."""
    attempts = Attempts(*[rpc_error(grpc.StatusCode.UNAVAILABLE)] * 1_000)
    with pytest.raises(UnavailableError):
        await call(attempts, 0.5)
    assert clock.now < 0.5
    assert len(attempts.left) > 1
    assert attempts.left[0] == 0.5
    assert attempts.left[-1] == 0.5 - clock.now
    assert attempts.left == sorted(attempts.left, reverse=True)


async def test_a_pause_that_would_pass_the_deadline_is_not_begun(clock: Clock) -> None:
    """False if a caller waited for nothing: the answer is known to come too late."""
    attempts = Attempts(rpc_error(grpc.StatusCode.UNAVAILABLE, "STORAGE_FULL", 60.0))
    with pytest.raises(UnavailableError) as raised:
        await call(attempts, 5)
    assert raised.value.retry_after == 60.0
    assert clock.now == 0.0


def test_pauses_grow_to_a_bound_and_are_spread() -> None:
    """False if all clients came back at the same moment, or waited ever longer."""
    assert all(pause(0, None) <= FIRST_BACKOFF for _ in range(100))
    assert all(pause(1_000, None) <= LONGEST_BACKOFF for _ in range(100))
    assert len({pause(5, None) for _ in range(100)}) > 90

"""Registering, through a real server in a process of its own: (a) batches, (b) singles, (c) one at idle."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from daybook.registration.v1 import registration_service_pb2 as pb

from services.client.answers import Registered
from services.client.client import Client, connect, message_of
from services.client.signing import SignedSubmission
from tests.bench.corpus import fresh_ledger, records, serving, submission
from tests.bench.floors import echo_server, one_row_commits, raw_inserts
from tests.bench.measure import Measure, keep_in_flight, middle, seconds_each
from tests.support.ledger_dir import LedgerOnDisk
from tests.support.ledgers import DEPARTMENT_KEY, REGISTER

BATCH = 500
BATCHES = 120
SINGLES = 6_000
ALONE = 300
ROUNDS = 3


@asynccontextmanager
async def client_of(ledger: LedgerOnDisk) -> AsyncIterator[Client]:
    """Run a server on a ledger and connect to it."""
    with serving(ledger.root) as (address, _):
        async with connect(address, policy=ledger.policy, register=REGISTER, key=DEPARTMENT_KEY) as client:
            yield client


async def _registered(client: Client, signed: SignedSubmission) -> Registered:
    answer = await client.submit(signed)
    assert isinstance(answer, Registered)
    return answer


async def run(asked: set[str]) -> list[Measure]:
    """Run the measures that are asked for."""
    found: list[Measure] = []
    if "a" in asked:
        found.append(await _batches())
    if "b" in asked:
        found.append(await _singles())
    if "c" in asked:
        found.append(await _alone())
    return found


async def _batches() -> Measure:
    """(a) Signing, tree building and verifying included; client and server share the cores."""
    rates, floors = [], []
    for _ in range(ROUNDS):
        batches = [records(BATCH) for _ in range(BATCHES)]
        answers: list[Registered] = []
        async with fresh_ledger() as ledger, client_of(ledger) as client:
            await _registered(client, submission(BATCH))

            calls = [partial(_signed_and_sent, client, batch, answers) for batch in batches]
            rates.append(BATCH * BATCHES / await keep_in_flight(calls, 4))
        entries = [answer.entries for answer in answers]
        with tempfile.TemporaryDirectory(prefix="daybook-bench-") as folder:
            floors.append(BATCH * BATCHES / raw_inserts(Path(folder) / "raw", entries))
    rate, floor = middle(rates), middle(floors)
    ratio = middle([one / raw for one, raw in zip(rates, floors, strict=True)])
    return Measure(
        "a", f"Register, {BATCH} records a submission", rate, floor, "records/s", ratio, ">= 0.20", ratio >= 0.2
    )


async def _signed_and_sent(client: Client, batch: list[bytes], answers: list[Registered]) -> None:
    answers.append(await _registered(client, client.sign(batch)))


async def _sizes(client: Client) -> tuple[bytes, int]:
    """Return a request of one record, and how large its answer is."""
    signed = submission(1)
    request = pb.RegisterRequest(submission=message_of(signed))
    response = await client._stub.Register(request, timeout=30)
    return request.SerializeToString(), response.ByteSize()


async def _singles() -> Measure:
    """(b) 64 in flight, each verified."""
    rates, floors = [], []
    for _ in range(ROUNDS):
        ready = [submission(1) for _ in range(SINGLES)]
        async with fresh_ledger() as ledger, client_of(ledger) as client:
            request, size = await _sizes(client)
            calls: list[Callable[[], Awaitable[object]]] = [partial(_registered, client, one) for one in ready]
            await keep_in_flight(calls[:200], 64)
            rates.append((SINGLES - 200) / await keep_in_flight(calls[200:], 64))
        async with echo_server(size) as echo:
            await keep_in_flight([partial(echo, request)] * 200, 64)
            floors.append(SINGLES / await keep_in_flight([partial(echo, request)] * SINGLES, 64))
    ratio = middle([one / floor for one, floor in zip(rates, floors, strict=True)])
    name = "Register, one record a submission, 64 in flight"
    return Measure("b", name, middle(rates), middle(floors), "calls/s", ratio, ">= 0.50", ratio >= 0.5)


async def _alone() -> Measure:
    """(c) One at a time on an idle server, to SEQUENCED."""
    async with fresh_ledger() as ledger, client_of(ledger) as client:
        request, size = await _sizes(client)
        calls = [partial(_registered, client, submission(1)) for _ in range(ALONE)]
        value = middle((await seconds_each(calls))[20:])
        entry = (await _registered(client, submission(1))).entries[0]
    async with echo_server(size) as echo:
        echoed = middle((await seconds_each([partial(echo, request)] * ALONE))[20:])
    with tempfile.TemporaryDirectory(prefix="daybook-bench-") as folder:
        committed = middle(one_row_commits(Path(folder) / "raw", entry, ALONE))
    floor = echoed + committed
    ratio = value / floor
    name = "Register one record at idle, p50"
    return Measure("c", name, value * 1e3, floor * 1e3, "ms", ratio, "<= 4", ratio <= 4)

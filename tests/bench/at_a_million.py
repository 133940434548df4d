"""A register of a million entries: (d) receipts, (e) fsck, (f) memory, opening and room."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from functools import partial
from typing import Final

import grpc.aio
import psutil
from daybook.registration.v1 import registration_service_pb2 as pb
from daybook.registration.v1 import registration_service_pb2_grpc as rpc

from ledger.ledger import Ledger
from ledger.stores.sqlite import SqliteStore
from services.compose import embedded
from services.registrar import Registrar
from tests.bench.corpus import fresh_ledger, serving, submission
from tests.bench.floors import echo_server, hash_both_trees
from tests.bench.measure import Measure, keep_in_flight, middle
from tests.support.ledger_dir import LedgerOnDisk
from tests.support.ledgers import ORIGIN, REGISTER

ENTRIES: Final = 1_000_000
BATCH: Final = 500
RECEIPTS: Final = 8_000


async def run(asked: set[str]) -> list[Measure]:
    """Fill a register, then run the measures that are asked for."""
    found: list[Measure] = []
    async with fresh_ledger() as ledger:
        print(f"filling a register with {ENTRIES:,} entries …", file=sys.stderr)
        await _fill(ledger)
        entry_bytes = _entry_bytes(ledger)
        if "d" in asked or "f" in asked:
            found += await _served(ledger, asked)
        if "f" in asked:
            found += _stored(ledger, entry_bytes)
        if "e" in asked:
            found.append(_checked(ledger))
    return found


async def _fill(ledger: LedgerOnDisk) -> None:
    with embedded(ledger.directory) as opened:
        running = asyncio.create_task(opened.sequencer.run())
        registrar = Registrar(opened.ledger, opened.sequencer)
        for _ in range(ENTRIES // BATCH):
            one = submission(BATCH)
            await registrar.register(one.body, one.records, one.signatures, "anonymous")
        opened.sequencer.drain()
        await running


def _entry_bytes(ledger: LedgerOnDisk) -> int:
    store = SqliteStore(ledger.directory.store)
    try:
        reader = Ledger.open(store, ORIGIN).reader(REGISTER)
        return sum(map(len, reader.entries(0, ENTRIES)))
    finally:
        store.close()


async def _served(ledger: LedgerOnDisk, asked: set[str]) -> list[Measure]:
    found = []
    with serving(ledger.root) as (address, pid):
        async with grpc.aio.insecure_channel(address) as channel:
            stub = rpc.RegistrationServiceStub(channel)
            drawn = random.Random(1)
            requests = [
                pb.GetReceiptRequest(register=REGISTER, index=drawn.randrange(ENTRIES)) for _ in range(RECEIPTS)
            ]
            rates, floors = [], []
            for _ in range(3):
                calls = [partial(stub.GetReceipt, request, timeout=30) for request in requests]
                rates.append(RECEIPTS / await keep_in_flight(calls, 64))
                response = await stub.GetReceipt(requests[0], timeout=30)
                async with echo_server(response.ByteSize()) as echo:
                    request = requests[0].SerializeToString()
                    await keep_in_flight([partial(echo, request)] * 200, 64)
                    floors.append(RECEIPTS / await keep_in_flight([partial(echo, request)] * RECEIPTS, 64))
        resident = psutil.Process(pid).memory_info().rss
    if "d" in asked:
        ratio = middle([rate / floor for rate, floor in zip(rates, floors, strict=True)])
        name = "GetReceipt at random indices of 1,000,000, 64 in flight"
        found.append(
            Measure("d", name, middle(rates), middle(floors), "calls/s", ratio, ">= 0.60", ratio >= 0.6)
        )
    if "f" in asked:
        megabytes = resident / 1e6
        found.append(Measure("f", "server RSS", megabytes, None, "MB", None, "< 200", megabytes < 200))
    return found


def _stored(ledger: LedgerOnDisk, entry_bytes: int) -> list[Measure]:
    size = ledger.directory.store.stat().st_size
    beyond = (size - entry_bytes) / ENTRIES
    began = time.perf_counter()
    with embedded(ledger.directory):
        seconds = time.perf_counter() - began
    return [
        Measure("f", "open a register of 1,000,000", seconds, None, "s", None, "< 1", seconds < 1),
        Measure("f", "stored beyond the entry", beyond, None, "bytes/record", None, "<= 150", beyond <= 150),
    ]


def _checked(ledger: LedgerOnDisk) -> Measure:
    """(e) fsck as a command, on all cores, against one thread that only hashes."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "services.cli", "fsck", str(ledger.root)], check=True, stdout=subprocess.DEVNULL
    )
    rate = ENTRIES / (time.perf_counter() - began)
    floors = []
    store = SqliteStore(ledger.directory.store)
    seconds = 0.0
    for begin in range(0, ENTRIES, 100 * BATCH):
        entries = store.entries(REGISTER, begin, begin + 100 * BATCH)
        seconds += hash_both_trees([entries[i : i + BATCH] for i in range(0, len(entries), BATCH)])
    store.close()
    floors.append(ENTRIES / seconds)
    ratio = rate / middle(floors)
    return Measure("e", "fsck", rate, middle(floors), "entries/s", ratio, ">= 0.40", ratio >= 0.4)

"""A ledger with one register for each size at which tiles change shape, and how foreign programs see it.

    offices = make_offices(root)
    with offices.served(tmp_path) as served:
        ...any tlog client, at served.url(register)

It is made once, and never served itself: each test has a copy.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from ledger.witnessing import Policy
from services.client.client import connect
from services.client.signing import SignedSubmission, sign_submission
from services.compose import Embedded, embedded
from tests.support.ledger_dir import make_ledger, register_all
from tests.support.ledgers import DEPARTMENT, DEPARTMENT_KEY, ORIGIN, decision
from tests.support.server import daybook, serving

SIZES: Final = (0, 1, 255, 256, 257, 70_000)
"""Entries of the registers: around the first full tile, and enough for a third level of tiles."""

_SUBMISSION: Final = 1_000


def office(size: int) -> str:
    """Return the register that has `size` entries at first."""
    return f"{DEPARTMENT}/office-{size}"


@dataclass(frozen=True, slots=True)
class Served:
    """A running ledger: its directory, its policy, and its addresses, HOST:PORT."""

    directory: Path
    policy: Policy
    grpc: str
    http: str

    def url(self, register: str) -> str:
        """Return the prefix of a register's checkpoint and tiles, as tlog clients are told it."""
        return f"http://{self.http}/logs/{register}/"

    def register_policy(self, register: str) -> str:
        """Return the policy file that `daybook policy --register` makes for other tools."""
        return _register_policy(self.directory, register)

    def vkey(self, register: str) -> str:
        """Return the key of a register that stands in it."""
        (log,) = Policy.parse(self.register_policy(register).encode()).logs
        return str(log.key)

    def grow(self, additions: Mapping[str, tuple[int, int]]) -> None:
        """Register further records over gRPC, every answer verified: by register, (entries so far, more)."""
        asyncio.run(self._grow(additions))

    async def _grow(self, additions: Mapping[str, tuple[int, int]]) -> None:
        for register, (size, more) in additions.items():
            async with connect(self.grpc, policy=self.policy, register=register, key=DEPARTMENT_KEY) as client:
                for each in _submissions(register, size, size + more):
                    await client.submit(each)


@cache
def _register_policy(directory: Path, register: str) -> str:
    return daybook("policy", directory, "--register", register).stdout


@dataclass(frozen=True, slots=True)
class Offices:
    """The ledger on disk that every test copies."""

    root: Path
    policy: Policy

    @contextmanager
    def copied(self, to: Path) -> Iterator[Path]:
        """Copy the directory for as long as the body runs: it has some 90 MB."""
        shutil.copytree(self.root, to)
        try:
            yield to
        finally:
            shutil.rmtree(to)

    @contextmanager
    def serving(self, directory: Path) -> Iterator[Served]:
        """Serve a copy."""
        with serving(directory) as server:
            yield Served(directory, self.policy, server.grpc, server.http)

    @contextmanager
    def served(self, to: Path) -> Iterator[Served]:
        """Serve an untouched copy, which is made at `to`."""
        with self.copied(to) as directory, self.serving(directory) as server:
            yield server


def make_offices(root: Path) -> Offices:
    """Make the ledger: registers of `SIZES`, through the registrar and sequencer of the server."""
    made = make_ledger(root, [office(size) for size in SIZES])
    with embedded(made.directory) as opened:
        asyncio.run(_fill(opened))
    return Offices(root, made.policy)


async def _fill(opened: Embedded) -> None:
    # There is no witness who could know of more.
    opened.sequencer.confirm(opened.published.registers())
    running = asyncio.create_task(opened.sequencer.run())
    try:
        for size in SIZES:
            await register_all(opened, _submissions(office(size), 0, size))
    finally:
        opened.sequencer.drain()
        await running


def _submissions(register: str, begin: int, end: int) -> Iterator[SignedSubmission]:
    for first in range(begin, end, _SUBMISSION):
        records = [decision(number, register) for number in range(first, min(first + _SUBMISSION, end))]
        yield sign_submission(records, f"{ORIGIN}/{register}", [DEPARTMENT_KEY])

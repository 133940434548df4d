"""Witnesses that do as a test says, and a ledger for each test to ask them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.ledger_dir import LedgerOnDisk, make_ledger
from tests.support.scripted_witness import ScriptedWitness, scripted_witness
from tests.support.witnessed import copied


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> LedgerOnDisk:
    """A ledger with one register. Nobody opens it: see `ledger`."""
    return make_ledger(tmp_path_factory.mktemp("made") / "ledger")


@pytest.fixture
def ledger(made: LedgerOnDisk, tmp_path: Path) -> LedgerOnDisk:
    """A copy of it for each test."""
    return copied(made, tmp_path / "ledger")


@pytest.fixture
async def one() -> AsyncIterator[ScriptedWitness]:
    """A witness."""
    async with scripted_witness("one") as serving:
        yield serving


@pytest.fixture
async def two() -> AsyncIterator[ScriptedWitness]:
    """Another."""
    async with scripted_witness("two") as serving:
        yield serving


@pytest.fixture
async def three() -> AsyncIterator[ScriptedWitness]:
    """A third."""
    async with scripted_witness("three") as serving:
        yield serving

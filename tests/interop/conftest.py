"""What the tests with foreign programs share: the programs, built, and one ledger to show to them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop import foreign_build
from tests.interop.go_command import require_go
from tests.support.offices import Offices, Served, make_offices


@pytest.fixture(scope="session")
def foreign() -> Path:
    """The folder of the foreign programs. Without Go the tests are skipped; where CI is set, they fail."""
    require_go(foreign_build.OLDEST_GO, "the check against foreign programs")
    return foreign_build.build()


@pytest.fixture(scope="session")
def offices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Offices]:
    """A ledger with registers of 0 to 70,000 entries, to be copied."""
    made = make_offices(tmp_path_factory.mktemp("offices") / "ledger")
    yield made
    # Some 90 MB, which pytest would keep for three runs.
    shutil.rmtree(made.root)


@pytest.fixture(scope="session")
def served(foreign: Path, offices: Offices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An untouched copy of that ledger, served; whoever wants to change something serves one of their own."""
    with offices.served(tmp_path_factory.mktemp("served") / "ledger") as served:
        yield served

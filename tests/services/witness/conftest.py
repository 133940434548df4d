"""A served witness for whoever needs no other; and logs of a name of their own, so that tests do not meet."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.support.growing_log import GrowingLog
from tests.support.witness_process import MadeWitness, RunningWitness, make_witness, witnessing

NAME = "witness.example/w"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeWitness:
    """Return a witness that accepts nothing yet."""
    return make_witness(tmp_path_factory.mktemp("witness") / "w", NAME)


@pytest.fixture(scope="module")
def served(made: MadeWitness) -> Iterator[RunningWitness]:
    """Serve it, and see that it stops as asked."""
    with witnessing(made.directory) as running:
        yield running
        assert running.terminate() == 0


@pytest.fixture
def new_log(made: MadeWitness) -> Callable[[], GrowingLog]:
    """Return what makes a log that the witness accepts and knows nothing of."""

    def make() -> GrowingLog:
        log = GrowingLog(f"log.example/{next(_numbers)}")
        made.add_ledger(log.vkey)
        return log

    return make


_numbers = itertools.count()

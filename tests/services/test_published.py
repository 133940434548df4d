"""What the ledger shows, where several threads ask for it at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError

import pytest

from ledger.sealing import SealedReader
from ledger.store import Store
from ledger.stores.memory import MemoryStore
from ledger.witnessing import Policy
from services import published
from services.published import Published
from tests.support.ledgers import POLICY


def test_seals_are_remembered_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """If false, a seal that was shown would be hidden again by what another thread has made."""
    both = Barrier(2)

    class Together(SealedReader):
        def __init__(self, store: Store, policy: Policy) -> None:
            with suppress(BrokenBarrierError):
                both.wait(timeout=1)  # where two may make one, they do
            super().__init__(store, policy)

    monkeypatch.setattr(published, "SealedReader", Together)
    shown = Published(MemoryStore(), lambda: POLICY)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: shown.sealed_reader, range(2))
    assert one is other
    assert shown.sealed_reader is one

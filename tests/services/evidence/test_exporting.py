from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import pytest

from ledger.errors import Reason, RejectedError
from ledger.stores.memory import MemoryStore
from services.evidence.exporting import MAX_EXPORTED, Exporter
from services.receipts import Built, ReceiptBuilder
from tests.support.command import run_json
from tests.support.ledgers import POLICY, REGISTER, LedgerUnderTest, open_ledger

NOW = datetime(2026, 11, 26, 21, 30, tzinfo=UTC)


@pytest.fixture
def held(tmp_path: Path) -> LedgerUnderTest:
    held = open_ledger(MemoryStore(), tmp_path / "marks")
    held.fill(5)
    return held


def test_a_ledger_without_witnesses_exports_what_its_key_alone_proves(
    held: LedgerUnderTest, tmp_path: Path
) -> None:
    """False if a small ledger had no evidence to give, or gave more than there is."""
    with Exporter(held.ledger, held.published).pack(REGISTER, 1, 0, 4, NOW) as file:
        (tmp_path / "pack.zip").write_bytes(file.read())
    (tmp_path / "policy").write_bytes(POLICY.text())
    told = run_json("verify", tmp_path / "pack.zip", "--policy", tmp_path / "policy")
    assert [each["index"] for each in told["exhibits"]] == [1, 2, 3]
    assert not any(each["witnessed"] for each in told["exhibits"])


def test_one_pack_is_made_at_a_time_also_where_nobody_waits_for_it(
    held: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if callers that give up could pile up work."""
    begun, go_on = Event(), Event()
    real: Callable[[ReceiptBuilder, str, int], Built] = ReceiptBuilder.receipt

    def slow(self: ReceiptBuilder, register: str, index: int) -> Built:
        begun.set()
        assert go_on.wait(60)
        return real(self, register, index)

    monkeypatch.setattr(ReceiptBuilder, "receipt", slow)
    exporter = Exporter(held.ledger, held.published)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(exporter.pack, REGISTER, 0, 2, 0, NOW)
        assert begun.wait(60)
        with pytest.raises(RejectedError) as refused:
            exporter.pack(REGISTER, 0, 2, 0, NOW)
        assert refused.value.reason is Reason.OVERLOADED
        go_on.set()
        first.result(60).close()
    exporter.pack(REGISTER, 0, 2, 0, NOW).close()


def test_more_than_a_pack_may_hold_is_refused(held: LedgerUnderTest) -> None:
    """False if one call could keep a server busy for hours."""
    held.fill(MAX_EXPORTED + 1)
    with pytest.raises(RejectedError) as refused:
        Exporter(held.ledger, held.published).pack(REGISTER, 0, 0, 0, NOW)
    assert refused.value.reason is Reason.INVALID_FIELD

"""`daybook query` against `daybook run audit`: the same proofs from another process's store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.brokers import SharedKafka
from tests.support.command import run_json
from tests.support.kafka_ledger import KafkaLedger, Replica, kafka_ledger
from tests.support.ledgers import POLICY, REGISTER


@pytest.fixture
async def ledger(
    kafka: SharedKafka, prefix: str, fresh_database: str, tmp_path: Path
) -> AsyncIterator[KafkaLedger]:
    async with kafka_ledger(kafka.bootstrap, prefix, fresh_database, tmp_path) as held:
        yield held


@pytest.fixture
async def auditor(ledger: KafkaLedger) -> AsyncIterator[Replica]:
    async with ledger.audit() as held:
        yield held


async def test_a_question_is_answered_with_proof_by_the_distributed_ledger(
    ledger: KafkaLedger, auditor: Replica, tmp_path: Path
) -> None:
    """If false, completeness could be had of the embedded ledger only."""
    await asyncio.to_thread(ledger.made.add, range(600))
    await ledger.publish(REGISTER)
    async with asyncio.timeout(30):
        while (await auditor.caller.sizes()).get(REGISTER) != 600:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    policy = tmp_path / "policy"
    policy.write_bytes(POLICY.text())
    asked = ("query", "--server", auditor.addresses["grpc"], "--register", REGISTER, "--policy", policy)
    told = await asyncio.to_thread(run_json, *asked, "--series", "MD/2026")
    assert [each["index"] for each in told["matches"]] == list(range(600))
    assert told["completeness_proved"]
    quick = await asyncio.to_thread(
        run_json, *asked, "--quick", "--channel", "corporate_email", "--at-size", "300"
    )
    assert [each["index"] for each in quick["matches"]] == list(range(300))
    as_at = await asyncio.to_thread(run_json, *asked, "--at-size", "599")
    assert [each["index"] for each in as_at["since"]] == [599]

"""Nothing fails open in silence: what /readyz, /metrics and the tiled endpoint say of witnesses and seals."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc
import pytest
from daybook.audit.v1 import audit_service_pb2 as audit
from daybook.submission.v1.submission_pb2 import State, WaitFor

from ledger.governing import GOVERNING
from ledger.witnessing import judge
from services.client.errors import from_rpc_error
from tests.support.calling import assert_refused
from tests.support.ledger_dir import LedgerOnDisk
from tests.support.ledgers import ORIGIN, REGISTER
from tests.support.scripted_witness import ScriptedWitness, hangs, honestly, replies
from tests.support.served import Served, served
from tests.support.witnessed import deciding, policy_text, publishing

MAIN = f"{ORIGIN}/{REGISTER}"


@asynccontextmanager
async def serving(ledger: LedgerOnDisk, witnesses: Sequence[ScriptedWitness]) -> AsyncIterator[Served]:
    """Serve a ledger that asks these witnesses, once it is all sealed."""
    async with served(ledger.root, anchor_seconds=600.0) as it:
        text = policy_text(ledger, [each.witness for each in witnesses])
        await it.govern("PublishPolicy", publishing(text))
        await it.until_all_sealed()
        yield it


async def metrics(it: Served) -> dict[str, float]:
    """Return every sample of /metrics."""
    response = await it.get("/metrics")
    assert response.status_code == 200
    lines = (line for line in response.text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_it_is_said_whether_the_quorum_is_met_and_by_whom(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a ledger whose witnesses are gone would look like one that is witnessed."""
    async with serving(ledger, [one, two]) as it:
        await it.until_anchored(0)
        await it.until_all_sealed()
        told = await it.ready()
        assert (told["status"], told["ready"]) == (200, True)
        witnesses = told["witnesses"]
        assert (witnesses["quorum"], witnesses["quorum_met"]) == ("all", True)
        assert (witnesses["unsealed_registers"], witnesses["unsealed"]) == (0, [])
        assert "unconfirmed" not in witnesses
        assert [(each["name"], each["cosigning"], each["trouble"]) for each in witnesses["witnesses"]] == [
            ("one", True, None),
            ("two", True, None),
        ]
        assert all(each["cosigned_at"] > 1_700_000_000 for each in witnesses["witnesses"])
        assert [each["key"] for each in witnesses["witnesses"]] == [str(w.key.cosigner) for w in (one, two)]
        two.always(replies(503, b"maintenance\n"))
        await it.register(deciding(), WaitFor.WAIT_FOR_SEQUENCED)
        await it.until(lambda: two.sizes(MAIN)[-1] == (0, 1))
        while True:
            told = await it.ready()
            if not told["witnesses"]["witnesses"][1]["cosigning"]:
                break
        # It goes on to take calls, and says what it lacks.
        assert (told["status"], told["ready"]) == (200, True)
        assert told["witnesses"]["quorum_met"] is False
        assert told["witnesses"]["unsealed"] == [REGISTER]
        (_, other) = told["witnesses"]["witnesses"]
        assert other["trouble"] == f"{REGISTER}: answered 503: maintenance"


async def test_a_ledger_without_witnesses_says_that_it_has_none(ledger: LedgerOnDisk) -> None:
    """If false, one would have to guess why nothing is sealed."""
    async with served(ledger.root) as it:
        told = await it.ready()
        assert (told["status"], told["witnesses"]) == (200, "none configured")
        assert not [name for name in await metrics(it) if name.startswith("daybook_sealed_size")]


async def test_while_heads_are_unconfirmed_reads_are_served_and_writes_are_not(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a restart without witnesses would take everything down, or sign what they cannot confirm."""
    async with serving(ledger, [one, two]) as it:
        await it.register(deciding(3))
    two.always(hangs)
    async with served(ledger.root) as it:
        await it.until(lambda: len(one.sizes(MAIN)) > 0)
        told = await it.ready()
        assert (told["status"], told["ready"]) == (503, False)
        assert "has not confirmed" in told["reason"]
        assert sorted(told["witnesses"]["unconfirmed"]) == [REGISTER, GOVERNING]
        assert (await metrics(it))["daybook_unconfirmed_registers"] == 2
        # Reads: receipts, checkpoints, tiles, entries.
        assert (await it.receipt(0)).state in (State.STATE_SEALED, State.STATE_ANCHORED)
        assert (await it.get(f"/logs/{REGISTER}/checkpoint")).status_code == 200
        assert (await it.get(f"/logs/{REGISTER}/tile/entries/000.p/3")).status_code == 200
        entries = it.caller.audit.ReadEntries(audit.ReadEntriesRequest(register=REGISTER))
        assert len((await entries.read()).entries) == 3
        # Writes: refused, with a time to ask again.
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await it.register(deciding())
        error = from_rpc_error(caught.value)
        assert_refused(error, grpc.StatusCode.UNAVAILABLE, "BACKEND_DOWN")
        assert error.retry_after is not None
        # A submission that is known is answered all the same.
        two.always(honestly)
        await two.stop()
        await two.start(two.port)
        await it.until(lambda: it.opened.sequencer.is_confirmed(REGISTER))
        assert (await it.register(deciding())).state == State.STATE_SEALED
        assert (await it.ready())["status"] == 200


async def test_metrics_show_seals_answers_and_their_times(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, nobody would be woken when sealing stops."""
    async with serving(ledger, [one, two]) as it:
        await it.register(deciding(3))
        # The first anchor is a checkpoint more to seal.
        await it.until_anchored(0)
        await it.until_all_sealed()
        found = await metrics(it)
        assert found[f'daybook_sealed_size{{register="{REGISTER}"}}'] == 3
        assert found[f'daybook_quorum_met{{register="{REGISTER}"}}'] == 1
        assert found['daybook_witness_cosigned_timestamp_seconds{witness="one"}'] > 1_700_000_000
        assert found["daybook_unconfirmed_registers"] == 0
        assert found['daybook_witness_answers_total{answer="granted",witness="two"}'] >= 3
        seals = found["daybook_sealing_seconds_count"]
        two.always(replies(404))
        await it.register(deciding(), WaitFor.WAIT_FOR_SEQUENCED)
        name = 'daybook_witness_answers_total{answer="refused",witness="two"}'
        while name not in (found := await metrics(it)):
            pass
        assert found[f'daybook_sealed_size{{register="{REGISTER}"}}'] == 3
        assert found[f'daybook_tree_size{{register="{REGISTER}"}}'] == 4
        assert found[f'daybook_quorum_met{{register="{REGISTER}"}}'] == 0
        assert found["daybook_sealing_seconds_count"] == seals


async def test_http_serves_the_latest_sealed_checkpoint_and_none_before_there_is_one(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a monitor would be shown what the witnesses have not seen (formats.md, section 11)."""
    two.always(replies(500))
    async with served(ledger.root) as it:
        text = policy_text(ledger, [one.witness, two.witness])
        await it.register(publishing(text), WaitFor.WAIT_FOR_SEQUENCED)
        response = await it.get(f"/logs/{REGISTER}/checkpoint")
        assert response.status_code == 404
        assert "sealed" in response.text
        two.always(honestly)
        await it.register(deciding(3))
        two.always(replies(500))
        await it.register(deciding(2), WaitFor.WAIT_FOR_SEQUENCED)
        response = await it.get(f"/logs/{REGISTER}/checkpoint")
        policy = it.published.policy
        assert policy is not None
        judged = judge(response.content, policy, MAIN)
        assert (judged.sealed, judged.checkpoint.size) == (True, 3)
        assert response.headers["Cache-Control"] == "no-store"
        listed = (await it.get("/registers.json")).json()
        (main,) = [each for each in listed["registers"] if each["name"] == REGISTER]
        assert (main["size"], main["sealed_size"]) == (5, 3)
        assert listed["witness_policy"].encode() == policy.text()
        assert re.search(r"^quorum all$", listed["witness_policy"], re.MULTILINE)

"""Packs from a real ledger with real witnesses; and from one that leaves something out."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from daybook.audit.v1 import audit_service_pb2 as pb
from daybook.audit.v1 import audit_service_pb2_grpc as audit_rpc

import services.compose
from ledger.admission import instant
from ledger.governing import GOVERNING
from ledger.own_records import checkpoint_anchored
from ledger.receipt_file import Receipt
from ledger.receipts import VerifiedReceipt, verify_receipt
from ledger.stores.memory import MemoryStore
from ledger.witnessing import Policy
from services.audit import AuditServicer
from services.client.answers import Registered
from services.client.client import connect
from services.compose import register_locally
from services.evidence import from_server
from services.receipts import ReceiptBuilder
from tests.support.audit_server import audit_server, seal, witnessed
from tests.support.command import run, run_json
from tests.support.ledger_dir import revoking
from tests.support.ledger_story import commit
from tests.support.ledgers import (
    DEPARTMENT_KEY,
    REGISTER,
    LedgerUnderTest,
    decision,
    open_ledger,
    record_id,
)
from tests.support.monitored import BEGAN, WITNESSED
from tests.support.packs import files_of
from tests.support.sealed_ledger import SealedLedger, sealed_ledger
from tests.support.server_process import Server, running

CHANNELS: Final = ("corporate_email", "whatsapp", "corporate_email", "whatsapp", "corporate_email")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SealedLedger]:
    """A ledger of five decisions, two of them by WhatsApp, whose key was revoked afterwards."""
    with sealed_ledger(tmp_path_factory.mktemp("sealed")) as it:
        with running(it.ledger.root, it.log) as server:
            asyncio.run(fill(server.grpc, it))
        revoked = revoking(DEPARTMENT_KEY)
        with pytest.MonkeyPatch.context() as patched:
            # The revocation is to be sealed, also where the machine is busy.
            patched.setattr(services.compose, "SETTLE_SECONDS", 60.0)
            register_locally(it.ledger.root, revoked.body, revoked.records, revoked.signatures)
        yield it


@pytest.fixture(scope="module")
def server(ledger: SealedLedger) -> Iterator[Server]:
    """It is served."""
    with running(ledger.ledger.root, ledger.log) as serving:
        yield serving


async def fill(address: str, it: SealedLedger) -> None:
    async with connect(address, policy=it.ledger.policy, register=REGISTER, key=DEPARTMENT_KEY) as client:
        for number, channel in enumerate(CHANNELS):
            answer = await client.submit(client.sign([decision(number, channel=channel)]))
            assert isinstance(answer, Registered)


def packed(ledger: SealedLedger, server: Server, out: Path, *options: str, status: int = 0) -> dict[str, Any]:
    return run_json(
        "evidence", "--register", REGISTER, "--server", server.grpc, "--policy", ledger.policy_file,
        "--out", out, *options, status=status,
    )  # fmt: skip


def test_a_selection_is_made_from_the_whole_register_and_verifies(
    ledger: SealedLedger, server: Server, tmp_path: Path
) -> None:
    """False if a pack from a real ledger did not hold what was asked for, with its times."""
    out = tmp_path / "pack"
    told = packed(ledger, server, out, "--select", "channel=whatsapp")
    assert told["read_whole"]
    checked = run_json("verify", out, "--policy", ledger.policy_file)
    assert [each["record_id"] for each in checked["exhibits"]] == [record_id(1), record_id(3)]
    for each in checked["exhibits"]:
        assert each["witnessed"]
        assert each["department_proved"]
        assert each["not_before"] <= each["not_after"]
    assert checked["one_history"]
    assert checked["own_report"]
    for each in checked["exhibits"]:
        assert each["key"]["revocation"] in ("provably before", "concurrent")
        assert "REVOKED by governing entry" in each["key"]["says"]
    report = (out / "data/report.txt").read_text()
    assert "all 5 entries were read when the pack was made" in " ".join(report.split())
    done = subprocess.run(
        [sys.executable, "-m", "bagit", "--validate", out], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_history_of_the_keys_tells_that_one_was_revoked(
    ledger: SealedLedger, server: Server, tmp_path: Path
) -> None:
    """False if a pack kept to itself what became of the key that signed."""
    out = tmp_path / "pack"
    packed(ledger, server, out, "--select", "index=0")
    checked = run_json("verify", out, "--policy", ledger.policy_file)
    assert [each["record_type"] for each in checked["keys"]] == [
        "ledger.opened/1", "register.opened/1", "key.authorised/1", "key.revoked/1",
    ]  # fmt: skip
    assert "key.revoked/1" in (out / "data/report.txt").read_text()


def test_a_pack_of_the_governing_register_can_be_made_too(
    ledger: SealedLedger, server: Server, tmp_path: Path
) -> None:
    """False if what the ledger decided about itself could not be shown to a tribunal."""
    out = tmp_path / "pack.zip"
    run(
        "evidence", "--register", "governing", "--server", server.grpc, "--policy", ledger.policy_file,
        "--select", "type=key.revoked/1", "--out", out,
    )  # fmt: skip
    assert len(run_json("verify", out, "--policy", ledger.policy_file)["exhibits"]) == 1


def test_one_date_makes_the_same_bytes_from_the_ledger_again(
    ledger: SealedLedger, server: Server, tmp_path: Path
) -> None:
    """False if a second person, asking the same ledger, could not make the same pack."""
    date = ("--date", "2026-11-26T21:30:00Z", "--select", "index=1..3")
    made: list[Mapping[str, bytes]] = []
    # Every anchor that comes makes it another ledger, until the last register is anchored.
    while len(made) < 2 or made[-1].keys() != made[-2].keys():
        out = tmp_path / str(len(made))
        packed(ledger, server, out, *date)
        made.append(files_of(out))
        assert len(made) < 10
    assert made[-1] == made[-2]


def exported(server: Server, **asked: Any) -> bytes:
    with grpc.insecure_channel(server.grpc) as channel:
        answers = audit_rpc.AuditServiceStub(channel).ExportEvidence(pb.ExportEvidenceRequest(**asked))
        return b"".join(answer.data for answer in answers)


def test_the_server_makes_packs_too_and_they_verify_like_any_other(
    ledger: SealedLedger, server: Server, tmp_path: Path
) -> None:
    """False if an auditor without this program could not get evidence, or got another kind of it."""
    out = tmp_path / "pack.zip"
    out.write_bytes(exported(server, register=REGISTER, first=1, count=3))
    checked = run_json("verify", out, "--policy", ledger.policy_file)
    assert [each["index"] for each in checked["exhibits"]] == [1, 2, 3]
    assert all("REVOKED by governing entry" in each["key"]["says"] for each in checked["exhibits"])
    assert checked["own_report"]
    assert [each["record_type"] for each in checked["keys"]] == [
        "ledger.opened/1", "register.opened/1", "key.authorised/1", "key.revoked/1",
    ]  # fmt: skip
    out.write_bytes(exported(server, register="governing"))
    run("verify", out, "--policy", ledger.policy_file)


def test_a_run_that_is_not_there_is_refused(server: Server) -> None:
    """False if a pack of fewer entries than were asked for came without a word."""
    for asked, code in (
        ({"first": 4, "count": 2}, grpc.StatusCode.OUT_OF_RANGE),
        ({"first": 5}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"first": 0, "count": 3, "size": 2}, grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            exported(server, register=REGISTER, **asked)
        assert refused.value.code() is code


_REAL: Final = audit_rpc.AuditServiceStub


class _Leaving:
    """An audit stub that leaves one entry out of what is read."""

    def __init__(self, channel: Any) -> None:
        self._real: Any = _REAL(channel)
        self.GetCheckpoint = self._real.GetCheckpoint

    def ReadEntries(self, request: pb.ReadEntriesRequest) -> _LeavingStream:  # noqa: N802
        return _LeavingStream(self._real.ReadEntries(request))


@dataclass
class _LeavingStream:
    """A stream of pages that lack it."""

    real: Any

    async def read(self) -> Any:
        page = await self.real.read()
        if not isinstance(page, pb.ReadEntriesResponse):
            return page
        kept = [entry for entry in page.entries if b"whatsapp" not in entry]
        return pb.ReadEntriesResponse(register=page.register, entries=kept)

    def cancel(self) -> None:
        self.real.cancel()


def test_a_ledger_that_leaves_a_record_out_is_an_integrity_failure(
    ledger: SealedLedger, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if a server could keep records that match out of a pack."""
    monkeypatch.setattr(audit_rpc, "AuditServiceStub", _Leaving)
    error = packed(ledger, server, tmp_path / "pack", status=1)["error"]
    assert "are not those of the checkpoint" in error["message"]
    assert not (tmp_path / "pack").exists()


class _Lying:
    """An audit stub whose consistency proofs lead nowhere."""

    def __init__(self, channel: Any) -> None:
        self._real: Any = _REAL(channel)
        self.GetCheckpoint = self._real.GetCheckpoint
        self.ReadEntries = self._real.ReadEntries

    async def GetConsistencyProof(  # noqa: N802
        self,
        request: pb.GetConsistencyProofRequest,
        timeout: float,  # noqa: ASYNC109
    ) -> pb.GetConsistencyProofResponse:
        answer = await self._real.GetConsistencyProof(request, timeout=timeout)
        return pb.GetConsistencyProofResponse(hashes=[bytes(32) for _ in answer.hashes])


def test_a_ledger_that_cannot_prove_one_history_is_an_integrity_failure(
    ledger: SealedLedger, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if records of two histories could be packed as if they were of one."""
    monkeypatch.setattr(audit_rpc, "AuditServiceStub", _Lying)
    error = packed(ledger, server, tmp_path / "pack", status=1)["error"]
    assert error["reason"] == "PROOF_INVALID"
    assert not (tmp_path / "pack").exists()


def test_a_ledger_that_is_away_is_no_integrity_failure(ledger: SealedLedger, tmp_path: Path) -> None:
    """False if a pack that could not be made were taken for a ledger that lies."""
    result = run(
        "evidence", "--register", REGISTER, "--server", "127.0.0.1:1", "--policy", ledger.policy_file,
        "--out", tmp_path / "pack", "--timeout", "1", "--json", status=3,
    )  # fmt: skip
    assert json.loads(result.stdout)["error"]["code"] == "UNAVAILABLE"


class _Empty(AuditServicer):
    """Sends pages without an entry, for ever."""

    async def ReadEntries(  # noqa: N802
        self, request: pb.ReadEntriesRequest, context: Any
    ) -> AsyncIterator[pb.ReadEntriesResponse]:
        while True:
            yield pb.ReadEntriesResponse(register=request.register)


class _Silent(AuditServicer):
    """Never sends a page."""

    async def ReadEntries(  # noqa: N802
        self, request: pb.ReadEntriesRequest, context: Any
    ) -> AsyncIterator[pb.ReadEntriesResponse]:
        await asyncio.Event().wait()
        yield pb.ReadEntriesResponse(register=request.register)


@pytest.mark.timeout(120)
# A page without an entry is refused at once, whatever time there is.
@pytest.mark.parametrize(("servicer", "seconds", "status"), [(_Empty, "30", 1), (_Silent, "1", 3)])
def test_a_ledger_that_sends_nothing_is_not_waited_for_longer_than_was_said(
    servicer: type[AuditServicer], seconds: str, status: int, tmp_path: Path
) -> None:
    """False if a server could keep whoever wants evidence waiting for ever."""
    held = witnessed(open_ledger(MemoryStore(), tmp_path / "marks"))
    held.fill(2)
    seal(held, BEGAN)
    policy = tmp_path / "policy"
    policy.write_bytes(WITNESSED.text())
    with audit_server(held, servicer) as address:
        run(
            "evidence", "--register", REGISTER, "--server", address, "--policy", policy,
            "--out", tmp_path / "pack", "--timeout", seconds, status=status,
        )  # fmt: skip
    assert not (tmp_path / "pack").exists()


def anchor_latest(held: LedgerUnderTest) -> None:
    """Anchor the latest sealed checkpoint of the register."""
    reader = held.published.sealed_reader
    assert reader is not None
    sealed = reader.last_up_to(REGISTER, held.published.latest(REGISTER).size)
    assert sealed is not None
    turn = held.ledger.turn()
    turn.append_ledger_written(GOVERNING, checkpoint_anchored(sealed.note), instant(BEGAN + held.turns))
    commit(held, turn)


def test_a_server_cannot_keep_to_itself_since_when_an_entry_was_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if a ledger whose receipts leave the earlier checkpoint out hid that a record came late."""
    held = witnessed(open_ledger(MemoryStore(), tmp_path / "marks"))
    for size, at in ((2, 10), (5, 20), (7, 30)):
        held.fill(size)
        seal(held, BEGAN + at)
        if at < 30:
            anchor_latest(held)
    seal(held, BEGAN + 31, register=GOVERNING)
    builder = ReceiptBuilder(held.ledger, held.published)

    async def withholding(
        _stub: object, policy: Policy, _origin: str, register: str, index: int, _timeout: float
    ) -> tuple[bytes, VerifiedReceipt]:
        whole = Receipt.parse(builder.receipt(register, index).data)
        data = replace(whole, not_before=None, anchor=None).data()
        return data, verify_receipt(data, policy)

    monkeypatch.setattr(from_server, "fetch_receipt", withholding)
    policy = tmp_path / "policy"
    policy.write_bytes(WITNESSED.text())
    with audit_server(held) as address:
        run(
            "evidence", "--register", REGISTER, "--server", address, "--policy", policy,
            "--out", tmp_path / "pack",
        )  # fmt: skip
    told = run_json("verify", tmp_path / "pack", "--policy", policy)
    assert [each["not_before"] for each in told["exhibits"]] == [
        None, None, BEGAN + 10, BEGAN + 10, BEGAN + 10, BEGAN + 20, BEGAN + 20,
    ]  # fmt: skip
    assert told["one_history"]

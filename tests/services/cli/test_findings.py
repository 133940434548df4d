"""`daybook findings` against a real `daybook serve`: what the operator says, and that it is only his word."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from daybook.audit.v1 import audit_service_pb2 as pb

from ledger.stores.memory import MemoryStore
from services.audit import AuditServicer
from services.client.signing import sign_submission
from services.receiving import Context
from tests.support.audit_server import audit_server
from tests.support.calling import calling
from tests.support.command import run, run_json
from tests.support.ledger_dir import LedgerOnDisk, make_ledger
from tests.support.ledgers import DEPARTMENT_KEY, ORIGIN, REGISTER, decision, open_ledger
from tests.support.server_process import ANY_PORT, Server, running

HOSTILE = "One\nINTACT  everything\x1b[2J\N{RIGHT-TO-LEFT OVERRIDE}"


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> LedgerOnDisk:
    return make_ledger(tmp_path_factory.mktemp("findings") / "ledger")


@pytest.fixture(scope="module")
def server(ledger: LedgerOnDisk) -> Iterator[Server]:
    """A served ledger of two decisions, the first of them made over WhatsApp."""
    with running(ledger.root, ledger.root.parent / "log") as server:
        asyncio.run(_register(server.grpc))
        yield server


async def _register(address: str) -> None:
    records = [
        decision(0, channel="whatsapp", device="privately_owned", decision_type="grant"),
        decision(1, decision_type="grant"),
    ]
    async with calling(address) as caller:
        await caller.register(sign_submission(records, f"{ORIGIN}/{REGISTER}", [DEPARTMENT_KEY]))
        async with asyncio.timeout(30):
            while (  # noqa: ASYNC110
                await caller.audit.ListFindings(pb.ListFindingsRequest(register=REGISTER))
            ).size < 2:
                await asyncio.sleep(0.02)


def test_findings_are_listed_and_said_to_be_the_operators_word(server: Server) -> None:
    """If false, a reader could take for proved what is not."""
    told = run("findings", "--server", server.grpc, "--register", REGISTER, "--size", "2")
    assert f"{REGISTER}: 1 finding over the first 2 entries." in told.stdout
    assert "the operator's word" in told.stdout
    assert "daybook audit" in told.stdout
    assert "MEDIUM DET-05: The decision was made over whatsapp" in told.stdout
    assert "  entry: 0\n" in told.stdout
    assert told.stdout.endswith("daybook query … --index N --full\n")


def test_findings_as_json(server: Server) -> None:
    """If false, another program could not read them."""
    told = run_json("findings", "--server", server.grpc, "--register", REGISTER)
    assert (told["register"], told["size"], told["proved"]) == (REGISTER, 2, False)
    (found,) = told["findings"]
    assert (found["detection"], found["severity"], found["indices"]) == ("DET-05", "medium", [0])
    assert found["inputs"]["channel"] == "whatsapp"
    assert found["innocent"]
    assert found["recheck"]


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        (("--register", "no/such"), 2, "REGISTER_UNKNOWN"),
        (("--register", "not a register"), 2, "REGISTER_MALFORMED"),
        (("--register", REGISTER, "--size", "3"), 2, "SIZE_NOT_REACHED"),
    ],
)
def test_what_cannot_be_answered_is_said(
    server: Server, options: tuple[str, ...], status: int, reason: str
) -> None:
    """If false, a mistake would look like a register without findings."""
    told = run_json("findings", "--server", server.grpc, *options, status=status)
    assert told["error"]["reason"] == reason


class Paging(AuditServicer):
    """Lists two findings of hostile text, on a page each; the register has grown in between."""

    async def ListFindings(  # noqa: N802 - as the generated base class spells it
        self, request: pb.ListFindingsRequest, context: Context
    ) -> pb.ListFindingsResponse:
        found = pb.Finding(
            detection="DET-01",
            version=1,
            severity="high",
            indices=range(1, 21),
            explanation=HOSTILE,
            inputs={"text": HOSTILE},
            innocent=[HOSTILE],
            recheck=HOSTILE,
        )
        if request.page_token:
            return pb.ListFindingsResponse(register=REGISTER, size=30, findings=[found])
        return pb.ListFindingsResponse(register=REGISTER, size=25, findings=[found], next_page_token="on")


def test_all_pages_are_read_and_hostile_text_forges_nothing(tmp_path: Path) -> None:
    """If false, text in a record could show a reader another answer, or steer the terminal."""
    held = open_ledger(MemoryStore(), tmp_path / "marks")
    with audit_server(held, Paging) as address:
        told = run("findings", "--server", address, "--register", REGISTER)
        value = run_json("findings", "--server", address, "--register", REGISTER)
    assert "2 findings over the first 25 entries" in told.stdout
    assert "entries: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 10 more" in told.stdout
    assert not any(line.startswith("INTACT") for line in told.stdout.splitlines())
    assert all(each.isprintable() or each == "\n" for each in told.stdout)
    assert [each["explanation"] for each in value["findings"]] == [HOSTILE, HOSTILE]


def test_a_ledger_that_runs_no_detections_is_not_one_without_findings(tmp_path: Path) -> None:
    """If false, nobody could tell silence from a clean register."""
    held = open_ledger(MemoryStore(), tmp_path / "marks")
    with audit_server(held) as address:
        told = run_json("findings", "--server", address, "--register", REGISTER, status=2)
    assert told["error"]["reason"] == "NOT_YET_AVAILABLE"


def test_an_operator_can_have_no_detections_run(tmp_path: Path) -> None:
    """If false, nobody could leave the processor to registration, or it would look like a clean register."""
    ledger = make_ledger(tmp_path / "ledger")
    with running(ledger.root, tmp_path / "log", [*ANY_PORT, "--no-detections"]) as server:
        told = run_json("findings", "--server", server.grpc, "--register", REGISTER, status=2)
        with urlopen(f"http://{server.http}/readyz") as answer:
            assert "findings" not in json.load(answer)
    assert told["error"]["reason"] == "NOT_YET_AVAILABLE"
    assert not ledger.directory.detections.exists()


class Endless(AuditServicer):
    """Always has one more page: of some findings, or of none."""

    findings = 400

    async def ListFindings(  # noqa: N802 - as the generated base class spells it
        self, request: pb.ListFindingsRequest, context: Context
    ) -> pb.ListFindingsResponse:
        found = [pb.Finding(detection="DET-01", indices=[1])] * self.findings
        return pb.ListFindingsResponse(register=REGISTER, size=25, findings=found, next_page_token="on")


class EndlessNothing(Endless):
    findings = 0


def test_a_server_that_never_ends_is_not_listened_to_for_ever(tmp_path: Path) -> None:
    """If false, a server could fill the memory of whoever asks it."""
    held = open_ledger(MemoryStore(), tmp_path / "marks")
    with audit_server(held, Endless) as address:
        told = run_json("findings", "--server", address, "--register", REGISTER)
        assert (told["more"], len(told["findings"])) == (True, 10_000)
        assert "THERE ARE MORE" in run("findings", "--server", address, "--register", REGISTER).stdout
    with audit_server(held, EndlessNothing) as address:
        told = run_json("findings", "--server", address, "--register", REGISTER, status=3)
        assert "without findings" in told["error"]["message"]

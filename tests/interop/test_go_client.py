"""A client in another language, written from docs/integrating.md alone, against a real server."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from daybook.registration.v1 import registration_service_pb2 as pb
from daybook.registration.v1 import registration_service_pb2_grpc as rpc

from ledger.receipt_file import Receipt
from tests.interop import goclient_build
from tests.interop.go_between import Meddling, altering, between, busy_at_first, losing_first_answer
from tests.interop.go_command import find_go, require_go
from tests.support.records import DEPARTMENT, LEDGER_ORIGIN, REGISTER
from tests.support.server import MadeLedger, daybook, make_ledger, serving

pytestmark = pytest.mark.journey

INTEGRITY_FAILURE = 1
REFUSED = 2
UNREACHABLE = 3


@pytest.fixture(scope="session")
def program() -> Path:
    """The client, built. Where there is no Go the tests are skipped, except where CI is set: they fail."""
    require_go(goclient_build.OLDEST_GO, "the interoperability test")
    return goclient_build.build()


@dataclass(frozen=True, slots=True)
class Office:
    """A department with the client, a ledger that runs, and a folder for each run's receipts."""

    program: Path
    ledger: MadeLedger
    grpc: str

    def run(
        self,
        receipts: Path,
        *options: str | Path,
        status: int = 0,
        server: str | None = None,
        key: Path | None = None,
    ) -> str:
        """Run the client to its end, assert its exit status, and return all that it said."""
        done = subprocess.run(
            [
                *(self.program, "-server", server or self.grpc, "-policy", self.ledger.policy),
                *("-register", REGISTER, "-key", key or self.ledger.key, "-receipts", receipts, *options),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == status, f"exit {done.returncode}, not {status}: {said}"
        return said

    def verify(self, receipt: Path, *options: str | Path) -> dict[str, Any]:
        """Verify a receipt with `daybook verify`, and return its report."""
        done = daybook("verify", receipt, "--policy", self.ledger.policy, "--json", *options)
        report: dict[str, Any] = json.loads(done.stdout)
        return report


@pytest.fixture(scope="module")
def office(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """A running ledger that already holds three records, so that proofs are not empty."""
    root = tmp_path_factory.mktemp("office")
    ledger = make_ledger(root)
    with serving(ledger.directory) as server:
        office = Office(program, ledger, server.grpc)
        office.run(root / "first")
        yield office


def files(receipts: Path, suffix: str) -> list[Path]:
    return sorted((receipts / REGISTER).glob(f"*{suffix}"))


def entry_at(receipt: bytes) -> tuple[bytes, int]:
    parsed = Receipt.parse(receipt)
    return parsed.entry, parsed.proof.index


def first_index(said: str) -> int:
    found = re.search(r"3 records at index (\d+) of", said)
    assert found is not None, said
    return int(found[1])


def test_daybook_verifies_the_receipts_that_the_client_wrote(office: Office, tmp_path: Path) -> None:
    """If false, another language cannot get from the page to a receipt that we accept."""
    first = first_index(office.run(tmp_path))
    reports = [office.verify(path) for path in files(tmp_path, ".receipt")]
    assert sorted(report["index"] for report in reports) == [first, first + 1, first + 2]
    for report in reports:
        assert (report["ledger_origin"], report["register"]) == (LEDGER_ORIGIN, REGISTER)
        assert DEPARTMENT in json.dumps(report)


def test_the_clients_entries_are_those_that_the_ledger_gives_out(office: Office, tmp_path: Path) -> None:
    """If false, the client's receipts hold other entries than the register does, or at other indices."""
    first = first_index(office.run(tmp_path))
    ours = {entry_at(path.read_bytes()) for path in files(tmp_path, ".receipt")}
    with grpc.insecure_channel(office.grpc) as channel:
        stub = rpc.RegistrationServiceStub(channel)
        asked = [pb.GetReceiptRequest(register=REGISTER, index=first + position) for position in range(3)]
        assert ours == {entry_at(stub.GetReceipt(request, timeout=30).receipt) for request in asked}


def test_the_clients_disclosure_opens_the_field_that_it_withheld(office: Office, tmp_path: Path) -> None:
    """If false, a department in another language withholds what nobody can ever open."""
    office.run(tmp_path)
    (disclosure,) = files(tmp_path, ".disclosure")
    report = office.verify(disclosure.with_suffix(".receipt"), "--disclosure", disclosure)
    assert "Approve purchase of 25 million gowns" in json.dumps(report)


def test_the_very_same_submission_gets_the_same_answer(office: Office, tmp_path: Path) -> None:
    """If false, a department that is unsure cannot simply send its submission again."""
    first = first_index(office.run(tmp_path / "sent"))
    (kept,) = files(tmp_path / "sent", ".submission")
    said = office.run(tmp_path / "again", "-resend", kept)
    assert said.startswith("already registered")
    assert first_index(said) == first
    for path in files(tmp_path / "sent", ".receipt"):
        again = tmp_path / "again" / REGISTER / path.name
        assert entry_at(again.read_bytes()) == entry_at(path.read_bytes())


@pytest.mark.parametrize(
    ("way", "how"),
    [(busy_at_first, "registered"), (losing_first_answer, "already registered")],
    ids=["the ledger was busy", "the answer was lost"],
)
def test_the_client_asks_again_when_told_to(
    office: Office, tmp_path: Path, way: Callable[[], Meddling], how: str
) -> None:
    """If false, RetryInfo is not obeyed, or a lost answer makes a second submission."""
    with between(office.grpc, {"Register": way()}) as address:
        assert office.run(tmp_path, server=address).startswith(how)
    assert len(files(tmp_path, ".receipt")) == 3


def test_a_refusal_is_told_with_its_reason(office: Office, tmp_path: Path) -> None:
    """If false, the details of google.rpc.Status do not reach a client in another language."""
    stranger = tmp_path / "stranger"
    daybook("keygen", stranger)
    said = office.run(tmp_path, key=stranger, status=REFUSED)
    assert "PermissionDenied" in said
    assert "KEY_UNKNOWN" in said
    assert files(tmp_path, ".receipt") == []


def test_a_ledger_that_does_not_answer_is_no_wrong_answer(office: Office, tmp_path: Path) -> None:
    """If false, a network fault is taken for an integrity failure."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        office.run(tmp_path, "-timeout", "1s", server=address, status=UNREACHABLE)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def of_another_submission(response: pb.RegisterResponse) -> None:
    response.acknowledgement.note = response.acknowledgement.note.replace(b"\n3\n", b"\n2\n")


def with_a_forged_acknowledgement(response: pb.RegisterResponse) -> None:
    response.acknowledgement.note = flipped(response.acknowledgement.note, -10)


def with_a_forged_checkpoint(response: pb.RegisterResponse) -> None:
    response.acknowledgement.checkpoint = flipped(response.acknowledgement.checkpoint, -10)


def of_another_root(response: pb.RegisterResponse) -> None:
    note = response.acknowledgement.checkpoint
    response.acknowledgement.checkpoint = flipped(note, note.index(b"=\n\n") - 2)


def with_a_changed_proof(response: pb.RegisterResponse) -> None:
    hashes = response.acknowledgement.range_proof.hashes
    hashes[0] = flipped(hashes[0], 0)


def with_a_short_proof(response: pb.RegisterResponse) -> None:
    del response.acknowledgement.range_proof.hashes[-1]


def with_a_long_proof(response: pb.RegisterResponse) -> None:
    response.acknowledgement.range_proof.hashes.append(bytes(32))


def at_another_index(response: pb.RegisterResponse) -> None:
    response.acknowledgement.first_index -= 1


def beyond_the_tree(response: pb.RegisterResponse) -> None:
    response.acknowledgement.first_index = 2**64 - 1


def accepted_earlier(response: pb.RegisterResponse) -> None:
    response.acknowledgement.envelope.accepted_at = "2020-07-03T15:20:11.042Z"


def judged_elsewhere(response: pb.RegisterResponse) -> None:
    response.acknowledgement.envelope.governing_size += 1


def with_a_second_member(response: pb.RegisterResponse) -> None:
    response.acknowledgement.envelope.submitter = 'anonymous","type":"entry/1'


WRONG_ANSWERS = [
    of_another_submission,
    with_a_forged_acknowledgement,
    with_a_forged_checkpoint,
    of_another_root,
    with_a_changed_proof,
    with_a_short_proof,
    with_a_long_proof,
    at_another_index,
    beyond_the_tree,
    accepted_earlier,
    judged_elsewhere,
    with_a_second_member,
]


@pytest.mark.parametrize("alter", WRONG_ANSWERS, ids=lambda alter: alter.__name__)
def test_a_wrong_answer_is_found_and_nothing_of_it_is_kept(
    office: Office, tmp_path: Path, alter: Callable[[pb.RegisterResponse], None]
) -> None:
    """If false, a department believes a ledger that lies in this way."""
    with between(office.grpc, {"Register": altering(pb.RegisterResponse, alter)}) as address:
        said = office.run(tmp_path, server=address, status=INTEGRITY_FAILURE)
    assert "THE LEDGER'S ANSWER IS WRONG" in said
    assert files(tmp_path, ".receipt") == []


def with_another_title(response: pb.PrepareRecordsResponse) -> None:
    record = response.records[0]
    record.record = record.record.replace(b"Publish the review", b"Suppress the review")
    record.sha256 = hashlib.sha256(record.record).digest()


def with_a_member_twice(response: pb.PrepareRecordsResponse) -> None:
    record = response.records[0]
    record.record = record.record.replace(b'{"', b'{"title":"Suppress the review","', 1)


def with_a_record_too_few(response: pb.PrepareRecordsResponse) -> None:
    del response.records[-1]


def for_another_register(response: pb.PrepareRecordsResponse) -> None:
    response.body = response.body.replace(b"secretary-of-state", b"permanent-secretary")


def with_other_bytes_to_sign(response: pb.PrepareRecordsResponse) -> None:
    response.bytes_to_sign = response.bytes_to_sign.replace(b"\n3\n", b"\n4\n")


WRONG_DRAFTS = [
    with_another_title,
    with_a_member_twice,
    with_a_record_too_few,
    for_another_register,
    with_other_bytes_to_sign,
]


@pytest.mark.parametrize("alter", WRONG_DRAFTS, ids=lambda alter: alter.__name__)
def test_nothing_is_signed_that_was_not_drafted(
    office: Office, tmp_path: Path, alter: Callable[[pb.PrepareRecordsResponse], None]
) -> None:
    """If false, whoever prepares the records can put words into the department's mouth."""
    with between(office.grpc, {"PrepareRecords": altering(pb.PrepareRecordsResponse, alter)}) as address:
        office.run(tmp_path, server=address, status=INTEGRITY_FAILURE)
    assert files(tmp_path, ".submission") == []


def test_a_ledger_that_is_not_the_policys_is_found_before_anything_is_sent(
    office: Office, tmp_path: Path
) -> None:
    """If false, the key that signs acknowledgements is believed without proof."""

    def alter(response: pb.GetReceiptResponse) -> None:
        response.receipt = response.receipt.replace(b'"operator":"', b'"operator":"not ')

    with between(office.grpc, {"GetReceipt": altering(pb.GetReceiptResponse, alter)}) as address:
        office.run(tmp_path, server=address, status=INTEGRITY_FAILURE)
    assert files(tmp_path, "") == []


def test_the_clients_own_code_gives_the_bytes_of_the_vectors(program: Path) -> None:
    """If false, the client agrees with the server only, and not with formats.md."""
    goclient_build.run_go("test", ".")


def test_the_client_is_formatted_and_vetted(program: Path) -> None:
    """If false, gofmt or go vet has something to say about the client."""
    goclient_build.run_go("vet", "./...")
    gofmt = Path(find_go(goclient_build.OLDEST_GO) or "").with_name("gofmt")
    assert subprocess.run([gofmt, "-l", goclient_build.CLIENT], capture_output=True, check=True).stdout == b""


def test_the_generated_code_is_that_of_the_protos() -> None:
    """If false, something changed since `python -m tests.interop.goclient_build --generate` was run."""
    assert goclient_build.SUMS.read_text(encoding="utf-8").splitlines() == goclient_build.sums()

"""docs/integrating.md: its bytes are those of the vectors, its listings run, its names exist."""

from __future__ import annotations

import json
import re
import shlex
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import typer.main
from daybook.registration.v1 import drafts_pb2
from daybook.registration.v1 import registration_service_pb2 as pb
from daybook.submission.v1 import submission_pb2
from google.protobuf.message import Message

from services.cli import command
from services.status import TABLE
from tests.support.vectors import VECTORS, load

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs" / "integrating.md").read_text(encoding="utf-8")
REGISTER: Final = "department-for-synthetic-affairs/secretary-of-state"

_BLOCK: Final = re.compile(r"<!-- (vector|listing): ([a-z_ 0-9]+) -->\n```[a-z]*\n(.*?)\n```", re.DOTALL)
_COMMANDS: Final = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(kind: str) -> dict[str, str]:
    """Return the marked blocks of the page by name, without their last line feed."""
    return {name: text for found, name, text in _BLOCK.findall(PAGE) if found == kind}


def submission(name: str = "three decision records") -> dict[str, Any]:
    found: dict[str, Any] = next(
        each for each in load("submissions.json")["submissions"] if each["name"] == name
    )
    return found


def envelope(entry: str) -> str:
    return entry.partition("\n")[0]


def path(entry: str) -> str:
    value: str = json.loads(envelope(entry))["submission"]["path"]
    return value


def vectors() -> dict[str, str]:
    """Return what the page must say, from the vector files alone."""
    three = submission()
    register = load("registers.json")[REGISTER]
    keys = load("keys.json")
    title = next(
        each
        for each in load("withheld.json")
        if (each["record"], each["path"]) == ("decision.registered", "title")
    )
    leaves = [bytes.fromhex(each) for each in register["leaf_hashes"]]
    checkpoint = next(
        each for each in load("checkpoints.json") if (each["register"], each["size"]) == (REGISTER, 3)
    )
    pair = namespace_of("signing", records=[b"0"], origin="", seed=bytes(32))["node"](leaves[0], leaves[1])
    proof = [pair, leaves[2], leaves[5], leaves[6]]
    return {
        "policy": (VECTORS / "policy").read_text(encoding="utf-8").removesuffix("\n"),
        "acknowledgement_key": keys["vkeys"]["acknowledgements"],
        **{f"record {at}": record for at, record in enumerate(three["records"])},
        "leaves": "\n".join(three["leaves"]),
        "root": three["root_base64"],
        "paths": "\n".join(map(path, three["entries"])),
        "body": three["body"].removesuffix("\n"),
        "submission_id": three["submission_id"],
        "pae": three["pae_hex"],
        "seed": keys["keys"]["department"]["seed_hex"],
        "public": keys["keys"]["department"]["public_base64"],
        "signature": three["signatures"][0]["signature"],
        "acknowledgement": (VECTORS / "acknowledgement.note").read_text(encoding="utf-8").removesuffix("\n"),
        "checkpoint": checkpoint["note"].removesuffix("\n"),
        "envelope 0": envelope(three["entries"][0]),
        "entry leaves": "\n".join(register["leaf_hashes"][:3]),
        "range proof": "\n".join(each.hex() for each in proof),
        "range leaves": "\n".join(register["leaf_hashes"][3:5]),
        "range root": register["roots"][7],
        "title salt": title["salt_hex"],
        "title value": json.dumps(title["value"], ensure_ascii=False),
        "title digest": title["digest"],
        "disclosure": (VECTORS / "disclosure.json").read_text(encoding="utf-8").removesuffix("\n"),
    }


def namespace_of(*listings: str, **given: Any) -> dict[str, Any]:
    """Run listings of the page, in order, and return what they define."""
    names = dict(given)
    for listing in listings:
        exec(compile(blocks("listing")[listing], f"docs/integrating.md, {listing}", "exec"), names)
    return names


def signed() -> dict[str, Any]:
    """Run the page's own listings over the page's own records."""
    page = blocks("vector")
    return namespace_of(
        "signing",
        "range",
        records=[page[f"record {at}"].encode() for at in range(3)],
        origin=page["body"].splitlines()[1],
        seed=bytes.fromhex(page["seed"]),
    )


@pytest.mark.parametrize("name", sorted(vectors()))
def test_the_page_shows_the_vectors_byte_for_byte(name: str) -> None:
    """If false, a developer who follows the page gets other bytes than the ledger."""
    assert blocks("vector")[name] == vectors()[name]


def test_the_page_shows_no_vector_that_is_not_compared() -> None:
    """If false, a block looks checked and is not."""
    assert set(blocks("vector")) == set(vectors())
    assert PAGE.count("<!-- vector:") + PAGE.count("<!-- listing:") == len(_BLOCK.findall(PAGE))


def test_the_signing_listing_gives_the_pages_own_values() -> None:
    """If false, the Python of step 3 and the values of step 3 contradict each other."""
    page, run = blocks("vector"), signed()
    assert b64encode(run["root"]).decode() == page["root"]
    assert [b64encode(each).decode() for each in run["paths"]] == page["paths"].splitlines()
    assert run["body"].decode() == page["body"] + "\n"
    assert run["submission_id"] == page["submission_id"]
    assert run["pae"].hex() == page["pae"]
    assert b64encode(run["signature"]).decode() == page["signature"]


def test_the_pages_range_proof_verifies_by_the_pages_listing() -> None:
    """If false, the example of step 6 does not prove what it says."""
    page, run = blocks("vector"), signed()
    leaves, proof, root = (
        [bytes.fromhex(line) for line in page[name].splitlines()]
        for name in ("range leaves", "range proof", "range root")
    )
    paths = run["verify_range"](3, 7, leaves, proof, root[0])
    assert [len(each) for each in paths] == [3, 3]
    whole = [bytes.fromhex(line) for line in page["entry leaves"].splitlines()]
    run["verify_range"](0, 3, whole, [], b64decode(page["checkpoint"].splitlines()[2]))


def test_the_range_listing_judges_every_vector_as_it_should() -> None:
    """If false, the Python of step 6 accepts a wrong range proof, or refuses a right one."""
    verify: Callable[..., Any] = signed()["verify_range"]
    for case in load("range-proofs.json")["cases"]:
        leaves, hashes = ([bytes.fromhex(each) for each in case[name]] for name in ("leaves", "hashes"))
        valid = case["end"] - case["first"] == len(leaves)
        try:
            verify(case["first"], case["size"], leaves, hashes, bytes.fromhex(case["root"]))
        except ValueError:
            valid = False
        assert valid == case["valid"], case


def test_the_pages_entry_is_the_envelope_with_the_record_below_it() -> None:
    """If false, the envelope shown in step 6 is not that of record 0."""
    page, run = blocks("vector"), signed()
    entry = f"{page['envelope 0']}\n{page['record 0']}".encode()
    assert run["leaf"](entry).hex() == page["entry leaves"].splitlines()[0]


def test_every_error_of_the_page_is_one_of_the_table() -> None:
    """If false, the page names a reason that the ledger never gives, or under another code."""
    rows = re.findall(r"^\| `([A-Z_]+)` \| (`[A-Z_`, ]+`) \|", PAGE, re.MULTILINE)
    assert len(rows) > 10
    known = {(status.code.name, reason.value) for reason, status in TABLE.items()}
    named = {(code, reason) for code, reasons in rows for reason in re.findall(r"[A-Z_]+", reasons)}
    assert named <= known, named - known


def test_every_command_of_the_page_is_one_that_exists_with_these_options() -> None:
    """If false, the page tells a developer to run what does not run."""
    lines = [line for found in _COMMANDS.findall(PAGE) for line in found.splitlines()]
    assert len(lines) >= 4
    for line in lines:
        program, name, *rest = shlex.split(line)
        assert program == "daybook"
        options = {
            option for parameter in typer.main.get_command(command(name)).params for option in parameter.opts
        }
        assert {each for each in rest if each.startswith("--")} <= options, line


def test_every_limit_of_the_page_is_that_of_the_vectors() -> None:
    """If false, a developer plans with another limit than the ledger's."""
    limits = load("limits.json")
    names = ("record_bytes", "submission_records", "submission_record_bytes", "grpc_receive_bytes")
    table = PAGE.partition("## Limits")[2]
    for name in names:
        assert f"{limits[name]:,}" in table, name


def test_every_call_message_and_field_of_the_page_is_in_the_protos() -> None:
    """If false, the page speaks of something that was renamed."""
    service = pb.DESCRIPTOR.services_by_name["RegistrationService"]
    calls = {"PrepareRecords", "Register", "RegisterStream", "GetSubmission", "GetReceipt"}
    assert calls == set(service.methods_by_name)
    for call in calls:
        assert f"`{call}`" in PAGE
    fields_of: dict[type[Message], tuple[str, ...]] = {
        pb.PrepareRecordsRequest: ("ledger_origin", "register"),
        pb.PrepareRecordsResponse: ("records", "root", "body", "bytes_to_sign", "submission_id", "violations"),
        pb.FieldViolation: ("field", "reason", "description", "allowed"),
        pb.RegisterRequest: ("submission", "wait_for"),
        submission_pb2.SignedSubmission: ("body", "records"),
        submission_pb2.Signature: ("key", "signature"),
        submission_pb2.Acknowledgement: (
            *("note", "envelope", "first_index", "checkpoint", "already_registered", "no_witness"),
        ),
        submission_pb2.Envelope: ("accepted_at", "submitter", "governing_size"),
        submission_pb2.RangeProof: ("first", "count", "size"),
        pb.RegisterStreamRequest: ("tag",),
        drafts_pb2.Decision: ("record_id", "previous", "withheld"),
    }
    for message, fields in fields_of.items():
        for field in fields:
            assert field in message.DESCRIPTOR.fields_by_name
            assert f"`{field}`" in PAGE, field

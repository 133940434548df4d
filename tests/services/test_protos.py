"""The protos keep their promises: numbers, comments, generated code, and nothing that updates or deletes."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

PROTOS = Path(__file__).parents[2] / "protos"
GENERATE = SimpleNamespace(**runpy.run_path(str(PROTOS / "generate.py")))

# Transcribed from formats.md, section 19. "*" is repeated, the number the field's.
PINNED = {
    "daybook.submission.v1.Signature": "bytes key = 1; bytes signature = 2",
    "daybook.submission.v1.SignedSubmission": "bytes body = 1; bytes* records = 2; Signature* signatures = 3",
    "daybook.submission.v1.Acknowledgement": """string submission_id = 1; State state = 2; bytes note = 3;
        Envelope envelope = 4; uint64 first_index = 5; bytes checkpoint = 6; RangeProof range_proof = 7;
        Rejection rejection = 8; bool already_registered = 9; bool no_witness = 10; bytes not_before = 11;
        bytes* not_before_consistency = 12""",
    "daybook.submission.v1.Envelope": "string accepted_at = 1; string submitter = 2; uint64 governing_size = 3",
    "daybook.submission.v1.RangeProof": """uint64 first = 1; uint64 count = 2; uint64 size = 3;
        bytes* hashes = 4""",
    "daybook.submission.v1.Rejection": """string reason = 1; uint64 index = 2; uint32 position = 3;
        uint64 existing_index = 4; bytes existing_sha256 = 5""",
    "daybook.registration.v1.RegisterRequest": "SignedSubmission submission = 1; WaitFor wait_for = 2",
    "daybook.registration.v1.RegisterResponse": "Acknowledgement acknowledgement = 1",
    "daybook.registration.v1.RegisterStreamRequest": "uint64 tag = 1; RegisterRequest request = 2",
    "daybook.registration.v1.RegisterStreamResponse": """uint64 tag = 1; Acknowledgement acknowledgement = 2;
        Status error = 3""",
    "daybook.registration.v1.GetSubmissionRequest": "string register = 1; string submission_id = 2",
    "daybook.registration.v1.GetReceiptRequest": """string register = 1; uint64 index = 2;
        RecordVersion record = 3""",
    "daybook.registration.v1.GetReceiptResponse": "bytes receipt = 1; State state = 2",
}
ENUMS = {
    "State": "UNSPECIFIED ACCEPTED SEQUENCED SEALED ANCHORED REJECTED",
    "WaitFor": "UNSPECIFIED ACCEPTED SEQUENCED SEALED",
}
CALLS = {
    "daybook.registration.v1.RegistrationService": """PrepareRecords Register *RegisterStream* GetSubmission
        GetReceipt""",
    "daybook.audit.v1.AuditService": """ListRegisters GetCheckpoint GetTimeBounds GetInclusionProof
        GetConsistencyProof GetRangeProof ReadEntries* WatchCheckpoints* QueryRecords* ListFindings
        ExportEvidence*""",
    "daybook.governance.v1.GovernanceService": """OpenRegister CloseRegister AuthoriseKey RevokeKey
        PublishPolicy""",
    "daybook.signer.v1.SignerService": "GetMarks Sign Confirm Remember",
}


@pytest.fixture(scope="module")
def files() -> list[FileDescriptorProto]:
    image = FileDescriptorSet.FromString(GENERATE.image())
    return [file for file in image.file if file.package.startswith("daybook.")]


def messages(files: list[FileDescriptorProto]) -> Iterator[tuple[str, DescriptorProto]]:
    for file in files:
        for message in file.message_type:
            yield f"{file.package}.{message.name}", message


def spelt(field: FieldDescriptorProto) -> str:
    kind = field.type_name.rpartition(".")[2] or field.Type.Name(field.type).removeprefix("TYPE_").lower()
    repeated = "*" if field.label == field.LABEL_REPEATED else ""
    return f"{kind}{repeated} {field.name} = {field.number}"


def test_generated_code_is_up_to_date() -> None:
    """If false, clients and servers run another interface than the protos say."""
    assert GENERATE.differences() == []


def test_the_protos_pass_the_linter() -> None:
    """If false, names or layout have left the conventions that code generators count on."""
    assert GENERATE.lint() == ""


def test_the_messages_have_the_fields_and_numbers_of_the_formats(files: list[FileDescriptorProto]) -> None:
    """If false, programs built from formats.md, section 19, could not talk to this server."""
    found = {name: "; ".join(map(spelt, message.field)) for name, message in messages(files)}
    expected = {name: " ".join(fields.split()) for name, fields in PINNED.items()}
    assert {name: found[name] for name in expected} == expected


def test_the_states_have_the_numbers_of_the_formats(files: list[FileDescriptorProto]) -> None:
    """If false, one program's SEALED would be another's ANCHORED."""
    (file,) = (file for file in files if file.package == "daybook.submission.v1")
    found = {enum.name: [(value.name, value.number) for value in enum.value] for enum in file.enum_type}
    prefixes = {"State": "STATE_", "WaitFor": "WAIT_FOR_"}
    assert found == {
        name: [(prefixes[name] + value, number) for number, value in enumerate(values.split())]
        for name, values in ENUMS.items()
    }


def test_the_services_have_exactly_the_calls_of_the_design(files: list[FileDescriptorProto]) -> None:
    """If false, a call is missing, streams the wrong way, or one was added that updates or deletes."""
    found = {
        f"{file.package}.{service.name}": [
            "*" * call.client_streaming + call.name + "*" * call.server_streaming for call in service.method
        ]
        for file in files
        for service in file.service
    }
    assert found == {name: calls.split() for name, calls in CALLS.items()}
    assert not [
        call
        for calls in found.values()
        for call in calls
        if call.startswith(("Update", "Delete", "Remove", "Set"))
    ]


def test_every_field_message_enum_and_call_is_commented(files: list[FileDescriptorProto]) -> None:
    """If false, an auditor who reads the protos as documentation finds a hole."""
    missing = []
    for file in files:
        commented = {
            tuple(location.path)
            for location in file.source_code_info.location
            if location.leading_comments.strip()
        }
        missing += [f"{file.name}: {name}" for path, name in _described(file) if path not in commented]
    assert missing == []


def _described(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    for i, message in enumerate(file.message_type):
        yield (4, i), message.name
        for j, field in enumerate(message.field):
            yield (4, i, 2, j), f"{message.name}.{field.name}"
    for i, enum in enumerate(file.enum_type):
        yield (5, i), enum.name
        for j, value in enumerate(enum.value):
            yield (5, i, 2, j), value.name
    for i, service in enumerate(file.service):
        yield (6, i), service.name
        for j, call in enumerate(service.method):
            yield (6, i, 2, j), f"{service.name}.{call.name}"


def test_the_stubs_belong_to_a_namespace_package() -> None:
    """If false, the wheel's `daybook` would hide other parts of the same package."""
    assert not list((PROTOS / "gen").rglob("__init__.py"))

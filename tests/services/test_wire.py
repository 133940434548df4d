"""Drafts become the records that they describe; answers carry what the ledger said."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from daybook.registration.v1 import drafts_pb2
from daybook.submission.v1 import submission_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import ParseDict

from ledger import canonical
from ledger.entries import MAX_SIGNATURES
from ledger.errors import Reason, RejectedError
from ledger.record_types import DecisionCorrected, DecisionRegistered, DecisionWithdrawn, ReturnFiled
from ledger.records import violations
from services.wire import record_members, signatures
from tests.support.vectors import VECTORS

RECORDS = sorted(
    path
    for path in (VECTORS / "records").glob("*.json")
    if path.name.startswith(("decision.", "return."))  # the types that a department drafts
)


def test_signatures_beyond_the_most_are_counted_and_not_read() -> None:
    """If false, one request with a million of them would hold up everybody while they are read."""
    signed = submission_pb2.SignedSubmission()
    for count in (MAX_SIGNATURES, MAX_SIGNATURES + 1):
        del signed.signatures[:]
        signed.signatures.extend([submission_pb2.Signature(key=b"k", signature=b"s")] * count)
        read = signatures(signed)
        assert len(read) == count
        assert (read[0].key == b"k") is (count == MAX_SIGNATURES)


def as_draft(record: dict[str, Any]) -> drafts_pb2.Draft:
    """Return the draft that a department would write for a record."""
    content = {name: value for name, value in record.items() if name not in ("type", "register")}
    kind = {"decision.withdrawn/1": "withdrawal", "return.filed/1": "period_return"}.get(
        record["type"], "decision"
    )
    return ParseDict({kind: content}, drafts_pb2.Draft())


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_draft_is_written_as_the_very_bytes_of_the_record(path: Any) -> None:
    """If false, a department that uses typed drafts could not make a record that the formats describe."""
    data = path.read_bytes()
    record = json.loads(data)
    members = record_members(as_draft(record), record["register"])
    assert canonical.format(members) == data
    assert violations(members) == ()


def test_false_and_zero_are_stated_where_the_record_states_them() -> None:
    """If false, a record that says "not sensitive" or "0 bytes" would lose the statement."""
    draft = drafts_pb2.Draft(
        decision=drafts_pb2.Decision(
            classification=drafts_pb2.Classification(tier="OFFICIAL", sensitive=False),
            evidence=[drafts_pb2.Evidence(kind="scan", size=0)],
        )
    )
    members = record_members(draft, "department/office")
    assert members["classification"] == {"tier": "OFFICIAL", "sensitive": False}
    assert members["evidence"] == [{"kind": "scan", "size": 0}]


def test_a_classification_that_is_not_stated_is_missing_and_not_false() -> None:
    """If false, forgetting to say whether a record is sensitive would say that it is not."""
    draft = drafts_pb2.Draft(
        decision=drafts_pb2.Decision(classification=drafts_pb2.Classification(tier="OFFICIAL"))
    )
    members = record_members(draft, "department/office")
    assert "sensitive" not in members["classification"]
    assert any(violation.field == "classification.sensitive" for violation in violations(members))


def test_an_empty_draft_is_refused() -> None:
    """If false, a draft that holds nothing would become a record of no type."""
    with pytest.raises(RejectedError) as caught:
        record_members(drafts_pb2.Draft(), "department/office")
    assert caught.value.reason is Reason.INVALID_FIELD


def shape_of_draft(descriptor: Descriptor) -> dict[str, Any]:
    """Return every field path of a draft message, nested."""
    return {
        field.name: None
        if field.message_type is None or field.message_type.GetOptions().map_entry
        else shape_of_draft(field.message_type)
        for field in descriptor.fields
    }


def shape_of_record(kind: object) -> Any:
    """Return every member path of a record type, nested."""
    kinds = getattr(kind, "__args__", (kind,))
    for one in kinds:
        origin = getattr(one, "__origin__", one)
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            return {field.encode_name: shape_of_record(field.type) for field in msgspec.structs.fields(one)}
        if origin is not one:
            found = shape_of_record(one)
            if found:
                return found
    return None


@pytest.mark.parametrize(
    ("draft", "types"),
    [
        (drafts_pb2.Decision, (DecisionRegistered, DecisionCorrected)),
        (drafts_pb2.Withdrawal, (DecisionWithdrawn,)),
        (drafts_pb2.PeriodReturn, (ReturnFiled,)),
    ],
    ids=["decision", "withdrawal", "return"],
)
def test_a_draft_has_every_member_of_its_record_and_no_other(draft: Any, types: Any) -> None:
    """If false, a member of a record could not be given in a draft, or a draft would name a member in vain."""
    members: dict[str, Any] = {}
    for record_type in types:
        members |= shape_of_record(record_type)
    for written_by_the_server in ("type", "register"):
        members.pop(written_by_the_server)
    assert shape_of_draft(draft.DESCRIPTOR) == members

"""Protobuf messages as ledger values, and back. Nothing is judged here.

Signed and hashed bytes pass through untouched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from daybook.registration.v1.drafts_pb2 import Draft
from daybook.registration.v1.registration_service_pb2 import FieldViolation
from daybook.submission.v1 import submission_pb2
from google.protobuf.message import Message

from ledger.entries import MAX_SIGNATURES, Acceptance, Signature
from ledger.errors import Reason, RejectedError, Violation
from ledger.hashing import Hash
from ledger.store import Run
from services.reached import Answer, Reached
from services.submissions import LostRace, Pending

_FIRST_VERSION: Final = 1


def signatures(message: submission_pb2.SignedSubmission) -> list[Signature]:
    """Return the signatures of a submission, in the order sent. Of too many only the number is told."""
    if len(message.signatures) > MAX_SIGNATURES:
        return [Signature(b"", b"")] * len(message.signatures)
    return [Signature(signature.key, signature.signature) for signature in message.signatures]


def acknowledgement(answer: Answer) -> submission_pb2.Acknowledgement:
    """Return the answer for a submission, whatever it has reached."""
    match answer:
        case Reached():
            return _sequenced(answer)
        case Pending():
            return submission_pb2.Acknowledgement(
                submission_id=answer.submission_id,
                state=submission_pb2.STATE_ACCEPTED,
                note=answer.note,
                envelope=envelope(answer.acceptance),
                already_registered=answer.known,
                no_witness=answer.no_witness,
            )
        case LostRace():
            return submission_pb2.Acknowledgement(
                submission_id=answer.submission_id,
                state=submission_pb2.STATE_REJECTED,
                note=answer.note,
                envelope=envelope(answer.acceptance),
                rejection=_rejection(answer),
            )


def _rejection(lost: LostRace) -> submission_pb2.Rejection:
    existing_index, existing_sha256 = lost.existing or (0, b"")
    return submission_pb2.Rejection(
        reason=lost.reason,
        index=lost.index,
        position=lost.position or 0,
        existing_index=existing_index,
        existing_sha256=existing_sha256,
    )


def _sequenced(reached: Reached) -> submission_pb2.Acknowledgement:
    accepted, not_before = reached.accepted, reached.not_before
    return submission_pb2.Acknowledgement(
        submission_id=accepted.submission_id,
        state=state(sealed=reached.sealed, anchored=reached.anchored),
        note=accepted.note,
        envelope=envelope(accepted.acceptance),
        first_index=accepted.run.first,
        checkpoint=reached.note,
        range_proof=range_proof(accepted.run, reached.size, reached.range_proof),
        already_registered=accepted.known,
        no_witness=reached.no_witness,
        not_before=not_before.note if not_before else b"",
        not_before_consistency=not_before.consistency if not_before else (),
    )


def state(*, sealed: bool, anchored: bool) -> submission_pb2.State.ValueType:
    """Return the state of what is under a signed checkpoint."""
    if not sealed:
        return submission_pb2.STATE_SEQUENCED
    return submission_pb2.STATE_ANCHORED if anchored else submission_pb2.STATE_SEALED


def envelope(acceptance: Acceptance) -> submission_pb2.Envelope:
    """Return the ledger's part of a submission's entries."""
    return submission_pb2.Envelope(
        accepted_at=acceptance.accepted_at,
        submitter=acceptance.submitter,
        governing_size=acceptance.governing_size,
    )


def range_proof(run: Run, size: int, hashes: Sequence[Hash]) -> submission_pb2.RangeProof:
    """Return the range proof of a run in a tree of `size` entries."""
    return submission_pb2.RangeProof(first=run.first, count=run.count, size=size, hashes=hashes)


def field_violation(violation: Violation) -> FieldViolation:
    """Return one violation as PrepareRecords answers it."""
    return FieldViolation(
        field=violation.field,
        reason=violation.reason.value,
        description=violation.description,
        allowed=violation.allowed,
    )


def record_members(draft: Draft, register: str) -> dict[str, Any]:
    """Return the members of the record that a draft describes, with its `type` and `register`.

    Values are dict, list, str, int and bool, ready for `canonical.format`; whether they keep the rules of
    formats.md, section 3, is not judged. Raises RejectedError INVALID_FIELD for a draft that holds nothing.
    """
    match draft.WhichOneof("record"):
        case "decision":
            corrected = draft.decision.version > _FIRST_VERSION
            record_type = "decision.corrected/1" if corrected else "decision.registered/1"
            content: Message = draft.decision
        case "withdrawal":
            record_type, content = "decision.withdrawn/1", draft.withdrawal
        case "period_return":
            record_type, content = "return.filed/1", draft.period_return
        case _:
            text = "the draft holds no record: set decision, withdrawal or period_return"
            raise RejectedError(Reason.INVALID_FIELD, text, violations=(Violation(Reason.INVALID_FIELD, text),))
    return {**_members(content), "type": record_type, "register": register}


def _members(message: Message) -> dict[str, Any]:
    """Return the fields that are set, under their names: drafts name them as records do."""
    members: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is None:
            members[field.name] = list(value) if field.is_repeated else value
        elif field.message_type.GetOptions().map_entry:
            members[field.name] = dict(value)
        elif field.is_repeated:
            members[field.name] = [_members(item) for item in value]
        else:
            members[field.name] = _members(value)
    return members

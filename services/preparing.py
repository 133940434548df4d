"""PrepareRecords: typed drafts in; canonical bytes, what to sign and every violation out. A dry run.

It never receives a withheld value: a draft carries digests only. Nothing is kept.
"""

from __future__ import annotations

import hashlib
from typing import Final

from daybook.registration.v1 import drafts_pb2
from daybook.registration.v1 import registration_service_pb2 as pb

from ledger import canonical
from ledger.admission import in_future, instant, rejection, repeated
from ledger.entries import MAX_RECORD, MAX_RECORDS, MAX_SUBMISSION, pae, submission_body, submission_id
from ledger.errors import MalformedError, Reason, RejectedError, Violation
from ledger.hashing import leaf_hashes
from ledger.records import check_place, parse_record, violations
from ledger.rules import header_of
from ledger.tree import tree_root
from ledger.values import is_register
from services import wire

MAX_VIOLATIONS: Final = 1_000
"""Violations answered at once, over all records: once so many are found, further drafts are not judged."""

_MAX_DRAFT: Final = MAX_RECORD + 4_096
"""Bytes of the largest draft that is looked into: canonical JSON is hardly ever shorter than protobuf."""


def prepare(request: pb.PrepareRecordsRequest, ledger_origin: str, now: float) -> pb.PrepareRecordsResponse:
    """Return the prepared records, in order, and what to sign, absent where there is any violation.

    `now` is the ledger's clock, in POSIX seconds.

    Raises RejectedError for what concerns the request as a whole: the ledger origin, the register's name, the
    number of records.
    """
    _check_request(request, ledger_origin)
    response = pb.PrepareRecordsResponse()
    found: list[Violation] = []
    for position, draft in enumerate(request.records):
        if len(found) >= MAX_VIOLATIONS:
            response.records.add()
            continue
        record, wrong = _prepared(draft, request.register)
        found += (violation.within(f"records[{position}]") for violation in wrong)
        response.records.append(record)
    records = [record.record for record in response.records]
    if sum(map(len, records)) > MAX_SUBMISSION:
        text = f"the records have more than {MAX_SUBMISSION} bytes together"
        found.append(Violation(Reason.SUBMISSION_TOO_LARGE, text, "records"))
    if not found:
        parsed = [parse_record(record) for record in records]
        found += repeated([header_of(record) for record in parsed])
        found += in_future(parsed, instant(now))
    response.violations.extend(map(wire.field_violation, found[:MAX_VIOLATIONS]))
    if not found:
        root = tree_root(leaf_hashes(records))
        response.root = root
        response.body = submission_body(f"{ledger_origin}/{request.register}", len(records), root)
        response.bytes_to_sign = pae(response.body)
        response.submission_id = submission_id(response.body)
    return response


def _check_request(request: pb.PrepareRecordsRequest, ledger_origin: str) -> None:
    if request.ledger_origin != ledger_origin:
        text = f"this ledger's origin is {ledger_origin!r}, the request says {request.ledger_origin!r}"
        raise rejection([Violation(Reason.BODY_MISMATCH, text, "ledger_origin")])
    if not is_register(request.register):
        raise rejection([Violation(Reason.INVALID_FIELD, "not the name of a register", "register")])
    if not request.records:
        raise rejection([Violation(Reason.INVALID_FIELD, "no records to prepare", "records")])
    if len(request.records) > MAX_RECORDS:
        raise rejection([Violation(Reason.TOO_MANY_RECORDS, f"at most {MAX_RECORDS}", "records")])


def _prepared(draft: drafts_pb2.Draft, register: str) -> tuple[pb.PreparedRecord, tuple[Violation, ...]]:
    if draft.ByteSize() > _MAX_DRAFT:
        text = f"the record would have more than {MAX_RECORD} bytes"
        return pb.PreparedRecord(), (Violation(Reason.RECORD_TOO_LARGE, text),)
    try:
        members = wire.record_members(draft, register)
    except RejectedError as error:
        return pb.PreparedRecord(), error.violations
    prepared = pb.PreparedRecord(type=members["type"])
    wrong = violations(members)
    try:
        data = canonical.format(members)
    except MalformedError as error:
        return prepared, wrong or (Violation(Reason.NOT_CANONICAL, str(error)),)
    prepared.record = data
    prepared.sha256 = hashlib.sha256(data).digest()
    if not wrong:
        try:
            check_place(parse_record(data), register)
        except RejectedError as error:
            wrong = error.violations
    return prepared, wrong

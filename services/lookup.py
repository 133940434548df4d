"""Which entry a request means: by index or by record version, among those that are published."""

from __future__ import annotations

from uuid import UUID

from daybook.audit.v1.audit_service_pb2 import GetInclusionProofRequest, GetTimeBoundsRequest
from daybook.registration.v1.registration_service_pb2 import GetReceiptRequest
from daybook.submission.v1.submission_pb2 import RecordVersion

from ledger.canonical import MAX_INTEGER
from ledger.errors import Reason, RejectedError, Violation
from ledger.store import Store
from ledger.values import is_uuid


def find_entry(
    store: Store, request: GetReceiptRequest | GetInclusionProofRequest | GetTimeBoundsRequest, size: int
) -> int:
    """Return the index that a request asks for, in a register of which `size` entries are published.

    Raises RejectedError: INVALID_FIELD, SIZE_NOT_REACHED for an index, RECORD_UNKNOWN for a record.
    """
    match request.WhichOneof("entry"):
        case "index":
            if request.index >= size:
                raise RejectedError(
                    Reason.SIZE_NOT_REACHED,
                    f"register {request.register!r} has {size} entries; there is no index {request.index}",
                    detail={"latest_size": str(size)},
                )
            return request.index
        case "record":
            return _find_record(store, request.register, request.record, size)
        case _:
            raise invalid("entry", "say which entry: `index` or `record`")


def _find_record(store: Store, register: str, record: RecordVersion, size: int) -> int:
    if not is_uuid(record.record_id):
        raise invalid("record.record_id", "not a uuid, lowercase with hyphens")
    if record.version == 0:
        raise invalid("record.version", "versions count from 1")
    if record.version <= MAX_INTEGER:
        for at in store.versions(register, [(UUID(record.record_id).bytes, record.version)]):
            if at.index < size:
                return at.index
    raise RejectedError(
        Reason.RECORD_UNKNOWN,
        f"register {register!r} has no version {record.version} of record {record.record_id}",
        detail={"record_id": record.record_id, "version": str(record.version)},
    )


def invalid(field: str, description: str) -> RejectedError:
    """Return the refusal of one field of a request."""
    violation = Violation(Reason.INVALID_FIELD, description, field)
    return RejectedError(Reason.INVALID_FIELD, f"{field}: {description}", violations=(violation,))

"""The records that the ledger writes itself: anchors and rejections (formats.md, section 3).

Their `record_id` follows from what they say, so that the same fact written twice is one record.
"""

from __future__ import annotations

import hashlib
from typing import Any

from ledger import canonical
from ledger.errors import MalformedError
from ledger.governing_types import CheckpointAnchored, RestoreDeclared, SubmissionRejected
from ledger.record_rules import faults_between, refusal
from ledger.record_types import Recorded
from ledger.shapes import shape_of


def record_digest(data: bytes) -> str:
    """Return the digest of a record: hex SHA-256 of its bytes, as `sha256sum` prints it."""
    return hashlib.sha256(data).hexdigest()


def uuid8(data: bytes) -> str:
    """Return the UUIDv8 of `data`: 16 bytes of its SHA-256 with version 8 and variant 10 (section 3)."""
    digest = bytearray(hashlib.sha256(data).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def checkpoint_anchored(note: bytes) -> bytes:
    """Return the `checkpoint.anchored/1` record of a checkpoint note, which it carries verbatim.

    Raises MalformedError for a note that canonical JSON cannot hold, RejectedError beyond 16 KiB.
    """
    try:
        text = note.decode()
    except UnicodeDecodeError as error:
        raise MalformedError("checkpoint note: not UTF-8", error.start) from error
    return _format(
        CheckpointAnchored,
        {
            "checkpoint": text,
            "record_id": uuid8(note),
            "register": "governing",
            "type": "checkpoint.anchored/1",
            "version": 1,
        },
    )


def rejection_id(register_origin: str, submission_id: str, index: int) -> str:
    """Return the record_id of a `submission.rejected/1` that stands at `index` (formats.md, section 3)."""
    return uuid8(f"submission.rejected/1\n{register_origin}\n{submission_id}\n{index}\n".encode())


def submission_rejected(
    *,
    register: str,
    register_origin: str,
    submission_id: str,
    count: int,
    reason: str,
    index: int,
    rejected: tuple[int, str, int] | None,
    existing: tuple[int, str] | None,
) -> bytes:
    """Return the `submission.rejected/1` record that stands at `index` of `register` (section 9, rule 5).

    `count` is the number of records of the submission; `rejected` the position, record_id and version of the
    one that met the refusal; `existing` the index of the earlier entry that it met, and the hex SHA-256 of
    that entry's record. Raises RejectedError for a value that breaks its member's rules.
    """
    value: dict[str, Any] = {
        "count": count,
        "reason": str(reason),
        "record_id": rejection_id(register_origin, submission_id, index),
        "register": register,
        "submission_id": submission_id,
        "type": "submission.rejected/1",
        "version": 1,
    }
    if rejected is not None:
        position, record_id, version = rejected
        value["rejected"] = {"position": position, "record_id": record_id, "version": version}
    if existing is not None:
        earlier, digest = existing
        value["existing"] = {"index": earlier, "sha256": digest}
    return _format(SubmissionRejected, value)


def restore_declared(
    *,
    register: str,
    register_origin: str,
    stored_size: int,
    recovered_size: int,
    source: str,
    governing_size: int,
) -> bytes:
    """Return the `restore.declared/1` record of one register that was restored and has caught up.

    `stored_size` is what the older copy held of it, `recovered_size` what was recovered from `source`
    (event_log, tiles or receipts), `governing_size` the entries of the governing register after the restore:
    it has grown before the next one, so that each restore is one record and two are two. Raises
    RejectedError for a value that breaks its member's rules.
    """
    sizes = f"{stored_size}\n{recovered_size}\n{source}\n{governing_size}\n"
    stated = f"restore.declared/1\n{register_origin}\n{sizes}"
    return _format(
        RestoreDeclared,
        {
            "record_id": uuid8(stated.encode()),
            "recovered_size": recovered_size,
            "register": "governing",
            "restored": register,
            "source": source,
            "stored_size": stored_size,
            "type": "restore.declared/1",
            "version": 1,
        },
    )


def _format(record_type: type[Recorded], value: dict[str, Any]) -> bytes:
    found = (*shape_of(record_type).faults(value, ""), *faults_between(record_type, value))
    if found:
        raise refusal(found)
    return canonical.format(value)

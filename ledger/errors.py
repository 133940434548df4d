"""The exceptions of the ledger, one tree.

LedgerError
├ MalformedError         bytes do not parse
├ RejectedError          well formed, breaks a rule: a stable reason for each
├ ConflictError          another writer got there first
│ ├ FencedError          another writer has taken the partition over
│ └ TakenError           a submission or a version of a record is there already
├ StoreError             outcome unknown: reopen
│ └ StorageFullError     nothing was written; reads go on
└ VerificationError
  ├ ProofError           a proof does not lead to the root
  ├ SignatureError       a signature is missing, unknown or wrong
  │ └ QuorumError        fewer witnesses have cosigned than the policy asks for
  └ SplitViewError       two histories of one origin: holds both notes

Catch to translate, at an edge, with ``raise ... from``. Anything unknown rises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a call was refused: stable names (formats.md, section 19)."""

    NOT_CANONICAL = "NOT_CANONICAL"
    INVALID_FIELD = "INVALID_FIELD"
    UNKNOWN_TYPE = "UNKNOWN_TYPE"
    WRONG_REGISTER = "WRONG_REGISTER"
    CLASSIFICATION_REFUSED = "CLASSIFICATION_REFUSED"
    DECIDED_IN_FUTURE = "DECIDED_IN_FUTURE"
    BODY_MISMATCH = "BODY_MISMATCH"
    RECORD_TOO_LARGE = "RECORD_TOO_LARGE"
    SUBMISSION_TOO_LARGE = "SUBMISSION_TOO_LARGE"
    TOO_MANY_RECORDS = "TOO_MANY_RECORDS"
    DUPLICATE_IN_SUBMISSION = "DUPLICATE_IN_SUBMISSION"
    SIGNATURE_COUNT = "SIGNATURE_COUNT"
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    KEY_UNKNOWN = "KEY_UNKNOWN"
    KEY_REVOKED = "KEY_REVOKED"
    KEY_OF_OTHER_DEPARTMENT = "KEY_OF_OTHER_DEPARTMENT"
    GOVERNANCE_REFUSED = "GOVERNANCE_REFUSED"
    REGISTER_CLOSED = "REGISTER_CLOSED"
    REGISTER_UNKNOWN = "REGISTER_UNKNOWN"
    RECORD_UNKNOWN = "RECORD_UNKNOWN"
    SUBMISSION_UNKNOWN = "SUBMISSION_UNKNOWN"
    PREVIOUS_UNKNOWN = "PREVIOUS_UNKNOWN"
    RECORD_WITHDRAWN = "RECORD_WITHDRAWN"
    TYPE_CONFLICT = "TYPE_CONFLICT"
    PREVIOUS_MISMATCH = "PREVIOUS_MISMATCH"
    VERSION_CONFLICT = "VERSION_CONFLICT"
    STALE_VIEW = "STALE_VIEW"
    RECORD_CONFLICT = "RECORD_CONFLICT"
    RECORD_ALREADY_REGISTERED = "RECORD_ALREADY_REGISTERED"
    KEY_ALREADY_BOUND = "KEY_ALREADY_BOUND"
    REGISTER_ALREADY_OPEN = "REGISTER_ALREADY_OPEN"
    SIZE_NOT_REACHED = "SIZE_NOT_REACHED"
    OVERLOADED = "OVERLOADED"
    RATE_LIMITED = "RATE_LIMITED"
    STORAGE_FULL = "STORAGE_FULL"
    DRAINING = "DRAINING"
    BACKEND_DOWN = "BACKEND_DOWN"
    GOVERNING_VIEW_OLD = "GOVERNING_VIEW_OLD"
    NOT_YET_AVAILABLE = "NOT_YET_AVAILABLE"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule that one field breaks.

    `field` is a path such as ``classification.tier``, empty for the whole value; `offset` a zero-based
    byte offset where the bytes are at fault; `allowed` the values that would have been accepted.
    """

    reason: Reason
    description: str
    field: str = ""
    allowed: tuple[str, ...] = ()
    offset: int | None = None

    def within(self, prefix: str) -> Violation:
        """Return the same violation with `prefix` (``records[3]``) before its field."""
        path = f"{prefix}.{self.field}" if self.field else prefix
        return Violation(self.reason, self.description, path, self.allowed, self.offset)


class LedgerError(Exception):
    """Anything that the ledger raises on purpose."""


class MalformedError(LedgerError):
    """Bytes do not parse. `offset` is the zero-based byte at which they fail, where known."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


class RejectedError(LedgerError):
    """Well formed, but breaks a rule of formats.md.

    `reason` is stable; `violations` name fields; `detail` holds what the caller needs to go on (the last
    version and digest, a limit, an index), keys in lower_snake.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        violations: tuple[Violation, ...] = (),
        detail: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.violations = violations
        self.detail: Mapping[str, str] = dict(detail or {})


class ConflictError(LedgerError):
    """Another writer moved the head first; nothing was written."""


class FencedError(ConflictError):
    """Another writer has taken the partition over; nothing was written."""


class TakenError(ConflictError):
    """A submission, or a version of a record, that the commit adds is there already; nothing was written."""


class StoreError(LedgerError):
    """The store failed. Whether the last commit happened is unknown: reopen the register."""


class StorageFullError(StoreError):
    """No room: nothing was written, and reads go on."""


class VerificationError(LedgerError):
    """Cryptographic evidence does not hold. Fail closed."""


class ProofError(VerificationError):
    """A Merkle proof does not lead to the root, or has the wrong length."""


class SignatureError(VerificationError):
    """A signature is missing, of an unknown key, or does not verify."""


class QuorumError(SignatureError):
    """Fewer witnesses have cosigned than the policy asks for: not yet, or never."""


class SplitViewError(VerificationError):
    """Two histories of one origin. Holds both signed notes: together they are the evidence."""

    def __init__(self, message: str, first: bytes, second: bytes) -> None:
        super().__init__(message)
        self.first = first
        self.second = second

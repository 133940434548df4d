"""The types of records about the ledger itself: governance, and what the ledger writes unasked.

Members stand in the order of canonical JSON (formats.md, section 3). An absent member is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from ledger import vocabularies as codes
from ledger.record_types import MULTILINE, Line, Members, Recorded, Text
from ledger.values import (
    MAX_UINT,
    FromOne,
    Instant,
    Key,
    LedgerOrigin,
    PartialDate,
    Register,
    Series,
    Sha256,
    Slug,
    Uint,
    Uuid,
    Vkey,
)

MAX_ANCHORED_NOTE = 16_384
"""Bytes of an anchored checkpoint note (formats.md, section 18)."""

AnchoredNote = Annotated[str, Meta(min_length=1, max_length=MAX_ANCHORED_NOTE), MULTILINE]


class GovernanceKeys(Members, frozen=True, kw_only=True):
    """Who governs: at least `threshold` of `keys`, which are sorted and distinct."""

    keys: Annotated[tuple[Key, ...], Meta(min_length=1, max_length=8)]
    threshold: Annotated[int, Meta(ge=1, le=8)]


class Predecessor(Members, frozen=True, kw_only=True):
    """The ledger origin that this one continues, with its last notes."""

    notes: Annotated[tuple[Text, ...], Meta(min_length=1)]
    origin: LedgerOrigin


class LedgerOpened(Recorded, frozen=True, kw_only=True):
    """Entry 0 of the governing register."""

    acknowledgement_key: Vkey
    governance: GovernanceKeys
    ledger_key: Vkey
    operator: Line
    origin: LedgerOrigin
    predecessor: Predecessor | None = None
    record_id: Uuid
    register: Register
    type: Literal["ledger.opened/1"]
    version: Literal[1]


class GovernanceChanged(Recorded, frozen=True, kw_only=True):
    """Other governance keys, in full."""

    governance: GovernanceKeys
    reason: Line
    record_id: Uuid
    register: Register
    type: Literal["governance.changed/1"]
    version: Literal[1]


class RegisterOpened(Recorded, frozen=True, kw_only=True):
    """A register begins."""

    name: Register
    record_id: Uuid
    register: Register
    series: Annotated[tuple[Series, ...], Meta(min_length=1)] | None = None
    title: Line
    type: Literal["register.opened/1"]
    version: Literal[1]


class RegisterClosed(Recorded, frozen=True, kw_only=True):
    """A register ends at `size` entries."""

    name: Register
    reason: Line
    record_id: Uuid
    register: Register
    size: Uint
    successor: Register | None = None
    type: Literal["register.closed/1"]
    version: Literal[1]


class KeyAuthorised(Recorded, frozen=True, kw_only=True):
    """A key may write to the registers of one department."""

    department: Slug
    key: Key
    label: Line
    reason: Line | None = None
    record_id: Uuid
    register: Register
    type: Literal["key.authorised/1"]
    version: Literal[1]


class KeyRevoked(Recorded, frozen=True, kw_only=True):
    """A key may write no longer."""

    department: Slug
    explanation: Text | None = None
    key: Key
    reason: codes.RevocationReason
    record_id: Uuid
    register: Register
    suspected_from: PartialDate | None = None
    type: Literal["key.revoked/1"]
    version: Literal[1]


class PolicyPublished(Recorded, frozen=True, kw_only=True):
    """A witness policy, a profile or a calendar: the member that `kind` names holds it."""

    calendar: Mapping[str, Any] | None = None
    effective_from: Instant
    kind: codes.PolicyKind
    name: Line
    profile: Mapping[str, Any] | None = None
    record_id: Uuid
    register: Register
    text: Text | None = None
    type: Literal["policy.published/1"]
    version: Literal[1]


class CheckpointAnchored(Recorded, frozen=True, kw_only=True):
    """A register's checkpoint note, verbatim. Written by the ledger."""

    checkpoint: AnchoredNote
    record_id: Uuid
    register: Register
    type: Literal["checkpoint.anchored/1"]
    version: Literal[1]


class RejectedRecord(Members, frozen=True, kw_only=True):
    """The record of a submission that met the refusal."""

    position: Annotated[int, Meta(ge=0, le=999)]
    record_id: Uuid
    version: FromOne


class ExistingEntry(Members, frozen=True, kw_only=True):
    """The earlier entry that it met: index in the register, SHA-256 of its record."""

    index: Uint
    sha256: Sha256


class SubmissionRejected(Recorded, frozen=True, kw_only=True):
    """An acknowledged submission that lost a race, as the register's answer to it. Written by the ledger."""

    count: Annotated[int, Meta(ge=1, le=1_000)]
    existing: ExistingEntry | None = None
    reason: codes.RejectionReason
    record_id: Uuid
    register: Register
    rejected: RejectedRecord | None = None
    submission_id: Sha256
    type: Literal["submission.rejected/1"]
    version: Literal[1]


class RestoreDeclared(Recorded, frozen=True, kw_only=True):
    """A register was restored, and caught up to its witnessed size. Written by the ledger."""

    recovered_size: Annotated[int, Meta(ge=0, le=MAX_UINT)]
    record_id: Uuid
    register: Register
    restored: Register
    source: codes.RestoreSource
    stored_size: Uint
    type: Literal["restore.declared/1"]
    version: Literal[1]

"""The types of records that departments submit: decisions, returns and voids (formats.md, section 3).

Members stand in the order of canonical JSON. An absent member is None. What one member asks of another is in
`record_rules`; what may be withheld, and under which type an opened value is judged, in `WITHHOLDABLE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from ledger import vocabularies as codes
from ledger.values import (
    MAX_LINE,
    MAX_TEXT,
    MAX_UINT,
    Amount,
    Currency,
    Form,
    FromOne,
    PartialDate,
    Period,
    Register,
    Series,
    Sha256,
    Slug,
    Uint,
    Uuid,
    is_text,
)

MULTILINE: Final = Form("text", is_text)
"""Marks the strings in which LF may stand. Lengths are code points."""

Line = Annotated[str, Meta(min_length=1, max_length=MAX_LINE)]
Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT), MULTILINE]
Title = Annotated[str, Meta(min_length=1, max_length=255)]
Description = Annotated[str, Meta(min_length=1, max_length=8_000), MULTILINE]
Lines = Annotated[tuple[Line, ...], Meta(min_length=1)]
Withheld = Annotated[Mapping[str, Sha256], Meta(min_length=1)]
AfterOne = Annotated[int, Meta(ge=2, le=MAX_UINT)]

MAX_VOIDED: Final = 1_000
"""Reference numbers of one void."""

_NO_PATHS: Final[Mapping[str, Any]] = MappingProxyType({})


class Members(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False
):
    """An object of a record: its members and no others."""


class Recorded(Members, frozen=True, kw_only=True):
    """What every record is: one type, one place, one version."""

    WITHHOLDABLE: ClassVar[Mapping[str, Any]] = _NO_PATHS
    """Path, with `*` for a list index, to the type of the value when it is opened."""

    OWED: ClassVar[tuple[str, ...]] = ()
    """Required members that may stand as their withheld path instead."""


class Officer(Members, frozen=True, kw_only=True):
    """Who, as an office. The name of the person exists only withheld."""

    office: Slug
    role: codes.Role
    title: Line | None = None


class Classification(Members, frozen=True, kw_only=True):
    """The government security classification."""

    descriptors: Lines | None = None
    handling: Lines | None = None
    sensitive: bool
    tier: codes.Tier


class Evidence(Members, frozen=True, kw_only=True):
    """A document that evidences the decision, by its digest."""

    claimed_created_at: PartialDate | None = None
    derived_from: Sha256 | None = None
    kind: codes.EvidenceKind
    media_type: Line
    obtained_at: PartialDate | None = None
    sha256: Sha256 | None = None
    size: Uint
    source_identifier: Line | None = None


class Party(Members, frozen=True, kw_only=True):
    """An organisation outside government: a supplier, a lobbyist, a complainant."""

    identifier: Line | None = None
    name: Line


class FoiStatus(Members, frozen=True, kw_only=True):
    """Exemptions and closure under the Freedom of Information Act."""

    closure_type: codes.ClosureType | None = None
    closure_years: Uint | None = None
    exemption_codes: Lines | None = None
    title_closed: bool | None = None


class Participant(Members, frozen=True, kw_only=True):
    """Somebody who took part, as a role. The name exists only withheld."""

    external: bool | None = None
    organisation: Line | None = None
    role: codes.Role


class WithheldParticipant(Members, frozen=True, kw_only=True):
    """A participant as the value of a withheld item, where the name may stand."""

    external: bool | None = None
    name: Line | None = None
    organisation: Line | None = None
    role: codes.Role


class Previous(Members, frozen=True, kw_only=True):
    """The version that this one follows, and the SHA-256 of its bytes."""

    sha256: Sha256
    version: FromOne


class Money(Members, frozen=True, kw_only=True):
    """An amount of money."""

    amount: Amount
    currency: Currency


class Procurement(Members, frozen=True, kw_only=True):
    """The contract that the decision is about, in the terms of OCDS."""

    award_date: PartialDate | None = None
    contract_reference: Line | None = None
    lane: codes.Lane | None = None
    method: codes.ProcurementMethod | None = None
    ocid: Line | None = None
    start_date: PartialDate | None = None
    supplier: Party | None = None
    value: Money | None = None


class Publication(Members, frozen=True, kw_only=True):
    """When the decision was first published, and again."""

    first: PartialDate
    updates: Annotated[tuple[PartialDate, ...], Meta(min_length=1)] | None = None
    uri: Line | None = None


class Reference(Members, frozen=True, kw_only=True):
    """The department's own number. Gaps in a series are findings."""

    number: FromOne
    series: Series


class Target(Members, frozen=True, kw_only=True):
    """What a relation points at: a record version, or a `uri`; never both."""

    record_id: Uuid | None = None
    register: Register | None = None
    uri: Line | None = None
    version: FromOne | None = None


class Relation(Members, frozen=True, kw_only=True):
    """How this decision stands to another record or document."""

    reason: Line | None = None
    target: Target
    type: codes.RelationType


class Retention(Members, frozen=True, kw_only=True):
    """The disposal schedule, and when it is looked at again."""

    review_on: PartialDate | None = None
    schedule: Line


class Stage(Members, frozen=True, kw_only=True):
    """A step of a published approval scheme, and how it went."""

    code: Line
    outcome: codes.StageOutcome
    scheme: Line
    scheme_version: Uint


_DECISION_PATHS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "captured_by.name": Line,
        "channel_justification": Text,
        "decision_maker.name": Line,
        "description": Description,
        "evidence/*.sha256": Sha256,
        "evidence/*.source_identifier": Line,
        "external_parties/*": Party,
        "late_explanation": Text,
        "options_considered/*": Text,
        "participants/*": WithheldParticipant,
        "participants/*.name": Line,
        "procurement.supplier": Party,
        "procurement.value": Money,
        "rationale": Text,
        "title": Title,
    }
)


class Decision(Recorded, frozen=True, kw_only=True):
    """What a minister decided, as the department asserts it: the members of every full statement."""

    WITHHOLDABLE: ClassVar[Mapping[str, Any]] = _DECISION_PATHS
    OWED: ClassVar[tuple[str, ...]] = ("title",)

    capture_method: codes.CaptureMethod
    captured_at: PartialDate
    captured_by: Officer | None = None
    channel: codes.Channel
    channel_justification: Text | None = None
    classification: Classification
    decided_at: PartialDate
    decision_answer: codes.DecisionAnswer | None = None
    decision_maker: Officer
    decision_type: codes.DecisionType
    delegated_authority: Line | None = None
    departmental_reference: Line | None = None
    description: Description | None = None
    device: codes.Device
    disappearing_messages: codes.DisappearingMessages | None = None
    effective_at: PartialDate | None = None
    evidence: Annotated[tuple[Evidence, ...], Meta(min_length=1)] | None = None
    external_parties: Annotated[tuple[Party, ...], Meta(min_length=1)] | None = None
    foi: FoiStatus | None = None
    language: Lines | None = None
    late_explanation: Text | None = None
    late_reason: codes.LateReason | None = None
    matter_id: Line | None = None
    options_considered: Annotated[tuple[Text, ...], Meta(min_length=1)] | None = None
    participants: Annotated[tuple[Participant, ...], Meta(min_length=1)] | None = None
    procurement: Procurement | None = None
    publication: Publication | None = None
    rationale: Text | None = None
    record_id: Uuid
    record_state: codes.RecordState
    reference: Reference
    register: Register
    relations: Annotated[tuple[Relation, ...], Meta(min_length=1)] | None = None
    retention: Retention | None = None
    significant: bool | None = None
    source_system: Line | None = None
    stage: Stage | None = None
    title: Title | None = None
    title_alternate: Line | None = None
    withheld: Withheld | None = None


class DecisionRegistered(Decision, frozen=True, kw_only=True):
    """The first version of a decision."""

    type: Literal["decision.registered/1"]
    version: Literal[1]


class DecisionCorrected(Decision, frozen=True, kw_only=True):
    """A later version, restating the decision in full."""

    WITHHOLDABLE: ClassVar[Mapping[str, Any]] = MappingProxyType({**_DECISION_PATHS, "reason": Text})
    OWED: ClassVar[tuple[str, ...]] = ("reason", "title")

    correction: codes.Correction
    previous: Previous
    reason: Text | None = None
    type: Literal["decision.corrected/1"]
    version: AfterOne


class DecisionWithdrawn(Recorded, frozen=True, kw_only=True):
    """The last version: the record stays, and says that it no longer stands."""

    WITHHOLDABLE: ClassVar[Mapping[str, Any]] = MappingProxyType({"decision_maker.name": Line, "reason": Text})
    OWED: ClassVar[tuple[str, ...]] = ("reason",)

    decision_maker: Officer | None = None
    previous: Previous
    reason: Text | None = None
    record_id: Uuid
    register: Register
    type: Literal["decision.withdrawn/1"]
    version: AfterOne
    withdrawal: codes.Withdrawal
    withdrawn_at: PartialDate
    withheld: Withheld | None = None


class ReturnFiled(Recorded, frozen=True, kw_only=True):
    """The department's signed statement of how many decisions a series has in a period; or that of none."""

    WITHHOLDABLE: ClassVar[Mapping[str, Any]] = MappingProxyType({"signatory.name": Line})

    count: FromOne | None = None
    first: Uint | None = None
    last: Uint | None = None
    nil_return: Literal[True] | None = None
    period: Period
    previous: Previous | None = None
    reason: Text | None = None
    record_id: Uuid
    register: Register
    series: Series
    signatory: Officer
    statement: Text | None = None
    type: Literal["return.filed/1"]
    version: FromOne
    withheld: Withheld | None = None


class ReferenceVoided(Recorded, frozen=True, kw_only=True):
    """The department's signed statement that reference numbers of a series were not used, and why."""

    WITHHOLDABLE: ClassVar[Mapping[str, Any]] = MappingProxyType({"signatory.name": Line})

    first: FromOne
    last: FromOne
    previous: Previous | None = None
    reason: Text
    record_id: Uuid
    register: Register
    series: Series
    signatory: Officer
    taken_back: Literal[True] | None = None
    type: Literal["reference.voided/1"]
    version: FromOne
    withheld: Withheld | None = None

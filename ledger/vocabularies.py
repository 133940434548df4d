"""The coded vocabularies of the record types. A code that is not listed here is refused at registration.

The reasons for each stand in the domain model. They are never changed in place: a change needs a new version
of the record types that use them (formats.md, at its head).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, get_args

Channel = Literal[
    "corporate_email",
    "corporate_messaging",
    "corporate_phone",
    "corporate_video",
    "in_person_meeting",
    "box_paper",
    "box_digital",
    "edrms_workflow",
    "procurement_system",
    "parliamentary_email",
    "private_email",
    "whatsapp",
    "signal",
    "telegram",
    "imessage_sms",
    "social_media_dm",
    "private_phone_call",
    "other_nccc",
    "unknown",
]

NCCC: Final[frozenset[str]] = frozenset(
    {
        "private_email",
        "whatsapp",
        "signal",
        "telegram",
        "imessage_sms",
        "social_media_dm",
        "private_phone_call",
        "other_nccc",
    }
)
"""The non-corporate communication channels. `parliamentary_email` is not corporate either, but not one."""

Device = Literal[
    "corporate_issued",
    "privately_owned",
    "parliamentary_issued",
    "third_party",
    "paper",
    "not_applicable",
    "unknown",
]
CaptureMethod = Literal[
    "native_export",
    "forward_as_attachment",
    "forward_inline",
    "copy_paste",
    "screenshot",
    "transcription",
    "note_of_substance",
    "edrms_autocapture",
    "scan",
    "device_image",
    "retrospective_reconstruction",
    "none",
]
DecisionType = Literal[
    "policy",
    "spending_approval",
    "contract_approval",
    "contract_award",
    "grant",
    "ministerial_direction",
    "appointment",
    "legislation_sign_off",
    "licence_or_consent",
    "planning",
    "collective_agreement",
    "operational",
    "communication_line",
    "information_disclosure",
    "meeting_outcome",
    "no_decision",
]
RelationType = Literal[
    "supersedes",
    "corrects",
    "amends",
    "withdraws",
    "revokes",
    "implements",
    "responds_to",
    "relates_to",
    "duplicates",
    "redacts",
    "transcribes",
    "evidences",
    "preceded_by_stage",
    "requested_by_foi",
    "declared_in",
    "published_as",
]
Lane = Literal["standard", "high_priority", "rapid_response", "unknown"]
ProcurementMethod = Literal["open", "selective", "limited", "direct"]
StageOutcome = Literal["pass", "pass_with_conditions", "fail", "waived", "not_performed", "unknown"]
LateReason = Literal[
    "awaiting_classification",
    "awaiting_evidence",
    "minister_unavailable",
    "device_unavailable",
    "discovered_in_search",
    "inquiry_disclosure",
    "migration_of_legacy",
    "system_outage",
    "oversight",
    "other",
]
DecisionAnswer = Literal[
    "agreed",
    "agreed_in_part",
    "agreed_with_conditions",
    "not_agreed",
    "noted",
    "deferred",
    "further_advice_requested",
    "withdrawn_before_decision",
]
RecordState = Literal["present", "missing_known", "not_created", "destroyed_under_schedule"]
DisappearingMessages = Literal["off", "on", "unknown"]
Role = Literal[
    "prime_minister",
    "chancellor_of_the_exchequer",
    "secretary_of_state",
    "chancellor_of_the_duchy_of_lancaster",
    "lord_chancellor",
    "lord_president",
    "lord_privy_seal",
    "leader_of_the_house",
    "attorney_general",
    "solicitor_general",
    "advocate_general",
    "minister_of_state",
    "parliamentary_under_secretary_of_state",
    "parliamentary_secretary",
    "financial_secretary",
    "economic_secretary",
    "exchequer_secretary",
    "paymaster_general",
    "chief_secretary",
    "whip",
    "special_adviser",
    "permanent_secretary",
    "second_permanent_secretary",
    "director_general",
    "private_secretary",
    "principal_private_secretary",
    "official_delegated",
    "accounting_officer_or_delegate",
    "external",
]
Tier = Literal["OFFICIAL"]
"""OFFICIAL-SENSITIVE is this tier with `sensitive` true."""

REFUSED_TIERS: Final[frozenset[str]] = frozenset({"SECRET", "TOP_SECRET"})
"""Tiers that are known and refused with a reason of their own: such a record must not be here at all."""

EvidenceKind = Literal[
    "email",
    "chat_export",
    "screenshot",
    "transcript",
    "scan",
    "pdf",
    "minutes",
    "calendar",
    "audio",
    "contract",
    "notice",
]
ClosureType = Literal["open", "closed", "retained"]
Correction = Literal["correction", "amendment", "redaction"]
Withdrawal = Literal["withdrawn", "registered_in_error", "duplicate"]
RevocationReason = Literal["compromised", "rotated", "retired", "lost", "error"]
PolicyKind = Literal["witness", "profile", "calendar"]
RestoreSource = Literal["event_log", "tiles", "receipts"]
RejectionReason = Literal[
    "GOVERNANCE_REFUSED",
    "STALE_VIEW",
    "RECORD_ALREADY_REGISTERED",
    "RECORD_CONFLICT",
    "PREVIOUS_UNKNOWN",
    "RECORD_WITHDRAWN",
    "VERSION_CONFLICT",
    "TYPE_CONFLICT",
    "PREVIOUS_MISMATCH",
]
"""The refusals of the append rules (formats.md, section 9), in the order in which they are judged."""

VOCABULARIES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "channel": get_args(Channel),
        "device": get_args(Device),
        "capture_method": get_args(CaptureMethod),
        "decision_type": get_args(DecisionType),
        "relations.type": get_args(RelationType),
        "procurement.lane": get_args(Lane),
        "procurement.method": get_args(ProcurementMethod),
        "stage.outcome": get_args(StageOutcome),
        "late_reason": get_args(LateReason),
        "decision_answer": get_args(DecisionAnswer),
        "record_state": get_args(RecordState),
        "disappearing_messages": get_args(DisappearingMessages),
        "role": get_args(Role),
        "classification.tier": get_args(Tier),
        "evidence.kind": get_args(EvidenceKind),
        "foi.closure_type": get_args(ClosureType),
        "correction": get_args(Correction),
        "withdrawal": get_args(Withdrawal),
        "key.revoked.reason": get_args(RevocationReason),
        "policy.published.kind": get_args(PolicyKind),
        "restore.declared.source": get_args(RestoreSource),
        "submission.rejected.reason": get_args(RejectionReason),
    }
)
"""Every vocabulary by the member that holds its codes, for documents and for messages."""

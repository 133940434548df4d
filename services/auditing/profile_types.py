"""What a policy profile may state: the parameters of each detection, limits, and schemes of stages.

Members stand in the order of canonical JSON. An absent member is None, and what it is for is not looked at.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ledger import vocabularies as codes
from ledger.record_types import Line, Members
from ledger.values import FromOne, Slug, Uint
from services.auditing.calendars import CalendarName

Days = Annotated[int, Meta(ge=0, le=10_000)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Grace = Annotated[int, Meta(ge=0, le=3_600)]
"""At most an hour: with a long grace nobody's stale view would ever be told."""
Channels = Annotated[tuple[codes.Channel, ...], Meta(min_length=1)]


class Limit(Members, frozen=True, kw_only=True):
    """Within how many working days, for decisions of these channels and types; for all where none is named.

    With `unless_insignificant` it is not for decisions of which the record says that they are not significant.
    """

    channels: Channels | None = None
    decision_types: Annotated[tuple[codes.DecisionType, ...], Meta(min_length=1)] | None = None
    unless_insignificant: Literal[True] | None = None
    working_days: Annotated[int, Meta(ge=1, le=1_000)]


Limits = Annotated[tuple[Limit, ...], Meta(min_length=1, max_length=100)]


class LateRegistration(Members, frozen=True, kw_only=True):
    """DET-01: from the decision to the witnessed history. Of `limits` the first that fits a decision holds.

    `contract_approval_before_award`: such a decision is due by the end of the award date as well.
    `exempt_late_reasons`: late records that give one of these are listed, and not held late.
    """

    contract_approval_before_award: Literal[True] | None = None
    exempt_late_reasons: Annotated[tuple[codes.LateReason, ...], Meta(min_length=1)] | None = None
    limits: Limits


class LateCapture(Members, frozen=True, kw_only=True):
    """DET-02: from the decision to its capture. Of `limits` the first that fits a decision holds."""

    limits: Limits


class BackDated(Members, frozen=True, kw_only=True):
    """DET-03: registered more than `working_days` after it was decided, and `inversions` of order at least."""

    inversions: Count
    working_days: Days


class FutureDated(Members, frozen=True, kw_only=True):
    """DET-04: decided more than `seconds` after it was registered."""

    seconds: Uint


class NcccOrigin(Members, frozen=True, kw_only=True):
    """DET-05: made in one of `channels`. Weak methods of capture, and a missing justification, weigh more."""

    channels: Channels
    justification_expected: Literal[True] | None = None
    weak_capture_methods: Annotated[tuple[codes.CaptureMethod, ...], Meta(min_length=1)] | None = None


class DisappearingOn(Members, frozen=True, kw_only=True):
    """DET-06: disappearing messages were in one of `states`."""

    states: Annotated[tuple[codes.DisappearingMessages, ...], Meta(min_length=1)]


class SeriesGap(Members, frozen=True, kw_only=True):
    """DET-08: at least `missing` reference numbers in a row are not there."""

    missing: Count


class ReturnMissing(Members, frozen=True, kw_only=True):
    """DET-09: no return `working_days` after the end of a period."""

    working_days: FromOne


class StageMissing(Members, frozen=True, kw_only=True):
    """DET-10: an earlier stage is missing, or one ended in one of `outcomes` and no authority is named."""

    outcomes: Annotated[tuple[codes.StageOutcome, ...], Meta(min_length=1)]


class StageOrder(Members, frozen=True, kw_only=True):
    """DET-11: a later stage is dated more than `days` before an earlier one."""

    days: Days


class DecisionAfterAward(Members, frozen=True, kw_only=True):
    """DET-12: an approval is more than `days` later than the award or the start of the contract."""

    days: Days


class RetrospectiveContract(Members, frozen=True, kw_only=True):
    """DET-13: the contract starts more than `days` before its award; more than `high_days` weighs more."""

    days: Days
    high_days: Days


class LatePublication(Members, frozen=True, kw_only=True):
    """DET-14: first published more than `calendar_days` after the award."""

    calendar_days: Days


class NoticeChurn(Members, frozen=True, kw_only=True):
    """DET-15: at least `updates` after first publication."""

    updates: Count


class DuplicateContract(Members, frozen=True, kw_only=True):
    """DET-16: same buyer, supplier, value (within `value_per_mille`) and date (within `days`), another ocid."""

    days: Days
    value_per_mille: Annotated[int, Meta(ge=0, le=1_000)]


class Burst(Members, frozen=True, kw_only=True):
    """DET-20: at least `registrations` in `minutes`, more than `times_median` the rolling median.

    And so many that at the median's rate chance gives them less often than once in `one_in` (Poisson).
    """

    minutes: Annotated[int, Meta(ge=1, le=10_080)]
    one_in: Count
    registrations: Count
    times_median: Count


class OffHours(Members, frozen=True, kw_only=True):
    """DET-21: late, and on no working day, or at London hours from `from_hour` on or before `until_hour`."""

    from_hour: Annotated[int, Meta(ge=0, le=23)]
    until_hour: Annotated[int, Meta(ge=0, le=23)]


class EvidenceReuse(Members, frozen=True, kw_only=True):
    """DET-26: one document evidences `decisions` different ones at least; or all evidence is screenshots."""

    decisions: Annotated[int, Meta(ge=2, le=1_000)]
    screenshot_only: Literal[True] | None = None


class CorrectionChain(Members, frozen=True, kw_only=True):
    """DET-28: at least `corrections` of one record."""

    corrections: Count


class Unwitnessed(Members, frozen=True, kw_only=True):
    """DET-29: no quorum of the auditor's witnesses has seen an entry within `seconds`."""

    seconds: Uint


class Silence(Members, frozen=True, kw_only=True):
    """DET-30: a register without any registration for `working_days`."""

    working_days: FromOne


class Detections(Members, frozen=True, kw_only=True):
    """The parameters of each detection. One that is left out is not run."""

    back_dated: BackDated | None = None
    burst: Burst | None = None
    correction_chain: CorrectionChain | None = None
    decision_after_award: DecisionAfterAward | None = None
    disappearing_on: DisappearingOn | None = None
    duplicate_contract: DuplicateContract | None = None
    evidence_reuse: EvidenceReuse | None = None
    future_dated: FutureDated | None = None
    late_capture: LateCapture | None = None
    late_publication: LatePublication | None = None
    late_registration: LateRegistration | None = None
    nccc_origin: NcccOrigin | None = None
    notice_churn: NoticeChurn | None = None
    off_hours: OffHours | None = None
    retrospective_contract: RetrospectiveContract | None = None
    return_missing: ReturnMissing | None = None
    series_gap: SeriesGap | None = None
    silence: Silence | None = None
    stage_missing: StageMissing | None = None
    stage_order: StageOrder | None = None
    unwitnessed: Unwitnessed | None = None


class SchemeStage(Members, frozen=True, kw_only=True):
    """One stage. With `needs_all_before` every earlier one that may not be skipped is expected before it."""

    code: Line
    may_be_skipped: Literal[True] | None = None
    needs_all_before: Literal[True] | None = None
    title: Line


class StageScheme(Members, frozen=True, kw_only=True):
    """A scheme of approval by its name and version, as `stage` of a decision has them; stages in order."""

    basis: Line
    scheme: Line
    scheme_version: Uint
    stages: Annotated[tuple[SchemeStage, ...], Meta(min_length=1, max_length=100)]
    title: Line


class Profile(Members, frozen=True, kw_only=True):
    """A policy profile. `basis` says what it rests on, and stands wherever the profile is shown.

    `calendar` is that in which its working days are counted. `revocation_grace_seconds` is how long after a
    revocation a submission may still have been accepted on an older view (formats.md, section 7).
    """

    basis: Line
    calendar: CalendarName
    detections: Detections
    name: Slug
    revocation_grace_seconds: Grace
    stage_schemes: Annotated[tuple[StageScheme, ...], Meta(min_length=1, max_length=100)] | None = None
    title: Line
    type: Literal["daybook.profile/1"]
    version: FromOne

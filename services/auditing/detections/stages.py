"""DET-10 and DET-11: stages of an approval scheme that are missing, failed, waived or out of order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ledger.shapes import shown as name_shown
from ledger.values import Partial
from services.auditing.detections.rules import DAY, Terms, many
from services.auditing.found import Found, Severity
from services.auditing.lateness import shown
from services.auditing.profile_types import StageScheme


@dataclass(frozen=True, slots=True)
class StageRecord:
    """The latest version of one record of a matter: which stage, how it went, and by whose authority.

    Without `code` it is a decision about a contract that names no stage; `decides` tells that it approves or
    awards one.
    """

    index: int
    scheme: str | None
    scheme_version: int | None
    code: str | None
    outcome: str | None
    has_authority: bool
    decided: Partial
    decides: bool


@dataclass(frozen=True, slots=True)
class Matter:
    """All stages of one matter in one register, in the order of the register."""

    register: str
    name: str
    records: tuple[StageRecord, ...]


def judge_matter(terms: Terms, matter: Matter) -> Iterator[Found]:
    """Yield every finding of both rules about one matter, under the schemes that the profile has."""
    schemes = {(each.scheme, each.scheme_version): each for each in terms.profile.stage_schemes or ()}
    used = dict.fromkeys(
        (each.scheme, each.scheme_version)
        for each in matter.records
        if each.scheme is not None and each.scheme_version is not None
    )
    for key in used:
        scheme = schemes.get(key)
        if scheme is not None:
            places = {stage.code: place for place, stage in enumerate(scheme.stages)}
            records = [each for each in matter.records if (each.scheme, each.scheme_version) == key]
            known = [(places[each.code], each) for each in records if each.code in places]
            gates = _gates(matter, scheme, known)
            yield from _missing(terms, matter, scheme, known, gates)
            yield from _without_authority(terms, matter, scheme, [*known, *gates])
            yield from _out_of_order(terms, matter, scheme, known)


def _gates(
    matter: Matter, scheme: StageScheme, known: Sequence[tuple[int, StageRecord]]
) -> list[tuple[int, StageRecord]]:
    """Return the decisions that approve or award without naming a stage.

    They stand at the scheme's first stage that needs all before it.
    """
    gate = next((place for place, stage in enumerate(scheme.stages) if stage.needs_all_before), None)
    if gate is None or not known:
        return []
    return [(gate, record) for record in matter.records if record.decides and record.code is None]


def _is_done(record: StageRecord) -> bool:
    """Tell whether a stage is behind the matter; one that failed is, if an authority let it go on."""
    if record.outcome == "fail":
        return record.has_authority
    return record.outcome != "not_performed"


def _missing(
    terms: Terms,
    matter: Matter,
    scheme: StageScheme,
    known: Sequence[tuple[int, StageRecord]],
    gates: Sequence[tuple[int, StageRecord]],
) -> Iterator[Found]:
    if terms.profile.detections.stage_missing is None:
        return
    done = {place for place, record in known if _is_done(record)}
    failed = {place for place, record in known if record.outcome == "fail"}
    needing = [(place, record) for place, record in known if scheme.stages[place].needs_all_before] or gates
    if not needing:
        return
    place, record = max(needing, key=lambda each: each[0])
    lacking = [
        name_shown(stage.code) + (" (failed)" if earlier in failed else "")
        for earlier, stage in enumerate(scheme.stages[:place])
        if earlier not in done and not stage.may_be_skipped
    ]
    if not lacking:
        return
    inputs = {
        "matter": name_shown(matter.name),
        "scheme": f"{name_shown(scheme.scheme)}/{scheme.scheme_version}",
        "what": "missing",
        "stage": name_shown(scheme.stages[place].code),
        "missing": ", ".join(lacking),
        "missing_count": len(lacking),
    }
    yield terms.found(
        "DET-10",
        Severity.HIGH if len(lacking) > 1 else Severity.MEDIUM,
        matter.register,
        (record.index,),
        inputs,
        f"The matter {name_shown(matter.name)} has come to {name_shown(scheme.stages[place].code)}, and "
        f"{many(len(lacking), 'earlier stage')} of the scheme {name_shown(scheme.scheme)} "
        f"{'is' if len(lacking) == 1 else 'are'} not recorded as passed: {inputs['missing']}.",
    )


def _without_authority(
    terms: Terms, matter: Matter, scheme: StageScheme, known: Sequence[tuple[int, StageRecord]]
) -> Iterator[Found]:
    rule = terms.profile.detections.stage_missing
    if rule is None:
        return
    furthest = max((place for place, _ in known), default=0)
    for place, record in known:
        if record.outcome not in rule.outcomes or record.has_authority:
            continue
        # A failed offer that went no further is how a scheme should work; a waiver is a choice in itself.
        if record.outcome == "fail" and place >= furthest:
            continue
        inputs = {
            "matter": name_shown(matter.name),
            "scheme": f"{name_shown(scheme.scheme)}/{scheme.scheme_version}",
            "what": record.outcome,
            "stage": name_shown(scheme.stages[place].code),
            "furthest_stage": name_shown(scheme.stages[furthest].code),
        }
        yield terms.found(
            "DET-10",
            Severity.HIGH if record.outcome == "fail" else Severity.MEDIUM,
            matter.register,
            (record.index,),
            inputs,
            f"The stage {inputs['stage']} of the matter {name_shown(matter.name)} is recorded as "
            f"{record.outcome}, "
            f"no authority is named, and the matter has come to {inputs['furthest_stage']}.",
        )


def _out_of_order(
    terms: Terms, matter: Matter, scheme: StageScheme, known: Sequence[tuple[int, StageRecord]]
) -> Iterator[Found]:
    rule = terms.profile.detections.stage_order
    if rule is None:
        return
    # Against the stage before that begins last: one finding for each stage that is dated too early.
    latest: tuple[int, StageRecord] | None = None
    for place, record in sorted(known, key=lambda each: (each[0], each[1].index)):
        before = latest
        if before is not None and before[0] < place:
            seconds = before[1].decided.earliest - record.decided.latest
            if seconds > rule.days * DAY:
                inputs = {
                    "matter": name_shown(matter.name),
                    "scheme": f"{name_shown(scheme.scheme)}/{scheme.scheme_version}",
                    "earlier_stage": name_shown(scheme.stages[before[0]].code),
                    "earlier_dated": shown(before[1].decided.earliest),
                    "later_stage": name_shown(scheme.stages[place].code),
                    "later_dated": shown(record.decided.latest),
                    "limit_days": rule.days,
                }
                yield terms.found(
                    "DET-11",
                    Severity.MEDIUM,
                    matter.register,
                    (before[1].index, record.index),
                    inputs,
                    f"In the matter {name_shown(matter.name)} the stage {inputs['later_stage']} is dated "
                    f"{inputs['later_dated']} at the latest, before {inputs['earlier_stage']}, which "
                    "comes first and "
                    f"is dated {inputs['earlier_dated']} at the earliest.",
                )
        if latest is None or record.decided.earliest > latest[1].decided.earliest:
            latest = place, record

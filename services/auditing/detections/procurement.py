"""DET-12 to DET-16: the dates of contracts and notices against each other, and contracts that look alike."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ledger.values import Partial, partial
from services.auditing.detections.rules import DAY, Case, Terms, many
from services.auditing.found import Found, Severity
from services.auditing.lateness import shown
from services.auditing.working_days import OutsideCalendarError, london_day

CONTRACTS: Final = frozenset({"contract_approval", "contract_award", "spending_approval"})
"""The types of decisions that may be about an award."""

MOST_ALIKE: Final = 20
"""Contracts like one that are told pair by pair; of more, that there are more."""

_APPROVALS: Final = frozenset({"contract_approval", "spending_approval"})
_LEGAL_FORMS: Final = frozenset({"ltd", "limited", "plc", "llp", "inc", "co", "company", "uk", "the"})
_TRADING_AS: Final = re.compile(r"\bt/a\b|\btrading as\b", re.IGNORECASE)
_WORD: Final = re.compile(r"\w+")


def _days_after(later: int, earlier: int) -> int | None:
    """Return the civil days in London from one moment to another."""
    try:
        return (london_day(later) - london_day(earlier)).days
    except OutsideCalendarError:
        return None


def _award(case: Case) -> Partial | None:
    """Return when the contract was awarded: the award date, or when an award was decided."""
    procurement = case.record.procurement
    if procurement is not None and procurement.award_date is not None:
        return partial(procurement.award_date)
    return case.decided if case.record.decision_type == "contract_award" else None


def decision_after_award(terms: Terms, case: Case) -> Found | None:
    """DET-12: decided after the award or the start that it is about; or an approval that came in after it."""
    rule, record = terms.profile.detections.decision_after_award, case.record
    procurement = record.procurement
    if rule is None or procurement is None or record.decision_type not in CONTRACTS:
        return None
    dates = {"award": procurement.award_date, "start": procurement.start_date}
    stated = {name: partial(text) for name, text in dates.items() if text is not None}
    if not stated:
        return None
    name, date = min(stated.items(), key=lambda each: each[1].latest)
    days = _days_after(case.decided.earliest, date.latest)
    if days is not None and days > rule.days:
        how, severity = "decided", Severity.MEDIUM
        said = (
            f"By the record's own dates it was decided at least {many(days, 'day')} after the {name} of the "
            "contract"
        )
    else:
        before = case.bounds.not_before
        if record.decision_type not in _APPROVALS or before is None:
            return None
        days = _days_after(before, date.latest)
        if days is None or days <= rule.days:
            return None
        how, severity = "registered", Severity.LOW
        said = (
            f"The approval is dated before the {name} of the contract, and the witnesses did not have it "
            f"{many(days, 'day')} after that"
        )
    inputs = {
        "what": how,
        "against": name,
        "decided_earliest": shown(case.decided.earliest),
        f"{name}_latest": shown(date.latest),
        "not_before": None if case.bounds.not_before is None else shown(case.bounds.not_before),
        "days": days,
        "limit_days": rule.days,
    }
    return terms.found("DET-12", severity, case.register, (case.index,), inputs, f"{said}.")


def retrospective_contract(terms: Terms, case: Case) -> Found | None:
    """DET-13: the contract starts, or has effect, before it is awarded."""
    rule, record = terms.profile.detections.retrospective_contract, case.record
    if rule is None or record.decision_type not in CONTRACTS:
        return None
    award = _award(case)
    if award is None:
        return None
    begins = []
    if record.procurement is not None and record.procurement.start_date is not None:
        begins.append(("start of the contract", partial(record.procurement.start_date)))
    if record.effective_at is not None:
        begins.append(("date of effect", partial(record.effective_at)))
    if not begins:
        return None
    name, begin = min(begins, key=lambda each: each[1].latest)
    days = _days_after(award.earliest, begin.latest)
    if days is None or days <= rule.days:
        return None
    inputs = {
        "award_earliest": shown(award.earliest),
        "begin": name,
        "begin_latest": shown(begin.latest),
        "days": days,
        "limit_days": rule.days,
        "high_days": rule.high_days,
    }
    return terms.found(
        "DET-13",
        Severity.HIGH if days > rule.high_days else Severity.MEDIUM,
        case.register,
        (case.index,),
        inputs,
        f"The {name} is at least {many(days, 'day')} before the award.",
    )


def publication_lag(case: Case) -> tuple[int, int] | None:
    """Return the least and the most civil days from the award to first publication; None where not stated."""
    record = case.record
    if record.publication is None or record.decision_type not in CONTRACTS:
        return None
    award = _award(case)
    if award is None:
        return None
    first = partial(record.publication.first)
    least, most = _days_after(first.earliest, award.latest), _days_after(first.latest, award.earliest)
    return None if least is None or most is None else (least, most)


def late_publication(terms: Terms, case: Case) -> Found | None:
    """DET-14: published later after the award than the profile has; low where the dates leave it open."""
    rule = terms.profile.detections.late_publication
    lag = publication_lag(case) if rule is not None else None
    if rule is None or lag is None or lag[1] <= rule.calendar_days:
        return None
    least, most = lag
    sure = least > rule.calendar_days
    span = many(most, "day") if least == most else f"between {max(least, 0)} and {most:,} days"
    publication = case.record.publication
    inputs = {
        "days_at_least": least,
        "days_at_most": most,
        "limit_days": rule.calendar_days,
        "certain": "yes" if sure else "no",
        "published": None if publication is None else publication.first,
    }
    said = f"The award was first published {span} after it, by the record's own dates"
    end = "" if sure else f"; whether that is more than {rule.calendar_days} the dates leave open"
    return terms.found(
        "DET-14",
        Severity.MEDIUM if sure else Severity.LOW,
        case.register,
        (case.index,),
        inputs,
        f"{said}; the profile has {rule.calendar_days}{end}.",
    )


def notice_churn(terms: Terms, case: Case) -> Found | None:
    """DET-15: published again at least so many times after first publication."""
    rule, publication = terms.profile.detections.notice_churn, case.record.publication
    if rule is None or publication is None or len(publication.updates or ()) < rule.updates:
        return None
    updates = publication.updates or ()
    inputs = {
        "updates": len(updates),
        "limit_updates": rule.updates,
        "published": publication.first,
        "last_update": updates[-1],
    }
    return terms.found(
        "DET-15",
        Severity.LOW,
        case.register,
        (case.index,),
        inputs,
        f"The notice was published again {many(len(updates), 'time')} after its first publication.",
    )


@dataclass(frozen=True, slots=True)
class Contract:
    """What makes contracts alike. `supplier` is normalised, dates are POSIX seconds.

    `minor_units` are of `currency`; `index` is that of the first version of the record, `version_index` that of
    the version that states it.
    """

    register: str
    index: int
    version_index: int
    ocid: str | None
    supplier: str | None
    currency: str | None
    minor_units: int | None
    earliest: int
    latest: int
    is_published: bool


def contract_of(case: Case) -> Contract | None:
    """Return what a decision says of a contract; None where it says nothing."""
    procurement = case.record.procurement
    if procurement is None:
        return None
    award = _award(case) or case.decided
    supplier, value = procurement.supplier, procurement.value
    return Contract(
        case.register,
        case.first_index,
        case.index,
        procurement.ocid,
        None if supplier is None else normalised(supplier.name),
        None if value is None else value.currency,
        None if value is None else int(value.amount.replace(".", "")),
        award.earliest,
        award.latest,
        case.record.publication is not None,
    )


def normalised(name: str) -> str:
    """Return a supplier's name as it is compared: what stands before `t/a`, its words without legal forms."""
    legal, *_ = _TRADING_AS.split(name, maxsplit=1)
    words = _WORD.findall((legal if legal.strip() else name).casefold())
    return " ".join(word for word in words if word not in _LEGAL_FORMS) or " ".join(words)


def changed_contract(terms: Terms, before: Contract, after: Contract) -> Found | None:
    """DET-15: a later version states another value or supplier, and the contract was published by then."""
    if terms.profile.detections.notice_churn is None or not before.is_published:
        return None
    changes = []
    values = (before.currency, before.minor_units), (after.currency, after.minor_units)
    if None not in values[0] and None not in values[1] and values[0] != values[1]:
        changes.append("value")
    if before.supplier is not None and after.supplier is not None and before.supplier != after.supplier:
        changes.append("supplier")
    if not changes:
        return None
    inputs = {
        "changed": " and ".join(changes),
        "value_before": _money(before),
        "value_after": _money(after),
        "version_before": before.version_index,
    }
    return terms.found(
        "DET-15",
        Severity.MEDIUM,
        after.register,
        (before.version_index, after.version_index),
        inputs,
        f"After publication a later version of the record states another {' and another '.join(changes)}.",
    )


def are_alike(terms: Terms, one: Contract, other: Contract) -> bool:
    """DET-16: tell whether two records look like one contract under two identifiers."""
    rule = terms.profile.detections.duplicate_contract
    if rule is None or None in (one.ocid, other.ocid, one.supplier, other.supplier):
        return False
    if one.minor_units is None or other.minor_units is None:
        return False
    larger = max(one.minor_units, other.minor_units)
    return (
        one.ocid != other.ocid
        and _buyer(one) == _buyer(other)
        and one.supplier == other.supplier
        and one.currency == other.currency
        and abs(one.minor_units - other.minor_units) * 1_000 <= larger * rule.value_per_mille
        and max(one.earliest, other.earliest) - min(one.latest, other.latest) <= rule.days * DAY
    )


def duplicate_contract(terms: Terms, one: Contract, other: Contract) -> Found | None:
    """DET-16: the finding for two records that look like one contract, filed with the later of the two."""
    if not are_alike(terms, one, other):
        return None
    first, second = sorted((one, other), key=lambda each: (each.register, each.index))
    here = (
        {second.version_index, first.version_index}
        if first.register == second.register
        else {second.version_index}
    )
    inputs = {
        "value": _money(second),
        "other_value": _money(first),
        "other_register": first.register,
        "other_entry": first.version_index,
        "dated": shown(second.latest),
        "other_dated": shown(first.latest),
    }
    return terms.found(
        "DET-16",
        Severity.MEDIUM,
        second.register,
        here,
        inputs,
        f"Entry {second.version_index} and entry {first.version_index} of {first.register} state the "
        "same supplier, "
        f"about the same value ({_money(second)} and {_money(first)}) and date, under two identifiers.",
    )


def many_alike(terms: Terms, contract: Contract) -> Found:
    """DET-16: the finding for a record like which there are more than `MOST_ALIKE` others."""
    inputs = {
        "value": _money(contract),
        "dated": shown(contract.latest),
        "others_at_least": MOST_ALIKE + 1,
    }
    return terms.found(
        "DET-16",
        Severity.MEDIUM,
        contract.register,
        {contract.version_index},
        inputs,
        f"More than {MOST_ALIKE} other entries of the department state the supplier of entry "
        f"{contract.version_index}, about its value ({inputs['value']}) and its date, under other identifiers.",
    )


def _buyer(contract: Contract) -> str:
    return contract.register.partition("/")[0]


def _money(contract: Contract) -> str | None:
    if contract.minor_units is None:
        return None
    return f"{contract.currency} {contract.minor_units // 100:,}.{contract.minor_units % 100:02}"

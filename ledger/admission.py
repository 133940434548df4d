"""What registration checks before it accepts, in its order (formats.md, section 8).

Shape, sizes and signatures are `entries.open_submission`. Here: the content rules, judged once and never
again. Nothing else is refused: a signed false statement is evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from ledger.entries import Submission
from ledger.errors import MalformedError, Reason, RejectedError, Violation
from ledger.governing import GOVERNING, Fold, judge_authority, judge_governance, judge_novelty
from ledger.record_rules import refusal
from ledger.records import Decision, LedgerOpened, Record, check_place, decided_earliest, parse_record
from ledger.rules import Header, header_of

FUTURE_ALLOWANCE: Final = 300
"""Seconds that `decided_at` may lie after `accepted_at`: two clocks never agree."""

MAX_VIOLATIONS: Final = 64
"""Violations reported at once: an answer must not outgrow its question."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A submission whose content rules hold, but for those that need a clock or the governing fold.

    `headers` is what the append rules read of each record.
    """

    submission: Submission
    records: tuple[Record, ...]
    headers: tuple[Header, ...]


def admit(submission: Submission) -> Candidate:
    """Judge the content of every record. Raises RejectedError with all violations, up to 64."""
    records: list[Record] = []
    violations: list[Violation] = []
    for position, data in enumerate(submission.records):
        try:
            record = parse_record(data)
            check_place(record, submission.register)
        except (MalformedError, RejectedError) as error:
            violations += (violation.within(f"records[{position}]") for violation in _violations(error))
            if len(violations) >= MAX_VIOLATIONS:
                break
        else:
            records.append(record)
    if violations:
        raise rejection(violations[:MAX_VIOLATIONS])
    headers = tuple(map(header_of, records))
    repeats = list(repeated(headers))
    if repeats:
        raise rejection(repeats[:MAX_VIOLATIONS])
    return Candidate(submission, tuple(records), headers)


def judge_now(candidate: Candidate, state: Fold, origin: str, accepted_at: str) -> None:
    """Judge what changes with time: register and key in the view `state`, then what `accepted_at` decides.

    What governs is judged as the next governing entry. Raises RejectedError for the first rule broken.
    """
    submission = candidate.submission
    governs = submission.register == GOVERNING
    if not governs:
        judge_authority(state, state.signed_size, submission.register, submission.signatures[0].key)
    refuse_future(candidate, accepted_at)
    if governs:
        _judge_governing(candidate, state, origin)


def _judge_governing(candidate: Candidate, state: Fold, origin: str) -> None:
    if len(candidate.records) != 1:
        raise RejectedError(
            Reason.TOO_MANY_RECORDS,
            "a submission to `governing` has one record",
            detail={"limit": "1", "count": str(len(candidate.records))},
        )
    (record,) = candidate.records
    if isinstance(record, LedgerOpened) and record.origin != origin:
        violation = Violation(
            Reason.INVALID_FIELD, "is not the origin of this ledger", "records[0].origin", (origin,)
        )
        raise rejection([violation])
    judge_novelty(state, record)
    judge_governance(state, record, signers(candidate.submission))


def signers(submission: Submission) -> frozenset[bytes]:
    """Return the keys whose signatures a submission has."""
    return frozenset(signature.key for signature in submission.signatures)


def rejection(violations: list[Violation]) -> RejectedError:
    """Return one error for all violations, with the reason of the gravest.

    `detail` has the byte offset or the allowed values of the first, where it has them.
    """
    error = refusal(tuple(violations))
    first = next(violation for violation in violations if violation.reason is error.reason)
    detail = {} if first.offset is None else {"offset": str(first.offset)}
    if first.allowed:
        detail["allowed"] = ",".join(first.allowed)
    return RejectedError(error.reason, str(error), violations=error.violations, detail=detail)


def _violations(error: MalformedError | RejectedError) -> tuple[Violation, ...]:
    if isinstance(error, MalformedError):
        return (Violation(Reason.NOT_CANONICAL, str(error), offset=error.offset),)
    return error.violations or (Violation(error.reason, str(error)),)


def repeated(headers: Sequence[Header]) -> Iterator[Violation]:
    """Yield every record whose record_id and version stand earlier in the same submission."""
    seen: dict[tuple[str, int], int] = {}
    for position, header in enumerate(headers):
        first = seen.setdefault((header.record_id, header.version), position)
        if first != position:
            text = f"the same record_id and version as records[{first}]"
            yield Violation(Reason.DUPLICATE_IN_SUBMISSION, text, f"records[{position}].record_id")


def refuse_future(candidate: Candidate, accepted_at: str) -> None:
    """Refuse a `decided_at` whose earliest second is over 5 minutes after `accepted_at`.

    Raises RejectedError DECIDED_IN_FUTURE.
    """
    found = list(in_future(candidate.records, accepted_at))
    if found:
        raise rejection(found[:MAX_VIOLATIONS])


def in_future(records: Sequence[Record], accepted_at: str) -> Iterator[Violation]:
    """Yield every `decided_at` that the ledger's clock, at `accepted_at`, has not come to."""
    latest = moment(accepted_at) + FUTURE_ALLOWANCE
    today = accepted_at[:10]
    for position, record in enumerate(records):
        # A date or instant that is not behind today's in text begins no later than now: London's clocks are
        # never behind UTC. So almost no record needs its seconds worked out.
        if not isinstance(record, Decision) or record.decided_at[:10] < today:
            continue
        decided = decided_earliest(record)
        if decided is not None and decided > latest:
            text = "decided more than 5 minutes after the ledger's clock"
            yield Violation(Reason.DECIDED_IN_FUTURE, text, f"records[{position}].decided_at")


def moment(accepted_at: str) -> float:
    """Return an `accepted_at` in POSIX seconds."""
    return datetime.fromisoformat(accepted_at).timestamp()


def instant(seconds: float) -> str:
    """Return POSIX seconds as an `accepted_at`: UTC with milliseconds, cut off."""
    # A thousandth of a millisecond more: a float a little below its millisecond would lose it.
    shown = datetime.fromtimestamp(int(seconds * 1000 + 0.001) / 1000, UTC)
    return shown.isoformat(timespec="milliseconds").replace("+00:00", "Z")

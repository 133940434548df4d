"""The answer to a question, from proved entries: what matches, and what later versions say of it.

Pure: entries go in, in index order, as the register holds them. Every entry is verified as far as it speaks
for itself (envelope, place, author's signature); whose keys these are is not judged here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from ledger.entries import Entry, parse_entry, submission_body_of, verify_entry
from ledger.errors import MalformedError, VerificationError
from ledger.hashing import Hash
from ledger.record_queries import Fit, Query
from ledger.record_types import Decision, ReferenceVoided, ReturnFiled
from ledger.records import Broken, NotUnderstood, Record, ledger_may_write, read_record, record_digest
from ledger.shapes import shown

MAX_UNREAD: Final = 100
"""Entries that cannot be read as records, of which more than their number is kept."""


class Standing(StrEnum):
    """Whether an entry was in the register at a moment."""

    BEFORE = "before"
    EITHER = "before or after"
    """Its bounds straddle the moment."""

    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Match:
    """An entry that answers the question, as far as its record says; absent members are None.

    `perhaps`: its `decided_at` is too coarse to tell. `numbers` are those of its series that it has, voids or
    returns, the first and the last; `says` is what a void or a return states, in a line. `entry` and `path`,
    its inclusion path, are there where they are kept.
    """

    index: int
    type: str
    record_id: str
    version: int
    sha256: str
    decided_at: str | None
    decision_type: str | None
    channel: str | None
    title: str | None
    title_withheld: bool
    series: str | None
    numbers: tuple[int, int] | None
    says: str | None
    accepted_at: str
    submitter: str
    perhaps: bool
    standing: Standing
    entry: bytes | None = None
    path: tuple[Hash, ...] = ()


@dataclass(frozen=True, slots=True)
class Unread:
    """An entry of which it cannot be told whether it matches, and why. `entry` is there where it is kept."""

    index: int
    why: str
    entry: bytes | None = None


@dataclass(slots=True)
class Answer:
    """What was found so far. `matches` stood in the register at the moment asked for, or may have.

    `since` came after it: what matches, and what corrects or withdraws a match. `later` has, by record_id,
    the versions of a matched record that followed its first match and were there too, or may have been.
    """

    looked_at: int = 0
    matches: list[Match] = field(default_factory=list[Match])
    since: list[Match] = field(default_factory=list[Match])
    later: dict[str, list[Match]] = field(default_factory=dict[str, list[Match]])
    unread: list[Unread] = field(default_factory=list[Unread])
    unread_count: int = 0

    def newest(self, match: Match) -> Match | None:
        """Return the highest version of a match's record that was there too; None where the match is that."""
        versions = [each for each in self.later.get(match.record_id, ()) if each.version > match.version]
        return max(versions, key=lambda each: each.version, default=None)


class Collector:
    """Takes every entry that is proved, and keeps what answers `query`. `origin` is that of the register.

    `standing` tells whether an entry was there at the moment asked for. With `entries` matches keep their
    entry, with `paths` their path. Memory grows with the matches only.
    """

    def __init__(
        self,
        query: Query,
        origin: str,
        standing: Callable[[int, Entry], Standing] | None = None,
        *,
        entries: bool = False,
        paths: bool = False,
    ) -> None:
        self._query = query
        self._origin = origin
        self._register = origin.partition("/")[2]
        self._standing = standing
        self._entries = entries
        self._paths = paths
        self._signed: tuple[bytes, object] | None = None
        self.answer = Answer()

    def take(self, index: int, data: bytes, path: Callable[[], tuple[Hash, ...]]) -> bool:
        """Take the entry at `index`; return whether it answers the question, or may.

        Raises VerificationError, naming the entry, for one that a ledger must not hold.
        """
        try:
            entry = parse_entry(data)
            self._verify_author(entry)
        except (MalformedError, VerificationError) as error:
            kind = type(error) if isinstance(error, VerificationError) else VerificationError
            raise kind(f"entry {index}: {error}") from error
        read = read_record(entry.record)
        self._verify_place(index, entry, read)
        self.answer.looked_at += 1
        if isinstance(read, Broken | NotUnderstood):
            return self._unread(index, data, read)
        fit = self._query.fit(read)
        follows = read.record_id in self.answer.later
        if fit is Fit.NO and not follows:
            return False
        standing = Standing.BEFORE if self._standing is None else self._standing(index, entry)
        kept = data if self._entries else None
        match = _match(index, entry, read, fit, standing, kept, path() if self._paths else ())
        versions = self.answer.later.setdefault(read.record_id, [])
        if standing is Standing.AFTER:
            self.answer.since.append(match)
            return fit is not Fit.NO
        if follows:
            versions.append(match)
        if fit is not Fit.NO:
            self.answer.matches.append(match)
        return fit is not Fit.NO

    def _verify_author(self, entry: Entry) -> None:
        """Verify the author's signature; that of a submission once for all its entries that stand in a row."""
        if entry.membership is None:
            return
        held = submission_body_of(entry, self._origin), entry.membership.signatures
        if held != self._signed:
            verify_entry(entry, self._origin)
            self._signed = held

    def _verify_place(self, index: int, entry: Entry, read: Record | Broken | NotUnderstood) -> None:
        head = read.header if isinstance(read, Broken | NotUnderstood) else read
        if head.register not in (None, self._register):
            raise VerificationError(f"entry {index}: its record is of the register {shown(head.register)}")
        if entry.membership is None and not (head.type and ledger_may_write(head.type, self._register)):
            raise VerificationError(f"entry {index}: an entry of type {shown(head.type)} must be signed here")

    def _unread(self, index: int, data: bytes, read: Broken | NotUnderstood) -> bool:
        if not self._query.may_fit(read.header):
            return False
        self.answer.unread_count += 1
        if len(self.answer.unread) < MAX_UNREAD:
            why = "; ".join(read.findings)[:500]
            self.answer.unread.append(Unread(index, why, data if self._entries else None))
        return True


def _match(
    index: int,
    entry: Entry,
    record: Record,
    fit: Fit,
    standing: Standing,
    kept: bytes | None,
    path: tuple[Hash, ...],
) -> Match:
    decision = record if isinstance(record, Decision) else None
    withheld = getattr(record, "withheld", None) or {}
    series, numbers = _reference(record)
    return Match(
        index=index,
        type=record.type,
        record_id=record.record_id,
        version=record.version,
        sha256=record_digest(entry.record),
        decided_at=decision.decided_at if decision else None,
        decision_type=decision.decision_type if decision else None,
        channel=decision.channel if decision else None,
        title=decision.title if decision else None,
        title_withheld="title" in withheld,
        series=series,
        numbers=numbers,
        says=_says(record),
        accepted_at=entry.acceptance.accepted_at,
        submitter=entry.acceptance.submitter,
        perhaps=fit is Fit.PERHAPS,
        standing=standing,
        entry=kept,
        path=path,
    )


def _reference(record: Record) -> tuple[str | None, tuple[int, int] | None]:
    """Return the series that a record is about, and the first and the last of its numbers that it names."""
    match record:
        case Decision():
            return record.reference.series, (record.reference.number, record.reference.number)
        case ReferenceVoided():
            return record.series, (record.first, record.last)
        case ReturnFiled():
            counted = record.first is not None and record.last is not None
            return record.series, (record.first or 0, record.last or 0) if counted else None
    return None, None


def _says(record: Record) -> str | None:
    match record:
        case ReferenceVoided():
            reason = f'"{record.reason}"'
            return f"takes the void back: {reason}" if record.taken_back else f"voids {_span(record)}: {reason}"
        case ReturnFiled():
            decisions = "1 decision" if record.count == 1 else f"{record.count or 'no'} decisions"
            return f"returns {decisions} for {record.period}"
    return None


def _span(void: ReferenceVoided) -> str:
    one = void.first == void.last
    return f"number {void.first}" if one else f"numbers {void.first} to {void.last}"

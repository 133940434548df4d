"""The answer to a question, from proved entries: what matches, and what later versions say of it.

Pure: entries go in, in index order, as the register holds them. Every entry is verified as far as it speaks
for itself (envelope, place, author's signature); whose keys these are is not judged here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from ledger.entries import Entry, parse_entry, submission_body_of, verify_entry
from ledger.errors import MalformedError, VerificationError
from ledger.hashing import Hash
from ledger.record_queries import Fit, Query
from ledger.record_types import Decision
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

    `perhaps`: its `decided_at` is too coarse to tell. `path` is its inclusion path where receipts are wanted.
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
    accepted_at: str
    perhaps: bool
    standing: Standing
    entry: bytes | None = None
    path: tuple[Hash, ...] = ()


@dataclass(frozen=True, slots=True)
class Unread:
    """An entry of which it cannot be told whether it matches, and why."""

    index: int
    why: str


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

    `standing` tells whether an entry was there at the moment asked for. With `keeping`, matches keep their
    entry and path. Memory grows with the matches only.
    """

    def __init__(
        self,
        query: Query,
        origin: str,
        standing: Callable[[int, Entry], Standing] | None = None,
        *,
        keeping: bool = False,
    ) -> None:
        self._query = query
        self._origin = origin
        self._register = origin.partition("/")[2]
        self._standing = standing
        self._keeping = keeping
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
            return self._unread(index, read)
        fit = self._query.fit(read)
        follows = read.record_id in self.answer.later
        if fit is Fit.NO and not follows:
            return False
        standing = Standing.BEFORE if self._standing is None else self._standing(index, entry)
        match = _match(index, entry, read, fit, standing)
        if self._keeping:
            match = replace(match, entry=data, path=path())
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

    def _unread(self, index: int, read: Broken | NotUnderstood) -> bool:
        if not self._query.may_fit(read.header):
            return False
        self.answer.unread_count += 1
        if len(self.answer.unread) < MAX_UNREAD:
            self.answer.unread.append(Unread(index, "; ".join(read.findings)[:500]))
        return True


def _match(index: int, entry: Entry, record: Record, fit: Fit, standing: Standing) -> Match:
    decision = record if isinstance(record, Decision) else None
    withheld = getattr(record, "withheld", None) or {}
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
        accepted_at=entry.acceptance.accepted_at,
        perhaps=fit is Fit.PERHAPS,
        standing=standing,
    )

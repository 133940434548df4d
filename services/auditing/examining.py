"""Looking at every new entry of a register once, after the round has verified that it was signed.

A stretch at a time: the second tree grows by it, its entries become facts, what is odd about them is written
into the notebook, and all of that is committed together. So it can be killed at any point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from ledger.entries import Entry, EntryReader, parse_entry, submission_body_of, submission_id
from ledger.governing import GOVERNING
from ledger.receipts import CLOCK_ALLOWANCE
from ledger.record_types import Relation
from ledger.records import Broken, NotUnderstood, SubmissionRejected, read_record, record_digest
from services.auditing.audit_state import STRETCH, AuditState
from services.auditing.facts import Fact, fact_of_parsed
from services.auditing.second_tree import SecondTree
from services.auditing.spans import OddSpans
from services.auditing.windows import shown_time

Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows progress: given a label and a total, it yields what is told how many more are done."""

Observe = Callable[[Sequence[Fact]], None]
"""Takes the facts of a stretch of one register, in order; after a death it may be given some again."""

IMPOSSIBLE: Final = "impossible-time"
"""`accepted_at` is later than when witnesses knew the entry."""

CLAIMED_EARLIER: Final = "claimed-earlier"
"""`accepted_at` is earlier than when witnesses still knew no such entry."""

JUST_EARLIER: Final = "claimed-just-earlier"
"""The same, by no more than clocks may differ, or an entry may wait for its place in the register."""

BEFORE_VISIT: Final = "claimed-before-visit"
"""`accepted_at` is earlier than a visit of this auditor's, at which there was no such entry."""

BREAKS_A_RULE: Final = "breaks-a-rule"
NOT_UNDERSTOOD: Final = "type-not-understood"
UNFOUNDED: Final = "unfounded-rejection"
RESTORED: Final = "restored"

_KINDS: Final[Mapping[str | None, str]] = {
    "decision.registered/1": "decisions",
    "decision.corrected/1": "corrections",
    "decision.withdrawn/1": "withdrawals",
    "return.filed/1": "returns",
    "submission.rejected/1": "rejections",
}


@dataclass(slots=True)
class _Signed:
    """A run of entries signed by one key against one governing size."""

    first: int
    last: int
    key: bytes
    governing_size: int


@dataclass(slots=True)
class _Found:
    """What was found in one stretch, to be written together."""

    odd: OddSpans = field(default_factory=OddSpans)
    counted: dict[str, int] = field(default_factory=dict[str, int])
    signed: list[_Signed] = field(default_factory=list[_Signed])
    rejections: list[tuple[bytes, int]] = field(default_factory=list[tuple[bytes, int]])
    relations: list[tuple[int, str, bytes, int]] = field(default_factory=list[tuple[int, str, bytes, int]])


class Examiner:
    """Examines the registers of one ledger. Raises StoreError."""

    def __init__(self, state: AuditState, observe: Observe, bar: Bar) -> None:
        self._state = state
        self._notebook = state.notebook
        self._observe = observe
        self._bar = bar
        self._visited: int | None = None

    def examine(self, register: str) -> None:
        """Examine the entries of a register that were not yet, up to the size of the mirror."""
        size, tree = self._state.monitored.size(register), second_tree(self._state, register)
        visited = self._notebook.one("SELECT begun FROM audited WHERE register = ?", (register,))
        self._visited = visited[0] if visited else None
        with self._bar(f"Examining {register}", size - tree.size) as advance:
            while tree.size < size:
                begin = tree.size
                # In whole stretches, so that the second tree has large subtrees to build.
                entries = self._state.entries(register, begin, min(size, (begin // STRETCH + 1) * STRETCH))
                tree.append(entries)
                self._take(register, begin, entries, tree)
                advance(len(entries))

    def _take(self, register: str, begin: int, entries: Sequence[bytes], tree: SecondTree) -> None:
        found = _Found()
        facts = list(self._facts(register, begin, entries, found))
        # Before the stretch is committed here: the other way round, a death in between would lose them.
        if register != GOVERNING:
            self._observe(facts)
        with self._notebook.together():
            self._write(register, found)
            self._notebook.write(
                "INSERT INTO examined VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET size = excluded.size, "
                "peaks = excluded.peaks",
                (register, tree.size, tree.peaks),
            )

    def _facts(self, register: str, begin: int, entries: Sequence[bytes], found: _Found) -> Iterator[Fact]:
        reader = EntryReader()
        for index, entry in enumerate(entries, begin):
            parsed = reader.parse(entry)
            fact = fact_of_parsed(register, index, parsed, self._state.bounds(register, index))
            kind = _KINDS.get(fact.type, "others")
            found.counted[kind] = found.counted.get(kind, 0) + 1
            if register != GOVERNING:
                _note_signer(found.signed, fact, parsed)
            self._look_at_time(found.odd, fact, parsed)
            if fact.record is None:
                _look_at_rules(found.odd, fact, parsed)
            elif isinstance(fact.record, SubmissionRejected):
                found.rejections.append((bytes.fromhex(fact.record.submission_id), index))
                self._look_at_rejection(found.odd, fact, fact.record)
            elif relations := getattr(fact.record, "relations", None):
                found.relations += _related(fact, relations)
            if fact.type == "restore.declared/1":
                found.odd.add(RESTORED, index, "the ledger declares that it was restored from an older copy")
            yield fact

    def _look_at_time(self, odd: OddSpans, fact: Fact, parsed: Entry) -> None:
        """Hold the ledger's claim of time against the witnesses' (formats.md, section 15)."""
        claimed, bounds = fact.accepted_at, fact.bounds
        if bounds.not_after is not None and claimed > bounds.not_after + CLOCK_ALLOWANCE:
            known = shown_time(bounds.not_after)
            odd.add(
                IMPOSSIBLE,
                fact.index,
                f"claims {shown_time(claimed)}, and a quorum of witnesses knew it by {known}",
            )
        if bounds.not_before is not None and claimed < bounds.not_before:
            unknown = shown_time(bounds.not_before)
            text = f"claims {shown_time(claimed)}, and a quorum of witnesses knew no such entry at {unknown}"
            if claimed + CLOCK_ALLOWANCE < bounds.not_before:
                identity = _submission_id(self._state.origin, fact, parsed)
                odd.add(CLAIMED_EARLIER, fact.index, text, identity)
            else:
                odd.add(JUST_EARLIER, fact.index, text)
        elif self._visited is not None and claimed + CLOCK_ALLOWANCE < self._visited:
            # What the auditor saw himself is no witness for others, and needs none for him. Whatever is new
            # now was not there then.
            seen = shown_time(self._visited)
            text = f"claims {shown_time(claimed)}, and at your visit of {seen} it was not there"
            odd.add(BEFORE_VISIT, fact.index, text)

    def _look_at_rejection(self, odd: OddSpans, fact: Fact, rejected: SubmissionRejected) -> None:
        """Check that the earlier entry which a rejection names is the one that it says."""
        named = rejected.existing
        if named is None:
            return
        held: list[bytes] = []
        if named.index < fact.index:
            held = self._state.entries(fact.register, named.index, named.index + 1)
        if not held or record_digest(parse_entry(held[0]).record) != named.sha256:
            text = f"rejects a submission for entry {named.index}, which is not the record that it names"
            odd.add(UNFOUNDED, fact.index, text)

    def _write(self, register: str, found: _Found) -> None:
        """Write what was found, in a transaction that the caller has begun."""
        found.odd.write(self._notebook, register)
        self._notebook.write_all(
            "INSERT INTO counted VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET entries = entries + excluded.entries",
            [(register, kind, count) for kind, count in found.counted.items()],
        )
        self._write_signed(register, found.signed)
        self._notebook.write_all(
            "INSERT OR REPLACE INTO rejection VALUES (?, ?, ?)",
            [(register, identity, index) for identity, index in found.rejections],
        )
        self._notebook.write_all(
            "INSERT OR REPLACE INTO relation VALUES (?, ?, ?, ?, ?)",
            [(register, *each) for each in self._not_there(register, found.relations)],
        )

    def _write_signed(self, register: str, runs: Sequence[_Signed]) -> None:
        if not runs:
            return
        first, *_ = runs
        joined = self._notebook.one(
            "SELECT first FROM signed WHERE register = ? AND last = ? AND key = ? AND governing_size = ? "
            "AND first = (SELECT max(first) FROM signed WHERE register = ?1)",
            (register, first.first - 1, first.key, first.governing_size),
        )
        rows = [(register, run.first, run.last, run.key, run.governing_size) for run in runs]
        if joined is not None:
            rows[0] = (register, joined[0], *rows[0][2:])
        self._notebook.write_all("INSERT OR REPLACE INTO signed VALUES (?, ?, ?, ?, ?)", rows)

    def _not_there(
        self, register: str, relations: Sequence[tuple[int, str, bytes, int]]
    ) -> Iterator[tuple[int, str, bytes, int]]:
        """Yield the relations whose target is not in the register itself: the others are there."""
        here = [each[2:] for each in relations if each[1] == register]
        store = self._state.monitored.mirror.store
        there = {(at.record_id, at.version) for at in store.versions(register, here)} if here else set()
        yield from (each for each in relations if each[1] != register or each[2:] not in there)


def second_tree(state: AuditState, register: str) -> SecondTree:
    """Return the second tree of a register as far as it was examined."""
    row = state.notebook.one("SELECT size, peaks FROM examined WHERE register = ?", (register,))
    return SecondTree(*row) if row else SecondTree()


def _note_signer(runs: list[_Signed], fact: Fact, parsed: Entry) -> None:
    if parsed.membership is None:
        return
    latest = runs[-1] if runs and runs[-1].last == fact.index - 1 else None
    if latest is not None and parsed.membership.position > 0:
        latest.last = fact.index  # of the same submission, so by the same key
        return
    key = parsed.membership.signatures[0].key
    if latest is not None and (latest.key, latest.governing_size) == (key, fact.governing_size):
        latest.last = fact.index
        return
    runs.append(_Signed(fact.index, fact.index, key, fact.governing_size))


def _look_at_rules(odd: OddSpans, fact: Fact, parsed: Entry) -> None:
    """Say why a record could not be read; rules bind at registration only (formats.md, section 1)."""
    read = read_record(parsed.record)
    if isinstance(read, NotUnderstood):
        odd.add(NOT_UNDERSTOOD, fact.index, "; ".join(read.findings))
    elif isinstance(read, Broken):
        odd.add(BREAKS_A_RULE, fact.index, "; ".join(read.findings[:3]))


def _related(fact: Fact, relations: Sequence[Relation]) -> Iterator[tuple[int, str, bytes, int]]:
    for relation in relations:
        target = relation.target
        if target.record_id is not None and target.version is not None:
            identity = UUID(target.record_id).bytes
            yield fact.index, target.register or fact.register, identity, target.version


def _submission_id(origin: str, fact: Fact, parsed: Entry) -> bytes | None:
    if parsed.membership is None:
        return None
    body = submission_body_of(parsed, f"{origin}/{fact.register}")
    return bytes.fromhex(submission_id(body))

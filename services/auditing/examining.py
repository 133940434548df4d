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

from ledger.entries import Entry, EntryReader
from ledger.governing import GOVERNING
from ledger.record_types import Relation
from ledger.records import Broken, NotUnderstood, SubmissionRejected, read_record
from services.auditing.audit_state import STRETCH, AuditState
from services.auditing.claimed_times import Claims, look_again
from services.auditing.facts import Fact, fact_of_parsed
from services.auditing.rejections import Past, unfounded
from services.auditing.second_tree import SecondTree
from services.auditing.spans import OddSpans

Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows progress: given a label and a total, it yields what is told how many more are done."""

Observe = Callable[[Sequence[Fact]], None]
"""Takes the facts of a stretch of one register, in order; after a death it may be given some again."""

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

    def examine(self, register: str) -> None:
        """Examine the entries of a register that were not yet, up to the size of the mirror.

        Of those that were, what they claim of time is looked at again where their bounds are others now.
        """
        size, tree = self._state.monitored.size(register), second_tree(self._state, register)
        look_again(self._state, register, tree.size, self._bar)
        claims = Claims(self._state, register)
        with self._bar(f"Examining {register}", size - tree.size) as advance:
            while tree.size < size:
                begin = tree.size
                # In whole stretches, so that the second tree has large subtrees to build.
                entries = self._state.entries(register, begin, min(size, (begin // STRETCH + 1) * STRETCH))
                tree.append(entries)
                self._take(register, begin, entries, tree, claims)
                advance(len(entries))

    def _take(
        self, register: str, begin: int, entries: Sequence[bytes], tree: SecondTree, claims: Claims
    ) -> None:
        found = _Found()
        facts = list(self._facts(register, begin, entries, found, claims))
        # Before the stretch is committed here: the other way round, a death in between would lose them.
        if register != GOVERNING:
            self._observe(facts)
        with self._notebook.together():
            self._write(register, found)
            claims.write(tree.size)
            self._notebook.write(
                "INSERT INTO examined VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET size = excluded.size, "
                "peaks = excluded.peaks",
                (register, tree.size, tree.peaks),
            )

    def _facts(
        self, register: str, begin: int, entries: Sequence[bytes], found: _Found, claims: Claims
    ) -> Iterator[Fact]:
        reader = EntryReader()
        for index, entry in enumerate(entries, begin):
            parsed = reader.parse(entry)
            fact = fact_of_parsed(register, index, parsed, self._state.bounds(register, index))
            kind = _KINDS.get(fact.type, "others")
            found.counted[kind] = found.counted.get(kind, 0) + 1
            if register != GOVERNING:
                _note_signer(found.signed, fact, parsed)
            claims.look(fact, parsed)
            if fact.record is None:
                _look_at_rules(found.odd, fact, parsed)
            elif isinstance(fact.record, SubmissionRejected):
                found.rejections.append((bytes.fromhex(fact.record.submission_id), index))
                self._look_at_rejection(found, fact, fact.record)
            elif relations := getattr(fact.record, "relations", None):
                found.relations += _related(fact, relations)
            if fact.type == "restore.declared/1":
                found.odd.add(RESTORED, index, "the ledger declares that it was restored from an older copy")
            yield fact

    def _look_at_rejection(self, found: _Found, fact: Fact, rejected: SubmissionRejected) -> None:
        """Check that a rejection can be what it says, by what the register held before it."""

        def entry(index: int) -> bytes | None:
            held = self._state.entries(fact.register, index, index + 1) if index < fact.index else []
            return held[0] if held else None

        def version(record_id: bytes, number: int) -> int | None:
            store = self._state.monitored.mirror.store
            at = store.versions(fact.register, [(record_id, number)])
            return at[0].index if at and at[0].index < fact.index else None

        past = Past(entry, version, self._latest_view(fact.register, found))
        why = unfounded(rejected, fact.governing_size, past)
        if why is not None:
            found.odd.add(UNFOUNDED, fact.index, why)

    def _latest_view(self, register: str, found: _Found) -> int | None:
        """Return the governing size of the latest entry with a submission so far; None for none."""
        if found.signed:
            return found.signed[-1].governing_size
        row = self._notebook.one(
            "SELECT governing_size FROM signed WHERE register = ? ORDER BY first DESC LIMIT 1", (register,)
        )
        return row[0] if row else None

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

"""Series of reference numbers and the statements of decisions that have them: gaps, duplicates, order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ledger.records import Decision, ReferenceVoided
from ledger.timeline import Bounds
from ledger.values import Partial
from services.auditing.detections import references
from services.auditing.detections.lateness import Inversion
from services.auditing.detections.references import Neighbours, Series, Void
from services.auditing.detections.rules import MAX_INDICES, Terms
from services.auditing.fact_store import INDEX, PLACE_BITS, FactStore, record_key
from services.auditing.remembered.latest_dated import LatestDated

_MOST_KEPT: Final = 10_000
_ENDS_IN_NUMBER: Final = re.compile(r"(.*?)([0-9]{1,12})", re.DOTALL)


@dataclass(slots=True)
class State:
    """A series as it is worked with: the run of numbers last added to, and the entries dated latest."""

    id: int
    register: int
    first: int | None
    last: int | None
    tops: LatestDated
    returned: int
    """The last second of the latest period for which there is a return; 0 where there is none."""
    ahead: int | None = None
    """Where the next run of numbers begins, above the one last added to."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """A version of a record, as the next one is compared with it.

    `first` is the place of the record's first version, `registered` that of the entry that registered the
    decision as this version dates it; `not_before`, `not_after` and `accepted_at` are that entry's.
    """

    first: int
    place: int
    version: int
    series: int
    number: int
    earliest: int
    latest: int
    answer: str | None
    corrections: int
    registered: int
    not_before: int | None
    not_after: int | None
    accepted_at: float


class SeriesMemory:
    """Every series, and every statement by its series and number, date, and record."""

    def __init__(self, store: FactStore, terms: Terms) -> None:
        self._store = store
        self._terms = terms
        self._states: dict[tuple[int, int, str], State] = {}
        self._changed: dict[int, State] = {}
        self._statements: list[tuple[object, ...]] = []

    def forget(self) -> None:
        """Drop what is in memory only."""
        self._states.clear()
        self._changed.clear()
        self._statements.clear()

    def state(self, register: int, name: str, departmental: int = 0) -> State:
        """Return the state of a series, made at its first call."""
        key = register, departmental, name
        found = self._states.get(key)
        if found is not None:
            return found
        if len(self._states) >= _MOST_KEPT:
            self.flush()
            self._states.clear()
        row = self._store.one(
            "SELECT id, register, first, last, tops, returned FROM series "
            "WHERE register = ? AND departmental = ? AND name = ?",
            key,
        )
        if row is None:
            made = self._store.write("INSERT INTO series VALUES (NULL, ?, ?, ?, NULL, NULL, NULL, 0)", key)
            row = made, register, None, None, None, 0
        id_, of, first, last, tops, returned = row
        found = self._states[key] = State(id_, of, first, last, LatestDated(tops), returned)
        if found.last is not None:
            found.ahead = self._ahead(found)
        return found

    def returned(self, state: State, latest: int) -> None:
        """Note that there is a return for a period that ends then."""
        if latest > state.returned:
            state.returned = latest
            self._changed[state.id] = state

    def add(self, row: tuple[object, ...]) -> None:
        """Keep a statement: a row of the table, written with the next flush."""
        self._statements.append(row)
        if len(self._statements) == _MOST_KEPT:
            self.flush()

    def flush(self) -> None:
        """Write what is in memory only."""
        store = self._store
        if self._statements:
            store.write_all(
                "INSERT INTO statements VALUES (?, ?, ?, ?, NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                self._statements,
            )
            self._statements.clear()
        for state in self._changed.values():
            store.write(
                "UPDATE series SET first = ?, last = ?, tops = ?, returned = ? WHERE id = ?",
                (state.first, state.last, state.tops.text, state.returned, state.id),
            )
            if state.first is not None:
                store.write(
                    "INSERT INTO runs_of_numbers VALUES (?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET last = excluded.last",
                    (state.id, state.first, state.last),
                )
        self._changed.clear()

    # Versions of a record

    def last(self, register: int, record: bytes) -> Earlier | None:
        """Return the last statement of a record; None without any."""
        self.flush()
        self._store.need("statements_by_record")
        within = record, register << PLACE_BITS, register + 1 << PLACE_BITS
        (first,) = self._store.one(
            "SELECT min(place) FROM statements WHERE record = ? AND place >= ? AND place < ?", within
        )
        if first is None:
            return None
        last = self._store.one(
            "SELECT s.place, s.version, s.series, s.number, s.earliest, s.latest, s.answer, s.corrections, "
            "s.registered, r.not_before, r.not_after, r.accepted_at "
            "FROM statements s JOIN statements r ON r.place = s.registered "
            "WHERE s.record = ? AND s.place >= ? AND s.place < ? ORDER BY s.place DESC LIMIT 1",
            within,
        )
        return Earlier(first, *last)

    def follow(self, earlier: Earlier, place: int) -> None:
        """Note that a statement is followed by the one at `place`."""
        self._store.write("UPDATE statements SET next = ? WHERE place = ?", (place, earlier.place))

    def versions(self, register: int, record: bytes) -> list[int]:
        """Return the indices of a record's statements, the first ones where there are many."""
        self.flush()
        self._store.need("statements_by_record")
        rows = self._store.rows(
            "SELECT place FROM statements WHERE record = ? AND place >= ? AND place < ? ORDER BY place LIMIT ?",
            (record, register << PLACE_BITS, register + 1 << PLACE_BITS, MAX_INDICES + 1),
        )
        return [place & INDEX for (place,) in rows]

    # Order

    def date(self, state: State, place: int, decided: Partial, bounds: Bounds) -> None:
        """Note the date of a statement of a series, with its entry's own bounds."""
        if state.tops.add(decided.earliest, place, bounds):
            self._changed[state.id] = state

    def inversion(self, state: State, place: int, decided: Partial, not_before: int) -> Inversion | None:
        """Return the entry dated latest among those witnessed by then, if it is later than this at any rate."""
        ahead = state.tops.known_by(not_before)
        if ahead is None or ahead.dated <= decided.latest:
            return None
        rule = self._terms.profile.detections.back_dated
        count = 1
        if rule is not None and rule.inversions > 1:
            self.flush()
            self._store.need("statements_by_date")
            (count,) = self._store.one(
                "SELECT count(*) FROM (SELECT 1 FROM statements INDEXED BY statements_by_date "
                "WHERE series = ? AND latest > ? AND earliest > ? AND place < ? AND not_after <= ? LIMIT ?)",
                (state.id, decided.latest, decided.latest, place, not_before, rule.inversions),
            )
        return Inversion("series", ahead.place & INDEX, ahead.dated, ahead.not_after, count)

    # Numbers

    def number(self, state: State, number: int) -> bool:
        """Add a number to a series, and tell whether it was there already."""
        if state.last is not None and state.first is not None:
            if number == state.last + 1 and (state.ahead is None or number + 1 < state.ahead):
                state.last = number
                self._changed[state.id] = state
                return False
            if state.first <= number <= state.last:
                return True
        self.flush()
        store, series = self._store, state.id
        before = store.one(
            "SELECT first, last FROM runs_of_numbers WHERE series = ? AND first <= ? ORDER BY first "
            "DESC LIMIT 1",
            (series, number),
        )
        if before is not None and before[1] >= number:
            return True
        after = store.one(
            "SELECT first, last FROM runs_of_numbers WHERE series = ? AND first = ?", (series, number + 1)
        )
        first, last = number, number
        if before is not None and before[1] == number - 1:
            first = before[0]
        if after is not None:
            last = after[1]
            store.write("DELETE FROM runs_of_numbers WHERE series = ? AND first = ?", (series, number + 1))
        state.first, state.last = first, last
        self._changed[state.id] = state
        state.ahead = self._ahead(state)
        self.flush()
        return False

    def _ahead(self, state: State) -> int | None:
        (found,) = self._store.one(
            "SELECT min(first) FROM runs_of_numbers WHERE series = ? AND first > ?", (state.id, state.last)
        )
        return None if found is None else int(found)

    def same_number(self, state: State, number: int) -> None:
        """Keep the finding for a number that several records have."""
        self.flush()
        self._store.need("statements_by_number")
        rows = self._store.rows(
            "SELECT place, record FROM statements WHERE series = ? AND number = ? ORDER BY place LIMIT ?",
            (state.id, number, MAX_INDICES + 1),
        ).fetchall()
        records = len({record for _, record in rows})
        series = self._series(state.id)
        indices = [place & INDEX for place, _ in rows]
        found = references.duplicate(self._terms, series, number, indices, records)
        if found is not None:
            self._store.put(found, f"duplicate:{state.id}:{number}")

    def departmental(self, register: int, reference: str) -> None:
        """Add a department's own free-text reference, if it ends in a number: what precedes is its series."""
        parts = _ENDS_IN_NUMBER.fullmatch(reference)
        if parts is not None:
            state = self.state(register, parts[1], 1)
            self.number(state, int(parts[2]))

    # Voids

    def void(self, register: int, place: int, record: ReferenceVoided, bounds: Bounds) -> None:
        """Note the latest version of a void, with its entry's bounds."""
        self._store.write(
            "DELETE FROM voids WHERE record = ? AND series IN (SELECT id FROM series WHERE register = ?)",
            (record_key(record.record_id), register),
        )
        state = self.state(register, record.series)
        self._store.write(
            "INSERT INTO voids VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                state.id,
                record_key(record.record_id),
                place,
                record.first,
                record.last,
                int(record.taken_back is True),
                record.reason,
                bounds.not_before,
                bounds.not_after,
            ),
        )

    def settle(self) -> None:
        """Make the findings of gaps and voids anew, of every series that has more than one run, or a void.

        Those of all others are dropped: a gap may have been filled, and a void may have gone to another series.
        """
        self.flush()
        if self._terms.profile.detections.series_gap is None:
            return
        for (register,) in self._store.rows("SELECT id FROM registers").fetchall():
            self._store.drop(register, "DET-08", "gap:")
            self._store.drop(register, "DET-08", "void:")
        rows = self._store.rows(
            "SELECT series FROM (SELECT series FROM runs_of_numbers GROUP BY series HAVING count(*) > 1 "
            "UNION SELECT series FROM voids) ORDER BY series"
        ).fetchall()
        for (series,) in rows:
            self._settle(series)

    def _settle(self, id_: int) -> None:
        series = self._series(id_)
        voids = [
            Void(place & INDEX, *rest)
            for place, *rest in self._store.rows(
                "SELECT place, first, last, reason, not_before, not_after FROM voids "
                "WHERE series = ? AND NOT taken_back ORDER BY place",
                (id_,),
            )
        ]
        told, more, missing = 0, 0, 0
        used = self._store.rows(
            "SELECT first, last FROM runs_of_numbers WHERE series = ? ORDER BY first", (id_,)
        )
        for run in references.gaps(used, voids):
            if told == references.MAX_GAPS:
                more, missing = more + 1, missing + run[1] - run[0] + 1
                continue
            found = references.gap(self._terms, series, run, self._neighbours(series, id_, run))
            if found is not None:
                told += 1
                self._store.put(found, f"gap:{id_}:{run[0]}")
        if more:
            self._store.put(references.more_gaps(self._terms, series, more, missing), f"gap:{id_}:more")
        (highest,) = self._store.one("SELECT max(last) FROM runs_of_numbers WHERE series = ?", (id_,))
        for void in voids:
            self._settle_void(series, id_, void, highest or 0)

    def _settle_void(self, series: Series, id_: int, void: Void, highest: int) -> None:
        runs = self._store.rows(
            "SELECT max(first, ?2), min(last, ?3) FROM runs_of_numbers "
            "WHERE series = ?1 AND first <= ?3 AND last >= ?2 AND first >= coalesce("
            # They are disjoint: of those that begin before the void, only the last may reach into it.
            "(SELECT max(first) FROM runs_of_numbers WHERE series = ?1 AND first <= ?2), 0) ORDER BY first",
            (id_, void.first, void.last),
        ).fetchall()
        used = runs[: references.MAX_GAPS]
        found = [references.void_of_used(self._terms, series, void, run) for run in used]
        found.append(references.void_ahead(self._terms, series, void, highest))
        found.append(references.voided(self._terms, series, void, runs))
        for number, each in enumerate(found):
            if each is not None:
                self._store.put(each, f"void:{id_}:{void.index}:{number:04}")

    def _neighbours(self, series: Series, id_: int, run: tuple[int, int]) -> Neighbours:
        if series.departmental:
            return Neighbours(None, None)
        self._store.need("statements_by_number")
        below = self._store.one(
            "SELECT place FROM statements WHERE series = ? AND number < ? ORDER BY number DESC, place LIMIT 1",
            (id_, run[0]),
        )
        above = self._store.one(
            "SELECT place FROM statements WHERE series = ? AND number > ? ORDER BY number, place LIMIT 1",
            (id_, run[1]),
        )
        return Neighbours(*(row[0] & INDEX if row else None for row in (below, above)))

    def _series(self, id_: int) -> Series:
        name, departmental, register = self._store.one(
            "SELECT name, departmental, register FROM series WHERE id = ?", (id_,)
        )
        return Series(self._store.name(register), name, bool(departmental))

    # What is asked of decisions besides

    def add_decision(self, state: State, record: Decision) -> None:
        """Add the numbers of a statement that is kept already."""
        if self.number(state, record.reference.number):
            self.same_number(state, record.reference.number)
        if record.departmental_reference is not None:
            self.departmental(state.register, record.departmental_reference)

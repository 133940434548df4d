"""Returns, each against the register as it stood when it was filed, and against what came after it."""

from __future__ import annotations

from ledger.records import ReturnFiled
from ledger.values import Partial, partial
from services.auditing.detections import returns
from services.auditing.detections.rules import Terms
from services.auditing.fact_store import INDEX, PLACE_BITS, FactStore, record_key
from services.auditing.facts import Fact
from services.auditing.remembered.after_returns import keep_after_return, moved_after
from services.auditing.remembered.series import SeriesMemory, State
from services.auditing.returns import Counted, Filed, judge_counted


class ReturnsMemory:
    """Every version of every return; those that something has changed since they were judged are open."""

    def __init__(self, store: FactStore, terms: Terms, series: SeriesMemory) -> None:
        self._store = store
        self._terms = terms
        self._series = series

    def take(self, fact: Fact, register: int, record: ReturnFiled) -> None:
        """Keep a return."""
        self._series.flush()
        state = self._series.state(register, record.series)
        period = partial(record.period)
        self._series.returned(state, period.latest)
        before = self._store.one(
            "SELECT 1 FROM returns WHERE series = ? AND earliest <= ? AND latest >= ? LIMIT 1",
            (state.id, period.latest, period.earliest),
        )
        if before is None:
            late = returns.late_return(self._terms, fact.register, fact.index, period, fact.bounds.not_before)
            if late is not None:
                self._store.put(late, f"late:{fact.index}")
        row = (
            register << PLACE_BITS | fact.index,
            record_key(record.record_id),
            record.version,
            state.id,
            period.earliest,
            period.latest,
            fact.accepted_at,
            record.count or 0,
            record.first,
            record.last,
        )
        self._store.write("INSERT INTO returns VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)", row)

    def touch(self, state: State, latest: int) -> None:
        """Open the returns that count a decision with this latest second."""
        if latest <= state.returned:
            self.reopen(state.id, latest)

    def reopen(self, series: int, latest: int) -> None:
        """Open the returns that counted an earlier version of a record."""
        self._store.write(
            "UPDATE returns SET is_open = 1 WHERE series = ? AND earliest <= ? AND latest >= ? AND NOT is_open",
            (series, latest, latest),
        )

    def settle(self, now: int | None) -> None:
        """Judge the open returns anew, and find the periods that have none by `now`."""
        self._series.flush()
        while True:
            rows = self._store.rows("SELECT * FROM returns WHERE is_open ORDER BY place LIMIT 100").fetchall()
            if not rows:
                break
            for place, _, version, series, earliest, latest, accepted_at, count, first, last, _ in rows:
                filed = Filed(
                    place & INDEX, "", version, accepted_at, "", Partial(earliest, latest), count, first, last
                )
                self._judge(place, series, filed)
                self._store.write("UPDATE returns SET is_open = 0 WHERE place = ?", (place,))
        if now is not None and self._terms.profile.detections.return_missing is not None:
            self._missing(now)

    def _judge(self, place: int, series: int, filed: Filed) -> None:
        self._store.need("statements_by_date")
        self._store.need("statements_by_record")
        register = place >> PLACE_BITS
        name, series_name = self._store.one(
            "SELECT r.name, s.name FROM registers r, series s WHERE r.id = ? AND s.id = ?", (register, series)
        )
        period = series, filed.period.earliest, filed.period.latest
        # Whatever the profile has: it is no matter of limits.
        keep_after_return(self._store, place, period)
        if self._terms.profile.detections.return_missing is None:
            return
        counted = self._store.one(
            "SELECT count(*), min(number), max(number) FROM statements INDEXED BY statements_by_date "
            "WHERE series = ? AND latest BETWEEN ? AND ? AND place < ? AND (next IS NULL OR next > ?)",
            (*period, place, place),
        )
        named = Filed(
            filed.index,
            "",
            filed.version,
            filed.accepted_at,
            series_name,
            filed.period,
            filed.count,
            filed.first,
            filed.last,
        )
        judged = judge_counted(named, Counted(*counted))
        self._store.drop(register, "DET-09", f"return:{filed.index}:")
        after = moved_after(self._store, place, period, returns.MAX_AFTER)
        moved = (returns.moved(self._terms, name, judged, each) for each in after)
        for number, found in enumerate((*returns.mismatches(self._terms, name, judged), *moved)):
            if found is not None:
                self._store.put(found, f"return:{filed.index}:{number:04}")

    def _missing(self, now: int) -> None:
        rows = self._store.rows(
            "SELECT DISTINCT s.id, s.name, s.register FROM series s JOIN returns r ON r.series = "
            "s.id ORDER BY s.id"
        ).fetchall()
        for series, name, register in rows:
            self._store.drop(register, "DET-09", f"missing:{series}:")
            periods = [
                Partial(earliest, latest)
                for earliest, latest in self._store.rows(
                    "SELECT DISTINCT earliest, latest FROM returns WHERE series = ? ORDER BY "
                    "earliest LIMIT 2000",
                    (series,),
                )
            ]
            found = returns.missing(self._terms, self._store.name(register), name, periods, now)
            for number, each in enumerate(found):
                self._store.put(each, f"missing:{series}:{number:04}")

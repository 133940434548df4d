"""How many events there were when: registrations by submitter and series, publications by register."""

from __future__ import annotations

from collections.abc import Iterator

from ledger.values import partial
from services.auditing.detections.bursts import BASELINE, HOUR, Burst, Tick, burst, bursts
from services.auditing.detections.rules import MAX_INDICES, Case, Terms
from services.auditing.fact_store import INDEX, PLACE_BITS, FactStore

_MOST_KEPT = 10_000
_PUBLISHED = "first publications"
_UPDATED = "updates of what was published"


class CrowdMemory:
    """The ticks of every group. One is open from the earliest tick added since it was looked at."""

    def __init__(self, store: FactStore, terms: Terms) -> None:
        self._store = store
        self._terms = terms
        rule = terms.profile.detections.burst
        self._width = 0 if rule is None else rule.minutes * 60
        self._groups: dict[tuple[int, str, int], int] = {}
        # For each group and second: count, late, migrated, first and last index.
        self._counts: dict[tuple[int, int], list[int]] = {}
        self._open: dict[int, int] = {}

    def forget(self) -> None:
        """Drop what is in memory only."""
        self._groups.clear()
        self._counts.clear()
        self._open.clear()

    def registered(
        self,
        register: int,
        submitter: str,
        series: int,
        index: int,
        not_after: int,
        *,
        late: bool,
        migrated: bool,
    ) -> None:
        """Count a registration at its not-after."""
        key = register, submitter, series
        group = self._groups.get(key)
        if group is None:
            group = self._group(register, submitter, series)
        counts = self._counts.get((group, not_after))
        if counts is None:
            self._counts[group, not_after] = [1, int(late), int(migrated), index, index]
            if len(self._counts) > _MOST_KEPT:
                self.flush()
        else:
            counts[0] += 1
            counts[1] += late
            counts[2] += migrated
            counts[4] = index

    def published(self, case: Case, register: int, *, late: bool) -> None:
        """Count a publication and its updates, once for each record, where they are precise enough."""
        publication = case.record.publication
        if publication is None or not self._width:
            return
        migrated = int(case.record.late_reason == "migration_of_legacy" and not late)
        for what, times in ((_PUBLISHED, (publication.first,)), (_UPDATED, publication.updates or ())):
            for text in times:
                span = partial(text)
                if span.latest - span.earliest > 2 * self._width:
                    continue
                group = self._group(register, what, 0)
                row = (
                    group,
                    span.latest,
                    span.earliest,
                    case.first_index,
                    1,
                    int(late),
                    migrated,
                    case.index,
                    case.index,
                )
                self._store.write("INSERT OR IGNORE INTO ticks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
                self._opened(group, span.latest)

    def _group(self, register: int, what: str, series: int) -> int:
        key = register, what, series
        group = self._groups.get(key)
        if group is None:
            row = self._store.one("SELECT id FROM groups WHERE register = ? AND what = ? AND series = ?", key)
            group = row[0] if row else self._store.write("INSERT INTO groups VALUES (NULL, ?, ?, ?, NULL)", key)
            if len(self._groups) > _MOST_KEPT:
                self.flush()
                self._groups.clear()
            self._groups[key] = group
        return group

    def _opened(self, group: int, moment: int) -> None:
        before = self._open.get(group)
        if before is None or moment < before:
            self._open[group] = moment

    def flush(self) -> None:
        """Write what is in memory only."""
        if self._counts:
            rows = [(group, moment, moment, *counts) for (group, moment), counts in self._counts.items()]
            for group, moment in self._counts:
                self._opened(group, moment)
            self._store.write_all(
                "INSERT INTO ticks VALUES (?, ?, ?, -1, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "count = count + excluded.count, late = late + excluded.late, "
                "migrated = migrated + excluded.migrated, first = min(first, excluded.first), "
                "last = max(last, excluded.last)",
                rows,
            )
            self._counts.clear()
        if self._open:
            self._store.write_all(
                "UPDATE groups SET open_from = min(coalesce(open_from, ?1), ?1) WHERE id = ?2",
                [(moment, group) for group, moment in self._open.items()],
            )
            self._open.clear()

    def settle(self) -> None:
        """Look at every open group anew, from the earliest window that what was added may change."""
        self.flush()
        rule = self._terms.profile.detections.burst
        if rule is None:
            return
        rows = self._store.rows(
            "SELECT id, register, what, series, open_from FROM groups WHERE open_from IS NOT NULL ORDER BY id"
        ).fetchall()
        for group, register, what, series, open_from in rows:
            since = open_from - 3 * self._width
            (earlier,) = self._store.one(
                "SELECT min(begin) FROM bursts WHERE grp = ? AND end >= ?", (group, since)
            )
            if earlier is not None:
                since = min(since, earlier)
            self._drop(group, register, since)
            (known_from,) = self._store.one("SELECT min(latest) FROM ticks WHERE grp = ?", (group,))
            for found in bursts(rule, self._hours(group, since), self._ticks(group, since), known_from):
                self._keep(group, register, what, series, found)
            self._store.write("UPDATE groups SET open_from = NULL WHERE id = ?", (group,))

    def _drop(self, group: int, register: int, since: int) -> None:
        for (begin,) in self._store.rows(
            "SELECT begin FROM bursts WHERE grp = ? AND begin >= ?", (group, since)
        ).fetchall():
            self._store.drop(register, "DET-20", f"burst:{group}:{begin}:")
        self._store.write("DELETE FROM bursts WHERE grp = ? AND begin >= ?", (group, since))

    def _hours(self, group: int, until: int) -> list[tuple[int, int]]:
        return self._store.rows(
            f"SELECT latest / {HOUR} AS hour, sum(count) FROM ticks "  # noqa: S608
            "WHERE grp = ? AND latest >= ? AND latest < ? GROUP BY hour ORDER BY hour",
            (group, until - BASELINE - HOUR, until),
        ).fetchall()

    def _ticks(self, group: int, begin: int) -> Iterator[Tick]:
        after: tuple[int, int, int] = (begin, -(1 << 62), -2)
        while True:
            rows = self._store.rows(
                "SELECT latest, earliest, mark, count, late, migrated, first, last FROM ticks "
                "WHERE grp = ? AND (latest, earliest, mark) > (?, ?, ?) ORDER BY latest, earliest, "
                "mark LIMIT 1000",
                (group, *after),
            ).fetchall()
            if not rows:
                return
            for latest, earliest, _, count, late, migrated, first, last in rows:
                yield Tick(earliest, latest, count, late, migrated, first, last)
            after = rows[-1][:3]

    def _keep(self, group: int, register: int, what: str, series: int, found: Burst) -> None:
        name = self._store.name(register)
        if series:
            (series_name,) = self._store.one("SELECT name FROM series WHERE id = ?", (series,))
            indices = self._indices(register, series, found)
            what = f"registrations in series {series_name} by {what}"
        else:
            indices = [tick.first for tick in found.ticks]
        made = burst(self._terms, name, what, found, indices)
        if made is not None:
            self._store.write("INSERT INTO bursts VALUES (?, ?, ?)", (group, found.begin, found.end))
            self._store.put(made, f"burst:{group}:{found.begin}:")

    def _indices(self, register: int, series: int, found: Burst) -> list[int]:
        first, last = min(tick.first for tick in found.ticks), max(tick.last for tick in found.ticks)
        begin, end = found.ticks[0].latest, max(tick.latest for tick in found.ticks)
        rows = self._store.rows(
            "SELECT place FROM statements NOT INDEXED WHERE place BETWEEN ? AND ? AND series = ? "
            "AND before IS NULL AND not_after >= ? AND not_after <= ? ORDER BY place LIMIT ?",
            (
                register << PLACE_BITS | first,
                register << PLACE_BITS | last,
                series,
                begin,
                end,
                MAX_INDICES + 1,
            ),
        )
        return [place & INDEX for (place,) in rows]

"""Runs of entries that no quorum has witnessed, or that one witnessed late."""

from __future__ import annotations

from services.auditing.detections.rules import Terms
from services.auditing.detections.witnessing import Run, is_late, unwitnessed
from services.auditing.fact_store import FactStore
from services.auditing.facts import Fact


class WitnessedMemory:
    """Every run; the last one of each register and kind is kept in memory while it grows."""

    def __init__(self, store: FactStore, terms: Terms) -> None:
        self._store = store
        self._terms = terms
        self._growing: dict[tuple[int, bool], Run] = {}

    def forget(self) -> None:
        """Drop what is in memory only."""
        self._growing.clear()

    def take(self, fact: Fact, register: int) -> None:
        """Look at when an entry was witnessed."""
        after = fact.bounds.not_after
        if after is None:
            self._grow(fact, register, None)
        elif is_late(self._terms, fact.accepted_at, after):
            self._grow(fact, register, int(after - fact.accepted_at))

    def _grow(self, fact: Fact, register: int, delay: int | None) -> None:
        key = register, delay is not None
        run = self._growing.get(key) or self._last(*key, fact.register)
        if run is not None and run.last + 1 == fact.index:
            longest = None if delay is None else max(delay, run.delay or 0)
            accepted_at = min(run.accepted_at, fact.accepted_at)
            self._growing[key] = Run(run.register, run.first, fact.index, accepted_at, longest)
            return
        self.flush()
        self._growing[key] = Run(fact.register, fact.index, fact.index, fact.accepted_at, delay)

    def _last(self, register: int, delayed: bool, name: str) -> Run | None:
        row = self._store.one(
            "SELECT first, last, accepted_at, delay FROM unwitnessed WHERE register = ? AND delayed = ? "
            "ORDER BY first DESC LIMIT 1",
            (register, int(delayed)),
        )
        return None if row is None else Run(name, *row)

    def flush(self) -> None:
        """Write what is in memory only."""
        self._store.write_all(
            "INSERT OR REPLACE INTO unwitnessed VALUES (?, ?, ?, ?, ?, ?)",
            [
                (register, int(delayed), run.first, run.last, run.accepted_at, run.delay)
                for (register, delayed), run in self._growing.items()
            ],
        )
        self._growing.clear()

    def settle(self, now: int | None) -> None:
        """Make the findings anew, as things stand at `now`."""
        self.flush()
        for (register,) in self._store.rows("SELECT DISTINCT register FROM unwitnessed").fetchall():
            self._store.drop(register, "DET-29", "run:")
        after = (-1, -1, -1)
        while True:
            rows = self._store.rows(
                "SELECT register, delayed, first, last, accepted_at, delay FROM unwitnessed "
                "WHERE (register, delayed, first) > (?, ?, ?) ORDER BY register, delayed, first LIMIT 500",
                after,
            ).fetchall()
            if not rows:
                return
            for register, delayed, first, last, accepted_at, delay in rows:
                run = Run(self._store.name(register), first, last, accepted_at, delay)
                if now is None and not delayed:
                    continue
                found = unwitnessed(self._terms, run, now or 0)
                if found is not None:
                    self._store.put(found, f"run:{delayed}:{first}")
            after = rows[-1][:3]

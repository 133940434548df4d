"""The last decision of every register, beside what else shows that the offices of its department are at work.

Another office decides, or a return counts decisions. What a return counts may all have been decided when its
period began: so much is sure of it.
"""

from __future__ import annotations

from ledger.records import ReturnFiled
from ledger.values import partial
from services.auditing.detections.rules import Terms
from services.auditing.detections.silence import Active, LastSeen, silence
from services.auditing.fact_store import INDEX, PLACE_BITS, FactStore, record_key
from services.auditing.facts import Fact


class ActivityMemory:
    """The latest version of every return that counts decisions; decisions stand with their registers."""

    def __init__(self, store: FactStore, terms: Terms) -> None:
        self._store = store
        self._terms = terms

    def take(self, fact: Fact, register: int, record: ReturnFiled) -> None:
        """Keep by when a return shows that decisions were made; one that nobody has witnessed shows nothing."""
        key = record_key(record.record_id)
        after = fact.bounds.not_after
        if not record.count or after is None:
            self._store.write("DELETE FROM active_returns WHERE register = ? AND record = ?", (register, key))
            return
        moment = min(after, partial(record.period).earliest)
        place = register << PLACE_BITS | fact.index
        self._store.write(
            "INSERT OR REPLACE INTO active_returns VALUES (?, ?, ?, ?)", (register, key, place, moment)
        )

    def settle(self) -> None:
        """Make the findings of silence anew."""
        if self._terms.profile.detections.silence is None:
            return
        for (register,) in self._store.rows("SELECT id FROM registers").fetchall():
            self._store.drop(register, "DET-30", "silence:")
        active: dict[str, Active] = {}
        for each in (*self._decisions(), *self._returns()):
            department = each.register.partition("/")[0]
            if department not in active or each.moment > active[department].moment:
                active[department] = each
        for last in self._lasts():
            shown_by = active.get(last.register.partition("/")[0])
            found = silence(self._terms, last, shown_by) if shown_by is not None else None
            if found is not None:
                self._store.put(found, "silence:")

    def _decisions(self) -> list[Active]:
        return [
            Active(name, index, moment, "decision")
            for name, index, moment in self._store.rows(
                "SELECT name, decided_index, decided_by FROM registers WHERE decided_by IS NOT NULL "
                "ORDER BY decided_by DESC, name"
            )
        ]

    def _returns(self) -> list[Active]:
        """Return the latest return of each register: of several that say the same, the first one filed."""
        rows = self._store.rows(
            "SELECT g.name, min(a.place), a.moment FROM active_returns a JOIN registers g ON g.id = a.register "
            "WHERE a.moment = (SELECT max(moment) FROM active_returns WHERE register = a.register) "
            "GROUP BY a.register ORDER BY a.moment DESC, g.name"
        )
        return [Active(name, place & INDEX, moment, "return") for name, place, moment in rows]

    def _lasts(self) -> list[LastSeen]:
        """Return the last decision of each register; of one without any, since when a return counts some.

        A last decision that no quorum has witnessed is not among these: it may have come just now.
        """
        return [
            LastSeen(*row)
            for row in self._store.rows(
                "SELECT name, decided_index, decided_by FROM registers WHERE decided_by IS NOT NULL "
                "UNION ALL "
                "SELECT g.name, NULL, min(a.moment) FROM registers g "
                "JOIN active_returns a ON a.register = g.id WHERE g.decided_index IS NULL "
                "GROUP BY g.id ORDER BY 1"
            )
        ]

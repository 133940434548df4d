"""The last decision of every register, beside those of the other offices of its department."""

from __future__ import annotations

from services.auditing.detections.rules import Terms
from services.auditing.detections.silence import LastSeen, silence
from services.auditing.fact_store import FactStore


def settle_silence(store: FactStore, terms: Terms) -> None:
    """Make the findings of silence anew."""
    if terms.profile.detections.silence is None:
        return
    lasts = [
        LastSeen(*row)
        for row in store.rows(
            "SELECT name, decided_index, decided_by FROM registers WHERE decided_by IS NOT NULL ORDER BY name"
        )
    ]
    active: dict[str, LastSeen] = {}
    for last in lasts:
        department = last.register.partition("/")[0]
        if department not in active or last.not_after > active[department].not_after:
            active[department] = last
    for (register,) in store.rows("SELECT id FROM registers").fetchall():
        store.drop(register, "DET-30", "silence:")
    # A last decision that no quorum has witnessed is not among these: it may have come just now.
    for last in lasts:
        found = silence(terms, last, active[last.register.partition("/")[0]])
        if found is not None:
            store.put(found, "silence:")

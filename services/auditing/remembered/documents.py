"""Which documents evidence which records."""

from __future__ import annotations

from services.auditing.detections.evidence import Use, reused
from services.auditing.detections.rules import MAX_INDICES, Case, Terms
from services.auditing.fact_store import INDEX, PLACE_BITS, FactStore


class DocumentMemory:
    """Every document by its digest, with the records that it is attached to.

    Those that something has been attached to since they were looked at are open.
    """

    def __init__(self, store: FactStore, terms: Terms) -> None:
        self._store = store
        self._terms = terms

    def take(self, case: Case, register: int, submission: int) -> None:
        """Keep the documents of a decision."""
        place = register << PLACE_BITS | case.index
        record = register << PLACE_BITS | case.first_index
        digests = {item.sha256 for item in case.record.evidence or () if item.sha256 is not None}
        keys = [bytes.fromhex(digest) for digest in sorted(digests)]
        self._store.write_all(
            "INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?)",
            ((key, record, place, register << PLACE_BITS | submission) for key in keys),
        )
        self._store.write_all("INSERT OR IGNORE INTO open_documents VALUES (?)", ((key,) for key in keys))

    def settle(self) -> None:
        """Make the findings about open documents anew: each once, however many records it was attached to."""
        for (key,) in self._store.rows("SELECT digest FROM open_documents ORDER BY digest").fetchall():
            rows = self._store.rows(
                "SELECT record, place, submission FROM evidence WHERE digest = ? ORDER BY record LIMIT ?",
                (key, MAX_INDICES + 1),
            ).fetchall()
            if len(rows) > 1:
                self._find(key.hex(), rows)
        self._store.write("DELETE FROM open_documents")

    def _find(self, digest: str, rows: list[tuple[int, int, int]]) -> None:
        uses = [
            Use(self._store.name(record >> PLACE_BITS), record & INDEX, place & INDEX, submission & INDEX)
            for record, place, submission in rows
        ]
        for found in reused(self._terms, digest, uses):
            self._store.put(found, f"document:{digest}")

"""Matters: the stages that each has been through, and the entry of it that is dated latest."""

from __future__ import annotations

from ledger.records import Decision
from ledger.values import Partial
from services.auditing.detections.lateness import Inversion
from services.auditing.detections.rules import Case, Terms
from services.auditing.detections.stages import Matter, StageRecord, judge_matter
from services.auditing.fact_store import INDEX, PLACE_BITS, FactStore
from services.auditing.remembered.latest_dated import LatestDated

_DECIDING = frozenset({"contract_approval", "contract_award"})
_MOST_STAGES = 1_000
"""Records of one matter that are looked at."""


class MatterMemory:
    """Every matter with its stages; those to which something was added are open."""

    def __init__(self, store: FactStore, terms: Terms) -> None:
        self._store = store
        self._terms = terms

    def take(self, case: Case, register: int) -> Inversion | None:
        """Keep what a decision says of its matter; return the entry of it that it is behind, if any."""
        record = case.record
        name = matter_of(record)
        if name is None:
            return None
        place = register << PLACE_BITS | case.index
        row = self._store.one("SELECT id, tops FROM matters WHERE register = ? AND name = ?", (register, name))
        if row is None:
            row = (
                self._store.write("INSERT INTO matters VALUES (NULL, ?, ?, NULL, 0)", (register, name)),
                None,
            )
        matter, text = row
        tops, before = LatestDated(text), case.bounds.not_before
        ahead = None if before is None else tops.known_by(before)
        inversion = None
        if before is not None and ahead is not None and ahead.dated > case.decided.latest:
            inversion = Inversion("matter", ahead.place & INDEX, ahead.dated, ahead.not_after, 1)
        if tops.add(case.decided.earliest, place, case.own_bounds):
            self._store.write("UPDATE matters SET tops = ? WHERE id = ?", (tops.text, matter))
        if record.stage is not None or record.decision_type in _DECIDING:
            self._stage(case, register, matter)
        return inversion

    def _stage(self, case: Case, register: int, matter: int) -> None:
        record, stage = case.record, case.record.stage
        values = (
            matter,
            register << PLACE_BITS | case.first_index,
            register << PLACE_BITS | case.index,
            stage.scheme if stage else None,
            stage.scheme_version if stage else None,
            stage.code if stage else None,
            stage.outcome if stage else None,
            int(record.delegated_authority is not None),
            case.decided.earliest,
            case.decided.latest,
            int(record.decision_type in _DECIDING),
        )
        self._store.write("INSERT OR REPLACE INTO stages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        self._store.write("UPDATE matters SET is_open = 1 WHERE id = ?", (matter,))

    def settle(self) -> None:
        """Judge the open matters anew."""
        while True:
            rows = self._store.rows(
                "SELECT id, register, name FROM matters WHERE is_open ORDER BY id LIMIT 500"
            ).fetchall()
            if not rows:
                return
            for matter, register, name in rows:
                self._settle(matter, register, name)
                self._store.write("UPDATE matters SET is_open = 0 WHERE id = ?", (matter,))

    def _settle(self, id_: int, register: int, name: str) -> None:
        records = tuple(
            StageRecord(
                place & INDEX,
                scheme,
                version,
                code,
                outcome,
                bool(authority),
                Partial(earliest, latest),
                bool(decides),
            )
            for place, scheme, version, code, outcome, authority, earliest, latest, decides in self._store.rows(
                "SELECT place, scheme, scheme_version, code, outcome, has_authority, earliest, latest, decides "
                "FROM stages WHERE matter = ? ORDER BY record LIMIT ?",
                (id_, _MOST_STAGES),
            )
        )
        for rule in ("DET-10", "DET-11"):
            self._store.drop(register, rule, f"matter:{id_}:")
        matter = Matter(self._store.name(register), name, records)
        for number, found in enumerate(judge_matter(self._terms, matter)):
            self._store.put(found, f"matter:{id_}:{number:04}")


def matter_of(record: Decision) -> str | None:
    """Return what joins the stages of one matter: its id, or else the contract."""
    if record.matter_id is not None:
        return record.matter_id
    if record.stage is None or record.procurement is None:
        return None
    return record.procurement.ocid or record.procurement.contract_reference

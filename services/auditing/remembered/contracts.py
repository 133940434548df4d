"""Contracts: what a later version changes of one, and pairs of them that look like one."""

from __future__ import annotations

from typing import Any

from services.auditing.detections.procurement import (
    Contract,
    changed_contract,
    contract_of,
    duplicate_contract,
)
from services.auditing.detections.rules import Case, Terms
from services.auditing.fact_store import INDEX, PLACE_BITS, FactStore
from services.auditing.found import Found

_MOST_PAIRS = 20
"""Contracts that one is compared with at most: hundreds of one value on one day are no pair."""


class ContractMemory:
    """The latest statement of every contract."""

    def __init__(self, store: FactStore, terms: Terms) -> None:
        self._store = store
        self._terms = terms

    def take(self, case: Case, register: int) -> Found | None:
        """Keep what a decision says of a contract; return the finding where it changes what was published."""
        contract = contract_of(case)
        if contract is None:
            return None
        place = register << PLACE_BITS | case.first_index
        row = self._store.one("SELECT * FROM contracts WHERE record = ?", (place,))
        changed = None
        if row is not None:
            changed = changed_contract(self._terms, self._contract(row), contract)
        department = contract.register.partition("/")[0]
        values = (
            place,
            register << PLACE_BITS | case.index,
            department,
            contract.ocid,
            contract.supplier,
            contract.currency,
            contract.minor_units,
            contract.earliest,
            contract.latest,
            int(contract.is_published or (row is not None and bool(row[-1]))),
        )
        self._store.write("INSERT OR REPLACE INTO contracts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        self._pairs(place, contract, department)
        return changed

    def _pairs(self, place: int, contract: Contract, department: str) -> None:
        rule = self._terms.profile.detections.duplicate_contract
        if rule is None or contract.supplier is None or contract.minor_units is None:
            return
        # A little wider than the tolerance; the rule decides.
        margin = contract.minor_units * rule.value_per_mille // 900 + 1
        rows = self._store.rows(
            "SELECT * FROM contracts WHERE supplier = ? AND department = ? AND currency = ? "
            "AND minor_units BETWEEN ? AND ? AND record <> ? AND latest >= ? AND earliest <= ? LIMIT ?",
            (
                contract.supplier,
                department,
                contract.currency,
                contract.minor_units - margin,
                contract.minor_units + margin,
                place,
                contract.earliest - (rule.days + 1) * 86_400,
                contract.latest + (rule.days + 1) * 86_400,
                _MOST_PAIRS,
            ),
        ).fetchall()
        for row in rows:
            other = self._contract(row)
            found = duplicate_contract(self._terms, contract, other)
            if found is not None:
                first, second = sorted(f"{each.register}:{each.index}" for each in (contract, other))
                self._store.put(found, f"pair:{first}:{second}")

    def _contract(self, row: Any) -> Contract:
        record, version, _, ocid, supplier, currency, minor_units, earliest, latest, is_published = row
        name = self._store.name(record >> PLACE_BITS)
        return Contract(
            name,
            record & INDEX,
            version & INDEX,
            ocid,
            supplier,
            currency,
            minor_units,
            earliest,
            latest,
            bool(is_published),
        )

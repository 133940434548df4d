"""Contracts: what a later version changes of one, and pairs of them that look like one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from services.auditing.detections.procurement import (
    MOST_ALIKE,
    Contract,
    are_alike,
    changed_contract,
    contract_of,
    duplicate_contract,
    many_alike,
)
from services.auditing.detections.rules import DAY, Case, Terms
from services.auditing.fact_store import INDEX, PLACE_BITS, FactStore
from services.auditing.found import Found

_NEAR: Final = (
    "supplier = :supplier AND department = :department AND currency = :currency "
    "AND minor_units BETWEEN :least AND :most AND latest >= :begin AND earliest <= :end"
)
_NO_END: Final = 1 << 62
_OPEN: Final = (
    "SELECT DISTINCT department, supplier, currency, minor_units, earliest, latest FROM contracts WHERE is_open"
)


class ContractMemory:
    """The latest statement of every contract; open are those that something has come near to, or left."""

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
        values = (
            place,
            register << PLACE_BITS | case.index,
            contract.register.partition("/")[0],
            contract.ocid,
            contract.supplier,
            contract.currency,
            contract.minor_units,
            contract.earliest,
            contract.latest,
            int(contract.is_published or (row is not None and bool(row[-2]))),
        )
        if row is not None and values[2:9] != row[2:9]:
            self._open_near(row[2], *row[4:9])
        self._store.write("INSERT OR REPLACE INTO contracts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)", values)
        return changed

    def settle(self) -> None:
        """Compare every open contract with those that are there now, under the latest version of each."""
        for row in self._store.rows(_OPEN).fetchall():
            self._open_near(*row)
        while True:
            rows = self._store.rows(
                "SELECT * FROM contracts WHERE is_open ORDER BY record LIMIT 500"
            ).fetchall()
            if not rows:
                return
            for row in rows:
                self._compare(row)
                self._store.write("UPDATE contracts SET is_open = 0 WHERE record = ?", (row[0],))

    def _open_near(
        self,
        department: str,
        supplier: str | None,
        currency: str | None,
        minor_units: int | None,
        earliest: int,
        latest: int,
    ) -> None:
        """Open every contract that may be like one that states this."""
        near = self._near(department, supplier, currency, minor_units, earliest, latest)
        if near is not None:
            self._store.write_named(f"UPDATE contracts SET is_open = 1 WHERE {_NEAR}", near)  # noqa: S608

    def _near(
        self,
        department: str,
        supplier: str | None,
        currency: str | None,
        minor_units: int | None,
        earliest: int,
        latest: int,
    ) -> dict[str, object] | None:
        rule = self._terms.profile.detections.duplicate_contract
        if rule is None or supplier is None or minor_units is None:
            return None
        # A little wider than the tolerance, which is of the larger value; the rule decides.
        rest = 1_000 - rule.value_per_mille
        return {
            "supplier": supplier,
            "department": department,
            "currency": currency,
            "least": minor_units * rest // 1_000 - 1,
            "most": min(_NO_END, minor_units * 1_000 // rest + 1 if rest else _NO_END),
            "begin": earliest - (rule.days + 1) * DAY,
            "end": latest + (rule.days + 1) * DAY,
        }

    def _compare(self, row: Any) -> None:
        """Make the findings of one contract anew: its pairs with those before it in name and index."""
        register, contract = row[0] >> PLACE_BITS, self._contract(row)
        self._store.drop(register, "DET-16", f"pair:{contract.index}:")
        alike = list(islice(self._alike(row, contract), MOST_ALIKE + 1))
        if len(alike) > MOST_ALIKE:
            self._store.put(many_alike(self._terms, contract), f"pair:{contract.index}:many")
            return
        for other in alike:
            if (other.register, other.index) < (contract.register, contract.index):
                found = duplicate_contract(self._terms, contract, other)
                if found is not None:
                    self._store.put(found, f"pair:{contract.index}:{other.index}:{other.register}")

    def _alike(self, row: Any, contract: Contract) -> Iterator[Contract]:
        near = self._near(row[2], *row[4:9])
        if near is None or contract.ocid is None:
            return
        rows = self._store.rows(
            f"SELECT * FROM contracts WHERE {_NEAR} AND ocid <> :ocid",  # noqa: S608
            near | {"ocid": contract.ocid},
        )
        yield from (other for other in map(self._contract, rows) if are_alike(self._terms, contract, other))

    def _contract(self, row: Any) -> Contract:
        record, version, _, ocid, supplier, currency, minor_units, earliest, latest, is_published, _ = row
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

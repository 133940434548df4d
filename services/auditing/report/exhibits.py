"""The exhibits: each entry that a finding names, once, with its hash and the findings that name it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.records import Decision, ReturnFiled
from services.auditing.facts import Fact
from services.auditing.report.finding_choice import SPANS, Numbered
from services.auditing.report.markup import Markup, cut, join, tag, timed
from services.auditing.report.tables import table
from services.auditing.report.words import many
from services.auditing.windows import shown_bounds

MAX_EXHIBITS: Final = 1_000
"""Entries that a report lists."""

_TEXT: Final = 200
_NAMED_BY: Final = 6

Place = tuple[str, int]
"""An entry: its register and its index."""


@dataclass(frozen=True, slots=True)
class Exhibit:
    """An entry that a finding names. `name` is what this report calls it: E1, E2 and so on.

    `sha256` is its leaf hash in hex, `says` what it says it is, `window` when it came in by the witnesses.
    """

    name: str
    sha256: str
    says: str
    window: str


def exhibit(number: int, fact: Fact, sha256: str) -> Exhibit:
    """Return the exhibit of an entry, given its leaf hash in hex."""
    record, says = fact.record, fact.type or "not understood"
    if isinstance(record, Decision):
        says = f"{says}, {record.reference.series} {record.reference.number}, version {record.version}"
    elif isinstance(record, ReturnFiled):
        says = f"{says}, {record.series}, version {record.version}"
    return Exhibit(f"E{number}", sha256, says, shown_bounds(fact.bounds))


def named(numbered: Sequence[Numbered]) -> dict[Place, list[str]]:
    """Return the entries that findings name, in order, each with the findings: the ends of spans, as told."""
    places: dict[Place, list[str]] = {}
    for each in numbered:
        for index in _ends(each):
            by = places.setdefault((each.finding.register, index), [])
            if each.name not in by:
                by.append(each.name)
    return places


def _ends(numbered: Numbered) -> Iterator[int]:
    for span in numbered.finding.spans[:SPANS]:
        yield from span


def exhibit_table(exhibits: Mapping[Place, Exhibit], numbered: Sequence[Numbered]) -> Markup | str:
    """Return the table of the exhibits; nothing where there are none."""
    if not exhibits:
        return ""
    places = named(numbered)
    rows = [
        (
            tag("span", each.name, id=each.name),
            f"{cut(register, _TEXT)}, entry {index:,}",
            cut(each.says, _TEXT),
            timed(each.window),
            _findings(places.get((register, index), ())),
            tag("code", each.sha256),
        )
        for (register, index), each in exhibits.items()
    ]
    columns = (
        "Exhibit",
        "Entry",
        "What it says it is",
        "When witnesses had it",
        "Named by",
        "Leaf hash (SHA-256)",
    )
    left = len(places) - len(rows)
    made = table("Entries that findings name", columns, rows)
    if left <= 0:
        return made
    return join([made, tag("p", f"Also named, and not listed here: {many(left, 'entry', 'entries')}.")])


def _findings(names: Iterable[str]) -> Markup:
    listed = list(names)
    links = join((tag("a", each, href=f"#{each}") for each in listed[:_NAMED_BY]), ", ")
    left = len(listed) - _NAMED_BY
    return join([links, f" and {left:,} more"]) if left > 0 else links


def linked(exhibits: Mapping[Place, Exhibit], register: str, index: int) -> Markup | str:
    """Return an index as it stands in the heading of a finding: with a link where the entry is an exhibit."""
    found = exhibits.get((register, index))
    return f"{index:,}" if found is None else tag("a", f"{index:,}", href=f"#{found.name}")

"""The registers of a ledger, as its published governing entries open and close them (formats.md, section 17).

The operator's word: whoever does not trust it folds the governing register's entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ledger.governing import GOVERNING, Fold
from ledger.ledger import LedgerView
from ledger.notes import VerifierKey
from services.counting import Summary
from services.published import Published


@dataclass(frozen=True, slots=True)
class Listed:
    """One register. `size` is that of its latest signed checkpoint, `sealed_size` of its latest sealed one,
    None where no witness is asked. `counted` is what a projector has counted of it, None where none does.

    `opened` and `closed` are indices of governing entries. The governing register itself has neither, and no
    title.
    """

    name: str
    title: str
    origin: str
    vkey: str
    size: int
    sealed_size: int | None
    opened: int | None
    closed: int | None
    counted: Summary | None = None


@dataclass(frozen=True, slots=True)
class Directory:
    """All registers, in byte order of their names, after the first `governing_size` governing entries."""

    governing_size: int
    registers: tuple[Listed, ...]


def directory(ledger: LedgerView, published: Published, counted: Mapping[str, Summary]) -> Directory:
    """Return the registers that the published part of the governing register opens; at first none.

    `counted` are summaries by name, as far as there are any.
    """
    latest = published.registers()
    fold = ledger.fold
    if GOVERNING not in latest or fold.opened is None:
        return Directory(0, ())
    governing_size = latest[GOVERNING].size
    key = VerifierKey.parse(fold.opened.ledger_key)
    opened = _opened(fold, governing_size)
    listed = []
    for name in sorted(opened):
        title, opened_at, closed_at = opened[name]
        origin = ledger.register_origin(name)
        size = latest[name].size if name in latest else 0
        sealed_size = _sealed_size(published, name) if name in latest else None
        vkey = str(key.renamed(origin))
        summary = counted.get(name)
        listed.append(Listed(name, title, origin, vkey, size, sealed_size, opened_at, closed_at, summary))
    return Directory(governing_size, tuple(listed))


def _sealed_size(published: Published, name: str) -> int | None:
    if published.policy is None:
        return None
    sealed = published.sealed(name)
    return sealed.size if sealed else 0


def _opened(fold: Fold, governing_size: int) -> dict[str, tuple[str, int | None, int | None]]:
    """Return title, opening and closing by name. The fold may be ahead of what is published."""
    found: dict[str, tuple[str, int | None, int | None]] = {GOVERNING: ("", None, None)}
    for name, state in fold.registers.items():
        if state.opened < governing_size:
            closed = state.closed if state.closed is not None and state.closed < governing_size else None
            found[name] = (state.title, state.opened, closed)
    return found

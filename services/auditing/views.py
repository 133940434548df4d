"""What entries were judged against: governing entries that everybody could see, or some that were kept back.

An entry's `governing_size` above the size of the first governing checkpoint sealed later than the entry's
not-after is a finding (formats.md, section 7).
"""

from __future__ import annotations

from collections.abc import Iterator

from ledger.timeline import Bounds
from services.auditing.audit_state import AuditState
from services.auditing.bounds_used import VIEW_NOT_SEALED, VIEWS
from services.auditing.windows import shown_time


def judge_views(state: AuditState, register: str) -> None:
    """Judge the entries of a register that can be, and note those that are odd.

    What no governing checkpoint has been sealed after yet waits for the next visit. Raises StoreError.
    """
    notebook, name = state.notebook, f"{VIEWS}{register}"
    judged = notebook.position(name)
    found: list[tuple[str, str, int, int, str]] = []
    for begin, end, governing_size, bounds in _runs(state, register, judged):
        sealed = _sealed_after(state, bounds)
        if sealed is None:
            break
        judged = end
        if governing_size > sealed[0]:
            text = (
                f"judged against {governing_size} governing entries, when {sealed[0]} were sealed as late as "
                f"{shown_time(sealed[1])}"
            )
            found.append((VIEW_NOT_SEALED, register, begin, end - 1, text))
    with notebook.together():
        notebook.write_all("INSERT OR REPLACE INTO odd VALUES (?, ?, ?, ?, NULL, ?)", found)
        notebook.set_position(name, judged)


def _runs(state: AuditState, register: str, begin: int) -> Iterator[tuple[int, int, int, Bounds]]:
    """Yield the signed entries from `begin` on in runs: from, to, governing size, bounds."""
    rows = state.notebook.rows(
        "SELECT first, last, governing_size FROM signed WHERE register = ? AND last >= ? ORDER BY first",
        (register, begin),
    )
    for first, last, governing_size in rows:
        for at, to, bounds in state.times.stretches(register, max(first, begin), last + 1):
            yield at, to, governing_size, bounds


def _sealed_after(state: AuditState, bounds: Bounds) -> tuple[int, int] | None:
    """Return size and time of the first governing checkpoint sealed later than an entry was known."""
    if bounds.not_after is None or not bounds.comparable:
        return None
    row: tuple[int, int] | None = state.notebook.one(
        "SELECT size, time FROM sealed WHERE time > ? ORDER BY time, size DESC LIMIT 1", (bounds.not_after,)
    )
    return row

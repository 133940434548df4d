"""The auditor's state: what a monitor keeps of the ledger, and his own notebook beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger.entries import EntryReader
from ledger.timeline import Bounds
from ledger.witnessing import Policy
from services.auditing.bounds_used import begin_under, bounds_named
from services.auditing.facts import Fact, fact_of_parsed
from services.auditing.notebook import FILE, Notebook
from services.auditing.witnessed_times import WitnessedTimes, keys_of
from services.monitoring.state import State

DETECTIONS: Final = "detections.sqlite3"
"""The file in which the detections remember, in the state's directory."""

STRETCH: Final = 1_024
"""Entries that are taken up at once: what is lost where it is killed, and what is held in memory."""


@dataclass(frozen=True, slots=True)
class AuditState:
    """An auditor's state, open for writing in this process.

    `monitored` is the mirror of the ledger and what was seen of it; `times` are the witnesses', from the
    notebook.
    """

    monitored: State
    notebook: Notebook
    times: WitnessedTimes

    @property
    def origin(self) -> str:
        """The origin of the ledger."""
        return self.monitored.mirror.origin

    @property
    def detections(self) -> Path:
        """The file in which the detections remember."""
        return self.monitored.directory.root / DETECTIONS

    @property
    def bounds_named(self) -> str:
        """What differs where the bounds of entries that may have been looked at do."""
        return bounds_named(self.notebook)

    def entries(self, register: str, begin: int, end: int) -> list[bytes]:
        """Return the entries [begin, end) of the mirror. Raises StoreError where they are not all there."""
        return list(self.monitored.mirror.reader(register).entries(begin, end))

    def bounds(self, register: str, index: int) -> Bounds:
        """Return when an entry came in, by the witnesses."""
        return self.times.bounds(register, index)


@contextmanager
def open_audit_state(monitored: State, policy: Policy) -> Iterator[AuditState]:
    """Open the notebook beside a monitor's state. Raises StoreError.

    What rests on the times of another policy's witnesses is forgotten.
    """
    notebook = Notebook(monitored.directory.root / FILE)
    try:
        begin_under(notebook, policy)
        yield AuditState(monitored, notebook, WitnessedTimes(notebook, policy.quorum, keys_of(policy)))
    finally:
        notebook.close()


def audited_facts(state: AuditState, register: str, begin: int = 0, end: int | None = None) -> Iterator[Fact]:
    """Yield the facts of a register's entries [begin, end), as many in memory as a stretch has.

    `end` is the size of the mirror by default. Raises StoreError.
    """
    size = state.monitored.size(register) if end is None else end
    reader = EntryReader()
    for start in range(begin, size, STRETCH):
        entries = state.entries(register, start, min(start + STRETCH, size))
        for index, entry in enumerate(entries, start):
            yield fact_of_parsed(register, index, reader.parse(entry), state.bounds(register, index))

"""The lookout: runs the detections over a ledger's registers as they grow, for whoever keeps that ledger.

What it finds is its keeper's own word. It reads entries that were registered here, verifies nothing, and proves
nothing: an auditor runs the same detections over what he has verified himself.

An entry is looked at once its bounds can be told: the caller says up to which size. What was seen is remembered
in one file, which can be deleted at any time and is then made again from the ledger.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import structlog

from ledger.errors import Reason, RejectedError
from ledger.governing import Published
from ledger.ledger import LedgerView
from ledger.witnessing import Policy
from services.auditing.detecting import Detector
from services.auditing.fact_store import BEGINNING, Place
from services.auditing.facts import Fact, fact_of
from services.auditing.found import Found
from services.auditing.profiles import CALENDAR, PROFILE, identity, in_force
from services.auditing.stored_bounds import stored_bounds
from services.auditing.terms_in_force import ledger_terms

BATCH: Final = 64
"""Entries that are taken in one go: some ten milliseconds, in which other threads wait for the processor."""

PAGE: Final = 500
"""Findings that are read in one go, where all of a register are."""

OVERDUE_SECONDS: Final = 60
"""Seconds after which it is looked again for what has become overdue, where nothing was added."""

_PRIVATE: Final = 0o600
_BESIDE: Final = ("", "-wal", "-shm")
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class FoundPage:
    """Findings of a register as it stood with its first `size` entries. `after`: where the next page begins."""

    size: int
    found: tuple[Found, ...]
    after: Place | None


class Lookout(AbstractContextManager["Lookout"]):
    """Looks at one ledger, remembering in the file at `path`. Of one thread, but for `sizes` and `profile`.

    `clock` gives POSIX seconds. It opens the file when it is first used, and again after `close`. Raises
    StoreError where that or the ledger's store fails.
    """

    def __init__(self, ledger: LedgerView, path: Path, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._path = path
        self._clock = clock
        self._detector: Detector | None = None
        self._in_force: tuple[Published, ...] = ()
        self._named: tuple[str, str] = ("", "")
        self._sizes: dict[str, int] = {}
        self.profile = ""
        """In whose terms it looks; empty before the first look. From any thread."""
        self._settled_at: float | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        detector, self._detector = self._detector, None
        if detector is not None:
            detector.close()
        self._sizes = {}

    @property
    def sizes(self) -> dict[str, int]:
        """How many entries of each register have been looked at, as far as it was asked. From any thread."""
        return dict(self._sizes)

    def refresh(self) -> None:
        """Look in the terms that are in force now: all over again where they are others than before."""
        now = self._clock()
        published = self._ledger.fold.published
        named = (*in_force(published, PROFILE, now), *in_force(published, CALENDAR, now))
        if self._detector is not None and named == self._in_force:
            return
        terms = ledger_terms(self._ledger, None, now)
        for remark in terms.remarks:
            _log.warning("terms of the detections", remark=remark)
        names = identity(terms.profile), terms.calendar.version
        if self._detector is None or names != self._named:
            self.close()
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE))
            self._detector = Detector(self._path, terms.profile, terms.calendar)
            self._settled_at = None
        self._in_force, self._named, self.profile = named, names, terms.profile_named

    def size(self, register: str) -> int:
        """Return how many entries of a register have been looked at."""
        if register not in self._sizes:
            self._sizes[register] = self._opened().next_index(register)
        return self._sizes[register]

    def is_behind(self, register: str, size: int, head: int) -> bool:
        """Tell whether entries of a register below `size` were not looked at. `head` is how many there are.

        A file that has seen more than there is comes from another copy of the ledger: all is looked at anew.
        """
        seen = self.size(register)
        if seen > head:
            _log.warning("detections begin anew", register=register, seen=seen, held=head)
            self.close()
            forget(self._path)
            return self.is_behind(register, size, head)
        return seen < size

    def take(self, register: str, size: int, policy: Policy | None) -> int:
        """Look at the next entries of a register below `size`, at most `BATCH`; return how many there were.

        Their bounds are those that the store's cosignatures prove under the witness policy.
        """
        begin = self.size(register)
        end = min(size, begin + BATCH)
        if end <= begin:
            return 0
        detector = self._opened()
        detector.observe(self._facts(register, begin, end, policy))
        self._sizes[register] = end
        self._settled_at = None
        return end - begin

    def page(self, register: str, after: Place | None, most: int) -> FoundPage:
        """Return at most `most` findings of a register, behind a place or from the beginning.

        They are settled first, where that is due. Raises RejectedError BACKEND_DOWN while the file is not open.
        """
        if self._detector is None:
            raise RejectedError(Reason.BACKEND_DOWN, "the detections do not run now; ask again")
        self.settle()
        page = self._detector.page(register, after or BEGINNING, most + 1)
        shown = page[:most]
        last = shown[-1][0] if shown else None
        more = last is not None and (len(page) > most or bool(self._detector.page(register, last, 1)))
        return FoundPage(self.size(register), tuple(found for _, found in shown), last if more else None)

    def settle(self) -> bool:
        """Look for what may have become overdue, or what new entries settle; tell whether that was due.

        It is not where that was just done.
        """
        now = self._clock()
        if self._settled_at is not None and 0 <= now - self._settled_at < OVERDUE_SECONDS:
            return False
        self._opened().settle(int(now))
        self._settled_at = now
        return True

    def found(self, register: str) -> Iterator[list[tuple[Place, Found]]]:
        """Yield every finding of a register with its place, in order and a few at a time, as last settled."""
        after: Place = BEGINNING
        while page := self._opened().page(register, after, PAGE):
            yield page
            after = page[-1][0]

    def _opened(self) -> Detector:
        if self._detector is None:
            self.refresh()
        assert self._detector is not None  # noqa: S101 - refresh opens it
        return self._detector

    def _facts(self, register: str, begin: int, end: int, policy: Policy | None) -> Iterator[Fact]:
        bounds = stored_bounds(self._ledger.store, policy, register, begin, end)
        entries = self._ledger.reader(register).entries(begin, end)
        for index, (entry, bound) in enumerate(zip(entries, bounds, strict=True), begin):
            yield fact_of(register, index, entry, bound)


def forget(path: Path) -> None:
    """Delete the file in which a lookout remembers, where there is one: nobody may have it open."""
    for suffix in _BESIDE:
        Path(f"{path}{suffix}").unlink(missing_ok=True)

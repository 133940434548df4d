"""A store that fails once, at a chosen call: before the call did anything, or after it did all of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ledger.errors import StorageFullError, StoreError
from ledger.store import (
    Batch,
    Cosigned,
    Head,
    LookedUp,
    NewCosignatures,
    RecordAt,
    Run,
    Store,
    StoredNote,
    StoredTile,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lost:
    """Call number `call`, from 1, fails and does nothing."""

    call: int


@dataclass(frozen=True, slots=True)
class AppliedUnreported:
    """Call number `call`, from 1, does what it should and fails all the same."""

    call: int


@dataclass(frozen=True, slots=True)
class Full:
    """Commit number `call`, from 1, finds no room."""

    call: int


Fault = Lost | AppliedUnreported | Full


class FaultyStore:
    """Passes every call on to `inner` but for the one that `fault` names; `fired` tells that it was reached."""

    def __init__(self, inner: Store, fault: Fault) -> None:
        self.inner = inner
        self.fired = False
        self._fault = fault
        self._calls = 0
        self._lock = threading.Lock()

    def _is_now(self) -> bool:
        with self._lock:
            self._calls += 1
            if self._calls == self._fault.call:
                self.fired = True
                return True
            return False

    def _call(self, call: Callable[[], T]) -> T:
        if isinstance(self._fault, Full) or not self._is_now():
            return call()
        if isinstance(self._fault, AppliedUnreported):
            call()
        raise StoreError(f"as asked, at call {self._fault.call}")

    def heads(self) -> Mapping[str, Head]:
        return self._call(self.inner.heads)

    def entries(self, register: str, begin: int, end: int) -> list[bytes]:
        return self._call(lambda: self.inner.entries(register, begin, end))

    def tiles(self, register: str, wanted: Sequence[tuple[int, int]]) -> list[bytes]:
        return self._call(lambda: self.inner.tiles(register, wanted))

    def submissions(self, register: str, ids: Sequence[bytes]) -> dict[bytes, Run]:
        return self._call(lambda: self.inner.submissions(register, ids))

    def entries_at(self, register: str, indices: Sequence[int]) -> dict[int, bytes]:
        return self._call(lambda: self.inner.entries_at(register, indices))

    def latest_versions(self, register: str, record_ids: Sequence[bytes]) -> list[RecordAt]:
        return self._call(lambda: self.inner.latest_versions(register, record_ids))

    def look_up(self, register: str, submission_ids: Sequence[bytes], record_ids: Sequence[bytes]) -> LookedUp:
        return self._call(lambda: self.inner.look_up(register, submission_ids, record_ids))

    def versions(self, register: str, wanted: Sequence[tuple[bytes, int]]) -> list[RecordAt]:
        return self._call(lambda: self.inner.versions(register, wanted))

    def note(self, register: str, at_most: int) -> StoredNote | None:
        return self._call(lambda: self.inner.note(register, at_most))

    def notes(self, register: str, begin: int, end: int) -> Iterator[StoredNote]:
        return self._call(lambda: self.inner.notes(register, begin, end))

    def all_tiles(self, register: str) -> Iterator[StoredTile]:
        return self._call(lambda: self.inner.all_tiles(register))

    def all_submissions(self, register: str) -> Iterator[tuple[bytes, Run]]:
        return self._call(lambda: self.inner.all_submissions(register))

    def row_counts(self, register: str) -> tuple[int, int]:
        return self._call(lambda: self.inner.row_counts(register))

    def all_records(self, register: str) -> Iterator[RecordAt]:
        return self._call(lambda: self.inner.all_records(register))

    def damage(self) -> list[str]:
        return self._call(self.inner.damage)

    def cosigned(self, register: str, begin: int, end: int) -> Iterator[Cosigned]:
        return self._call(lambda: self.inner.cosigned(register, begin, end))

    def cosigned_back(self, register: str, at_most: int) -> Iterator[Cosigned]:
        return self._call(lambda: self.inner.cosigned_back(register, at_most))

    def next_cosigned(self, register: str, by: tuple[str, int], at_least: int) -> Cosigned | None:
        return self._call(lambda: self.inner.next_cosigned(register, by, at_least))

    def last_cosigned(self, register: str, by: tuple[str, int], at_most: int) -> Cosigned | None:
        return self._call(lambda: self.inner.last_cosigned(register, by, at_most))

    def keep_cosignatures(self, cosigned: Sequence[NewCosignatures]) -> None:
        self._call(lambda: self.inner.keep_cosignatures(cosigned))

    def commit(self, batches: Sequence[Batch]) -> None:
        if isinstance(self._fault, Full) and self._is_now():
            raise StorageFullError(f"as asked, at commit {self._fault.call}")
        self._call(lambda: self.inner.commit(batches))

    def close(self) -> None:
        self._call(self.inner.close)

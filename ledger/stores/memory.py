"""A store in memory: for tests and trials, and suspicious on purpose.

It refuses whatever a careless caller could get past a database: gaps, shrinking tiles, changed bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ledger.errors import ConflictError, StoreError, TakenError
from ledger.notes import SignatureLine
from ledger.store import Batch, Cosigned, Head, LookedUp, NewCosignatures, RecordAt, Run, StoredNote, StoredTile

_BEYOND: Final = 1 << 40
"""A size that no register reaches."""


@dataclass(slots=True)
class _Held:
    head: Head
    entries: list[bytes] = field(default_factory=list[bytes])
    tiles: dict[tuple[int, int], bytes] = field(default_factory=dict[tuple[int, int], bytes])
    submissions: dict[bytes, Run] = field(default_factory=dict[bytes, Run])
    records: dict[bytes, dict[int, int]] = field(default_factory=dict[bytes, dict[int, int]])
    notes: dict[int, bytes] = field(default_factory=dict[int, bytes])
    cosigned: dict[tuple[int, str, int], Cosigned] = field(default_factory=dict[tuple[int, str, int], Cosigned])


class MemoryStore:
    """Everything in dictionaries; nothing outlives the process."""

    def __init__(self) -> None:
        self._registers: dict[str, _Held] = {}
        self._lock = threading.Lock()

    def _held(self, register: str) -> _Held:
        held = self._registers.get(register)
        if held is None:
            raise StoreError(f"the store has no register {register!r}")
        return held

    def heads(self) -> Mapping[str, Head]:
        """Return every register's head, by name."""
        with self._lock:
            return {name: held.head for name, held in self._registers.items()}

    def entries(self, register: str, begin: int, end: int) -> list[bytes]:
        """Return the entries [begin, end), fewer where the register ends earlier."""
        with self._lock:
            return self._held(register).entries[begin:end]

    def entries_at(self, register: str, indices: Sequence[int]) -> dict[int, bytes]:
        """Return the entries at these indices, without those that are not there."""
        with self._lock:
            entries = self._held(register).entries
            return {index: entries[index] for index in indices if 0 <= index < len(entries)}

    def tiles(self, register: str, wanted: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return tiles by (level, index), in the order asked for; empty bytes for one that is not there."""
        with self._lock:
            tiles = self._held(register).tiles
            return [tiles.get(coordinates, b"") for coordinates in wanted]

    def submissions(self, register: str, ids: Sequence[bytes]) -> dict[bytes, Run]:
        """Return where those of the submissions stand that the register holds."""
        with self._lock:
            held = self._held(register).submissions
            return {key: held[key] for key in ids if key in held}

    def latest_versions(self, register: str, record_ids: Sequence[bytes]) -> list[RecordAt]:
        """Return the latest version of each of these records that the register holds, in any order."""
        with self._lock:
            held = self._held(register).records
            found = [(key, held[key], max(held[key])) for key in dict.fromkeys(record_ids) if key in held]
            return [RecordAt(key, last, versions[last]) for key, versions, last in found]

    def look_up(self, register: str, submission_ids: Sequence[bytes], record_ids: Sequence[bytes]) -> LookedUp:
        """Return what is known of these submissions and records; it keeps no rejections."""
        latest = self.latest_versions(register, record_ids)
        return LookedUp(latest, {}, self.submissions(register, submission_ids))

    def versions(self, register: str, wanted: Sequence[tuple[bytes, int]]) -> list[RecordAt]:
        """Return those of the versions, by (record_id, version), that the register holds, in any order."""
        with self._lock:
            held = self._held(register).records
            return [
                RecordAt(key, version, held[key][version])
                for key, version in dict.fromkeys(wanted)
                if version in held.get(key, {})
            ]

    def note(self, register: str, at_most: int) -> StoredNote | None:
        """Return the checkpoint note of the largest size that is `at_most`, if there is one."""
        with self._lock:
            held = self._held(register).notes
            size = max((size for size in held if size <= at_most), default=None)
            return None if size is None else StoredNote(size, held[size])

    def notes(self, register: str, begin: int, end: int) -> Iterator[StoredNote]:
        """Yield the notes of sizes begin to end - 1, by size."""
        with self._lock:
            held = self._held(register).notes
            found = [StoredNote(size, held[size]) for size in sorted(held) if begin <= size < end]
        yield from found

    def all_tiles(self, register: str) -> Iterator[StoredTile]:
        """Yield every tile of a register, by level and index."""
        with self._lock:
            held = sorted(self._held(register).tiles.items())
        yield from (StoredTile(level, index, data) for (level, index), data in held)

    def all_submissions(self, register: str) -> Iterator[tuple[bytes, Run]]:
        """Yield every submission row of a register."""
        with self._lock:
            held = list(self._held(register).submissions.items())
        yield from held

    def all_records(self, register: str) -> Iterator[RecordAt]:
        """Yield every record row of a register."""
        with self._lock:
            held = self._held(register).records
            found = [RecordAt(key, *one) for key, versions in held.items() for one in versions.items()]
        yield from found

    def row_counts(self, register: str) -> tuple[int, int]:
        """Return how many submission rows and how many record rows a register has."""
        with self._lock:
            held = self._registers[register]
            return len(held.submissions), sum(map(len, held.records.values()))

    def damage(self) -> list[str]:
        """Return nothing: dictionaries do not rot."""
        return []

    def cosigned(self, register: str, begin: int, end: int) -> Iterator[Cosigned]:
        """Yield who has cosigned the sizes begin to end - 1, by size, then by witness."""
        with self._lock:
            held = self._held(register).cosigned
            found = [held[key] for key in sorted(held) if begin <= key[0] < end]
        yield from found

    def cosigned_back(self, register: str, at_most: int) -> Iterator[Cosigned]:
        """Yield who has cosigned the sizes `at_most` to 0, the largest size first."""
        yield from reversed(list(self.cosigned(register, 0, at_most + 1)))

    def next_cosigned(self, register: str, by: tuple[str, int], at_least: int) -> Cosigned | None:
        """Return what a witness has cosigned of the smallest size that is `at_least`."""
        return next((one for one in self.cosigned(register, at_least, _BEYOND) if one.first.by == by), None)

    def last_cosigned(self, register: str, by: tuple[str, int], at_most: int) -> Cosigned | None:
        """Return what a witness has cosigned of the largest size that is `at_most`."""
        return next((one for one in self.cosigned_back(register, at_most) if one.first.by == by), None)

    def keep_cosignatures(self, cosigned: Sequence[NewCosignatures]) -> None:
        """Keep cosignatures, and the note that they are of where its size has none yet."""
        with self._lock:
            for new in cosigned:
                if new.note.size > self._held(new.register).head.size:
                    raise StoreError(f"{new.register}: cosignatures of size {new.note.size}, beyond the head")
            for new in cosigned:
                held = self._held(new.register)
                held.notes.setdefault(new.note.size, new.note.note)
                for line in new.lines:
                    key = (new.note.size, *line.by)
                    before = held.cosigned.get(key, Cosigned(new.note.size, line, line))
                    held.cosigned[key] = Cosigned(
                        new.note.size,
                        min(before.first, line, key=_time_first),
                        max(before.last, line, key=_time_first),
                    )

    def commit(self, batches: Sequence[Batch]) -> None:
        """Replace every batch's expected head and add what it brings, together or not at all."""
        with self._lock:
            for batch in batches:
                held = self._registers.get(batch.register)
                if (held.head if held else None) != batch.expected:
                    raise ConflictError(f"{batch.register}: the head has moved")
                _check(held or _Held(batch.head), batch)
            for batch in batches:
                self._apply(batch)

    def _apply(self, batch: Batch) -> None:
        held = self._registers.setdefault(batch.register, _Held(batch.head))
        held.head = batch.head
        held.entries.extend(batch.entries)
        held.tiles.update({(tile.level, tile.index): tile.data for tile in batch.tiles})
        held.submissions.update(batch.submissions)
        for record in batch.records:
            held.records.setdefault(record.record_id, {})[record.version] = record.index
        held.notes.update({stored.size: stored.note for stored in batch.notes})

    def close(self) -> None:
        """Release nothing: the store stays as it is, so that a test can open it again."""


def _time_first(line: SignatureLine) -> bytes:
    """Return what orders cosignatures: their bytes begin with the time, big-endian."""
    return line.signature


def _check(held: _Held, batch: Batch) -> None:
    before = batch.expected.size if batch.expected else 0
    if batch.head.size != before + len(batch.entries):
        raise StoreError(f"{batch.register}: {len(batch.entries)} entries do not lead to the head")
    for tile in batch.tiles:
        if not tile.data.startswith(held.tiles.get((tile.level, tile.index), b"")):
            raise StoreError(f"{batch.register}: tile {tile.level}/{tile.index} would change")
    for key in batch.submissions:
        if key in held.submissions:
            raise TakenError(f"{batch.register}: submission {key.hex()} is there already")
    for record in batch.records:
        if record.version in held.records.get(record.record_id, {}):
            raise TakenError(f"{batch.register}: record {record.record_id.hex()} is there already")
    for stored in batch.notes:
        if held.notes.get(stored.size, stored.note) != stored.note:
            raise StoreError(f"{batch.register}: the note of size {stored.size} would change")

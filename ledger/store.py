"""The Store protocol and its contract: where committed bytes live.

A store keeps, for every register, its head, entries, tiles, which submissions and record versions it holds,
its checkpoint notes, and who has cosigned them. It computes nothing: what it returns is checked by whoever
relies on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from ledger.hashing import EMPTY_ROOT, Hash
from ledger.notes import SignatureLine


@dataclass(frozen=True, slots=True)
class Head:
    """A committed state of a register, signed or not yet: number of entries and root of their tree."""

    size: int
    root: Hash


EMPTY_HEAD = Head(0, EMPTY_ROOT)


@dataclass(frozen=True, slots=True)
class Run:
    """Where one submission stands: entries `first` to `first + count - 1`."""

    first: int
    count: int


class RecordAt(msgspec.Struct, frozen=True):
    """One version of one record, and the index of its entry. `record_id` is 16 bytes."""

    record_id: bytes
    version: int
    index: int


@dataclass(frozen=True, slots=True)
class StoredTile:
    """The widest known bytes of a hash tile (32 per hash, 1 to 256 hashes); narrower ones are prefixes."""

    level: int
    index: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StoredNote:
    """A signed checkpoint, verbatim, and the size that it states."""

    size: int
    note: bytes


@dataclass(frozen=True, slots=True)
class Cosigned:
    """What is kept of one witness's cosignatures of one size: the first and the last, by the times in them.

    Both are signature lines of the witness; they are the same line where it has cosigned once. The times
    decide and not who came when, so that two stores that have seen the same lines keep the same.
    """

    size: int
    first: SignatureLine
    last: SignatureLine


@dataclass(frozen=True, slots=True)
class NewCosignatures:
    """Cosignature lines of one checkpoint, whose note is `note`, as they came from witnesses."""

    register: str
    note: StoredNote
    lines: Sequence[SignatureLine]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one commit adds to one register.

    `expected` is the head that it replaces, None where the register is new to the store. `entries` stand at
    indices expected.size to head.size - 1. `tiles` replace those of the same coordinates. `notes` may state
    any size up to the expected one: they were signed after earlier commits. A note of a size that is there
    already is left out: it is the same note. `rejections` tells which entry rejects which submission: an index
    that only a store of the distributed mode keeps.
    """

    register: str
    expected: Head | None
    head: Head
    entries: Sequence[bytes] = ()
    tiles: Sequence[StoredTile] = ()
    submissions: Mapping[bytes, Run] = field(default_factory=dict[bytes, Run])
    records: Sequence[RecordAt] = ()
    notes: Sequence[StoredNote] = ()
    rejections: Mapping[bytes, int] = field(default_factory=dict[bytes, int])


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What a store holds of some submissions and records.

    `latest` are the latest versions of the records, `rejections` the indices of the latest rejections of the
    submissions, which only a store of the distributed mode keeps, and `runs` where the submissions stand.
    """

    latest: Sequence[RecordAt]
    rejections: Mapping[bytes, int]
    runs: Mapping[bytes, Run]


class Store(Protocol):
    """One writer, any number of readers, in any threads.

    Reads see only committed state, and raise StoreError for a register that is not there or what cannot be
    read. Entries, and the bytes that a tile had at some width, never change; heads only grow. Ids are raw
    bytes: 32 of a submission_id, 16 of a record_id.
    """

    def heads(self) -> Mapping[str, Head]:
        """Return every register's head, by name."""
        ...

    def entries(self, register: str, begin: int, end: int) -> list[bytes]:
        """Return the entries [begin, end), fewer where the register ends earlier."""
        ...

    def entries_at(self, register: str, indices: Sequence[int]) -> dict[int, bytes]:
        """Return the entries at these indices, without those that are not there."""
        ...

    def tiles(self, register: str, wanted: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return tiles by (level, index), in the order asked for; empty bytes for one that is not there."""
        ...

    def submissions(self, register: str, ids: Sequence[bytes]) -> dict[bytes, Run]:
        """Return where those of the submissions stand that the register holds."""
        ...

    def latest_versions(self, register: str, record_ids: Sequence[bytes]) -> list[RecordAt]:
        """Return the latest version of each of these records that the register holds, in any order."""
        ...

    def look_up(self, register: str, submission_ids: Sequence[bytes], record_ids: Sequence[bytes]) -> LookedUp:
        """Return what is known of these submissions and records, in one question.

        A commit may come in between: what a submission has registered is seen no later than the submission.
        """
        ...

    def versions(self, register: str, wanted: Sequence[tuple[bytes, int]]) -> list[RecordAt]:
        """Return those of the versions, by (record_id, version), that the register holds, in any order."""
        ...

    def note(self, register: str, at_most: int) -> StoredNote | None:
        """Return the checkpoint note of the largest size that is `at_most`, if there is one."""
        ...

    def notes(self, register: str, begin: int, end: int) -> Iterator[StoredNote]:
        """Yield the notes of sizes begin to end - 1, by size."""
        ...

    def all_tiles(self, register: str) -> Iterator[StoredTile]:
        """Yield every tile of a register, by level and index: what is there, not what should be."""
        ...

    def all_submissions(self, register: str) -> Iterator[tuple[bytes, Run]]:
        """Yield every submission row of a register."""
        ...

    def all_records(self, register: str) -> Iterator[RecordAt]:
        """Yield every record row of a register."""
        ...

    def row_counts(self, register: str) -> tuple[int, int]:
        """Return how many submission rows and how many record rows a register has."""
        ...

    def damage(self) -> list[str]:
        """Return what the store itself finds wrong, and rows that belong to no register, in words."""
        ...

    def cosigned(self, register: str, begin: int, end: int) -> Iterator[Cosigned]:
        """Yield who has cosigned the sizes begin to end - 1, by size, then by witness."""
        ...

    def cosigned_back(self, register: str, at_most: int) -> Iterator[Cosigned]:
        """Yield who has cosigned the sizes `at_most` to 0, the largest size first."""
        ...

    def next_cosigned(self, register: str, by: tuple[str, int], at_least: int) -> Cosigned | None:
        """Return what a witness, by name and key ID, has cosigned of the smallest size that is `at_least`.

        O(log n) over all that is kept, as `last_cosigned` is.
        """
        ...

    def last_cosigned(self, register: str, by: tuple[str, int], at_most: int) -> Cosigned | None:
        """Return what a witness, by name and key ID, has cosigned of the largest size that is `at_most`."""
        ...

    def keep_cosignatures(self, cosigned: Sequence[NewCosignatures]) -> None:
        """Keep cosignatures, and the note that they are of where its size has none yet; together or not at all.

        A line takes the place of the first of its witness and size where its time is earlier, and of the last
        where it is later (of one time: by the signatures' bytes). The caller has verified them. In any order,
        any number of times, the same lines leave the same. Durable on return. Raises StorageFullError where
        there was no room, and nothing was kept; StoreError otherwise.
        """
        ...

    def commit(self, batches: Sequence[Batch]) -> None:
        """Replace every batch's expected head and add what it brings, together or not at all.

        One batch a register. Durable on return. Raises ConflictError if another writer moved a head,
        TakenError if a submission or a version of a record is there already, StorageFullError where there was
        no room: nothing was written in any of these cases. After any other StoreError the outcome is unknown:
        reopen.
        """
        ...

    def close(self) -> None:
        """Release what the store holds. It cannot be used afterwards."""
        ...

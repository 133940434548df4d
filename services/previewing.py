"""A preview of a query: the matches that the ledger itself finds, looked through in bounded steps.

Each match comes with its inclusion proof, so that nobody need believe that it is there. That there are no
others is the ledger's word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from daybook.audit.v1 import audit_service_pb2 as pb

from ledger.hashing import Hash
from ledger.reader import RegisterReader
from ledger.record_queries import Fit, Query, make_query
from ledger.records import Broken, NotUnderstood, read_record
from services.lookup import invalid

STEP_ENTRIES: Final = 1_024
"""Entries that one step looks at, at the most: some 20 ms of work, after which others have their turn."""

STEP_BYTES: Final = 1024 * 1024
"""Bytes of entries after which it looks no further: all may match, and gRPC clients refuse over 4 MiB."""


_MOST: Final = 256
"""Values of one member of a filter: more than any vocabulary has."""


@dataclass(frozen=True, slots=True)
class Found:
    """An entry that matches, and its inclusion proof, sibling first."""

    index: int
    entry: bytes
    inclusion: tuple[Hash, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """The matches among the entries that a step has looked at, up to `end`."""

    found: tuple[Found, ...]
    end: int


def query_of(filter_: pb.RecordFilter) -> Query:
    """Return what a filter asks for. Raises RejectedError INVALID_FIELD."""
    for name in ("types", "decision_types", "channels"):
        if len(getattr(filter_, name)) > _MOST:
            raise invalid(f"filter.{name}", f"at most {_MOST} of them")
    return make_query(
        types=filter_.types,
        decision_types=filter_.decision_types,
        channels=filter_.channels,
        record_id=filter_.record_id,
        series=filter_.series,
        decided_from=filter_.decided_from,
        decided_to=filter_.decided_to,
        path="filter.",
    )


def steps(reader: RegisterReader, query: Query, begin: int, end: int, size: int) -> Iterator[Step]:
    """Look through the entries [begin, end) of a tree of `size`; yield what each step finds, maybe nothing.

    What may match counts as a match: a record that cannot be read, or whose `decided_at` is coarse. Raises
    StoreError.
    """
    found: list[Found] = []
    looked = read = 0
    for index, entry in enumerate(reader.entries(begin, end), begin):
        looked += 1
        read += len(entry)
        if _may_match(query, entry):
            found.append(Found(index, entry, reader.inclusion(index, size)))
        if index + 1 == end or looked == STEP_ENTRIES or read >= STEP_BYTES:
            yield Step(tuple(found), index + 1)
            found, looked, read = [], 0, 0


def _may_match(query: Query, entry: bytes) -> bool:
    record = read_record(entry.partition(b"\n")[2])
    if isinstance(record, Broken | NotUnderstood):
        return query.may_fit(record.header)
    return query.fit(record) is not Fit.NO

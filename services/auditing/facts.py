"""Facts: one entry of a register as the detections take it, with what the witnesses prove of its time.

A fact is of an entry that was verified already. Nothing is verified here, and whatever cannot be understood is
a fact too: the auditor's own record of it is complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

import msgspec

from ledger.entries import Entry, parse_entry, submission_body_of, submission_id
from ledger.records import Broken, NotUnderstood, Record, read_record
from ledger.timeline import Bounds

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Fact:
    """One verified entry.

    `record` is None where it breaks rules or is of a type that is not understood; `type` is what it says it
    is, None where even that cannot be read. `sha256` is the record's digest, 32 bytes. `accepted_at` (POSIX
    seconds) and `submitter` are the ledger's claims. `submission_first` is the index of the first entry of
    its submission, None on entries that the ledger wrote; `submission_id` is None there too, and where it was
    not asked for. `bounds` are the witnesses' evidence of when the entry came in.
    """

    register: str
    index: int
    record: Record | None
    type: str | None
    sha256: bytes
    accepted_at: float
    submitter: str
    submission_id: str | None
    submission_first: int | None
    governing_size: int
    bounds: Bounds

    @property
    def members(self) -> Mapping[str, Any]:
        """The record's members as JSON values, made anew at each call; nothing where `record` is None."""
        if self.record is None:
            return _NOTHING
        members: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self.record))
        return members


def fact_of(register: str, index: int, entry: bytes, bounds: Bounds, ledger_origin: str | None = None) -> Fact:
    """Return the fact of an entry's bytes.

    The submission_id is worked out where `ledger_origin` is given, since it covers that. Raises
    MalformedError where the envelope is not of the fixed shape: verification has refused such an entry;
    ProofError where its path does not fit.
    """
    return fact_of_parsed(register, index, parse_entry(entry), bounds, ledger_origin)


def fact_of_parsed(
    register: str, index: int, parsed: Entry, bounds: Bounds, ledger_origin: str | None = None
) -> Fact:
    """Return the fact of an entry that was parsed. Raises ProofError where its path does not fit."""
    read = read_record(parsed.record)
    if isinstance(read, Broken | NotUnderstood):
        record, name = None, read.header.type
    else:
        record, name = read, read.type
    membership, identity = parsed.membership, None
    if membership is not None and ledger_origin is not None:
        identity = submission_id(submission_body_of(parsed, f"{ledger_origin}/{register}"))
    return Fact(
        register,
        index,
        record,
        name,
        hashlib.sha256(parsed.record).digest(),
        datetime.fromisoformat(parsed.acceptance.accepted_at).timestamp(),
        parsed.acceptance.submitter,
        identity,
        None if membership is None else index - membership.position,
        parsed.acceptance.governing_size,
        bounds,
    )

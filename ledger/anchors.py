"""Anchors: which governing entries carry which checkpoints of the registers (formats.md, sections 3 and 11).

An anchor commits the governing register to a register's history up to a size. One number, the governing
root, so commits to the whole ledger.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ledger.checkpoints import open_checkpoint, peek_origin
from ledger.entries import Entry, parse_entry
from ledger.errors import MalformedError, RejectedError, SignatureError
from ledger.governing import GOVERNING
from ledger.governing_types import CheckpointAnchored, LedgerOpened
from ledger.notes import VerifierKey
from ledger.records import parse_record
from ledger.values import is_register
from ledger.witnessing import Policy, judge

_ANCHORED: Final = b'"type":"checkpoint.anchored/1"'


@dataclass(frozen=True, slots=True)
class Anchored:
    """That the governing entry at `index` carries a signed checkpoint of `register`, which states `size`."""

    register: str
    size: int
    index: int


def anchored_by(index: int, entry: Entry, opened: LedgerOpened | None) -> Anchored | None:
    """Return what the governing entry at `index` anchors; None where it anchors nothing.

    Unsigned entries may be made by whoever can write to the event log. So one counts only where the note inside
    is of a register of the ledger that `opened` opens, and signed by its key. Witnesses are not asked for here.
    """
    if opened is None or entry.membership is not None or _ANCHORED not in entry.record:
        return None
    try:
        record = parse_record(entry.record)
        if not isinstance(record, CheckpointAnchored):
            return None
        note = record.checkpoint.encode()
        origin = peek_origin(note)
        ledger_origin, _, register = origin.partition("/")
        if ledger_origin != opened.origin or register == GOVERNING or not is_register(register):
            return None
        key = VerifierKey.parse(opened.ledger_key).renamed(origin)
        checkpoint = open_checkpoint(note, origin, [key]).checkpoint
    except (MalformedError, RejectedError, SignatureError):
        return None
    return Anchored(register, checkpoint.size, index)


def satisfies(entry: bytes, policy: Policy, origin: str) -> bool:
    """Tell whether a governing entry that anchors carries a note of `origin` that satisfies a policy."""
    record = parse_record(parse_entry(entry).record)
    if not isinstance(record, CheckpointAnchored):
        return False
    try:
        judge(record.checkpoint.encode(), policy, origin)
    except (MalformedError, SignatureError):
        return False
    return True


@dataclass(slots=True)
class _OfRegister:
    """Where each anchored size stands, by size. An index is there before its size is, for other threads."""

    latest: Anchored
    sizes: array[int] = field(default_factory=lambda: array("q"))
    indices: array[int] = field(default_factory=lambda: array("q"))


class Anchors:
    """The anchors of all registers, in the order of the governing register, which only adds to them.

    One writer; readers in any thread.
    """

    def __init__(self) -> None:
        self._registers: dict[str, _OfRegister] = {}

    def add(self, anchors: Iterable[Anchored]) -> None:
        """Add anchors. One of a smaller size than an earlier one says nothing new, and is passed over."""
        for anchor in anchors:
            held = self._registers.setdefault(anchor.register, _OfRegister(anchor))
            if not held.sizes or anchor.size > held.sizes[-1]:
                held.indices.append(anchor.index)
                held.sizes.append(anchor.size)
            if anchor.size >= held.latest.size:
                held.latest = anchor

    def latest(self, register: str) -> Anchored | None:
        """Return the anchor of a register's largest anchored size: of several, the last."""
        held = self._registers.get(register)
        return held.latest if held else None

    def covering(self, register: str, index: int) -> Anchored | None:
        """Return the first anchor whose checkpoint covers the entry at `index`."""
        held = self._registers.get(register)
        position = bisect_right(held.sizes, index) if held else 0
        if held is None or position == len(held.sizes):
            return None
        return Anchored(register, held.sizes[position], held.indices[position])

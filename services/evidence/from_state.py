"""A monitor's or an auditor's own state as the source of a pack: offline, from a mirror that was verified entry
by entry, under the checkpoints that they have seen themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger.anchors import satisfies
from ledger.entries import first_signer, parse_entry
from ledger.errors import StoreError, VerificationError
from ledger.governing import GOVERNING
from ledger.hashing import Hash
from ledger.ledger import Ledger
from ledger.receipt_file import Anchor, KeyEvidence, NotBefore, Receipt
from ledger.tlog_proofs import TlogProof
from ledger.witnessing import JudgedCheckpoint, Policy, judge
from services.evidence.gathered import Gathered, ReadWhole
from services.evidence.governing import WholeRegister, collected
from services.evidence.histories import Consistency, steps
from services.evidence.key_history import about
from services.evidence.remembering import RememberingPolicy
from services.evidence.selection import Selection
from services.monitoring.state import Seen, SeenCheckpoints, StateDirectory, StateError, open_mirror, open_seen

_TRIES: Final = 64
"""Checkpoints that are looked at, one after the other, for one that satisfies the policy."""


def gather(root: Path, register: str, selection: Selection, policy: Policy) -> Gathered:
    """Return the receipts that a selection takes of a register, made from a state directory.

    Each stands under the smallest checkpoint that was seen of it and satisfies the policy. Raises StateError
    where there is no such state or another process uses it; VerificationError where nothing that was seen of
    the register satisfies the policy; StoreError.
    """
    with _opened(root) as (mirror, seen):
        return _State(mirror, seen, policy).gather(register, selection)


@contextmanager
def _opened(root: Path) -> Iterator[tuple[Ledger, SeenCheckpoints]]:
    if not StateDirectory(root).seen.exists():
        raise StateError(f"{root} is no state of a monitor or an audit")
    with open_seen(root) as seen:
        origin = seen.origin()
        if origin is None:
            raise StateError(f"{root} has seen no ledger yet")
        with open_mirror(root, origin) as mirror:
            yield mirror, seen


@dataclass(frozen=True, slots=True)
class _Judged:
    note: bytes
    judged: JudgedCheckpoint

    @property
    def size(self) -> int:
        return self.judged.checkpoint.size


class _State:
    def __init__(self, mirror: Ledger, seen: SeenCheckpoints, policy: Policy) -> None:
        self._mirror = mirror
        self._seen = seen
        self._policy = RememberingPolicy.of(policy)
        self._kept: dict[bytes, JudgedCheckpoint | None] = {}

    def gather(self, register: str, selection: Selection) -> Gathered:
        latest = self._at_most(register, self._size(register))
        if latest is None:
            raise VerificationError(f"no checkpoint that was seen of {register} satisfies your policy")
        reader = self._mirror.reader(register)
        if reader.root(latest.size) != latest.judged.checkpoint.root:
            raise StoreError(f"{register}: the mirror has another root than was seen at size {latest.size}")
        chosen = [
            index
            for index, entry in enumerate(reader.entries(0, latest.size))
            if selection.takes(index, entry.partition(b"\n")[2])
        ]
        signers = {
            each.key
            for index in chosen
            if (membership := parse_entry(reader.entry(index)).membership) is not None
            for each in membership.signatures
        }
        governing = [
            data
            for index in about(self._mirror.fold, register, signers)
            if (data := self._receipt(GOVERNING, index)) is not None
        ]
        receipts = [data for index in chosen if (data := self._receipt(register, index)) is not None]
        register_of_keys = self._register_of_keys()
        return Gathered(
            receipts,
            governing,
            "a state of a monitor or an audit",
            selection.text,
            [
                Consistency(step, self._mirror.reader(step.register).consistency(step.first, step.second))
                for step in steps([*receipts, *governing], [register_of_keys.note] if register_of_keys else [])
            ],
            ReadWhole(latest.size, latest.judged.checkpoint.root),
            register_of_keys=register_of_keys,
        )

    def _register_of_keys(self) -> WholeRegister | None:
        latest = self._at_most(GOVERNING, self._size(GOVERNING), last=True)
        if latest is None or latest.size == 0:
            return None
        return collected(latest.note, self._mirror.reader(GOVERNING).entries(0, latest.size))

    def _size(self, register: str) -> int:
        head = self._mirror.heads().get(register)
        return head.size if head else 0

    def _receipt(self, register: str, index: int) -> bytes | None:
        found = self._covering(register, index)
        if found is None:
            return None
        reader = self._mirror.reader(register)
        entry = reader.entry(index)
        proof = TlogProof(index, reader.inclusion(index, found.size), found.note)
        sealed = found.judged.sealed
        before = self._at_most(register, index, last=True) if sealed else None
        not_before = None
        if before is not None:
            not_before = NotBefore(before.note, self._consistency(register, before.size, found.size))
        anchor = self._anchor(register, index, found.size) if sealed and register != GOVERNING else None
        return Receipt(entry, proof, not_before, self._key(register, entry), anchor).data()

    def _consistency(self, register: str, one: int, other: int) -> tuple[Hash, ...]:
        first, second = sorted((one, other))
        return self._mirror.reader(register).consistency(first, second) if 0 < first < second else ()

    def _governing_proof(self, index: int) -> TlogProof | None:
        found = self._covering(GOVERNING, index)
        if found is None:
            return None
        return TlogProof(index, self._mirror.reader(GOVERNING).inclusion(index, found.size), found.note)

    def _key(self, register: str, entry: bytes) -> KeyEvidence | None:
        if register == GOVERNING or (signer := first_signer(entry)) is None:
            return None
        held = self._mirror.fold.keys.get(signer)
        proof = self._governing_proof(held.authorised) if held else None
        if held is None or proof is None:
            return None
        return KeyEvidence(self._mirror.reader(GOVERNING).entry(held.authorised), proof)

    def _anchor(self, register: str, index: int, size: int) -> Anchor | None:
        for anchored in (
            self._mirror.anchors.covering(register, index),
            self._mirror.anchors.latest(register),
        ):
            if anchored is None or anchored.size <= index or anchored.size > self._size(register):
                continue
            proof = self._governing_proof(anchored.index)
            entry = self._mirror.reader(GOVERNING).entry(anchored.index)
            if proof is not None and satisfies(entry, self._policy, self._mirror.register_origin(register)):
                return Anchor(entry, proof, self._consistency(register, anchored.size, size))
        return None

    # What was seen, as far as it satisfies the policy and the mirror holds it

    def _covering(self, register: str, index: int) -> _Judged | None:
        size = index
        for _ in range(_TRIES):
            seen = self._seen.next_above(register, size)
            if seen is None or seen.size > self._size(register):
                return None
            found = self._judged(register, seen, (seen.first, seen.last))
            if found is not None:
                return found
            size = seen.size
        return None

    def _at_most(self, register: str, size: int, *, last: bool = False) -> _Judged | None:
        for _ in range(_TRIES):
            seen = self._seen.latest(register, size)
            if seen is None:
                return None
            notes = (seen.last, seen.first) if last else (seen.first, seen.last)
            found = self._judged(register, seen, notes)
            if found is not None or seen.size == 0:
                return found
            size = seen.size - 1
        return None

    def _judged(self, register: str, seen: Seen, notes: tuple[bytes, ...]) -> _Judged | None:
        for note in notes:
            if note not in self._kept:
                try:
                    judged = judge(note, self._policy, self._mirror.register_origin(register))
                except VerificationError:
                    self._kept[note] = None
                else:
                    self._kept[note] = judged if judged.checkpoint.size == seen.size else None
            held = self._kept[note]
            if held is not None:
                return _Judged(note, held)
        return None

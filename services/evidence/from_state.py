"""A monitor's or an auditor's own state as the source of a pack: offline, from a mirror that was verified entry
by entry, under the checkpoints that they have seen themselves, or that the mirrored anchors carry.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ledger.entries import first_signer, parse_entry
from ledger.errors import QuorumError, VerificationError
from ledger.governing import GOVERNING
from ledger.hashing import Hash
from ledger.ledger import Ledger
from ledger.receipt_file import Anchor, KeyEvidence, NotBefore, Receipt
from ledger.tlog_proofs import TlogProof
from ledger.witnessing import Policy
from services.evidence.anchored_notes import AnchoredNotes, judged_anchor
from services.evidence.exhibits import check_count
from services.evidence.gathered import Gathered, ReadWhole
from services.evidence.governing import WholeRegister, collected
from services.evidence.histories import Consistency, steps
from services.evidence.judged_notes import JudgedNote
from services.evidence.judged_seen import JudgedSeen
from services.evidence.key_history import about
from services.evidence.remembering import RememberingPolicy
from services.evidence.selection import Selection
from services.monitoring.state import SeenCheckpoints, StateDirectory, StateError, open_mirror, open_seen


def gather(root: Path, register: str, selection: Selection, policy: Policy) -> Gathered:
    """Return the receipts that a selection takes of a register, made from a state directory.

    Each stands under the smallest checkpoint that was seen of it and satisfies the policy, and is bounded from
    below by the one of the latest time that was seen, or is anchored. Raises StateError where there is no such
    state or another process uses it; VerificationError where nothing that was seen of the register satisfies
    the policy; QuorumError where a governing entry is under no checkpoint that does; MalformedError for more
    entries than a pack has; StoreError.
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


class _State:
    def __init__(self, mirror: Ledger, seen: SeenCheckpoints, policy: Policy) -> None:
        self._mirror = mirror
        self._policy = RememberingPolicy.of(policy)
        self._seen = JudgedSeen(mirror, seen, self._policy)

    def gather(self, register: str, selection: Selection) -> Gathered:
        latest = self._seen.latest(register)
        if latest is None:
            raise VerificationError(
                f"no checkpoint that was seen of {register} satisfies your policy and is of the entries here"
            )
        reader = self._mirror.reader(register)
        chosen = [
            index
            for index, entry in enumerate(reader.entries(0, latest.size))
            if selection.takes(index, entry.partition(b"\n")[2])
        ]
        check_count(len(chosen))
        signers = {
            each.key
            for index in chosen
            if (membership := parse_entry(reader.entry(index)).membership) is not None
            for each in membership.signatures
        }
        governing = self._receipts(GOVERNING, about(self._mirror.fold, register, signers))
        receipts = self._receipts(register, chosen)
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
        latest = self._seen.latest(GOVERNING)
        if latest is None or latest.size == 0:
            return None
        return collected(latest.note, self._mirror.reader(GOVERNING).entries(0, latest.size))

    def _size(self, register: str) -> int:
        head = self._mirror.heads().get(register)
        return head.size if head else 0

    def _receipts(self, register: str, indices: Sequence[int]) -> list[bytes]:
        """Return the receipts of entries, one of each: nothing that was chosen may be left out in silence."""
        reader, origin = self._mirror.reader(register), self._mirror.register_origin(register)
        # One of another history is not of these entries: a round of the monitor has told of it.
        anchored = AnchoredNotes(
            self._policy, origin, indices, int(time.time()), lambda each: reader.root(each.size) == each.root
        )
        if register != GOVERNING:
            for entry in self._mirror.reader(GOVERNING).entries(0, self._size(GOVERNING)):
                anchored.look(entry)
        best = anchored.best()
        return [self._receipt(register, index, best.get(index)) for index in indices]

    def _receipt(self, register: str, index: int, anchored: JudgedNote | None) -> bytes:
        found = self._seen.covering(register, index)
        if found is None:
            raise QuorumError(f"no checkpoint that was seen of {register} covers its entry {index}")
        reader = self._mirror.reader(register)
        entry = reader.entry(index)
        proof = TlogProof(index, reader.inclusion(index, found.size), found.note)
        sealed = found.judged.sealed
        not_before = None
        if sealed and (before := self._before(register, index, anchored)) is not None:
            not_before = NotBefore(before.note, self._consistency(register, before.size, found.size))
        anchor = self._anchor(register, index, found.size) if sealed and register != GOVERNING else None
        return Receipt(entry, proof, not_before, self._key(register, entry), anchor).data()

    def _before(self, register: str, index: int, anchored: JudgedNote | None) -> JudgedNote | None:
        """Return the checkpoint that was sealed the latest, of those that do not cover an entry."""
        notes = [each for each in (self._seen.up_to(register, index), anchored) if each is not None]
        return max(notes, key=lambda each: each.rank, default=None)

    def _consistency(self, register: str, one: int, other: int) -> tuple[Hash, ...]:
        first, second = sorted((one, other))
        return self._mirror.reader(register).consistency(first, second) if 0 < first < second else ()

    def _governing_proof(self, index: int) -> TlogProof | None:
        found = self._seen.covering(GOVERNING, index)
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
            note = judged_anchor(entry, self._policy, self._mirror.register_origin(register))
            if proof is None or note is None:
                continue
            root = self._mirror.reader(register).root(anchored.size)
            if note.judged.checkpoint.root == root:  # else it is of another history
                return Anchor(entry, proof, self._consistency(register, anchored.size, size))
        return None

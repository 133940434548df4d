"""Whether the checkpoints of a pack can all be true: none of one register and size has two roots.

And whether they are proved to be of one history: each a beginning of the largest of its register.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ledger.checkpoints import Checkpoint, peek_origin
from ledger.errors import MalformedError, ProofError, SplitViewError
from ledger.hashing import Hash, leaf_hashes
from ledger.proofs import verify_consistency
from ledger.receipt_file import Receipt
from ledger.tree import EMPTY, extend
from ledger.witnessing import Cosignature, Policy, judge
from services.evidence.exhibits import note_path, notes_of
from services.evidence.histories import Consistency


class Roots:
    """The checkpoints of all receipts that were verified so far, and their notes by where a pack keeps them."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._seen: dict[tuple[str, int], tuple[Checkpoint, bytes]] = {}
        self._notes: dict[str, bytes] = {}
        self._steps: set[tuple[str, int, int]] = set()

    @property
    def notes(self) -> Mapping[str, bytes]:
        """Every note, once."""
        return self._notes

    @property
    def one_history(self) -> bool:
        """Whether every checkpoint is proved to be a beginning of the largest one of its register."""
        larger: dict[tuple[str, int], list[int]] = {}
        for origin, first, second in self._steps:
            larger.setdefault((origin, first), []).append(second)
        reached: dict[str, set[int]] = {}
        for origin, size in sorted(self._seen, reverse=True):
            sizes = reached.setdefault(origin, set())
            # Of size 0 every history is one. The first that comes is the largest.
            if size and sizes and not sizes.intersection(larger.get((origin, size), ())):
                return False
            sizes.add(size)
        return True

    def add(self, data: bytes) -> None:
        """Add the notes of a receipt that was verified under the policy, and what it proves between them.

        Raises SplitViewError where the ledger has signed another root of that register and size: it holds both
        notes, which prove to anybody that two histories were signed.
        """
        receipt = Receipt.parse(data)
        for note in notes_of(receipt):
            self._add_note(note)
        proved = self._checkpoint(receipt.proof.note)
        if receipt.not_before is not None:
            self._step(self._checkpoint(receipt.not_before.note), proved)
        if receipt.anchor is not None:
            *_, anchored = notes_of(receipt)
            self._step(self._checkpoint(anchored), proved)

    def add_whole(self, origin: str, note: bytes, entries: Sequence[bytes]) -> None:
        """Add all entries of a register, with the note of the checkpoint whose tree they must be.

        Every smaller checkpoint of it is then proved to be a beginning. Raises ProofError where the entries are
        not those of the note; SplitViewError where they are not those of a smaller one; VerificationError where
        the note does not satisfy the policy.
        """
        judge(note, self._policy, origin)
        self._add_note(note)
        checkpoint = self._checkpoint(note)
        seen = {size: held for (of, size), held in sorted(self._seen.items()) if of == origin}
        roots: dict[int, Hash] = {}
        edge = EMPTY
        for size in (size for size in seen if size <= len(entries)):
            edge = extend(edge, leaf_hashes(entries[edge.size : size])).after
            roots[size] = edge.root()
        if len(entries) != checkpoint.size or roots[checkpoint.size] != checkpoint.root:
            raise ProofError(
                f"the {len(entries)} entries of {origin} are not those of the checkpoint of {checkpoint.size}"
            )
        for size, root in roots.items():
            held, other = seen[size]
            if root != held.root:
                raise SplitViewError(
                    f"the ledger has signed two histories of {origin}, at sizes {size} and {checkpoint.size}",
                    other,
                    note,
                )
            self._step(held, checkpoint)

    def cosignatures(self, origin: str) -> list[Cosignature]:
        """Return every verified cosignature of a register's checkpoints."""
        notes = [note for note in self._notes.values() if peek_origin(note) == origin]
        return [each for note in notes for each in judge(note, self._policy, origin).cosignatures]

    def prove(self, ledger_origin: str, proof: Consistency) -> None:
        """Add a consistency proof between two checkpoints that are here.

        Raises ProofError where it does not hold, MalformedError for a size that no checkpoint has.
        """
        origin = f"{ledger_origin}/{proof.step.register}"
        ends = [self._seen.get((origin, size)) for size in (proof.step.first, proof.step.second)]
        if ends[0] is None or ends[1] is None:
            raise MalformedError(f"consistency of {proof.step.register}: no checkpoint of one of its sizes")
        (first, _), (second, _) = ends[0], ends[1]
        verify_consistency(first.size, second.size, first.root, second.root, proof.hashes)
        self._step(first, second)

    def _checkpoint(self, note: bytes) -> Checkpoint:
        return self._policy.open(note, peek_origin(note)).checkpoint

    def _step(self, one: Checkpoint, other: Checkpoint) -> None:
        first, second = sorted((one.size, other.size))
        if 0 < first < second:
            self._steps.add((one.origin, first, second))

    def _add_note(self, note: bytes) -> None:
        path = note_path(note)
        if path in self._notes:
            return
        checkpoint = self._checkpoint(note)
        self._notes[path] = note
        held, first = self._seen.setdefault((checkpoint.origin, checkpoint.size), (checkpoint, note))
        if held.root != checkpoint.root:
            raise SplitViewError(
                f"the ledger has signed two histories of {checkpoint.origin}, at size {checkpoint.size}",
                first,
                note,
            )

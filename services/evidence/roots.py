"""Whether the checkpoints of a pack can all be true: none of one register and size has two roots.

And whether they are proved to be of one history: each a beginning of the largest of its register.
"""

from __future__ import annotations

from collections.abc import Mapping

from ledger.checkpoints import Checkpoint, peek_origin
from ledger.errors import MalformedError, SplitViewError
from ledger.proofs import verify_consistency
from ledger.receipt_file import Receipt
from ledger.witnessing import Policy
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
        held, first = self._seen.setdefault((checkpoint.origin, checkpoint.size), (checkpoint, note))
        if held.root != checkpoint.root:
            raise SplitViewError(
                f"the ledger has signed two histories of {checkpoint.origin}, at size {checkpoint.size}",
                first,
                note,
            )
        self._notes[path] = note

"""A log that grows, proves and signs, without server or store: what asks a witness to cosign.

    log = GrowingLog("ledger.example/a/b")
    log.request(0, 5)            asks for size 5 of a witness that has nothing
    log.forked(3).request(5, 7)  the same log, with another history after 3 entries

TEST ONLY keys, drawn from fixed seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from ledger.add_checkpoint import AddCheckpoint
from ledger.checkpoints import Checkpoint
from ledger.ed25519 import SecretKey
from ledger.hashing import Hash, leaf_hash, node_hash
from ledger.notes import SignerKey, sign_note
from ledger.proofs import compute, plan_consistency
from ledger.tree import Node, compact_range, root_of


def key(name: str) -> SecretKey:
    """Return the key of this name: the same each time."""
    return SecretKey(sha256(f"growing, TEST ONLY: {name}".encode()).digest())


class GrowingLog:
    """A log named `origin`, of entries that follow from `history`. It grows as far as it is asked for."""

    def __init__(self, origin: str, secret: SecretKey | None = None, history: str = "") -> None:
        self.origin = origin
        self.signer = SignerKey(origin, secret or key(origin))
        self._history = history
        self._nodes: dict[Node, Hash] = {}
        self._size = 0

    @property
    def vkey(self) -> str:
        """The line by which a witness accepts it."""
        return str(self.signer.verifier)

    def forked(self, size: int) -> GrowingLog:
        """Return the log that shares the first `size` entries with this one, and no other."""
        self._grow(size)
        fork = GrowingLog(self.origin, self.signer.secret, f"{self._history}|{size}")
        for index in range(size):
            fork._append(self._nodes[0, index])
        return fork

    def root(self, size: int) -> Hash:
        """Return the root at a size."""
        self._grow(size)
        return root_of([self._nodes[node] for node in compact_range(0, size)])

    def checkpoint(self, size: int) -> Checkpoint:
        """Return the checkpoint of a size."""
        return Checkpoint(self.origin, size, self.root(size))

    def note(self, size: int, *others: SignerKey) -> bytes:
        """Return the signed checkpoint of a size; `others` sign it as well."""
        return sign_note(self.checkpoint(size).text(), [self.signer, *others])

    def proof(self, old: int, size: int) -> tuple[Hash, ...]:
        """Return the consistency proof between two sizes; none from 0 or between equal ones."""
        self._grow(size)
        return compute(plan_consistency(old, size), self._nodes) if 0 < old < size else ()

    def request(self, old: int, size: int, proof: Sequence[Hash] | None = None) -> AddCheckpoint:
        """Return what asks a witness, which has size `old`, to cosign `size`."""
        proved = self.proof(old, size) if proof is None else tuple(proof)
        return AddCheckpoint(old, proved, self.note(size))

    def _grow(self, size: int) -> None:
        while self._size < size:
            self._append(leaf_hash(f"{self._history}:{self._size}".encode()))

    def _append(self, leaf: Hash) -> None:
        level, index = 0, self._size
        self._nodes[level, index] = leaf
        while index & 1:
            parent = node_hash(self._nodes[level, index - 1], self._nodes[level, index])
            level, index = level + 1, index >> 1
            self._nodes[level, index] = parent
        self._size += 1

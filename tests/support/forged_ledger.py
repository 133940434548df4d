"""A ledger that signs whatever a test asks for, with the keys of the vectors' story: no rule is applied."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ledger import base64, entries, proofs, tree
from ledger.checkpoints import Checkpoint, sign_checkpoint
from ledger.hashing import Hash, leaf_hash
from ledger.notes import format_note, split_note
from ledger.tlog_proofs import TlogProof
from ledger.tree import Node
from ledger.witnessing import cosign
from tests.support.story import LEDGER_ORIGIN, secret, signer

ACCEPTANCE = entries.Acceptance("2026-07-03T15:20:11.042Z", "anonymous", 7)
ACCEPTED = 1_783_092_011
"""The POSIX second of `ACCEPTANCE`."""


def canonical(record: Mapping[str, object]) -> bytes:
    """Return a record of ASCII as canonical JSON."""
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def signed_entry(
    register: str,
    record: bytes,
    signers: Sequence[str],
    acceptance: entries.Acceptance = ACCEPTANCE,
) -> bytes:
    """Return the entry of a submission of one record, signed by these keys of the story."""
    root, paths = tree.paths([leaf_hash(record)])
    body = entries.submission_body(f"{LEDGER_ORIGIN}/{register}", 1, root)
    keys = sorted((secret(name) for name in signers), key=lambda key: base64.encode(key.public))
    signatures = tuple(entries.Signature(key.public, key.sign(entries.pae(body))) for key in keys)
    submission = entries.Submission(register, (record,), signatures, entries.submission_id(body), tuple(paths))
    (entry,) = entries.form_entries(submission, acceptance)
    return entry


@dataclass(frozen=True, slots=True)
class Log:
    """A register's entries, and checkpoints and proofs over them on demand."""

    register: str
    data: list[bytes] = field(default_factory=list)

    @property
    def origin(self) -> str:
        """The register origin."""
        return f"{LEDGER_ORIGIN}/{self.register}"

    def append(self, entry: bytes) -> int:
        """Add an entry and return its index."""
        self.data.append(entry)
        return len(self.data) - 1

    def _hash(self, node: Node) -> Hash:
        level, index = node
        leaves = [leaf_hash(entry) for entry in self.data]
        return tree.tree_root(leaves[index << level : index + 1 << level])

    def checkpoint(self, size: int) -> Checkpoint:
        """Return the checkpoint of the first `size` entries."""
        return Checkpoint(self.origin, size, tree.tree_root([leaf_hash(entry) for entry in self.data[:size]]))

    def note(self, size: int, times: Mapping[str, int]) -> bytes:
        """Return that checkpoint signed, and cosigned by witnesses of the story at these times."""
        checkpoint = self.checkpoint(size)
        text, lines = split_note(sign_checkpoint(checkpoint, signer("ledger", self.origin)))
        cosigned = [
            cosign(checkpoint, signer(f"witness {name}", f"witness-{name}.example/w"), time)
            for name, time in times.items()
        ]
        return format_note(text, [*lines, *cosigned])

    def proof(self, index: int, size: int, times: Mapping[str, int]) -> TlogProof:
        """Return the proof of an entry under such a note."""
        path = proofs.compute(proofs.plan_inclusion(index, size), self._hash)
        return TlogProof(index, path, self.note(size, times))

    def consistency(self, first: int, second: int) -> tuple[Hash, ...]:
        """Return the consistency proof between two sizes."""
        return proofs.compute(proofs.plan_consistency(first, second), self._hash)

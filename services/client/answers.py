"""What a ledger answered, verified before it is believed: under the department's own policy.

The client rebuilds its own entries from the envelope, its records and its submission tree, and proves by the
range proof that just these bytes stand in the tree of a checkpoint that satisfies the policy. So an answer
is either proved here or it is an error; nothing in between is returned.
"""

from __future__ import annotations

import time
from binascii import b2a_base64
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from daybook.submission.v1 import submission_pb2

from ledger.acknowledgements import Acknowledgement, open_acknowledgement
from ledger.checkpoints import Checkpoint, open_checkpoint
from ledger.entries import Acceptance, Submission, form_entries, parse_entry
from ledger.errors import MalformedError, ProofError, VerificationError
from ledger.hashing import HASH_SIZE, Hash, leaf_hashes
from ledger.notes import VerifierKey
from ledger.proofs import VerifiedRange, verify_consistency, verify_range
from ledger.receipt_file import FIRST_LINE, KeyEvidence, NotBefore
from ledger.tlog_proofs import HEADER, hash_lines
from ledger.witnessing import Policy, check_clocks
from services.client.signing import SignedSubmission

_MOST_NOTES: Final = 64
"""Verified notes that are remembered: in a group commit many answers carry the same one."""


@dataclass(frozen=True, slots=True)
class Promised:
    """The ledger has signed that the submission will be in its register; no proof is there yet.

    `note` is the acknowledgement note: keep it. Submit the very same submission again for the proof.
    """

    submission: SignedSubmission
    acknowledgement: Acknowledgement
    note: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """The submission lost a race after it was acknowledged: the register holds a provable rejection.

    `receipt` proves the `submission.rejected/1` entry at `index`; `reason` is what that entry says.
    """

    submission: SignedSubmission
    note: bytes
    index: int
    reason: str
    receipt: bytes


@dataclass(frozen=True, slots=True)
class Registered:
    """The records stand in the register, proved under the policy. Made by `AnswerVerifier` only.

    `entries` are the final bytes, at consecutive indices from `first_index`, in the tree of `checkpoint`,
    whose note is `checkpoint_note`. `sealed` is False only where the policy asks for no witness; `witnesses`
    are the names, in the policy, of those who have cosigned. `known`
    tells that this very submission was registered before. `key` shows whose the signing key is, None where
    the ledger did not show it: the department is then only claimed. `not_before` is a sealed checkpoint that
    does not cover the records yet, None where the ledger showed none: no earliest time is proved then.
    """

    submission: SignedSubmission
    acknowledgement: Acknowledgement
    note: bytes
    acceptance: Acceptance
    entries: tuple[bytes, ...]
    checkpoint: Checkpoint
    checkpoint_note: bytes
    sealed: bool
    witnesses: tuple[str, ...]
    known: bool
    _range: VerifiedRange = field(repr=False)
    key: KeyEvidence | None = None
    not_before: NotBefore | None = None

    @property
    def first_index(self) -> int:
        """The index of the first record's entry; the others follow it."""
        return self._range.begin

    def with_key(self, key: KeyEvidence) -> Registered:
        """Return the same answer, whose receipts also show that the key was authorised."""
        return replace(self, key=key)

    def receipt(self, position: int) -> bytes:
        """Return the receipt file of the record at `position`, from 0 (formats.md, section 13).

        Raises IndexError where the submission has no such record.
        """
        if not 0 <= position < len(self.entries):
            raise IndexError(position)
        path = b"".join(self._range.path(self.first_index + position))
        return self._receipt(position, path, self._shared_sections())

    def receipts(self) -> list[bytes]:
        """Return the receipt files of all records, in order: cheaper than one at a time."""
        sections = self._shared_sections()
        return [self._receipt(position, path, sections) for position, path in enumerate(self._range.paths())]

    def _receipt(self, position: int, path: bytes, shared: bytes) -> bytes:
        # Joined here rather than through receipt_file.Receipt, which a test holds it equal to: this runs once
        # for every record.
        entry = self.entries[position]
        hashes = b"".join([b2a_base64(path[at : at + HASH_SIZE]) for at in range(0, len(path), HASH_SIZE)])
        head = f"{HEADER}\nindex {self.first_index + position}\n".encode()
        note = self.checkpoint_note
        return b"%bentry %d\n%b\nproof %d\n%b%b\n%b\n%b" % (
            FIRST_LINE,
            len(entry),
            entry,
            len(head) + len(hashes) + 1 + len(note),
            head,
            hashes,
            note,
            shared,
        )

    def _shared_sections(self) -> bytes:
        """Return the sections behind the proof: those that every record of the submission has alike."""
        sections: list[tuple[bytes, bytes]] = []
        if self.not_before is not None:
            sections.append((b"not-before", self.not_before.note))
            sections.append((b"not-before-consistency", hash_lines(self.not_before.consistency)))
        if self.key is not None:
            sections += ((b"key-entry", self.key.entry), (b"key-proof", self.key.proof.text()))
        return b"".join(b"%b %d\n%b\n" % (name, len(body), body) for name, body in sections if body)


Answer: TypeAlias = Registered | Promised | Rejected


@dataclass(frozen=True, slots=True)
class _Sequenced:
    """A checkpoint that the log has signed, who has cosigned it, and how far it satisfies the policy."""

    checkpoint: Checkpoint
    witnesses: tuple[str, ...]
    sealed: bool
    satisfies: bool


class AnswerVerifier:
    """Verifies the answers of one register, under one policy and one acknowledgement key."""

    def __init__(self, policy: Policy, register_origin: str, acknowledgement_key: VerifierKey) -> None:
        self._policy = policy
        self._origin = register_origin
        self._log = policy.log_keys(register_origin)
        self._witnesses = tuple(witness.key for witness in policy.witnesses)
        self._key = acknowledgement_key
        self._opened: dict[bytes, _Sequenced] = {}
        self._before: dict[tuple[bytes, bytes, tuple[bytes, ...]], tuple[int, NotBefore | None]] = {}

    def verify(
        self, submission: SignedSubmission, answer: submission_pb2.Acknowledgement
    ) -> Registered | Promised:
        """Return what an answer proves about `submission`; not for an answer that says REJECTED.

        Raises VerificationError, which SignatureError and ProofError are, when anything in it does not hold:
        the answer is then evidence against the ledger.
        """
        try:
            acknowledgement = self.acknowledgement(submission, answer.note)
            if not answer.checkpoint:
                return Promised(submission, acknowledgement, answer.note)
            sequenced = self._open(answer.checkpoint)
            if not sequenced.satisfies:
                return Promised(submission, acknowledgement, answer.note)
            return self._registered(submission, acknowledgement, answer, sequenced)
        except MalformedError as error:
            raise VerificationError(f"the ledger's answer: {error}") from error

    def acknowledgement(self, submission: SignedSubmission, note: bytes) -> Acknowledgement:
        """Verify that an acknowledgement note promises just this submission, and return what it says.

        Raises MalformedError, SignatureError or VerificationError.
        """
        acknowledgement = open_acknowledgement(note, self._key)
        promised = (acknowledgement.register_origin, acknowledgement.submission_id, acknowledgement.count)
        if promised != (submission.register_origin, submission.submission_id, len(submission.records)):
            raise VerificationError(
                f"the ledger acknowledged submission {acknowledgement.submission_id} to "
                f"{acknowledgement.register_origin}, not {submission.submission_id} to "
                f"{submission.register_origin}"
            )
        return acknowledgement

    def _registered(
        self,
        submission: SignedSubmission,
        acknowledgement: Acknowledgement,
        answer: submission_pb2.Acknowledgement,
        sequenced: _Sequenced,
    ) -> Registered:
        envelope = answer.envelope
        acceptance = Acceptance(envelope.accepted_at, envelope.submitter, envelope.governing_size)
        entries = _entries(submission, acceptance)
        checkpoint = sequenced.checkpoint
        verified = verify_range(
            answer.first_index,
            answer.first_index + len(entries),
            checkpoint.size,
            leaf_hashes(entries),
            _hashes(answer.range_proof.hashes),
            checkpoint.root,
        )
        return Registered(
            submission,
            acknowledgement,
            answer.note,
            acceptance,
            tuple(entries),
            checkpoint,
            answer.checkpoint,
            sequenced.sealed,
            sequenced.witnesses,
            answer.already_registered,
            verified,
            not_before=self._not_before(answer, sequenced),
        )

    def _not_before(self, answer: submission_pb2.Acknowledgement, sequenced: _Sequenced) -> NotBefore | None:
        """Verify the earlier checkpoint that an answer shows; None where that one is not sealed for us."""
        if not answer.not_before:
            return None
        asked = (answer.not_before, answer.checkpoint, tuple(answer.not_before_consistency))
        if asked not in self._before:
            if len(self._before) >= _MOST_NOTES:
                del self._before[next(iter(self._before))]
            self._before[asked] = self._verified_before(*asked, sequenced.checkpoint)
        size, not_before = self._before[asked]
        if size > answer.first_index:
            raise VerificationError(f"the not-before checkpoint, of size {size}, covers the records")
        return not_before

    def _verified_before(
        self, note: bytes, _covering: bytes, hashes: tuple[bytes, ...], later: Checkpoint
    ) -> tuple[int, NotBefore | None]:
        earlier = self._open(note)
        proof = tuple(_hashes(hashes))
        if earlier.checkpoint.size:
            roots = earlier.checkpoint.root, later.root
            verify_consistency(earlier.checkpoint.size, later.size, *roots, proof)
        elif proof:
            raise ProofError("nothing to prove from size 0, yet there is a proof")
        return earlier.checkpoint.size, NotBefore(note, proof) if earlier.satisfies else None

    def _open(self, note: bytes) -> _Sequenced:
        known = self._opened.get(note)
        if known is not None:
            return known
        opened = open_checkpoint(note, self._origin, self._log, self._witnesses)
        sealed = self._policy.is_sealed(opened)
        cosignatures = self._policy.cosignatures(opened)
        check_clocks(cosignatures, int(time.time()))
        witnesses = tuple(each.witness for each in cosignatures)
        result = _Sequenced(opened.checkpoint, witnesses, sealed, sealed or self._policy.quorum.root is None)
        if len(self._opened) >= _MOST_NOTES:
            del self._opened[next(iter(self._opened))]
        self._opened[note] = result
        return result


def _entries(submission: SignedSubmission, acceptance: Acceptance) -> list[bytes]:
    """Rebuild the entries that the ledger must have formed (formats.md, section 6).

    Raises MalformedError where the envelope's text, which came from the server, is not well formed.
    """
    entries = form_entries(
        Submission(
            submission.register,
            submission.records,
            submission.signatures,
            submission.submission_id,
            submission.paths,
        ),
        acceptance,
    )
    # Text that ends the envelope early would make the rest of it, and other bytes, the record. What parses as
    # just what was put in is well formed, and then for all of them.
    if parse_entry(entries[0]).acceptance != acceptance:
        raise MalformedError("envelope: its text does not stay in its members")
    return entries


def _hashes(hashes: Sequence[bytes]) -> list[Hash]:
    return [Hash(value) for value in hashes]


def is_of_another_signer(error: VerificationError, answer: submission_pb2.Acknowledgement) -> bool:
    """Tell whether an answer may fail only because the submission was first registered by another key.

    `submission_id` covers neither key nor signature: the same records signed again by a newer key are the
    same submission, and its entries carry the first signature (formats.md, sections 5 and 8).
    """
    return isinstance(error, ProofError) and answer.already_registered

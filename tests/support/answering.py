"""A ledger reduced to its answers: signs, proves and answers for one register, without server or store.

    ledger = AnsweringLedger()
    answer = ledger.answer(submission)      the protobuf message that a server would send

TEST ONLY keys, drawn from fixed seeds.
"""

from __future__ import annotations

from hashlib import sha256

from daybook.submission.v1 import submission_pb2

from ledger import proofs, tree
from ledger.acknowledgements import Acknowledgement, sign_acknowledgement
from ledger.checkpoints import Checkpoint, sign_checkpoint
from ledger.ed25519 import SecretKey
from ledger.entries import Acceptance, Submission, form_entries
from ledger.hashing import Hash, leaf_hash
from ledger.notes import SignerKey
from ledger.witnessing import Log, Policy, Quorum, Witness, cosign
from services.client.answers import AnswerVerifier
from services.client.signing import SignedSubmission
from tests.support.records import LEDGER_ORIGIN, REGISTER

ORIGIN = f"{LEDGER_ORIGIN}/{REGISTER}"
ACCEPTANCE = Acceptance("2026-08-04T10:00:00.000Z", "anonymous", 7)


def key(name: str) -> SecretKey:
    """Return the key of this name: the same each time."""
    return SecretKey(sha256(f"answering, TEST ONLY: {name}".encode()).digest())


class AnsweringLedger:
    """A register of `before` entries made up here, and an answer for whatever is submitted after them.

    It accepts with `acceptance`, well formed or not.
    """

    def __init__(self, before: int = 5, acceptance: Acceptance = ACCEPTANCE) -> None:
        self.acceptance = acceptance
        self.leaves = [leaf_hash(b"entry %d" % number) for number in range(before)]
        self.log = SignerKey(f"{LEDGER_ORIGIN}/governing", key("log"))
        self.acknowledger = SignerKey(f"{LEDGER_ORIGIN}/acknowledgements", key("acknowledgements"))
        self.witness = SignerKey("witness.example/w", key("witness"))

    def policy(self) -> Policy:
        """Return the policy of somebody who asks for no witness."""
        return Policy((Log(self.log.verifier),), (), Quorum((), (), None))

    def witnessed_policy(self) -> Policy:
        """Return the policy of somebody who asks for the one witness."""
        return Policy(
            (Log(self.log.verifier),), (Witness("w", self.witness.cosigner),), Quorum(("w",), (), "w")
        )

    def verifier(self, policy: Policy | None = None) -> AnswerVerifier:
        """Return what a client verifies answers with."""
        return AnswerVerifier(policy or self.policy(), ORIGIN, self.acknowledger.verifier)

    def answer(self, submission: SignedSubmission, after: int = 3) -> submission_pb2.Acknowledgement:
        """Append a submission, then `after` other entries, and return the answer at that size."""
        first = len(self.leaves)
        entries = form_entries(
            Submission(
                REGISTER,
                submission.records,
                submission.signatures,
                submission.submission_id,
                submission.paths,
            ),
            self.acceptance,
        )
        self.leaves += [leaf_hash(entry) for entry in entries]
        self.leaves += [leaf_hash(b"later %d" % number) for number in range(after)]
        extension = tree.extend(tree.EMPTY, self.leaves)
        size = len(self.leaves)
        plan = proofs.plan_range(first, first + len(entries), size)
        return submission_pb2.Acknowledgement(
            submission_id=submission.submission_id,
            state=submission_pb2.STATE_SEQUENCED,
            note=self.acknowledgement(submission),
            envelope=submission_pb2.Envelope(
                accepted_at=self.acceptance.accepted_at,
                submitter=self.acceptance.submitter,
                governing_size=self.acceptance.governing_size,
            ),
            first_index=first,
            checkpoint=self.checkpoint(size, extension.after.root()),
            range_proof=submission_pb2.RangeProof(
                first=first,
                count=len(entries),
                size=size,
                hashes=proofs.compute(plan, lambda node: extension.node(*node)),
            ),
            no_witness=True,
        )

    def acknowledgement(self, submission: SignedSubmission) -> bytes:
        """Return the acknowledgement note of a submission."""
        stated = Acknowledgement(
            submission.register_origin,
            submission.submission_id,
            len(submission.records),
            ACCEPTANCE.accepted_at,
        )
        return sign_acknowledgement(stated, self.acknowledger)

    def checkpoint(self, size: int, root: Hash) -> bytes:
        """Return the register's checkpoint note, signed by the log."""
        return sign_checkpoint(Checkpoint(ORIGIN, size, root), SignerKey(ORIGIN, self.log.secret))

    def cosigned(self, note: bytes) -> bytes:
        """Return a checkpoint note of this register with the witness's line added."""
        opened = self.policy().open(note, ORIGIN)
        return note + cosign(opened.checkpoint, self.witness, 1_785_837_667).line

"""Ledgers for tests: opened, governed and filled through the real turn, with fixed keys and times.

What a test ledger registers is a function of the calls made: the same calls give the same entries, roots and
checkpoint notes, in any store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from ledger import base64, canonical, tree
from ledger.admission import Candidate, admit, instant
from ledger.checkpoints import Checkpoint
from ledger.ed25519 import SecretKey
from ledger.entries import Signature, Submission, open_submission, pae, submission_body
from ledger.governing import GOVERNING
from ledger.hashing import leaf_hash
from ledger.ledger import Ledger
from ledger.notes import ED25519, SignerKey, VerifierKey
from ledger.store import Run, Store
from ledger.witnessing import Policy
from services.published import Published, SignedCheckpoint
from services.signing import CheckpointSigner

ORIGIN: Final = "ledger.test"
DEPARTMENT: Final = "department-for-testing"
REGISTER: Final = f"{DEPARTMENT}/secretary-of-state"
EPOCH: Final = 1_780_000_000
"""POSIX second of the first turn; each later turn is one second after the one before."""

LOG_KEY: Final = SecretKey(b"\x01" * 32)
ACKNOWLEDGEMENT_KEY: Final = SecretKey(b"\x02" * 32)
GOVERNANCE_KEY: Final = SecretKey(b"\x03" * 32)
DEPARTMENT_KEY: Final = SecretKey(b"\x04" * 32)

POLICY: Final = Policy.parse(
    f"log {VerifierKey(f'{ORIGIN}/{GOVERNING}', ED25519, LOG_KEY.public)}\nquorum none\n".encode()
)
"""What a verifier of these ledgers holds: the log key, and no witness."""


def vkey(register: str) -> VerifierKey:
    """Return the key that verifies a register's checkpoints."""
    return VerifierKey(f"{ORIGIN}/{register}", ED25519, LOG_KEY.public)


def submission(register: str, records: Sequence[bytes], signers: Sequence[SecretKey]) -> Submission:
    """Return records signed as a client signs them."""
    root, _ = tree.paths([leaf_hash(record) for record in records])
    body = submission_body(f"{ORIGIN}/{register}", len(records), root)
    signatures = [Signature(signer.public, signer.sign(pae(body))) for signer in signers]
    return open_submission(body, records, signatures, ORIGIN)


def decision(number: int, register: str = REGISTER, **members: Any) -> bytes:
    """Return a decision's record: one with this number, and a record_id of its own; `members` replace."""
    return canonical.format(
        {
            "capture_method": "native_export",
            "captured_at": "2026-05-01",
            "channel": "corporate_email",
            "classification": {"sensitive": False, "tier": "OFFICIAL"},
            "decided_at": "2026-05-01",
            "decision_maker": {"office": "secretary-of-state", "role": "secretary_of_state"},
            "decision_type": "contract_approval",
            "device": "corporate_issued",
            "record_id": record_id(number),
            "record_state": "present",
            "reference": {"number": number + 1, "series": "MD/2026"},
            "register": register,
            "title": f"Decision {number}",
            "type": "decision.registered/1",
            "version": 1,
        }
        | members
    )


def record_id(number: int) -> str:
    """Return the record_id of `decision(number)`."""
    return str(UUID(int=number + 1, version=4))


def governing_record(number: int, record_type: str, **members: Any) -> bytes:
    """Return a governing record of a type, with a record_id of its own."""
    head = {"record_id": str(UUID(int=(1 << 100) + number, version=4)), "register": GOVERNING, "version": 1}
    return canonical.format({**head, "type": record_type, **members})


@dataclass(slots=True)
class LedgerUnderTest:
    """A ledger with what is published of it. Every method that adds takes one turn, and signs."""

    ledger: Ledger
    published: Published
    signer: CheckpointSigner
    turns: int = 0
    _governed: int = field(default=0, init=False)

    def turn(self, submissions: Iterable[Submission]) -> list[Run]:
        """Commit submissions as one turn, sign the new heads, and return where each stands."""
        candidates: list[Candidate] = [admit(one) for one in submissions]
        turn = self.ledger.turn()
        turn.look_up(candidates)
        accepted_at = instant(EPOCH + self.turns)
        self.turns += 1
        runs = [turn.accept(candidate, accepted_at, "anonymous").run for candidate in candidates]
        growths = turn.commit(self.published.unsaved())
        self.published.saved()
        self._sign({name: growth.head for name, growth in growths.items()})
        return runs

    def _sign(self, heads: Mapping[str, Any]) -> None:
        checkpoints = [
            Checkpoint(self.ledger.register_origin(name), head.size, head.root) for name, head in heads.items()
        ]
        signed = zip(checkpoints, self.signer.sign(checkpoints), strict=True)
        self.published.add({name: SignedCheckpoint(*one) for name, one in zip(heads, signed, strict=True)})

    def commit_unsigned(self, submissions: Iterable[Submission]) -> None:
        """Commit submissions and stop before the signature: what a crash in between leaves."""
        candidates = [admit(one) for one in submissions]
        turn = self.ledger.turn()
        turn.look_up(candidates)
        for candidate in candidates:
            turn.accept(candidate, instant(EPOCH + self.turns), "anonymous")
        turn.commit(self.published.unsaved())
        self.published.saved()

    def govern(self, record_type: str, *also: SecretKey, **members: Any) -> int:
        """Register a governing record, signed by the governance key and `also`; return its index."""
        (run,) = self.turn([self.govern_submission(record_type, *also, **members)])
        return run.first

    def govern_submission(self, record_type: str, *also: SecretKey, **members: Any) -> Submission:
        """Return a governing record, signed by the governance key and `also`."""
        record = governing_record(self._governed, record_type, **members)
        self._governed += 1
        return submission(GOVERNING, [record], [GOVERNANCE_KEY, *also])

    def open_register(self, name: str, title: str = "The Secretary of State") -> int:
        """Open a register; return the index of its entry."""
        return self.govern("register.opened/1", name=name, title=title)

    def authorise(self, key: SecretKey, department: str = DEPARTMENT) -> int:
        """Authorise a key for a department; return the index of its entry."""
        text = base64.encode(key.public)
        return self.govern("key.authorised/1", key, department=department, key=text, label="EDRMS")

    def add(self, numbers: Iterable[int], register: str = REGISTER, key: SecretKey = DEPARTMENT_KEY) -> Run:
        """Register one submission with `decision(number)` for each number."""
        records = [decision(number, register) for number in numbers]
        (run,) = self.turn([submission(register, records, [key])])
        return run

    def fill(self, size: int, register: str = REGISTER) -> None:
        """Bring a register to `size` entries, with at most 1,000 records in a submission."""
        for first in range(self.published.latest(register).size, size, 1_000):
            self.add(range(first, min(first + 1_000, size)), register)


def open_ledger(store: Store, marks: Path) -> LedgerUnderTest:
    """Open an empty store as a ledger with `REGISTER`, which `DEPARTMENT_KEY` may write to.

    `marks` is the file of the signer's high-water marks. The governing register then has 3 entries.
    """
    held = LedgerUnderTest(Ledger.open(store, ORIGIN), Published(store), CheckpointSigner.open(LOG_KEY, marks))
    held.govern(
        "ledger.opened/1",
        acknowledgement_key=str(SignerKey(f"{ORIGIN}/acknowledgements", ACKNOWLEDGEMENT_KEY).verifier),
        governance={"keys": [base64.encode(GOVERNANCE_KEY.public)], "threshold": 1},
        ledger_key=str(vkey(GOVERNING)),
        operator="The test operator",
        origin=ORIGIN,
    )
    held.open_register(REGISTER)
    held.authorise(DEPARTMENT_KEY)
    return held

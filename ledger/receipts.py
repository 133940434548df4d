"""Receipts: what proves one entry to a stranger, offline, and what it then proves (formats.md, section 13).

A receipt (`receipt_file`) holds no policy and, but for the evidence that a key was authorised, no key:
`verify_receipt` takes keys and quorum from the verifier's own policy, sizes and roots from verified
notes, and the leaf from the entry bytes. What is found to be odd but signed is a finding, since a signed
false statement is evidence; what does not hold raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from ledger import base64
from ledger.checkpoints import Checkpoint, peek_origin
from ledger.entries import Entry, parse_entry, verify_entry
from ledger.errors import MalformedError, ProofError, RejectedError, VerificationError
from ledger.governing_types import MAX_ANCHORED_NOTE
from ledger.hashing import Hash
from ledger.proofs import verify_consistency
from ledger.receipt_file import Anchor, KeyEvidence, NotBefore, Receipt
from ledger.records import (
    Broken,
    NotUnderstood,
    check_place,
    decided_earliest,
    ledger_may_write,
    read_record,
)
from ledger.timeline import Bounds, Timeline
from ledger.tlog_proofs import verify_tlog_proof
from ledger.values import is_ledger_origin, is_register, is_uuid
from ledger.witnessing import Cosignature, JudgedCheckpoint, Policy, judge

__all__ = [
    "Anchor",
    "Anchored",
    "Finding",
    "FindingKind",
    "Governed",
    "KeyEvidence",
    "NotBefore",
    "Receipt",
    "VerifiedReceipt",
    "time_findings",
    "verify_receipt",
]

CLOCK_ALLOWANCE = 300
"""Seconds by which `accepted_at` may be later than the witnesses' bound (formats.md, section 15)."""

DECIDED_ALLOWANCE = 300
"""Seconds by which `decided_at` may be later than `accepted_at` (formats.md, section 8)."""

_GOVERNING = "governing"
_KEY_AUTHORISED = "key.authorised/1"
_CHECKPOINT_ANCHORED = "checkpoint.anchored/1"


class FindingKind(StrEnum):
    """What a verifier reports although every proof holds."""

    BREAKS_A_RULE = "breaks a registration rule"
    TYPE_NOT_UNDERSTOOD = "type not understood"
    IMPOSSIBLE = "impossible"
    CLAIMED_EARLIER = "claimed earlier than witnessed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One odd thing, with a sentence for a reader."""

    kind: FindingKind
    description: str


@dataclass(frozen=True, slots=True)
class Governed:
    """A governing entry that the receipt proves: its index, at a governing checkpoint of `size` entries.

    `bounds` say when it came into the witnessed history, by that checkpoint alone.
    """

    index: int
    size: int
    cosignatures: tuple[Cosignature, ...]
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class Anchored:
    """That the governing register carries a checkpoint of `size` entries that covers the entry."""

    size: int
    by: Governed


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """What a receipt has proved under a policy. Made by `verify_receipt` only.

    Proved: that `entry` stands at `index` of the register, whose checkpoint has `size` entries and `root`;
    that `signers` (32-byte keys; empty on an entry that the ledger wrote) signed it, in the submission
    `submission_id`; `bounds`; and `authorised` and `anchored` where not None.
    Only claimed: `submitter` and `accepted_at`, by the ledger; `department`, unless `authorised`.
    `record_type`, `record_id` and `version` are None where the record does not say one; `record_type` may be
    any text, since a type need not be known.
    """

    ledger_origin: str
    register: str
    index: int
    size: int
    root: Hash
    entry: Entry
    record: bytes
    record_type: str | None
    record_id: str | None
    version: int | None
    submission_id: str | None
    signers: tuple[bytes, ...]
    department: str | None
    authorised: Governed | None
    sealed: bool
    witnesses: tuple[str, ...]
    cosignatures: tuple[Cosignature, ...]
    bounds: Bounds
    anchored: Anchored | None
    findings: tuple[Finding, ...]

    @property
    def submitter(self) -> str:
        """Who sent it, as the ledger claims."""
        return self.entry.acceptance.submitter

    @property
    def accepted_at(self) -> str:
        """When the ledger claims to have accepted it, ``YYYY-MM-DDTHH:MM:SS.mmmZ``."""
        return self.entry.acceptance.accepted_at

    @property
    def every_cosignature(self) -> tuple[Cosignature, ...]:
        """Every verified cosignature in the receipt, those of the governing register's checkpoints too."""
        governing = [each for each in (self.authorised, self.anchored and self.anchored.by) if each]
        return (*self.cosignatures, *(line for each in governing for line in each.cosignatures))

    @property
    def not_proved(self) -> tuple[str, ...]:
        """What this receipt leaves open, one sentence each. Print it wherever the proof is claimed."""
        return tuple(_left_open(self))


def _left_open(verified: VerifiedReceipt) -> Iterator[str]:
    if not verified.sealed:
        yield "Not witnessed: no one but the ledger vouches for this history, nor for any time."
    else:
        if verified.bounds.not_before is None:
            yield "No earliest time: how long before the latest time the entry came in is not shown."
        if not verified.bounds.comparable:
            yield "Two quorums of this policy may share no witness: the two times may not be compared."
    if verified.department is not None and verified.signers:
        if verified.authorised is None:
            yield f"That the signing key is one of {verified.department} is claimed and not proved."
        else:
            yield "That governance agreed to the signing key and that it had not been revoked is not shown."
    if verified.register == _GOVERNING and verified.signers:
        yield "That the signers are those who govern is not shown: the governing register itself says who does."
    if verified.anchored is None and verified.register != _GOVERNING:
        yield "Not anchored: the governing register need not commit to this history."
    if any(finding.kind is FindingKind.TYPE_NOT_UNDERSTOOD for finding in verified.findings):
        yield "The type of the record is not understood: only that these bytes were registered is proved."
    yield "That no later version corrects or withdraws this record is not shown."
    yield "That what the record says is true, and that everything was registered, no receipt can show."


def verify_receipt(data: bytes, policy: Policy) -> VerifiedReceipt:
    """Verify all that is in a receipt file, under the verifier's own policy (formats.md, section 13).

    Raises MalformedError where bytes do not parse, and SignatureError, ProofError or another
    VerificationError where something does not hold: any of them is an integrity failure of the receipt.
    """
    receipt = Receipt.parse(data)
    origin = peek_origin(receipt.proof.note)
    ledger_origin, _, register = origin.partition("/")
    if not is_ledger_origin(ledger_origin) or not is_register(register):
        raise VerificationError(f"receipt: {origin!r} is not the origin of a register")
    entry = parse_entry(receipt.entry)
    judged = verify_tlog_proof(receipt.proof, receipt.entry, policy, origin)
    subject = _Subject(policy, ledger_origin, register, entry, receipt.proof.index, judged)
    members = _members(entry.record)
    _check_register(members, register)
    submission_id = _verify_author(entry, members, origin)
    cosignatures = list(judged.cosignatures)
    if receipt.not_before is not None:
        cosignatures += _verify_not_before(subject, receipt.not_before)
    authorised = anchored = None
    if receipt.key is not None:
        authorised = _verify_key(subject, receipt.key)
    if receipt.anchor is not None:
        anchored, anchoring = _verify_anchor(subject, receipt.anchor)
        cosignatures += anchoring
    bounds = Timeline(cosignatures, policy.quorum).bounds(subject.index)
    record_id, version = _string(members, "record_id"), members.get("version")
    return VerifiedReceipt(
        ledger_origin=ledger_origin,
        register=register,
        index=subject.index,
        size=judged.checkpoint.size,
        root=judged.checkpoint.root,
        entry=entry,
        record=entry.record,
        record_type=_string(members, "type"),
        record_id=record_id if record_id is not None and is_uuid(record_id) else None,
        version=version if type(version) is int else None,
        submission_id=submission_id,
        signers=subject.signers,
        department=subject.department,
        authorised=authorised,
        sealed=judged.sealed,
        witnesses=tuple(dict.fromkeys(cosignature.witness for cosignature in judged.cosignatures)),
        cosignatures=tuple(cosignatures),
        bounds=bounds,
        anchored=anchored,
        findings=(*_record_findings(entry, register), *time_findings(entry, bounds)),
    )


@dataclass(frozen=True, slots=True)
class _Subject:
    """The entry that a receipt is about, its inclusion verified, and the policy to judge the rest by."""

    policy: Policy
    ledger_origin: str
    register: str
    entry: Entry
    index: int
    judged: JudgedCheckpoint

    @property
    def origin(self) -> str:
        return f"{self.ledger_origin}/{self.register}"

    @property
    def governing_origin(self) -> str:
        return f"{self.ledger_origin}/{_GOVERNING}"

    @property
    def checkpoint(self) -> Checkpoint:
        return self.judged.checkpoint

    @property
    def signers(self) -> tuple[bytes, ...]:
        membership = self.entry.membership
        return () if membership is None else tuple(each.key for each in membership.signatures)

    @property
    def department(self) -> str | None:
        """The department whose register this is, where a department signed."""
        department, slash, _ = self.register.partition("/")
        return department if slash and self.signers else None

    def governed(self, index: int, judged: JudgedCheckpoint) -> Governed:
        bounds = Timeline(judged.cosignatures, self.policy.quorum).bounds(index)
        return Governed(index, judged.checkpoint.size, judged.cosignatures, bounds)


def _members(record: bytes) -> Mapping[str, object]:
    """Return the members of a record, read leniently; none where it is not a JSON object.

    Whether it is canonical was judged at registration: here that is a finding (formats.md, section 1).
    """
    try:
        value = msgspec.json.decode(record)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _string(members: Mapping[str, object], name: str) -> str | None:
    value = members.get(name)
    return value if isinstance(value, str) else None


def _check_register(members: Mapping[str, object], register: str) -> None:
    stated = members.get("register", register)
    if stated != register:
        raise VerificationError(f"receipt: the record is of register {stated!r}, not {register!r}")


def _verify_author(entry: Entry, members: Mapping[str, object], origin: str) -> str | None:
    """Verify who wrote the entry; return the submission_id, None where the ledger did.

    An entry without a submission must be of the closed list (formats.md, section 6).
    """
    if entry.membership is not None:
        return verify_entry(entry, origin)
    record_type = _string(members, "type")
    if record_type is None or not ledger_may_write(record_type, origin.partition("/")[2]):
        raise VerificationError(f"receipt: an entry of type {record_type!r} must be signed here")
    return None


def _verify_not_before(subject: _Subject, not_before: NotBefore) -> tuple[Cosignature, ...]:
    judged = judge(not_before.note, subject.policy, subject.origin)
    if judged.checkpoint.size > subject.index:
        raise VerificationError(
            f"receipt: the not-before checkpoint, size {judged.checkpoint.size}, covers index {subject.index}"
        )
    if judged.checkpoint.size > 0:
        _verify_order(judged.checkpoint, subject.checkpoint, not_before.consistency)
    elif not_before.consistency:
        raise ProofError("receipt: nothing to prove from size 0, yet there is a not-before-consistency")
    return judged.cosignatures


def _verify_order(smaller: Checkpoint, larger: Checkpoint, proof: tuple[Hash, ...]) -> None:
    verify_consistency(smaller.size, larger.size, smaller.root, larger.root, proof)


def _verify_key(subject: _Subject, key: KeyEvidence) -> Governed:
    """Verify that the governing register authorised the signing key for the department before the entry."""
    if subject.department is None:
        raise VerificationError("receipt: key sections, but no department signed the entry")
    entry = parse_entry(key.entry)
    judged = verify_tlog_proof(key.proof, key.entry, subject.policy, subject.governing_origin)
    if entry.membership is None:
        raise VerificationError("receipt: the key entry is not signed")
    verify_entry(entry, subject.governing_origin)
    members = _members(entry.record)
    expected = {
        "type": _KEY_AUTHORISED,
        "register": _GOVERNING,
        "department": subject.department,
        "key": base64.encode(subject.signers[0]),
    }
    for name, value in expected.items():
        if members.get(name) != value:
            raise VerificationError(f"receipt: {name} of the key entry is {members.get(name)!r}, not {value!r}")
    if subject.signers[0] not in {each.key for each in entry.membership.signatures}:
        raise VerificationError("receipt: the key entry is not signed by the key that it authorises")
    if key.proof.index >= subject.entry.acceptance.governing_size:
        raise VerificationError(
            f"receipt: the key was authorised at governing index {key.proof.index}, after governing_size "
            f"{subject.entry.acceptance.governing_size} against which the entry was judged"
        )
    return subject.governed(key.proof.index, judged)


def _verify_anchor(subject: _Subject, anchor: Anchor) -> tuple[Anchored, tuple[Cosignature, ...]]:
    """Verify that the governing register carries a checkpoint that covers the entry."""
    if subject.register == _GOVERNING:
        raise VerificationError("receipt: the governing register is not anchored in itself")
    entry = parse_entry(anchor.entry)
    governing = verify_tlog_proof(anchor.proof, anchor.entry, subject.policy, subject.governing_origin)
    if entry.membership is not None:
        raise VerificationError("receipt: the anchor entry was not written by the ledger")
    members = _members(entry.record)
    for name, value in (("type", _CHECKPOINT_ANCHORED), ("register", _GOVERNING)):
        if members.get(name) != value:
            raise VerificationError(
                f"receipt: {name} of the anchor entry is {members.get(name)!r}, not {value!r}"
            )
    note = (_string(members, "checkpoint") or "").encode()
    if len(note) > MAX_ANCHORED_NOTE:
        raise MalformedError(f"receipt: an anchored note of {len(note)} bytes, more than {MAX_ANCHORED_NOTE}")
    judged = judge(note, subject.policy, subject.origin)
    anchored, proved = judged.checkpoint, subject.checkpoint
    if anchored.size <= subject.index:
        raise VerificationError(
            f"receipt: the anchored checkpoint of size {anchored.size} does not cover index {subject.index}"
        )
    # At equal sizes this asks for equal roots and no hashes.
    smaller, larger = sorted((anchored, proved), key=lambda checkpoint: checkpoint.size)
    _verify_order(smaller, larger, anchor.consistency)
    return Anchored(anchored.size, subject.governed(anchor.proof.index, governing)), judged.cosignatures


def _record_findings(entry: Entry, register: str) -> Iterator[Finding]:
    """Judge the record by the rules of registration, which only report here (formats.md, section 1)."""
    record = read_record(entry.record)
    if isinstance(record, NotUnderstood):
        for text in record.findings:
            yield Finding(FindingKind.TYPE_NOT_UNDERSTOOD, text)
        return
    if isinstance(record, Broken):
        for text in record.findings:
            yield Finding(FindingKind.BREAKS_A_RULE, text)
        return
    if entry.membership is not None:
        try:
            check_place(record, register)
        except RejectedError as error:
            yield Finding(FindingKind.BREAKS_A_RULE, str(error))
    decided = decided_earliest(record)
    if decided is not None and decided > _posix(entry) + DECIDED_ALLOWANCE:
        text = f"decided_at is later than accepted_at {entry.acceptance.accepted_at}"
        yield Finding(FindingKind.BREAKS_A_RULE, text)


def time_findings(entry: Entry, bounds: Bounds) -> Iterator[Finding]:
    """Hold the ledger's own claim of time against the witnesses' (formats.md, section 15)."""
    claimed = f"accepted_at claims {entry.acceptance.accepted_at}"
    if bounds.not_after is not None and _posix(entry) > bounds.not_after + CLOCK_ALLOWANCE:
        text = f"{claimed}, but a quorum of witnesses knew the entry by {_instant(bounds.not_after)}"
        yield Finding(FindingKind.IMPOSSIBLE, text)
    if bounds.not_before is not None and _posix(entry) < bounds.not_before:
        text = f"{claimed}, but a quorum of witnesses knew no such entry at {_instant(bounds.not_before)}"
        yield Finding(FindingKind.CLAIMED_EARLIER, text)


def _posix(entry: Entry) -> float:
    return datetime.fromisoformat(entry.acceptance.accepted_at).timestamp()


def _instant(seconds: int) -> str:
    """Return POSIX seconds for a reader; a witness may have signed a time that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"

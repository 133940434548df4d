"""Submissions and entries: what a department signs, and the bytes that are hashed.

A submission is 1..1,000 records of one register, signed once through the root of their own Merkle tree
(formats.md, section 5). An entry is ``envelope LF record`` (section 6): from one entry alone the author's
signature can be checked, because the envelope carries the record's path in the submission tree.
"""

from __future__ import annotations

import binascii
import hashlib
import itertools
import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from ledger import base64, ed25519, proofs, tree
from ledger.errors import MalformedError, Reason, RejectedError, SignatureError, Violation
from ledger.hashing import Hash, leaf_hash, leaf_hashes
from ledger.tiles import decode_entries, encode_bundle
from ledger.values import is_accepted_at, is_register

PAYLOAD_TYPE: Final = b"application/vnd.daybook.submission+text"
BODY_VERSION: Final = "daybook.submission/1"
ENTRY_TYPE: Final = "entry/1"
LEDGER: Final = "ledger"
"""The `submitter` of entries that the ledger writes itself."""
ANONYMOUS: Final = "anonymous"

MAX_RECORD: Final = 61_440
MAX_RECORDS: Final = 1_000
MAX_SUBMISSION: Final = 1_048_576
MAX_ENVELOPE: Final = 4_094
MAX_ENTRY: Final = 65_535
MAX_SIGNATURES: Final = 8
MAX_MESSAGE: Final = 4 * 1024 * 1024
"""Bytes of a message's value: twice what the largest submission makes."""

_PATH: Final = b',"path":"'

_SUBMITTER = re.compile(r"anonymous|ledger|uri:[!#-\[\]-~]+")


@dataclass(frozen=True, slots=True)
class Signature:
    """An Ed25519 public key (32 bytes) and its signature (64 bytes) over the PAE of a submission body."""

    key: bytes
    signature: bytes


def submission_body(register_origin: str, count: int, root: Hash) -> bytes:
    """Return the bytes that are signed, before the PAE (formats.md, section 5)."""
    return f"{BODY_VERSION}\n{register_origin}\n{count}\n{base64.encode(root)}\n".encode()


def pae(body: bytes) -> bytes:
    """Return the DSSE pre-authentication encoding of a submission body (DSSE protocol, v1)."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE, len(body), body)


def submission_id(body: bytes) -> str:
    """Return hex SHA-256(body). It covers neither key nor signature."""
    return hashlib.sha256(body).hexdigest()


@dataclass(frozen=True, slots=True)
class Submission:
    """A submission whose shape, sizes, root and signatures hold.

    `paths` has each record's concatenated path in the submission tree, sibling first; `signatures` are
    sorted by base64 key. Who the keys belong to is not judged here.
    """

    register: str
    records: tuple[bytes, ...]
    signatures: tuple[Signature, ...]
    submission_id: str
    paths: tuple[bytes, ...]


def open_submission(
    body: bytes, records: Sequence[bytes], signatures: Sequence[Signature], ledger_origin: str
) -> Submission:
    """Check shape and sizes, then signatures: the first two steps of formats.md, section 8.

    Raises RejectedError (TOO_MANY_RECORDS, RECORD_TOO_LARGE, SUBMISSION_TOO_LARGE, BODY_MISMATCH,
    SIGNATURE_COUNT, SIGNATURE_INVALID, INVALID_FIELD).
    """
    _check_sizes(records)
    register = _register_of(body, ledger_origin)
    root, paths = tree.paths(leaf_hashes(records))
    expected = submission_body(f"{ledger_origin}/{register}", len(records), root)
    if body != expected:
        raise _body_mismatch(body, expected)
    return _signed(register, records, signatures, expected, paths)


def rebuild_submission(
    register: str, records: Sequence[bytes], signatures: Sequence[Signature], ledger_origin: str
) -> Submission:
    """Return the submission that these records and signatures make, its body formed from them.

    Raises RejectedError as `open_submission` does.
    """
    _check_sizes(records)
    root, paths = tree.paths(leaf_hashes(records))
    body = submission_body(f"{ledger_origin}/{register}", len(records), root)
    return _signed(register, records, signatures, body, paths)


def _signed(
    register: str, records: Sequence[bytes], signatures: Sequence[Signature], body: bytes, paths: list[bytes]
) -> Submission:
    checked = _sorted_signatures(register, signatures)
    message = pae(body)
    for signature in checked:
        try:
            ed25519.verify(signature.key, message, signature.signature)
        except SignatureError as error:
            key = base64.encode(signature.key)
            raise RejectedError(
                Reason.SIGNATURE_INVALID,
                f"the signature of key {key} over the submission body does not verify",
                detail={"key": key},
            ) from error
    return Submission(register, tuple(records), checked, submission_id(body), tuple(paths))


def _check_sizes(records: Sequence[bytes]) -> None:
    if not records:
        violation = Violation(Reason.INVALID_FIELD, "a submission has 1 to 1,000 records", "records")
        raise RejectedError(Reason.INVALID_FIELD, "the submission has no record", violations=(violation,))
    if len(records) > MAX_RECORDS:
        raise RejectedError(
            Reason.TOO_MANY_RECORDS,
            f"{len(records)} records in one submission; at most {MAX_RECORDS}",
            detail={"limit": str(MAX_RECORDS), "count": str(len(records))},
        )
    for position, record in enumerate(records):
        if len(record) > MAX_RECORD:
            field = f"records[{position}]"
            text = f"the record has {len(record)} bytes; at most {MAX_RECORD}"
            raise RejectedError(
                Reason.RECORD_TOO_LARGE,
                f"{field}: {text}",
                violations=(Violation(Reason.RECORD_TOO_LARGE, text, field),),
                detail={"limit": str(MAX_RECORD)},
            )
    total = sum(map(len, records))
    if total > MAX_SUBMISSION:
        raise RejectedError(
            Reason.SUBMISSION_TOO_LARGE,
            f"the records have {total} bytes together; at most {MAX_SUBMISSION}",
            detail={"limit": str(MAX_SUBMISSION), "bytes": str(total)},
        )


def _register_of(body: bytes, ledger_origin: str) -> str:
    """Return the register that the second line names; the other lines are compared afterwards."""
    lines = body.split(b"\n")
    if len(lines) != 5 or lines[4] or lines[0] != BODY_VERSION.encode():
        raise _mismatch("version", f"the body must be four lines, the first {BODY_VERSION!r}")
    origin, slash, register = lines[1].decode("ascii", "replace").partition("/")
    if origin != ledger_origin or not slash:
        raise _mismatch("origin", f"this ledger's origin is {ledger_origin!r}, the body says {origin!r}")
    if not is_register(register):
        raise _mismatch("register", f"{register!r} is not the name of a register")
    return register


def _body_mismatch(body: bytes, expected: bytes) -> RejectedError:
    lines, wanted = body.split(b"\n"), expected.split(b"\n")
    for name, got, want in zip(("version", "register", "count", "root"), lines, wanted, strict=False):
        if got != want:
            return _mismatch(name, f"the body says {got!r}, the records make {want!r}")
    return _mismatch("version", "the body must be four lines")


def _mismatch(line: str, text: str) -> RejectedError:
    violation = Violation(Reason.BODY_MISMATCH, text, f"body.{line}")
    return RejectedError(
        Reason.BODY_MISMATCH, f"body, line {line}: {text}", violations=(violation,), detail={"line": line}
    )


def _sorted_signatures(register: str, signatures: Sequence[Signature]) -> tuple[Signature, ...]:
    most = MAX_SIGNATURES if register == "governing" else 1
    if not 1 <= len(signatures) <= most or len({s.key for s in signatures}) != len(signatures):
        wanted = f"1 to {MAX_SIGNATURES}, no key twice" if most > 1 else "exactly one"
        raise RejectedError(
            Reason.SIGNATURE_COUNT,
            f"{len(signatures)} signatures; a submission to {register!r} has {wanted}",
            detail={"count": str(len(signatures)), "limit": str(most)},
        )
    for position, signature in enumerate(signatures):
        for name, value, size in (("key", signature.key, 32), ("signature", signature.signature, 64)):
            if len(value) != size:
                violation = Violation(
                    Reason.INVALID_FIELD, f"must be {size} bytes", f"signatures[{position}].{name}"
                )
                raise RejectedError(
                    Reason.INVALID_FIELD,
                    f"{violation.field} has {len(value)} bytes, not {size}",
                    violations=(violation,),
                )
    return tuple(sorted(signatures, key=lambda signature: base64.encode(signature.key)))


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What the ledger adds to a submission, one value for all its entries, fixed when it is accepted.

    `accepted_at` (``YYYY-MM-DDTHH:MM:SS.mmmZ``) and `submitter` are the ledger's claims; `governing_size`
    is the view of the governing register against which the keys were judged.
    """

    accepted_at: str
    submitter: str
    governing_size: int


def form_entries(submission: Submission, acceptance: Acceptance) -> list[bytes]:
    """Return the entry bytes of every record, in order (formats.md, section 6). The bytes are final."""
    return list(map(operator.add, form_envelopes(submission, acceptance), submission.records))


def form_envelopes(submission: Submission, acceptance: Acceptance) -> list[bytes]:
    """Return what stands before each record in its entry: the envelope, and the only LF up to there."""
    count = len(submission.records)
    signatures = ",".join(
        f'{{"key":"{base64.encode(s.key)}","signature":"{base64.encode(s.signature)}"}}'
        for s in submission.signatures
    )
    head = (
        f'{{"accepted_at":"{acceptance.accepted_at}","governing_size":{acceptance.governing_size},'
        f'"submission":{{"count":{count},'
    ).encode()
    tail = (
        f',"signatures":[{signatures}]}},"submitter":"{acceptance.submitter}","type":"{ENTRY_TYPE}"}}\n'
    ).encode()
    if count == 1:
        return [head + b'"position":0' + tail]
    head += b'"path":"'
    encoded = binascii.b2a_base64
    return [
        b'%b%b","position":%d%b' % (head, encoded(path, newline=False), position, tail)
        for position, path in enumerate(submission.paths)
    ]


def form_ledger_entry(record: bytes, accepted_at: str, governing_size: int) -> bytes:
    """Return the entry of a record that the ledger writes itself, without a submission."""
    return (
        f'{{"accepted_at":"{accepted_at}","governing_size":{governing_size},'
        f'"submitter":"{LEDGER}","type":"{ENTRY_TYPE}"}}\n'
    ).encode() + record


@dataclass(frozen=True, slots=True)
class Membership:
    """Where a record stands in its submission, and who signed it. `path` is raw, sibling first."""

    count: int
    position: int
    path: bytes
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One parsed entry. `membership` is None on an entry that the ledger wrote."""

    acceptance: Acceptance
    membership: Membership | None
    record: bytes


class _SignatureText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    signature: str


class _MembershipText(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    count: int
    position: int
    signatures: list[_SignatureText]
    path: str | None = None


class _EnvelopeText(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    accepted_at: str
    governing_size: int
    submitter: str
    type: str
    submission: _MembershipText | None = None


_envelope_decoder = msgspec.json.Decoder(_EnvelopeText)
_envelope_encoder = msgspec.json.Encoder(order="sorted")


class _SignedText(msgspec.Struct, frozen=True):
    signatures: list[_SignatureText]


class _SignerText(msgspec.Struct, frozen=True):
    submission: _SignedText | None = None


_decode_signer = msgspec.json.Decoder(_SignerText).decode


def first_signer(data: bytes) -> bytes | None:
    """Return the first signer's public key of an entry from the ledger's own store, None where it has none.

    Reads as little as it can and checks nothing: not for entries from elsewhere.
    """
    signed = _decode_signer(data.partition(b"\n")[0]).submission
    return base64.decode(signed.signatures[0].key, 32) if signed is not None else None


def parse_entry(data: bytes) -> Entry:
    """Split an entry at the first LF and parse its envelope strictly (formats.md, section 6).

    Raises MalformedError when the envelope is not canonical or not of the fixed shape. The record is not
    looked into. Nothing is verified.
    """
    if len(data) > MAX_ENTRY:
        raise MalformedError(f"entry of {len(data)} bytes; at most {MAX_ENTRY}")
    envelope, separator, record = data.partition(b"\n")
    if not separator:
        raise MalformedError("entry: no LF after the envelope")
    if len(envelope) > MAX_ENVELOPE:
        raise MalformedError(f"envelope of {len(envelope)} bytes; at most {MAX_ENVELOPE}")
    try:
        text = _envelope_decoder.decode(envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"envelope: {error}") from error
    # One meaning, one spelling: whatever the decoder tolerates does not come out the same again.
    if _envelope_encoder.encode(text) != envelope:
        raise MalformedError("envelope: not in canonical form")
    return _entry_of(text, record)


def _entry_of(text: _EnvelopeText, record: bytes) -> Entry:
    if text.type != ENTRY_TYPE:
        raise MalformedError(f"envelope: type {text.type!r}, not {ENTRY_TYPE!r}")
    if not is_accepted_at(text.accepted_at):
        raise MalformedError("envelope: accepted_at not of the form YYYY-MM-DDTHH:MM:SS.mmmZ")
    if not 1 <= len(text.submitter) <= 256 or not _SUBMITTER.fullmatch(text.submitter):
        raise MalformedError("envelope: submitter not of the fixed form")
    if not 0 <= text.governing_size < 1 << 53:
        raise MalformedError("envelope: governing_size out of range")
    if (text.submitter == LEDGER) != (text.submission is None):
        raise MalformedError("envelope: the submitter is `ledger` exactly on entries without a submission")
    acceptance = Acceptance(text.accepted_at, text.submitter, text.governing_size)
    if text.submission is None:
        return Entry(acceptance, None, record)
    return Entry(acceptance, _membership_of(text.submission), record)


def _membership_of(text: _MembershipText) -> Membership:
    count, position = text.count, text.position
    if not 1 <= count <= MAX_RECORDS or not 0 <= position < count:
        raise MalformedError("envelope: count or position out of range")
    if (text.path is None) != (count == 1):
        raise MalformedError("envelope: path must be absent exactly when count is 1")
    path = b"" if text.path is None else base64.decode(text.path)
    if len(path) != 32 * tree.path_length(position, count):
        raise MalformedError("envelope: path has not the length that position and count imply")
    keys = [signature.key for signature in text.signatures]
    if not 1 <= len(keys) <= MAX_SIGNATURES or any(a >= b for a, b in itertools.pairwise(keys)):
        raise MalformedError("envelope: signatures must be 1 to 8, sorted by key, no key twice")
    signatures = tuple(
        Signature(base64.decode(signature.key, 32), base64.decode(signature.signature, 64))
        for signature in text.signatures
    )
    return Membership(count, position, path, signatures)


class EntryReader:
    """Parses the entries of a register in order, as `parse_entry` does each, at a fraction of the cost.

    Entries of one submission differ in their path, position and record only. So of each but the first it is
    enough to see that every other byte of the envelope is the same, and that the path is one.
    """

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""
        self._latest: Entry | None = None

    def parse(self, data: bytes) -> Entry:
        """Parse the next entry, or any other. Raises as `parse_entry`."""
        entry = self._following(data)
        if entry is None:
            entry = parse_entry(data)
            self._head, self._tail = _frame(entry, data)
        self._latest = entry
        return entry

    def _following(self, data: bytes) -> Entry | None:
        """Return the entry where it goes on with the submission before it; None where that is not seen."""
        latest = self._latest
        if latest is None or latest.membership is None or not self._head:
            return None
        count, position = latest.membership.count, latest.membership.position + 1
        if position == count or not data.startswith(self._head):
            return None
        size = 32 * tree.path_length(position, count)
        begin = len(self._head)
        end = begin + (size + 2) // 3 * 4
        rest = b'","position":%d%b' % (position, self._tail)
        envelope = end + len(rest) - 1
        if not data.startswith(rest, end) or envelope > MAX_ENVELOPE or len(data) > MAX_ENTRY:
            return None
        text = data[begin:end]
        try:
            path = binascii.a2b_base64(text)
        except binascii.Error:
            return None
        if len(path) != size or binascii.b2a_base64(path, newline=False) != text:
            return None
        membership = Membership(count, position, path, latest.membership.signatures)
        return Entry(latest.acceptance, membership, data[envelope + 1 :])


def _frame(entry: Entry, data: bytes) -> tuple[bytes, bytes]:
    """Return an envelope up to its path, and from after its position, LF included; empty without a path."""
    if entry.membership is None or entry.membership.count == 1:
        return b"", b""
    # No value before it can hold a quotation mark: the envelope is canonical, its values of fixed forms.
    head, _, rest = data[: len(data) - len(entry.record)].partition(_PATH)
    return head + _PATH, rest.partition(b'","position":%d' % entry.membership.position)[2]


def submission_body_of(entry: Entry, register_origin: str) -> bytes:
    """Return the submission body that an entry's record and path lead to.

    Raises ProofError when the path has the wrong length, MalformedError on an entry without submission.
    """
    membership = entry.membership
    if membership is None:
        raise MalformedError("the entry was written by the ledger: it has no submission")
    path = [Hash(membership.path[i : i + 32]) for i in range(0, len(membership.path), 32)]
    root = proofs.root_from_inclusion(membership.position, membership.count, leaf_hash(entry.record), path)
    return submission_body(register_origin, membership.count, root)


def verify_entry(entry: Entry, register_origin: str) -> str:
    """Verify every author's signature from the entry alone; return the submission_id.

    Raises SignatureError or ProofError. Who the keys belong to comes only from the governing register.
    """
    body = submission_body_of(entry, register_origin)
    assert entry.membership is not None  # noqa: S101 - submission_body_of has refused it
    if not register_origin.endswith("/governing") and len(entry.membership.signatures) != 1:
        raise SignatureError("a department's entry has exactly one signature")
    message = pae(body)
    for signature in entry.membership.signatures:
        ed25519.verify(signature.key, message, signature.signature)
    return submission_id(body)


@dataclass(frozen=True, slots=True)
class Message:
    """One unit of the event log: a submission that was accepted, or one ledger-written entry.

    `submission` is None for a ledger-written entry. `entries` are final bytes.
    """

    register: str
    acceptance: Acceptance
    entries: tuple[bytes, ...]
    submission: Submission | None

    def value(self) -> bytes:
        """Return the bytes that the event log keeps: entry-bundle framing (formats.md, section 10)."""
        return encode_bundle(self.entries)

    def records(self) -> tuple[bytes, ...]:
        """Return the records, in order."""
        if self.submission is not None:
            return self.submission.records
        return tuple(entry.partition(b"\n")[2] for entry in self.entries)


def accept(submission: Submission, acceptance: Acceptance) -> Message:
    """Fix the entry bytes of a submission."""
    return Message(submission.register, acceptance, tuple(form_entries(submission, acceptance)), submission)


def open_message(register: str, value: bytes, ledger_origin: str) -> Message:
    """Parse and verify a message of the event log, trusting none of it.

    Raises MalformedError, ProofError or SignatureError for whatever registration cannot have made: framing,
    sizes, counts, paths, one acceptance for all, signatures (formats.md, section 9, rule 1).
    """
    if len(value) > MAX_MESSAGE:
        raise MalformedError(f"message of {len(value)} bytes; at most {MAX_MESSAGE}")
    data = decode_entries(value)
    if not data:
        raise MalformedError("message: no entry")
    first = parse_entry(data[0])
    if first.membership is None:
        if len(data) != 1:
            _parse_all(data)
            raise MalformedError("message: a ledger-written entry stands alone")
        return Message(register, first.acceptance, tuple(data), None)
    records = [entry.partition(b"\n")[2] for entry in data]
    try:
        submission = _submission_of(register, records, first.membership.signatures, ledger_origin)
    except (MalformedError, SignatureError):
        _parse_all(data)
        raise
    # Re-forming and comparing checks at once: count, positions, paths, signatures and acceptance. So no other
    # entry than the first need be parsed. Behind its first LF each is a record of the submission.
    if not all(map(bytes.startswith, data, form_envelopes(submission, first.acceptance))):
        _parse_all(data)
        raise MalformedError("message: its entries are not those of one submission")
    return Message(register, first.acceptance, tuple(data), submission)


def _parse_all(data: Iterable[bytes]) -> None:
    """Raise MalformedError for the first entry that does not parse, whatever else is wrong with the message."""
    for entry in data:
        parse_entry(entry)


def messages_of(entries: Iterable[bytes], first: int = 0) -> Iterator[list[bytes]]:
    """Yield the entries of each message that a register's entries, from index `first` on, were made from.

    A last submission that is not all there is left out: whoever reads on begins again with it. Raises
    MalformedError, naming the index, for an entry that is none or does not go on with the one before.
    """
    waiting: list[bytes] = []
    reader = EntryReader()
    for index, data in enumerate(entries, first):
        try:
            membership = reader.parse(data).membership
        except MalformedError as error:
            raise MalformedError(f"entry {index} is damaged: {error}") from error
        count, position = (membership.count, membership.position) if membership else (1, 0)
        if position != len(waiting):
            raise MalformedError(f"entry {index} does not go on with the submission before it")
        waiting.append(data)
        if position == count - 1:
            yield waiting
            waiting = []


def _submission_of(
    register: str, records: Sequence[bytes], signatures: tuple[Signature, ...], ledger_origin: str
) -> Submission:
    try:
        return rebuild_submission(register, records, signatures, ledger_origin)
    except RejectedError as error:
        if error.reason is Reason.SIGNATURE_INVALID:
            raise SignatureError(str(error)) from error
        raise MalformedError(f"message: {error}") from error

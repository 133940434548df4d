"""Receipts: what verifies, what fails, and what a receipt does not prove (formats.md, section 13)."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import base64, entries
from ledger.errors import LedgerError, MalformedError, ProofError, SignatureError, VerificationError
from ledger.hashing import Hash
from ledger.notes import SignatureLine, format_note, split_note
from ledger.receipt_file import file_name
from ledger.receipts import (
    Anchor,
    FindingKind,
    KeyEvidence,
    NotBefore,
    Receipt,
    VerifiedReceipt,
    verify_receipt,
)
from ledger.records import uuid8
from ledger.tlog_proofs import TlogProof
from ledger.witnessing import Policy, cosign
from tests.support.forged_ledger import ACCEPTANCE, ACCEPTED, Log, canonical, signed_entry
from tests.support.story import LEDGER_ORIGIN, ORIGIN, REGISTER, policy, receipt, secret, signer, unwitnessed
from tests.support.vectors import VECTORS, load

CASES = {
    case["file"].removeprefix("receipts/").removesuffix(".receipt"): case
    for case in load("receipts.json")["cases"]
}
GOOD = [name for name, case in CASES.items() if case["verdict"] == "verified"]
FULLEST = receipt("anchored-at-a-smaller-size")
POLICY = policy()
DEPARTMENT = REGISTER.partition("/")[0]

REFUSED: dict[str, tuple[type[LedgerError], str]] = {
    "anchor-does-not-cover-the-entry": (VerificationError, "size 0 does not cover index 0"),
    "anchor-missing": (MalformedError, "anchor-entry, anchor one is missing"),
    "anchor-of-another-register": (SignatureError, "no signature of the log"),
    "consistency-hash-flipped": (ProofError, "consistency"),
    "consistency-missing": (ProofError, "0 hashes where the sizes imply 4"),
    "entry-missing": (MalformedError, "entry, proof one is missing"),
    "envelope-byte-flipped": (MalformedError, "envelope: accepted_at"),
    "first-line-missing": (MalformedError, "the first line"),
    "first-line-other-version": (MalformedError, "the first line"),
    "key-entry-of-another-type": (VerificationError, "type of the key entry is 'register.opened/1'"),
    "key-proof-missing": (MalformedError, "key-entry, key-proof one is missing"),
    "last-byte-missing": (MalformedError, "'consistency' has not the length"),
    "length-with-leading-zero": (MalformedError, "'02349'"),
    "log-signature-flipped": (SignatureError, f"invalid signature of {ORIGIN}"),
    "not-before-covers-the-entry": (VerificationError, "size 3, covers index 0"),
    "not-before-with-consistency-at-size-0": (ProofError, "nothing to prove from size 0"),
    "note-signed-by-a-stranger": (SignatureError, "no signature of the log"),
    "proof-hash-missing": (ProofError, "2 hashes where the sizes imply 3"),
    "proof-hashes-swapped": (ProofError, "index 0 does not lead to the root"),
    "proof-index-changed": (ProofError, "index 1 does not lead to the root"),
    "proof-with-extra-line": (MalformedError, "'proof' has an extra line"),
    "quorum-not-met": (SignatureError, "cosigned by two, which does not meet the quorum"),
    "record-byte-flipped": (ProofError, "index 0 does not lead to the root"),
    "section-twice": (MalformedError, "not in its place"),
    "section-unknown": (MalformedError, "section 'extra' is unknown"),
    "sections-in-other-order": (MalformedError, "not in its place"),
    "submission-signature-of-another-key": (SignatureError, "does not verify"),
    "trailing-byte": (MalformedError, "not a section heading"),
    "unsigned-entry-of-a-closed-type": (VerificationError, "'key.authorised/1' must be signed"),
}


# -- the vectors


@pytest.mark.parametrize("name", GOOD)
def test_a_good_receipt_proves_what_the_vectors_say(name: str) -> None:
    """Were this false, a receipt of formats.md would prove more, less or nothing."""
    case = CASES[name]
    verified = verify_receipt(receipt(name), POLICY)
    assert verified.index == case["index"]
    assert (verified.bounds.not_before, verified.bounds.not_after) == (case["not_before"], case["not_after"])
    assert verified.bounds.comparable
    assert (verified.anchored is not None) == case["anchored"]
    assert verified.sealed
    assert verified.findings == ()


@pytest.mark.parametrize("name", sorted(path.stem for path in (VECTORS / "receipts" / "bad").iterdir()))
def test_a_bad_receipt_is_refused_for_what_was_done_to_it(name: str) -> None:
    """Were this false, a forged receipt would pass, or fail for a reason that has nothing to do with it."""
    error, why = REFUSED[name]
    assert CASES[f"bad/{name}"]["verdict"] == "refused"
    with pytest.raises(error, match=re.escape(why)):
        verify_receipt(receipt(f"bad/{name}"), POLICY)


@pytest.mark.parametrize("name", GOOD)
def test_a_receipt_prints_as_it_was(name: str) -> None:
    """Were this false, a receipt put together from its parts would not be the file of formats.md."""
    assert Receipt.parse(receipt(name)).data() == receipt(name)


def test_the_fullest_receipt_proves_everything_that_a_receipt_can() -> None:
    """Were this false, something that is proved would not be said."""
    verified = verify_receipt(FULLEST, POLICY)
    assert (verified.ledger_origin, verified.register) == (LEDGER_ORIGIN, REGISTER)
    assert (verified.index, verified.size) == (0, 7)
    assert verified.record_type == "decision.registered/1"
    assert (verified.record_id, verified.version) == ("1168b4da-721e-452a-abad-d256e13d742c", 1)
    assert verified.record == (VECTORS / "records" / "decision.registered.json").read_bytes()
    assert verified.submission_id == "1d9c4a92e1fde23c1c9f65e6071d7c9965eea773d114269a611bfd07ca6b3d03"
    assert [key.hex() for key in verified.signers] == [load("keys.json")["keys"]["department"]["public_hex"]]
    assert verified.department == DEPARTMENT
    assert verified.submitter == "uri:spiffe://dsa.example/edrms"
    assert verified.accepted_at == "2026-07-03T15:20:11.042Z"
    assert verified.witnesses == ("two", "three")
    assert verified.authorised is not None
    assert (verified.authorised.index, verified.authorised.size) == (5, 12)
    assert verified.anchored is not None
    assert (verified.anchored.size, verified.anchored.by.index, verified.anchored.by.size) == (3, 8, 12)
    assert verified.anchored.by.bounds.not_after == 1789459202
    assert len(verified.not_proved) == 3


def test_a_rejection_and_a_governing_entry_are_proved_as_what_they_are() -> None:
    """Were this false, an entry of the ledger's own would pass for a department's."""
    rejection = verify_receipt(receipt("rejection"), POLICY)
    assert (rejection.record_type, rejection.signers, rejection.department) == (
        "submission.rejected/1",
        (),
        None,
    )
    assert (rejection.submission_id, rejection.submitter) == (None, "ledger")
    governing = verify_receipt(receipt("governing"), POLICY)
    assert (governing.register, governing.department) == ("governing", None)
    assert len(governing.signers) == 3


# -- every byte


def cosignature_heads(data: bytes, note: bytes) -> Iterator[int]:
    """Yield the positions of key name and key ID of the cosignature lines, wherever `note` stands in `data`."""
    for found in re.finditer(re.escape(note), data):
        for line in re.finditer("\N{EM DASH} (witness-[^ ]+) (.{6})".encode(), note):
            for group in (1, 2):
                yield from range(found.start() + line.start(group), found.start() + line.end(group))


def test_flipping_the_lowest_bit_of_any_byte_fails_but_for_164_places() -> None:
    """Were this false, a byte of a receipt would be checked by nobody, or a witness's name by too many."""
    whole = verify_receipt(FULLEST, POLICY)
    parsed = Receipt.parse(FULLEST)
    passed = []
    for position in range(len(FULLEST)):
        changed = bytearray(FULLEST)
        changed[position] ^= 1
        try:
            verified = verify_receipt(bytes(changed), POLICY)
        except LedgerError:
            continue
        passed.append(position)
        # One of three witnesses is lost, and with it nothing that was proved.
        assert replace(verified, authorised=whole.authorised, anchored=whole.anchored) == whole
    assert len(passed) == 164
    key, anchor = (part.proof.note for part in (parsed.key, parsed.anchor) if part is not None)
    assert key == anchor
    assert set(cosignature_heads(FULLEST, key)).issuperset(passed)


@pytest.mark.parametrize("name", ["minimal", "anchored-at-the-same-size", "rejection"])
@given(data=st.data())
def test_any_flipped_bit_of_the_entry_or_its_path_fails(name: str, data: st.DataObject) -> None:
    """Were this false, an entry could be altered under its receipt (promise P4)."""
    plain = receipt(name)
    end = plain.index(b"\n\n", plain.index(b"c2sp.org/"))
    changed = bytearray(plain)
    changed[data.draw(st.integers(0, end - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(LedgerError):
        verify_receipt(bytes(changed), POLICY)


@given(st.binary(max_size=200), st.integers(0, len(FULLEST)), st.integers(0, 300))
def test_no_bytes_make_the_verifier_fail_in_another_way(noise: bytes, at: int, dropped: int) -> None:
    """Were this false, a hostile file could stop an auditor's run instead of being refused."""
    for data in (noise, b"daybook.receipt/1\n" + noise, FULLEST[:at] + noise + FULLEST[at + dropped :]):
        try:
            verified = verify_receipt(data, POLICY)
        except LedgerError:
            continue
        assert verified.record == verify_receipt(FULLEST, POLICY).record


@given(st.integers(0, len(FULLEST) - 1))
def test_a_receipt_cut_short_is_refused(length: int) -> None:
    """Were this false, a lost end would be taken for a smaller receipt."""
    with pytest.raises(LedgerError):
        Receipt.parse(FULLEST[:length])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("entry 2349\n", "entry  2349\n"),
        ("entry 2349\n", "entry +2349\n"),
        ("entry 2349\n", "entry 2349 \n"),
        ("entry 2349\n", "entry 2349\r\n"),
        ("entry 2349\n", "entry 2348\n"),
        ("entry 2349\n", "entry 99999999999999999999\n"),
        ("entry 2349\n", "entry " + "9" * 5000 + "\n"),
        ("entry 2349\n", "entry\n"),
        ("entry 2349\n", "Entry 2349\n"),
        ("consistency 180\n", "consistency 0\n\nconsistency 180\n"),
        ("not-before 557\n", "not-before-consistency 557\n"),
    ],
)
def test_other_framing_is_refused(old: str, new: str) -> None:
    """Were this false, one receipt would have two spellings."""
    assert old.encode() in FULLEST
    with pytest.raises(MalformedError):
        Receipt.parse(FULLEST.replace(old.encode(), new.encode()))


def test_a_section_that_proves_nothing_is_absent_and_never_empty() -> None:
    """Were this false, one receipt would have two spellings."""
    with pytest.raises(MalformedError, match="'consistency' is empty"):
        Receipt.parse(receipt("anchored-at-the-same-size") + b"consistency 0\n\n")


def test_a_partner_alone_is_refused() -> None:
    """Were this false, half a proof could be shown as a whole one."""
    for name in ("not-before", "key-entry", "key-proof", "anchor-entry", "anchor", "entry", "proof"):
        with pytest.raises((MalformedError, VerificationError)):
            verify_receipt(without(receipt("anchored-at-the-same-size"), name), POLICY)


def without(data: bytes, name: str) -> bytes:
    """Return a receipt file without one section."""
    start = data.index(f"\n{name} ".encode()) + 1
    heading = data[start : data.index(b"\n", start) + 1]
    end = start + len(heading) + int(heading.split(b" ")[1]) + 1
    return data[:start] + data[end:]


# -- what may change


STRANGER = SignatureLine("stranger.example/w", 7, b"whatever")


def with_lines(note: bytes, lines: list[SignatureLine]) -> bytes:
    """Return a note with other signature lines."""
    return format_note(split_note(note)[0], lines)


def with_note(proof: TlogProof, lines: list[SignatureLine]) -> TlogProof:
    """Return a proof whose note has other signature lines."""
    return replace(proof, note=with_lines(proof.note, lines))


def test_lines_of_unknown_keys_may_come_and_go() -> None:
    """Were this false, a stranger could spoil a receipt by signing it."""
    whole = verify_receipt(FULLEST, POLICY)
    parsed = Receipt.parse(FULLEST)
    lines = list(split_note(parsed.proof.note)[1])
    for changed in ([*lines, STRANGER], [STRANGER, *lines], [*lines, replace(STRANGER, signature=b"another")]):
        assert verify_receipt(replace(parsed, proof=with_note(parsed.proof, changed)).data(), POLICY) == whole
    noted = receipt("with-an-unknown-signature-line")
    assert noted != FULLEST
    assert verify_receipt(noted, POLICY) == whole


def test_witnesses_beyond_the_quorum_may_be_removed_and_no_more() -> None:
    """Were this false, the quorum would not be what decides."""
    parsed = Receipt.parse(receipt("governing"))
    log, *witnesses = split_note(parsed.proof.note)[1]
    assert len(witnesses) == 3
    for gone in range(3):
        kept = [line for number, line in enumerate(witnesses) if number != gone]
        verified = verify_receipt(replace(parsed, proof=with_note(parsed.proof, [log, *kept])).data(), POLICY)
        assert len(verified.witnesses) == 2
        with pytest.raises(SignatureError, match="does not meet the quorum"):
            verify_receipt(replace(parsed, proof=with_note(parsed.proof, [log, kept[0]])).data(), POLICY)
    with pytest.raises(SignatureError, match="no signature of the log"):
        verify_receipt(replace(parsed, proof=with_note(parsed.proof, witnesses)).data(), POLICY)


def test_other_valid_cosignatures_move_the_bounds() -> None:
    """Were this false, the bounds would not come from the cosignatures that are there."""
    parsed = Receipt.parse(receipt("minimal"))
    log = split_note(parsed.proof.note)[1][0]
    checkpoint = POLICY.open(parsed.proof.note, ORIGIN).checkpoint
    later = [
        cosign(checkpoint, signer(f"witness {name}", f"witness-{name}.example/w"), 1_900_000_000)
        for name in ("one", "three")
    ]
    verified = verify_receipt(replace(parsed, proof=with_note(parsed.proof, [log, *later])).data(), POLICY)
    assert verified.witnesses == ("one", "three")
    assert verified.bounds.not_after == 1_900_000_000


def test_whole_groups_may_be_removed_and_less_is_proved_and_said() -> None:
    """Were this false, a receipt would claim what it no longer shows, or keep silent about it."""
    parsed = Receipt.parse(FULLEST)
    whole = verify_receipt(FULLEST, POLICY)

    early = verify_receipt(replace(parsed, not_before=None).data(), POLICY)
    assert (early.bounds.not_before, early.bounds.not_after) == (None, whole.bounds.not_after)
    assert any("No earliest time" in text for text in early.not_proved)

    claimed = verify_receipt(replace(parsed, key=None).data(), POLICY)
    assert (claimed.authorised, claimed.department) == (None, DEPARTMENT)
    assert any(f"{DEPARTMENT} is claimed and not proved" in text for text in claimed.not_proved)

    alone = verify_receipt(replace(parsed, anchor=None).data(), POLICY)
    assert alone.anchored is None
    assert alone.bounds.not_after == 1785837667
    assert any("Not anchored" in text for text in alone.not_proved)

    for said in ("No earliest time", "claimed and not proved", "Not anchored"):
        assert not any(said in text for text in whole.not_proved)


def test_who_governs_is_never_taken_from_a_receipt_and_it_says_so() -> None:
    """Were this false, an entry that no governance key has signed would be shown as the ledger's decision."""
    times = dict.fromkeys(("one", "two"), ACCEPTED)
    key = base64.encode(secret("stranger").public)
    members = {"record_id": "1168b4da-721e-452a-abad-d256e13d742c", "register": "governing", "version": 1}
    authorising = canonical(
        {**members, "department": DEPARTMENT, "key": key, "label": "A key", "type": "key.authorised/1"}
    )
    governing = Log("governing", [signed_entry("governing", authorising, ["stranger"])])
    proof = governing.proof(0, 1, times)
    alone = verify_receipt(Receipt(governing.data[0], proof).data(), POLICY)
    assert any("signers are those who govern is not shown" in text for text in alone.not_proved)

    record = (VECTORS / "records" / "decision.registered.json").read_bytes()
    log = Log(REGISTER, [signed_entry(REGISTER, record, ["stranger"])])
    evidence = KeyEvidence(governing.data[0], proof)
    verified = verify_receipt(Receipt(log.data[0], log.proof(0, 1, times), key=evidence).data(), POLICY)
    assert verified.authorised is not None
    assert any("That governance agreed to the signing key" in text for text in verified.not_proved)


def test_under_quorum_none_it_says_that_nothing_is_witnessed() -> None:
    """Were this false, a ledger's word alone would be shown as a witnessed fact."""
    for name in GOOD:
        verified = verify_receipt(receipt(name), unwitnessed())
        assert not verified.sealed
        assert (verified.bounds.not_before, verified.bounds.not_after) == (None, None)
        assert verified.not_proved[0].startswith("Not witnessed")
    bare = verify_receipt(receipt("bad/quorum-not-met"), unwitnessed())
    assert not bare.sealed


def test_where_two_quorums_may_share_no_witness_the_times_are_not_comparable() -> None:
    """Were this false, two clocks that share nothing would be compared."""
    anyone = Policy.parse(POLICY.text().replace(b"majority 2", b"majority 1"))
    verified = verify_receipt(FULLEST, anyone)
    assert not verified.bounds.comparable
    assert any("may not be compared" in text for text in verified.not_proved)


def test_a_policy_of_one_register_judges_its_entries_and_nothing_governing() -> None:
    """Were this false, a policy would vouch for a log that it does not name (promise P7)."""
    own = Policy.parse((VECTORS / "policy-of-one-register").read_bytes())
    assert verify_receipt(receipt("minimal"), own).index == 0
    for name in ("governing", "anchored-at-the-same-size"):
        with pytest.raises(SignatureError, match="names no key"):
            verify_receipt(receipt(name), own)


# -- receipts of a ledger that signs anything

TIMES = {"one": ACCEPTED + 10, "two": ACCEPTED + 12}
RECORD: dict[str, Any] = {
    "record_id": "0d9f4bcb-8f4a-4f5e-b1a7-6a2f3f1c2d11",
    "register": REGISTER,
    "type": "decision.registered/1",
    "version": 1,
}
KEY_RECORD: dict[str, Any] = {
    "department": DEPARTMENT,
    "key": load("keys.json")["keys"]["department"]["public_base64"],
    "label": "first",
    "record_id": "3c2e1d75-0a64-4c5b-9d0a-2b0f5a3c1e77",
    "register": "governing",
    "type": "key.authorised/1",
    "version": 1,
}


def register_of(record: bytes, *signers: str, acceptance: entries.Acceptance = ACCEPTANCE) -> Log:
    """Return a register with three entries, the second of `record`."""
    log = Log(REGISTER)
    filler = (VECTORS / "records" / "decision.registered.json").read_bytes()
    log.append(signed_entry(REGISTER, filler, ["department"]))
    if signers:
        log.append(signed_entry(REGISTER, record, signers, acceptance))
    else:
        log.append(entries.form_ledger_entry(record, acceptance.accepted_at, acceptance.governing_size))
    log.append(signed_entry(REGISTER, filler, ["department"]))
    return log


def receipt_of(log: Log) -> Receipt:
    """Return the plain receipt of the second entry."""
    return Receipt(log.data[1], log.proof(1, 3, TIMES))


def verify(made: Receipt) -> VerifiedReceipt:
    """Verify under the policy of the story."""
    return verify_receipt(made.data(), POLICY)


def verify_record(record: bytes, *signers: str) -> VerifiedReceipt:
    """Return what the receipt of a record proves, signed by these keys or written by the ledger."""
    return verify(receipt_of(register_of(record, *signers)))


def test_a_record_that_breaks_the_rules_is_a_finding() -> None:
    """Were this false, a verifier would call signed evidence a fault of the ledger (formats.md, section 1)."""
    verified = verify_record(canonical(RECORD), "department")
    assert verified.index == 1
    assert {finding.kind for finding in verified.findings} == {FindingKind.BREAKS_A_RULE}
    assert any("decided_at" in finding.description for finding in verified.findings)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"not JSON",
        b"[]",
        b"\xff\xfe",
        b"[" * 60_000,
        canonical(RECORD).replace(b'"version":1', b'"version": 1'),
        canonical(RECORD).replace(b'"version":1', b'"version":1e999'),
        canonical(RECORD).replace(b'"version":1', b'"version":' + b"9" * 5000),
        canonical(RECORD).replace(b'"version":1', b'"title":"\\ud800","version":1'),
        canonical({name: value for name, value in RECORD.items() if name != "register"}),
    ],
)
def test_a_signed_record_that_is_not_even_canonical_is_a_finding_too(record: bytes) -> None:
    """Were this false, a department could make a verifier condemn the ledger, or crash."""
    verified = verify_record(record, "department")
    assert verified.record == record
    assert verified.findings
    with pytest.raises(VerificationError, match="must be signed"):
        verify_record(b"not JSON")


def test_a_type_that_is_not_known_is_proved_and_not_understood() -> None:
    """Were this false, an old verifier could not prove the inclusion of a newer record."""
    verified = verify_record(canonical({**RECORD, "type": "decision.registered/2"}), "department")
    assert [finding.kind for finding in verified.findings] == [FindingKind.TYPE_NOT_UNDERSTOOD]
    assert verified.record_type == "decision.registered/2"
    assert any("not understood" in text for text in verified.not_proved)


def test_a_type_in_a_register_where_it_may_not_stand_is_a_finding_when_signed() -> None:
    """Were this false, a department's odd submission would be a fault of the ledger."""
    verified = verify_record(canonical({**KEY_RECORD, "register": REGISTER}), "department")
    assert {finding.kind for finding in verified.findings} == {FindingKind.BREAKS_A_RULE}


def test_a_decision_of_the_future_is_a_finding() -> None:
    """Were this false, a decision could be registered before it was made and nobody would notice."""
    record = (VECTORS / "records" / "decision.registered.json").read_bytes()
    assert verify_record(record, "department").findings == ()
    later = record.replace(b'"decided_at":"2026-06-25"', b'"decided_at":"2026-07-04"')
    assert any("decided_at" in finding.description for finding in verify_record(later, "department").findings)


@pytest.mark.parametrize("other", ["governing", f"{DEPARTMENT}/another-office", "", 7])
def test_a_record_of_another_register_fails(other: object) -> None:
    """Were this false, a record could be shown as if another office had registered it."""
    with pytest.raises(VerificationError, match="the record is of register"):
        verify_record(canonical({**RECORD, "register": other}), "department")


@pytest.mark.parametrize(
    "record_type", ["decision.registered/1", "checkpoint.anchored/1", "restore.declared/1", "x"]
)
def test_an_unsigned_entry_outside_the_closed_list_of_its_register_fails(record_type: str) -> None:
    """Were this false, the ledger could write a department's records itself (formats.md, section 6)."""
    with pytest.raises(VerificationError, match="must be signed"):
        verify_record(canonical({**RECORD, "type": record_type}))
    assert verify_record(canonical({**RECORD, "type": "submission.rejected/1"})).signers == ()


def test_a_departments_entry_with_two_signatures_fails() -> None:
    """Were this false, it would not be clear whose record it is."""
    with pytest.raises(SignatureError, match="exactly one"):
        verify_record(canonical(RECORD), "department", "department second")


def test_an_entry_signed_for_another_register_fails() -> None:
    """Were this false, a signature could be carried from one register to another."""
    log = register_of(canonical(RECORD), "department")
    log.data[1] = signed_entry(f"{DEPARTMENT}/another-office", canonical(RECORD), ["department"])
    with pytest.raises(SignatureError):
        verify(receipt_of(log))


def test_claims_of_time_are_held_against_the_witnesses() -> None:
    """Were this false, a ledger could back-date or post-date and nobody would notice (section 15)."""
    log = register_of((VECTORS / "records" / "decision.registered.json").read_bytes(), "department")

    def kinds(times: dict[str, int], before: dict[str, int]) -> list[FindingKind]:
        made = Receipt(
            log.data[1], log.proof(1, 3, times), NotBefore(log.note(1, before), log.consistency(1, 3))
        )
        return [finding.kind for finding in verify(made).findings]

    early = {"one": ACCEPTED - 5, "two": ACCEPTED}
    assert kinds(TIMES, early) == []
    assert kinds({"one": ACCEPTED - 300, "two": ACCEPTED - 299}, early) == []
    assert kinds({"one": ACCEPTED - 300, "two": ACCEPTED - 300}, early) == [FindingKind.IMPOSSIBLE]
    assert kinds(TIMES, {"one": ACCEPTED + 1, "two": ACCEPTED + 2}) == [FindingKind.CLAIMED_EARLIER]
    assert kinds({"one": 2**62, "two": 2**62}, {"one": 2**61, "two": 2**61}) == [FindingKind.CLAIMED_EARLIER]


def test_a_not_before_checkpoint_must_be_of_the_same_history() -> None:
    """Were this false, a bound could come from a history that the entry is not in."""
    log = register_of(canonical(RECORD), "department")
    made = receipt_of(log)
    good = NotBefore(log.note(1, TIMES), log.consistency(1, 3))
    assert verify(replace(made, not_before=good)).bounds.not_before == ACCEPTED + 10
    with pytest.raises(SignatureError, match="does not meet the quorum"):
        verify(replace(made, not_before=replace(good, note=log.note(1, {"one": 5}))))
    with pytest.raises(ProofError):
        verify(replace(made, not_before=replace(good, consistency=())))
    elsewhere = Log(REGISTER, [b"another", *log.data[1:]])
    with pytest.raises(ProofError):
        verify(replace(made, not_before=replace(good, note=elsewhere.note(1, TIMES))))
    governing = Log("governing", log.data)
    with pytest.raises(SignatureError):
        verify(replace(made, not_before=replace(good, note=governing.note(1, TIMES))))


def governing_with(*data: bytes) -> Log:
    """Return a governing register of six entries that mean nothing, then these."""
    return Log("governing", [b"entry %d" % number for number in range(6)] + list(data))


def key_evidence(entry: bytes, index: int = 6) -> KeyEvidence:
    """Return the key sections of an entry that stands at `index` of the governing register."""
    governing = governing_with(entry) if index == 6 else governing_with(b"another", entry)
    return KeyEvidence(entry, governing.proof(index, len(governing.data), TIMES))


def test_key_sections_must_show_this_key_for_this_department_before_this_entry() -> None:
    """Were this false, a key could be shown as a department's that never was."""
    made = receipt_of(register_of(canonical(RECORD), "department"))
    signers = ["governance one", "governance two", "department"]

    def check(record: dict[str, Any], by: list[str], index: int = 6) -> VerifiedReceipt:
        entry = signed_entry("governing", canonical(record), by)
        return verify(replace(made, key=key_evidence(entry, index)))

    verified = check(KEY_RECORD, signers)
    assert verified.authorised is not None
    assert verified.authorised.index == 6
    with pytest.raises(VerificationError, match="after governing_size 7"):
        check(KEY_RECORD, signers, index=7)
    with pytest.raises(VerificationError, match="department of the key entry is 'another'"):
        check({**KEY_RECORD, "department": "another"}, signers)
    other_key = load("keys.json")["keys"]["department second"]["public_base64"]
    with pytest.raises(VerificationError, match="key of the key entry"):
        check({**KEY_RECORD, "key": other_key}, [*signers, "department second"])
    with pytest.raises(VerificationError, match=r"type of the key entry is 'key\.revoked/1'"):
        check({**KEY_RECORD, "type": "key.revoked/1"}, signers)
    with pytest.raises(VerificationError, match="not signed by the key that it authorises"):
        check(KEY_RECORD, signers[:2])
    unsigned = entries.form_ledger_entry(canonical(KEY_RECORD), ACCEPTANCE.accepted_at, 7)
    with pytest.raises(VerificationError, match="not signed"):
        verify(replace(made, key=key_evidence(unsigned)))
    # The signature is over the body of another register.
    elsewhere = signed_entry(REGISTER, canonical(KEY_RECORD), signers[2:])
    with pytest.raises(SignatureError):
        verify(replace(made, key=key_evidence(elsewhere)))


def test_key_sections_are_only_for_what_a_department_signed() -> None:
    """Were this false, a receipt could vouch for a department that did not sign."""
    key = key_evidence(signed_entry("governing", canonical(KEY_RECORD), ["department"]))
    rejection = canonical({**RECORD, "type": "submission.rejected/1"})
    with pytest.raises(VerificationError, match="no department signed"):
        verify(replace(receipt_of(register_of(rejection)), key=key))
    with pytest.raises(VerificationError, match="no department signed"):
        verify(replace(Receipt.parse(receipt("governing")), key=key))


def anchored(made: Receipt, log: Log, note: bytes, size: int, **changed: object) -> Receipt:
    """Return a receipt with an anchor that carries `note`, of this size."""
    record = {
        "checkpoint": note.decode(),
        "record_id": uuid8(note),
        "register": "governing",
        "type": "checkpoint.anchored/1",
        "version": 1,
        **changed,
    }
    # json.dumps escapes the em dash, which the verifier must read alike.
    entry = entries.form_ledger_entry(canonical(record), ACCEPTANCE.accepted_at, 7)
    consistency = log.consistency(*sorted((size, 3))) if size else ()
    return replace(made, anchor=Anchor(entry, governing_with(entry).proof(6, 7, TIMES), consistency))


def test_an_anchor_must_carry_a_checkpoint_of_this_history_that_covers_the_entry() -> None:
    """Were this false, the governing root would seem to commit to an entry that it does not."""
    log = register_of(canonical(RECORD), "department")
    log.append(b"a fourth entry")
    made = receipt_of(log)
    for size in (2, 3, 4):
        verified = verify(anchored(made, log, log.note(size, TIMES), size))
        assert verified.anchored is not None
        assert verified.anchored.size == size
    with pytest.raises(VerificationError, match="size 1 does not cover index 1"):
        verify(anchored(made, log, log.note(1, TIMES), 1))
    with pytest.raises(SignatureError, match="does not meet the quorum"):
        verify(anchored(made, log, log.note(2, {"two": 5}), 2))
    with pytest.raises(VerificationError, match="type of the anchor entry"):
        verify(anchored(made, log, log.note(2, TIMES), 2, type="restore.declared/1"))
    with pytest.raises(VerificationError, match="register of the anchor entry"):
        verify(anchored(made, log, log.note(2, TIMES), 2, register=REGISTER))
    for text in (7, "", "no note", "\ud800"):
        with pytest.raises(LedgerError):
            verify(anchored(made, log, log.note(2, TIMES), 2, checkpoint=text))
    # Colluding witnesses and a forked register: two roots of one size.
    fork = Log(REGISTER, [*log.data[:2], b"forked", b"forked"])
    for size in (3, 4):
        with pytest.raises(ProofError):
            verify(anchored(made, log, fork.note(size, TIMES), size))


def test_an_anchor_has_a_consistency_proof_exactly_when_the_sizes_differ() -> None:
    """Were this false, hashes could stand in a receipt that nobody checks."""
    log = register_of(canonical(RECORD), "department")
    made = anchored(receipt_of(log), log, log.note(3, TIMES), 3)
    assert made.anchor is not None
    with pytest.raises(ProofError):
        verify(replace(made, anchor=replace(made.anchor, consistency=(Hash(bytes(32)),))))


def test_an_anchor_that_a_department_signed_is_none() -> None:
    """Were this false, governance keys could write anchors."""
    log = register_of(canonical(RECORD), "department")
    made = anchored(receipt_of(log), log, log.note(3, TIMES), 3)
    assert made.anchor is not None
    entry = signed_entry("governing", made.anchor.entry.partition(b"\n")[2], ["governance one"])
    forged = replace(made.anchor, entry=entry, proof=governing_with(entry).proof(6, 7, TIMES))
    with pytest.raises(VerificationError, match="not written by the ledger"):
        verify(replace(made, anchor=forged))


def test_the_governing_register_is_not_anchored_in_itself() -> None:
    """Were this false, a receipt could prove a thing by itself."""
    anchor = Receipt.parse(FULLEST).anchor
    with pytest.raises(VerificationError, match="not anchored in itself"):
        verify(replace(Receipt.parse(receipt("governing")), anchor=anchor))


def test_an_anchored_note_over_16_kib_fails() -> None:
    """Were this false, one entry could be made of signature lines that nobody knows."""
    log = register_of(canonical(RECORD), "department")
    lines = split_note(log.note(3, TIMES))[1]
    padding = [SignatureLine("s", number, bytes(600)) for number in range(20)]
    note = with_lines(log.note(3, TIMES), [*lines, *padding])
    assert len(note) > 16_384
    with pytest.raises(MalformedError, match="more than 16384"):
        verify(anchored(receipt_of(log), log, note, 3))


def test_an_envelope_of_another_shape_is_an_integrity_failure() -> None:
    """Were this false, the ledger's own part of an entry could be odd without consequence (section 1)."""
    log = register_of(canonical(RECORD), "department")
    log.data[1] = log.data[1].replace(b'"governing_size":7', b'"governing_size": 7')
    with pytest.raises(MalformedError, match="envelope"):
        verify(receipt_of(log))


@pytest.mark.parametrize("origin", ["another.example/log", "ledger.daybook.example", "x"])
def test_a_log_that_is_no_register_gives_no_receipt(origin: str) -> None:
    """Were this false, a receipt would name a register that cannot exist."""
    made = Receipt.parse(receipt("minimal"))
    note = made.proof.note.replace(ORIGIN.encode(), origin.encode(), 1)
    with pytest.raises(VerificationError, match="not the origin of a register"):
        verify(replace(made, proof=replace(made.proof, note=note)))


def test_a_receipt_is_named_for_its_record_and_only_for_a_uuid() -> None:
    """Were this false, a record_id from outside could write anywhere in a file system."""
    verified = verify_receipt(FULLEST, POLICY)
    assert verified.record_id is not None
    assert file_name(verified.record_id, 1) == "1168b4da-721e-452a-abad-d256e13d742c.1.receipt"
    for record_id, version in (("../../etc/passwd", 1), ("", 1), (verified.record_id, 0)):
        with pytest.raises(MalformedError):
            file_name(record_id, version)


def test_verifying_loads_no_grpc_kafka_or_database() -> None:
    """Were this false, a tribunal would need the operator's whole software to check one file."""
    program = (
        "import sys, ledger.receipts\n"
        "unwanted = 'grpc google sqlite3 faust aiokafka psycopg asyncio daybook services'.split()\n"
        "print(sorted(set(unwanted) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

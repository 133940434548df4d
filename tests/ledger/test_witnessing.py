"""Witness policies, quorums, and what they say of a checkpoint."""

from __future__ import annotations

import hashlib
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.checkpoints import Checkpoint, sign_checkpoint
from ledger.errors import LedgerError, MalformedError, SignatureError
from ledger.hashing import Hash
from ledger.notes import SignerKey, VerifierKey, format_note, split_note
from ledger.witnessing import (
    Cosignature,
    Policy,
    Quorum,
    check_clocks,
    cosign,
    judge,
)
from tests.support.quorums import quorums
from tests.support.story import (
    GOVERNING_ORIGIN,
    LEDGER_ORIGIN,
    ORIGIN,
    POLICY_FILE,
    policy,
    secret,
    signer,
    unwitnessed,
)
from tests.support.vectors import VECTORS, load

C2SP_POLICY = (VECTORS / "c2sp" / "policy-both").read_bytes()
VKEYS: dict[str, str] = load("keys.json")["vkeys"]
LOG_LINE = f"log {VKEYS['governing']}\n"
ONE, TWO, THREE = (f"witness {name} {VKEYS[f'witness {name}']}\n" for name in ("one", "two", "three"))
CHECKPOINT = Checkpoint(ORIGIN, 7, Hash(bytes(32)))


def note(*witnesses: str, checkpoint: Checkpoint = CHECKPOINT, log: str = "ledger") -> bytes:
    """Return `checkpoint` signed by the ledger and cosigned, at times 101, 102 ..., by these of the story."""
    text, lines = split_note(sign_checkpoint(checkpoint, signer(log, checkpoint.origin)))
    cosigned = [
        cosign(checkpoint, signer(f"witness {name}", f"witness-{name}.example/w"), time)
        for time, name in enumerate(witnesses, start=101)
    ]
    return format_note(text, [*lines, *cosigned])


# -- the file


@pytest.mark.parametrize("data", [POLICY_FILE, (VECTORS / "policy-of-one-register").read_bytes()])
def test_a_policy_file_in_its_plainest_spelling_prints_as_it_was(data: bytes) -> None:
    """Were this false, its fingerprint would not be what sha256sum prints."""
    parsed = Policy.parse(data)
    assert parsed.text() == data
    assert parsed.fingerprint == hashlib.sha256(data).hexdigest()


def test_comments_blanks_and_words_for_thresholds_do_not_change_what_is_trusted() -> None:
    """Were this false, two people who trust the same would compare two fingerprints."""
    spelled = b"# a comment \xff\n\n \t# another\n" + POLICY_FILE.replace(b" ", b" \t ").replace(
        b"witness", b"  witness", 1
    ).replace(b"three\n", b"three \n")
    assert Policy.parse(spelled) == policy()
    both = Policy.parse(C2SP_POLICY.replace(b" all ", b" 2 "))
    assert both.text() == Policy.parse(C2SP_POLICY.replace(b" 2 ", b" all ")).text()
    assert b"group both 1 one two" in Policy.parse(C2SP_POLICY.replace(b" all ", b" any ")).text()


def test_urls_are_kept() -> None:
    """Were this false, a ledger could not find its witnesses."""
    text = LOG_LINE[:-1] + " https://log.example\n" + ONE[:-1] + " https://w.example/\nquorum one\n"
    parsed = Policy.parse(text.encode())
    assert (parsed.logs[0].url, parsed.witnesses[0].url) == ("https://log.example", "https://w.example/")
    assert parsed.text() == text.encode()


def test_names_in_a_policy_are_opaque_bytes() -> None:
    """Were this false, a name that is not UTF-8 would be refused, or come out as another."""
    data = POLICY_FILE.replace(b" one", b" \xff\x80")
    parsed = Policy.parse(data)
    assert parsed.text() == data
    parsed.description().encode("utf-8")


def test_a_policy_may_have_many_lines() -> None:
    """Were this false, a policy that C2SP asks us to support would be refused."""
    keys = [SignerKey(f"key-{n}", type(secret("ledger"))(bytes([n]) * 32)) for n in range(64)]
    lines = [f"log {key.verifier}\n" for key in keys[:32]]
    lines += [f"witness w{n} {key.cosigner}\n" for n, key in enumerate(keys[32:])]
    lines += [f"group g{n} any w{n}\n" for n in range(31)]
    lines += [
        "group all-of-them all w31 " + " ".join(f"g{n}" for n in range(31)) + "\n",
        "quorum all-of-them\n",
    ]
    parsed = Policy.parse("".join(lines).encode())
    everyone = {f"w{n}" for n in range(32)}
    assert parsed.quorum.is_met_by(everyone)
    assert not any(parsed.quorum.is_met_by(everyone - {name}) for name in everyone)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no quorum line"),
        (LOG_LINE, "no quorum line"),
        (LOG_LINE + "quorum none", "does not end with LF"),
        (LOG_LINE + "quorum none\nquorum none\n", "line 3: .*second quorum"),
        (LOG_LINE + "quorum none none\n", "line 2"),
        (LOG_LINE + "quorum one\n" + ONE, "line 2: .*not defined on an earlier line"),
        (LOG_LINE + "group g any one\n" + ONE + "quorum g\n", "line 2: .*not defined on an earlier line"),
        (LOG_LINE + "quorum none # a trailing comment\n", "line 2"),
        (LOG_LINE.replace("\n", "\r\n") + "quorum none\n", "byte 0x0d"),
        (LOG_LINE + "quorum none\x00\n", "byte 0x00"),
        (LOG_LINE + "quorum none\x7f\n", "byte 0x7f"),
        (LOG_LINE + "quorum none\x0b\n", "byte 0x0b"),
        (LOG_LINE + "Quorum none\n", "line 2"),
        (LOG_LINE + "quorum\n", "line 2"),
        ("log\nquorum none\n", "line 1"),
        (LOG_LINE[:-1] + " url more\nquorum none\n", "line 1"),
        (LOG_LINE + LOG_LINE + "quorum none\n", "one public key stands on two log lines"),
        (LOG_LINE + f"log {VKEYS['register']}\nquorum none\n", "one public key stands on two log lines"),
        (
            LOG_LINE + ONE + ONE.replace("one ", "two ", 1) + "quorum one\n",
            "one public key stands on two witness",
        ),
        (LOG_LINE + ONE + TWO.replace("two ", "one ", 1) + "quorum one\n", "'one' is defined twice"),
        (LOG_LINE + ONE + "group one any one\nquorum one\n", "'one' is defined twice"),
        (LOG_LINE + ONE.replace("one ", "none ", 1) + "quorum none\n", "'none' is reserved"),
        (LOG_LINE + ONE + "group none any one\nquorum none\n", "'none' is reserved"),
        (LOG_LINE + ONE + "group g any none\nquorum g\n", "not defined"),
        (LOG_LINE + ONE + "group g any g\nquorum g\n", "not defined"),
        (LOG_LINE + ONE + "group g 0 one\nquorum g\n", "threshold '0'"),
        (LOG_LINE + ONE + "group g 01 one\nquorum g\n", "threshold '01'"),
        (LOG_LINE + ONE + "group g +1 one\nquorum g\n", "threshold"),
        (LOG_LINE + ONE + "group g 2 one\nquorum g\n", "asks for 2 of 1"),
        (LOG_LINE + ONE + "group g all\nquorum g\n", "asks for 0 of 0"),
        (LOG_LINE + ONE + "group g 1 one one\nquorum g\n", "a member twice"),
        (LOG_LINE + ONE + "group g 1 one\ngroup h 1 one\nquorum g\n", "a member twice"),
        (f"log {VKEYS['witness one']}\nquorum none\n", "type 0x04, not 0x01"),
        (LOG_LINE + f"witness one {VKEYS['governing']}\nquorum one\n", "type 0x01, not 0x04"),
        (LOG_LINE + ONE.replace("+9ba24533", "+9ba24534") + "quorum one\n", "line 2: .*key ID"),
    ],
)
def test_a_file_that_is_no_policy_is_refused_with_the_reason(text: str, why: str) -> None:
    """Were this false, a verifier could trust something else than its owner wrote down."""
    with pytest.raises(MalformedError, match=why):
        Policy.parse(text.encode())


@given(st.binary(max_size=200))
def test_bytes_either_are_a_policy_or_are_refused(data: bytes) -> None:
    """Were this false, some file would make a verifier fail in a way that nobody catches."""
    for candidate in (data, POLICY_FILE + data, data + b"\n" + POLICY_FILE):
        try:
            parsed = Policy.parse(candidate)
        except MalformedError:
            continue
        assert Policy.parse(parsed.text()) == parsed


@pytest.mark.parametrize("position", range(0, len(POLICY_FILE), 7))
def test_the_fingerprint_changes_with_what_is_trusted(position: int) -> None:
    """Were this false, two policies that trust different keys could be compared as one."""
    data = bytearray(POLICY_FILE)
    data[position] ^= 1
    try:
        parsed = Policy.parse(bytes(data))
    except MalformedError:
        return
    assert parsed == policy() or parsed.fingerprint != policy().fingerprint


def test_a_policy_says_in_english_what_it_trusts() -> None:
    """Were this false, the owner of a policy could not see what is in it."""
    text = policy().description()
    assert f"Ledger {LEDGER_ORIGIN}, every register, by the key 86c3d78c" in text
    assert "Witness two is witness-two.example/w" in text
    assert "majority holds when at least 2 of one, two, three hold." in text
    assert "Any two quorums share a witness" in text
    assert f"Fingerprint {policy().fingerprint}" in text
    assert "No witness is asked for" in unwitnessed().description()
    assert "alone" in Policy.parse(C2SP_POLICY).description()


# -- the log's keys


def test_the_governing_key_signs_for_every_register_of_its_ledger_and_for_nothing_else() -> None:
    """Were this false, a policy would trust too little or too much (formats.md, section 11)."""
    keys = {origin: [str(key) for key in policy().log_keys(origin)] for origin in (ORIGIN, GOVERNING_ORIGIN)}
    assert keys == {ORIGIN: [VKEYS["register"]], GOVERNING_ORIGIN: [VKEYS["governing"]]}
    assert [str(key) for key in policy().log_keys(f"{LEDGER_ORIGIN}/access")] == [VKEYS["access"]]
    for origin in (
        "",
        LEDGER_ORIGIN,
        f"{LEDGER_ORIGIN}/",
        f"{LEDGER_ORIGIN}/acknowledgements",
        f"{LEDGER_ORIGIN}/Department/office",
        f"{LEDGER_ORIGIN}/department",
        f"{LEDGER_ORIGIN}/department/office/more",
        f"{LEDGER_ORIGIN}/department/governing",
        f"another.{ORIGIN}",
        "ledger.daybook.example.evil/department/office",
    ):
        assert policy().log_keys(origin) == ()
    assert policy().ledger_origins == (LEDGER_ORIGIN,)


def test_a_policy_of_one_register_trusts_that_register_alone() -> None:
    """Were this false, naming one register would trust the ledger's others."""
    own = Policy.parse((VECTORS / "policy-of-one-register").read_bytes())
    assert [str(key) for key in own.log_keys(ORIGIN)] == [VKEYS["register"]]
    assert own.log_keys(GOVERNING_ORIGIN) == ()
    assert own.ledger_origins == ()
    assert judge(note("one", "two"), own, ORIGIN).sealed
    with pytest.raises(SignatureError, match="names no key"):
        judge(note("one", "two"), own, GOVERNING_ORIGIN)


def test_either_key_of_a_rotation_is_accepted() -> None:
    """Were this false, a ledger could not change its key."""
    successor = VerifierKey(GOVERNING_ORIGIN, 1, secret("stranger").public)
    rotated = Policy.parse(f"log {successor}\n".encode() + POLICY_FILE)
    assert len(rotated.log_keys(ORIGIN)) == 2
    for log in ("ledger", "stranger"):
        assert judge(note("one", "two", log=log), rotated, ORIGIN).sealed
    with pytest.raises(SignatureError):
        judge(note("one", "two", log="stranger"), policy(), ORIGIN)


# -- judging a checkpoint


@pytest.mark.parametrize(
    "case", load("checkpoints.json"), ids=lambda case: f"{case['register']} {case['size']}"
)
def test_every_checkpoint_of_the_story_is_sealed(case: dict[str, Any]) -> None:
    """Were this false, the ledger's own sealed notes would not count."""
    judged = judge(case["note"].encode(), policy(), f"{LEDGER_ORIGIN}/{case['register']}")
    assert judged.sealed
    assert (judged.checkpoint.size, {each.size for each in judged.cosignatures}) == (
        case["size"],
        {case["size"]},
    )


@pytest.mark.parametrize("count", range(4))
def test_a_quorum_is_two_of_three(count: int) -> None:
    """Were this false, one witness could seal, or two could not."""
    for names in combinations(("one", "two", "three"), count):
        data = note(*names)
        if count < 2:
            with pytest.raises(SignatureError, match="does not meet the quorum 'majority'"):
                judge(data, policy(), ORIGIN)
        else:
            judged = judge(data, policy(), ORIGIN)
            assert judged.sealed
            assert judged.checkpoint == CHECKPOINT
            assert judged.cosignatures == tuple(
                Cosignature(name, 7, time) for time, name in enumerate(names, start=101)
            )
        opened = policy().open(data, ORIGIN)
        assert policy().is_sealed(opened) == (count >= 2)


def test_two_lines_of_one_witness_count_once() -> None:
    """Were this false, one witness could be its own quorum."""
    with pytest.raises(SignatureError, match="cosigned by one"):
        judge(note("one", "one"), policy(), ORIGIN)


def test_under_quorum_none_the_logs_signature_is_enough_and_nothing_is_sealed() -> None:
    """Were this false, an unwitnessed checkpoint would be taken for a witnessed one."""
    for data in (note(), note("one", "two", "three")):
        judged = judge(data, unwitnessed(), ORIGIN)
        assert not judged.sealed
        assert not unwitnessed().is_sealed(unwitnessed().open(data, ORIGIN))


def test_one_wrong_cosignature_of_a_known_witness_spoils_the_note() -> None:
    """Were this false, a forged time could stand beside a quorum."""
    good = note("one", "two", "three")
    other = note("one", "two", "three", checkpoint=Checkpoint(ORIGIN, 8, Hash(bytes(32))))
    text, lines = split_note(good)
    forged = format_note(text, [*lines[:3], split_note(other)[1][3]])
    with pytest.raises(SignatureError, match="invalid signature of witness-three"):
        judge(forged, policy(), ORIGIN)


def test_a_cosignature_far_in_the_future_is_an_error() -> None:
    """Were this false, a witness with a wrong clock could move a bound at will."""
    cosignatures = [Cosignature("one", 7, 1_000), Cosignature("two", 7, 1_300)]
    check_clocks(cosignatures, 1_000)
    with pytest.raises(SignatureError, match="of two: 301 s in the future"):
        check_clocks(cosignatures, 999)


@given(st.data())
def test_any_flipped_bit_of_a_note_that_just_meets_the_quorum_fails(data: st.DataObject) -> None:
    """Were this false, a sealed note could be changed and still seal."""
    sealed = note("one", "two")
    changed = bytearray(sealed)
    changed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(LedgerError):
        judge(bytes(changed), policy(), ORIGIN)


# -- quorums


@given(quorums())
def test_quorums_are_comparable_exactly_when_no_two_of_them_are_disjoint(quorum: Quorum) -> None:
    """Were this false, two times of clocks that share nothing would be compared."""
    sets = [set(chosen) for n in range(6) for chosen in combinations(quorum.witnesses, n)]
    met = [chosen for chosen in sets if quorum.is_met_by(chosen)]
    assert quorum.comparable == all(first & second for first in met for second in met)

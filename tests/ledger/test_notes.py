"""Signed notes: grammar, keys, which signatures count (C2SP signed-note)."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import base64
from ledger.ed25519 import SecretKey
from ledger.errors import MalformedError, SignatureError
from ledger.notes import (
    COSIGNATURE_V1,
    ED25519,
    MAX_NOTE_SIZE,
    MAX_SIGNATURE_LINES,
    Note,
    SignatureLine,
    SignerKey,
    UnverifiedNoteError,
    VerifierKey,
    cosignature_line,
    cosignature_message,
    cosignature_time,
    format_note,
    open_note,
    sign_note,
    split_note,
)
from tests.support.story import LEDGER_ORIGIN, ORIGIN, secret
from tests.support.vectors import VECTORS, load

LOG = "daybook.example/register/dept-a+374327f9+Ae7AIwA2YJWB1b9jSaTbE1wBMPGRChF0vgvMOZ/p6360"
LOG_SECRET = "PRIVATE+KEY+daybook.example/register/dept-a+374327f9+AcQQufOipZxrrZAEgfWpW6m6Qtm1wbEZ2vs2YtACRmuU"
LOG_KEY = VerifierKey.parse(LOG)
NOTE = (VECTORS / "c2sp" / "size-7.note").read_bytes()
RAW_SIGNATURE = bytes.fromhex(
    "9b3969384cdf7c05290be8b40774ae1f88afd4d117949c25fdb8fc69a200c73e"
    "8a2c735d7bee9441ffe39dffefe39b1f4b191f035ad1f842f388e2097a9b7d0c"
)
EM_DASH = "\N{EM DASH}".encode()

names = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P", "S"], exclude_characters="+"),
    min_size=1,
    max_size=20,
)
signers = st.builds(SignerKey, names, st.binary(min_size=32, max_size=32).map(SecretKey))
texts = st.lists(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], min_codepoint=0x20), max_size=20),
    max_size=5,
).map(lambda lines: "".join(f"{line}\n" for line in ["origin", *lines]).encode())


def test_the_note_of_the_specification_opens() -> None:
    """Were this false, we would not read what other programs write."""
    note = open_note(NOTE, [LOG_KEY])
    (line,) = note.verified
    assert note.text == NOTE[: NOTE.index(b"\n\n") + 1]
    assert line.name == "daybook.example/register/dept-a"
    assert line.key_id == 0x374327F9
    assert line.signature == RAW_SIGNATURE
    assert note.unverified == ()


def test_signing_the_text_of_the_specification_gives_its_note() -> None:
    """Were this false, other programs could not read what we write."""
    signer = SignerKey.parse(LOG_SECRET)
    assert sign_note(split_note(NOTE)[0], [signer]) == NOTE
    assert signer.text() == LOG_SECRET
    assert str(signer.verifier) == LOG


@pytest.mark.parametrize(
    "vkey",
    [
        LOG,
        "witness-one.example/w+443f5740+BMBvq2IuvHVwwCgbpzLNVdwMY7cZFs+QdfP+9uVEMpV+",
        "witness-one.example/w+056c52ac+AcBvq2IuvHVwwCgbpzLNVdwMY7cZFs+QdfP+9uVEMpV+",
        "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        *load("keys.json")["vkeys"].values(),
    ],
)
def test_published_verifier_keys_parse_and_print_again(vkey: str) -> None:
    """Were this false, a key ID would not be computed as everyone else does."""
    assert str(VerifierKey.parse(vkey)) == vkey


def test_a_renamed_key_is_the_registers_own_vkey() -> None:
    """Were this false, one log key could not serve every register (formats.md, section 11)."""
    vkeys = load("keys.json")["vkeys"]
    assert str(VerifierKey.parse(vkeys["governing"]).renamed(ORIGIN)) == vkeys["register"]


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        "name+374327f9",
        LOG.replace("+374327f9+", "+374327fa+"),
        LOG.replace("+374327f9+", "+374327F9+"),
        LOG.replace("+374327f9+", "+74327f9+"),
        LOG.replace("+374327f9+", "+0x4327f9+"),
        LOG.replace("dept-a", "dept-b"),
        LOG.replace("dept-a", "dept a"),
        LOG[:-1],
        LOG + "\n",
        LOG[:-1] + "1",
        "+374327f9+" + LOG.rpartition("+")[2],
        "name+374327f9+",
        f"name+374327f9+{base64.encode(bytes([2]) + bytes(32))}",
        f"name+374327f9+{base64.encode(bytes([1]) + bytes(31))}",
        "na\udcffme+374327f9+" + LOG.rpartition("+")[2],
    ],
)
def test_other_spellings_of_a_verifier_key_are_refused(vkey: str) -> None:
    """Were this false, a key could be trusted that is not the one its name and key ID say."""
    with pytest.raises(MalformedError):
        VerifierKey.parse(vkey)


@pytest.mark.parametrize(
    "skey",
    [
        "",
        LOG,
        LOG_SECRET.replace("374327f9", "374327fa"),
        LOG_SECRET.replace("PRIVATE", "PUBLIC"),
        LOG_SECRET[:-4],
        LOG_SECRET[:-1] + "=",
        f"PRIVATE+KEY+name+374327f9+{base64.encode(bytes([4]) + bytes(32))}",
    ],
)
def test_other_spellings_of_a_signer_key_are_refused_without_showing_it(skey: str) -> None:
    """Were this false, a typing error could put a secret key into a log file."""
    with pytest.raises(MalformedError) as refused:
        SignerKey.parse(skey)
    shown = "".join(str(error) for error in (refused.value, refused.value.__cause__))
    assert "QufOipZxrrZAEgfWpW6m6Qtm1wbEZ2vs2YtACRmu" not in shown


def test_a_signer_key_does_not_show_its_seed() -> None:
    """Were this false, printing an object would publish a secret key."""
    signer = SignerKey.parse(LOG_SECRET)
    assert signer.secret.seed.hex() not in repr(signer)
    assert repr(signer.secret.seed) not in repr(signer)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(NOTE.replace(b"7\n", b"7\r\n"), id="CR before LF"),
        pytest.param(NOTE.replace(b"7\n", b"7\t\n"), id="TAB"),
        pytest.param(NOTE.replace(b"7\n", b"7\x00\n"), id="NUL"),
        pytest.param(NOTE.replace(b"7\n", b"7\xc0\xaf\n"), id="overlong UTF-8"),
        pytest.param(NOTE.replace(b"7\n", b"7\xed\xa0\x80\n"), id="surrogate in UTF-8"),
        pytest.param(NOTE.replace(EM_DASH, b"-"), id="hyphen for the em dash"),
        pytest.param(NOTE.replace(EM_DASH, "\N{EN DASH}".encode()), id="en dash for the em dash"),
        pytest.param(NOTE.replace(EM_DASH + b" ", EM_DASH + b"  "), id="two spaces"),
        pytest.param(NOTE.replace(b"dept-a N0", b"dept-a  N0"), id="two spaces before base64"),
        pytest.param(NOTE.replace(b"dept-a N0", b"dept+a N0"), id="plus in the name"),
        pytest.param(NOTE.replace(b"dept-a N0", "dept\u2003a N0".encode()), id="white space in the name"),
        pytest.param(NOTE.replace(b"dept-a N0Mn", b"dept-a"), id="no base64"),
        pytest.param(NOTE[:-1], id="no last LF"),
        pytest.param(NOTE + b"\n", id="nothing after the last blank line"),
        pytest.param(NOTE[: NOTE.index(b"\n\n") + 2], id="no signature line"),
        pytest.param(NOTE.replace(b"\n\n", b"\n"), id="no blank line"),
        pytest.param(b"", id="nothing"),
        pytest.param(NOTE + b"more\n", id="a line that is no signature"),
        pytest.param(NOTE.replace(b"fQw=", b"fQw"), id="no padding"),
        pytest.param(NOTE.replace(b"fQw=", b"fQx="), id="spare bits"),
        pytest.param(NOTE.replace(b"+i", b"-i"), id="another alphabet"),
        pytest.param(NOTE[: NOTE.index(b"N0Mn")] + b"N0Mn+Q==\n", id="a key ID and nothing else"),
        pytest.param(b"x" * MAX_NOTE_SIZE + NOTE, id="over 1,000,000 bytes"),
    ],
)
def test_a_note_outside_the_grammar_is_refused(data: bytes) -> None:
    """Were this false, two programs could read two different notes from the same bytes."""
    assert data != NOTE
    with pytest.raises(MalformedError):
        open_note(data, [LOG_KEY])


def test_a_note_may_have_a_hundred_signature_lines_and_no_more() -> None:
    """Were this false, a stranger could make a verifier work without bound, or a long note would not open."""
    lines = [SignatureLine("stranger", number, b"signature") for number in range(MAX_SIGNATURE_LINES)]
    text, known = split_note(NOTE)
    note = open_note(format_note(text, [*known, *lines[1:]]), [LOG_KEY])
    assert len(note.unverified) == MAX_SIGNATURE_LINES - 1
    with pytest.raises(MalformedError, match="101 signature lines"):
        open_note(format_note(text, [*known, *lines]), [LOG_KEY])


def test_a_text_may_hold_blank_lines_and_look_like_a_note() -> None:
    """Were this false, the signed text would end at the first blank line, and not at the last."""
    signer = SignerKey.parse(LOG_SECRET)
    data = sign_note(NOTE, [signer])
    assert open_note(data, [LOG_KEY]).text == NOTE


def test_a_wrong_signature_of_a_known_key_is_not_an_unknown_one() -> None:
    """Were this false, an operator could not tell tampering from a note that nobody known has signed."""
    flipped = NOTE.replace(b"+Zs5", b"+Zs6")
    with pytest.raises(SignatureError) as invalid:
        open_note(flipped, [LOG_KEY])
    assert not isinstance(invalid.value, UnverifiedNoteError)
    with pytest.raises(UnverifiedNoteError):
        open_note(NOTE.replace(b"dept-a N0", b"dept-b N0"), [LOG_KEY])
    with pytest.raises(UnverifiedNoteError):
        open_note(NOTE, [LOG_KEY.renamed("another")])
    with pytest.raises(UnverifiedNoteError):
        open_note(NOTE, [])


def test_one_wrong_signature_of_a_known_key_spoils_a_note_with_good_ones() -> None:
    """Were this false, a forged line could travel under the cover of a good one."""
    other = SignerKey("other", secret("stranger"))
    text, (line,) = split_note(NOTE)
    forged = SignatureLine("other", other.verifier.key_id, line.signature)
    data = format_note(text, [line, forged])
    assert open_note(data, [LOG_KEY]).unverified == (forged,)
    with pytest.raises(SignatureError, match="invalid signature of other"):
        open_note(data, [LOG_KEY, other.verifier])


def test_of_two_lines_of_one_known_key_the_first_counts() -> None:
    """Were this false, we would read a note otherwise than the Go implementation does."""
    text, (line,) = split_note(NOTE)
    wrong = SignatureLine(line.name, line.key_id, bytes(64))
    assert open_note(format_note(text, [line, wrong]), [LOG_KEY]).verified == (line,)
    with pytest.raises(SignatureError):
        open_note(format_note(text, [wrong, line]), [LOG_KEY])


def test_identical_lines_of_an_unknown_key_become_one() -> None:
    """Were this false, a stranger's line could fill a note by repetition."""
    text, (line,) = split_note(NOTE)
    unknown = SignatureLine("stranger", 1, b"x")
    other = SignatureLine("stranger", 1, b"y")
    note = open_note(format_note(text, [unknown, line, unknown, other]), [LOG_KEY])
    assert note.unverified == (unknown, other)


def test_one_key_twice_among_the_verifiers_is_a_mistake() -> None:
    """Were this false, a configuration error would pass unseen."""
    with pytest.raises(MalformedError):
        open_note(NOTE, [LOG_KEY, LOG_KEY])


def test_adding_lines_keeps_the_others_and_replaces_a_key_that_signs_anew() -> None:
    """Were this false, merging cosignatures would lose or double lines."""
    text, (line,) = split_note(NOTE)
    unknown = SignatureLine("stranger", 1, b"x")
    note = open_note(format_note(text, [unknown, line]), [LOG_KEY])
    witness = SignerKey("w", secret("witness one"))
    first, second = (cosignature_line(text, witness, time) for time in (5, 6))
    once = note.with_lines([first])
    assert once == format_note(text, [line, unknown, first])
    again = open_note(once, [LOG_KEY, witness.cosigner]).with_lines([second])
    assert again == format_note(text, [line, unknown, second])
    assert open_note(again, [LOG_KEY, witness.cosigner]).trimmed() == format_note(text, [line, second])


def test_a_cosignature_has_the_bytes_of_the_specification() -> None:
    """Were this false, no verifier elsewhere would accept our witnesses (witness.md, section 7, V3)."""
    line = (VECTORS / "c2sp" / "witness-one-at-1790000000.line").read_bytes()
    seed = bytes.fromhex("08e53c3e30137f60a648d0af263be40dd0a1f8ed4eaa34ca7ac58c8a3073edf9")
    witness = SignerKey("witness-one.example/w", SecretKey(seed))
    text = b"daybook.example/register/dept-a\n13\n3aw7ZZHP1DT0kAOeUJG0fXej7FaKDVVobeRpdgJdtag=\n"
    assert cosignature_message(text, 1790000000).hex() == (
        "636f7369676e61747572652f76310a74696d6520313739303030303030300a646179626f6f6b2e6578616d706c652f726567"
        "69737465722f646570742d610a31330a336177375a5a4850314454306b414f65554a47306658656a3746614b4456566f6265"
        "527064674a647461673d0a"
    )
    made = cosignature_line(text, witness, 1790000000)
    assert made.line == line
    note = open_note(text + b"\n" + line, [witness.cosigner])
    assert cosignature_time(note.verified[0].signature) == 1790000000


@pytest.mark.parametrize("time", [0, -1, 2**63])
def test_a_cosignature_has_a_time(time: int) -> None:
    """Were this false, a witness could sign a time that says nothing or that others cannot read."""
    with pytest.raises(ValueError, match="out of range"):
        cosignature_line(b"text\n", SignerKey("w", secret("witness one")), time)


@pytest.mark.parametrize("time", [0, 2**63, 2**64 - 1])
def test_a_cosignature_without_a_readable_time_does_not_verify(time: int) -> None:
    """Were this false, a witness's line could count without bounding anything."""
    key = secret("witness one")
    verifier = VerifierKey("w", COSIGNATURE_V1, key.public)
    signature = time.to_bytes(8, "big") + key.sign(cosignature_message(b"text\n", time))
    with pytest.raises(SignatureError, match="time"):
        verifier.verify(b"text\n", signature)


def test_a_cosignature_of_another_length_does_not_verify() -> None:
    """Were this false, bytes that nobody signed could ride along in a line."""
    line = cosignature_line(b"text\n", SignerKey("w", secret("witness one")), 5)
    verifier = SignerKey("w", secret("witness one")).cosigner
    for signature in (line.signature + b"\x00", line.signature[:-1], line.signature[8:]):
        with pytest.raises(SignatureError):
            verifier.verify(b"text\n", signature)


def test_a_signature_over_the_text_is_no_cosignature() -> None:
    """Were this false, one key pair under two types could be played against itself."""
    key = secret("witness one")
    signer = SignerKey("w", key)
    assert signer.verifier.key_id != signer.cosigner.key_id
    with pytest.raises(UnverifiedNoteError):
        open_note(sign_note(b"text\n", [signer]), [signer.cosigner])


def test_a_text_without_last_lf_is_not_signed() -> None:
    """Were this false, we would make notes that nobody can open."""
    with pytest.raises(ValueError, match="LF"):
        sign_note(b"text", [SignerKey.parse(LOG_SECRET)])
    with pytest.raises(ValueError, match="at least one"):
        sign_note(b"text\n", [])


@given(texts, st.lists(signers, min_size=1, max_size=4, unique_by=lambda signer: signer.name))
def test_what_is_signed_opens_again(text: bytes, keys: list[SignerKey]) -> None:
    """Were this false, some text or name would make a note that its own keys refuse."""
    data = sign_note(text, keys)
    note = open_note(data, [key.verifier for key in keys])
    assert note == Note(text, note.verified, ())
    assert [line.name for line in note.verified] == [key.name for key in keys]
    assert note.trimmed() == data
    assert open_note(data, [keys[-1].verifier]).verified == note.verified[-1:]


@given(names, st.sampled_from([ED25519, COSIGNATURE_V1]), st.binary(min_size=32, max_size=32))
def test_every_verifier_key_prints_and_parses(name: str, key_type: int, public: bytes) -> None:
    """Were this false, some key could not be written into a policy."""
    key = VerifierKey(name, key_type, public)
    assert VerifierKey.parse(str(key)) == key
    digest = hashlib.sha256(name.encode() + bytes([10, key_type]) + public).digest()
    assert key.key_id == int.from_bytes(digest[:4], "big")


@given(st.binary(max_size=300))
def test_bytes_either_are_a_note_or_are_refused(data: bytes) -> None:
    """Were this false, some bytes would make the parser fail in a way that nobody catches."""
    for candidate in (data, NOTE + data, NOTE[:-9] + data, NOTE[:90] + data + NOTE[90:]):
        try:
            text, lines = split_note(candidate)
        except MalformedError:
            continue
        assert format_note(text, lines) == candidate


@given(st.integers(0, len(NOTE) * 8 - 1))
def test_any_flipped_bit_of_a_note_fails(bit: int) -> None:
    """Were this false, something in a note would be neither signed nor checked."""
    data = bytearray(NOTE)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises((MalformedError, SignatureError)):
        open_note(bytes(data), [LOG_KEY])


def test_the_acknowledgement_key_of_the_story_is_no_log_key() -> None:
    """Were this false, an acknowledgement could be taken for a checkpoint (formats.md, section 12)."""
    vkeys = load("keys.json")["vkeys"]
    acknowledging = VerifierKey.parse(vkeys["acknowledgements"])
    assert acknowledging.name == f"{LEDGER_ORIGIN}/acknowledgements"
    assert acknowledging.public != VerifierKey.parse(vkeys["governing"]).public

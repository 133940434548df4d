"""Acknowledgements: a signed promise, and nobody else's (formats.md, section 12)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.acknowledgements import Acknowledgement, open_acknowledgement, sign_acknowledgement
from ledger.errors import LedgerError, MalformedError, SignatureError
from ledger.notes import SignerKey, UnverifiedNoteError, VerifierKey, sign_note
from tests.support.story import LEDGER_ORIGIN, ORIGIN, secret, signer
from tests.support.vectors import VECTORS, load

NOTE = (VECTORS / "acknowledgement.note").read_bytes()
NAME = f"{LEDGER_ORIGIN}/acknowledgements"
KEY = VerifierKey.parse(load("keys.json")["vkeys"]["acknowledgements"])
OF_THE_STORY = Acknowledgement(
    ORIGIN, "1d9c4a92e1fde23c1c9f65e6071d7c9965eea773d114269a611bfd07ca6b3d03", 3, "2026-07-03T15:20:11.042Z"
)


def test_the_acknowledgement_of_the_story_opens() -> None:
    """Were this false, a department could not check what it was promised."""
    assert open_acknowledgement(NOTE, KEY) == OF_THE_STORY


def test_signing_it_again_gives_the_same_bytes() -> None:
    """Were this false, our acknowledgements would not be those of formats.md."""
    assert sign_acknowledgement(OF_THE_STORY, signer("acknowledgements", NAME)) == NOTE


def test_only_the_acknowledgement_key_of_that_ledger_counts() -> None:
    """Were this false, another key, such as the log's, could promise in the ledger's name."""
    for other in (signer("ledger", NAME), signer("acknowledgements", "another.example/acknowledgements")):
        with pytest.raises(UnverifiedNoteError):
            open_acknowledgement(NOTE, other.verifier)
    # Signed by the given key, but about the register of another ledger.
    elsewhere = SignerKey("another.example/acknowledgements", secret("acknowledgements"))
    with pytest.raises(SignatureError, match=r"signed by another\.example"):
        open_acknowledgement(sign_note(OF_THE_STORY.text(), [elsewhere]), elsewhere.verifier)
    with pytest.raises(ValueError, match="is not"):
        sign_acknowledgement(OF_THE_STORY, elsewhere)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("daybook.acknowledgement/1", "daybook.acknowledgement/2"),
        ("\n3\n", "\n03\n"),
        ("\n3\n", "\n0\n"),
        ("\n3\n", "\n1001\n"),
        ("\n3\n", "\n3\nmore\n"),
        ("\n3\n", "\n"),
        ("1d9c", "1D9C"),
        ("1d9c", "1d9"),
        ("15:20:11.042Z", "15:20:11Z"),
        ("15:20:11.042Z", "15:20:60.042Z"),
        ("2026-07-03", "2026-02-30"),
        ("15:20:11.042Z", "15:20:11.042+00:00"),
        ("/secretary-of-state", ""),
        ("/secretary-of-state", "/Secretary"),
        (LEDGER_ORIGIN, "Ledger"),
        (".042Z\n", ".042Z"),
    ],
)
def test_other_spellings_are_refused(old: str, new: str) -> None:
    """Were this false, one promise would have two texts."""
    text = OF_THE_STORY.text().decode()
    assert old in text
    with pytest.raises(MalformedError):
        Acknowledgement.parse(text.replace(old, new, 1).encode())


def test_text_that_is_not_utf8_is_refused() -> None:
    """Were this false, the parser would fail in a way that nobody catches."""
    with pytest.raises(MalformedError):
        Acknowledgement.parse(b"\xff\n")


@given(st.integers(0, len(NOTE) * 8 - 1))
def test_any_flipped_bit_fails(bit: int) -> None:
    """Were this false, part of a promise would not be signed."""
    data = bytearray(NOTE)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(LedgerError):
        open_acknowledgement(bytes(data), KEY)


@given(
    st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    st.integers(1, 1000),
    st.datetimes().map(lambda moment: moment.isoformat(timespec="milliseconds") + "Z"),
    st.sampled_from(["governing", "access", "department/office"]),
)
def test_every_acknowledgement_prints_and_parses(
    submission_id: str, count: int, at: str, register: str
) -> None:
    """Were this false, some promise could be made and not be read again."""
    made = Acknowledgement(f"{LEDGER_ORIGIN}/{register}", submission_id, count, at)
    assert Acknowledgement.parse(made.text()) == made
    note = sign_acknowledgement(made, signer("acknowledgements", NAME))
    assert open_acknowledgement(note, KEY) == made

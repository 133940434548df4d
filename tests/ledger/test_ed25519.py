from __future__ import annotations

from dataclasses import FrozenInstanceError
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.ed25519 import SecretKey, verify
from ledger.errors import MalformedError, SignatureError
from tests.support.vectors import load

SEED = sha256(b"tests, an Ed25519 key").digest()
KEY = SecretKey(SEED)


@pytest.mark.parametrize("case", load("ed25519.json"), ids=lambda case: case["name"])
def test_the_verdict_is_that_of_the_vectors(case: dict[str, Any]) -> None:
    """If false, two verifiers of formats.md can disagree about one signature."""
    public, message, signature = (
        bytes.fromhex(case[f"{part}_hex"]) for part in ("public", "message", "signature")
    )
    if case["valid"]:
        verify(public, message, signature)
    else:
        with pytest.raises(SignatureError):
            verify(public, message, signature)


def test_signatures_are_those_of_rfc_8032() -> None:
    """If false, this is not Ed25519: test 2 of RFC 8032, section 7.1."""
    key = SecretKey(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert key.public.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert key.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


@given(st.binary(max_size=300))
def test_what_is_signed_verifies(message: bytes) -> None:
    """If false, an honest signature is refused."""
    signature = KEY.sign(message)
    assert len(signature) == 64
    verify(KEY.public, message, signature)


@settings(max_examples=200)
@given(st.binary(min_size=1, max_size=100), st.data())
def test_any_flipped_bit_fails(message: bytes, data: st.DataObject) -> None:
    """If false, something that the department did not sign passes as signed."""
    parts = [KEY.public, message, KEY.sign(message)]
    which = data.draw(st.integers(0, 2))
    bit = data.draw(st.integers(0, len(parts[which]) * 8 - 1))
    flipped = bytearray(parts[which])
    flipped[bit // 8] ^= 1 << bit % 8
    parts[which] = bytes(flipped)
    with pytest.raises(SignatureError):
        verify(*parts)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_public_key_of_another_length_is_refused(length: int) -> None:
    """If false, libsodium reads past the end of the key."""
    with pytest.raises(SignatureError, match="public key"):
        verify(bytes(length), b"message", KEY.sign(b"message"))


@pytest.mark.parametrize("length", [0, 63, 65, 128])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    """If false, bytes move between signature and message: 65 bytes would sign the last one too."""
    signature = (KEY.sign(b"message") + b"message" * 20)[:length]
    with pytest.raises(SignatureError, match="bytes, not 64"):
        verify(KEY.public, b"message", signature)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    """If false, a damaged key file makes a key."""
    with pytest.raises(MalformedError, match="seed"):
        SecretKey(bytes(length))


def test_the_seed_is_never_shown() -> None:
    """If false, a secret key gets into a log or a traceback."""
    for text in (repr(KEY), str(KEY), f"{KEY}"):
        assert SEED.hex() not in text
        assert repr(SEED)[2:-1] not in text
        assert repr(KEY.public) in text


def test_a_secret_key_is_frozen_and_equal_by_its_public_key() -> None:
    """If false, a key can change under its holder, or comparing keys looks at secrets."""
    assert SecretKey(SEED) == KEY
    assert SecretKey(bytes(32)) != KEY
    with pytest.raises(FrozenInstanceError):
        KEY.seed = bytes(32)  # type: ignore[misc]

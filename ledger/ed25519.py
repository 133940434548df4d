"""Ed25519 by libsodium, whose verdict is the rule (formats.md, opening)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

from ledger.errors import MalformedError, SignatureError

SEED_SIZE: Final = 32
"""Bytes in the seed of a secret key."""

PUBLIC_KEY_SIZE: Final = 32
"""Bytes in a public key."""

SIGNATURE_SIZE: Final = 64
"""Bytes in a signature."""


@dataclass(frozen=True, slots=True)
class SecretKey:
    """A secret key, made from its 32-byte `seed` (RFC 8032, section 5.1.5).

    Neither `repr` nor an error message shows the seed; two keys are equal when their public keys are.
    Raises MalformedError when the seed has another length.
    """

    seed: bytes = field(repr=False, compare=False)
    public: bytes = field(init=False)
    _expanded: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_SIZE:
            raise MalformedError(f"secret key: the seed has {len(self.seed)} bytes, not {SEED_SIZE}")
        public, expanded = crypto_sign_seed_keypair(self.seed)
        object.__setattr__(self, "public", public)
        object.__setattr__(self, "_expanded", expanded)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of `message`: always the same one for the same message."""
        return crypto_sign(message, self._expanded)[:SIGNATURE_SIZE]


def verify(public: bytes, message: bytes, signature: bytes) -> None:
    """Return when `signature` is one of `message` by `public`; raise SignatureError otherwise.

    Valid is exactly what libsodium's `crypto_sign_verify_detached` accepts: a malleated S and public
    keys or R of small order are refused.
    """
    # libsodium reads 32 and 64 bytes whatever it is given, and the binding does not check.
    if len(public) != PUBLIC_KEY_SIZE:
        raise SignatureError(f"Ed25519: the public key has {len(public)} bytes, not {PUBLIC_KEY_SIZE}")
    if len(signature) != SIGNATURE_SIZE:
        raise SignatureError(f"Ed25519: the signature has {len(signature)} bytes, not {SIGNATURE_SIZE}")
    try:
        # crypto_sign_open is crypto_sign_verify_detached of the first 64 bytes over the rest.
        crypto_sign_open(signature + message, public)
    except BadSignatureError as error:
        raise SignatureError("Ed25519: the signature does not verify") from error

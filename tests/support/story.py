"""The ledger that formats.md's vectors tell of: its keys, its policy, its receipts. TEST ONLY keys."""

from __future__ import annotations

from typing import Final

from ledger.ed25519 import SecretKey
from ledger.notes import SignerKey
from ledger.witnessing import Policy
from tests.support.vectors import VECTORS, load

LEDGER_ORIGIN: Final = "ledger.daybook.example"
REGISTER: Final = "department-for-synthetic-affairs/secretary-of-state"
ORIGIN: Final = f"{LEDGER_ORIGIN}/{REGISTER}"
GOVERNING_ORIGIN: Final = f"{LEDGER_ORIGIN}/governing"
POLICY_FILE: Final = (VECTORS / "policy").read_bytes()


def policy() -> Policy:
    """Return the policy that a verifier of the story holds: two of three witnesses."""
    return Policy.parse(POLICY_FILE)


def unwitnessed() -> Policy:
    """Return the same policy, asking for no witness."""
    return Policy.parse(POLICY_FILE.replace(b"quorum majority", b"quorum none"))


def secret(name: str) -> SecretKey:
    """Return a key of the story, such as ``ledger`` or ``witness one``."""
    return SecretKey(bytes.fromhex(load("keys.json")["keys"][name]["seed_hex"]))


def signer(name: str, key_name: str) -> SignerKey:
    """Return a key of the story under the name that it signs notes by."""
    return SignerKey(key_name, secret(name))


def receipt(name: str) -> bytes:
    """Return the bytes of a receipt file of the vectors, such as ``minimal`` or ``bad/trailing-byte``."""
    return (VECTORS / "receipts" / f"{name}.receipt").read_bytes()

"""Who made a pack: a signed note over its tag manifests, which vouch for every other byte of it.

It says who packed, and no more: what the records prove, their receipts prove.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Final

from ledger.errors import MalformedError, VerificationError
from ledger.notes import SignerKey, VerifierKey, open_note, sign_note
from services.evidence.bag import ALGORITHMS, PACKED_BY, SIGNATURE

SIGNATURE_TYPE: Final = "daybook.evidence-signature/1"


def signature_text(identifier: str, variant: str, tag_manifests: Mapping[str, bytes]) -> bytes:
    """Return what is signed: the type, which pack, which variant, and the digest of each tag manifest."""
    lines = [SIGNATURE_TYPE, identifier, variant]
    for algorithm in ALGORITHMS:
        name = f"tagmanifest-{algorithm}.txt"
        lines.append(f"{algorithm} {hashlib.new(algorithm, tag_manifests[name]).hexdigest()} {name}")
    return "".join(f"{line}\n" for line in lines).encode()


def sign_pack(identifier: str, variant: str, tag_manifests: Mapping[str, bytes], key: SignerKey) -> bytes:
    """Return the note by which the packer signs the tag manifests."""
    return sign_note(signature_text(identifier, variant, tag_manifests), [key])


def verify_signature(
    note: bytes, identifier: str, variant: str, tag_manifests: Mapping[str, bytes], key: VerifierKey
) -> None:
    """Return where the packer's note holds; raise MalformedError or SignatureError otherwise."""
    opened = open_note(note, [key])
    if opened.text != signature_text(identifier, variant, tag_manifests):
        raise MalformedError("the signed text is not of these tag manifests")
    if opened.trimmed() != note:
        raise MalformedError("a line beside the packer's signature")


def check_signature(
    read: Callable[[str], bytes] | None,
    stated: str | None,
    identifier: str,
    variant: str,
    wanted: VerifierKey | None,
) -> VerifierKey:
    """Return the key that signed a pack, by the key that its bag-info states.

    `read` reads a file of the pack, None where there is no signature; the key must be `wanted` where that is
    not None. Raises MalformedError, VerificationError, and what `read` does.
    """
    if read is None:
        raise MalformedError("missing: the pack is not signed, or its signature was taken away")
    if stated is None:
        raise MalformedError(f"bag-info names no {PACKED_BY}")
    key = VerifierKey.parse(stated)
    if wanted is not None and key != wanted:
        raise VerificationError(f"signed by {key}, not by {wanted}")
    tags = {name: read(name) for name in (f"tagmanifest-{each}.txt" for each in ALGORITHMS)}
    verify_signature(read(SIGNATURE), identifier, variant, tags, key)
    return key

"""Base64 with one spelling per value: RFC 4648 section 4, padded, canonical.

Python's own decoder tolerates spare bits and foreign bytes; two spellings of one value would be two texts
that could be signed.
"""

import binascii

from ledger.errors import MalformedError


def encode(data: bytes) -> str:
    """Return `data` as padded base64."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def decode(text: str | bytes, size: int | None = None) -> bytes:
    """Return the bytes that `text` spells, `size` of them where given.

    Raises MalformedError for any other alphabet, missing padding, spare bits or another size.
    """
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except (ValueError, UnicodeError) as error:
        raise MalformedError(f"not base64: {error}") from error
    if encode(data) != (text if isinstance(text, str) else text.decode("ascii")):
        raise MalformedError("base64 in another than its canonical spelling")
    if size is not None and len(data) != size:
        raise MalformedError(f"base64 of {len(data)} bytes, not {size}")
    return data

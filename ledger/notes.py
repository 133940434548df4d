"""Signed notes: a text, a blank line, signature lines; and the keys that make and check them.

C2SP signed-note and tlog-cosignature. What is signed is exactly the text as received: verify those bytes,
then parse those same bytes. Two key types verify here, Ed25519 over the text (0x01, logs) and timestamped
Ed25519 cosignatures (0x04, witnesses); lines of every other type are unknown, kept, and give no trust.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ledger import base64, ed25519
from ledger.errors import MalformedError, SignatureError

ED25519 = 0x01
"""Key type: Ed25519 over the text of the note."""

COSIGNATURE_V1 = 0x04
"""Key type: Ed25519 over time and text, as witnesses sign (C2SP tlog-cosignature)."""

MAX_NOTE_SIZE = 1_000_000
"""Bytes of the largest note that is read."""

MAX_SIGNATURE_LINES = 100
"""Signature lines of the longest note that is read."""

MAX_TIME = 2**63 - 1
"""The latest time of a cosignature, POSIX seconds."""

_PUBLIC_SIZE = 32
_SIGNATURE_SIZE = 64
_TIME_SIZE = 8
_KEY_ID_SIZE = 4

_EM_DASH = "\N{EM DASH} "

# Unicode White_Space and "+" as in signed-note, and controls, which no note can hold. Spelled out:
# str.isspace() counts other code points.
_KEY_NAME = re.compile(
    "[^\x00-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000+]+",
)
_CONTROL_BYTES = re.compile(rb"[\x00-\x09\x0b-\x1f]")
_KEY_ID = re.compile("[0-9a-f]{8}")


class UnverifiedNoteError(SignatureError):
    """A well-formed note carries no signature of a key that the caller knows.

    Not the same as a signature that is there and wrong, which is a plain `SignatureError`.
    """


def _check_key_name(name: str) -> None:
    if not _KEY_NAME.fullmatch(name):
        raise MalformedError(f"key name {name!r}: empty, or holds white space, a control or '+'")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MalformedError(f"key name {name!r}: not UTF-8") from error


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key under a name: what a verifier trusts (C2SP signed-note, "Verifier keys").

    `name` is 1 or more characters without white space and '+'; `type` is `ED25519` or `COSIGNATURE_V1`;
    `public` is 32 bytes. `key_id` follows from the three: the first 4 bytes, big-endian, of
    SHA-256(name || 0x0A || type || public).

    Raises MalformedError for another type, size or name.
    """

    name: str
    type: int
    public: bytes
    key_id: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_key_name(self.name)
        if self.type not in (ED25519, COSIGNATURE_V1):
            raise MalformedError(f"key {self.name}: type 0x{self.type:02x} is not supported")
        if len(self.public) != _PUBLIC_SIZE:
            raise MalformedError(f"key {self.name}: {len(self.public)} bytes, not {_PUBLIC_SIZE}")
        digest = hashlib.sha256(self.name.encode() + b"\n" + bytes([self.type]) + self.public).digest()
        object.__setattr__(self, "key_id", int.from_bytes(digest[:_KEY_ID_SIZE], "big"))

    @classmethod
    def parse(cls, vkey: str) -> VerifierKey:
        """Parse ``<name>+<8 hex digits>+<base64 of type and key>``.

        Raises MalformedError, also when the key ID is not the one that name, type and key give.
        """
        # Only the first two: base64 may hold "+" itself.
        parts = vkey.split("+", 2)
        if len(parts) != 3:
            raise MalformedError("verifier key: not <name>+<key id>+<key>")
        name, key_id, encoded = parts
        if not _KEY_ID.fullmatch(key_id):
            raise MalformedError(f"verifier key {name!r}: key ID is not 8 lowercase hex digits")
        key = base64.decode(encoded)
        if not key:
            raise MalformedError(f"verifier key {name!r}: empty")
        parsed = cls(name, key[0], key[1:])
        if parsed.key_id != int(key_id, 16):
            raise MalformedError(f"verifier key {name!r}: key ID {key_id} is not {parsed.key_id:08x}")
        return parsed

    def __str__(self) -> str:
        """Return the vkey line, without LF."""
        return f"{self.name}+{self.key_id:08x}+{base64.encode(bytes([self.type]) + self.public)}"

    def renamed(self, name: str) -> VerifierKey:
        """Return the same key under another name, key ID computed anew (formats.md, section 11)."""
        return VerifierKey(name, self.type, self.public)

    def verify(self, text: bytes, signature: bytes) -> None:
        """Check `signature` (the bytes after the key ID) over the note text `text`.

        Raises SignatureError.
        """
        if self.type == ED25519:
            ed25519.verify(self.public, text, signature)
            return
        if len(signature) != _TIME_SIZE + _SIGNATURE_SIZE:
            raise SignatureError(f"cosignature of {self.name}: {len(signature)} bytes, not 72")
        time = cosignature_time(signature)
        if not 0 < time <= MAX_TIME:
            raise SignatureError(f"cosignature of {self.name}: time {time} is out of range")
        ed25519.verify(self.public, cosignature_message(text, time), signature[_TIME_SIZE:])


@dataclass(frozen=True, slots=True)
class SignerKey:
    """A secret key under a name. Its text form holds the seed; its repr does not."""

    name: str
    secret: ed25519.SecretKey
    verifier: VerifierKey = field(init=False, repr=False, compare=False)
    """The key that verifies this one's signatures over notes (type 0x01)."""

    def __post_init__(self) -> None:
        # Worked out once: it is needed at every signature.
        object.__setattr__(self, "verifier", VerifierKey(self.name, ED25519, self.secret.public))

    @classmethod
    def parse(cls, skey: str) -> SignerKey:
        """Parse ``PRIVATE+KEY+<name>+<8 hex digits>+<base64 of 0x01 and seed>``.

        Raises MalformedError; no message shows any of the secret.
        """
        parts = skey.split("+", 4)
        if len(parts) != 5 or parts[:2] != ["PRIVATE", "KEY"]:
            raise MalformedError("signer key: not PRIVATE+KEY+<name>+<key id>+<key>")
        try:
            key = base64.decode(parts[4])
        except MalformedError:
            # Not chained: the traceback of a decoder may show what it read.
            raise MalformedError("signer key: not base64") from None
        if len(key) != 1 + _PUBLIC_SIZE or key[0] != ED25519:
            raise MalformedError("signer key: not an Ed25519 seed")
        signer = cls(parts[2], ed25519.SecretKey(key[1:]))
        if parts[3] != f"{signer.verifier.key_id:08x}":
            raise MalformedError(f"signer key {signer.name!r}: key ID does not match")
        return signer

    def text(self) -> str:
        """Return the secret text form, without LF. Keep it as the seed is kept."""
        encoded = base64.encode(bytes([ED25519]) + self.secret.seed)
        return f"PRIVATE+KEY+{self.name}+{self.verifier.key_id:08x}+{encoded}"

    @property
    def cosigner(self) -> VerifierKey:
        """The key that verifies this one's cosignatures (type 0x04)."""
        return VerifierKey(self.name, COSIGNATURE_V1, self.secret.public)


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One signature line of a note: who, and the bytes after the key ID. It proves nothing by itself."""

    name: str
    key_id: int
    signature: bytes

    @property
    def line(self) -> bytes:
        """The line with its LF: em dash, space, name, space, base64."""
        encoded = base64.encode(self.key_id.to_bytes(_KEY_ID_SIZE, "big") + self.signature)
        return f"{_EM_DASH}{self.name} {encoded}\n".encode()

    @property
    def by(self) -> tuple[str, int]:
        """Name and key ID: a key is known only if both match."""
        return self.name, self.key_id


@dataclass(frozen=True, slots=True)
class Note:
    """A note that at least one known key has signed. `unverified` lines are kept and give no trust."""

    text: bytes
    verified: tuple[SignatureLine, ...]
    unverified: tuple[SignatureLine, ...]

    def with_lines(self, lines: Sequence[SignatureLine]) -> bytes:
        """Return the note's bytes with `lines` added: verified first, then unverified, then the new ones.

        An older line of a key that signs anew is left out.
        """
        signing = {line.by for line in lines}
        kept = [line for line in (*self.verified, *self.unverified) if line.by not in signing]
        return format_note(self.text, [*kept, *lines])

    def trimmed(self) -> bytes:
        """Return the note's bytes with the verified lines only.

        To keep an unverified line is to let a stranger plant one that makes the note fail later.
        """
        return format_note(self.text, self.verified)


def cosignature_message(text: bytes, time: int) -> bytes:
    """Return what a witness signs: checkpoint `text` at `time`, POSIX seconds (tlog-cosignature)."""
    return b"cosignature/v1\ntime %d\n" % time + text


def is_cosignature(signature: bytes) -> bool:
    """Tell whether the bytes after a key ID have the shape of type 0x04: a time from 1 on, and 64 bytes."""
    return len(signature) == _TIME_SIZE + _SIGNATURE_SIZE and 0 < cosignature_time(signature) <= MAX_TIME


def cosignature_time(signature: bytes) -> int:
    """Return the time, POSIX seconds, that stands in the first 8 bytes of a type 0x04 signature."""
    return int.from_bytes(signature[:_TIME_SIZE], "big")


def cosignature_line(text: bytes, signer: SignerKey, time: int) -> SignatureLine:
    """Sign `text` at `time`, POSIX seconds, as a witness does (tlog-cosignature, type 0x04).

    Raises ValueError for a time that is not 1..2^63-1.
    """
    if not 0 < time <= MAX_TIME:
        raise ValueError(f"time {time} is out of range")
    signature = signer.secret.sign(cosignature_message(text, time))
    return SignatureLine(signer.name, signer.cosigner.key_id, time.to_bytes(_TIME_SIZE, "big") + signature)


def split_note(data: bytes) -> tuple[bytes, tuple[SignatureLine, ...]]:
    """Split a note into its text, final LF included, and its signature lines. Grammar only: verifies nothing.

    Raises MalformedError (C2SP signed-note; at most 1,000,000 bytes and 100 lines).
    """
    if len(data) > MAX_NOTE_SIZE:
        raise MalformedError(f"note: {len(data)} bytes, more than {MAX_NOTE_SIZE}")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError("note: not UTF-8", error.start) from error
    if control := _CONTROL_BYTES.search(data):
        raise MalformedError("note: holds a control character", control.start())
    # The last blank line: the text may hold others.
    separator = data.rfind(b"\n\n")
    if separator < 0:
        raise MalformedError("note: no blank line before the signatures")
    start = separator + 2
    if start == len(data) or not data.endswith(b"\n"):
        raise MalformedError("note: does not end in a signature line with LF", len(data))
    lines = data[start:-1].decode().split("\n")
    if len(lines) > MAX_SIGNATURE_LINES:
        raise MalformedError(f"note: {len(lines)} signature lines, more than {MAX_SIGNATURE_LINES}", start)
    return data[: separator + 1], tuple(_signature_line(line) for line in lines)


def _signature_line(line: str) -> SignatureLine:
    if not line.startswith(_EM_DASH):
        raise MalformedError("note: a signature line does not start with an em dash and a space")
    name, space, encoded = line.removeprefix(_EM_DASH).partition(" ")
    _check_key_name(name)
    if not space:
        raise MalformedError(f"note: signature line of {name!r} has no signature")
    payload = base64.decode(encoded)
    if len(payload) <= _KEY_ID_SIZE:
        raise MalformedError(f"note: signature of {name!r} is too short")
    return SignatureLine(name, int.from_bytes(payload[:_KEY_ID_SIZE], "big"), payload[_KEY_ID_SIZE:])


def open_note(data: bytes, verifiers: Sequence[VerifierKey]) -> Note:
    """Verify a note and return it (C2SP signed-note).

    Of several lines of one known key the first is checked and the others dropped; identical unknown lines
    become one.

    Raises MalformedError; SignatureError when a known key's signature is wrong, even if others are good;
    UnverifiedNoteError when no known key has signed. Two of `verifiers` with one name and key ID are a
    mistake in the caller's configuration: MalformedError.
    """
    known = {(key.name, key.key_id): key for key in verifiers}
    if len(known) != len(verifiers):
        raise MalformedError("two verifier keys share one name and key ID")
    text, lines = split_note(data)
    verified: dict[tuple[str, int], SignatureLine] = {}
    unverified: dict[SignatureLine, None] = {}
    for line in lines:
        key = known.get(line.by)
        if key is None:
            unverified[line] = None
        elif line.by not in verified:
            try:
                key.verify(text, line.signature)
            except SignatureError as error:
                raise SignatureError(f"note: invalid signature of {line.name}") from error
            verified[line.by] = line
    if not verified:
        raise UnverifiedNoteError("note: no signature of a known key")
    return Note(text, tuple(verified.values()), tuple(unverified))


def format_note(text: bytes, lines: Iterable[SignatureLine]) -> bytes:
    """Return the bytes of a note with this text and these lines.

    Raises ValueError if `text` does not end with LF, or there are no lines.
    """
    if not text.endswith(b"\n"):
        raise ValueError("the text of a note ends with LF")
    signatures = b"".join(line.line for line in lines)
    if not signatures:
        raise ValueError("a note has at least one signature line")
    return text + b"\n" + signatures


def sign_note(text: bytes, signers: Sequence[SignerKey]) -> bytes:
    """Sign `text` (UTF-8, ending with LF) with each of `signers` (type 0x01), in order; return the note."""
    return format_note(
        text,
        [SignatureLine(key.name, key.verifier.key_id, key.secret.sign(text)) for key in signers],
    )

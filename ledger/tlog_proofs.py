"""Offline proofs that one entry is in a log: index, inclusion path, checkpoint (C2SP tlog-proof)."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Iterable
from dataclasses import dataclass

from ledger import base64
from ledger.checkpoints import parse_decimal
from ledger.errors import MalformedError
from ledger.hashing import HASH_SIZE, Hash, leaf_hash
from ledger.proofs import verify_inclusion
from ledger.witnessing import JudgedCheckpoint, Policy, judge

HEADER = "c2sp.org/tlog-proof@v1"
"""The first line of a tlog-proof."""

MAX_HASHES = 63
"""The longest inclusion path of a tree whose size fits a signed 64-bit integer."""


@dataclass(frozen=True, slots=True)
class TlogProof:
    """A tlog-proof as parsed: nothing in it is verified, and `extra` never is.

    `index` is zero-based; `path` the inclusion path, sibling first; `note` the checkpoint note, verbatim.
    """

    index: int
    path: tuple[Hash, ...]
    note: bytes
    extra: bytes | None = None

    @classmethod
    def parse(cls, data: bytes) -> TlogProof:
        """Parse a tlog-proof; raises MalformedError."""
        # The first blank line ends the proof; the note after it has one of its own.
        head, blank, note = data.partition(b"\n\n")
        if not blank or not note:
            raise MalformedError("tlog-proof: no checkpoint after a blank line")
        header, *lines = _lines(head)
        if header != HEADER:
            raise MalformedError(f"tlog-proof: the first line is not {HEADER!r}", 0)
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = base64.decode(lines.pop(0).removeprefix("extra "))
        if not lines or not lines[0].startswith("index "):
            raise MalformedError("tlog-proof: no index line where it must stand")
        index = parse_decimal(lines.pop(0).removeprefix("index "))
        if len(lines) > MAX_HASHES:
            raise MalformedError(f"tlog-proof: {len(lines)} hashes, more than {MAX_HASHES}")
        return cls(index, tuple(Hash(base64.decode(line, HASH_SIZE)) for line in lines), note, extra)

    def text(self) -> bytes:
        """Return the bytes of the tlog-proof."""
        extra = "" if self.extra is None else f"extra {base64.encode(self.extra)}\n"
        return f"{HEADER}\n{extra}index {self.index}\n".encode() + hash_lines(self.path) + b"\n" + self.note


def _lines(text: bytes) -> list[str]:
    try:
        return text.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise MalformedError("not ASCII", error.start) from error


def hash_lines(hashes: Iterable[Hash]) -> bytes:
    """Return hashes as lines of base64, each with LF."""
    return b"".join([b2a_base64(value) for value in hashes])


def parse_hash_lines(data: bytes) -> tuple[Hash, ...]:
    """Parse lines of base64 hashes, each with LF; raises MalformedError. No bytes are no hashes."""
    *lines, rest = _lines(data)
    if rest:
        raise MalformedError("hashes: the last line does not end with LF", len(data))
    return tuple(Hash(base64.decode(line, HASH_SIZE)) for line in lines)


def verify_tlog_proof(proof: TlogProof, entry: bytes, policy: Policy, origin: str) -> JudgedCheckpoint:
    """Verify that `entry` is at `proof.index` of the log `origin`, and return the checkpoint that says so.

    The leaf hash comes from the entry bytes, the size and root from the verified note, the keys and the
    quorum from `policy`. Raises MalformedError, SignatureError or ProofError.
    """
    judged = judge(proof.note, policy, origin)
    checkpoint = judged.checkpoint
    verify_inclusion(proof.index, checkpoint.size, leaf_hash(entry), proof.path, checkpoint.root)
    return judged

"""Signing checkpoints, behind a seam of its own, after commit and never before.

The signer keeps its own high-water mark for every origin, as a witness does, on disk and apart from the
store: it refuses a smaller size, and another root for the same size, whatever the store says.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from ledger.checkpoints import Checkpoint, sign_checkpoint
from ledger.ed25519 import SecretKey
from ledger.errors import MalformedError, SplitViewError, StorageFullError, StoreError
from ledger.notes import SignerKey

_SLOT: Final = 512
_CHECK: Final = 16
_SYNC_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Mark:
    slot: int
    turn: int
    checkpoint: Checkpoint


class HighWaterMarks:
    """The largest checkpoint signed for each origin, in a file of fixed slots.

    An origin has two slots of 512 bytes, written in turn, so that a torn write leaves the one before. They
    are reserved before the origin's first commit: a full disk never stands between commit and signature.
    Where both were written and neither can be read, that is no torn write: opening raises StoreError, since
    a signer that has forgotten would sign anything.

    A mark is written before its checkpoint is signed, so no death of the process loses one. It is synced to
    the disk a second later at most, or when the caller is idle: after a power cut the marks may be that far
    behind the store, which is synced at every commit and then holds what was signed.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _make_durable(path.parent)
        self._marks: dict[str, _Mark] = {}
        self._slots = 0
        self._reserved = 0
        self._synced_at = time.monotonic()
        self.is_synced = True
        try:
            self._read()
        except StoreError:
            os.close(self._file)
            raise

    def _read(self) -> None:
        data = os.pread(self._file, os.fstat(self._file).st_size, 0)
        self._reserved = len(data) // (2 * _SLOT)
        for slot in range(self._reserved):
            pair = [data[start : start + _SLOT] for start in (2 * slot * _SLOT, (2 * slot + 1) * _SLOT)]
            parsed = [_parse_slot(one) for one in pair]
            if parsed == [None, None] and all(map(any, pair)):
                raise StoreError(f"the signer's high-water marks: those of origin {slot} are damaged")
            for found in parsed:
                if found is None:
                    continue
                number, checkpoint = found
                held = self._marks.get(checkpoint.origin)
                self._slots = slot + 1
                if held is None or number > held.turn:
                    self._marks[checkpoint.origin] = _Mark(slot, number, checkpoint)

    def latest(self, origin: str) -> Checkpoint | None:
        """Return the largest checkpoint signed for an origin."""
        mark = self._marks.get(origin)
        return mark.checkpoint if mark else None

    def origins(self) -> list[str]:
        """Return every origin that was ever signed for."""
        return list(self._marks)

    def reserve(self, origins: Iterable[str]) -> None:
        """Make room for origins that are to be signed for, before anything is committed that must be signed.

        Raises StorageFullError where there is none, StoreError when the file fails otherwise.
        """
        wanted = self._slots + sum(1 for origin in origins if origin not in self._marks)
        if wanted <= self._reserved:
            return
        try:
            os.posix_fallocate(self._file, 0, wanted * 2 * _SLOT)
            os.fsync(self._file)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise StorageFullError("no room left for the signer's high-water marks") from error
            raise StoreError(f"the signer's high-water marks: {error}") from error
        self._reserved = wanted

    def raise_to(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Raise the marks. Raises SplitViewError, with nothing written, where one would go back."""
        for checkpoint in checkpoints:
            held = self.latest(checkpoint.origin)
            if held is not None and not _follows(held, checkpoint):
                raise SplitViewError(
                    f"{checkpoint.origin}: size {held.size} is signed already; the store offers size "
                    f"{checkpoint.size}, which goes back or differs. Was an older copy restored?",
                    held.text(),
                    checkpoint.text(),
                )
        changed = [checkpoint for checkpoint in checkpoints if self.latest(checkpoint.origin) != checkpoint]
        if not changed:
            return
        self.reserve(checkpoint.origin for checkpoint in changed)
        marks = list(self._next_marks(changed))
        try:
            for mark in marks:
                place = (2 * mark.slot + mark.turn % 2) * _SLOT
                os.pwrite(self._file, _format_slot(mark.turn, mark.checkpoint), place)
            self.is_synced = False
            # An origin's first mark is synced at once: that there is none must mean that nothing was signed.
            first = any(mark.turn == 1 for mark in marks)
            if first or time.monotonic() - self._synced_at >= _SYNC_SECONDS:
                self.sync()
        except OSError as error:
            raise StoreError(f"the signer's high-water marks: {error}") from error
        # Only what is written counts: a mark that failed must be written again before it is signed.
        self._marks |= {mark.checkpoint.origin: mark for mark in marks}
        self._slots = max(self._slots, *(mark.slot + 1 for mark in marks))

    def sync(self) -> None:
        """Make the marks durable against a power cut. Raises OSError."""
        os.fdatasync(self._file)
        self._synced_at = time.monotonic()
        self.is_synced = True

    def _next_marks(self, changed: Sequence[Checkpoint]) -> Iterator[_Mark]:
        free = self._slots
        for checkpoint in changed:
            held = self._marks.get(checkpoint.origin)
            if held is None:
                yield _Mark(free, 1, checkpoint)
                free += 1
            else:
                yield _Mark(held.slot, held.turn + 1, checkpoint)

    def close(self) -> None:
        """Sync and close the file."""
        os.fdatasync(self._file)
        os.close(self._file)


def _make_durable(folder: Path) -> None:
    """Make the folder's list of files durable: marks that are gone after a power cut hold nobody back."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _follows(held: Checkpoint, checkpoint: Checkpoint) -> bool:
    if checkpoint.size == held.size:
        return checkpoint.root == held.root
    return checkpoint.size > held.size


def _format_slot(turn: int, checkpoint: Checkpoint) -> bytes:
    text = f"{turn}\n".encode() + checkpoint.text()
    return (hashlib.sha256(text).digest()[:_CHECK] + text).ljust(_SLOT, b"\0")


def _parse_slot(slot: bytes) -> tuple[int, Checkpoint] | None:
    text = slot[_CHECK:].rstrip(b"\0")
    if hashlib.sha256(text).digest()[:_CHECK] != slot[:_CHECK]:
        return None
    number, _, rest = text.partition(b"\n")
    try:
        return int(number), Checkpoint.parse(rest)
    except (ValueError, MalformedError):
        return None


class CheckpointSigner:
    """Signs checkpoints of every register origin with the ledger's one log key."""

    def __init__(self, secret: SecretKey, marks: HighWaterMarks) -> None:
        self._secret = secret
        self._marks = marks
        self._keys: dict[str, SignerKey] = {}

    def reserve(self, origins: Iterable[str]) -> None:
        """Make sure that these origins can be signed for, before their heads are committed.

        Raises StorageFullError where there is no room to keep their marks.
        """
        self._marks.reserve(origins)

    def sign(self, checkpoints: Sequence[Checkpoint]) -> list[bytes]:
        """Return a note for each, after the high-water marks are raised.

        Raises SplitViewError for one that goes back or differs, StoreError when a mark cannot be kept. Only
        committed heads may come here.
        """
        self._marks.raise_to(checkpoints)
        return [sign_checkpoint(checkpoint, self._key(checkpoint.origin)) for checkpoint in checkpoints]

    def has_signed_for(self, origin: str) -> bool:
        """Tell whether there is a mark for an origin."""
        return self._marks.latest(origin) is not None

    @property
    def is_synced(self) -> bool:
        """Tell whether every mark is durable against a power cut."""
        return self._marks.is_synced

    def sync(self) -> None:
        """Make every mark durable. Raises StoreError."""
        try:
            self._marks.sync()
        except OSError as error:
            raise StoreError(f"the signer's high-water marks: {error}") from error

    def _key(self, origin: str) -> SignerKey:
        key = self._keys.get(origin)
        if key is None:
            key = self._keys[origin] = SignerKey(origin, self._secret)
        return key

    @classmethod
    def open(cls, secret: SecretKey, path: Path) -> Self:
        """Open the signer with its marks in the file at `path`."""
        return cls(secret, HighWaterMarks(path))

    def close(self) -> None:
        """Close the marks."""
        self._marks.close()

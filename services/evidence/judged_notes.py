"""A checkpoint note that satisfies the packer's policy, and what it says of when an entry was not there yet."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.timeline import Timeline
from ledger.witnessing import JudgedCheckpoint, Policy


@dataclass(frozen=True, slots=True)
class JudgedNote:
    """A note and its checkpoint, judged. `sealed_at` is the latest time, POSIX seconds, at which a quorum of
    witnesses knew of no entry beyond it; None without witnesses.
    """

    note: bytes
    judged: JudgedCheckpoint
    sealed_at: int | None

    @classmethod
    def of(cls, note: bytes, judged: JudgedCheckpoint, policy: Policy) -> JudgedNote:
        """Return a note that was judged under a policy."""
        bounds = Timeline(judged.cosignatures, policy.quorum).bounds(judged.checkpoint.size)
        return cls(note, judged, bounds.not_before)

    @property
    def size(self) -> int:
        """How many entries its checkpoint covers."""
        return self.judged.checkpoint.size

    @property
    def rank(self) -> tuple[int, int]:
        """By which one of two bounds an entry better, that neither covers: the later one, then the larger."""
        return (-1 if self.sealed_at is None else self.sealed_at), self.size

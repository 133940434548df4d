"""A policy that verifies each checkpoint note once: the receipts of a pack share most of theirs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Self

from ledger.checkpoints import OpenedCheckpoint
from ledger.witnessing import Policy

_MOST: Final = 4_096
"""Notes that are remembered, of some 1 KiB each."""


@dataclass(frozen=True, slots=True)
class RememberingPolicy(Policy):
    """The same policy, with what it has verified. Notes that did not hold are judged anew each time."""

    _opened: dict[tuple[bytes, str], OpenedCheckpoint] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, policy: Policy) -> Self:
        """Return a policy that asks for the same, and has verified nothing yet."""
        return cls(policy.logs, policy.witnesses, policy.quorum)

    def open(self, note: bytes, origin: str) -> OpenedCheckpoint:
        """Verify a checkpoint note as `Policy.open` does."""
        found = self._opened.get((note, origin))
        if found is None:
            found = Policy.open(self, note, origin)
            if len(self._opened) >= _MOST:
                self._opened.clear()
            self._opened[note, origin] = found
        return found

"""Whether a decision was added or changed behind a return's back (formats.md, section 16).

A return counts what its register holds at its own index. So the order of the register alone decides this, and
no clock: not the ledger's, and not the witnesses'. It stays true whatever comes later: a later version of the
return that counts the decision does not take it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AfterReturnKind(StrEnum):
    """What came after a return."""

    ADDED = "added after the return that should have counted it"
    """Registered after a return of its series, for the period that it is of."""

    CHANGED = "changed after a return, into or out of what it counts"
    """Corrected after a return, so that the return should have counted one more, or one less."""


@dataclass(frozen=True, slots=True)
class AfterReturn:
    """What came after which return: `returned` is the index of the return, of several the first.

    A decision that was added after one return and changed after another has been added.
    """

    kind: AfterReturnKind
    returned: int


@dataclass(frozen=True, slots=True)
class AfterReturnCounts:
    """How many decisions of a register were added after a return, and how many others were changed after one.

    Each decision is counted once, and beside its class in time, which it keeps.
    """

    added: int = 0
    changed: int = 0

    @property
    def either(self) -> int:
        """How many decisions that are."""
        return self.added + self.changed

"""What a source has found for a pack: receipts, and where and how they were found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.hashing import Hash
from services.evidence.governing import WholeRegister
from services.evidence.histories import Consistency


@dataclass(frozen=True, slots=True)
class ReadWhole:
    """That the selection was made from every entry of the register, whose root was computed from them.

    `size` and `root` are those of a checkpoint that satisfied the packer's policy.
    """

    size: int
    root: Hash


@dataclass(frozen=True, slots=True)
class Gathered:
    """Receipts of the chosen entries and of the governing entries about their keys, in order of index.

    `consistency` leads from each size of their checkpoints to the next, where the source can prove that.
    `source` and `selection` say in words where they come from, and which were asked for. `whole` is None where
    not every entry was read: then nothing says that no other matches, unless entries were asked for `by_index`
    from whoever has them all. `register_of_keys` is the governing register, None where the source has it
    not or it is too large. Nothing here is verified yet.
    """

    receipts: Sequence[bytes]
    governing: Sequence[bytes]
    source: str
    selection: str
    consistency: Sequence[Consistency] = ()
    whole: ReadWhole | None = None
    by_index: bool = False
    register_of_keys: WholeRegister | None = None

    @property
    def notes(self) -> Sequence[bytes]:
        """The checkpoint notes that are in no receipt."""
        return () if self.register_of_keys is None else (self.register_of_keys.note,)

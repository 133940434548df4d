"""The signer without gRPC between: what a writer asks, answered by the signer itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from ledger.ed25519 import SecretKey
from ledger.store import StoredNote
from services.distributed.head_signing import Signer
from services.distributed.partition_writer import PartitionWriter
from services.distributed.signing import (
    GuardedSigner,
    Marks,
    SignerAwayError,
    Signings,
    ToSign,
)
from services.signing import HighWaterMarks

_Result = TypeVar("_Result")


async def here(work: Callable[[], _Result]) -> _Result:
    """Do the work of a writer's thread in this one."""
    return work()


def sign(writer: PartitionWriter, signer: Signer) -> Mapping[str, StoredNote]:
    """Have what waits signed; return the notes."""
    return asyncio.run(writer.heads.sign(signer, here))


class DirectSigner(Signer):
    """A signer over marks; `restart` makes it forget what was confirmed, `away` keeps it from answering."""

    def __init__(self, secret: SecretKey, marks: HighWaterMarks, origin: str) -> None:
        self._secret, self._marks, self._origin = secret, marks, origin
        self.away = False
        self.asked = 0
        self.restart()

    def restart(self) -> None:
        """Forget what was confirmed."""
        self.inner = GuardedSigner(self._secret, self._marks, self._origin)

    def confirm_all(self) -> None:
        """Confirm every mark, as a cosigner does whose witnesses know nothing beyond."""
        self.inner.confirm([mark.checkpoint for mark in self.inner.marks(())])

    async def marks(self, origins: Sequence[str]) -> Marks:
        """Return the marks of these origins."""
        self._answer()
        return Marks(self.inner.instance, {mark.checkpoint.origin: mark for mark in self.inner.marks(origins)})

    async def sign(self, wanted: Sequence[ToSign]) -> Signings:
        """Ask for signatures."""
        self._answer()
        return Signings(self.inner.instance, self.inner.sign(wanted))

    def _answer(self) -> None:
        self.asked += 1
        if self.away:
            raise SignerAwayError("the signer is away")

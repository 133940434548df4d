"""The pack that a ledger's own server makes of a run of entries, for `ExportEvidence`.

It is a convenience: whoever gets it checks it as any other pack, under their own policy file.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from datetime import datetime
from threading import Lock
from typing import BinaryIO, Final

from ledger.entries import parse_entry
from ledger.errors import Reason, RejectedError
from ledger.governing import GOVERNING
from ledger.ledger import LedgerView
from ledger.reader import check_size
from ledger.sealing import SealedCheckpoint
from ledger.witnessing import Policy
from services.evidence.bag import ZipTarget
from services.evidence.custody import Keeper
from services.evidence.gathered import Gathered
from services.evidence.governing import WholeRegister, collected
from services.evidence.histories import Consistency, steps
from services.evidence.key_history import about
from services.evidence.packing import pack_name, write_files
from services.evidence.preparing import prepare
from services.lookup import invalid
from services.published import Published, SignedCheckpoint
from services.receipts import ReceiptBuilder

MAX_EXPORTED: Final = 1_000
"""Entries of one pack that a server makes."""

_IN_MEMORY: Final = 4 * 1024 * 1024
"""Bytes of a pack that are kept in memory; more go to a temporary file."""


class Exporter:
    """Makes packs from a ledger's store. For any thread; `receipts` builds the receipts that go into them."""

    def __init__(self, ledger: LedgerView, published: Published) -> None:
        self._ledger = ledger
        self._published = published
        self._receipts = ReceiptBuilder(ledger, published)
        self._at_work = Lock()

    def pack(self, register: str, first: int, count: int, size: int, now: datetime) -> BinaryIO:
        """Return a pack of the entries [first, first + count), a ZIP file open at its beginning.

        `count` 0 is for all up to `size`, and `size` 0 for all that can be proved. Raises RejectedError:
        REGISTER_UNKNOWN, SIZE_NOT_REACHED, INVALID_FIELD; OVERLOADED while another one is made, also one that
        nobody waits for any more.
        """
        if not self._at_work.acquire(blocking=False):
            raise RejectedError(Reason.OVERLOADED, "another evidence pack is being made; ask again")
        try:
            return self._made(register, first, count, size, now)
        finally:
            self._at_work.release()

    def _made(self, register: str, first: int, count: int, size: int, now: datetime) -> BinaryIO:
        indices = self._range(register, first, count, size)
        receipts = [self._receipts.receipt(register, index).data for index in indices]
        governing = [self._receipts.receipt(GOVERNING, index).data for index in self._about(register, indices)]
        register_of_keys = self._register_of_keys()
        gathered = Gathered(
            receipts,
            governing,
            f"the store of the ledger {self._ledger.origin}, by its own server",
            f"index={indices[0]}..{indices[-1]}",
            [
                Consistency(step, self._ledger.reader(step.register).consistency(step.first, step.second))
                for step in steps([*receipts, *governing], [register_of_keys.note] if register_of_keys else [])
            ],
            by_index=True,
            register_of_keys=register_of_keys,
        )
        keeper = Keeper(f"the ledger {self._ledger.origin}", "its server", "ExportEvidence was called", now)
        contents = prepare(gathered, self._policy(), keeper, now=int(now.timestamp()))
        file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - the caller closes it
        try:
            with zipfile.ZipFile(file, "w", allowZip64=False) as archive:
                write_files(contents, ZipTarget(archive, pack_name(contents, closed=False)))
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file  # type: ignore[return-value]  # it has all that a binary file has

    def _range(self, register: str, first: int, count: int, size: int) -> range:
        provable = self._provable(register)
        end = first + count if count else check_size(size, provable)
        check_size(end, provable)
        if size and end > size:
            raise invalid("count", f"entries up to {end - 1} are not in a tree of size {size}")
        if first >= end:
            raise invalid("first", f"no entry {first} among the {end} that can be proved")
        if end - first > MAX_EXPORTED:
            raise invalid("count", f"at most {MAX_EXPORTED} entries in one pack")
        return range(first, end)

    def _provable(self, register: str) -> int:
        """Return how many entries receipts can prove: those that are sealed, where there are witnesses."""
        latest = self._published.latest(register).size
        if self._published.policy is None:
            return latest
        sealed = self._published.sealed(register)
        return min(sealed.size, latest) if sealed else 0

    def _register_of_keys(self) -> WholeRegister | None:
        latest: SealedCheckpoint | SignedCheckpoint | None = self._published.latest(GOVERNING)
        if self._published.policy is not None:
            latest = self._published.sealed(GOVERNING)
        if latest is None or latest.size == 0:
            return None
        return collected(latest.note, self._ledger.reader(GOVERNING).entries(0, latest.size))

    def _policy(self) -> Policy:
        """Return the policy in force; where no witness is asked, the ledger's key alone."""
        policy = self._published.policy
        opened = self._ledger.fold.opened
        if policy is not None:
            return policy
        if opened is None:
            raise RejectedError(Reason.REGISTER_UNKNOWN, "this ledger is not opened yet")
        return Policy.parse(f"log {opened.ledger_key}\nquorum none\n".encode())

    def _about(self, register: str, indices: range) -> list[int]:
        """Return the indices of the governing entries on who governs, on the register and on its keys."""
        provable = self._provable(GOVERNING)
        found = about(self._ledger.fold, register, self._signers(register, indices))
        return [index for index in found if index < provable]

    def _signers(self, register: str, indices: range) -> Iterator[bytes]:
        for entry in self._ledger.reader(register).entries(indices.start, indices.stop):
            membership = parse_entry(entry).membership
            if membership is not None:
                yield from (each.key for each in membership.signatures)

"""A restore that is not declared yet: what an import has recovered, kept beside the store until it is.

A ledger that was restored from an older copy and has caught up says so in its governing register
(`restore.declared/1`, formats.md, section 11). The import writes nothing into the ledger that the event log
does not hold: it leaves this file, and whoever starts the ledger next appends the records, once the witnesses
have confirmed the heads, and deletes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ledger.catch_up import Missing
from ledger.governing import GOVERNING
from ledger.own_records import restore_declared
from ledger.values import is_register
from services.ledger_files import DirectoryError, LedgerDirectory, write_durably

EVENT_LOG: Final = "event_log"
"""The only source that an import recovers from."""

_TYPE: Final = "daybook.restore-pending/1"


@dataclass(frozen=True, slots=True)
class PendingRestore:
    """What is to be declared: of each register what the older copy held, and what it has again.

    `governing_size` is what the governing register held when the import ended: it has grown before the next
    restore, and so tells one from another. None while the import is under way: it must end before the ledger
    may be started.
    """

    restored: Mapping[str, Missing]
    governing_size: int | None

    def merged(self, lacking: Sequence[Missing]) -> PendingRestore:
        """Return what is pending when an import is about to recover `lacking`.

        What a register held first stays: an import that was interrupted has changed the store since.
        """
        after = dict(self.restored)
        for one in lacking:
            before = after.get(one.register)
            stored = min(before.stored_size, one.stored_size) if before else one.stored_size
            after[one.register] = Missing(one.register, stored, one.recovered_size)
        return PendingRestore(after, None)

    def completed(self, sizes: Mapping[str, int]) -> PendingRestore:
        """Return what is pending when the import has ended, with the registers at `sizes`.

        An interrupted import may have meant to recover more than the one that ended.
        """
        reached = (
            Missing(one.register, one.stored_size, min(one.recovered_size, sizes[one.register]))
            for one in self.restored.values()
        )
        restored = {one.register: one for one in reached if one.stored_size < one.recovered_size}
        return PendingRestore(restored, sizes[GOVERNING])

    def records(self, origin: str) -> list[bytes]:
        """Return the `restore.declared/1` records, `governing` first: always the same of one restore."""
        assert self.governing_size is not None  # noqa: S101 - `pending_restore` has looked
        return [
            restore_declared(
                register=one.register,
                register_origin=f"{origin}/{one.register}",
                stored_size=one.stored_size,
                recovered_size=one.recovered_size,
                source=EVENT_LOG,
                governing_size=self.governing_size,
            )
            for one in sorted(self.restored.values(), key=lambda one: (one.register != GOVERNING, one.register))
        ]


NOTHING_PENDING: Final = PendingRestore({}, 0)


def pending_restore(directory: LedgerDirectory) -> PendingRestore:
    """Read what is still to be declared; `NOTHING_PENDING` where there is nothing.

    Raises DirectoryError where an import was interrupted, or the file is damaged: the ledger may not be
    started then.
    """
    pending = read_pending(directory)
    if pending.governing_size is None:
        raise DirectoryError(
            f"an import into {directory.root} was interrupted: run the same daybook import again"
        )
    return pending


def read_pending(directory: LedgerDirectory) -> PendingRestore:
    """Read the file, of an interrupted import as well. Raises DirectoryError where it is damaged."""
    path = directory.pending_restore
    try:
        stated = json.loads(path.read_bytes())
    except FileNotFoundError:
        return NOTHING_PENDING
    except ValueError as error:
        raise DirectoryError(f"{path} is damaged: {error}") from error
    try:
        return _parsed(stated)
    except (KeyError, TypeError, ValueError) as error:
        raise DirectoryError(f"{path} is damaged: {error!r}") from error


def _parsed(stated: Any) -> PendingRestore:
    size = stated["governing_size"]
    if stated["type"] != _TYPE or stated["source"] != EVENT_LOG or not (size is None or size > 0):
        raise ValueError("not a pending restore")
    restored = {}
    for register, sizes in stated["registers"].items():
        one = Missing(register, sizes["stored_size"], sizes["recovered_size"])
        if not is_register(register) or not 0 <= one.stored_size < one.recovered_size:
            raise ValueError(f"no restore of {register}")
        restored[register] = one
    return PendingRestore(restored, size)


def write_pending(directory: LedgerDirectory, pending: PendingRestore) -> None:
    """Write the file durably, in place of an earlier one. Raises OSError."""
    stated = {
        "governing_size": pending.governing_size,
        "registers": {
            one.register: {"recovered_size": one.recovered_size, "stored_size": one.stored_size}
            for one in pending.restored.values()
        },
        "source": EVENT_LOG,
        "type": _TYPE,
    }
    write_durably(directory.pending_restore, f"{json.dumps(stated, indent=2, sort_keys=True)}\n".encode())


def forget_pending(directory: LedgerDirectory) -> None:
    """Delete the file: everything in it has been declared. Raises OSError."""
    directory.pending_restore.unlink(missing_ok=True)

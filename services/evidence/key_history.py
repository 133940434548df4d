"""Which governing entries tell who might write: those that go into a pack beside the records."""

from __future__ import annotations

from collections.abc import Iterable

from ledger.governing import Fold


def about(fold: Fold, register: str, signers: Iterable[bytes]) -> list[int]:
    """Return the indices of the governing entries on who governs, on the register and on these keys, in order.

    `signers` are public keys, 32 bytes each; of each the authorisation and the revocation, as far as `fold`
    reaches.
    """
    found = {held.since for held in fold.governance}
    if state := fold.registers.get(register):
        found |= {state.opened} | ({state.closed} if state.closed is not None else set())
    for key in signers:
        if held := fold.keys.get(key):
            found |= {held.authorised} | ({held.revoked} if held.revoked is not None else set())
    return sorted(found)

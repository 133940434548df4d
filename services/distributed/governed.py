"""The witness policies of a ledger that others write to while it is opened for reading."""

from __future__ import annotations

import time

from ledger.errors import RejectedError
from ledger.governing import GOVERNING
from ledger.ledger import LedgerView
from services.witness_policy import PolicyInForce


def governed_policies(view: LedgerView) -> PolicyInForce:
    """Return what governance has published, with the governing register folded. Raises StoreError."""
    while True:
        head = view.heads().get(GOVERNING)
        if head is not None:
            view.follow(head.size)
        try:
            return PolicyInForce(view, time.time)
        except RejectedError:
            continue  # a register was opened meanwhile

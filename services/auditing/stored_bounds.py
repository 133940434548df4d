"""When entries came in, by the cosignatures that a ledger's own store keeps, for a run of neighbours.

Of each witness only what is nearest on either side of an entry is read, and not a register's whole timeline: a
run costs as much as it has sizes that were cosigned, however long the register is. Where no witness's clock has
gone back, that is exactly the bounds of formats.md, section 15; where one has, they may be wider, and hold too.
"""

from __future__ import annotations

from collections.abc import Iterator

from ledger.sealing import SealedReader
from ledger.store import Cosigned, Store
from ledger.timeline import Bounds, Timeline
from ledger.witnessing import Policy


def stored_bounds(store: Store, policy: Policy | None, register: str, begin: int, end: int) -> Iterator[Bounds]:
    """Yield the bounds of the entries [begin, end) in order, under a policy; None asks no witness."""
    if policy is None or policy.quorum.root is None:
        for _ in range(begin, end):
            yield Bounds(None, None, comparable=False)
        return
    reader, held = SealedReader(store, policy), _around(store, policy, register, begin, end)
    cosignatures = (
        each for one in held for line in (one.first, one.last) for each in reader.cosignatures(one.size, [line])
    )
    timeline = Timeline(cosignatures, policy.quorum)
    # Between two sizes that somebody has cosigned all entries have the same bounds.
    steps = {one.size for one in held}
    bounds = timeline.bounds(begin)
    for index in range(begin, end):
        if index in steps:
            bounds = timeline.bounds(index)
        yield bounds


def _around(store: Store, policy: Policy, register: str, begin: int, end: int) -> list[Cosigned]:
    """Return what was cosigned inside the run, and of each witness the nearest before and after it."""
    held = list(store.cosigned(register, begin + 1, end))
    for witness in policy.witnesses:
        by = witness.key.name, witness.key.key_id
        nearest = store.last_cosigned(register, by, begin), store.next_cosigned(register, by, end)
        held += (one for one in nearest if one is not None)
    return held

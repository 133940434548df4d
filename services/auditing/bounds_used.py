"""What in the notebook rests on the witnesses' times, and how it is made again when those are others.

A policy says whose clocks count. Under another one nothing of the old one's times may be left. And under the
same one a cosignature that is seen later, in an anchor or on a checkpoint that was kept, may narrow the window
of an entry that was looked at before: then it is looked at again, from the first such entry on.
"""

from __future__ import annotations

from typing import Final

from ledger.witnessing import Policy
from services.auditing.notebook import Notebook
from services.auditing.spans import forget_from

IMPOSSIBLE: Final = "impossible-time"
"""`accepted_at` is later than when witnesses knew the entry."""

CLAIMED_EARLIER: Final = "claimed-earlier"
"""`accepted_at` is earlier than when witnesses still knew no such entry."""

JUST_EARLIER: Final = "claimed-just-earlier"
"""The same, by no more than clocks may differ, or an entry may wait for its place in the register."""

SUPPORTED: Final = "claimed-earlier-acknowledged"
"""An entry claimed earlier than witnessed, whose acknowledgement was signed for that time."""

BEFORE_VISIT: Final = "claimed-before-visit"
"""`accepted_at` is earlier than a visit of this auditor's, at which there was no such entry."""

VIEW_NOT_SEALED: Final = "view-not-sealed"
"""It was judged against more governing entries than were sealed after it was known."""

SEEN: Final = "times of "
"""With a register's name, a position: up to which size the notes that were served of it were taken in."""

ANCHORS: Final = "times of anchors"
"""A position: up to which governing entry anchors were taken in."""

BOUNDED: Final = "bounded "
"""With a register's name, a position: below it, entries may have been looked at under the bounds of then."""

CLAIMS: Final = "claims of "
"""With a register's name, a position: up to where `accepted_at` was held against the bounds."""

VIEWS: Final = "views of "
"""With a register's name, a position: up to where what entries were judged against was held against them."""

_CHANGES: Final = "changes of bounds"
_POLICY: Final = "policy"
_OF_CLAIMS: Final = (IMPOSSIBLE, CLAIMED_EARLIER, JUST_EARLIER, SUPPORTED, BEFORE_VISIT)


def begin_under(notebook: Notebook, policy: Policy) -> None:
    """Forget all that rests on witnesses' times, where they were gathered under another policy."""
    if notebook.about(_POLICY) == policy.fingerprint:
        return
    with notebook.together():
        for table in ("earliest", "latest", "sealed"):
            notebook.write(f"DELETE FROM {table}")  # noqa: S608 - the names stand above
        for name in (SEEN, BOUNDED, CLAIMS, VIEWS):
            notebook.write("DELETE FROM position WHERE substr(name, 1, ?) = ?", (len(name), name))
        notebook.write_all(
            "DELETE FROM odd WHERE code = ?", [(code,) for code in (*_OF_CLAIMS, VIEW_NOT_SEALED)]
        )
        _count_change(notebook)
        notebook.set_about(_POLICY, policy.fingerprint)


def look_again_from(notebook: Notebook, register: str, index: int) -> None:
    """Have entries from `index` on looked at again; in a transaction that the caller has begun."""
    for name, codes in ((CLAIMS, _OF_CLAIMS), (VIEWS, (VIEW_NOT_SEALED,))):
        if notebook.position(f"{name}{register}") > index:
            notebook.set_position(f"{name}{register}", index)
            forget_from(notebook, codes, register, index)
    _count_change(notebook)


def bounds_named(notebook: Notebook) -> str:
    """Return what differs where the bounds of entries that may have been looked at do."""
    return f"{notebook.about(_POLICY)} {notebook.position(_CHANGES)}"


def _count_change(notebook: Notebook) -> None:
    notebook.set_position(_CHANGES, notebook.position(_CHANGES) + 1)

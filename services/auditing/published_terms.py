"""Terms that the ledger publishes for itself: from when they hold, and whether they are what their names say.

Whoever keeps a ledger can publish a profile at any time. One that holds from before anybody could know of it
judges what was there already, by rules that were made afterwards. And one that bears the name and version of a
profile that comes with Daybook, and is another, is easily taken for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ledger.admission import moment
from ledger.entries import parse_entry
from ledger.errors import LedgerError
from ledger.governing import GOVERNING, Published
from ledger.receipts import CLOCK_ALLOWANCE
from services.auditing.audit_state import AuditState
from services.auditing.found import Severity
from services.auditing.profiles import (
    CALENDAR,
    PROFILE,
    SHIPPED,
    identity,
    in_force,
    published_profile,
    shipped,
)
from services.auditing.results import AuditFinding, Source
from services.auditing.spans import Spans
from services.auditing.windows import shown_time

BACK_DATED: Final = "terms-back-dated"
MISNAMED: Final = "terms-misnamed"


def published_terms(state: AuditState, now: float) -> Iterator[AuditFinding]:
    """Yield what is odd about the profiles and calendars of the governing register. Raises StoreError.

    `now` is POSIX seconds: what is to hold only later is left for then.
    """
    published = state.monitored.mirror.fold.published
    held = [each for each in published if each.kind in (PROFILE, CALENDAR) and _begins(each) <= now]
    known = ((each, _came_in(state, each.index)) for each in held)
    early = [(each, at) for each, at in known if _begins(each) + CLOCK_ALLOWANCE < at]
    if early:
        yield _back_dated(early)
    for each in in_force(published, PROFILE, now):
        if each.name in SHIPPED:
            yield from _misnamed(state, each)


def _begins(published: Published) -> float:
    return moment(published.effective_from)


def _came_in(state: AuditState, index: int) -> float:
    """Return when a governing entry came in at the earliest, POSIX seconds.

    By the ledger's own word; by the witnesses, or a visit of this auditor's, where they say that it was later.
    """
    (entry,) = state.entries(GOVERNING, index, index + 1)
    (visited,) = state.notebook.one(
        "SELECT max(begun) FROM visited WHERE register = ? AND size <= ?", (GOVERNING, index)
    )
    accepted_at = moment(parse_entry(entry).acceptance.accepted_at)
    return max(accepted_at, state.bounds(GOVERNING, index).not_before or 0, visited or 0)


def _back_dated(early: list[tuple[Published, float]]) -> AuditFinding:
    first, at = early[0]
    spans = Spans([])
    for each, _ in early:
        spans.add(each.index, each.index)
    more = f"; and {len(early) - 1:,} more" if len(early) > 1 else ""
    return AuditFinding(
        BACK_DATED,
        Source.RULES,
        Severity.MEDIUM,
        False,
        GOVERNING,
        f"a {first.kind} is to hold from before anybody could know of it: entry {first.index} publishes "
        f"{first.name!a} from {first.effective_from}, and came in at {shown_time(at)} at the earliest{more}",
        "a profile or a calendar is published before the time from which it holds",
        tuple(spans.listed),
        spans.count,
        {"effective_from": first.effective_from, "came_in_not_before": shown_time(at)},
        ("it was meant for records that were there already", "signing it took long", "a clock was wrong"),
        recheck="daybook audit URL --policy POLICY --state STATE --profile NAME, with a profile of your choice",
    )


def _misnamed(state: AuditState, published: Published) -> Iterator[AuditFinding]:
    try:
        profile = published_profile(state.monitored.mirror.reader(GOVERNING).entry(published.index))
    except LedgerError:
        return  # it is no profile, which whoever looks for one says
    own = shipped(profile.name)
    if profile.version != own.version or profile == own:
        return
    yield AuditFinding(
        MISNAMED,
        Source.RULES,
        Severity.MEDIUM,
        False,
        GOVERNING,
        f"entry {published.index} publishes {identity(profile)}, and the profile of that name and version that "
        f"comes with Daybook is {identity(own)}",
        "a profile that means something else has another name, or a higher version",
        ((published.index, published.index),),
        1,
        {"published": identity(profile), "shipped": identity(own)},
        ("it was published with another version of Daybook",),
        recheck=f"daybook profile show {own.name}",
    )

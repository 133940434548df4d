"""What is said of entries that are odd, by the code under which the notebook has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from services.auditing.audit_state import AuditState
from services.auditing.bounds_used import (
    BEFORE_VISIT,
    CLAIMED_EARLIER,
    IMPOSSIBLE,
    JUST_EARLIER,
    SUPPORTED,
    VIEW_NOT_SEALED,
)
from services.auditing.examining import BREAKS_A_RULE, NOT_UNDERSTOOD, RESTORED, UNFOUNDED
from services.auditing.found import Severity
from services.auditing.governing_rules import BOUND_TWICE, OWN_KEY, UNENDORSED
from services.auditing.results import AuditFinding, Source
from services.auditing.spans import odd_codes, odd_spans


@dataclass(frozen=True, slots=True)
class OddKind:
    """What is said of entries that are odd in one way: by whom, how much it matters, and in which words."""

    source: Source
    severity: Severity
    what: str
    expected: str
    innocent: tuple[str, ...] = ()


KINDS: Final[Mapping[str, OddKind]] = {
    IMPOSSIBLE: OddKind(
        Source.TIME,
        Severity.HIGH,
        "an entry says that it was accepted after witnesses knew it already, which is impossible",
        "accepted_at is no later than 300 s after the entry was in the witnessed history",
        ("the ledger's clock, or the witnesses', was wrong",),
    ),
    CLAIMED_EARLIER: OddKind(
        Source.TIME,
        Severity.MEDIUM,
        "an entry says that it was accepted at a time after which witnesses still knew no such entry",
        "accepted_at is supported by the witnessed time, or by a signed acknowledgement",
        ("the ledger was away, and worked through what it had accepted before", "a clock was wrong"),
    ),
    JUST_EARLIER: OddKind(
        Source.TIME,
        Severity.INFO,
        "an entry says that it was accepted shortly before a time at which witnesses knew no such entry",
        "accepted_at is supported by the witnessed time, or by a signed acknowledgement",
        ("it waited for its place in the register while the entries before it were sealed",),
    ),
    SUPPORTED: OddKind(
        Source.TIME,
        Severity.INFO,
        "an entry says that it was accepted before witnesses knew it, and a signed acknowledgement agrees",
        "accepted_at is supported by the witnessed time, or by a signed acknowledgement",
    ),
    BEFORE_VISIT: OddKind(
        Source.TIME,
        Severity.MEDIUM,
        "an entry says that it was accepted before your last visit, when it was not there",
        "what was accepted before a visit is there soon after",
        ("the ledger, or its witnesses, were away at your last visit", "a clock was wrong"),
    ),
    VIEW_NOT_SEALED: OddKind(
        Source.RULES,
        Severity.HIGH,
        "an entry was judged against governing entries that nobody else could see by then",
        "what entries are judged against is sealed by the time that they are known",
        ("the governing register's witnesses were away",),
    ),
    UNFOUNDED: OddKind(
        Source.RULES,
        Severity.HIGH,
        "a submission is rejected for a reason that the register does not show",
        "a rejection follows from the entries before it",
    ),
    BREAKS_A_RULE: OddKind(
        Source.RULES,
        Severity.MEDIUM,
        "a record is here that registration should have refused",
        "records keep the rules of registration, which bind only then",
        ("it was registered by an earlier version of the software",),
    ),
    NOT_UNDERSTOOD: OddKind(
        Source.RULES,
        Severity.LOW,
        "the type of a record is not understood; its inclusion is proved",
        "record types that are known",
        ("the ledger has moved on: use a newer version of these tools",),
    ),
    RESTORED: OddKind(
        Source.RULES,
        Severity.INFO,
        "a register was restored from an older copy, and caught up",
        "a restore is declared, never silent",
    ),
    BOUND_TWICE: OddKind(
        Source.RULES,
        Severity.MEDIUM,
        "a key is authorised that was bound already, which has no effect",
        "a key is authorised once, and bound to that department for ever",
    ),
    OWN_KEY: OddKind(
        Source.RULES,
        Severity.HIGH,
        "a key of the ledger's own is authorised for a department, which has no effect",
        "the ledger's and governance keys never write for a department",
    ),
    UNENDORSED: OddKind(
        Source.RULES,
        Severity.MEDIUM,
        "a further key is authorised for a department without its own signature",
        "a department's further keys are signed for by one that it has",
        ("all the department's keys were lost",),
    ),
}


def oddities(state: AuditState, register: str) -> Iterator[AuditFinding]:
    """Yield what was noted of a register's entries, a finding for each way of being odd. Raises StoreError."""
    for code in odd_codes(state.notebook, register):
        kind = KINDS[code]
        text, spans = odd_spans(state.notebook, code, register)
        more = f"; and {spans.count - 1:,} more" if spans.count > 1 else ""
        yield AuditFinding(
            code,
            kind.source,
            kind.severity,
            False,
            register,
            f"{kind.what}: entry {spans.listed[0][0]} {text}{more}",
            kind.expected,
            tuple(spans.listed),
            spans.count,
            innocent=kind.innocent,
        )

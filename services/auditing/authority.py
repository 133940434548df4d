"""Who was authorised when: keys that were revoked, registers that were closed.

The round has replayed every entry through the append rules, so each was signed by a key that was authorised
in the governing register at its own `governing_size`. What remains is what only time tells (formats.md,
section 7): how an entry stands to a revocation that came later, or that its acceptor had not seen yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ledger import base64
from ledger.entries import parse_entry
from ledger.governing import GOVERNING, KeyState
from ledger.records import KeyRevoked, parse_record
from ledger.timeline import Bounds, RevocationVerdict, judge_revocation
from ledger.values import partial
from services.auditing.audit_state import AuditState
from services.auditing.found import Severity
from services.auditing.results import AuditFinding, Source
from services.auditing.spans import Spans
from services.auditing.windows import shown_bounds


@dataclass(slots=True)
class _Judged:
    """Entries of one verdict, with the bounds of the first of them."""

    spans: Spans = field(default_factory=lambda: Spans([]))
    first: Bounds | None = None

    def add(self, begin: int, end: int, bounds: Bounds) -> None:
        self.first = self.first or bounds
        self.spans.add(begin, end - 1)


@dataclass(frozen=True, slots=True)
class _Revoked:
    """A revoked key, its revocation's own bounds, and since when it is suspected, POSIX seconds."""

    state: KeyState
    revoked: int
    record: KeyRevoked
    bounds: Bounds

    @property
    def text(self) -> str:
        return f"key {base64.encode(self.state.key)} of {self.state.department}"

    @property
    def suspected(self) -> int | None:
        said = self.record.suspected_from
        return partial(said).earliest if said else None


def authority_findings(state: AuditState, register: str, grace: int) -> Iterator[AuditFinding]:
    """Yield what is found of a department's register, whose entries were all examined.

    `grace` is in seconds, from the profile. Raises StoreError.
    """
    yield from _beyond_its_end(state, register)
    for key in _revoked_keys(state, register):
        yield from _revocation(state, register, key, grace)


def _revoked_keys(state: AuditState, register: str) -> Iterator[_Revoked]:
    mirror = state.monitored.mirror
    department = register.partition("/")[0]
    for held in mirror.fold.keys.values():
        if held.revoked is None or held.department != department:
            continue
        record = parse_record(parse_entry(mirror.reader(GOVERNING).entry(held.revoked)).record)
        assert isinstance(record, KeyRevoked)  # noqa: S101 - the fold has read it so
        yield _Revoked(held, held.revoked, record, state.bounds(GOVERNING, held.revoked))


def _revocation(state: AuditState, register: str, key: _Revoked, grace: int) -> Iterator[AuditFinding]:
    """Judge every entry that a revoked key has signed (formats.md, section 7)."""
    judged: dict[RevocationVerdict, _Judged] = {}
    suspected = _Judged()
    rows = state.notebook.rows(
        "SELECT first, last, governing_size FROM signed WHERE key = ? AND register = ? ORDER BY first",
        (key.state.key, register),
    )
    for first, last, governing_size in rows:
        for begin, end, bounds in state.times.stretches(register, first, last + 1):
            verdict = _verdict(governing_size, key, bounds, grace)
            judged.setdefault(verdict, _Judged()).add(begin, end, bounds)
            # Not known to be earlier is not earlier.
            if key.suspected is not None and (bounds.not_after is None or bounds.not_after > key.suspected):
                suspected.add(begin, end, bounds)
    for verdict, what in sorted(judged.items()):
        yield _judged(register, key, verdict, what, grace)
    if suspected.spans.count:
        yield _suspected(register, key, suspected)


def _verdict(governing_size: int, key: _Revoked, bounds: Bounds, grace: int) -> RevocationVerdict:
    verdict = judge_revocation(governing_size, key.revoked, bounds, key.bounds, grace)
    # Times of quorums that share no witness may not be compared (formats.md, section 15).
    if not bounds.comparable and verdict is not RevocationVerdict.INVALID:
        return RevocationVerdict.CONCURRENT
    return verdict


SAID: Final = {
    RevocationVerdict.INVALID: (
        "after-revocation",
        Severity.CRITICAL,
        "{count} entries signed by {key} were accepted although the revocation was in view",
        "no entry is accepted whose key is revoked in the governing register as it was judged against",
    ),
    RevocationVerdict.STALE_VIEW: (
        "stale-view",
        Severity.CRITICAL,
        "{count} entries signed by {key} came in more than {grace} s after its revocation",
        "what accepts entries sees a revocation within the grace",
    ),
    RevocationVerdict.CONCURRENT: (
        "concurrent-revocation",
        Severity.MEDIUM,
        "{count} entries signed by {key} cannot be shown to be from before its revocation",
        "entries of a revoked key are provably from before its revocation",
    ),
    RevocationVerdict.PROVABLY_BEFORE: (
        "before-revocation",
        Severity.INFO,
        "{count} entries signed by {key}, now revoked, are provably from before its revocation",
        "entries of a revoked key are provably from before its revocation",
    ),
}
"""What is said of each verdict: code, severity, the finding and what was expected."""


def _judged(
    register: str, key: _Revoked, verdict: RevocationVerdict, what: _Judged, grace: int
) -> AuditFinding:
    code, severity, sentence, expected = SAID[verdict]
    return AuditFinding(
        code,
        Source.RULES,
        severity,
        verdict is RevocationVerdict.INVALID,
        register,
        sentence.format(count=f"{what.spans.count:,}", key=key.text, grace=grace),
        expected,
        tuple(what.spans.listed),
        what.spans.count,
        {
            "key": base64.encode(key.state.key),
            "revoked_by_governing_entry": str(key.revoked),
            "revocation": shown_bounds(key.bounds),
            "first_entry": shown_bounds(what.first or key.bounds),
            "reason": key.record.reason,
            "grace_seconds": str(grace),
        },
    )


def _suspected(register: str, key: _Revoked, what: _Judged) -> AuditFinding:
    return AuditFinding(
        "suspected-key",
        Source.RULES,
        Severity.HIGH,
        False,
        register,
        f"{what.spans.count:,} entries signed by {key.text} are not provably from before "
        f"{key.record.suspected_from}, from when it is suspected to have been compromised",
        "entries are signed by whoever they seem to be from",
        tuple(what.spans.listed),
        what.spans.count,
        {
            "key": base64.encode(key.state.key),
            "suspected_from": str(key.record.suspected_from),
            "first_entry": shown_bounds(what.first or key.bounds),
        },
    )


def _beyond_its_end(state: AuditState, register: str) -> Iterator[AuditFinding]:
    held = state.monitored.mirror.fold.registers.get(register)
    size = state.monitored.size(register)
    if held is None or held.final_size is None or size <= held.final_size:
        return
    yield AuditFinding(
        "beyond-closure",
        Source.RULES,
        Severity.HIGH,
        False,
        register,
        f"the register was closed at {held.final_size:,} entries, and has {size:,}",
        "a closed register keeps the size with which it was closed",
        ((held.final_size, size - 1),),
        size - held.final_size,
        {"closed_by_governing_entry": str(held.closed), "final_size": str(held.final_size)},
    )

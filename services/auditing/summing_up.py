"""What a visit comes to: the verdict on each register, and what is left open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version

from ledger import base64
from ledger.checkpoints import OpenedCheckpoint
from ledger.governing import GOVERNING
from ledger.witnessing import Policy
from services.auditing.after_returns import AfterReturnCounts
from services.auditing.audit_state import AuditState
from services.auditing.open_questions import left_open
from services.auditing.remembered.after_returns import kept_after_returns
from services.auditing.results import (
    AuditFinding,
    AuditResult,
    Counts,
    KeptCheckpoint,
    RegisterVerdict,
    Standing,
    Unread,
)
from services.auditing.sealed_times import last_sealed_at, sealed_at
from services.auditing.unwitnessed_beginnings import undated
from services.auditing.verdicts import Since, ledger_verdict, register_details, register_verdict
from services.auditing.visit import Asked, Visit
from services.monitoring.anchoring import ANCHORED
from services.monitoring.findings import shown


def registers_asked(state: AuditState, asked: Asked) -> list[str]:
    """Return the registers that a visit is about, the governing one first."""
    names = asked.registers or sorted(state.monitored.mirror.fold.registers)
    return [GOVERNING, *dict.fromkeys(each for each in names if each != GOVERNING)]


def sum_up(
    state: AuditState,
    policy: Policy,
    asked: Asked,
    visit: Visit,
    kept: Sequence[KeptCheckpoint],
    url: str,
    ended: int,
) -> AuditResult:
    """Return what a visit to `url` comes to that has `ended`, POSIX seconds; `kept` were compared.

    Raises StoreError.
    """
    return _Summary(state, policy, asked, visit).result(url, ended, kept)


class _Summary:
    def __init__(self, state: AuditState, policy: Policy, asked: Asked, visit: Visit) -> None:
        self._state = state
        self._monitored = state.monitored
        self._policy = policy
        self._asked = asked
        self._visit = visit

    def result(self, url: str, ended: int, kept: Sequence[KeptCheckpoint]) -> AuditResult:
        visit = self._visit
        registers = tuple(
            self._verdict(register, kept) for register in registers_asked(self._state, self._asked)
        )
        named = {each.register for each in registers}
        general = tuple(each for each in visit.listing.findings if each.register not in named)
        unread = tuple(Unread(each.register, each.why) for each in visit.made.troubles)
        result = AuditResult(
            ledger=self._state.origin,
            url=url,
            policy_fingerprint=self._policy.fingerprint,
            witnessed=self._policy.quorum.root is not None,
            comparable=self._policy.quorum.comparable,
            visit=visit.number,
            begun=visit.begun,
            ended=ended,
            previous=visit.previous,
            since=self._monitored.seen.begun() or visit.begun,
            verdict=ledger_verdict(registers, general),
            registers=registers,
            findings=general,
            unread=unread,
            kept=tuple(kept),
            promises=visit.held.promises if visit.held else None,
            cannot_claim=(),
            remarks=tuple(self._remarks()),
            more=_added(visit.listing.more, visit.held.listing.more if visit.held else {}),
            profile=visit.terms.profile_named if self._asked.detects else "",
            calendar=visit.terms.calendar.version if self._asked.detects else "",
            software=version("daybook"),
            changed_terms=visit.changed_terms,
        )
        opened = self._monitored.mirror.fold.registers
        left = sorted(opened.keys() - {each.register for each in registers})
        return replace(result, cannot_claim=tuple(left_open(result, left)))

    def _remarks(self) -> Iterator[str]:
        yield from self._visit.made.remarks
        if self._asked.detects:
            yield from self._visit.terms.remarks
        if self._visit.changed_terms:
            yield "The terms are others than at your last visit: see what this audit leaves open."

    def _verdict(self, register: str, kept: Sequence[KeptCheckpoint]) -> RegisterVerdict:
        findings = tuple(each for each in self._visit.listing.findings if each.register == register)
        standing, why = self._standing(register, findings)
        opened = self._monitored.mirror.fold.registers.get(register)
        head = self._monitored.mirror.heads().get(register)
        size = head.size if head else 0
        since = self._since(register, kept)
        seen = self._monitored.seen.latest(register)
        checkpoint = None if seen is None else self._opened(register, seen.last)
        sealed = last_sealed_at(self._policy, checkpoint) if checkpoint else None
        anchored = self._monitored.seen.position(ANCHORED, register, -1)
        is_closed = opened is not None and opened.closed is not None
        new = sum(each.is_new and not each.is_failure for each in findings)
        return RegisterVerdict(
            register=register,
            title="The governing register" if register == GOVERNING else opened.title if opened else "",
            standing=standing,
            verdict=register_verdict(standing, since, size, findings, why, sealed),
            details=tuple(register_details(findings, is_closed=is_closed, new=new)),
            before=min(since.size, size) if since is not None and since.is_visit else 0,
            size=size,
            root=base64.encode(head.root) if head else "",
            checkpoint=shown(seen.last) if seen else "",
            cosigned_by=self._cosigned_by(checkpoint),
            sealed_at=sealed_at(self._policy, checkpoint) if checkpoint else None,
            anchored=anchored if anchored >= 0 else None,
            is_closed=is_closed,
            counts=self._counts(register),
            findings=findings,
            after_returns=self._after_returns(register),
            undated=self._undated(register),
        )

    def _standing(self, register: str, findings: Sequence[AuditFinding]) -> tuple[Standing, str]:
        if any(each.is_failure for each in findings):
            return Standing.FAILED, ""
        why = [each.why for each in self._visit.made.troubles if each.register == register]
        if why:
            return Standing.UNREAD, why[0]
        if register not in {each.register for each in self._visit.made.followed}:
            return (
                Standing.UNREAD,
                "the governing register, by which entries are judged, was not read, or does not hold",
            )
        return Standing.INTACT, ""

    def _since(self, register: str, kept: Sequence[KeptCheckpoint]) -> Since | None:
        """Return what a register can be said to be unaltered since."""
        row = self._state.notebook.one("SELECT size, at FROM audited WHERE register = ?", (register,))
        agreeing = [each for each in kept if each.register == register and each.agrees]
        newest = max(agreeing, key=lambda each: each.size, default=None)
        if newest is not None and (row is None or newest.size > row[0]):
            return Since(newest.size, newest.sealed_at or 0, newest, is_visit=False)
        if row is not None:
            return Since(row[0], row[1])
        first = self._monitored.seen.next_above(register, -1)
        if first is not None and first.at < self._visit.begun:
            return Since(first.size, first.at, is_visit=False)
        return None

    def _opened(self, register: str, note: bytes) -> OpenedCheckpoint:
        return self._policy.open(note, self._monitored.mirror.register_origin(register))

    def _cosigned_by(self, checkpoint: OpenedCheckpoint | None) -> tuple[str, ...]:
        known = self._policy.cosignatures(checkpoint) if checkpoint is not None else ()
        return tuple(sorted({each.witness for each in known}))

    def _counts(self, register: str) -> Counts:
        rows = self._state.notebook.rows("SELECT kind, entries FROM counted WHERE register = ?", (register,))
        return Counts(**dict(rows))

    def _undated(self, register: str) -> int:
        if self._policy.quorum.root is None or register == GOVERNING:
            return 0
        return undated(self._state, register)

    def _after_returns(self, register: str) -> AfterReturnCounts | None:
        if not self._asked.detects or register == GOVERNING:
            return None
        with kept_after_returns(self._state.detections) as kept:
            return kept.counts(register)


def _added(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {code: one.get(code, 0) + other.get(code, 0) for code in {**one, **other}}

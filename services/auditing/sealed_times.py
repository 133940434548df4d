"""When checkpoints were sealed: by the clocks of the witnesses whose quorum has cosigned them.

From every note that this auditor has verified come the times of entries: the notes that he was served, and
those that stand in the governing register as anchors (formats.md, section 15).
"""

from __future__ import annotations

from collections.abc import Iterable

from ledger.checkpoints import OpenedCheckpoint
from ledger.errors import MalformedError, RejectedError, SignatureError
from ledger.governing import GOVERNING
from ledger.monitoring import open_anchor
from ledger.witnessing import FUTURE_TOLERANCE, Cosignature, Policy
from services.auditing.audit_state import STRETCH, AuditState
from services.auditing.bounds_used import ANCHORS, BOUNDED, SEEN, look_again_from


def sealed_at(policy: Policy, opened: OpenedCheckpoint) -> int | None:
    """Return when a checkpoint's quorum was met, POSIX seconds; None where it is not, or none is asked for."""
    if policy.quorum.root is None:
        return None
    names: set[str] = set()
    for each in sorted(policy.cosignatures(opened), key=lambda one: one.time):
        names.add(each.witness)
        if policy.quorum.is_met_by(names):
            return each.time
    return None


def last_sealed_at(policy: Policy, opened: OpenedCheckpoint) -> int | None:
    """Return the last time by which a quorum still held a checkpoint for the newest one, POSIX seconds.

    A witness may cosign again what stands still. None as in `sealed_at`.
    """
    if policy.quorum.root is None:
        return None
    names: set[str] = set()
    for each in sorted(policy.cosignatures(opened), key=lambda one: -one.time):
        names.add(each.witness)
        if policy.quorum.is_met_by(names):
            return each.time
    return None


def gather_times(
    state: AuditState, policy: Policy, kept: Iterable[tuple[str, OpenedCheckpoint]], now: float
) -> None:
    """Take in the cosignatures of all notes that were not taken in yet, and of those that the auditor `kept`.

    `now` is POSIX seconds: those of the future are left out, since they prove nothing about the past. Entries
    that may have been looked at, and whose bounds are others now, are to be looked at again. Raises StoreError.
    """
    if policy.quorum.root is None:
        return
    for register, opened in kept:
        with state.notebook.together():
            _take_in(state, register, policy.cosignatures(opened), now)
    registers = (GOVERNING, *state.monitored.mirror.fold.registers)
    for register in registers:
        _gather_seen(state, policy, register, now)
    _gather_anchored(state, policy, now)
    with state.notebook.together():
        for register in registers:
            state.notebook.set_position(f"{BOUNDED}{register}", state.monitored.size(register))


def _take_in(state: AuditState, register: str, cosignatures: Iterable[Cosignature], now: float) -> None:
    """Keep cosignatures, in a transaction that the caller has begun."""
    below = state.notebook.position(f"{BOUNDED}{register}")
    past = [each for each in cosignatures if each.time <= now + FUTURE_TOLERANCE]
    changed = state.times.add(register, past, below)
    if changed is not None:
        look_again_from(state.notebook, register, changed)


def _gather_seen(state: AuditState, policy: Policy, register: str, now: float) -> None:
    """Take in the notes that were served of a register, from the largest size of the last time on."""
    seen, notebook = state.monitored.seen, state.notebook
    name, origin = f"{SEEN}{register}", state.monitored.mirror.register_origin(register)
    size = notebook.position(name)
    with notebook.together():
        while (held := seen.next_above(register, size - 1)) is not None:
            for note in {held.first, held.last}:
                try:
                    opened = policy.open(note, origin)
                except SignatureError:
                    continue  # seen under another policy, whose witnesses this one does not know
                _take_in(state, register, policy.cosignatures(opened), now)
                sealed = sealed_at(policy, opened)
                if register == GOVERNING and sealed is not None and sealed <= now + FUTURE_TOLERANCE:
                    notebook.write(
                        "INSERT INTO sealed VALUES (?1, ?2) ON CONFLICT DO UPDATE SET time = min(time, ?2)",
                        (held.size, sealed),
                    )
            notebook.set_position(name, held.size)
            size = held.size + 1


def _gather_anchored(state: AuditState, policy: Policy, now: float) -> None:
    mirror, notebook = state.monitored.mirror, state.notebook
    begin, size = notebook.position(ANCHORS), state.monitored.size(GOVERNING)
    while begin < size:
        end = min(begin + STRETCH, size)
        with notebook.together():
            for index, entry in enumerate(state.entries(GOVERNING, begin, end), begin):
                try:
                    anchor = open_anchor(entry, index, mirror.origin, mirror.fold, policy)
                except (MalformedError, RejectedError, SignatureError):
                    continue  # the round has found it
                if anchor is not None:
                    _take_in(state, anchor.register, policy.cosignatures(anchor.opened), now)
            notebook.set_position(ANCHORS, end)
        begin = end

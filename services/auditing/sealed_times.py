"""When checkpoints were sealed: by the clocks of the witnesses whose quorum has cosigned them.

From every note that this auditor has verified come the times of entries: the notes that he was served, and
those that stand in the governing register as anchors (formats.md, section 15).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ledger.checkpoints import OpenedCheckpoint
from ledger.errors import MalformedError, RejectedError, SignatureError
from ledger.governing import GOVERNING
from ledger.monitoring import open_anchor
from ledger.witnessing import FUTURE_TOLERANCE, Cosignature, Policy
from services.auditing.audit_state import STRETCH, AuditState

_ANCHORS: Final = "times of anchors"
_SEEN: Final = "times of "


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


def gather_times(
    state: AuditState, policy: Policy, kept: Iterable[tuple[str, OpenedCheckpoint]], now: float
) -> None:
    """Take in the cosignatures of all notes that were not taken in yet, and of those that the auditor `kept`.

    `now` is POSIX seconds: those of the future are left out, since they prove nothing about the past. Raises
    StoreError.
    """
    if policy.quorum.root is None:
        return
    for register, opened in kept:
        with state.notebook.together():
            state.times.add(register, _past(policy.cosignatures(opened), now))
    for register in (GOVERNING, *state.monitored.mirror.fold.registers):
        _gather_seen(state, policy, register, now)
    _gather_anchored(state, policy, now)


def _gather_seen(state: AuditState, policy: Policy, register: str, now: float) -> None:
    """Take in the notes that were served of a register, from the largest size of the last time on."""
    seen, notebook = state.monitored.seen, state.notebook
    name, origin = f"{_SEEN}{register}", state.monitored.mirror.register_origin(register)
    size = notebook.position(name)
    with notebook.together():
        while (held := seen.next_above(register, size - 1)) is not None:
            for note in {held.first, held.last}:
                try:
                    opened = policy.open(note, origin)
                except SignatureError:
                    continue  # seen under another policy, whose witnesses this one does not know
                state.times.add(register, _past(policy.cosignatures(opened), now))
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
    begin, size = notebook.position(_ANCHORS), state.monitored.size(GOVERNING)
    while begin < size:
        end = min(begin + STRETCH, size)
        with notebook.together():
            for index, entry in enumerate(state.entries(GOVERNING, begin, end), begin):
                try:
                    anchor = open_anchor(entry, index, mirror.origin, mirror.fold, policy)
                except (MalformedError, RejectedError, SignatureError):
                    continue  # the round has found it
                if anchor is not None:
                    state.times.add(anchor.register, _past(policy.cosignatures(anchor.opened), now))
            notebook.set_position(_ANCHORS, end)
        begin = end


def _past(cosignatures: tuple[Cosignature, ...], now: float) -> list[Cosignature]:
    return [each for each in cosignatures if each.time <= now + FUTURE_TOLERANCE]

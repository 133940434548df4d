"""Checkpoints that the auditor kept elsewhere: with them even a lost state leaves a claim.

A note that the ledger has signed binds it for ever. Taken into what was seen before the round is made, it is
compared as if this state had seen it itself: a rollback or a fork against it is found, with the proof. And one
of a register that the governing register does not open shows a register that is kept from view.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ledger.checkpoints import OpenedCheckpoint, peek_origin
from ledger.errors import LedgerError, MalformedError, SignatureError
from ledger.governing import GOVERNING
from ledger.notes import MAX_NOTE_SIZE
from ledger.split_views import compare
from ledger.values import is_register
from ledger.witnessing import Policy
from services.auditing.results import KeptCheckpoint
from services.auditing.sealed_times import sealed_at
from services.monitoring.diagnosis import forked
from services.monitoring.findings import Finding, FoundError, Kind
from services.monitoring.judging import Judge
from services.monitoring.rounds import Round
from services.monitoring.state import State


class KeptCheckpointError(LedgerError):
    """A file is no checkpoint of this ledger that can be compared with."""


@dataclass(slots=True)
class Kept:
    """What was taken in, verified (`opened`, by register), and what it contradicts already."""

    checkpoints: list[KeptCheckpoint]
    findings: list[Finding]
    opened: list[tuple[str, OpenedCheckpoint]]


def take(state: State, policy: Policy, judge: Judge, files: Iterable[Path], now: int) -> Kept:
    """Take checkpoint notes into what was seen; `now` is POSIX seconds.

    Raises KeptCheckpointError for what is no checkpoint of this ledger, OSError, StoreError.
    """
    kept = Kept([], [], [])
    for file in files:
        register, opened = _opened(state, policy, file)
        size, sealed = opened.checkpoint.size, sealed_at(policy, opened)
        taken = KeptCheckpoint(str(file), register, size, sealed, None)
        try:
            same = state.seen.at(register, size)
            if same is not None:
                view = compare(judge.open(same), opened, lambda _: {})
                if view is not None:
                    raise FoundError(forked(register, view))
            judge.compare_with_mirror(register, opened)
        except FoundError as error:
            kept.findings.append(error.finding)
            kept.checkpoints.append(replace(taken, agrees=False))
            continue
        kept.opened.append((register, opened))
        if same is None:
            state.seen.keep(register, size, opened.note.trimmed(), now)
        kept.checkpoints.append(taken)
    return kept


def unopened(state: State, made: Round) -> Iterator[Finding]:
    """Yield the registers of which a signed checkpoint was taken in and that nothing opens, after a round.

    Only where the governing register was read to its end: one that was not may open them. Raises StoreError.
    """
    governing = state.seen.latest(GOVERNING)
    if GOVERNING in made.broken() or governing is None or governing.size > state.size(GOVERNING):
        return
    opened = state.mirror.fold.registers
    for register in state.seen.registers():
        if register == GOVERNING or register in opened:
            continue
        latest = state.seen.latest(register)
        assert latest is not None  # noqa: S101 - a checkpoint of it was seen
        yield Finding(
            Kind.UNOPENED,
            register if is_register(register) else "",
            f"the ledger has signed a checkpoint of {latest.size:,} entries of {register!a}, a register that "
            f"none of the {governing.size:,} governing entries opens",
            "registers are opened by entries of the governing register, and in no other way",
            (latest.last, governing.last),
        )


def compared(
    kept: Iterable[KeptCheckpoint], state: State, judge: Judge, hidden: Collection[str] = ()
) -> Iterable[KeptCheckpoint]:
    """Yield the checkpoints again, each with whether it is of the history that was read by now.

    `hidden` are the registers that `unopened` has found: there is no history that theirs could be of.
    """
    for each in kept:
        if each.register in hidden:
            yield replace(each, agrees=False)
        elif each.agrees is None and each.size <= state.size(each.register):
            seen = state.seen.at(each.register, each.size)
            assert seen is not None  # noqa: S101 - it was taken in
            try:
                judge.compare_with_mirror(each.register, judge.open(seen))
            except FoundError:
                yield replace(each, agrees=False)
            else:
                yield replace(each, agrees=True)
        else:
            yield each


def _opened(state: State, policy: Policy, file: Path) -> tuple[str, OpenedCheckpoint]:
    with file.open("rb") as opened:
        data = opened.read(MAX_NOTE_SIZE + 1)
    try:
        origin = peek_origin(data[:MAX_NOTE_SIZE])
        ledger, _, register = origin.partition("/")
        if ledger != state.mirror.origin or not register:
            raise KeptCheckpointError(f"{file} is a checkpoint of {origin!a}, not of {state.mirror.origin}")
        return register, policy.open(data, origin)
    except (MalformedError, SignatureError) as error:
        raise KeptCheckpointError(f"{file} is no checkpoint that your policy verifies: {error}") from error

"""What an audit leaves open, in sentences: an auditor must know what he cannot claim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from services.auditing.results import AuditResult, Standing
from services.auditing.stale_seals import STALE
from services.auditing.windows import shown_time

_SHOWN = 10


def left_open(result: AuditResult, not_asked: Sequence[str]) -> Iterator[str]:
    """Yield what cannot be claimed after an audit; `not_asked` are registers that were not to be read."""
    yield from _about_the_past(result)
    if not result.witnessed:
        yield (
            "Your policy asks for no witness. No time is proved, so nothing is said of when entries came in, "
            "or of how old it is what you were served. And others may be shown another history: compare with "
            "them (daybook monitor --compare)."
        )
    elif not result.comparable:
        yield (
            "Two quorums of your policy may share no witness. Not-before and not-after may not be compared "
            "then, and what rests on that is reported as not decided."
        )
    yield from _about_the_present(result)
    yield from _about_beginnings(result)
    if result.changed_terms:
        yield result.changed_terms
    if not_asked:
        names = ", ".join(not_asked[:_SHOWN]) + (", …" if len(not_asked) > _SHOWN else "")
        which, whose = f"{len(not_asked):,} registers were", "their"
        if len(not_asked) == 1:
            which, whose = "1 register was", "its"
        yield f"{which} not asked for, and nothing is said of {whose} entries: {names}."
    if any(each.agrees is None for each in result.kept):
        yield "Of a checkpoint that you kept not all entries could be read: whether it agrees is not decided."
    yield "What was never registered is not here, and whether a record is true no ledger can tell."


def _about_the_present(result: AuditResult) -> Iterator[str]:
    """Say of which registers only something old was served."""
    stale = {each.register: each.inputs["sealed_at"] for each in result.all_findings() if each.code == STALE}
    if stale:
        names = ", ".join(f"{name} (sealed {at})" for name, at in list(stale.items())[:_SHOWN])
        more = ", …" if len(stale) > _SHOWN else ""
        yield (
            f"Of {len(stale):,} {'register' if len(stale) == 1 else 'registers'} only old checkpoints were "
            f"served: {names}{more}. What was added since, if anything, you were not shown."
        )


def _about_beginnings(result: AuditResult) -> Iterator[str]:
    """Say of which registers it is not known from when their first entries are."""
    found = [each for each in result.registers if each.undated]
    if found:
        names = ", ".join(f"{each.register} ({each.undated:,})" for each in found[:_SHOWN])
        more = ", …" if len(found) > _SHOWN else ""
        total = sum(each.undated for each in found)
        which = "this register" if len(found) == 1 else "these registers"
        entries = f"{total:,} {'entry' if total == 1 else 'entries'}"
        yield (
            f"Nothing shows that witnesses had {which} while empty: {names}{more}. So from when {entries} can "
            "be is not proved, and neither whether that was registered late."
        )


def _about_the_past(result: AuditResult) -> Iterator[str]:
    """Say what is lost with a state: before it, only what was kept elsewhere can be compared."""
    compared = {each.register for each in result.kept if each.agrees}
    newest = max((each.sealed_at or 0 for each in result.kept if each.agrees), default=0)
    if result.previous is None:
        without = [each.register for each in result.registers if each.register not in compared]
        some = f" of {', '.join(without[:_SHOWN])}" if compared and without else ""
        if without:
            yield (
                f"This is the first visit with this state, begun {shown_time(result.since)}. Whether "
                f"anything{some} was altered or removed before that cannot be told from it. If you have been "
                "here before, use the state of then, or give checkpoints that you kept (--last-checkpoint)."
            )
    elif fresh := [
        each.register for each in result.registers if each.is_fresh and each.register not in compared
    ]:
        names = ", ".join(fresh[:_SHOWN]) + (", …" if len(fresh) > _SHOWN else "")
        yield (
            f"Nothing of {names} was read at an earlier visit with this state. Whether anything of it was "
            "altered or removed before this one cannot be told from it."
        )
    if result.previous is not None and newest > result.previous:
        yield (
            f"This state was last used on {shown_time(result.previous)}, before a checkpoint that you kept: "
            "it is an older copy. What it had seen in between is lost, but for that checkpoint."
        )
    for each in result.registers:
        if each.standing is Standing.UNREAD and each.before:
            entries = "entry" if each.before == 1 else f"{each.before:,} entries"
            affected = f"read at earlier visits {'is' if each.before == 1 else 'are'} not affected"
            yield f"The {entries} of {each.register} {affected}."

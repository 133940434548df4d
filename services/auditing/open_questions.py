"""What an audit leaves open, in sentences: an auditor must know what he cannot claim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from services.auditing.results import AuditResult, Standing
from services.auditing.windows import shown_time

_SHOWN = 10


def left_open(result: AuditResult, not_asked: Sequence[str]) -> Iterator[str]:
    """Yield what cannot be claimed after an audit; `not_asked` are registers that were not to be read."""
    yield from _about_the_past(result)
    if not result.witnessed:
        yield (
            "Your policy asks for no witness. No time is proved, so nothing is said of when entries came in. "
            "And others may be shown another history: compare with them (daybook monitor --compare)."
        )
    elif not result.comparable:
        yield (
            "Two quorums of your policy may share no witness. Not-before and not-after may not be compared "
            "then, and what rests on that is reported as not decided."
        )
    if not_asked:
        names = ", ".join(not_asked[:_SHOWN]) + (", …" if len(not_asked) > _SHOWN else "")
        yield f"{len(not_asked)} registers were not asked for, and nothing is said of their entries: {names}."
    if any(each.agrees is None for each in result.kept):
        yield "Of a checkpoint that you kept not all entries could be read: whether it agrees is not decided."
    yield "What was never registered is not here, and whether a record is true no ledger can tell."


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
    elif newest > result.previous:
        yield (
            f"This state was last used on {shown_time(result.previous)}, before a checkpoint that you kept: "
            "it is an older copy. What it had seen in between is lost, but for that checkpoint."
        )
    for each in result.registers:
        if each.standing is Standing.UNREAD and each.before:
            yield f"The {each.before:,} entries of {each.register} read at earlier visits are not affected."

"""What is said of each register: the verdict, then what it rests on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from services.auditing.report.markup import Markup, cut, join, tag, timed
from services.auditing.report.tables import facts, listed, table
from services.auditing.report.words import STANDINGS, many, time_in_words
from services.auditing.results import AuditResult, Counts, Promises, RegisterVerdict, Standing

MAX_REGISTERS: Final = 200
"""Registers that a report tells; the others are counted, those that failed come first."""

_TEXT: Final = 2_000
_NAME: Final = 200


def registers_told(result: AuditResult) -> tuple[RegisterVerdict, ...]:
    """Return the registers that a report tells: those that failed, those not read, the others."""
    order = [Standing.FAILED, Standing.UNREAD, Standing.INTACT]
    return tuple(sorted(result.registers, key=lambda each: order.index(each.standing))[:MAX_REGISTERS])


def counts_table(result: AuditResult) -> Markup:
    """Return the table of registers with how many entries they have, of what kind."""
    names = list(asdict(Counts()))
    told = registers_told(result)
    rows = [
        (
            cut(each.register, _NAME),
            STANDINGS[each.standing],
            f"{each.size:,}",
            f"{each.added:,}",
            *(f"{count:,}" for count in asdict(each.counts).values()),
        )
        for each in told
    ]
    total = (
        "In all" if len(result.registers) == 1 else f"All {len(result.registers):,} registers",
        "",
        f"{sum(each.size for each in result.registers):,}",
        f"{sum(each.added for each in result.registers):,}",
        *(f"{sum(asdict(each.counts)[name] for each in result.registers):,}" for name in names),
    )
    columns = ("Register", "Verdict", "Entries", "New", *(name.capitalize() for name in names))
    made = table("Registers, and what their entries say they are", columns, rows, total)
    left = len(result.registers) - len(told)
    if not left:
        return made
    return join([made, tag("p", f"{many(left, 'more register')} not listed here; the last row counts them.")])


def register_sections(result: AuditResult) -> Markup:
    """Return a part for each register, under headings of the third level."""
    return join(_register(each, result.previous is None) for each in registers_told(result))


def _register(verdict: RegisterVerdict, is_first: bool) -> Markup:
    new = "" if is_first else f", of them {verdict.added:,} new since the last visit"
    sealed = time_in_words(verdict.sealed_at) if verdict.sealed_at is not None else ""
    anchored = "" if verdict.anchored is None else f"up to {many(verdict.anchored, 'entry', 'entries')}"
    pairs = [
        ("Title", cut(verdict.title, _NAME)),
        ("Entries", f"{verdict.size:,}{new}"),
        ("Root of all entries", tag("code", verdict.root) if verdict.root else ""),
        ("Cosigned by", ", ".join(verdict.cosigned_by)),
        ("Sealed", sealed),
        ("Anchored", anchored),
        ("Closed", "yes: nothing more can be registered in it" if verdict.is_closed else ""),
        ("Latest checkpoint", tag("pre", cut(verdict.checkpoint, _TEXT)) if verdict.checkpoint else ""),
    ]
    details = listed(cut(each, _TEXT) for each in verdict.details) if verdict.details else ""
    return tag(
        "section",
        tag("h3", cut(verdict.register, _NAME), " ", standing(verdict.standing)),
        tag("p", timed(cut(verdict.verdict, _TEXT))),
        details,
        facts(pairs),
    )


def standing(of: Standing) -> Markup:
    """Return how a register stands, as a label in words."""
    return tag("span", STANDINGS[of], class_=f"standing {of.value}")


def promises_told(promises: Promises) -> Markup:
    """Return what became of a department's acknowledgements."""
    rows = [
        ("Became entries", promises.kept),
        ("Were rejected, provably", promises.rejected),
        ("Too new to be judged", promises.open),
        ("Broken: neither registered nor rejected", promises.broken),
        ("Of registers that were not read", promises.unread),
        ("Files that prove nothing", promises.unusable),
    ]
    return table(
        f"Acknowledgements in {many(promises.files, 'file')}",
        ("What became of them", "Count"),
        [(name, f"{count:,}") for name, count in rows],
    )


def kept_told(result: AuditResult) -> Markup:
    """Return the checkpoints that the auditor had kept, and whether they agree."""
    said = {True: "agrees", False: "does not agree", None: "not decided"}
    rows = [
        (
            cut(each.file, _NAME),
            cut(each.register, _NAME),
            f"{each.size:,}",
            time_in_words(each.sealed_at) if each.sealed_at is not None else "no time is proved",
            said[each.agrees],
        )
        for each in result.kept[:MAX_REGISTERS]
    ]
    columns = ("File", "Register", "Entries", "Sealed", "With what was read")
    made = table("Checkpoints that you had kept", columns, rows)
    left = len(result.kept) - len(rows)
    return join([made, tag("p", f"{many(left, 'more checkpoint')} not listed here.")]) if left > 0 else made

"""Verdicts: one sentence or two for somebody who reads nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.auditing.results import AuditFinding, KeptCheckpoint, RegisterVerdict, Standing
from services.auditing.windows import shown_time
from services.monitoring.findings import Kind

_FAILURES: Final[Mapping[str, str]] = {
    Kind.FORK: "the ledger has signed two different histories of it",
    Kind.ROLLBACK: "entries that the ledger had signed are no longer there",
    Kind.ALTERED: "what is served is not what the ledger has signed",
    Kind.FORGED: "it holds an entry that nobody who was authorised can have registered",
    Kind.HIDDEN: "it is kept from view",
    Kind.UNOPENED: "a register is shown that was never opened",
    Kind.UNANCHORED: "its checkpoints are kept out of the governing register",
    Kind.ANCHOR: "it carries a checkpoint that is none of this ledger",
    Kind.SIGNATURE: "its checkpoint is not signed by the ledger",
    Kind.UNSEALED: "its checkpoint has not the witnesses that your policy asks for",
    Kind.AHEAD: "it rests on governing entries that are kept from view",
    Kind.MISSING: "something is not served that a signed checkpoint implies",
    "second-tree": "two independent implementations come to different roots of it",
    "broken-promise": "a submission that was acknowledged is not in it",
    "after-revocation": "it holds entries signed with a key that was known to be revoked",
}


@dataclass(frozen=True, slots=True)
class Since:
    """What a register was compared with: its state at an earlier visit, or a checkpoint that was kept.

    `at` is POSIX seconds; `size` is how many entries were known then.
    """

    size: int
    at: int
    kept: KeptCheckpoint | None = None
    is_visit: bool = True

    def __str__(self) -> str:
        """In words, after "since"."""
        if self.kept is not None:
            when = "" if self.kept.sealed_at is None else f", sealed {shown_time(self.kept.sealed_at)}"
            return f"the checkpoint of {_entries(self.size)} that you had kept{when}"
        if self.is_visit:
            return f"your last visit on {shown_time(self.at)}"
        return f"this state first saw it on {shown_time(self.at)}"


def register_verdict(
    standing: Standing,
    since: Since | None,
    size: int,
    findings: Sequence[AuditFinding],
    why: str,
    sealed_at: int | None,
) -> str:
    """Return the verdict on one register of `size` entries; `why` it could not be read, where it could not.

    `sealed_at` is when what was served was sealed last, POSIX seconds; None where no time is proved.
    """
    if standing is Standing.FAILED:
        return f"Do not rely on this register: {'; '.join(_wrong(findings))}."
    if standing is Standing.UNREAD:
        return f"Nothing is said about this register, since it could not be read to its end: {why}."
    if since is None:
        whole = f"All {_entries(size)} are what the ledger has signed, and hold together"
        if size == 1:
            whole = "Its only entry is what the ledger has signed, and holds"
        return f"{whole}. This is the first visit: nothing earlier of yours could be compared with."
    added = size - since.size
    grown = f"{_entries(added)} {'was' if added == 1 else 'were'} added" if added else _nothing(sealed_at)
    whole = "its only entry holds" if size == 1 else f"all {_entries(size)} hold together"
    return f"Nothing was altered or removed since {since}; {grown}, and {whole}."


def _nothing(sealed_at: int | None) -> str:
    """Say that nothing was added: nobody can know of what he was not shown."""
    sealed = " " if sealed_at is None else f", sealed {shown_time(sealed_at)}, "
    return f"in what was served{sealed}nothing was added"


def register_details(findings: Sequence[AuditFinding], *, is_closed: bool, new: int) -> Iterator[str]:
    """Yield what else is to be said of a register in a sentence; `new` of its findings are of this visit."""
    counted = Counter(each.severity for each in findings if not each.is_failure)
    if counted:
        ordered = sorted(counted.items(), key=lambda pair: -pair[0].rank)
        severities = ", ".join(f"{count:,} {severity.value}" for severity, count in ordered)
        total = counted.total()
        if total == 1:
            known = "it is new" if new else "it was known before"
            yield f"1 finding that is no integrity failure ({severities}); {known}."
        else:
            yield f"{total:,} findings that are no integrity failures ({severities}), {new:,} of them new."
    if is_closed:
        yield "The register is closed."


def ledger_verdict(registers: Sequence[RegisterVerdict], findings: Sequence[AuditFinding]) -> str:
    """Return the verdict on everything that was asked for."""
    failed = [each.register for each in registers if each.standing is Standing.FAILED]
    unread = [each.register for each in registers if each.standing is Standing.UNREAD]
    general = list(dict.fromkeys(_wrong(findings)))
    if failed or general:
        about = (
            [f"of {_registers(len(registers))} {len(failed)} failed ({', '.join(failed[:5])})"]
            if failed
            else []
        )
        return f"Integrity failures were found: {'; '.join([*about, *general])}."
    if unread and len(unread) == len(registers):
        return f"Nothing could be read to its end: nothing is said about {', '.join(unread[:5])}."
    if unread:
        return (
            f"Nothing wrong was found in what could be read; {len(unread)} of {_registers(len(registers))} "
            f"could not be read to the end ({', '.join(unread[:5])})."
        )
    entries, added = sum(each.size for each in registers), sum(each.added for each in registers)
    return (
        f"No integrity failure was found: {_registers(len(registers))} with {_entries(entries)}, {added:,} "
        f"{'new' if entries == 1 else 'of them new'}, {'is' if len(registers) == 1 else 'are'} what the ledger "
        "has signed."
    )


def _wrong(findings: Sequence[AuditFinding]) -> Iterator[str]:
    said = dict.fromkeys(each.code for each in findings if each.is_failure)
    yield from (_FAILURES.get(code, code) for code in said)


def _registers(count: int) -> str:
    return f"{count:,} register" if count == 1 else f"{count:,} registers"


def _entries(count: int) -> str:
    return f"{count:,} entry" if count == 1 else f"{count:,} entries"

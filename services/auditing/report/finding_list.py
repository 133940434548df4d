"""The findings, the gravest first, each with its evidence and how to look at it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from services.auditing.found import Severity
from services.auditing.report.exhibits import Exhibit, Place, exhibit_table, linked
from services.auditing.report.finding_choice import SPANS, Numbered, Told, gravest_first, told
from services.auditing.report.markup import Markup, cut, join, tag, timed
from services.auditing.report.tables import facts, listed, table
from services.auditing.report.words import SEVERITIES, SOURCES, many, name_of, time_in_words
from services.auditing.results import AuditFinding, AuditResult

_TEXT: Final = 2_000
_INPUT: Final = 600
_INPUTS: Final = 24

Link = Callable[[str], str]
"""Gives the address of a file of evidence, as the page has it, from its path."""


def counted(result: AuditResult) -> Markup:
    """Return the table of what was found, by kind."""
    groups: dict[str, list[AuditFinding]] = {}
    for finding in sorted(result.all_findings(), key=gravest_first):
        groups.setdefault(finding.code, []).append(finding)
    rows = []
    for code, found in groups.items():
        severities = sorted({each.severity for each in found}, key=lambda each: -each.rank)
        said = (
            "integrity failure"
            if any(each.is_failure for each in found)
            else ", ".join(SEVERITIES[each].lower() for each in severities)
        )
        in_all = len(found) + result.more.get(code, 0)
        new = sum(each.is_new for each in found)
        rows.append((f"{name_of(code)} ({code})", said, f"{in_all:,}", f"{new:,}"))
    rows += [
        (f"{name_of(code)} ({code})", "", f"{count:,}", "")
        for code, count in sorted(result.more.items())
        if code not in groups
    ]
    return table("What was found, by kind", ("Kind", "Severity", "Found", "New"), rows)


@dataclass(frozen=True, slots=True)
class Links:
    """Where a finding's links lead: `file` gives the address of a file, `exhibits` are those of the page."""

    file: Link
    exhibits: Mapping[Place, Exhibit]


def finding_list(result: AuditResult, links: Links) -> Markup:
    """Return the findings: by severity under headings of the third level, by kind under those of the fourth."""
    chosen = told(result)
    groups = groupby(chosen.numbered, key=lambda each: (each.finding.is_failure, each.finding.severity))
    parts = [_group(severity, list(group), links, result.previous is None) for (_, severity), group in groups]
    exhibits = exhibit_table(links.exhibits, chosen.numbered)
    if exhibits:
        exhibits = join([tag("h3", "Exhibits", id="exhibits"), exhibits])
    return join([tag("p", _EXHIBITS), tag("pre", _PACKING), *parts, _left(chosen), exhibits])


_EXHIBITS: Final = (
    "Findings are numbered F1, F2 and so on, for this report only, and so are the exhibits: E1, E2 and so on "
    "are the entries that findings name. The number of an entry leads to its exhibit, in the table after the "
    "findings. Links under “Evidence” lead to files in the folder “evidence” of the auditor's state, so keep "
    "this page where it is beside that. Exhibits can be packed, with all that proves them, for others to "
    "verify:"
)
_PACKING: Final = (
    "daybook evidence --register REGISTER --select index=FIRST..LAST --state STATE --policy YOUR_POLICY "
    "--out PACK.zip"
)
_MORE: Final = "the command daybook audit with --json lists up to 1,000 of each kind"


def _group(severity: Severity, numbered: Sequence[Numbered], links: Links, is_first: bool) -> Markup:
    is_failure = numbered[0].finding.is_failure
    title = "Integrity failures" if is_failure else f"Severity: {SEVERITIES[severity].lower()}"
    kinds = groupby(numbered, key=lambda each: each.finding.code)
    return tag(
        "section",
        tag("h3", f"{title} ({len(numbered):,})"),
        *(_kind(code, list(group), links, is_first) for code, group in kinds),
        class_="failure" if is_failure else severity.value,
    )


def _left(chosen: Told) -> Markup | str:
    if not chosen.left:
        return ""
    return join(
        [
            tag("h3", f"Counted only ({chosen.left.total():,})"),
            tag(
                "p",
                "There are too many findings to tell them all here. The following are in the numbers "
                f"above, and not among those told; {_MORE}.",
            ),
            listed(f"{count:,} of {name_of(code)} ({code})" for code, count in sorted(chosen.left.items())),
        ]
    )


def _kind(code: str, numbered: Sequence[Numbered], links: Links, is_first: bool) -> Markup:
    """Return the findings of one kind: what is the same for all of them first, and once."""
    findings = [each.finding for each in numbered]
    shared = _Shared.of(findings)
    return tag(
        "section",
        tag("h4", f"{name_of(code)} ({code}): {len(numbered):,}"),
        facts(
            [
                ("Found by", SOURCES[findings[0].source]),
                ("Should be", _sentence(shared.expected)),
                ("Innocent causes", _causes(shared.innocent)),
                ("To check again", _recheck(shared.recheck)),
                ("Made from", _inputs(shared.inputs)),
            ]
        ),
        *(_finding(each, shared, links, is_first) for each in numbered),
    )


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all findings of a kind have in common; empty where they differ."""

    expected: str
    innocent: tuple[str, ...]
    recheck: str
    inputs: Mapping[str, str]

    @classmethod
    def of(cls, findings: Sequence[AuditFinding]) -> _Shared:
        first, *others = findings
        inputs = {
            name: value
            for name, value in first.inputs.items()
            if others and all(each.inputs.get(name) == value for each in others)
        }
        return cls(
            first.expected if all(each.expected == first.expected for each in others) else "",
            first.innocent if all(each.innocent == first.innocent for each in others) else (),
            first.recheck if all(each.recheck == first.recheck for each in others) else "",
            inputs,
        )


def _finding(numbered: Numbered, shared: _Shared, links: Links, is_first: bool) -> Markup:
    finding = numbered.finding
    inputs = {name: value for name, value in finding.inputs.items() if name not in shared.inputs}
    new = tag("span", "new", class_="new") if finding.is_new and not is_first else ""
    return tag(
        "article",
        tag("h5", f"{numbered.name}. ", _about(finding, links), " ", new),
        tag("p", _sentence(finding.what)),
        facts(
            [
                ("Should be", "" if shared.expected else _sentence(finding.expected)),
                ("Innocent causes", "" if shared.innocent else _causes(finding.innocent)),
                ("First seen", "" if finding.is_new else time_in_words(finding.since)),
                ("Evidence", _evidence(finding, links)),
                ("To check again", "" if shared.recheck else _recheck(finding.recheck)),
                ("Made from", _inputs(inputs)),
            ]
        ),
        id=numbered.name,
    )


def _about(finding: AuditFinding, links: Links) -> Markup | str:
    register = cut(finding.register, _INPUT) or "the ledger as a whole"
    if not finding.spans:
        return f"{register[:1].upper()}{register[1:]}" if not finding.register else register
    spans = finding.spans[:SPANS]

    def at(index: int) -> str:
        return linked(links.exhibits, finding.register, index)

    told_spans = join((at(a) if a == b else join([at(a), " to ", at(b)]) for a, b in spans), ", ")
    left = finding.count - sum(b - a + 1 for a, b in spans)
    more = f" and {left:,} more" if left > 0 else ""
    return join(["Entry " if finding.count == 1 else "Entries ", told_spans, more, f" of {register}"])


def _sentence(text: str) -> Markup | str:
    if not text:
        return ""
    ended = "" if text.endswith((".", "!", "?")) else "."
    return timed(f"{text[:1].upper()}{cut(text[1:], _TEXT)}{ended}")


def _causes(innocent: Sequence[str]) -> str:
    return cut("; ".join(innocent), _TEXT)


def _evidence(finding: AuditFinding, links: Links) -> Markup | str:
    if not finding.evidence:
        return ""
    name = finding.evidence.replace("\\", "/").rpartition("/")[2]
    said = (
        "anybody can check the proof in it, offline"
        if finding.is_proof
        else "it keeps what was served, and is no proof by itself"
    )
    if finding.evidence_id:
        said = f"its entries with their hashes: the line with the id {cut(finding.evidence_id, _INPUT)}"
    return join([tag("a", cut(name, _INPUT), href=links.file(finding.evidence)), f" ({said})"])


def _recheck(text: str) -> Markup | str:
    return tag("code", cut(text, _TEXT)) if text.startswith("daybook ") else cut(text, _TEXT)


def _inputs(inputs: Mapping[str, str]) -> Markup | str:
    if not inputs:
        return ""
    pairs = list(inputs.items())[:_INPUTS]
    short = [(name, cut(value, _INPUT)) for name, value in pairs if "\n" not in value]
    long = [(name, cut(value, _INPUT)) for name, value in pairs if "\n" in value]
    left = len(inputs) - len(pairs)
    said = [f"{_worded(name)}: {value}" for name, value in short] + ([f"{left:,} more"] if left else [])
    blocks = [join([f"{_worded(name)}:", tag("pre", value)]) for name, value in long]
    return join([*([timed("; ".join(said))] if said else []), *(tag("div", block) for block in blocks)])


def _worded(name: str) -> str:
    return cut(name, _INPUT).replace("_", " ")


def weighed(result: AuditResult) -> str:
    """Return in a sentence what was found beside integrity failures: what asks for attention, and what not."""
    asking, informing = _asking(result)
    beside = "Beside the integrity failures, " if any(each.is_failure for each in result.all_findings()) else ""
    are = "is" if informing == 1 else "are"
    if not asking:
        nothing = f"{beside or 'Beside that, '}nothing was found that somebody should look at."
        return f"{nothing} {many(informing, 'finding')} {are} for information only." if informing else nothing
    ask = "finding asks" if asking == 1 else "findings ask"
    none = "" if beside else ", and none is an integrity failure"
    further = f" {informing:,} more {are} for information only." if informing else ""
    rest = "A finding is no accusation; innocent causes that are known stand beside it."
    return f"{beside}{asking:,} {ask} for somebody's attention{none}.{further} {rest}"


def _asking(result: AuditResult) -> tuple[int, int]:
    """Return how many findings beside integrity failures ask for attention, and how many are to inform only.

    Those that are counted only are taken to be as grave as the gravest that is told of their kind.
    """
    findings = result.all_findings()
    asking = sum(not each.is_failure and each.severity is not Severity.INFO for each in findings)
    informing = sum(not each.is_failure and each.severity is Severity.INFO for each in findings)
    failures = {each.code for each in findings if each.is_failure}
    grave = {each.code for each in findings if each.severity is not Severity.INFO}
    told = {each.code for each in findings}
    for code, more in result.more.items():
        if code in told - grave - failures:
            informing += more
        elif code not in failures:
            asking += more
    return asking, informing

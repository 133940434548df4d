"""The findings, the gravest first, each with its evidence and how to look at it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from services.auditing.found import Severity
from services.auditing.report.markup import Markup, cut, join, tag, timed
from services.auditing.report.tables import facts, listed, table
from services.auditing.report.words import SEVERITIES, SOURCES, name_of, time_in_words
from services.auditing.results import AuditFinding, AuditResult

MAX_OF_A_KIND: Final = 40
"""Findings of one code that a report tells; the others are counted."""

MAX_TOLD: Final = 400
"""Findings that a report tells in all."""

_TEXT: Final = 2_000
_INPUT: Final = 600
_INPUTS: Final = 24
_SPANS: Final = 12

Link = Callable[[str], str]
"""Gives the address of a file of evidence, as the page has it, from its path."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """A finding with the name by which this report calls it."""

    name: str
    finding: AuditFinding


@dataclass(frozen=True, slots=True)
class Told:
    """The findings that a report tells, in order, and how many of each code it does not."""

    numbered: tuple[Numbered, ...]
    left: Counter[str]


def told(result: AuditResult) -> Told:
    """Choose what a report tells, the gravest first."""
    ordered = sorted(result.all_findings(), key=_order)
    seen: Counter[str] = Counter()
    numbered: list[Numbered] = []
    left = Counter(dict(result.more))
    for finding in ordered:
        seen[finding.code] += 1
        if seen[finding.code] <= MAX_OF_A_KIND and len(numbered) < MAX_TOLD:
            numbered.append(Numbered(f"F{len(numbered) + 1}", finding))
        else:
            left[finding.code] += 1
    return Told(tuple(numbered), left)


def _order(finding: AuditFinding) -> tuple[bool, int, str, str, tuple[int, int], str]:
    first = finding.spans[0] if finding.spans else (-1, -1)
    return (
        not finding.is_failure,
        -finding.severity.rank,
        finding.code,
        finding.register,
        first,
        finding.what,
    )


def counted(result: AuditResult) -> Markup:
    """Return the table of what was found, by kind."""
    groups: dict[str, list[AuditFinding]] = {}
    for finding in sorted(result.all_findings(), key=_order):
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


def finding_list(result: AuditResult, link: Link) -> Markup:
    """Return the findings: by severity under headings of the third level, by kind under those of the fourth."""
    chosen = told(result)
    groups = groupby(chosen.numbered, key=lambda each: (each.finding.is_failure, each.finding.severity))
    parts = [_group(severity, list(group), link, result.previous is None) for (_, severity), group in groups]
    return join([tag("p", _EXHIBITS), tag("pre", _PACKING), *parts, _left(chosen)])


_EXHIBITS: Final = (
    "Findings are numbered F1, F2 and so on, for this report only. Links under “Exhibit” lead to files in "
    "the folder “evidence” of the auditor's state, so keep this page where it is beside that. The entries "
    "that a finding names can be packed, with all that proves them, for others to verify:"
)
_PACKING: Final = (
    "daybook evidence --register REGISTER --select index=FIRST..LAST --state STATE --policy YOUR_POLICY "
    "--out PACK.zip"
)
_MORE: Final = "the command daybook audit with --json lists up to 1,000 of each kind"


def _group(severity: Severity, numbered: Sequence[Numbered], link: Link, is_first: bool) -> Markup:
    is_failure = numbered[0].finding.is_failure
    title = "Integrity failures" if is_failure else f"Severity: {SEVERITIES[severity].lower()}"
    kinds = groupby(numbered, key=lambda each: each.finding.code)
    return tag(
        "section",
        tag("h3", f"{title} ({len(numbered):,})"),
        *(_kind(code, list(group), link, is_first) for code, group in kinds),
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


def _kind(code: str, numbered: Sequence[Numbered], link: Link, is_first: bool) -> Markup:
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
        *(_finding(each, shared, link, is_first) for each in numbered),
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


def _finding(numbered: Numbered, shared: _Shared, link: Link, is_first: bool) -> Markup:
    finding = numbered.finding
    inputs = {name: value for name, value in finding.inputs.items() if name not in shared.inputs}
    new = tag("span", "new", class_="new") if finding.is_new and not is_first else ""
    return tag(
        "article",
        tag("h5", f"{numbered.name}. {_about(finding)} ", new),
        tag("p", _sentence(finding.what)),
        facts(
            [
                ("Should be", "" if shared.expected else _sentence(finding.expected)),
                ("Innocent causes", "" if shared.innocent else _causes(finding.innocent)),
                ("First seen", "" if finding.is_new else time_in_words(finding.since)),
                ("Exhibit", _exhibit(finding, link)),
                ("To check again", "" if shared.recheck else _recheck(finding.recheck)),
                ("Made from", _inputs(inputs)),
            ]
        ),
        id=numbered.name,
    )


def _about(finding: AuditFinding) -> str:
    register = cut(finding.register, _INPUT) or "the ledger as a whole"
    spans = [f"{a:,}" if a == b else f"{a:,} to {b:,}" for a, b in finding.spans[:_SPANS]]
    if not spans:
        return f"{register[:1].upper()}{register[1:]}" if not finding.register else register
    more = finding.count - sum(b - a + 1 for a, b in finding.spans[:_SPANS])
    listed_spans = ", ".join(spans) + (f" and {more:,} more" if more > 0 else "")
    return f"{'Entry' if finding.count == 1 else 'Entries'} {listed_spans} of {register}"


def _sentence(text: str) -> Markup | str:
    if not text:
        return ""
    ended = "" if text.endswith((".", "!", "?")) else "."
    return timed(f"{text[:1].upper()}{cut(text[1:], _TEXT)}{ended}")


def _causes(innocent: Sequence[str]) -> str:
    return cut("; ".join(innocent), _TEXT)


def _exhibit(finding: AuditFinding, link: Link) -> Markup | str:
    if not finding.evidence:
        return ""
    name = finding.evidence.replace("\\", "/").rpartition("/")[2]
    said = (
        "anybody can check the proof in it, offline"
        if finding.is_proof
        else "it keeps what was served, and is no proof by itself"
    )
    return join([tag("a", cut(name, _INPUT), href=link(finding.evidence)), f" ({said})"])


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
    """Return in a sentence what was found beside integrity failures."""
    failures = {each.code for each in result.all_findings() if each.is_failure}
    count = sum(not each.is_failure for each in result.all_findings())
    count += sum(more for code, more in result.more.items() if code not in failures)
    beside = "Beside the integrity failures, " if failures else ""
    if not count:
        return f"{beside or 'Beside that, '}nothing was found that somebody should look at."
    ask = "finding asks" if count == 1 else "findings ask"
    rest = "A finding is no accusation; innocent causes that are known stand beside it."
    none = "" if beside else ", and none is an integrity failure"
    return f"{beside}{count:,} {ask} for somebody's attention{none}. {rest}"

"""Which findings are about which exhibits: reckoned from the findings of a pack, and never believed.

Findings come as an audit or `daybook findings` prints them, or as somebody wrote them. Whoever checks a pack
reckons the links anew: the index may say nothing else. A finding is its author's statement all the same.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ledger.errors import MalformedError
from services.evidence.exhibits import Exhibit

MAX_LINKS: Final = 100_000
"""Times that findings of one pack may name an exhibit."""

MAX_VISITS: Final = 1_000_000
"""Spans of findings, and exhibits in them, that are looked at."""

MAX_FINDINGS: Final = 50_000

_WORDS: Final = ("explanation", "what", "description")
"""The member that says what was found: of a detection, of an audit, of others."""


@dataclass(frozen=True, slots=True)
class FindingLink:
    """A finding that is about exhibits: `label` (``F/1``), where it stands in the file, and its exhibits.

    `at` is a JSON pointer (RFC 6901). `exhibits` are labels with the digests of their records.
    """

    label: str
    at: str
    code: str
    says: str
    exhibits: tuple[tuple[str, str], ...]

    def listed(self) -> dict[str, Any]:
        """Return what the index says of it."""
        return {
            "label": self.label,
            "at": self.at,
            "code": self.code,
            "exhibits": [{"label": label, "sha256": sha256} for label, sha256 in self.exhibits],
        }


def link_findings(
    findings: Mapping[str, Any], ledger_origin: str, exhibits: Sequence[Exhibit]
) -> tuple[FindingLink, ...]:
    """Return the findings that are about exhibits, numbered in the order of the file.

    Raises MalformedError where they are of another ledger, or name an exhibit that is not there or has other
    bytes, or where there are too many.
    """
    stated = findings.get("ledger")
    if isinstance(stated, str) and stated != ledger_origin:
        raise MalformedError(f"findings of another ledger: {stated}")
    linker = _Linker(exhibits)
    links: list[FindingLink] = []
    total = 0
    for number, (at, register, finding) in enumerate(_findings(findings)):
        if number == MAX_FINDINGS:
            raise MalformedError(f"more than {MAX_FINDINGS} findings")
        named = linker.exhibits(at, register, finding)
        total += len(named)
        if total > MAX_LINKS:
            raise MalformedError(f"findings name exhibits more than {MAX_LINKS} times")
        if named:
            code = _text(finding, ("detection", "code"))
            says = _text(finding, _WORDS)
            links.append(FindingLink(f"F/{len(links) + 1}", at, code, says, named))
    return tuple(links)


def by_exhibit(links: Sequence[FindingLink]) -> Mapping[str, list[FindingLink]]:
    """Return the findings of each exhibit, by its label."""
    found: dict[str, list[FindingLink]] = {}
    for link in links:
        for label, _ in link.exhibits:
            found.setdefault(label, []).append(link)
    return found


def _text(finding: Mapping[str, Any], names: Sequence[str]) -> str:
    return next((finding[name] for name in names if isinstance(finding.get(name), str)), "")


def _findings(value: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield each finding with where it stands and its register: those of the file, then of each register."""
    yield from _listed("", value)
    registers = value.get("registers")
    for place, register in enumerate(registers if isinstance(registers, list) else ()):
        if isinstance(register, dict):
            yield from _listed(f"/registers/{place}", register)


def _listed(at: str, value: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    findings = value.get("findings")
    for place, finding in enumerate(findings if isinstance(findings, list) else ()):
        if isinstance(finding, dict):
            yield (
                f"{at}/findings/{place}",
                _text(finding, ("register",)) or _text(value, ("register",)),
                finding,
            )


class _Linker:
    def __init__(self, exhibits: Sequence[Exhibit]) -> None:
        self._register = exhibits[0].verified.register if exhibits else ""
        by_index = sorted((each.verified.index, each.label) for each in exhibits)
        self._indices = [index for index, _ in by_index]
        self._labels = [label for _, label in by_index]
        self._digests = {each.label: each.digest for each in exhibits}
        self._places = {label: place for place, label in enumerate(self._digests)}
        self._visits = 0

    def exhibits(self, at: str, register: str, finding: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        """Return the exhibits of a finding, in their order."""
        named = set(self._stated(at, finding))
        if register == self._register:
            named |= self._of_entries(finding)
        return tuple((label, self._digests[label]) for label in sorted(named, key=self._places.__getitem__))

    def _of_entries(self, finding: Mapping[str, Any]) -> set[str]:
        named: set[str] = set()
        for first, last in _spans(finding):
            begin, end = bisect_left(self._indices, first), bisect_right(self._indices, last)
            self._visits += 1 + end - begin
            if self._visits > MAX_VISITS:
                raise MalformedError(f"findings list entries more than {MAX_VISITS} times")
            named.update(self._labels[begin:end])
        return named

    def _stated(self, at: str, finding: Mapping[str, Any]) -> Iterator[str]:
        """Yield the exhibits that a finding names itself, each of them there, with the bytes that it states."""
        stated = finding.get("exhibits")
        if not isinstance(stated, list | None):
            raise MalformedError(f"finding {at}: its exhibits are no list")
        for each in stated or ():
            label = each.get("label") if isinstance(each, dict) else each
            sha256 = each.get("sha256") if isinstance(each, dict) else None
            if not isinstance(label, str) or label not in self._digests:
                raise MalformedError(f"finding {at}: it names exhibit {label!r}, which is not in this pack")
            if sha256 is not None and sha256 != self._digests[label]:
                raise MalformedError(f"finding {at}: it states another digest of exhibit {label}")
            yield label


def _spans(finding: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    indices, spans = finding.get("indices"), finding.get("spans")
    for index in indices if isinstance(indices, list) else ():
        if _is_index(index):
            yield index, index
    for span in spans if isinstance(spans, list) else ():
        if isinstance(span, list) and len(span) == 2 and all(map(_is_index, span)) and span[0] <= span[1]:
            yield span[0], span[1]


def _is_index(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**53

"""The report of an audit: what it says for each verdict, and that nothing in it is anybody else's markup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, date, datetime
from enum import Enum
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlparse

import pytest

from ledger.governing import GOVERNING
from services.auditing.after_returns import AfterReturnCounts
from services.auditing.detections.rules import RULES
from services.auditing.found import Severity
from services.auditing.report import finding_choice, registers, texts, writing
from services.auditing.report.figures import Figures, Tally
from services.auditing.report.page import Basis, report_page
from services.auditing.report.words import NAMES, name_of
from services.auditing.report.writing import relative
from services.auditing.results import AuditResult, Promises, Standing, Unread
from services.cli.audit_report import audit_json, audit_lines
from services.monitoring.findings import Kind
from tests.support.audited import found, verdict
from tests.support.audited_months import SECOND, Months, months
from tests.support.ledgers import REGISTER, decision
from tests.support.monitored import seal, sign
from tests.support.tiled_site import status

UNTIL: Final = date(2026, 6, 26)
HOSTILE: Final = (
    "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'><a href='//evil.example'>\u202e\x1b[2J&amp;"
)

DOCS: Final = Path(__file__).parents[3] / "docs"


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Months]:
    with months(tmp_path, UNTIL) as it:
        yield it


class Parsed(HTMLParser):
    """A page: its elements with their attributes, its text, and what stands in each part."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("a", "code", "span"):
            self.texts.append(" ")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    @property
    def links(self) -> list[str]:
        return [attributes["href"] for tag, attributes in self.elements if "href" in attributes]


def read(path: Path) -> Parsed:
    return Parsed(path.read_bytes())


async def test_an_intact_ledger_is_called_so_first_and_what_is_open_is_said(it: Months) -> None:
    """False if a reader met anything before the verdict, or a first visit claimed the past."""
    result = await it.visit()
    page = read(it.report(result))
    text = page.text[page.text.index("Skip to the verdict") :]
    assert text.index("✓ Intact") < text.index("No integrity failure was found") < text.index("Contents")
    assert texts.INTACT_AT_FIRST in text
    assert texts.INTACT not in text
    for sentence in (*texts.LIMITS, *result.cannot_claim):
        assert " ".join(sentence.split()) in text
    assert "A policy profile is a choice of limits, and no law." in text
    assert "A finding is no accusation." in text
    for told in (result.profile, result.calendar, result.policy_fingerprint, f"Daybook {result.software}"):
        assert told in text


async def test_a_second_visit_says_what_is_new(it: Months) -> None:
    """False if growth were not told, or an old finding were called new."""
    await it.visit()
    late = decision(900, SECOND, reference={"number": 900, "series": "PS/2026"}, decided_at="2026-01-05")
    it.register(datetime(2026, 7, 1, 10, tzinfo=UTC), SECOND, [late])
    result = await it.visit()
    page = read(it.report(result))
    assert texts.INTACT in page.text
    assert "since your last visit" in page.text
    new = [each for each in result.all_findings() if each.is_new]
    assert sum(attributes.get("class") == "new" for _, attributes in page.elements) == len(new) > 0
    assert "First seen" in page.text


async def test_a_failure_is_the_verdict_and_its_exhibit_is_linked(it: Months, tmp_path: Path) -> None:
    """False if a reader could miss a fork, or the link did not lead to the file that proves it."""
    await it.visit()
    entries = it.it.entries(REGISTER)
    lie = [*entries[:8], *reversed(entries[8:])]
    it.it.site.put(REGISTER, lie, seal(sign(REGISTER, lie), it.now))
    result = await it.visit()
    folder = tmp_path / "reports & other, papers"
    folder.mkdir()
    path = it.report(result, folder / "june #1.html")
    page = read(path)
    assert "✗ Failed" in page.text
    assert texts.FAILED in page.text
    assert "Intact No integrity" not in page.text
    fork = found(result, "fork")
    (link,) = [each for each in page.links if "evidence/fork" in each]
    assert not urlparse(link).scheme
    assert leads_to(path, link, fork.evidence)
    first = page.text.index("F1. ")
    assert REGISTER in page.text[first : first + 100]
    assert page.text.index("Integrity failures (1)") < first < page.text.index("Severity: ")
    assert fork.recheck in page.text


def leads_to(page: Path, link: str, file: str) -> bool:
    target = (page.parent / unquote(link)).resolve()
    return target.is_file() and target == Path(file).resolve()


async def test_what_could_not_be_read_is_not_called_intact(it: Months) -> None:
    """False if a ledger that hides from the auditor had a green report."""
    it.it.site.answers[f"/logs/{SECOND}/checkpoint"] = status(503)
    result = await it.visit()
    page = read(it.report(result))
    assert not result.failed
    assert "! Incomplete" in page.text
    assert texts.INCOMPLETE in page.text
    assert "What could not be read" in page.text
    assert f"{SECOND} Not read to its end" in page.text


async def test_the_same_audit_gives_the_same_bytes(it: Months) -> None:
    """False if a report could not be made again and compared."""
    result = await it.visit()
    page = it.report(result).read_bytes()
    assert it.report(result).read_bytes() == page
    basis = Basis("A", "B", Tally().figures())
    shuffled = replace(result, registers=tuple(reversed(result.registers)))
    assert told(report_page(result, basis, str)) == told(report_page(shuffled, basis, str))


def told(page: bytes) -> list[str]:
    """Return the headings of findings."""
    return re.findall(r"<h5>(F\d+\. [^<]*)", page.decode())


async def test_the_gravest_stands_first_whatever_it_is_called(it: Months) -> None:
    """False if a finding that is no failure stood before one, or an idle one before a grave one."""
    result = await it.visit()
    one = found_of_a_kind(result)
    kinds = [
        replace(one, code="beyond-closure", severity=Severity.CRITICAL),
        replace(one, code="restored", severity=Severity.INFO),
        replace(one, code="second-tree", severity=Severity.CRITICAL, is_failure=True),
        replace(one, code="view-not-sealed", severity=Severity.HIGH),
    ]
    bare = tuple(replace(each, findings=()) for each in result.registers)
    page = report_page(replace(result, registers=bare, findings=tuple(kinds)), None, str).decode()
    headings = re.findall(r"<h4>[^(]*\(([a-z-]+)\)", page)
    assert headings == ["second-tree", "beyond-closure", "view-not-sealed", "restored"]
    assert re.findall(r"<h3>([^<]*)</h3>", page[: page.index('id="registers"')]) == [
        "Integrity failures (1)",
        "Severity: critical (1)",
        "Severity: high (1)",
        "Severity: for information (1)",
    ]


async def test_every_finding_is_told_with_what_it_was_made_from(it: Months) -> None:
    """False if a finding, its numbers, innocent causes or how to check it again were left out."""
    result = await it.visit()
    page = read(it.report(result))
    assert len(told(it.report(result).read_bytes())) == len(result.all_findings()) > 15
    for finding in result.all_findings():
        for words in (*finding.innocent, finding.recheck, *finding.inputs.values()):
            assert " ".join(words.split()) in page.text


async def test_hostile_text_anywhere_is_text(it: Months) -> None:
    """False if a record, a ledger or a file's name could put markup, a link or a reversed line into it."""
    result = await it.visit()
    full = replace(
        result,
        findings=result.all_findings(),
        unread=(Unread("a", "b"),),
        promises=Promises(1),
        registers=tuple(replace(each, details=("a",)) for each in result.registers),
        remarks=("a",),
        more={"DET-01": 3},
    )
    figures = replace(empty(), registers={"a": {}})
    clean = Parsed(report_page(full, Basis("a", "b", figures), lambda path: path))
    hostile = report_page(
        poisoned(full), Basis(HOSTILE, HOSTILE, replace(figures, registers={HOSTILE: {}})), lambda _: "x"
    )
    page = Parsed(hostile)
    assert "<script>alert(1)</script>" in page.text
    assert page.tags <= clean.tags | {"pre"}
    assert not page.tags & {"script", "img", "iframe", "object", "form", "base", "link"}
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "style")]
    assert all(link == "x" or link.startswith("#") for link in page.links)
    assert "\u202e" not in hostile.decode()
    assert "\x1b" not in hostile.decode()
    assert "{U+202E}" in page.text


async def test_what_came_after_a_return_is_a_class_of_its_own(it: Months) -> None:
    """False if a decision behind a return were told by a finding alone, or lost its class in time by it.

    Of June's return there are: two decisions that came after it, one of them in time and one late, and one that
    was corrected out of it. A decision of July is none.
    """
    before = read(it.report(await it.visit()))
    assert "Added or changed after a return" not in before.text
    assert "Either 0 0.0" in before.text
    it.go_behind_a_return(date(2026, 7, 2))
    result = await it.visit()
    assert verdict(result).after_returns == AfterReturnCounts(added=2, changed=1)
    assert verdict(result, SECOND).after_returns == AfterReturnCounts()
    assert verdict(result, GOVERNING).after_returns is None
    told_of = {each["register"]: each["after_returns"] for each in audit_json(result)["registers"]}
    assert told_of == {
        GOVERNING: None,
        SECOND: {"added": 0, "changed": 0},
        REGISTER: {"added": 2, "changed": 1},
    }
    line = (
        "  Decisions by the returns before them: 2 added after the return that should have counted them; "
        "1 changed after a return, into or out of what it counts"
    )
    assert line in list(audit_lines(result))
    page = it.report(result).read_bytes().decode()
    text = Parsed(page.encode()).text
    assert "Added after the return that should have counted it 2 " in text
    assert "Changed after a return, into or out of what it counts 1 " in text
    assert "3 of them were added or changed after a return that should have counted them." in text
    legend = page[page.index('<ul class="legend">') : page.index("<figcaption>")]
    assert "diamond around a mark: added or changed after the return" in legend
    plot = page[page.index('id="timeline-title"') : page.index('<ul class="legend">')]
    (around,) = re.findall(r'<path d="([^"]*)"[^>]* class="after-return"', plot)
    assert around.count("z") == 3
    assert "The hollow part at the foot of a bar counts those that were added or changed after a return" in text


async def test_every_finding_leads_to_its_exhibits_and_they_lead_back(it: Months) -> None:
    """False if a reader could not get from a finding to the entries it is about, or met another one's hash."""
    result = await it.visit()
    page = it.report(result).read_bytes().decode()
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    rows = {
        row[1]: row
        for row in re.findall(
            r'<th scope="row"><span id="(E\d+)">(E\d+)</span></th><td>([^,]*), entry ([\d,]+)</td>(.*?)</tr>',
            page,
        )
    }
    articles = re.findall(r'<article id="(F\d+)"><h5>F\d+\. (.*?)</h5>(.*?)</article>', page)
    assert len(articles) == len(result.all_findings())
    with_entries = 0
    for name, heading, body in articles:
        links = re.findall(r'<a href="#(E\d+)">([\d,]+)</a>', heading)
        assert bool(links) == ("ntries " in heading or "ntry " in heading)
        with_entries += bool(links)
        for exhibit, index in links:
            _, _, register, listed, rest = rows[exhibit]
            assert listed == index
            assert heading.endswith(f" of {register} ")
            assert f'href="#{name}"' in rest or "more" in rest
            entry = it.it.entries(register)[int(index.replace(",", ""))]
            digest = sha256(b"\0" + entry).hexdigest()
            assert f"<code>{digest}</code>" in rest
        assert "evidence/" in body
    assert with_entries > 15


async def test_exhibits_that_are_too_many_are_counted(it: Months, monkeypatch: pytest.MonkeyPatch) -> None:
    """False if a page could grow without end, or a link led to an exhibit that is not listed."""
    result = await it.visit()
    monkeypatch.setattr(writing, "MAX_EXHIBITS", 3)
    page = it.report(result).read_bytes().decode()
    links = set(re.findall(r'href="#(E\d+)"', page))
    assert links == set(re.findall(r'id="(E\d+)"', page)) == {"E1", "E2", "E3"}
    assert "Also named, and not listed here: " in page


def poisoned(value: Any) -> Any:
    """Return a value with hostile text for every text in it that is no code of ours."""
    if isinstance(value, Enum):
        return value
    if isinstance(value, str):
        return f"{value}{HOSTILE}"
    if is_dataclass(value) and not isinstance(value, type):
        changed = {each.name: poisoned(getattr(value, each.name)) for each in fields(value)}
        return replace(value, **changed)
    if isinstance(value, tuple):
        return tuple(map(poisoned, value))
    if isinstance(value, dict):
        return {f"{name}{HOSTILE}": poisoned(each) for name, each in value.items()}
    return value


def empty() -> Figures:
    return Tally().figures()


async def test_a_report_stays_small_whatever_was_found(it: Months) -> None:
    """False if a ledger with many registers, findings or long texts made a page that no browser opens."""
    result = await it.visit()
    finding = replace(
        found_of_a_kind(result), what="w" * 65_536, inputs={f"note {n}": "i\n" * 30_000 for n in range(50)}
    )
    many = tuple(
        replace(finding, code=f"DET-{code:02}", spans=tuple((n, n) for n in range(100)), count=100 + n)
        for code in range(20)
        for n in range(1_000)
    )
    verdict = replace(result.registers[1], findings=(), checkpoint="c" * 65_536, verdict="v" * 65_536)
    shown = tuple(replace(verdict, register=f"department/office-{n}") for n in range(3_000))
    failed = replace(verdict, register="department/failed", standing=Standing.FAILED)
    big = replace(result, findings=many, registers=(*shown, failed), more={"DET-01": 1_000_000})
    page = report_page(big, Basis("a", "b", empty()), str)
    assert len(page) < 12_000_000
    text = Parsed(page).text
    assert len(told(page)) == finding_choice.MAX_TOLD
    counted_only = 20 * 1_000 + 1_000_000 - finding_choice.MAX_TOLD
    assert f"Counted only ({counted_only:,})" in text
    assert "1,000,960 of Late registration (DET-01)" in text
    assert f"{3_001 - registers.MAX_REGISTERS:,} more registers not listed here" in text
    assert "department/failed Failed" in text
    assert "1,020,000 findings ask for somebody's attention" in text


def found_of_a_kind(result: AuditResult) -> Any:
    return next(each for each in result.all_findings() if each.code == "DET-01")


async def test_no_detection_run_means_no_plot_and_no_claim_of_lateness(it: Months) -> None:
    """False if a report told of a profile that nothing was judged by."""
    result = replace(await it.visit(), profile="", calendar="")
    page = read(it.report(result))
    assert "svg" not in page.tags
    assert "none: no detection was run" in page.text


async def test_the_governing_register_is_told_as_any_other(it: Months) -> None:
    """False if the register that holds the keys were missing from the report."""
    result = await it.visit()
    page = read(it.report(result))
    governing = next(each for each in result.registers if each.register == GOVERNING)
    assert governing.root in page.text
    assert f"{GOVERNING} Intact {governing.size} {governing.size} 0" in page.text


def test_every_code_that_is_documented_has_a_name() -> None:
    """False if a reader met a code without words for it."""
    documented = re.findall(r"`([a-z-]+)`", "".join(rows((DOCS / "auditing.md").read_text())))
    assert len(documented) > 20
    for code in (*documented, *Kind):
        assert code in NAMES, code
    assert name_of("DET-01") == "Late registration"
    assert name_of("something-new") == "Something new"
    assert all(name_of(each) != each for each in RULES)


def rows(text: str) -> list[str]:
    """Return the first column of the tables of what an audit finds."""
    part = text[text.index("## What it finds") : text.index("## How it is done")]
    return [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]


def test_a_link_is_an_address_whatever_the_folders_are_called(tmp_path: Path) -> None:
    """False if a folder's name could make an address of another kind, or a broken one."""
    page = tmp_path / "javascript:alert(1)" / "report.html"
    evidence = tmp_path / "javascript:alert(1)" / "javascript:x?#" / "evidence" / "a b.json"
    assert relative(str(evidence), page) == "javascript%3Ax%3F%23/evidence/a%20b.json"
    assert relative(str(tmp_path / "state/evidence/a.json"), page) == "../state/evidence/a.json"

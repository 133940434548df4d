"""The report in a real Chromium: for everybody, on any screen and on paper, and without a network."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, Page

from services.auditing.results import AuditResult
from tests.support.audited_months import SECOND, Months, months
from tests.support.chromium import assert_accessible
from tests.support.ledgers import REGISTER, decision
from tests.support.monitored import seal, sign
from tests.support.tiled_site import status

NAMES: Final = ("intact", "failed", "incomplete")
NARROW: Final = 320
"""Pixels at which nothing but tables and plots may scroll sideways (WCAG 2.2, 1.4.10)."""

CUT_OFF: Final = """all => all.filter(each => {
    const style = getComputedStyle(each);
    const spills = each.clientWidth && each.scrollWidth > each.clientWidth + 1;
    return spills && !each.closest(".scroll") && style.display !== "inline";
}).map(each => each.outerHTML.slice(0, 80))"""
"""What is wider than its place, outside of what scrolls by itself."""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, AuditResult]]:
    """A report of each verdict, made before the browser runs."""
    folders = {name: tmp_path_factory.mktemp(name) for name in NAMES}
    return {name: asyncio.run(_made(name, folder)) for name, folder in folders.items()}


async def _made(name: str, folder: Path) -> tuple[Path, AuditResult]:
    with months(folder, date(2026, 7, 10)) as it:
        await it.visit()
        if name == "failed":
            _fork(it)
        elif name == "incomplete":
            it.it.site.answers[f"/logs/{SECOND}/checkpoint"] = status(503)
        else:
            hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>"
            reference = {"number": 900, "series": "PS/2026"}
            it.register(
                datetime(2026, 7, 13, 9, tzinfo=UTC),
                SECOND,
                [decision(900, SECOND, reference=reference, title=hostile)],
            )
            it.go_behind_a_return(date(2026, 7, 14))
        result = await it.visit()
        return it.report(result), result


def _fork(it: Months) -> None:
    entries = it.it.entries(REGISTER)
    lie = [*entries[:8], *reversed(entries[8:])]
    it.it.site.put(REGISTER, lie, seal(sign(REGISTER, lie), it.now))


@pytest.fixture(params=NAMES)
def report(request: pytest.FixtureRequest, reports: dict[str, tuple[Path, AuditResult]]) -> Path:
    path, _ = reports[request.param]
    return path


@pytest.fixture
def page(report: Path, browser: Browser) -> Iterator[Page]:
    """A report opened from the disk; anything that it asks for, or that its policy refuses, fails the test."""
    context = browser.new_context(viewport={"width": 1_000, "height": 900})
    page = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.goto(report.as_uri())
    yield page
    assert asked == [report.as_uri()]
    assert said == []
    context.close()


@pytest.mark.parametrize(("width", "media"), [(NARROW, "screen"), (1_000, "screen"), (688, "print")])
def test_axe_finds_nothing_wrong(page: Page, width: int, media: str) -> None:
    """False if somebody who sees little, or uses no mouse, were kept out."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(media=media)  # type: ignore[arg-type]
    assert_accessible(page)


def test_headings_are_in_order_and_every_link_on_the_page_leads_somewhere(page: Page) -> None:
    """False if a reader who goes by headings met a gap, or a link that leads nowhere."""
    levels = page.eval_on_selector_all("h1,h2,h3,h4,h5,h6", "all => all.map(each => Number(each.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))
    assert page.inner_text("main h2 >> nth=0") == "Verdict"
    missing = page.eval_on_selector_all(
        "a[href^='#']", "all => all.filter(each => !document.getElementById(each.hash.slice(1))).length"
    )
    assert missing == 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the verdict"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0


def test_only_tables_and_plots_scroll_sideways_on_a_narrow_screen(page: Page) -> None:
    """False if a telephone showed lines cut off."""
    page.set_viewport_size({"width": NARROW, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") == NARROW
    wide = page.eval_on_selector_all("main *", CUT_OFF)
    assert wide == []


def test_nothing_is_lost_on_paper(page: Page, report: Path) -> None:
    """False if a printed table were cut off, or the plots or the addresses of exhibits were gone."""
    page.set_viewport_size({"width": 688, "height": 1_000})  # A4 within the margins.
    page.emulate_media(media="print")
    cut_off = page.eval_on_selector_all(
        ".scroll", "all => all.filter(e => e.scrollWidth > document.documentElement.clientWidth).length"
    )
    assert cut_off == 0
    assert (
        page.eval_on_selector_all(
            ".plot", "all => all.filter(e => e.getBoundingClientRect().height > 100).length"
        )
        == 2
    )
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b", printed)) > 3
    if page.locator("dd a").count():
        content = page.locator("dd a").first.evaluate("e => getComputedStyle(e, '::after').content")
        assert "evidence/" in content


def test_the_page_can_run_nothing_at_all(page: Page) -> None:
    """False if a script that found its way in could run, or reach the network."""
    assert page.locator("script, [onclick], img, iframe, link, form").count() == 0
    policy = page.get_attribute("meta[http-equiv='Content-Security-Policy']", "content") or ""
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    # The style is in force, so it is the one whose digest the policy names.
    assert page.eval_on_selector(".verdict", "e => getComputedStyle(e).borderTopWidth") == "4px"


def test_the_verdict_is_said_in_words_and_not_by_colour_alone(
    reports: dict[str, tuple[Path, AuditResult]], browser: Browser
) -> None:
    """False if somebody who sees no colours could not tell the three verdicts from each other."""
    said = {}
    for name, (path, _) in reports.items():
        page = browser.new_page()
        page.goto(path.as_uri())
        said[name] = page.inner_text(".verdict .label").split()[-1]
        page.close()
    assert said == {"intact": "Intact", "failed": "Failed", "incomplete": "Incomplete"}

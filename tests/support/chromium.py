"""A real Chromium for tests of pages: the system's own, driven headless by Playwright.

Where there is none it is installed from Debian's packages, if this is root on Debian; else the tests are
skipped with a message that says what to install. Where CI is set they fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, Page, sync_playwright

GIVEN: Final = "DAYBOOK_CHROMIUM"
"""The variable that gives the path of a Chromium."""

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")

_ARGUMENTS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

_INSTALL: Final = "apt-get install chromium"


class ChromiumMissingError(Exception):
    """There is no Chromium here; the message says what to install."""


def find_chromium() -> str:
    """Return the path of a Chromium, installed first where that is possible. Raises ChromiumMissingError."""
    given = os.environ.get(GIVEN)
    if given:
        if shutil.which(given) is None:
            raise ChromiumMissingError(f"{GIVEN} names {given}, which is no program")
        return given
    found = _found()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        _install()
        found = _found()
    if found is None:
        raise ChromiumMissingError(f"no Chromium here. Install it ({_INSTALL}), or name one with {GIVEN}")
    return found


def _found() -> str | None:
    return next((path for path in map(shutil.which, _NAMES) if path), None)


def _install() -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]):
        subprocess.run(command, env=environment, capture_output=True, check=False, timeout=280)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a Chromium. Raises ChromiumMissingError."""
    path = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium that every test of a module shares; each takes a context of its own.

    Of one module: while Playwright runs, no other event loop can.
    """
    try:
        find_chromium()
    except ChromiumMissingError as missing:
        _go_without(str(missing))
    with chromium() as running:
        yield running


def assert_accessible(page: Page) -> None:
    """Assert that axe-core finds nothing wrong with a page, in the state in which it is."""
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def _go_without(why: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)

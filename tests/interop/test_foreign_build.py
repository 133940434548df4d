"""What of foreign programs is built, and our own Go beside them, is in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.interop import foreign_build

pytestmark = [pytest.mark.journey, pytest.mark.timeout(1_200)]


def test_every_program_is_built(foreign: Path) -> None:
    """If false, a program that the documents name is not in the module, or another one is."""
    named = {path.rpartition("/")[2] for path in tools()} | {main.parent.name for main in mains()}
    assert named <= {path.name for path in foreign.iterdir()}


def test_our_own_go_is_formatted_and_vetted(foreign: Path) -> None:
    """If false, gofmt or go vet has something to say about it."""
    assert foreign_build.vet() == ""


def test_the_page_names_each_program_and_its_version() -> None:
    """If false, docs/interoperation.md claims what was not checked, or at another version."""
    page = (foreign_build.ROOT / "docs" / "interoperation.md").read_text(encoding="utf-8")
    for program in tools():
        module, version = of_module(program)
        assert f"`{program}`" in page
        assert re.search(rf"`{re.escape(module)}`[^\n]*{re.escape(version)}", page), module
    for main in mains():
        assert f"`{main.parent.name}`" in page


def tools() -> list[str]:
    """Return the foreign programs: the tools of go.mod."""
    module = (foreign_build.FOREIGN / "go.mod").read_text(encoding="utf-8")
    (block,) = re.findall(r"^tool \(\n(.*?)^\)", module, re.MULTILINE | re.DOTALL)
    return re.findall(r"^\t(\S+)$", block, re.MULTILINE)


def mains() -> list[Path]:
    """Return our own programs."""
    return sorted(foreign_build.FOREIGN.glob("*/main.go"))


def of_module(program: str) -> tuple[str, str]:
    """Return the module that a program is of, and its version."""
    text = (foreign_build.FOREIGN / "go.mod").read_text(encoding="utf-8")
    required = re.findall(r"^\t(\S+) (v\S+)", text, re.MULTILINE)
    (found,) = [(module, version) for module, version in required if program.startswith(f"{module}/")]
    return found

